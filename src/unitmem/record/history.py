"""Reading the history of a watch: samples and events in a bounded SQLite file that `recorder` writes.

It has two tables: `ticks` with the samples, for `replay`, and `events` with decisions, obstacles, outcomes and
unknowns, with their inputs. Readers open it read-only while it is written.

Samples from other sources are read from JSON lines, an object for each sample:

    {"at": 12.5, "units": {"web.service": {"run": "1", "values": {"anon": 1048576}, "unknown": {"pss": "why"}}}}

`at` is in seconds and never falls; `run` changes when the unit is started anew; `values` are by the
measures' names, in bytes, percent, counts and seconds; `protected` may say why no policy may touch the unit;
`oom_ends` may list how many seconds ago OOM kills ended earlier runs of it; `levels` have the limits of its cgroup
and of those around it, as in `LEVEL_KEYS`, which `eta` is judged by, and under `unknown` why a `max` or `high` is missing;
`cgroup` has its path, and `oom_preference` its ManagedOOMPreference=, which a `pick` goes by.
A key `host` beside `units` has the `values` and `unknown` of the machine.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from io import BufferedReader
from pathlib import Path
from typing import Any, Self

from unitmem.errors import UnitmemError, reason_of
from unitmem.kernel.limits import Level
from unitmem.kernel.oom_preference import OomPreference
from unitmem.measure.sample import HostSample, Sample, UnitSample
from unitmem.record.clock import Instant
from unitmem.unit import Invocation, Unit

FILE_NAME = "history.sqlite"
HOST = "host"
"""The key of the host's measures among those of units."""
LEVEL_KEYS = ("path", "max", "high", "current", "file", "slab_reclaimable")
"""What is recorded of each of a unit's levels, where `fill` or `eta` asks for them; `unknown` beside them has reasons."""
_OF_HOST = "host."
_MAGIC = b"SQLite format 3\0"
_NOT_A_SAMPLE = (ValueError, KeyError, TypeError, AttributeError)
"""What reading a document raises that is not that of a sample."""
_BATCH = 200
"""Ticks that are read in one query: a slow reader must not keep the writer's log from being truncated."""
_MOMENT = 1.0
"""The seconds that a reboot counts for at least, even if the wall clock was set back meanwhile."""


