"""A minute of samples in memory, exactly, and the ranges within which their values stay."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from math import isnan, nan
from typing import NamedTuple

from unitmem.kernel.limits import Level
from unitmem.record.chunk import HOST, MAX_TICKS, Description, Range
from unitmem.record.kept import EXACT, Kept, Slack

PIECE = 60.0
"""Seconds of samples in a piece."""
WALL_STEP = 1.0
"""Seconds by which the clocks may move against each other within a piece."""


class Row(NamedTuple):
    """A part of a sample, as far as it is kept."""

    values: tuple[float | None, ...]
    reasons: tuple[str | None, ...]
    """Why its measures are unknown."""
    texts: tuple[object, ...]
    """What else is in its description, by the names of `_TEXTS`."""

    def description(self, part: str, measures: Sequence[str]) -> Description:
        names = _TEXTS["/" if part.startswith("/") else part if part == HOST else ""]
        unknown = {name: why for name, why in zip(measures, self.reasons, strict=True) if why is not None}
        about = {"unknown": unknown} | dict(zip(names, self.texts, strict=True))
        return {name: text for name, text in about.items() if text}


_TEXTS = {
    "": ("run", "protected", "aliases", "oom_ends", "levels", "cgroup", "oom_preference"),
    HOST: ("unseen", "incomplete"),
    "/": ("unknown",),
}
"""What is in the descriptions of units, the machine, and levels."""


def level_row(level: Level) -> tuple[float | None, ...]:
    return level.max, level.high, level.current, level.file, level.slab_reclaimable


class _Numbers:
    """The numbers of a part in a piece: all columns at its first tick there, then each where it changes."""

    __slots__ = ("places", "ticks", "values")

    def __init__(self) -> None:
        self.ticks = array("H")
        self.places = array("H")
        self.values = array("d")

    def add(self, tick: int, place: int, value: float | None) -> None:
        self.ticks.append(tick)
        self.places.append(place)
        self.values.append(nan if value is None else value)

    def column(self, place: int) -> tuple[list[int], list[float]]:
        """Return the ticks at which a column changes, and its values from then on."""
        found = [number for number, other in enumerate(self.places) if other == place]
        return [self.ticks[number] for number in found], [self.values[number] for number in found]


class Piece:
    """A minute of samples."""

    def __init__(self, kept: Kept, realtime: float, *, is_resumed: bool) -> None:
        self.kept = kept
        self.realtime = realtime
        self.is_resumed = is_resumed
        self.is_exact = False
        self.clocks = array("d")
        self._numbers: dict[str, _Numbers] = {}
        self._described: dict[str, list[tuple[int, Row | None]]] = {}
        """The rows by which each part is described, None from where on it is gone."""
        self._moved: dict[str, dict[int, list[Range]]] = {}
        """The ranges of the columns that change, as far as `split` has found them."""

    @property
    def until(self) -> float:
        """The wall clock at the last sample."""
        return self.realtime + self.clocks[-1] - self.clocks[0]

    def slack(self, part: str) -> Mapping[str, Slack]:
        """Return how far the values of `part` may move, by column."""
        columns = self.kept.columns(part)
        return dict.fromkeys(columns, EXACT) if self.is_exact else columns

    @property
    def parts(self) -> Iterable[str]:
        return self._numbers.keys()

    def descriptions(self) -> dict[str, list[tuple[int, Description | None]]]:
        """Return the descriptions of each part, from which tick on they hold."""
        return {
            part: [(tick, row and row.description(part, self.kept.measures(part))) for tick, row in rows]
            for part, rows in self._described.items()
        }

    def takes(self, at: float, realtime: float, kept: Kept) -> bool:
        """Return whether a sample of that time belongs to this piece."""
        passed = at - self.clocks[0]
        return (
            passed < PIECE
            and len(self.clocks) < MAX_TICKS
            and kept is self.kept
            and abs(realtime - self.realtime - passed) <= WALL_STEP
        )

    def add(self, sample: Mapping[str, Row], tick: int, before: Mapping[str, Row]) -> None:
        """Add what has changed in a sample since the one `before`."""
        for part, row in sample.items():
            numbers, last = self._numbers.get(part), before.get(part)
            if numbers is None or last is None:
                numbers, last = self._numbers.setdefault(part, _Numbers()), None
            if last is row:
                continue
            for place, value in enumerate(row.values):
                if last is None or last.values[place] != value:
                    numbers.add(tick, place, value)
            if last is None or last[1:] != row[1:]:
                self._described.setdefault(part, []).append((tick, row))

    def end(self, part: str, tick: int) -> None:
        """Note that `part` is gone."""
        numbers = self._numbers.setdefault(part, _Numbers())
        for place in range(len(self.kept.columns(part))):
            numbers.add(tick, place, None)
        self._described.setdefault(part, []).append((tick, None))

    def keep_exactly(self) -> None:
        """Let no value move."""
        self.is_exact = True
        self._moved.clear()

    def split(self, share: float = 1.0) -> bool:
        """Find the ranges of a share of the parts, after those that have been found; return whether all are."""
        missing = [part for part in self.parts if part not in self._moved]
        for part in missing[: 1 + int(share * len(self._numbers))]:
            numbers, slack = self._numbers[part], [*self.slack(part).values()]
            changed = sorted(set(numbers.places[len(slack) :]))
            self._moved[part] = {place: _split(*numbers.column(place), *slack[place]) for place in changed}
        return len(self._moved) == len(self._numbers)

    def ranges(self, part: str) -> list[Sequence[Range]]:
        """Return the ranges of the columns of `part`, which `split` has found."""
        numbers, moved = self._numbers[part], self._moved[part]
        first = numbers.values[: len(self.kept.columns(part))]
        return [
            moved.get(place) or (Range(numbers.ticks[0], value, value),) for place, value in enumerate(first)
        ]


def _split(ticks: Sequence[int], values: Sequence[float], amount: float, share: float) -> list[Range]:
    """Return the ranges in which `values` move no more than `amount`, or `share` of them if that is more."""
    low, high = min(values), max(values)
    if low == high and values.count(low) == len(values):  # as most are
        return [Range(ticks[0], low, low)]
    if high - low <= max(amount, high * share) and not isnan(sum(values)):
        return [Range(ticks[0], low, high)]
    ranges: list[Range] = []
    start, low, high = ticks[0], values[0], values[0]
    for tick, value in zip(ticks, values, strict=True):
        if low <= value <= high or (isnan(value) and isnan(low)):
            continue
        least, most = min(low, value), max(high, value)
        if isnan(value) or isnan(low) or most - least > max(amount, most * share):
            ranges.append(Range(start, low, high))
            start, low, high = tick, value, value
        else:
            low, high = least, most
    return [*ranges, Range(start, low, high)]
