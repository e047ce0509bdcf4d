"""Numbers and names as text: parsing what people write, and formatting for people.

Sizes, spans and percentages are read as systemd reads them, and written as systemctl prints them. Sizes are
bytes and `int`; spans are seconds and `float`. Unlike in systemd, a number needs a unit, since
`limit: 512` could mean bytes or megabytes.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Sequence
from itertools import pairwise

# systemd's parse_size() with base 1024 (src/basic/parse-util.c)
SIZE_UNITS = {
    "E": 1 << 60,
    "P": 1 << 50,
    "T": 1 << 40,
    "G": 1 << 30,
    "M": 1 << 20,
    "K": 1 << 10,
    "B": 1,
}

# systemd.time(7), in microseconds. `M` is a month and `m` is a minute, as there.
_USEC_PER_SPAN_UNIT = {
    unit: usec
    for usec, units in {
        1: ("usec", "us", "µs", "μs"),
        1_000: ("msec", "ms"),
        1_000_000: ("seconds", "second", "sec", "s"),
        60_000_000: ("minutes", "minute", "min", "m"),
        3_600_000_000: ("hours", "hour", "hr", "h"),
        86_400_000_000: ("days", "day", "d"),
        604_800_000_000: ("weeks", "week", "w"),
        2_629_800_000_000: ("months", "month", "M"),
        31_557_600_000_000: ("years", "year", "y"),
    }.items()
    for unit in units
}
SPAN_UNITS = tuple(_USEC_PER_SPAN_UNIT)
_SPAN_OUTPUT = (
    ("y", 31_557_600_000_000),
    ("month", 2_629_800_000_000),
    ("w", 604_800_000_000),
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("min", 60_000_000),
    ("s", 1_000_000),
)
_RATE_UNITS = ("min", "s", "h", "d", "w", "month", "y", "ms", "us")
_MAX_SIZE = (1 << 64) - 1
_MAX_USEC = (1 << 64) - 2  # the last value is USEC_INFINITY

_MAX_DIGITS = 100  # past any quantity, and short of what int() refuses to read

_NUMBER = r"(?P<whole>\d+)(?:\.(?P<fraction>\d+))?"
_SIZE_TERM = re.compile(rf"\s*{_NUMBER}\s*(?P<unit>[A-Za-z]*)", re.ASCII)
_SPAN_TERM = re.compile(rf"\s*{_NUMBER}\s*(?P<unit>[A-Za-zµμ]*)", re.ASCII)
_DECIMAL_COMMA = re.compile(r"\d,\d", re.ASCII)
_POWER_OF_TEN = re.compile(r"\de\s*[+-]?\d", re.ASCII)
_PERCENT = re.compile(rf"{_NUMBER}\s*%", re.ASCII)


class QuantityError(ValueError):
    """A quantity that can't be parsed. `str()` says what is wrong, and what to write instead."""


