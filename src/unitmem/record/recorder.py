"""The flight recorder: writing the history of a watch, with the samples, decisions and outcomes of each tick.

It writes after the watch has acted, and never waits for a disk: nothing is synchronised, so a crash of the machine
may lose the end of the history, or all of it; a damaged file is renamed, and a new one is begun.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

from unitmem.kernel.limits import Level
from unitmem.kernel.oom_preference import OomPreference
from unitmem.kernel.process import Process
from unitmem.measure.catalogue import Trait, with_trait
from unitmem.measure.sample import HostSample, Sample, UnitSample
from unitmem.policy.condition import FILL
from unitmem.policy.decision import Decision, Outcome
from unitmem.record.history import FILE_NAME, HOST, LEVEL_KEYS, Event, EventKind

MAX_BYTES = 64 << 20
_PRUNE_EVERY = 0.02
"""The share of the size limit that may be written until the size is checked again."""
_REOPEN_AFTER = 60.0
"""Seconds until writing is retried after it failed."""

_MOST_RANKED = 10

_ALWAYS = with_trait(Trait.RECORDED)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS ticks (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, clock REAL NOT NULL, boot TEXT NOT NULL, units TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, clock REAL NOT NULL, kind TEXT NOT NULL, unit TEXT NOT NULL,
    run TEXT, policy TEXT, step INTEGER, action TEXT, result TEXT, obstacle TEXT, message TEXT NOT NULL,
    detail TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS events_of_unit ON events (unit, at);
PRAGMA user_version = 1;
"""


class Recorder:
    """The writer of one watch's history; it never raises: `trouble` says why nothing is recorded, or is None."""

    def __init__(self, directory: Path | None, boot_id: str, max_bytes: int = MAX_BYTES) -> None:
        self.trouble: str | None = None
        self._path = None if directory is None else directory / FILE_NAME
        self._boot_id = boot_id
        self._max_bytes = max_bytes
        self._written = 0
        self._reopen_at = -inf
        self._database: sqlite3.Connection | None = None
        if self._path is not None:
            self._open(self._path)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def tick(self, sample: Sample, realtime: float, wanted: Iterable[str]) -> None:
        """Record a sample: the `wanted` measures, and those that are always recorded; levels if `fill` is wanted."""
        if not sample.units:
            return
        wanted = set(wanted)
        kept = (*_ALWAYS, *sorted(wanted.difference(_ALWAYS)))
        units = {
            name: _unit_document(unit, kept, sample.at, with_levels=FILL in wanted)
            for name, unit in sample.units.items()
        }
        # no unit is called so, as a unit's name has a dot
        units[HOST] = _part_document(sample.host, kept)
        self._insert(
            "INSERT INTO ticks (at, clock, boot, units) VALUES (?, ?, ?, ?)",
            (realtime, sample.at, self._boot_id, _dump(units)),
            sample.at,
        )

    def event(self, event: Event, clock: float) -> None:
        """Record an event."""
        self._insert(
            "INSERT INTO events (at, clock, kind, unit, run, policy, step, action, result, obstacle, message,"
            " detail) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
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
            ),
            clock,
        )

    def _open(self, path: Path) -> None:
        try:
            self._database = _create(path)
        except sqlite3.OperationalError as error:
            self.trouble = f"{path}: {error}: nothing is recorded"
        except sqlite3.DatabaseError as error:
            try:
                for suffix in ("", "-wal", "-shm"):
                    part = path.with_name(path.name + suffix)
                    if part.exists():
                        part.replace(f"{part}.damaged")
                self._database = _create(path)
                self.trouble = f"{path} is damaged ({error}): it is set aside as {path}.damaged"
            except (sqlite3.Error, OSError) as second:
                self.trouble = f"{path}: {second}: nothing is recorded"

    def _insert(self, statement: str, values: Sequence[object], clock: float) -> None:
        if self._database is None and self._path is not None and clock >= self._reopen_at:
            self._reopen_at = clock + _REOPEN_AFTER
            self.trouble = None
            self._open(self._path)
        if self._database is None:
            return
        try:
            with self._database:
                self._database.execute(statement, tuple(values))
            self._written += sum(len(value) for value in values if isinstance(value, str))
            if self._written > self._max_bytes * _PRUNE_EVERY:
                self._written = 0
                self._prune(self._database)
        except sqlite3.Error as error:
            # a full disk, say: guarding goes on without a record of it
            self.trouble = f"the history can't be written: {error}"
            self._reopen_at = clock + _REOPEN_AFTER
            self.close()

    def _prune(self, database: sqlite3.Connection) -> None:
        with database:
            (pages,) = database.execute("PRAGMA page_count").fetchone()
            (free,) = database.execute("PRAGMA freelist_count").fetchone()
            (size,) = database.execute("PRAGMA page_size").fetchone()
            if (used := (pages - free) * size) > self._max_bytes:
                _delete_oldest(database, "ticks", used, self._max_bytes)
            (used_by_events,) = database.execute(
                "SELECT TOTAL(LENGTH(CAST(detail AS BLOB)) + LENGTH(CAST(message AS BLOB))) FROM events"
            ).fetchone()
            if used_by_events > (room := self._max_bytes / 2):  # samples need some too
                _delete_oldest(database, "events", used_by_events, room)


