"""The flight recorder: writing the history of a watch, with the samples, decisions and outcomes of each tick.

It writes after the watch has acted, and never waits for a disk: nothing is synchronised, so a crash of the machine
may lose the end of the history, or all of it; a damaged file is renamed, and a new one is begun. Decisions and outcomes
are written at once, and with them the samples around them. Other samples are written a minute at a time, once they are
a minute old: a watch that is killed loses those of its last two minutes.
"""

from __future__ import annotations

import _sqlite3 as sqlite3  # without what the package adds for dates, which is a third of a megabyte
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

from unitmem.kernel.process import Process
from unitmem.measure.catalogue import Trait, with_trait
from unitmem.measure.sample import Sample
from unitmem.policy.condition import FILL, MACHINE
from unitmem.policy.decision import Decision, Outcome
from unitmem.record.buffer import Buffer, Written
from unitmem.record.chunk import encode
from unitmem.record.event import FILE_NAME, VERSION, Event, EventKind
from unitmem.record.kept import Kept

MAX_BYTES = 64 << 20
_PRUNE_EVERY = 0.02
"""The share of the size limit that may be written until the size is checked again."""
_REOPEN_AFTER = 60.0
"""Seconds until writing is retried after it failed."""


_ALWAYS = with_trait(Trait.RECORDED)
_PAGE = 1024
"""Bytes of a page of the file."""
_LOG = 4 << 20
"""Bytes of the log beside the file, until they are taken over into it."""
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_THINNED_SHARE = 3 / 8
"""The share of the size limit that thinned chunks may take."""
_CHUNK = (
    "at REAL NOT NULL, until REAL NOT NULL, boot TEXT NOT NULL, is_key INTEGER NOT NULL, data BLOB NOT NULL"
)
_SCHEMA = f"""
BEGIN;
CREATE TABLE IF NOT EXISTS chunks (id INTEGER PRIMARY KEY, thinned INTEGER NOT NULL, {_CHUNK});
CREATE TABLE IF NOT EXISTS thinned (id INTEGER PRIMARY KEY, {_CHUNK});
CREATE INDEX IF NOT EXISTS keys_of_chunks ON chunks (id) WHERE is_key;
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, clock REAL NOT NULL, kind TEXT NOT NULL, unit TEXT NOT NULL,
    run TEXT, policy TEXT, step INTEGER, action TEXT, result TEXT, obstacle TEXT, message TEXT NOT NULL,
    detail TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS events_of_unit ON events (unit, at);
PRAGMA user_version = {VERSION};
COMMIT;
"""
_INSERT_EVENT = (
    "INSERT INTO events (at, clock, kind, unit, run, policy, step, action, result, obstacle, message, detail)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_TABLES = ("chunks", "thinned", "events")
_Statement = tuple[str, Sequence[object]]
"""A statement, and its values."""


class _OtherVersionError(Exception):
    """The file is of another version of unitmem, or of something else."""


class Recorder:
    """The writer of one watch's history; it never raises: `trouble` says why nothing is recorded, or is None."""

    def __init__(self, directory: Path | None, boot_id: str, max_bytes: int = MAX_BYTES) -> None:
        self.trouble: str | None = None
        self._path = None if directory is None else directory / FILE_NAME
        self._boot_id = boot_id
        self._max_bytes = max_bytes
        self._written = 0
        self._reopen_at = -inf
        self._is_urgent = False
        self._asked_for: tuple[object, ...] = ()
        self._kept = Kept((), (), with_levels=False)
        self._buffer = Buffer(0)
        self._database: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        """Of the file that is open."""
        if self._path is not None:
            self._open(self._path)

    def close(self) -> None:
        """Write what is left, and close the file."""
        if self._database is not None:
            self._write([self._row(*each) for each in self._buffer.close()], self._reopen_at)
        self._disconnect()

    def tick(
        self, sample: Sample, realtime: float, wanted: Collection[str], followed: Collection[str] = ()
    ) -> None:
        """Record a sample: the `wanted` measures, and those that are always recorded; levels if `fill` is wanted.

        Of those in `followed`, by which slopes are judged, any change is kept.
        """
        if not self._is_open(sample.at):
            return
        if self._asked_for != (wanted, followed):
            self._asked_for = wanted, followed
            with_levels = FILL in wanted
            others = {*wanted, *(MACHINE if with_levels else ())}.difference(_ALWAYS)
            self._kept = Kept((*_ALWAYS, *sorted(others)), followed, with_levels=with_levels)
        self._buffer.add(sample, realtime, self._kept)
        due = [self._row(*each) for each in self._buffer.take(everything=self._is_urgent)]
        self._is_urgent = False
        self._write(due, sample.at)

    def trouble_reported(self) -> None:
        """To be called after `trouble` was reported: forget it if the file is open again, as after a damaged one was set aside."""
        if self._database is not None:
            self.trouble = None

    def resumed(self) -> None:
        """Note that nobody has looked for a while, as the machine was suspended."""
        self._buffer.resume()

    def event(self, event: Event, clock: float) -> None:
        """Record an event at once, and with the next sample those around it, as they are, if something was decided or done."""
        if not self._is_open(clock):
            return
        if event.kind is not EventKind.UNKNOWN:
            self._buffer.keep_exactly(clock)
            self._is_urgent = True
        values = (
            event.at,
            clock,
            event.kind,
            event.unit,
            event.run,
            event.policy,
            event.step,
            event.action,
            event.result,
            event.obstacle,
            event.message,
            _dump(event.detail),
        )
        self._write([(_INSERT_EVENT, values)], clock)

    def _is_open(self, clock: float) -> bool:
        """Return whether the file is open; after an error, try again after a while."""
        if self._database is None and self._path is not None and clock >= self._reopen_at:
            self._reopen_at = clock + _REOPEN_AFTER
            self.trouble = None
            self._open(self._path)
        return self._database is not None

    def _open(self, path: Path) -> None:
        try:
            self._database, self._identity = _create(path), _identity(path)
            number = max(
                self._database.execute(f"SELECT MAX({column}) FROM {table}").fetchone()[0] or 0  # noqa: S608 - ours
                for table, column in (("chunks", "thinned"), ("thinned", "id"))
            )
            self._buffer = Buffer(number + 1)
        except (sqlite3.Error, _OtherVersionError) as error:
            self._failed(path, error, f"{path}: {error}: nothing is recorded")

    def _failed(self, path: Path, error: Exception, trouble: str) -> None:
        """Close the file after an error; if it is damaged, set it aside and begin a new one."""
        self._disconnect()
        self.trouble = trouble
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGE:
            return
        try:
            for suffix in ("", "-wal", "-shm"):
                part = path.with_name(path.name + suffix)
                if part.exists():
                    part.replace(f"{part}.damaged")
            self._database, self._buffer, self._identity = _create(path), Buffer(1), _identity(path)
            self.trouble = f"{path} is damaged ({error}): it is set aside as {path}.damaged"
        except (sqlite3.Error, OSError) as second:
            self.trouble = f"{path}: {second}: nothing is recorded"

    def _begin_anew(self, path: Path, clock: float) -> None:
        """Open what is at `path` in place of the file that was there."""
        self._disconnect()
        self.trouble = None
        self._open(path)
        if self._database is None:
            self._reopen_at = clock + _REOPEN_AFTER
            if not os.path.lexists(path):
                self.trouble = f"the history can't be written: {path} was removed"
        elif self.trouble is None:
            self.trouble = f"{path} was removed or replaced: another one is begun"

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _row(self, is_thinned: bool, written: Written) -> _Statement:
        at, until, number, chunk = written
        data = encode(chunk)
        self._written += len(data)
        place = "thinned (id" if is_thinned else "chunks (thinned"
        statement = f"INSERT INTO {place}, at, until, boot, is_key, data) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608 - ours
        return statement, (number, at, until, self._boot_id, chunk.is_key, data)

    def _write(self, rows: Sequence[_Statement], clock: float) -> None:
        """Write `rows` in one transaction."""
        if self._database is None or self._path is None or not rows:
            return
        if _identity(self._path) != self._identity:  # what is written to it nobody would find
            self._begin_anew(self._path, clock)
            self._write([row for row in rows if row[0] is _INSERT_EVENT], clock)
            return
        try:
            with self._database:
                for statement, values in rows:
                    self._database.execute(statement, values)
                    self._written += sum(len(value) for value in values if isinstance(value, str))
            if self._written > self._max_bytes * _PRUNE_EVERY:
                self._written = 0
                self._prune(self._database)
        except sqlite3.Error as error:
            # a full disk, say: guarding goes on without a record of it
            self._reopen_at = clock + _REOPEN_AFTER
            self._failed(self._path, error, f"the history can't be written: {error}")
            self._write(
                [row for row in rows if row[0] is _INSERT_EVENT], clock
            )  # into a new file, if there is one

    def _prune(self, database: sqlite3.Connection) -> None:
        with database:
            if (events := _used(database, "events", "detail", "message")) > (room := self._max_bytes / 2):
                _delete_oldest(database, "events", events, room)  # samples need some too
            if (thinned := _used(database, "thinned", "data")) > (room := self._max_bytes * _THINNED_SHARE):
                _delete_oldest(database, "thinned", thinned, room)
            (pages,) = database.execute("PRAGMA page_count").fetchone()
            (free,) = database.execute("PRAGMA freelist_count").fetchone()
            (size,) = database.execute("PRAGMA page_size").fetchone()
            excess = (pages - free) * size - self._max_bytes
            for table, column in (("ticks", "units"), ("chunks", "data"), ("thinned", "data")):
                if excess > 0 and (used := _used(database, table, column)):
                    _delete_oldest(database, table, used, max(0.0, used - excess))
                    break


def decision_event(
    decision: Decision, message: str, realtime: float, processes: Sequence[Process] = ()
) -> Event:
    """Return the event of `decision`, with its inputs and the unit's processes at that time."""
    return replace(
        _event_about(decision, EventKind.DECISION, message, realtime),
        result="observed" if decision.observe and decision.refusal is None else None,
        obstacle=None if decision.refusal is None else decision.refusal.obstacle,
        detail={
            **described(decision.content),
            "held": decision.held,
            "for": decision.hold,
            "findings": [
                {
                    "condition": str(finding.comparison),
                    "measure": finding.comparison.subject,
                    "value": finding.value,
                    "threshold": finding.threshold,
                }
                for finding in decision.findings
            ],
            **_picked_from(decision),
            "processes": [
                {
                    "pid": process.pid,
                    "name": process.name,
                    "command": process.command[:200],
                    "rss": process.rss,
                    "pss": process.pss,
                }
                for process in processes
            ],
        },
    )


def described(content: str) -> dict[str, str]:
    """Return the detail of an event with what ran in its unit, by `Unit.content`; nothing where the name says it."""
    return {"description": content} if content else {}


def _picked_from(decision: Decision) -> dict[str, Any]:
    """Return the units among which it was picked, the first of them with their values; nothing where it wasn't."""
    ranking = decision.ranking
    if ranking is None:
        return {}
    first = [{"unit": unit, "value": value} for unit, value in ranking.first]
    return {"pick": {"by": ranking.by, "of": ranking.of, "first": first}}


def outcome_event(outcome: Outcome, message: str, realtime: float) -> Event:
    """Return the event of an outcome."""
    return replace(
        _event_about(outcome.decision, EventKind.OUTCOME, message, realtime), result=outcome.result
    )


def _event_about(decision: Decision, kind: EventKind, message: str, realtime: float) -> Event:
    return Event(
        at=realtime,
        kind=kind,
        unit=decision.unit,
        message=message,
        run=decision.invocation.invocation_id,
        policy=decision.policy,
        step=decision.step_number,
        action=decision.action.name,
        detail=described(decision.content),
    )


def _used(database: sqlite3.Connection, table: str, *columns: str) -> float:
    """Return the bytes in those columns of a table; 0 if there is no such table."""
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
        return 0.0
    lengths = " + ".join(f"LENGTH(CAST({column} AS BLOB))" for column in columns)
    # the tables are our own
    (used,) = database.execute(f"SELECT TOTAL({lengths}) FROM {table}").fetchone()  # noqa: S608
    return float(used)


def _delete_oldest(database: sqlite3.Connection, table: str, used: float, room: float) -> None:
    # a tenth more than what is too much, so that it is not due again at once
    share = 1 - 0.9 * room / used
    database.execute(
        # the tables are our own
        f"DELETE FROM {table} WHERE id <= (SELECT MIN(id) + (MAX(id) - MIN(id)) * ? FROM {table})",  # noqa: S608
        (share,),
    )


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what the file at `path` differs by from another one there; None where there is none, or it can't be asked."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _create(path: Path) -> sqlite3.Connection:
    """Return the database at `path`, open for writing, with its tables.

    Raises:
        sqlite3.Error: it is damaged, or can't be written.
        _OtherVersionError: another version of unitmem has written it, or something else; it is left as it is.
    """
    # autocommit is off: each insert is in a transaction, which readers see when it is done
    database = sqlite3.connect(path, timeout=1.0)
    try:
        is_new = not _has_tables(database)
        # of a new file: each minute writes little, and pages as a whole
        database.execute(f"PRAGMA page_size = {_PAGE}")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA cache_size = -64")
        database.execute(f"PRAGMA wal_autocheckpoint = {_LOG // _PAGE}")
        if is_new:
            database.executescript(_SCHEMA)
    except BaseException:
        database.close()
        raise
    return database


def _has_tables(database: sqlite3.Connection) -> bool:
    """Return whether a database has the tables of this version; it may be empty, or of version 0.1.

    Raises:
        _OtherVersionError: it is neither.
    """
    (version,) = database.execute("PRAGMA user_version").fetchone()
    names = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if version not in (0, 1, VERSION) or (names and not names & {"ticks", *_TABLES}):
        raise _OtherVersionError(
            f"another version of unitmem has written it (format {version}), so it is left as it is"
        )
    return version == VERSION and names.issuperset(_TABLES)


def _dump(document: Mapping[str, object]) -> str:
    # as it is, since escapes take three times as much; but sqlite takes no half of a surrogate pair
    text = json.dumps(dict(document), ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="replace").decode()