def parse_size(text: str) -> int:
    """Return the bytes of a size such as `512M`, `1.5G` or `1G 512M`; the suffixes B K M G T P E are powers of 1024.

    Raises:
        QuantityError: no unit, an unknown unit, units that don't descend, or 2^64 and more.
    """
    total = 0
    units = []
    for whole, fraction, unit in _terms(text, _SIZE_TERM, "a size", "512M"):
        if unit not in SIZE_UNITS:
            raise QuantityError(_unknown_size_unit(text, _spelled(whole, fraction), unit))
        units.append(SIZE_UNITS[unit])
        factor = SIZE_UNITS[unit]
        total += int(whole) * factor + (int(fraction) * factor // 10 ** len(fraction) if fraction else 0)
    if any(later >= earlier for earlier, later in pairwise(units)):
        raise QuantityError(f"{text!r} lists its units out of order: write the larger first, such as 1G 512M")
    if total > _MAX_SIZE:
        raise QuantityError(f"{text!r} is more than 16E, which no machine has")
    return total


def parse_span(text: str) -> float:
    """Return the seconds of a span such as `30s`, `1min 30s` or `1.5h`, by the units of systemd.time(7).

    Raises:
        QuantityError: no unit, an unknown unit, or more than systemd can hold.
    """
    total = 0
    for whole, fraction, unit in _terms(text, _SPAN_TERM, "a time span", "30s"):
        if unit not in _USEC_PER_SPAN_UNIT:
            raise QuantityError(_unknown_span_unit(text, _spelled(whole, fraction), unit))
        factor = _USEC_PER_SPAN_UNIT[unit]
        # digit by digit, each rounded down, as systemd's parse_time() has it
        tenths = (int(digit) * (factor // 10**place) for place, digit in enumerate(fraction, 1))
        total += int(whole) * factor + sum(tenths)
    if total > _MAX_USEC:
        raise QuantityError(f"{text!r} is longer than systemd can count")
    return total / 1_000_000


def parse_percent(text: str) -> float:
    """Return the number before a `%` sign: `62.5%` is 62.5.

    Raises:
        QuantityError: not of that form.
    """
    match = _PERCENT.fullmatch(text.strip())
    if match is None or len(text) > _MAX_DIGITS:
        raise QuantityError(f"{text[:_MAX_DIGITS]!r} is not a percentage: write it like 80%")
    return float(match["whole"] + "." + (match["fraction"] or "0"))


def parse_rate(text: str) -> float:
    """Return the bytes a second of a rate such as `5M/min` or `512K/s`: a size, a slash, and one unit of time.

    Raises:
        QuantityError: not of that form.
    """
    size, slash, unit = text.partition("/")
    if not slash:
        raise QuantityError(f"{text!r} is not a rate: write it like 5M/min")
    unit = unit.strip()
    if unit not in _USEC_PER_SPAN_UNIT:
        raise QuantityError(
            f"{text!r}: {unit!r} is not a unit of time: write it like 5M/min, or with s, h, d"
        )
    return parse_size(size) * 1_000_000 / _USEC_PER_SPAN_UNIT[unit]


def format_size(size: int | None, missing: str = "-") -> str:
    """Return `size` bytes as systemctl prints them: `512.0M`, `1.5G`, `17B`; rounded down, one digit.

    >>> format_size(536870912)
    '512.0M'
    """
    if size is None:
        return missing
    if size < 0:
        return "-" + format_size(-size)
    for suffix, factor in SIZE_UNITS.items():
        if size >= factor > 1:
            # FORMAT_BYTES truncates too; a limit shown is never larger than the limit set
            return f"{size // factor}.{size * 10 // factor % 10}{suffix}"
    return f"{size}B"


def spell_size(size: int) -> str:
    """Return `size` so that `parse_size` reads it back exactly: `1.2G`, or `1G 256M` where one digit is too few."""
    parts: list[str] = []
    for suffix, factor in SIZE_UNITS.items():
        # 1.2G is no whole number of bytes, so it was rounded down: round up to find its digit again
        tenths = -(-size * 10 // factor)
        if factor > 1 and tenths >= 10 and tenths * factor // 10 == size:
            return " ".join([*parts, f"{tenths // 10}.{tenths % 10}{suffix}"])
        count, size = divmod(size, factor)
        if count:
            parts.append(f"{count}{suffix}")
    return " ".join(parts) or "0B"


def format_span(seconds: float, accuracy: float = 1.0) -> str:
    """Return a span as `systemd-analyze timespan` writes it, to at most `accuracy` seconds: `1min 30s`.

    Spans below one second are written in milliseconds, so that none is written as zero.
    """
    usec = round(seconds * 1_000_000)
    if usec <= 0:
        return "0"
    step = max(1, round(accuracy * 1_000_000))
    if usec < 1_000_000:
        return f"{usec // 1000}ms" if usec >= 1000 else f"{usec}us"
    if usec >= step:
        usec -= usec % step
    parts = []
    for name, factor in _SPAN_OUTPUT:
        count, usec = divmod(usec, factor)
        if name == "s" and usec:
            parts.append(f"{count}.{usec:06}".rstrip("0") + "s")
        elif count:
            parts.append(f"{count}{name}")
    return " ".join(parts)


def format_rate(rate: float) -> str:
    """Return `rate` bytes a second as bytes a minute: `5.0M/min`; less than a byte a minute is `0B/min`."""
    return f"{format_size(int(rate * 60))}/min"


def spell_rate(rate: float) -> str:
    """Return `rate` bytes a second so that `parse_rate` reads it back exactly, by the minute if possible."""
    numerator, denominator = rate.as_integer_ratio()
    divisor = denominator * 1_000_000
    for unit in _RATE_UNITS:
        # to the nearest, in integers: the product in floats may miss the whole number that the rate was made of
        size = min(_MAX_SIZE, (2 * numerator * _USEC_PER_SPAN_UNIT[unit] + divisor) // (2 * divisor))
        if parse_rate(spelled := f"{spell_size(size)}/{unit}") == rate:
            return spelled
    return f"{spell_size(round(rate * 60))}/min"


def format_percent(percent: float | None, missing: str = "-") -> str:
    """Return `percent` with one digit after the point, and a `%`."""
    return missing if percent is None else f"{percent:.1f}%"


def _terms(text: str, pattern: re.Pattern[str], kind: str, example: str) -> list[tuple[str, str, str]]:
    """Return the (whole digits, fraction digits, unit) of each `12.5unit` that `text` is a sequence of."""
    terms = []
    position = 0
    stripped = text.strip()
    if _DECIMAL_COMMA.search(text) is not None:
        raise QuantityError(f"{text!r} has a comma: write {stripped.replace(',', '.')}")
    while position < len(stripped):
        match = pattern.match(stripped, position)
        if match is None:
            raise QuantityError(f"{text!r} is not {kind}: write it like {example}")
        whole, fraction = match["whole"], match["fraction"] or ""
        if len(whole) + len(fraction) > _MAX_DIGITS:
            raise QuantityError(f"{text[:20]}… has more digits than {kind} needs: write it like {example}")
        terms.append((whole, fraction, match["unit"]))
        position = match.end()
    if not terms:
        raise QuantityError(f"{kind} is missing here: write it like {example}")
    return terms


def _spelled(whole: str, fraction: str) -> str:
    return f"{whole}.{fraction}" if fraction else whole


def _unknown_size_unit(text: str, number: str, unit: str) -> str:
    if not unit:
        meant = "" if "." in number else f", or {number}B if bytes are meant"
        return f"{text!r} has no unit: write {number}M for mebibytes{meant}"
    if _POWER_OF_TEN.search(text) is not None:
        return f"{text!r}: no power of ten is read here: write the number out, such as 1.5G"
    base = unit.rstrip("Bb").removesuffix("i").upper()
    if base in SIZE_UNITS:
        return f"{text!r}: systemd has no unit {unit!r}: write {number}{base}, which is a power of 1024"
    return f"{text!r}: there is no unit {unit!r}: use one of B K M G T P E"


def _unknown_span_unit(text: str, number: str, unit: str) -> str:
    if not unit:
        return f"{text!r} has no unit: write {number}s for seconds or {number}min for minutes"
    if (lower := unit.lower()) in _USEC_PER_SPAN_UNIT:
        return f"{text!r}: there is no unit {unit!r}: write {number}{lower}"
    return f"{text!r}: there is no unit {unit!r}: use one of ms s min h d w"


_LARGEST = 1.7976931348623157e308  # of a float; an int may be larger


def seconds(interval: float, name: str = "interval") -> float:
    """Return `interval` if it is a span of time; `name` is its name in errors.

    Raises:
        TypeError: not a number, or a bool.
        ValueError: not finite, or not above 0.
    """
    if isinstance(interval, bool) or not isinstance(interval, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {interval!r}")
    if not 0 < interval <= _LARGEST:  # which NaN isn't, either
        raise ValueError(f"{name} must be finite and above 0, not {interval}")
    return float(interval)


# --- names and counts ---------------------------------------------------------------------------


def printable(text: str) -> str:
    """Return `text` with unprintable characters, which could break a line or a terminal, escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(names: Iterable[str]) -> str:
    """Return the names in backticks, separated by commas: "`a`, `b`"."""
    return ", ".join(f"`{name}`" for name in names)


def listed(names: Sequence[str], most: int) -> str:
    """Return the first `most` of `names`, and how many more there are: `a, b, c and 4 more`."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return `1 step` or `2 steps`; `many` where the plural takes more than an `s`."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def closest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that `name` may be a misspelling of, if any is close."""
    import difflib  # noqa: PLC0415 - only where there is a mistake to explain

    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)), None)


def close_to(name: str, names: Iterable[str]) -> str:
    """Return the suggestion that follows an unknown name: " (did you mean `stop`?)", or an empty string."""
    close = closest(name, names)
    return f" (did you mean `{close}`?)" if close else ""


def signal_name(number: int) -> str:
    """Return the name of a signal, `SIGTERM`, or `signal 40` if it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
