"""Numbers in words, at every border where the wording changes; literals worked out by hand."""

import pytest

from utils.words import cell, count, duration, number, percent, plural, size


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (0.5, "0.5"),
        (999, "999"),
        (1000, "1k"),
        (65_000, "65k"),
        (999_499, "999k"),
        (999_500, "1M"),
        (999_700, "1M"),
        (8_510_000, "8.51M"),
        (999_499_999, "999M"),
        (999_999_999, "1B"),
        (1_234_000_000, "1.23B"),
        (3.6e13, "36T"),
        (1.234e15, "1,230T"),
        (-1_500, "-1.5k"),
        (None, "-"),
    ],
)
def test_a_count_has_three_digits_and_never_an_exponent(value, said):
    assert count(value) == said


def test_a_count_for_a_table_may_have_more_digits():
    counts = [count(value, 4) for value in (251_700_000, 999_950, 999_949)]
    assert counts == ["251.7M", "1M", "999.9k"]


def test_bytes_come_in_the_unit_that_fits():
    sizes = [size(value) for value in (0, 812, 20_480, 999_999, 15_400_000_000, 2.5e12, None)]
    assert sizes == ["0 bytes", "812 bytes", "20.5 kB", "1 MB", "15.4 GB", "2.5 TB", "-"]


def test_measured_numbers_are_short():
    assert [number(x) for x in (0, 1.23456, 37.4, 99.9996, 123.4, 999.7, 4821.0, 2.35e8, None)] == [
        "0.000", "1.235", "37.400", "100.000", "123", "1,000", "4,821", "2.35e+08", "-",
    ]  # fmt: skip
    assert (number(0.69314, 4), number(-2.5), number(-150.2)) == ("0.6931", "-2.500", "-150")


def test_shares_are_percentages_written_one_way():
    assert [percent(share) for share in (0, 0.6217, 1, 1.5, None)] == [
        "0.0%", "62.2%", "100.0%", "150.0%", "-",
    ]  # fmt: skip
    assert (percent(0.6217, 0), percent(0.6217, 2)) == ("62%", "62.17%")


def test_cells_are_whole_or_have_four_digits():
    values = (None, 0, 12, 1234, 14_700_000, 0.09768, 1933.4, 9999.6, True, "text")
    assert [cell(value) for value in values] == [
        "-", "0", "12", "1,234", "14,700,000", "0.09768", "1,933", "10,000", "True", "text",
    ]  # fmt: skip


def test_durations_have_two_digits():
    words = [duration(s) for s in (0, 1e-5, 4.56, 45, 250, 5000, 9000, 1e6, 1e8)]
    assert words == ["0 s", "0 s", "4.6 s", "45 s", "4.2 min", "83 min", "2.5 h", "12 d", "1,157 d"]
    assert [duration(s) for s in (89, 90, 5399, 5400, 172_799, 172_800)] == [
        "89 s", "1.5 min", "90 min", "1.5 h", "48 h", "2 d",
    ]  # fmt: skip
    assert [duration(s) for s in (-4.56, -250, -1e6)] == ["-4.6 s", "-4.2 min", "-12 d"]


def test_nouns_take_an_s_unless_there_is_one():
    assert [plural(n, "row") for n in (0, 1, 2, 4000)] == [
        "0 rows",
        "1 row",
        "2 rows",
        "4,000 rows",
    ]
