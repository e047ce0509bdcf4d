"""What the journal tells of runs of units, put together: one run's events, the OOM kills in it, what unitmem did.

The sources reach journald on different ways, so that their lines may come out of order; the kernel's and
systemd-oomd's name a cgroup, and no invocation.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from unitmem.explain import entries as fields
from unitmem.explain.entries import (
    OomKill,
    parse_killed,
    parse_oom_kill,
    parse_oomd_kill,
    parse_signal_request,
    parse_timeout,
    text,
    unit_of_cgroup,
    values,
)
from unitmem.policy.decision import POLICY_FIELD, STEP_FIELD, UNIT_FIELD, Result
from unitmem.tell.journal import (
    ACTION_FIELD,
    DECISION_MESSAGE_ID,
    INVOCATION_FIELD,
    OBJECT_FIELDS,
    RESULT_FIELD,
)
from unitmem.text import format_size, printable
from unitmem.unit import ManagerKind, is_within, unit_kind

NEAR = 30.0
"""Seconds from a SIGKILL to the manager's notice: to free what a large process holds takes that long under pressure."""
SLOW = 90.0
"""Seconds a process may take over SIGTERM and its like: systemd's DefaultTimeoutStopSec=."""
LATE = 5.0
"""Seconds by which one source's lines may lag behind another's: they reach journald on different ways."""


class Kind(Enum):
    """What an event is; the manager's word on it, but for the last."""

    STARTING = auto()
    STOPPING = auto()
    STOPPED = auto()
    SUCCESS = auto()
    FAILURE = auto()
    MAIN_EXIT = auto()
    OTHER_EXIT = auto()
    SIGNAL = auto()
    OOM = auto()
    OOMD = auto()
    TIMEOUT = auto()
    LOST = auto()
    """Not in the journal: the next run began, and nothing was said of the end of this one."""


_KIND_OF_MESSAGE = {
    "7d4958e842da4a758f6c1cdc7b36dcc5": Kind.STARTING,
    "39f53479d3a045ac8e11786248231fbf": Kind.STARTING,  # started; some kinds and types say only this
    "de5b426a63be47a7b6ac3eaac82e2f6f": Kind.STOPPING,
    "9d1aaa27d60140bd96365438aad20286": Kind.STOPPED,
    "7ad2d189f7e94e70a38c781354912448": Kind.SUCCESS,
    "d9b373ed55a64feb8242e02dbe79a49c": Kind.FAILURE,
    "98e322203f7a4ed290d09fe03c09fe15": Kind.MAIN_EXIT,
    "fe6faa94e7774663a0da52717891d8ef": Kind.OOM,
    "d989611b15e44c9dbf31e3c81256e4ed": Kind.OOMD,  # of PID 1: systemd-oomd's own line has no MESSAGE_ID
}
# failures of a start that never made a run, or none of its own
_NO_ENDING = frozenset({"start-limit-hit", "exec-condition"})


@dataclass(frozen=True, slots=True)
class Event:
    """What one entry says."""

    kind: Kind
    at: float
    clock: float
    """Monotonic seconds, for what came before what, and how long."""
    boot: str | None
    """One boot's clock says nothing of another's."""
    message: str
    value: str = ""
    """Of a failure its result, of a job its type, of an exit its code (`exited`, `killed`, `dumped`)."""
    number: int | None = None
    """Of an exit its status or signal, of a request its signal."""


@dataclass(slots=True)
class Kill:
    """One OOM kill, put together from what the killer and the manager say of it."""

    by: Kind
    at: float
    clock: float
    why: str = ""
    """In the killer's words; empty while only the manager has told of it."""
    victim: str = ""
    evidence: list[Event] = field(default_factory=list)
    noticed: bool = False
    """Whether the manager has told of it."""

    @property
    def detail(self) -> str:
        if not self.why:
            return "the journal doesn't say which process, or why"
        return f"{self.why}; killed {self.victim}" if self.victim else self.why


