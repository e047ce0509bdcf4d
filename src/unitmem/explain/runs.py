"""Runs of units, put together from journal entries: a run's events, its OOM kills, and unitmem's decisions.

The sources reach journald through different sockets, so that their lines may come out of order; those of the
kernel and systemd-oomd name a cgroup, and no invocation.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from unitmem.explain import entries as fields
from unitmem.explain.entries import (
    GuardLine,
    oom_reason,
    parse_guard_line,
    parse_invoked,
    parse_killed,
    parse_oom_kill,
    parse_oomd_kill,
    parse_signal_request,
    parse_timeout,
    text,
    unit_of_cgroup,
    values,
)
from unitmem.policy.decision import Result
from unitmem.policy.journal_fields import (
    ACTION_FIELD,
    DECIDED_FIELD,
    DECISION_MESSAGE_ID,
    INVOCATION_FIELD,
    OBJECT_FIELDS,
    POLICY_FIELD,
    RESULT_FIELD,
    STEP_FIELD,
    UNIT_FIELD,
)
from unitmem.text import format_size, printable
from unitmem.unit import START_LIMIT_HIT, ManagerKind, unit_kind

NEAR = 30.0
"""The most seconds from a SIGKILL to the manager's notice: under pressure, freeing memory takes long."""
SLOW = 90.0
"""The most seconds that a process may take to end on SIGTERM and the like: systemd's DefaultTimeoutStopSec=."""
SHORTLY = 10.0
"""The most seconds from another guard's signal to an end that it may have caused: they wait no longer themselves."""
LATE = 5.0
"""The most seconds by which one source's lines may lag behind another's."""


class JournalEventKind(Enum):
    """The kinds of events in the journal."""

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
    """Not an entry: the next run began, and no entry says how this one ended."""


_KIND_OF_MESSAGE = {
    "7d4958e842da4a758f6c1cdc7b36dcc5": JournalEventKind.STARTING,
    "39f53479d3a045ac8e11786248231fbf": JournalEventKind.STARTING,  # started; some kinds and types say only this
    "de5b426a63be47a7b6ac3eaac82e2f6f": JournalEventKind.STOPPING,
    "9d1aaa27d60140bd96365438aad20286": JournalEventKind.STOPPED,
    "7ad2d189f7e94e70a38c781354912448": JournalEventKind.SUCCESS,
    "d9b373ed55a64feb8242e02dbe79a49c": JournalEventKind.FAILURE,
    "98e322203f7a4ed290d09fe03c09fe15": JournalEventKind.MAIN_EXIT,
    "fe6faa94e7774663a0da52717891d8ef": JournalEventKind.OOM,
    "d989611b15e44c9dbf31e3c81256e4ed": JournalEventKind.OOMD,  # of PID 1: systemd-oomd's own line has no MESSAGE_ID
}
# failures of a start that never made a run, or none of its own
_NO_ENDING = frozenset({START_LIMIT_HIT, "exec-condition"})


@dataclass(frozen=True, slots=True)
class JournalEvent:
    """One journal entry about a unit, or the lack of one (`LOST`)."""

    kind: JournalEventKind
    at: float
    clock: float
    """Monotonic seconds, for order and durations."""
    boot: str | None
    """The boot ID: clocks of different boots can't be compared."""
    message: str
    value: str = ""
    """The result of a failure, the type of a job, the code of an exit (`exited`, `killed`, `dumped`)."""
    number: int | None = None
    """The status or signal of an exit, the signal of a request."""


@dataclass(slots=True)
class OomKill:
    """One OOM kill, put together from the entries of the killer and of the manager."""

    by: JournalEventKind
    at: float
    clock: float
    why: str = ""
    """The reason in the killer's words; empty while only the manager has reported the kill."""
    victim: str = ""
    evidence: list[JournalEvent] = field(default_factory=list)
    noticed: bool = False
    """Whether the manager has reported the kill."""

    @property
    def detail(self) -> str:
        if not self.why:
            return "the journal doesn't say which process, or why"
        return f"{self.why}; killed {self.victim}" if self.victim else self.why


@dataclass(slots=True)
class UnitmemDecision:
    """A decision of unitmem and its outcome, as its entries report them."""

    key: tuple[str | None, ...]
    action: str
    result: str
    reported: JournalEvent
    outcome: JournalEvent | None = None

    def covers(self, clock: float) -> bool:
        """Return whether the decision was being performed at that time."""
        if self.result in (Result.OBSERVED, Result.REFUSED, Result.GONE) or clock < self.reported.clock:
            return False
        if self.outcome is None:
            return clock - self.reported.clock <= SLOW
        # the look whether it worked comes before or after the manager's word that it did
        return clock <= self.outcome.clock + (LATE if self.result == Result.VERIFIED else 0)


