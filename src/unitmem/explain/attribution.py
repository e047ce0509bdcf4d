"""How runs of units ended, and what ended them, from the journal. Pure: entries in, endings out.

Only these entries count: about units those of PID 1 (for a user's units: of that user's manager), kernel lines with
the kernel's own facility, those of systemd-oomd, earlyoom and nohang from their units, unitmem's from root (or that user).

Where more than one thing may have ended a run, the first rule that applies decides:

1. An OOM kill: systemd's result is `oom-kill`; or, with OOMPolicy=continue, the main process was killed by SIGKILL
   right after one. A scope has no main process: it ended right after. systemd-oomd kills whole cgroups, so an end
   right after its kill is always due to it. An OOM kill during a stop counts as an OOM kill.
2. unitmem, if it decided on that very run to stop or restart it and the stop job began while that was under way;
   or to kill or signal it, and it ended as by that signal. Not if it only observed or refused, and not if the end
   came after an outcome that says failed or gone.
3. A stop job that began before anything else went wrong. The journal doesn't say whose.
4. A timeout, by systemd's result.
5. `systemctl kill`, if it ended as by that signal.
6. Otherwise a crash where systemd reports failure, an exit where it reports success. Whether a signal was sent to it,
   and by whom, is in no entry, and not claimed; a guard (earlyoom, nohang) that told of a signal right before is named.

A kill that a run survived is an `Ending` with `ended=False`. Sources: catalog/systemd.catalog, src/core/{unit,job,
service,cgroup}.c and src/oom/oomd-manager.c of systemd 252 and 257; mm/oom_kill.c and mm/memcontrol.c of Linux.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from unitmem.explain.runs import (
    LATE,
    NEAR,
    SLOW,
    GuardSignal,
    JournalEvent,
    JournalEventKind,
    OomKill,
    UnitmemDecision,
    UnitRun,
    read,
    signal_number,
)
from unitmem.policy.actions import ACTIONS
from unitmem.text import format_span, printable, signal_name
from unitmem.unit import unit_kind

#: After these a process is expected to end.
_ENDING_SIGNALS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGABRT})


class Cause(StrEnum):
    """What ended a run."""

    OOM_KILLER = "oom-killer"
    SYSTEMD_OOMD = "systemd-oomd"
    UNITMEM = "unitmem"
    REQUEST = "request"
    """A stop or restart job: by a person, a package, another unit, a shutdown."""
    SIGNAL_REQUEST = "signal-request"
    """`systemctl kill`."""
    TIMEOUT = "timeout"
    CRASH = "crash"
    EXIT = "exit"
    UNKNOWN = "unknown"


_FAULTS = frozenset(
    {
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGABRT,
        signal.SIGTRAP,
        signal.SIGSYS,
    }
)
"""The signals that a process gets for what it does itself."""
_OWN_RESULTS = ("watchdog", "protocol", "resources")
_UNNAMED = "; the journal doesn't say whether it was sent a signal"
_UNNAMED_SENDER = "; the journal doesn't say who sent it"
_RIGHT_BEFORE = 0.1

_CAUSE_OF_KILL = {JournalEventKind.OOM: Cause.OOM_KILLER, JournalEventKind.OOMD: Cause.SYSTEMD_OOMD}


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run of a unit ended; or, where `ended` is false, an OOM kill that the run survived."""

    at: float
    """Seconds since the epoch."""
    unit: str
    invocation_id: str | None
    cause: Cause
    detail: str
    """What is known besides the cause, as one clause on one line."""
    evidence: tuple[str, ...]
    """The messages that show it, oldest first, each printable on one line."""
    ended: bool = True


def attribute(entries: Iterable[Mapping[str, object]], *, uid: int | None = None) -> list[Ending]:
    """Return the endings of runs in `entries`, oldest first.

    Args:
        entries: journal entries, oldest first, as `journalctl --output=json` writes them: a value is a string,
            a list of numbers for bytes, a list for a field with several values, or None.
        uid: the user whose manager's units are meant; None for the system's.
    """
    endings = [ending for run in read(entries, uid) for ending in _endings(run)]
    return sorted(endings, key=lambda ending: ending.at)


# --- judging -----------------------------------------------------------------------------------


