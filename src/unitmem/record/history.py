"""Reading the history of a watch: samples and events in a bounded SQLite file that `recorder` writes.

It has three tables for `replay`: `chunks` with the samples, `thinned` with what is left of
older ones, and `ticks` in files that version 0.1 has begun. `events` has decisions, obstacles,
outcomes and unknowns, with their inputs. Readers open it read-only while it is written.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from io import BufferedReader
from math import inf, isinf
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple, Self

from unitmem.errors import UnitmemError, reason_of
from unitmem.measure.sample import Sample
from unitmem.record.chunk import HOST, Chunk, Range, decode
from unitmem.record.clock import Instant
from unitmem.record.event import FILE_NAME, VERSION, Event, EventKind
from unitmem.record.numbers import finite
from unitmem.record.playback import Playback, clock_of
from unitmem.record.sample_document import NOT_A_SAMPLE, read_sample

_MAGIC = b"SQLite format 3\0"
_BATCH = 200
"""Rows that are read in one query: a slow reader must not keep the writer's log from being truncated."""
_LONGEST_LINE = 64 << 20
"""Bytes of a line of JSON; what is longer is no sample."""
_MOMENT = 1.0
"""The seconds that a reboot counts for at least, even if the wall clock was set back meanwhile."""


class Stretch(NamedTuple):
    """A chunk, as it is stored."""

    id: int
    at: float
    """The wall clock at its first sample."""
    until: float
    """The wall clock at its last sample."""
    boot: str
    chunk: Chunk


class HistoryError(UnitmemError):
    """A history that can't be read."""


