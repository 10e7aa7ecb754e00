"""Charts as inline SVG: no scripts, no fonts, readable in light and dark and by a screen reader.

Colours come from `page.css`, the style sheet of the pages (classes s0, s1, ... for series). Text is
escaped here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from utils.words import count

WIDTH, HEIGHT = 640, 280
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 34, 46
MAX_POINTS = 400
ROW = 34
LABEL_GAP = 70.0
"""Marks nearer than this to the last labelled one get no label of their own."""
START_SHARE, STEEP = 0.02, 1.5
"""Share of the x axis whose values are cut off where they are so many times as high as all later
ones: the fall from untrained weights would flatten everything that comes after it."""
STYLE_DIR = Path(__file__).parent
"""Folder of page.css."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    name: str
    points: Sequence[Point]
    is_reference: bool = False
    """Drawn dashed and without points: a baseline to compare with."""


@dataclass(frozen=True)
class Mark:
    """Something that happened at an x of a line chart."""

    x: float
    name: str


@dataclass(frozen=True)
class Bar:
    """One measured value with its interval, or planned against used."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""


def line_chart(
    title: str, x_label: str, y_label: str, series: Sequence[Series], marks: Sequence[Mark] = ()
) -> str:
    """Return an SVG of lines over one x axis, or an empty string when there is nothing to draw."""
    series = [Series(s.name, thin(s.points), s.is_reference) for s in series if s.points]
    points = [point for one in series for point in one.points]
    if len(points) < 2:
        return ""
    x_ticks = ticks(min(x for x, _ in points), max(x for x, _ in points))
    most, top = max(y for _, y in points), _top(points)
    y_ticks = ticks(min(y for _, y in points), top)
    frame = _Frame(x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1])
    body = [*_axes(frame, x_ticks, y_ticks), *_labels(x_label, y_label), *_marks(frame, marks)]
    if most > top:
        said = f"up to {count(most, 4)} at the start"
        body.append(_text(WIDTH - RIGHT, TOP + 26, said, "end"))
    for number, one in enumerate(series):
        body += _line(frame, one, number)
    last = "; ".join(
        f"{s.name}: from {s.points[0][1]:.4g} to {s.points[-1][1]:.4g}" for s in series
    )
    marked = "".join(f" {mark.name} at {count(mark.x, 4)}." for mark in marks)
    return _svg(title, f"{y_label} over {x_label}. {last}.{marked}", body + _legend(series), HEIGHT)


def interval_chart(title: str, bars: Sequence[Bar], low: float, high: float) -> str:
    """Return an SVG with a dot and a whisker for each value between `low` and `high`."""
    if not bars:
        return ""
    frame = _Frame(low, high, 0, 1, left=190, height=TOP + ROW * len(bars) + BOTTOM)
    body = []
    for tick in ticks(low, high):
        x = frame.x(tick)
        body.append(_rule(x, TOP, x, frame.height - BOTTOM, "grid"))
        body.append(_text(x, frame.height - BOTTOM + 18, count(tick, 4), "middle"))
    for number, bar in enumerate(bars):
        y = TOP + ROW * (number + 0.5)
        body.append(_text(frame.left - 12, y + 4, bar.name, "end"))
        if bar.low is not None and bar.high is not None:
            body.append(_rule(frame.x(bar.low), y, frame.x(bar.high), y, "whisker"))
        body.append(f'<circle class="dot s0" cx="{frame.x(bar.value):.1f}" cy="{y:.1f}" r="5"/>')
    said = "; ".join(f"{b.name} {b.value:.3g}{_interval(b)}" for b in bars)
    return _svg(title, f"{said}.", body, int(frame.height))


def pair_chart(title: str, unit: str, rows: Sequence[tuple[str, float, float]]) -> str:
    """Return an SVG with two bars for each row: (name, planned, used)."""
    rows = [row for row in rows if max(row[1:]) > 0]
    if not rows:
        return ""
    most = max(max(row[1:]) for row in rows)
    frame = _Frame(0, most, 0, 1, left=110, height=TOP + ROW * len(rows) + BOTTOM)
    body = []
    for number, (name, planned, used) in enumerate(rows):
        y = TOP + ROW * number
        body.append(_text(frame.left - 12, y + 18, name, "end"))
        for offset, value, style in ((4, planned, "s1"), (16, used, "s0")):
            width = max(frame.x(value) - frame.left, 1)
            place = f'x="{frame.left}" y="{y + offset}" width="{width:.1f}" height="10"'
            body.append(f'<rect class="bar {style}" {place} rx="2"/>')
    for tick in ticks(0, most):
        if tick <= most:
            body.append(_text(frame.x(tick), frame.height - BOTTOM + 18, count(tick, 4), "middle"))
    body += _legend([Series("used", ()), Series("planned", ())])
    said = "; ".join(f"{name}: planned {p:.1f}, used {u:.1f}" for name, p, u in rows)
    return _svg(title, f"{unit}. {said}.", body, int(frame.height))


def _top(points: Sequence[Point]) -> float:
    """Return the value at which the y axis ends at least, that of the highest point or less."""
    start = min(x for x, _ in points)
    settled = start + START_SHARE * (max(x for x, _ in points) - start)
    most, later = max(y for _, y in points), max(y for x, y in points if x >= settled)
    return later if most > STEEP * later > 0 else most


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return about `wanted` round numbers that cover `low` to `high`."""
    if not high > low:
        high, low = low + max(abs(low) * 0.1, 1e-9), low - max(abs(low) * 0.1, 1e-9)
    raw = (high - low) / wanted
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def thin(points: Sequence[Point], limit: int = MAX_POINTS) -> list[Point]:
    """Return the finite points, evenly thinned to about `limit` with the last one kept."""
    good = [point for point in points if all(map(math.isfinite, point))]
    if len(good) <= limit:
        return good
    stride = math.ceil(len(good) / limit)
    return good[::stride] + ([good[-1]] if (len(good) - 1) % stride else [])


