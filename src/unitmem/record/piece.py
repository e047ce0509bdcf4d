"""A minute of samples in memory, exactly, and the ranges within which their values stay."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class _Rows:
    """The rows of a part in a piece, where they change."""

    last: Row | None = None
    ticks: array[int] = field(default_factory=lambda: array("H"))
    numbers: array[float] = field(default_factory=lambda: array("d"))


class Piece:
    """A minute of samples."""

    def __init__(self, kept: Kept, realtime: float, *, is_resumed: bool) -> None:
        self.kept = kept
        self.realtime = realtime
        self.is_resumed = is_resumed
        self.is_exact = False
        self.clocks = array("d")
        self.rows: dict[str, _Rows] = {}
        self.ranges: dict[str, dict[str, list[Range]]] = {}
        """The ranges of each part, by column, as far as `split` has found them."""
        self.descriptions: dict[str, list[tuple[int, Description | None]]] = {}

    @property
    def until(self) -> float:
        """The wall clock at the last sample."""
        return self.realtime + self.clocks[-1] - self.clocks[0]

    def slack(self, part: str) -> Mapping[str, Slack]:
        """Return how far the values of `part` may move, by column."""
        columns = self.kept.columns(part)
        return dict.fromkeys(columns, EXACT) if self.is_exact else columns

    def takes(self, at: float, realtime: float, kept: Kept) -> bool:
        """Return whether a sample of that time belongs to this piece."""
        passed = at - self.clocks[0]
        return (
            passed < PIECE
            and len(self.clocks) < MAX_TICKS
            and kept is self.kept
            and abs(realtime - self.realtime - passed) <= WALL_STEP
        )

    def add(self, sample: Mapping[str, Row], tick: int) -> None:
        """Add what has changed in a sample."""
        for part, row in sample.items():
            rows = self.rows.get(part)
            if rows is None:
                rows = self.rows[part] = _Rows()
            if rows.last is not row and rows.last != row:
                self._change(part, rows, row, tick)

    def _change(self, part: str, rows: _Rows, row: Row, tick: int) -> None:
        last = rows.last
        if last is None or last.values != row.values:
            rows.ticks.append(tick)
            rows.numbers.extend([nan if value is None else value for value in row.values])
        if last is None or last[1:] != row[1:]:
            described = row.description(part, self.kept.measures(part))
            self.descriptions.setdefault(part, []).append((tick, described))
        rows.last = row

    def end(self, part: str, tick: int) -> None:
        """Note that `part` is gone."""
        rows = self.rows.setdefault(part, _Rows())
        rows.ticks.append(tick)
        rows.numbers.extend([nan] * len(self.kept.columns(part)))
        rows.last = None
        self.descriptions.setdefault(part, []).append((tick, None))

    def split(self, share: float = 1.0) -> bool:
        """Find the ranges of a share of the parts, after those that have been found; return whether all are."""
        missing = [part for part in self.rows if part not in self.ranges]
        for part in missing[: 1 + int(share * len(self.rows))]:
            rows, columns = self.rows[part], self.slack(part)
            if len(rows.ticks) == 1:  # as of most
                self.ranges[part] = {
                    name: [Range(rows.ticks[0], value, value)]
                    for name, value in zip(columns, rows.numbers, strict=True)
                }
                continue
            self.ranges[part] = {
                name: _split(rows.ticks, rows.numbers[place :: len(columns)], *slack)
                for place, (name, slack) in enumerate(columns.items())
            }
        return len(self.ranges) == len(self.rows)


def _split(ticks: Sequence[int], values: array[float], amount: float, share: float) -> list[Range]:
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
