"""The flight recorder: what was read, decided and done, in a bounded SQLite file.

Two tables. `ticks` has the samples, as `replay` needs them; `events` what was decided, withheld, done
and not known, with its inputs. The daemon writes after it has acted, and never waits for a disk:
nothing is synchronised, so a crash of the machine may cost the end of the history, or all of it, and
a file that is damaged is set aside. Readers open it read-only while it is written.

The same samples have a form for data from elsewhere, a JSON object on each line:

    {"at": 12.5, "units": {"web.service": {"run": "1", "values": {"anon": 1048576}, "unknown": {"pss": "why"}}}}

`at` is in seconds and never falls; `run` changes when the unit is started anew; `values` are by the
measures' names, in bytes, percent and counts; `protected` may say why no policy may touch the unit.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from enum import StrEnum
from io import BufferedReader
from math import inf
from pathlib import Path
from typing import Any, Self

from unitmem.engine import Decision
from unitmem.errors import UnitmemError
from unitmem.outcome import Outcome
from unitmem.policy import action_name
from unitmem.process import Process
from unitmem.sample import Sample, UnitSample
from unitmem.unit import Invocation, Unit

FILE_NAME = "history.sqlite"
_MAGIC = b"SQLite format 3\0"
MAX_BYTES = 64 << 20
_PRUNE_EVERY = 0.02
"""Share of the bound that may be written until it is looked at again."""
_REOPEN_AFTER = 60.0
"""Seconds until a history that could not be written is tried again."""
_BATCH = 200
"""Ticks that are read at once: a reader that takes its time must not hold up what the writer has to take back."""

ALWAYS = (
    "current",
    "workingset",
    "unreclaimable",
    "anon",
    "swap",
    "limit",
    "pressure.some.avg10",
    "pressure.full.avg10",
)
"""Measures that are kept whether a condition needs them or not, to explain and to try other policies on."""

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


class Kind(StrEnum):
    """What an event is."""

    DECISION = "decision"
    """Something was decided, or would have been (see its obstacle)."""
    OUTCOME = "outcome"
    """What became of a decision."""
    UNKNOWN = "unknown"
    """A condition can't be judged."""
    SET_BACK = "set back"
    """A property was set back."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a unit's story."""

    at: float
    """Wall clock, in seconds."""
    kind: Kind
    unit: str
    message: str
    """The sentence that the journal has as well."""
    run: str | None = None
    """The InvocationID."""
    policy: str | None = None
    step: int | None = None
    """From 1."""
    action: str | None = None
    result: str | None = None
    obstacle: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    """`findings`, `held`, `processes`, and whatever else its kind has."""


class HistoryError(UnitmemError):
    """A history that can't be read."""


# --- writing ------------------------------------------------------------------------------------


class Recorder:
    """The history of one daemon; it never raises: `trouble` says why nothing is recorded, if so."""

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
        """Keep what was read: `wanted` measures, and those of `ALWAYS`."""
        if not sample.units:
            return
        kept = (*ALWAYS, *sorted(set(wanted).difference(ALWAYS)))
        units = {name: _unit_document(unit, kept) for name, unit in sample.units.items()}
        self._insert(
            "INSERT INTO ticks (at, clock, boot, units) VALUES (?, ?, ?, ?)",
            (realtime, sample.at, self._boot_id, _dump(units)),
            sample.at,
        )

    def event(self, event: Event, clock: float) -> None:
        """Keep one line of a unit's story."""
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
            (told,) = database.execute(
                "SELECT TOTAL(LENGTH(CAST(detail AS BLOB)) + LENGTH(CAST(message AS BLOB))) FROM events"
            ).fetchone()
            if told > (room := self._max_bytes / 2):  # samples need some too
                _delete_oldest(database, "events", told, room)