def _endings(run: UnitRun) -> Iterator[Ending]:
    fatal = _fatal_kills(run)
    for kill in run.kills:
        if not any(kill is other for other in fatal):
            yield Ending(
                kill.at,
                run.unit,
                run.invocation_id,
                _CAUSE_OF_KILL[kill.by],
                kill.detail,
                _evidence(kill.evidence),
                ended=False,
            )
    if run.end is not None:
        cause, detail, evidence = _judge(run, run.end, fatal)
        evidence = [*evidence, run.end]
        if run.refused_start is not None:
            detail += "; systemd did not start it again, as its start limit was hit (StartLimitBurst=)"
            evidence.append(run.refused_start)
        yield Ending(run.end.at, run.unit, run.invocation_id, cause, detail, _evidence(evidence))


def _judge(
    run: UnitRun, end: JournalEvent, fatal: Sequence[OomKill]
) -> tuple[Cause, str, Sequence[JournalEvent]]:
    """Return (cause, detail, evidence) of the end of `run`, by the rules in the module's docstring."""
    onset = run.onset(end)
    stop = run.first(JournalEventKind.STOPPING)
    exits = [
        event
        for event in run.events
        if event.kind in (JournalEventKind.MAIN_EXIT, JournalEventKind.OTHER_EXIT)
    ]
    if fatal:
        detail = fatal[0].detail
        if stop is not None and stop.clock < fatal[0].clock:
            detail += "; it was being stopped at that time"
        return (
            _CAUSE_OF_KILL[fatal[0].by],
            detail,
            [event for kill in fatal for event in kill.evidence] + exits[-1:],
        )
    if end.value == "oom-kill":
        return (
            Cause.OOM_KILLER,
            "systemd's result is oom-kill; the journal doesn't say who killed it, or why",
            exits[-1:],
        )
    if (decision := _decision_behind(run, onset)) is not None:
        outcome = [] if decision.outcome is None else [decision.outcome]
        return Cause.UNITMEM, f"{decision.action}{_aftermath(end)}", [decision.reported, onset, *outcome]
    if onset.kind is JournalEventKind.STOPPING or end.kind is JournalEventKind.STOPPED:
        restarted = any(e.kind is JournalEventKind.STOPPED and e.value == "restart" for e in run.events)
        job = (
            "a restart job (systemctl restart or a dependency)"
            if restarted
            else "a stop job (systemctl stop, a dependency or shutdown)"
        )
        return Cause.REQUEST, f"{job}{_aftermath(end)}", [onset]
    if end.kind is JournalEventKind.LOST:
        rebooted = run.events[-1].boot != end.boot
        return (
            Cause.UNKNOWN,
            "the machine went down"
            if rebooted
            else "a new run started; the journal doesn't say how this one ended",
            run.events[-1:],
        )
    if end.value == "timeout":
        reported = run.first(JournalEventKind.TIMEOUT)
        detail = reported.value if reported is not None else "one of its timeouts expired"
        return Cause.TIMEOUT, printable(detail), [*([reported] if reported else []), *exits[-1:]]
    if (request := _request_behind(run, onset)) is not None:
        return (
            Cause.SIGNAL_REQUEST,
            f"{signal_name(request.number or 0)} sent by systemctl kill",
            [request, *exits[-1:]],
        )
    guard = _guard_behind(run, onset)
    sender = "" if guard is None else _sender(guard, onset)
    guard_lines = [] if guard is None else [guard.reported]
    if end.kind is JournalEventKind.FAILURE:
        return (
            Cause.CRASH,
            f"{_crash(end, exits)}{sender or _unnamed(end, exits)}",
            [*guard_lines, *exits[-1:]],
        )
    # nothing sends signals to a mount or a socket
    sender = sender or (_UNNAMED if unit_kind(run.unit) in ("service", "scope") else "")
    return Cause.EXIT, f"with success{sender}", guard_lines


def _fatal_kills(run: UnitRun) -> list[OomKill]:
    """Return the OOM kills that ended the run: the last one, and those shortly before it by the same killer."""
    if run.end is None or not run.kills:
        return []
    onset, last = run.onset(run.end), run.kills[-1]
    if run.end.value != "oom-kill":
        gap = onset.clock - last.clock
        at_once = (
            last.by is JournalEventKind.OOMD
            or (
                onset.kind is JournalEventKind.MAIN_EXIT
                and (onset.value, onset.number) == ("killed", signal.SIGKILL)
            )
            or (unit_kind(run.unit) == "scope" and onset is run.end)
        )
        if onset.kind is JournalEventKind.STOPPING or not (at_once and -LATE <= gap <= NEAR):
            return []
    return [kill for kill in run.kills if kill.by is last.by and last.clock - kill.clock <= NEAR]


