"""The text tables of planning."""

from utils.planning.table import cell, table


def test_cells_are_short():
    values = (None, 12, 1234, 14_700_000, 5_033_900_000, 3_600_000_000_000, 0.0977, "text")
    cells = [cell(value) for value in values]
    assert cells == ["-", "12", "1,234", "14.7M", "5.034B", "3.6T", "0.0977", "text"]


def test_numbers_stand_on_the_right():
    text = table([{"a": "x", "b": 1}, {"a": "long", "b": None}], (("a", "name"), ("b", "count")))
    assert text == "name  count\nx         1\nlong      -\n"