class EventKind(StrEnum):
    """The kinds of events in a history."""

    DECISION = "decision"
    """A decision, which was withheld if it has an obstacle."""
    OUTCOME = "outcome"
    """The outcome of a decision."""
    UNKNOWN = "unknown"
    """A condition can't be judged."""
    SET_BACK = "set back"
    """A property was set back."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event about a unit."""

    at: float
    """Wall clock, in seconds."""
    kind: EventKind
    unit: str
    message: str
    """The message, as in the journal."""
    run: str | None = None
    """The InvocationID."""
    policy: str | None = None
    step: int | None = None
    """The number of the step, from 1."""
    action: str | None = None
    result: str | None = None
    obstacle: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    """`findings`, `held`, `processes`, and others by kind."""


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
        """Return the events of `unit`, or of every unit, from `since` (wall clock) on, oldest first."""
        rows = self._query(
            "SELECT at, kind, unit, message, run, policy, step, action, result, obstacle, detail FROM events"
            " WHERE at >= ? AND (? IS NULL OR unit = ?) ORDER BY id",
            (since, unit, unit),
        )
        return [
            Event(
                at,
                EventKind(kind),
                name,
                message,
                run,
                policy,
                step,
                action,
                result,
                obstacle,
                json.loads(detail),
            )
            for at, kind, name, message, run, policy, step, action, result, obstacle, detail in rows
        ]

    def samples(self) -> Iterator[Sample]:
        """Yield every sample, oldest first; times of later boots are converted to the first boot's monotonic clock."""
        moved, then = 0.0, None
        for at, clock, boot, units in self._ticks():
            now = Instant(clock, at, boot)
            if then is not None:
                moved -= now.shift_from(then, at_least=_MOMENT)
            then = now
            try:
                sample = _sample(clock + moved, json.loads(units))
            except _NOT_A_SAMPLE as error:
                raise self._unreadable(error, f"sample at {at:.3f}") from None
            yield sample

    def series(self, unit: str, measure: str, since: float, until: float) -> list[tuple[float, float]]:
        """Return (wall clock, value) pairs of one measure, oldest first."""
        rows = self._query("SELECT at, units FROM ticks WHERE at BETWEEN ? AND ? ORDER BY id", (since, until))
        found = ((at, json.loads(units).get(unit, {}).get("values", {}).get(measure)) for at, units in rows)
        return [(at, value) for at, value in found if value is not None]

    def _ticks(self) -> Iterator[tuple[float, float, str, str]]:
        last = -1
        while batch := list(
            self._query(
                "SELECT id, at, clock, boot, units FROM ticks WHERE id > ? ORDER BY id LIMIT ?",
                (last, _BATCH),
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

    def _unreadable(self, error: Exception, what: str = "") -> HistoryError:
        name = self.path.parent.name
        return HistoryError(
            f"{self.path} can't be read: {f'{what}: ' if what else ''}{error}",
            hint=f"if it is damaged, a restart of unitmem@{name}.service sets it aside and begins a new one",
        )


_HINT = "a watch that runs as unitmem@NAME.service records one in /var/lib/unitmem/NAME/"


def _open(path: Path) -> BufferedReader:
    try:
        return path.open("rb")
    except PermissionError:
        raise HistoryError(f"{path}: permission denied", hint="run it as root") from None
    except OSError as error:
        raise HistoryError(f"{path}: {reason_of(error)}", hint=_HINT) from None


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


def read_samples(path: Path) -> Iterator[Sample]:
    """Yield the samples of a recorded history, or of a file of JSON lines, whichever `path` is.

    Raises:
        HistoryError: it is neither, or a line is wrong; the message has its number.
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
            at = float(_finite(document["at"]))
            sample = _sample(at, document["units"], document.get(HOST, {}))
        except _NOT_A_SAMPLE as error:
            raise HistoryError(
                f"{path}:{number}: not a sample: {error}",
                hint='a line is like {"at": 12.5, "units": {"web.service": {"run": "1", "values": {"anon": 1048576}}}}',
            ) from None
        if last is not None and at < last:
            raise HistoryError(f"{path}:{number}: `at` falls from {last:g} to {at:g}: sort the lines by it")
        last = at
        yield sample


def _sample(at: float, document: Mapping[str, Any], host: Mapping[str, Any] | None = None) -> Sample:
    """Return the sample in `document`, a mapping by unit; version 0.1 had the host's measures in each unit."""
    units = {}
    host = dict(host or document.get(HOST, {}))
    values, unknown = dict(_values(host.get("values", {}))), dict(host.get("unknown", {}))
    for name, entry in document.items():
        if name == HOST:
            continue
        run = entry.get("run")
        own = _values(entry["values"])
        reasons = {str(measure): str(why) for measure, why in entry.get("unknown", {}).items()}
        values.update((measure, value) for measure, value in own.items() if measure.startswith(_OF_HOST))
        unknown.update((measure, why) for measure, why in reasons.items() if measure.startswith(_OF_HOST))
        units[str(name)] = UnitSample(
            Unit(
                str(name),
                invocation_id=None if run is None else str(run),
                control_group=None if (path := entry.get("cgroup")) is None else str(path),
                aliases=tuple(map(str, entry.get("aliases", ()))),
            ),
            Invocation(str(name), None if run is None else str(run), int(_finite(entry.get("inode") or 0))),
            protected=entry.get("protected"),
            oom_preference=OomPreference(entry.get("oom_preference", "none")),
            values={measure: value for measure, value in own.items() if not measure.startswith(_OF_HOST)},
            unknown={measure: why for measure, why in reasons.items() if not measure.startswith(_OF_HOST)},
            levels=tuple(_level(level) for level in entry.get("levels", ())),
            oom_ends=tuple(at - _finite(ago) for ago in entry.get("oom_ends", ())),
            at_most={
                str(measure): int(_finite(value)) for measure, value in entry.get("at_most", {}).items()
            },
        )
    return Sample(
        at, units, HostSample(values, {name: why for name, why in unknown.items() if name not in values})
    )


def _level(document: Mapping[str, Any]) -> Level:
    sizes = {key: int(_finite(document[key])) for key in LEVEL_KEYS if key in document and key != "path"}
    unknown = {str(name): str(why) for name, why in document.get("unknown", {}).items()}
    return Level(str(document["path"]), **sizes, unknown=unknown)


def _values(document: Mapping[str, Any]) -> dict[str, float]:
    checked = {str(measure): _checked(value) for measure, value in document.items()}
    return {measure: value for measure, value in checked.items() if value is not None}


def _checked(value: object) -> float | None:
    return None if value is None else _finite(value)


def _finite(value: object) -> float:
    """Return `value` if it is a number; NaN, infinity and what no float can hold (1e999) are none."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return value
    raise ValueError(f"{value!r:.40} is not a number")