class History:
    """A history, open for reading.

    Raises:
        HistoryError: it doesn't exist, or can't be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _open(path).close()
        try:
            self._database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
            (self._version,) = self._database.execute("PRAGMA user_version").fetchone()
            names = self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            self._tables = {str(name) for (name,) in names}
        except sqlite3.Error as error:
            raise self._unreadable(error) from None
        try:
            self._require_known()
        except HistoryError:
            self.close()
            raise

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def events(self, unit: str | None = None, since: float = 0.0) -> list[Event]:
        """Return the events of `unit`, or of every unit, from `since` (wall clock) on, oldest first."""
        rows = self._query(
            "SELECT at, kind, unit, message, run, policy, step, action, result, obstacle, detail FROM events"
            " WHERE at >= ? AND (? IS NULL OR unit = ?) ORDER BY id",
            (since, unit, unit),
        )
        return [self._event(row) for row in rows]

    def samples(self, *, with_ages: bool = True) -> Iterator[Sample]:
        """Yield every sample, oldest first; times of later boots are converted to the first boot's monotonic clock.

        Values of which no more is kept have bounds, and the samples of a thinned chunk have the same ones. `with_ages`
        is that of `Playback`.
        """
        timeline = _Timeline()
        for at, clock, boot, units in self._ticks():
            moved = timeline.moved(Instant(clock, at, boot))
            try:
                sample = read_sample(clock + moved, json.loads(units))
            except NOT_A_SAMPLE as error:
                raise self._unreadable(error, f"sample at {at:.3f}") from None
            yield sample
        playback = Playback(with_ages=with_ages)
        for stretch in self._stretches():
            chunk = stretch.chunk
            moved = timeline.moved(Instant(chunk.clocks[0], stretch.at, stretch.boot))
            try:
                yield from playback.samples(chunk, moved)
            except NOT_A_SAMPLE as error:
                raise self._unreadable(error, f"samples at {stretch.at:.3f}") from None
            timeline.moved(Instant(chunk.clocks[-1], stretch.until, stretch.boot))

    def series(self, unit: str, measure: str, since: float, until: float) -> list[tuple[float, float]]:
        """Return (wall clock, value) pairs of one measure, oldest first; of a thinned chunk, the least and the greatest."""
        found = []
        for at, _, _, units in self._ticks(since, until):
            try:
                value = json.loads(units).get(unit, {}).get("values", {}).get(measure)
            except NOT_A_SAMPLE as error:
                raise self._unreadable(error, f"sample at {at:.3f}") from None
            found.append((at, value))
        playback = Playback()
        for stretch in self._stretches(since):
            if stretch.at > until:
                break
            try:
                values = list(playback.values(stretch.chunk, unit, measure))
            except NOT_A_SAMPLE as error:
                raise self._unreadable(error, f"samples at {stretch.at:.3f}") from None
            found += _points(stretch, values)
        return [(at, value) for at, value in found if value is not None and since <= at <= until]

    def _ticks(self, since: float = -inf, until: float = inf) -> Iterator[tuple[float, float, str, str]]:
        """Yield the samples of version 0.1 within those wall times: (wall clock, monotonic clock, boot, units)."""
        rows = self._rows(
            "SELECT id, at, clock, boot, units FROM ticks WHERE id > ? AND at BETWEEN ? AND ?"
            " ORDER BY id LIMIT ?",
            (since, until),
        )
        for _, at, clock, boot, units in rows if "ticks" in self._tables else ():
            try:
                yield float(at), float(clock), str(boot), str(units)
            except NOT_A_SAMPLE as error:
                raise self._unreadable(error, f"sample at {at}") from None

    def _stretches(self, since: float = -inf) -> Iterator[Stretch]:
        """Yield the chunks that are needed for what was at `since` and later, thinned ones where there are no others."""
        if self._version < VERSION:
            return
        first = self._query("SELECT id, thinned FROM chunks WHERE is_key ORDER BY id LIMIT 1", ())
        (start, end) = first[0] if first else (sys.maxsize, sys.maxsize)
        yield from self._chunks("thinned", 0, end, since)
        yield from self._chunks("chunks", start, sys.maxsize, since)

    def _chunks(self, table: str, start: int, end: int, since: float) -> Iterator[Stretch]:
        """Yield the chunks of `table` from `start` to before `end`; those that lack an earlier one are left out."""
        statement = f"SELECT MAX(id) FROM {table} WHERE is_key AND id >= ? AND id < ? AND at <= ?"  # noqa: S608 - ours
        ((key,),) = self._query(statement, (start, end, since))
        last = None
        for number, at, until, boot, is_key, data in self._rows(
            f"SELECT id, at, until, boot, is_key, data FROM {table} WHERE id > ? AND id >= ? AND id < ?"  # noqa: S608
            " ORDER BY id LIMIT ?",
            (start if key is None else key, end),
        ):
            if is_key or number - 1 == last:
                last = number
                try:
                    yield Stretch(number, float(at), float(until), str(boot), decode(data))
                except NOT_A_SAMPLE as error:
                    raise self._unreadable(error, f"samples at {at}") from None

    def _rows(self, statement: str, values: Sequence[object]) -> Iterator[Any]:
        """Yield the rows of a query with an ID above a number and a limit."""
        last = -1
        while batch := self._query(statement, (last, *values, _BATCH)):
            yield from batch
            last = batch[-1][0]

    def _require_known(self) -> None:
        if self._version > VERSION:
            raise HistoryError(
                f"{self.path} is a history of a newer version of unitmem (format {self._version})",
                hint="read it with that version",
            )
        if "events" not in self._tables:
            raise self._unreadable(ValueError("it has no tables of a history"))

    def _query(self, statement: str, values: Sequence[object]) -> list[Any]:
        try:
            return self._database.execute(statement, tuple(values)).fetchall()
        except (sqlite3.Error, ValueError) as error:
            raise self._unreadable(error) from None

    def _event(self, row: Sequence[Any]) -> Event:
        at, kind, name, message, run, policy, step, action, result, obstacle, detail = row
        try:
            return Event(
                float(at),
                EventKind(kind),
                str(name),
                str(message),
                run,
                policy,
                step,
                action,
                result,
                obstacle,
                dict(json.loads(detail)),
            )
        except NOT_A_SAMPLE as error:
            raise self._unreadable(error, f"event at {at}") from None

    def _unreadable(self, error: Exception, what: str = "") -> HistoryError:
        name = self.path.parent.name
        return HistoryError(
            f"{self.path} can't be read: {f'{what}: ' if what else ''}{error}",
            hint=f"if it is damaged, a restart of unitmem@{name}.service sets it aside and begins a new one",
        )


class _Timeline:
    """Time that goes on over reboots, and never backwards."""

    def __init__(self) -> None:
        self._moved = 0.0
        self._then: Instant | None = None

    def moved(self, now: Instant) -> float:
        """Return the seconds to add to the monotonic clock at `now`, which is not before what was asked for last."""
        if self._then is not None:
            self._moved -= now.shift_from(self._then, at_least=_MOMENT)
            # where an older version has recorded in between
            self._moved += (
                max(0.0, self._then.monotonic - now.monotonic) if now.boot_id == self._then.boot_id else 0.0
            )
        self._then = now
        return self._moved


def _points(stretch: Stretch, values: Sequence[tuple[int, Range]]) -> Iterator[tuple[float, float]]:
    chunk = stretch.chunk
    if not chunk.is_thinned:
        for tick, run in values:
            yield stretch.at + clock_of(chunk, tick) - chunk.clocks[0], (run.low + run.high) / 2
    elif values and not isinf(values[0][1].low):
        yield stretch.at, values[0][1].low
        yield stretch.until, values[0][1].high


_HINT = "a watch that runs as unitmem@NAME.service records one in /var/lib/unitmem/NAME/"


def _open(path: Path) -> BufferedReader:
    try:
        # not to wait for who might write a pipe
        stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except PermissionError:
        raise HistoryError(f"{path}: permission denied", hint="run it as root") from None
    except OSError as error:
        raise HistoryError(f"{path}: {reason_of(error)}", hint=_HINT) from None
    if not S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise HistoryError(f"{path}: not a regular file", hint=_HINT)
    return stream


def find_histories(root: Path) -> list[Path]:
    """Return the history of every instance, by name, including those that this user may not read.

    Raises:
        HistoryError: the instances can't be listed.
    """
    try:
        directories = sorted(entry.path for entry in os.scandir(root) if entry.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HistoryError(f"{root}: {reason_of(error)}", hint="run it as root") from None
    return [path for directory in directories if _may_exist(path := Path(directory, FILE_NAME))]


def _may_exist(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def read_samples(path: Path, *, with_ages: bool = True) -> Iterator[Sample]:
    """Yield the samples of a recorded history, or of a file of JSON lines, whichever `path` is.

    Args:
        path: the file.
        with_ages: that of `Playback`; JSON lines have what they have.

    Raises:
        HistoryError: it is neither, or a line is wrong; the message has its number.
    """
    with _open(path) as stream:
        if not stream.peek(len(_MAGIC)).startswith(_MAGIC):
            yield from _read_lines(stream, path)
            return
    with History(path) as history:
        yield from history.samples(with_ages=with_ages)


def _read_lines(stream: BufferedReader, path: Path) -> Iterator[Sample]:
    last: float | None = None
    for number, line in enumerate(iter(partial(stream.readline, _LONGEST_LINE), b""), 1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
            at = float(finite(document["at"]))
            sample = read_sample(at, document["units"], document.get(HOST, {}))
        except NOT_A_SAMPLE as error:
            raise HistoryError(
                f"{path}:{number}: not a sample: {error}",
                hint='a line is like {"at": 12.5, "units": {"web.service": {"run": "1", "values": {"anon": 1048576}}}}',
            ) from None
        if last is not None and at < last:
            raise HistoryError(f"{path}:{number}: `at` falls from {last:g} to {at:g}: sort the lines by it")
        last = at
        yield sample
