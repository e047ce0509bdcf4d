"""The last minutes of samples in memory, and the chunks of the history that become of them.

Samples are kept exactly for one to two minutes. What is older becomes a chunk: in it, a value stays within bounds that are
a small share of it apart, unless something was decided meanwhile. Beside the chunks there are thinned ones, each of
several minutes with the least and the greatest value of each measure: they are what is left of older samples.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from math import ceil, floor, frexp, inf, isinf, isnan, nan
from typing import NamedTuple

from unitmem.kernel.oom_preference import OomPreference
from unitmem.measure.sample import HostSample, Sample, UnitSample
from unitmem.record.chunk import HOST, Chunk, Description, Range
from unitmem.record.kept import Kept, Slack
from unitmem.record.piece import Piece, Row, level_row
from unitmem.record.thinned import Thinned

AROUND = 60.0
"""Seconds for which samples are kept exactly after something was decided, as those before it are."""
_KEY_EVERY = 12
"""The thinned chunks after which chunks begin that need no earlier ones to be read: an hour."""
_PIECES = 2
"""The pieces that are kept in memory: the minute that has begun, and the whole one before it."""
_SHARE_A_TICK = 1 / 16
"""The share of a piece that is prepared for writing in one tick."""
_ROUNDED = 4
"""The bits of what a value may move: bounds are rounded outwards to an eighth to a sixteenth of that."""
_AGE_JITTER = 0.002
"""Seconds by which the start of a run may seem to move, as ages are rounded."""


class Written(NamedTuple):
    """A chunk to be written."""

    at: float
    """The wall clock at its first sample."""
    until: float
    """The wall clock at its last sample."""
    number: int
    """The number of the thinned chunk that this one is, or is a part of."""
    chunk: Chunk


class Buffer:
    """The samples of the last minutes, and what has to be known of those before them.

    Args:
        number: the number of the first thinned chunk.
    """

    def __init__(self, number: int) -> None:
        self._pieces: list[Piece] = []
        self._last: dict[str, Row] = {}
        self._exact_until = -inf
        self._is_resumed = True
        self._number = number
        self._chunks, self._thinned = _Stream(), _Stream()
        self._thinning: Thinned | None = None
        self._kept: Kept | None = None
        self._until_key = 0

    def resume(self) -> None:
        """Note that nobody has looked for a while."""
        self._is_resumed = True

    def keep_exactly(self, now: float) -> None:
        """Keep the samples around `now` as they are."""
        self._exact_until = now + AROUND
        for piece in self._pieces:
            piece.keep_exactly()

    def add(self, sample: Sample, realtime: float, kept: Kept) -> None:
        """Add a sample."""
        piece = self._pieces[-1] if self._pieces else None
        if piece is not None and piece.kept is not kept:
            self._last = {}  # whose reasons are those of other measures
        if piece is None or self._is_resumed or not piece.takes(sample.at, realtime, kept):
            piece = Piece(kept, realtime, is_resumed=self._is_resumed)
            self._pieces.append(piece)
            self._is_resumed = False
        piece.is_exact |= sample.at <= self._exact_until
        tick = len(piece.clocks)
        piece.clocks.append(sample.at)
        now = dict(self._parts(sample, kept))
        if now.keys() != self._last.keys():
            for part in self._last.keys() - now.keys():
                piece.end(part, tick)
        piece.add(now, tick, self._last)
        self._last = now

    def take(self, *, everything: bool = False) -> Iterator[tuple[bool, Written]]:
        """Yield the chunks that are due, each with whether it is a thinned one, and forget their samples.

        Args:
            everything: whether also those of the last minute are due.
        """
        while self._pieces and (everything or len(self._pieces) > _PIECES):
            # a bit at each tick, so that no tick is late
            hurry = everything or len(self._pieces) > _PIECES + 1
            if not self._pieces[0].split(1.0 if hurry else _SHARE_A_TICK):
                return
            yield from self._write(self._pieces.pop(0))

    def close(self) -> Iterator[tuple[bool, Written]]:
        """Yield all chunks that are left."""
        yield from self.take(everything=True)
        if self._thinning is not None:
            yield True, self._thin(self._thinning)
            self._thinning = None

    def _write(self, piece: Piece) -> Iterator[tuple[bool, Written]]:
        part = self._thinning
        if part is not None and not part.takes(piece):
            yield True, self._thin(part)
            self._number += 1
            part = None
        if part is None:
            if piece.kept is not self._kept or piece.is_resumed or self._until_key == 0:
                self._kept, self._until_key = piece.kept, _KEY_EVERY
                self._chunks.is_key = self._thinned.is_key = True
            self._until_key -= 1
            part = self._thinning = Thinned(piece)
        part.add(piece)
        chunk = self._chunks.chunk(piece, piece.descriptions(), len(piece.clocks))
        yield False, Written(piece.realtime, piece.until, self._number, chunk)

    def _thin(self, part: Thinned) -> Written:
        descriptions = part.all_descriptions(self._thinned.described.keys())
        chunk = self._thinned.chunk(part, descriptions, part.samples)
        return Written(part.realtime, part.until, self._number, chunk)

    def _parts(self, sample: Sample, kept: Kept) -> Iterator[tuple[str, Row]]:
        for name, unit in sample.units.items():
            yield name, self._unit(unit, kept, sample.at)
            if kept.with_levels:
                for level in unit.levels:
                    yield level.path, Row(level_row(level), (), (level.unknown,))
        host = sample.host
        texts = sample.unseen and tuple(sorted(sample.unseen)), not sample.is_complete
        row = tuple(map(host.values.get, kept.of_host))
        yield HOST, Row(row, self._reasons(HOST, host, kept.of_host), texts)

    def _unit(self, unit: UnitSample, kept: Kept, at: float) -> Row:
        row = (
            *map(unit.values.get, kept.of_units),
            *map(unit.at_most.get, kept.bounded),
            *map(unit.at_least.get, kept.bounded),
        )
        if kept.age is not None and (age := row[kept.age]) is not None:
            # the age itself is rounded, and of the time when the unit was read
            since = unit.unit.up_since
            if since is None:
                since = self._start(unit.name, at - age, kept.age)
            row = (*row[: kept.age], since, *row[kept.age + 1 :])
        run = unit.invocation
        texts = (
            None if run is None else (run.invocation_id, run.cgroup_inode),
            unit.protected,
            unit.unit.aliases,
            unit.oom_ends,
            tuple(level.path for level in unit.levels) if kept.with_levels else (),
            unit.unit.control_group,
            None if unit.oom_preference is OomPreference.NONE else unit.oom_preference.value,
        )
        reasons = self._reasons(unit.name, unit, kept.of_units)
        last = self._last.get(unit.name)
        if last is not None and last.values == row and last.texts == texts and last.reasons == reasons:
            return last  # which is found to be the same at once
        if last is not None:  # what is the same is there once
            reasons = last.reasons if last.reasons == reasons else reasons
            texts = last.texts if last.texts == texts else texts
        return Row(row, reasons, texts)

    def _start(self, unit: str, start: float, place: int) -> float:
        """Return when a run began, as before if that is about the same."""
        last = self._last.get(unit)
        before = None if last is None or place >= len(last.values) else last.values[place]
        return before if before is not None and abs(start - before) < _AGE_JITTER else round(start, 3)

    def _reasons(
        self, part: str, of: UnitSample | HostSample, names: Sequence[str]
    ) -> tuple[str | None, ...]:
        """Return why measures are unknown, or were when they last were."""
        reasons = tuple(map(of.unknown.get, names))
        last = self._last.get(part)
        if last is None or last.reasons == reasons or len(last.reasons) != len(reasons):
            return reasons
        return tuple(now or then for now, then in zip(reasons, last.reasons, strict=True))


class _Stream:
    """What has been written, so that only changes are written again."""

    def __init__(self) -> None:
        self.is_key = True
        self.described: dict[str, Description] = {}
        self._held: dict[str, array[float]] = {}
        """The bounds of each column of the parts, the lower and the upper one."""

    def chunk(
        self,
        of: Piece | Thinned,
        descriptions: Mapping[str, Sequence[tuple[int, Description | None]]],
        samples: int,
    ) -> Chunk:
        """Return the chunk of what is new."""
        is_key, self.is_key = self.is_key, False
        if is_key:
            self.described.clear()
            self._held.clear()
        columns = {
            part: news for part in of.parts if (news := self._news(part, of.ranges(part), of.slack(part)))
        }
        about = {}
        for part, changes in descriptions.items():
            if changes[0] == (0, self.described.get(part)):
                about[part] = changes[1:]
            else:
                about[part] = changes
            last = changes[-1][1]
            if last is None:
                self.described.pop(part, None)
                self._held.pop(part, None)
            else:
                self.described[part] = last
        return Chunk(
            tuple(of.clocks),
            samples,
            is_key,
            of.is_resumed,
            {part: changes for part, changes in about.items() if changes},
            columns,
        )

    def _news(
        self, part: str, columns: Sequence[Sequence[Range]], slack: Mapping[str, Slack]
    ) -> dict[str, Sequence[Range]]:
        held = self._held.get(part)
        if held is None:
            held = self._held[part] = array("d", [nan]) * (2 * len(columns))
        found: dict[str, Sequence[Range]] = {}
        for place, (name, seen) in enumerate(zip(slack, columns, strict=True)):
            bounds = slice(2 * place, 2 * place + 2)
            ranges = [_rounded(each, *slack[name]) if each.low < each.high else each for each in seen]
            low, high = held[bounds]
            news = ranges[1:] if _says(low, high, ranges[0]) else ranges
            if news:
                found[name] = news
                held[bounds] = array("d", news[-1][1:])
        return found


def _says(low: float, high: float, new: Range) -> bool:
    """Return whether bounds that are known say what `new` would; what is known exactly is said exactly."""
    if new.low < new.high:
        return low <= new.low and new.high <= high
    return (low, high) == new[1:] or (isnan(low) and isnan(new.low))


def _rounded(each: Range, amount: float, share: float) -> Range:
    """Return a range about as wide as it may be, so that it serves for long, with bounds that take few bytes."""
    most = max(amount, each.high * share)
    if isinf(each.high) or not most > 0:  # it was unknown at times, or may not move
        return each
    unit = 2.0 ** (frexp(most)[1] - _ROUNDED)
    more = max(0.0, most - (each.high - each.low)) / 2
    low = max(0.0, floor((each.low - more) / unit) * unit)
    return Range(each.tick, min(low, each.low), ceil((each.high + more) / unit) * unit)