@dataclass(slots=True)
class Deed:
    """A decision of unitmem, and what became of it."""

    key: tuple[str | None, ...]
    action: str
    result: str
    told: Event
    outcome: Event | None = None

    def covers(self, clock: float) -> bool:
        """Whether it was under way then."""
        if self.result in (Result.OBSERVED, Result.REFUSED, Result.GONE) or clock < self.told.clock:
            return False
        if self.outcome is None:
            return clock - self.told.clock <= SLOW
        # the look whether it worked comes before or after the manager's word that it did
        return clock <= self.outcome.clock + (LATE if self.result == Result.VERIFIED else 0)


@dataclass(slots=True)
class Run:
    """One run of a unit, as far as the journal tells of it."""

    unit: str
    invocation_id: str | None
    events: list[Event] = field(default_factory=list)
    """What the manager said."""
    kills: list[Kill] = field(default_factory=list)
    deeds: list[Deed] = field(default_factory=list)
    end: Event | None = None
    before: Run | None = None
    """The unit's run before it, until the manager's word of this one shows that the other is over."""

    def first(self, *kinds: Kind) -> Event | None:
        return next((event for event in self.events if event.kind in kinds), None)

    def last(self, *kinds: Kind) -> Event | None:
        return next((event for event in reversed(self.events) if event.kind in kinds), None)

    def onset(self, end: Event) -> Event:
        """What the end began with: a stop job, or the main process's unclean exit; a clean one is not logged."""
        return self.first(Kind.STOPPING, Kind.MAIN_EXIT) or end

    def was_killed(self) -> bool:
        """Whether it ended by OOM as far as the manager alone can tell."""
        exited = self.last(Kind.MAIN_EXIT)
        return (self.end is not None and self.end.value == "oom-kill") or (
            exited is not None and exited.value == "killed" and exited.number == signal.SIGKILL
        )


class _History:
    """The runs of units, as entries are taken in."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.victims: dict[int, Kill] = {}
        """The latest kill of the kernel's by pid, whose size another line tells."""
        self._by_id: dict[tuple[str, str], Run] = {}
        self._current: dict[str, Run] = {}

    def run(self, unit: str, invocation_id: str | None) -> Run:
        """The run with that invocation; without one, the run that goes on, or is about to begin."""
        current = self._current.get(unit)
        going_on = current if current is not None and current.end is None else None
        if not invocation_id:
            return going_on or self._begin(unit, None)
        run = self._by_id.get((unit, invocation_id))
        if run is None:
            if going_on is not None and going_on.invocation_id is None:
                run = going_on  # what was told without an invocation was told of this one
                run.invocation_id = invocation_id
            else:
                run = self._begin(unit, invocation_id)
            self._by_id[unit, invocation_id] = run
        return run

    def managed(self, unit: str, invocation_id: str | None, kind: Kind) -> Run:
        """The run that the manager's word is about; without an invocation, only a start is of a new one."""
        current = self._current.get(unit)
        if not invocation_id and current is not None and kind is not Kind.STARTING:
            return current
        return self.run(unit, invocation_id)

    def killed(self, unit: str, clock: float) -> Run:
        """The run that a killer's line is about, which names no invocation and may come late."""
        current = self._current.get(unit)
        if (
            current is not None
            and current.end is not None
            and 0 <= clock - current.end.clock <= LATE
            and current.was_killed()
            and not any(kill.why for kill in current.kills)
        ):
            return current
        return self.run(unit, None)

    def _begin(self, unit: str, invocation_id: str | None) -> Run:
        run = Run(unit, invocation_id, before=self._current.get(unit))
        self.runs.append(run)
        self._current[unit] = run
        return run


def read(entries: Iterable[Mapping[str, object]], uid: int | None = None) -> list[Run]:
    """The runs that `entries` tell of, as they began; arguments as of `ending.attribute`."""
    history = _History()
    for entry in entries:
        _take(history, entry, uid)
    return history.runs


