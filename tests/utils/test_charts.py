import math
from xml.etree import ElementTree

import pytest

from utils.charts import Bar, Mark, Series, interval_chart, line_chart, pair_chart, thin, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (0.3, 0.7, [0.3, 0.4, 0.5, 0.6, 0.7]), (5, 5, None)],
)
def test_ticks_are_round_and_cover_the_range(low, high, expected):
    found = ticks(low, high)
    assert found[0] <= low + 1e-9 and found[-1] >= high - 1e-9
    if expected:
        assert found == pytest.approx(expected)


def test_a_chart_is_well_formed_and_has_a_title_and_a_description():
    points = [(step, 9 / (step + 1)) for step in range(100)]
    svg = line_chart("Loss <1> & more", "step", "nats", [Series("loss", points)])
    tree = ElementTree.fromstring(svg)
    assert tree.get("role") == "img"
    assert tree.find("title").text == "Loss <1> & more"
    assert tree.find("desc").text == "nats over step. loss: from 9 to 0.09."


def test_points_stay_inside_the_picture():
    tree = ElementTree.fromstring(line_chart("t", "x", "y", [Series("s", [(0, -3), (7, 11)])]))
    (line,) = tree.findall("polyline")
    for pair in line.get("points").split():
        x, y = map(float, pair.split(","))
        assert 0 <= x <= 640 and 0 <= y <= 280


def highest_label(svg):
    texts = [text.text for text in ElementTree.fromstring(svg).findall("text[@text-anchor='end']")]
    return max(float(text) for text in texts if text[0].isdigit())


def test_a_high_start_is_cut_off_and_said_and_what_comes_later_is_not():
    steps = [(step, 21.6 if step < 2 else 2 - step / 200) for step in range(200)]
    svg = line_chart("t", "step", "nats", [Series("s", steps)])
    assert highest_label(svg) == 2 and ">up to 21.6 at the start<" in svg
    (line,) = ElementTree.fromstring(svg).findall("polyline")
    heights = [float(pair.split(",")[1]) for pair in line.get("points").split()]
    assert len(heights) == 199 and heights[0] == 34 < min(heights[1:])  # enters from above
    few = line_chart("t", "x", "y", [Series("s", [(0, 9), (100, 1), (200, 0)])])
    (line,) = ElementTree.fromstring(few).findall("polyline")
    assert line.get("points").split()[0] == "344.0,34.0" and few.count("<circle") == 2
    svg = line_chart("t", "step", "nats", [Series("s", [*steps, (200, 21.6)])])  # a spike
    assert highest_label(svg) == 25 and "at the start" not in svg
    svg = line_chart("t", "step", "nats", [Series("s", [(0, 2.4), *steps[2:]])])  # not steep
    assert highest_label(svg) == 2.5 and "at the start" not in svg


def test_marks_stand_at_their_place_and_are_labelled_where_there_is_room():
    lines = [Series("s", [(0, 0), (100, 1)])]
    marks = [Mark(50, "resume"), Mark(51, "resume"), Mark(100, "early stop")]
    tree = ElementTree.fromstring(line_chart("t", "x", "y", lines, marks))
    places = [float(line.get("x1")) for line in tree.findall("line[@class='mark']")]
    assert places == [344.0, 349.6, 624.0]  # 64 + share x (640 - 16 - 64)
    labels = [text.text for text in tree.findall("text") if text.text in ("resume", "early stop")]
    assert labels == ["resume", "early stop"]
    assert tree.find("desc").text.endswith("resume at 50. resume at 51. early stop at 100.")


def test_nothing_to_draw_is_an_empty_string():
    assert line_chart("t", "x", "y", [Series("s", [(1, 1)])]) == ""
    assert interval_chart("t", [], 0, 1) == ""
    assert pair_chart("t", "min", [("a", 0.0, 0.0)]) == ""


def test_thinning_keeps_the_ends_and_drops_what_is_not_finite():
    points = [(float(n), math.nan if n == 3 else 1.0) for n in range(1000)]
    thinned = thin(points, 100)
    assert len(thinned) <= 101
    assert thinned[0] == (0.0, 1.0) and thinned[-1] == (999.0, 1.0)
    assert all(math.isfinite(y) for _, y in thinned)


def test_an_interval_says_its_numbers_in_words():
    tree = ElementTree.fromstring(interval_chart("t", [Bar("BoolQ", 0.6, 0.5, 0.7)], 0, 1))
    assert tree.find("desc").text == "BoolQ 0.6 (0.5 to 0.7)."