def decision_event(
    decision: Decision, message: str, realtime: float, processes: Sequence[Process] = ()
) -> Event:
    """`decision` with all its inputs, and the processes of the unit at that moment."""
    return replace(
        _event_about(decision, Kind.DECISION, message, realtime),
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


def outcome_event(outcome: Outcome, message: str, realtime: float) -> Event:
    """What became of a decision."""
    return replace(_event_about(outcome.decision, Kind.OUTCOME, message, realtime), result=outcome.result)


def _event_about(decision: Decision, kind: Kind, message: str, realtime: float) -> Event:
    return Event(
        at=realtime,
        kind=kind,
        unit=decision.unit,
        message=message,
        run=decision.invocation.invocation_id,
        policy=decision.policy,
        step=decision.step + 1,
        action=action_name(decision.action),
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


def _unit_document(unit: UnitSample, measures: Sequence[str]) -> dict[str, Any]:
    invocation = unit.invocation
    document: dict[str, Any] = {
        "run": None if invocation is None else invocation.invocation_id,
        "inode": None if invocation is None else invocation.cgroup_inode,
        "values": {name: unit.values[name] for name in measures if name in unit.values},
        "unknown": {name: unit.unknown[name] for name in measures if name in unit.unknown},
    }
    if unit.at_most:
        document["at_most"] = {name: unit.at_most[name] for name in measures if name in unit.at_most}
    if unit.protected is not None:
        document["protected"] = unit.protected
    return document


# --- reading ------------------------------------------------------------------------------------


class History:
    """A history, open for reading.

    Raises:
        HistoryError: there is none, or it can't be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _open(path).close()
        try:
            self._database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
            self._database.execute("SELECT id FROM ticks LIMIT 1")
        except sqlite3.Error as error:
            raise self._unreadable(error) from None

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def events(self, unit: str | None = None, since: float = 0.0) -> list[Event]:
        """What happened to `unit`, or to every unit, from `since` (wall clock) on, oldest first."""
        rows = self._query(
            "SELECT at, kind, unit, message, run, policy, step, action, result, obstacle, detail FROM events"
            " WHERE at >= ? AND (? IS NULL OR unit = ?) ORDER BY id",
            (since, unit, unit),
        )
        return [
            Event(
                at, Kind(kind), name, message, run, policy, step, action, result, obstacle, json.loads(detail)
            )
            for at, kind, name, message, run, policy, step, action, result, obstacle, detail in rows
        ]

    def samples(self) -> Iterator[Sample]:
        """Every sample, oldest first; times are those of the daemon's clock, moved on over reboots."""
        shift, last, boot = 0.0, 0.0, None
        for clock, row_boot, units in self._ticks():
            if boot is not None and row_boot != boot:
                shift = last + 1.0 - clock
            boot, last = row_boot, clock + shift
            yield Sample(last, _units(json.loads(units)))

    def series(self, unit: str, measure: str, since: float, until: float) -> list[tuple[float, float]]:
        """(wall clock, value) of one measure, oldest first."""
        rows = self._query("SELECT at, units FROM ticks WHERE at BETWEEN ? AND ? ORDER BY id", (since, until))
        found = ((at, json.loads(units).get(unit, {}).get("values", {}).get(measure)) for at, units in rows)
        return [(at, value) for at, value in found if value is not None]

    def _ticks(self) -> Iterator[tuple[float, str, str]]:
        last = -1
        while batch := list(
            self._query(
                "SELECT id, clock, boot, units FROM ticks WHERE id > ? ORDER BY id LIMIT ?", (last, _BATCH)
            )
        ):
            for _, *tick in batch:
                yield tuple(tick)
            last = batch[-1][0]

    def _query(self, statement: str, values: Sequence[object]) -> Iterator[Any]:
        try:
            with closing(self._database.execute(statement, tuple(values))) as cursor:
                yield from cursor
        except (sqlite3.Error, ValueError) as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> HistoryError:
        name = self.path.parent.name
        return HistoryError(
            f"{self.path} can't be read: {error}",
            hint=f"if it is damaged, a restart of unitmem@{name}.service sets it aside and begins a new one",
        )


_HINT = "a watch that runs as unitmem@NAME.service records one in /var/lib/unitmem/NAME/"


def _open(path: Path) -> BufferedReader:
    try:
        return path.open("rb")
    except PermissionError:
        raise HistoryError(f"{path}: permission denied", hint="run it as root") from None
    except OSError as error:
        raise HistoryError(f"{path}: {(error.strerror or str(error)).lower()}", hint=_HINT) from None


def find_histories(root: Path) -> list[Path]:
    """The history of every instance, by name; also of one into whose directory this user may not look.

    Raises:
        HistoryError: not even the instances can be listed.
    """
    try:
        directories = sorted(entry.path for entry in os.scandir(root) if entry.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HistoryError(
            f"{root}: {(error.strerror or str(error)).lower()}", hint="run it as root"
        ) from None
    return [path for directory in directories if _may_exist(path := Path(directory, FILE_NAME))]


def _may_exist(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def read_samples(path: Path) -> Iterator[Sample]:
    """The samples of a recorded history, or of a file of JSON lines, whichever `path` is.

    Raises:
        HistoryError: neither, or a line that is off, with its number.
    """
    with _open(path) as stream:
        if not stream.peek(len(_MAGIC)).startswith(_MAGIC):
            yield from _read_lines(stream, path)
            return
    with History(path) as history:
        yield from history.samples()


def _read_lines(stream: BufferedReader, path: Path) -> Iterator[Sample]:
    last: float | None = None
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
            at = float(document["at"])
            units = _units(document["units"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HistoryError(
                f"{path}:{number}: not a sample: {error}",
                hint='a line is like {"at": 12.5, "units": {"web.service": {"run": "1", "values": {"anon": 1048576}}}}',
            ) from None
        if last is not None and at < last:
            raise HistoryError(f"{path}:{number}: `at` falls from {last:g} to {at:g}: sort the lines by it")
        last = at
        yield Sample(at, units)


def _units(document: Mapping[str, Any]) -> dict[str, UnitSample]:
    units = {}
    for name, entry in document.items():
        run = entry.get("run")
        values = {str(measure): _checked(value) for measure, value in entry["values"].items()}
        units[str(name)] = UnitSample(
            Unit(str(name), invocation_id=None if run is None else str(run)),
            Invocation(str(name), None if run is None else str(run), int(entry.get("inode") or 0)),
            protected=entry.get("protected"),
            values={measure: value for measure, value in values.items() if value is not None},
            unknown={str(measure): str(why) for measure, why in entry.get("unknown", {}).items()},
            at_most={str(measure): int(value) for measure, value in entry.get("at_most", {}).items()},
        )
    return units


def _checked(value: object) -> float | None:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise ValueError(f"{value!r} is no number")