def _decision_behind(run: UnitRun, onset: JournalEvent) -> UnitmemDecision | None:
    """Return unitmem's last decision that explains how the run ended; None if there is none."""
    for decision in reversed(run.decisions):
        if not decision.covers(onset.clock):
            continue
        action = ACTIONS.get(decision.action)  # a signal goes by its own name
        if action is not None and action.ends_by_job():
            if onset.kind in (JournalEventKind.STOPPING, JournalEventKind.STOPPED):
                return decision
            continue
        number = signal_number(decision.action) if action is None else action.sends
        if number is not None and _explains(number, onset):
            return decision
    return None


def _request_behind(run: UnitRun, onset: JournalEvent) -> JournalEvent | None:
    """Return the last `systemctl kill` that explains how the run ended; None if there is none."""
    for event in reversed(run.events):
        if event.kind is JournalEventKind.SIGNAL and event.number is not None:
            within = NEAR if event.number == signal.SIGKILL else SLOW
            if 0 <= onset.clock - event.clock <= within and _explains(event.number, onset):
                return event
    return None


def _guard_behind(run: UnitRun, onset: JournalEvent) -> GuardSignal | None:
    """Return the last signal of another guard that may explain how the run ended; None if there is none."""
    for sent in reversed(run.guard_signals):
        if (number := signal_number(sent.signal)) is not None and _explains(number, onset):
            return sent
    return None


def _sender(sent: GuardSignal, onset: JournalEvent) -> str:
    """Return the clause on a guard's signal, which is likely only: few of them name the unit, and none its end."""
    gap = onset.clock - sent.reported.clock
    when = "right before" if gap < _RIGHT_BEFORE else f"{format_span(gap, accuracy=0.1)} before"
    whom = "" if sent.victim is None else f" to {sent.victim}"
    return f", likely by {sent.by}, which sent {sent.signal}{whom} {when}"


def _unnamed(end: JournalEvent, exits: Sequence[JournalEvent]) -> str:
    """Return what the journal doesn't say about a failure that looks like a signal which somebody has sent."""
    if end.value in _OWN_RESULTS or not exits:
        return ""
    number = exits[-1].number or 0
    if exits[-1].value == "exited":
        return _UNNAMED if number - 128 in _ENDING_SIGNALS else ""  # as shells and Java exit after a signal
    return "" if number in _FAULTS else _UNNAMED_SENDER


def _explains(number: int, onset: JournalEvent) -> bool:
    """Return whether the signal `number` can make a run end with `onset`."""
    ending = number in _ENDING_SIGNALS
    if onset.kind is JournalEventKind.MAIN_EXIT and onset.value in ("killed", "dumped"):
        return onset.number == number or (ending and onset.number == signal.SIGKILL)
    # it was handled, and the process exited as it saw fit; SIGKILL can't be
    exited = onset.kind is JournalEventKind.MAIN_EXIT or onset.kind in (
        JournalEventKind.SUCCESS,
        JournalEventKind.FAILURE,
    )
    return exited and ending and not (onset.kind is JournalEventKind.MAIN_EXIT and number == signal.SIGKILL)


def _aftermath(end: JournalEvent) -> str:
    match end.kind, end.value:
        case JournalEventKind.FAILURE, "timeout":
            return "; it did not stop in time, and was killed"
        case JournalEventKind.FAILURE, result:
            return f"; it failed with result {printable(result)}"
        case _:
            return ""


def _crash(end: JournalEvent, exits: Sequence[JournalEvent]) -> str:
    """Return how it crashed: `SIGSEGV, core dumped`, `exit status 3`, …"""
    if end.value in _OWN_RESULTS or not exits:
        return {"watchdog": "it missed its watchdog deadline"}.get(
            end.value, f"result {printable(end.value)}"
        )
    last = exits[-1]
    whose = "" if last.kind is JournalEventKind.MAIN_EXIT else " of a control process"
    if last.value == "exited":
        return f"exit status {last.number}{whose}"
    return f"{signal_name(last.number or 0)}{whose}{', core dumped' if last.value == 'dumped' else ''}"


def _evidence(events: Iterable[JournalEvent]) -> tuple[str, ...]:
    ordered = sorted(events, key=lambda event: event.clock)
    return tuple(dict.fromkeys(event.message for event in ordered if event.message))