@dataclass(frozen=True, slots=True)
class GuardSignal:
    """A signal that another userspace OOM killer says that it sends."""

    by: str
    signal: str
    victim: str | None
    """`pid 77 (web)`; None where it doesn't say."""
    cgroup: str | None
    """The victim's cgroup; None where it doesn't say."""
    reported: JournalEvent


@dataclass(slots=True)
class UnitRun:
    """One run of a unit, as far as the journal shows it."""

    unit: str
    invocation_id: str | None
    events: list[JournalEvent] = field(default_factory=list)
    """The manager's entries."""
    kills: list[OomKill] = field(default_factory=list)
    decisions: list[UnitmemDecision] = field(default_factory=list)
    end: JournalEvent | None = None
    refused_start: JournalEvent | None = None
    """The manager's word that it didn't start the unit again after this run, as its start limit was hit."""
    guard_signals: list[GuardSignal] = field(default_factory=list)
    """The signals of other guards from the seconds before its end, which may have been sent to it."""
    before: UnitRun | None = None
    """The unit's previous run, until an entry of the manager about this one shows that the previous one is over."""

    def first(self, *kinds: JournalEventKind) -> JournalEvent | None:
        return next((event for event in self.events if event.kind in kinds), None)

    def last(self, *kinds: JournalEventKind) -> JournalEvent | None:
        return next((event for event in reversed(self.events) if event.kind in kinds), None)

    def onset(self, end: JournalEvent) -> JournalEvent:
        """Return the event that the end began with: a stop job, or the main process's unclean exit, or `end` itself."""
        return self.first(JournalEventKind.STOPPING, JournalEventKind.MAIN_EXIT) or end

    def was_killed(self) -> bool:
        """Return whether the run ended by an OOM kill as far as the manager's entries show."""
        exited = self.last(JournalEventKind.MAIN_EXIT)
        return (self.end is not None and self.end.value == "oom-kill") or (
            exited is not None and exited.value == "killed" and exited.number == signal.SIGKILL
        )


class _RunCollector:
    """Collects the runs of units from journal entries."""

    def __init__(self) -> None:
        self.runs: list[UnitRun] = []
        self.victims: dict[int, OomKill] = {}
        """The kernel's latest kill of each pid; its size is in a later line."""
        self.is_by_sysrq = False
        """Whether somebody has run the OOM killer by SysRq, as the kernel's lines before those about a victim say."""
        self.victim_of: dict[str, GuardLine] = {}
        """The victim of each other guard, whose signal is in a later line."""
        self.guard_signals: list[GuardSignal] = []
        self._by_id: dict[tuple[str, str], UnitRun] = {}
        self._current: dict[str, UnitRun] = {}

    def run(self, unit: str, invocation_id: str | None) -> UnitRun:
        """Return the run of that invocation ID; without one, the run that goes on, or a new one."""
        current = self._current.get(unit)
        going_on = current if current is not None and current.end is None else None
        if not invocation_id:
            return going_on or self._begin(unit, None)
        run = self._by_id.get((unit, invocation_id))
        if run is None:
            if going_on is not None and going_on.invocation_id is None:
                run = going_on  # entries without an invocation were about this one
                run.invocation_id = invocation_id
            else:
                run = self._begin(unit, invocation_id)
            self._by_id[unit, invocation_id] = run
        return run

    def run_of_entry(self, unit: str, invocation_id: str | None, kind: JournalEventKind) -> UnitRun:
        """Return the run that the manager's entry is about; without an invocation ID, only a start begins a new one."""
        current = self._current.get(unit)
        if not invocation_id and current is not None and kind is not JournalEventKind.STARTING:
            return current
        return self.run(unit, invocation_id)

    def killed(self, unit: str, clock: float) -> UnitRun:
        """Return the run that a killer's line is about; such a line has no invocation ID, and may come late."""
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

    def _begin(self, unit: str, invocation_id: str | None) -> UnitRun:
        run = UnitRun(unit, invocation_id, before=self._current.get(unit))
        self.runs.append(run)
        self._current[unit] = run
        return run


