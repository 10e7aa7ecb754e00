"""Numbers in words, alike wherever a user meets them: counts, shares, bytes, times, plurals.

Knows nothing about what is counted. Layouts that need every digit print the number itself.
"""

import math

NOT_MEASURED = "-"
"""Stands where a number was not measured."""
TOO_LARGE = "too large to show"
"""Stands where a number was measured and lies beyond what a computer's numbers hold."""
THOUSANDS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
BYTES = ((1e12, " TB"), (1e9, " GB"), (1e6, " MB"), (1e3, " kB"))
TIMES = ((172_800, 86_400, "d"), (5400, 3600, "h"), (90, 60, "min"), (-math.inf, 1, "s"))
"""(seconds from which, seconds of one, name) of the units of time."""


def count(number: float | None, digits: int = 3) -> str:
    """Return a count with three significant digits: 812, 65k, 8.51M, 1.23B, 36T."""
    return NOT_MEASURED if number is None else _scaled(number, digits, THOUSANDS, "")


def size(num_bytes: float | None, digits: int = 3) -> str:
    """Return an amount of memory or disk: 812 bytes, 20.5 kB, 15.4 GB."""
    return NOT_MEASURED if num_bytes is None else _scaled(num_bytes, digits, BYTES, " bytes")


def _scaled(number: float, digits: int, units: tuple[tuple[float, str], ...], one: str) -> str:
    """Return a number in its largest unit, rounded first, so that 999,700 is 1M and not 1000k."""
    rounded = float(f"{number:.{digits}g}")
    least, unit = next((pair for pair in units if abs(rounded) >= pair[0]), (1.0, one))
    text = f"{rounded / least:.{digits}g}"
    return f"{rounded / least:,.0f}{unit}" if "e+" in text else text + unit


def number(value: float | None, decimals: int = 3) -> str:
    """Return a measured number: with decimals below 100, whole up to a million, then 2.35e+08."""
    if value is None:
        return NOT_MEASURED
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{value:,.{0 if abs(value) >= 100 else decimals}f}"


def percent(share: float | None, decimals: int = 1) -> str:
    """Return a share as a percentage: 62.2%."""
    return NOT_MEASURED if share is None else f"{share:.{decimals}%}"


def cell(value: object, digits: int = 4) -> str:
    """Return a value for a table: integers whole, other numbers with so many digits."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    is_whole = isinstance(value, int) or abs(value) >= 10 ** (digits - 1)
    return f"{value:,.0f}" if is_whole else f"{value:,.{digits}g}"


def duration(seconds: float) -> str:
    """Return a time with two digits: 45 s, 4.2 min, 3.1 h, 12 d."""
    length, unit = next((size, name) for least, size, name in TIMES if abs(seconds) >= least)
    value = round(seconds / length, 1)
    return f"{value:.2g} {unit}" if abs(value) < 10 else f"{value:,.0f} {unit}"


def plural(number: int, noun: str) -> str:
    """Return `1 row`, `2 rows`, `4,000 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