def decision_event(
    decision: Decision, message: str, realtime: float, processes: Sequence[Process] = ()
) -> Event:
    """Return the event of `decision`, with its inputs and the unit's processes at that time."""
    return replace(
        _event_about(decision, EventKind.DECISION, message, realtime),
        result="observed" if decision.observe and decision.refusal is None else None,
        obstacle=None if decision.refusal is None else decision.refusal.obstacle,
        detail={
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


def _picked_from(decision: Decision) -> dict[str, Any]:
    """Return the units among which it was picked, the first of them with their values; nothing where it wasn't."""
    ranking = decision.ranking
    if ranking is None:
        return {}
    first = [{"unit": unit, "value": value} for unit, value in ranking.candidates[:_MOST_RANKED]]
    return {"pick": {"by": ranking.by, "of": len(ranking.candidates), "first": first}}


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
    )


def _delete_oldest(database: sqlite3.Connection, table: str, used: float, room: float) -> None:
    # a tenth more than what is too much, so that it is not due again at once
    share = 1 - 0.9 * room / used
    database.execute(
        # the tables are our own
        f"DELETE FROM {table} WHERE id <= (SELECT MIN(id) + (MAX(id) - MIN(id)) * ? FROM {table})",  # noqa: S608
        (share,),
    )


def _create(path: Path) -> sqlite3.Connection:
    # autocommit is off: each insert is a transaction of its own, which readers see when it is done
    database = sqlite3.connect(path, timeout=1.0)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = OFF")
    database.execute("PRAGMA cache_size = -256")
    database.executescript(_SCHEMA)
    return database


def _dump(document: Mapping[str, object]) -> str:
    # as it is, since escapes take three times as much; but sqlite takes no half of a surrogate pair
    text = json.dumps(dict(document), ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="replace").decode()


def _part_document(part: UnitSample | HostSample, measures: Sequence[str]) -> dict[str, Any]:
    return {
        "values": {name: part.values[name] for name in measures if name in part.values},
        "unknown": {name: part.unknown[name] for name in measures if name in part.unknown},
    }


def _level_document(level: Level) -> dict[str, Any]:
    document = {key: value for key in LEVEL_KEYS if (value := getattr(level, key)) is not None}
    return document | {"unknown": dict(level.unknown)} if level.unknown else document


def _unit_document(
    unit: UnitSample, measures: Sequence[str], at: float, *, with_levels: bool
) -> dict[str, Any]:
    invocation = unit.invocation
    document: dict[str, Any] = {
        "run": None if invocation is None else invocation.invocation_id,
        "inode": None if invocation is None else invocation.cgroup_inode,
        **_part_document(unit, measures),
    }
    if unit.at_most:
        document["at_most"] = {name: unit.at_most[name] for name in measures if name in unit.at_most}
    if with_levels:
        document["levels"] = [_level_document(level) for level in unit.levels]
    if unit.oom_ends:
        document["oom_ends"] = [round(at - end, 3) for end in unit.oom_ends]
    if unit.unit.aliases:
        document["aliases"] = list(unit.unit.aliases)
    if unit.unit.control_group is not None:
        document["cgroup"] = unit.unit.control_group
    if unit.oom_preference is not OomPreference.NONE:
        document["oom_preference"] = unit.oom_preference.value
    if unit.protected is not None:
        document["protected"] = unit.protected
    return document
