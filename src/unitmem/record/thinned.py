"""Several minutes of samples, thinned to the least and the greatest of each value."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, KeysView, Mapping, Sequence
from math import inf, isnan, nan

from unitmem.record.chunk import HOST, PARTLY, Description, Range
from unitmem.record.kept import Slack
from unitmem.record.piece import PIECE, WALL_STEP, Piece

SPAN = 300.0
"""Seconds of samples in a thinned chunk."""


class Thinned:
    """The pieces that become one thinned chunk: the least and the greatest of each value in them."""

    def __init__(self, first: Piece) -> None:
        self.kept = first.kept
        self.realtime = self.until = first.realtime
        self.is_resumed = first.is_resumed
        self.samples = 0
        self.clocks = array("d", [first.clocks[0], first.clocks[0]])
        self._descriptions: dict[str, Description | None] = {}
        self._bounds: dict[str, array[float]] = {}
        """The least and the greatest value of each column, one after the other."""
        self._partly: set[str] = set()

    def slack(self, part: str) -> Mapping[str, Slack]:
        """Return how far the bounds of `part` may be beyond its values, by column."""
        return self.kept.columns(part)

    def takes(self, piece: Piece) -> bool:
        """Return whether `piece` belongs to this chunk: there is no gap, and no step of a clock."""
        passed = piece.clocks[0] - self.clocks[0]
        return (
            passed < SPAN
            and piece.kept is self.kept
            and not piece.is_resumed
            and abs(piece.realtime - self.realtime - passed) <= WALL_STEP
            and piece.clocks[0] - self.clocks[-1] < PIECE
        )

    def add(self, piece: Piece) -> None:
        is_first = not self.samples
        self.samples += len(piece.clocks)
        self.clocks[1] = piece.clocks[-1]
        self.until = piece.until
        descriptions = piece.descriptions()
        self._partly |= self._descriptions.keys() - descriptions.keys()
        for part, ((tick, described), *changes) in descriptions.items():
            if part == HOST:
                self._descriptions[part] = _joined(
                    self._descriptions.get(part), (about for _, about in descriptions[part])
                )
            else:
                before = described if is_first else self._descriptions.get(part)
                if changes or tick or described is None or before != described:
                    self._partly.add(part)
                self._descriptions[part] = described
            known = self._known(part)
            hulls = [
                _hull([*known[place : place + 1], *column]) for place, column in enumerate(piece.ranges(part))
            ]
            self._bounds[part] = array("d", [bound for hull in hulls for bound in hull[1:]])

    def all_descriptions(self, before: KeysView[str]) -> dict[str, list[tuple[int, Description | None]]]:
        """Return the descriptions of all parts, and that those are gone which are only in the chunk `before`."""
        gone = dict.fromkeys(before - self._descriptions.keys())
        partly = {part: {PARTLY: True} for part in self._partly}
        return {part: [(0, about)] for part, about in (self._descriptions | partly | gone).items()}

    @property
    def parts(self) -> Iterable[str]:
        """The parts that were the same all the time: of others nothing is kept."""
        return [part for part in self._bounds if part not in self._partly]

    def ranges(self, part: str) -> list[Sequence[Range]]:
        """Return the range of each column of `part`."""
        return [(each,) for each in self._known(part)]

    def _known(self, part: str) -> list[Range]:
        bounds = self._bounds.get(part, ())
        return [Range(0, *pair) for pair in zip(bounds[::2], bounds[1::2], strict=True)]


def _joined(before: Description | None, later: Iterable[Description | None]) -> Description:
    """Return what holds of the machine all the time: a unit that was unseen at a time is unseen."""
    known = [about for about in (before, *later) if about is not None]
    unseen = sorted({unit for about in known for unit in about.get("unseen", ())})
    incomplete = any(about.get("incomplete") for about in known)
    joined = {**known[-1], "unseen": unseen, "incomplete": incomplete}
    return {key: value for key, value in joined.items() if value}


def _hull(ranges: Sequence[Range]) -> Range:
    """Return the bounds of all `ranges`: NaN where all are unknown, infinite ones where some are."""
    if len(set(ranges)) == 1 and not ranges[0].tick:  # as of most
        return ranges[0]
    unknown = sum(isnan(each.low) for each in ranges)
    if unknown == len(ranges):
        return Range(0, nan, nan)
    if unknown:
        return Range(0, -inf, inf)
    return Range(0, min(each.low for each in ranges), max(each.high for each in ranges))