def _take(history: _History, entry: Mapping[str, object], uid: int | None) -> None:
    """Add what `entry` says to `history`, if it comes from one who may say it."""
    at = fields.number(entry, "__REALTIME_TIMESTAMP")
    if at is None:
        return
    clock = fields.number(entry, "__MONOTONIC_TIMESTAMP")
    message = text(entry, "MESSAGE") or ""

    def event(kind: Kind, value: str = "", number: int | None = None) -> Event:
        seconds = at / 1e6
        return Event(
            kind,
            seconds,
            seconds if clock is None else clock / 1e6,
            text(entry, "_BOOT_ID"),
            printable(message),
            value,
            number,
        )

    if fields.is_kernels(entry):
        _take_kernel(history, event(Kind.OOM), message, uid)
    elif fields.is_oomds(entry):
        _take_oomd(history, event(Kind.OOMD), message, uid)
    elif fields.is_managers(entry, uid):
        prefix = "" if uid is None else "USER_"
        unit = text(entry, f"{prefix}UNIT")
        if unit is not None and (said := _managers_word(entry, unit, message)) is not None:
            run = history.managed(unit, text(entry, f"{prefix}INVOCATION_ID"), said[0])
            _take_manager(run, event(*said))
    elif fields.is_unitmems(entry, uid):
        _take_own(history, entry, event(Kind.SIGNAL), uid)


def _managers_word(
    entry: Mapping[str, object], unit: str, message: str
) -> tuple[Kind, str, int | None] | None:
    """Kind, value and number of the event that the manager tells of, if it tells of one."""
    kind = _KIND_OF_MESSAGE.get(text(entry, "MESSAGE_ID") or "")
    match kind:
        case None if (name := parse_signal_request(message, unit)) is not None:
            return Kind.SIGNAL, name, signal_number(name)
        case None if (timeout := parse_timeout(message, unit)) is not None:
            return Kind.TIMEOUT, timeout, None
        case None:
            return None
        case Kind.FAILURE:
            return kind, text(entry, "UNIT_RESULT") or "", None
        case Kind.STOPPED:
            return kind, text(entry, "JOB_TYPE") or "", None
        case Kind.MAIN_EXIT:
            main = text(entry, "COMMAND") in ("ExecStart", None)
            code, status = text(entry, "EXIT_CODE") or "", fields.number(entry, "EXIT_STATUS")
            return kind if main else Kind.OTHER_EXIT, code, status
        case _:
            return kind, "", None


def _take_manager(run: Run, event: Event) -> None:
    if event.value in _NO_ENDING:
        return
    if event.kind is Kind.STOPPED and not run.events and unit_kind(run.unit) != "slice":
        return  # the journal begins between an end and the restart that is scheduled after it
    before, run.before = run.before, None
    if before is not None and before.end is None and before.events:
        before.end = replace(event, kind=Kind.LOST, message="", value="")
    run.events.append(event)
    match event.kind:
        case Kind.OOM | Kind.OOMD:
            _notice(run, event)
        case Kind.SUCCESS | Kind.FAILURE if run.end is None or run.end.kind is Kind.LOST:
            run.end = event
        case Kind.STOPPED if run.end is None and unit_kind(run.unit) == "slice":
            # of other kinds a result is told, and this also as a restart is scheduled after it
            run.end = event
        case _:
            pass


def _notice(run: Run, event: Event) -> None:
    """Add what the manager noticed of a kill to the killer's own words, or note a kill without those."""
    near = [kill for kill in run.kills if kill.by is event.kind and event.clock - kill.clock <= NEAR]
    kill = next((kill for kill in near if not kill.noticed), None)
    if kill is None and near and event.clock - near[-1].clock <= LATE:
        kill = near[-1]  # it counts, and may notice the processes of one group one after another
    if kill is None:
        kill = Kill(event.kind, event.at, event.clock)
        run.kills.append(kill)
    kill.noticed = True
    kill.evidence.append(event)