@dataclass(frozen=True)
class _Frame:
    """The plotting area and its scales."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    left: float = LEFT
    height: float = HEIGHT

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low or 1.0)
        return self.left + min(max(share, 0), 1) * (WIDTH - RIGHT - self.left)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low or 1.0)
        return self.height - BOTTOM - min(share, 1.0) * (self.height - BOTTOM - TOP)


def _axes(frame: _Frame, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> list[str]:
    parts = []
    for tick in y_ticks:
        y = frame.y(tick)
        parts.append(_rule(LEFT, y, WIDTH - RIGHT, y, "grid"))
        parts.append(_text(LEFT - 8, y + 4, count(tick, 4), "end"))
    for tick in x_ticks:
        parts.append(_text(frame.x(tick), HEIGHT - BOTTOM + 18, count(tick, 4), "middle"))
    return parts


def _labels(x_label: str, y_label: str) -> list[str]:
    return [
        _text(WIDTH - RIGHT, HEIGHT - 8, x_label, "end", "label"),
        _text(8, 16, y_label, "start", "label"),
    ]


def _marks(frame: _Frame, marks: Sequence[Mark]) -> list[str]:
    """Return a dotted line for each mark, with its name where there is room."""
    parts, labelled = [], -math.inf
    for mark in sorted(marks, key=lambda mark: mark.x):
        x = frame.x(mark.x)
        parts.append(_rule(x, TOP, x, frame.height - BOTTOM, "mark"))
        if x - labelled >= LABEL_GAP:
            labelled = x
            is_right = x > 0.8 * WIDTH
            place = (x - 4, "end") if is_right else (x + 4, "start")
            parts.append(_text(place[0], TOP + 12, mark.name, place[1]))
    return parts


def _line(frame: _Frame, series: Series, number: int) -> list[str]:
    points = _from_above(series.points, frame.y_high)
    path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in points)
    style = "reference" if series.is_reference else "line"
    parts = [f'<polyline class="{style} s{number}" points="{path}"/>']
    if not series.is_reference and len(series.points) <= 30:
        parts += [
            f'<circle class="dot s{number}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3"/>'
            for x, y in series.points
            if y <= frame.y_high
        ]
    return parts


def _from_above(points: Sequence[Point], top: float) -> Sequence[Point]:
    """Return `points` from where their line comes down to `top`."""
    first = next((number for number, (_, y) in enumerate(points) if y <= top), 0)
    if not first:
        return points
    (x, y), (next_x, next_y) = points[first - 1], points[first]
    return [(x + (y - top) / (y - next_y) * (next_x - x), top), *points[first:]]


def _legend(series: Sequence[Series]) -> list[str]:
    """Return the names of the series in the top right corner, none for a single one."""
    parts, x = [], float(WIDTH - RIGHT)
    for number, one in reversed(list(enumerate(series if len(series) > 1 else []))):
        x -= 8.2 * len(one.name) + 12
        parts.append(_text(x + 5, 17, one.name, "start"))
        parts.append(f'<rect class="bar s{number}" x="{x - 10:.1f}" y="8" width="9" height="9"/>')
        x -= 20
    return parts


def _interval(bar: Bar) -> str:
    return "" if bar.low is None or bar.high is None else f" ({bar.low:.3g} to {bar.high:.3g})"


def _rule(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str, style: str = "tick") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{style}" {place}>{escape(text)}</text>'


def _svg(title: str, description: str, body: Sequence[str], height: int) -> str:
    """Return the figure: a picture with a title and a description in words for screen readers."""
    inner = "".join(body)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{inner}</svg>"
    )