def read(entries: Iterable[Mapping[str, object]], uid: int | None = None) -> list[UnitRun]:
    """Return the runs in `entries`, in the order in which they began; args are those of `attribution.attribute`."""
    collector = _RunCollector()
    for entry in entries:
        _take(collector, entry, uid)
    for run in collector.runs:
        run.guard_signals = [sent for sent in collector.guard_signals if _may_have_met(sent, run, uid)]
    return collector.runs


def _take(collector: _RunCollector, entry: Mapping[str, object], uid: int | None) -> None:
    """Add `entry` to `collector`, if its sender is trusted for its content."""
    at = fields.number(entry, "__REALTIME_TIMESTAMP")
    if at is None:
        return
    clock = fields.number(entry, "__MONOTONIC_TIMESTAMP")
    message = text(entry, "MESSAGE") or ""

    def event(kind: JournalEventKind, value: str = "", number: int | None = None) -> JournalEvent:
        seconds = at / 1e6
        return JournalEvent(
            kind,
            seconds,
            seconds if clock is None else clock / 1e6,
            text(entry, "_BOOT_ID"),
            printable(message),
            value,
            number,
        )

    if fields.is_from_kernel(entry):
        _take_kernel(collector, event(JournalEventKind.OOM), message, uid)
    elif fields.is_from_oomd(entry):
        _take_oomd(collector, event(JournalEventKind.OOMD), message, uid)
    elif (guard := fields.guard_of(entry)) is not None:
        _take_guard(collector, event(JournalEventKind.SIGNAL), guard, message)
    elif fields.is_from_manager(entry, uid):
        prefix = "" if uid is None else "USER_"
        unit = text(entry, f"{prefix}UNIT")
        if unit is not None and (said := _manager_event(entry, unit, message)) is not None:
            run = collector.run_of_entry(unit, text(entry, f"{prefix}INVOCATION_ID"), said[0])
            _take_manager(run, event(*said))
    elif fields.is_from_unitmem(entry, uid):
        _take_own(collector, entry, event(JournalEventKind.SIGNAL), uid)


def _manager_event(
    entry: Mapping[str, object], unit: str, message: str
) -> tuple[JournalEventKind, str, int | None] | None:
    """Return (kind, value, number) of the event that the manager reports; None for any other entry."""
    kind = _KIND_OF_MESSAGE.get(text(entry, "MESSAGE_ID") or "")
    match kind:
        case None if (name := parse_signal_request(message, unit)) is not None:
            return JournalEventKind.SIGNAL, name, signal_number(name)
        case None if (timeout := parse_timeout(message, unit)) is not None:
            return JournalEventKind.TIMEOUT, timeout, None
        case None:
            return None
        case JournalEventKind.FAILURE:
            return kind, text(entry, "UNIT_RESULT") or "", None
        case JournalEventKind.STOPPED:
            return kind, text(entry, "JOB_TYPE") or "", None
        case JournalEventKind.MAIN_EXIT:
            main = text(entry, "COMMAND") in ("ExecStart", None)
            code, status = text(entry, "EXIT_CODE") or "", fields.number(entry, "EXIT_STATUS")
            return kind if main else JournalEventKind.OTHER_EXIT, code, status
        case _:
            return kind, "", None


def _take_manager(run: UnitRun, event: JournalEvent) -> None:
    if event.value in _NO_ENDING:
        if event.value == START_LIMIT_HIT and run.end is not None:
            run.refused_start = event
        return
    if event.kind is JournalEventKind.STOPPED and not run.events and unit_kind(run.unit) != "slice":
        return  # the journal begins between an end and the restart that is scheduled after it
    before, run.before = run.before, None
    if before is not None and before.end is None and before.events:
        before.end = replace(event, kind=JournalEventKind.LOST, message="", value="")
    run.events.append(event)
    match event.kind:
        case JournalEventKind.OOM | JournalEventKind.OOMD:
            _note_notice(run, event)
        case JournalEventKind.SUCCESS | JournalEventKind.FAILURE if (
            run.end is None or run.end.kind is JournalEventKind.LOST
        ):
            run.end = event
        case JournalEventKind.STOPPED if run.end is None and unit_kind(run.unit) == "slice":
            # other kinds report a result, and STOPPED also when a restart is scheduled after it
            run.end = event
        case _:
            pass


def _note_notice(run: UnitRun, event: JournalEvent) -> None:
    """Add the manager's notice to the kill that it is about, or to a new one if the killer's line isn't there."""
    near = [kill for kill in run.kills if kill.by is event.kind and event.clock - kill.clock <= NEAR]
    kill = next((kill for kill in near if not kill.noticed), None)
    if kill is None and near and event.clock - near[-1].clock <= LATE:
        kill = near[-1]  # it counts, and may notice the processes of one group one after another
    if kill is None:
        kill = OomKill(event.kind, event.at, event.clock)
        run.kills.append(kill)
    kill.noticed = True
    kill.evidence.append(event)