def _take_kernel(history: _History, event: Event, message: str, uid: int | None) -> None:
    if (killed := parse_killed(message)) is not None and killed[0] in history.victims:
        kill = history.victims.pop(killed[0])
        kill.victim += f", which held {format_size(killed[1])} of anonymous memory"
        kill.evidence.append(event)
    elif (oom := parse_oom_kill(message)) is not None and (
        unit := unit_of_cgroup(oom.cgroup, uid)
    ) is not None:
        victim = f"pid {oom.pid} ({printable(oom.name)})"
        kill = _tell(history, unit, event, _oom_reason(oom, unit))
        kill.victim = victim
        history.victims[oom.pid] = kill


def _take_oomd(history: _History, event: Event, message: str, uid: int | None) -> None:
    parsed = parse_oomd_kill(message)
    unit = unit_of_cgroup(parsed[0], uid) if parsed else None
    if parsed is not None and unit is not None:
        _tell(history, unit, event, printable(parsed[1]))


def _tell(history: _History, unit: str, event: Event, why: str) -> Kill:
    """Note a kill in the killer's words, with what the manager may have said of it before."""
    run = history.killed(unit, event.clock)
    kill = run.kills[-1] if run.kills else None
    if kill is None or kill.by is not event.kind or kill.why or event.clock - kill.clock > LATE:
        kill = Kill(event.kind, event.at, event.clock)
        run.kills.append(kill)
    kill.why = why
    kill.evidence.append(event)
    return kill


def _take_own(history: _History, entry: Mapping[str, object], event: Event, uid: int | None) -> None:
    unit, action = text(entry, UNIT_FIELD), text(entry, ACTION_FIELD)
    # root's own manager has units of the same names; journald may add the unit of OBJECT_PID= to the field
    of_manager = values(entry, OBJECT_FIELDS[ManagerKind.SYSTEM if uid is None else ManagerKind.USER])
    if unit is None or action is None or unit not in of_manager:
        return
    run = history.run(unit, text(entry, INVOCATION_FIELD))
    result = text(entry, RESULT_FIELD) or ""
    key = (text(entry, POLICY_FIELD), text(entry, STEP_FIELD), action)
    if text(entry, "MESSAGE_ID") == DECISION_MESSAGE_ID:
        run.deeds.append(Deed(key, action, result, event))
        return
    for deed in reversed(run.deeds):
        if deed.key == key and deed.outcome is None:
            deed.result, deed.outcome = result, event
            return


def _oom_reason(oom: OomKill, unit: str) -> str:
    match oom.constraint, oom.limited:
        case "NONE", _:
            return "the whole machine was out of memory"
        case "MEMCG", None:
            return "a cgroup's limit (memory.max) was reached"
        case "MEMCG", str(limited):
            own = next(
                (p for p in _ancestors(oom.cgroup) if p.rpartition("/")[2].removeprefix("_") == unit), None
            )
            if limited == own:
                return "its own limit (memory.max) was reached"
            inside = own is not None and is_within(limited, own)
            # above the unit everything is systemd's, and called by its last name
            whose = printable(limited if inside else limited.rpartition("/")[2])
            return f"the limit (memory.max) of {whose} was reached"
        case constraint, _:
            return f"there was no memory left where it may allocate ({constraint.lower().replace('_', ' ')})"


def _ancestors(path: str) -> Iterator[str]:
    """`/a`, `/a/b`, …: from the top down to `path` itself."""
    names = [name for name in path.split("/") if name]
    for count in range(1, len(names) + 1):
        yield "/" + "/".join(names[:count])


def signal_number(name: str) -> signal.Signals | None:
    """The signal called `name`; None for one of real time, and for what is none."""
    return signal.Signals.__members__.get(name)