def _take_kernel(collector: _RunCollector, event: JournalEvent, message: str, uid: int | None) -> None:
    if (is_by_sysrq := parse_invoked(message)) is not None:
        collector.is_by_sysrq = is_by_sysrq
    elif (killed := parse_killed(message)) is not None and killed[0] in collector.victims:
        kill = collector.victims.pop(killed[0])
        kill.victim += f", which held {format_size(killed[1])} of anonymous memory"
        kill.evidence.append(event)
    elif (oom := parse_oom_kill(message)) is not None and (
        unit := unit_of_cgroup(oom.cgroup, uid)
    ) is not None:
        victim = f"pid {oom.pid} ({printable(oom.name)})"
        kill = _note_kill(collector, unit, event, oom_reason(oom, unit, is_by_sysrq=collector.is_by_sysrq))
        kill.victim = victim
        collector.victims[oom.pid] = kill


def _take_oomd(collector: _RunCollector, event: JournalEvent, message: str, uid: int | None) -> None:
    parsed = parse_oomd_kill(message)
    unit = unit_of_cgroup(parsed[0], uid) if parsed else None
    if parsed is not None and unit is not None:
        _note_kill(collector, unit, event, printable(parsed[1]))


def _take_guard(collector: _RunCollector, event: JournalEvent, guard: str, message: str) -> None:
    line = parse_guard_line(message)
    if line is None:
        return
    before = collector.victim_of.pop(guard, GuardLine())
    line = GuardLine(line.signal, line.victim or before.victim, line.cgroup or before.cgroup)
    if line == GuardLine():
        if collector.guard_signals and collector.guard_signals[-1].by == guard:
            collector.guard_signals.pop()
    elif line.signal is None:
        collector.victim_of[guard] = line
    else:
        collector.guard_signals.append(GuardSignal(guard, line.signal, line.victim, line.cgroup, event))


def _may_have_met(sent: GuardSignal, run: UnitRun, uid: int | None) -> bool:
    """Return whether the signal may have been sent to a process of `run`, and shortly before its end."""
    if run.end is None or sent.reported.boot != run.end.boot:
        return False
    gap = run.onset(run.end).clock - sent.reported.clock
    return -1 <= gap <= SHORTLY and (sent.cgroup is None or unit_of_cgroup(sent.cgroup, uid) == run.unit)


def _note_kill(collector: _RunCollector, unit: str, event: JournalEvent, why: str) -> OomKill:
    """Add the killer's reason to the kill that the manager has noticed before, or to a new one; return the kill."""
    run = collector.killed(unit, event.clock)
    kill = run.kills[-1] if run.kills else None
    if kill is None or kill.by is not event.kind or kill.why or event.clock - kill.clock > LATE:
        kill = OomKill(event.kind, event.at, event.clock)
        run.kills.append(kill)
    kill.why = why
    kill.evidence.append(event)
    return kill


def _take_own(
    collector: _RunCollector, entry: Mapping[str, object], event: JournalEvent, uid: int | None
) -> None:
    unit, action = text(entry, UNIT_FIELD), text(entry, ACTION_FIELD)
    # root's own manager has units of the same names; journald may add the unit of OBJECT_PID= to the field
    of_manager = values(entry, OBJECT_FIELDS[ManagerKind.SYSTEM if uid is None else ManagerKind.USER])
    if unit is None or action is None or unit not in of_manager:
        return
    run = collector.run(unit, text(entry, INVOCATION_FIELD))
    result = text(entry, RESULT_FIELD) or ""
    key = (text(entry, POLICY_FIELD), text(entry, STEP_FIELD), action)
    if text(entry, "MESSAGE_ID") == DECISION_MESSAGE_ID:
        # the action comes first, so that the unit's stop may be reported before
        decided = fields.number(entry, DECIDED_FIELD)
        if decided is not None:
            event = replace(event, clock=min(event.clock, decided / 1e6))
        run.decisions.append(UnitmemDecision(key, action, result, event))
        return
    for decision in reversed(run.decisions):
        if decision.key == key and decision.outcome is None:
            decision.result, decision.outcome = result, event
            return


def signal_number(name: str) -> signal.Signals | None:
    """Return the signal called `name`; None for a real-time signal and for an unknown name."""
    return signal.Signals.__members__.get(name)
