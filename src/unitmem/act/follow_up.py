"""What becomes of an action: seeing it through until it has had its effect, or has not in time.

`action.perform` gives an `Outcome` where that is seen at once, and otherwise a `Pending`, which
`follow_up` looks at again at later ticks and turns into an outcome. Past its deadline the last
resort is taken, if there is one.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from unitmem.errors import BusError, InvocationGoneError, NoSuchUnitError, OutOfReachError, reason_of
from unitmem.kernel.cgroup import Cgroup, CgroupGoneError
from unitmem.kernel.process import (
    PAGE_SIZE,
    Process,
    ProcessGoneError,
    ProcessHiddenError,
    is_alive,
    send_signal,
)
from unitmem.manager.systemd import Manager
from unitmem.policy.actions import (
    END_WAIT,
    Freeze,
    Kill,
    LastResort,
    Log,
    Reclaim,
    Restart,
    Run,
    SetProperties,
    Signal,
    Stop,
    Thaw,
    spell_property,
)
from unitmem.policy.decision import Decision, Outcome, Result
from unitmem.quantity import format_size, format_span
from unitmem.unit import Unit

_OVER = ("inactive", "failed")
_ENDED_MEANWHILE = "the unit ended before it was seen to work"

_FILE_OF_PROPERTY = {
    "MemoryMin": "memory.min",
    "MemoryLow": "memory.low",
    "MemoryHigh": "memory.high",
    "MemoryMax": "memory.max",
    "MemorySwapMax": "memory.swap.max",
    "MemoryZSwapMax": "memory.zswap.max",
}


@dataclass(frozen=True, slots=True)
class Pending:
    """An action under way, whose effect is not seen yet."""

    decision: Decision
    cgroup: Cgroup
    deadline: float
    processes: tuple[Process, ...] = ()
    """Those that were signalled and are expected to end."""
    killed: bool = False
    """Whether the last resort was taken."""
    reclaiming: Reclaiming | None = None
    command_unit: str = ""
    """The transient unit that a `run` runs in."""


def follow_up(pending: Pending, manager: Manager | None, now: float) -> Outcome | Pending:
    """Look what has become of `pending`; past its deadline, take the last resort or give up."""
    action = pending.decision.action
    if isinstance(action, Reclaim | SetProperties | Freeze | Thaw) and not pending.cgroup.exists():
        return Outcome(pending.decision, Result.GONE, _ENDED_MEANWHILE, now)
    try:
        match action:
            case Signal():
                return _follow_signal(pending, action, now)
            case Stop(timeout, otherwise):
                return _follow_end(pending, "stopped", timeout, otherwise, manager, now)
            case Kill(timeout):
                return _follow_end(pending, "killed", timeout, None, manager, now)
            case Restart():
                return _follow_restart(pending, action, manager, now)
            case Reclaim():
                return _follow_reclaim(pending, action, now)
            case SetProperties():
                return follow_set(pending, action, now)
            case Freeze() | Thaw():
                return follow_freezer(pending, now)
            case Run():
                return _follow_command(pending, manager, now)
            case Log():
                return Outcome(pending.decision, Result.VERIFIED, "logged", now)
    except CgroupGoneError:
        return Outcome(pending.decision, Result.GONE, _ENDED_MEANWHILE, now)


# --- signals -----------------------------------------------------------------------------------


def _follow_signal(pending: Pending, action: Signal, now: float) -> Outcome | Pending:
    decision = pending.decision
    alive = [process for process in pending.processes if is_alive(process)]
    process = pending.processes[0] if len(pending.processes) == 1 else None
    name = "SIGKILL" if pending.killed else action.number.name
    if not alive:
        after = f" after {action.number.name} had not" if pending.killed else ""
        detail = f"{name} ended {_label(pending.processes)}{after}"
        return Outcome(decision, Result.VERIFIED, detail, now, process=process)
    if now < pending.deadline:
        return pending
    if action.otherwise is LastResort.KILL and not pending.killed:
        for victim in alive:
            try:
                send_signal(
                    victim,
                    signal.SIGKILL,
                    still_meant=lambda pid=victim.pid: pending.cgroup.contains(pid),  # type: ignore[misc]
                )
            except ProcessGoneError:
                continue
            except ProcessHiddenError:
                detail = f"SIGKILL can't be sent: {victim.label} is hidden from unitmem (hidepid)"
                return Outcome(decision, Result.FAILED, detail, now)
            except OSError as error:
                return Outcome(decision, Result.FAILED, f"SIGKILL can't be sent: {error}", now, again=True)
        return replace(pending, killed=True, deadline=now + END_WAIT)
    waited = format_span(now - decision.at)
    detail = f"{_label(alive)} still runs {waited} after {name}"
    return Outcome(decision, Result.FAILED, detail, now, process=process)


# --- ending and restarting ---------------------------------------------------------------------


def kill_all(decision: Decision, cgroup: Cgroup, manager: Manager | None) -> None:
    """SIGKILL to all: by the kernel, which no fork escapes, or where it can't, by the manager.

    Raises:
        InvocationGoneError, NoSuchUnitError, CgroupGoneError: there is nothing left to kill.
        BusError: the manager can't do it either.
    """
    if manager is not None:
        # processes that outlive their run keep its cgroup, and the next run is put into the same one.
        # A manager that doesn't answer is no reason to let a unit grow
        with suppress(BusError):
            run_meant(decision, manager)
    try:
        cgroup.kill()
    except OSError:
        run = decision.invocation.invocation_id
        required(manager).kill_unit(decision.unit, run, "all", signal.SIGKILL)


def run_meant(decision: Decision, manager: Manager) -> Unit:
    """The unit as its manager describes it now.

    Raises:
        InvocationGoneError, NoSuchUnitError: the run that is meant is over.
        BusError: it can't be asked.
    """
    unit = manager.describe(decision.unit)
    if unit.invocation_id != decision.invocation.invocation_id or unit.active_state in _OVER:
        raise InvocationGoneError(decision.unit)
    return unit


def _follow_end(
    pending: Pending,
    how: str,
    timeout: float,
    otherwise: LastResort | None,
    manager: Manager | None,
    now: float,
) -> Outcome | Pending:
    decision = pending.decision
    waited = format_span(now - decision.at)
    if pending.killed:
        how = f"killed, as it had not stopped within {format_span(timeout)}"
    if _has_ended(pending, manager):
        return Outcome(decision, Result.VERIFIED, f"{how}; gone {waited} after the decision", now)
    if now < pending.deadline:
        return pending
    if otherwise is LastResort.KILL and not pending.killed:
        return _take_last_resort(pending, manager, now)
    is_killed = pending.killed or isinstance(decision.action, Kill)
    what = "SIGKILL to all its processes" if is_killed else "a stop was asked for"
    return Outcome(decision, Result.FAILED, f"still there {waited} after {what}", now, again=True)


def _take_last_resort(pending: Pending, manager: Manager | None, now: float) -> Outcome | Pending:
    try:
        kill_all(pending.decision, pending.cgroup, manager)
    except (InvocationGoneError, NoSuchUnitError, CgroupGoneError):
        return pending  # it has just ended, and not by us: the next look sees that
    except BusError as error:
        return Outcome(pending.decision, Result.FAILED, f"it did not stop, and {error}", now, again=True)
    return replace(pending, killed=True, deadline=now + END_WAIT)


def _follow_restart(
    pending: Pending, restart: Restart, manager: Manager | None, now: float
) -> Outcome | Pending:
    decision = pending.decision
    waited = format_span(now - decision.at)
    state = "unknown, as the manager can't be asked"
    is_old = True
    if manager is not None:
        try:
            unit = manager.describe(decision.unit)
            run = decision.invocation.invocation_id
            is_old = unit.invocation_id == run and (run is not None or pending.cgroup.exists())
            state = unit.state
            if unit.active_state == "active" and not is_old:
                killed = ", killed first" if pending.killed else ""
                detail = f"restarted{killed}; another run of it is up {waited} after the decision"
                return Outcome(decision, Result.VERIFIED, detail, now)
        except NoSuchUnitError:
            state, is_old = "not loaded", False
        except BusError:
            pass
    if now < pending.deadline:
        return pending
    is_there = is_old and pending.cgroup.exists()
    if restart.otherwise is LastResort.KILL and not pending.killed and is_there:
        after = _take_last_resort(pending, manager, now)
        if isinstance(after, Outcome):
            return after
        if after.killed:
            return replace(after, deadline=now + restart.timeout)  # it has to come up again as well
    detail = f"{waited} after it was asked for, the unit is {state}"
    return Outcome(decision, Result.FAILED, detail, now, again=is_there)


def _has_ended(pending: Pending, manager: Manager | None) -> bool:
    """Whether the invocation is over: its cgroup is removed, or its manager says so."""
    if not pending.cgroup.exists():
        return True
    if manager is None:
        return False
    try:
        unit = manager.describe(pending.decision.unit)
    except NoSuchUnitError:
        return True
    except BusError:
        return False
    return unit.active_state in _OVER or unit.invocation_id != pending.decision.invocation.invocation_id


# --- what the unit survives --------------------------------------------------------------------


class Reclaiming:
    """One write to memory.reclaim, in a thread of its own: the kernel answers when it is done.

    The thread holds no lock and touches nothing else; one that never ends dies with the process.

    Raises:
        OSError: there is no room for a thread.
    """

    def __init__(self, cgroup: Cgroup, size: int) -> None:
        self.error: OSError | None = None
        self.is_gone = False
        self.before = _usage(cgroup)
        self._thread = threading.Thread(target=self._run, args=(cgroup, size), daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            raise OSError("no thread can be started for it") from None

    def _run(self, cgroup: Cgroup, size: int) -> None:
        # interrupted, the kernel would forget what it has reclaimed, and be asked for all of it again
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            cgroup.reclaim(size)
        except CgroupGoneError:
            self.is_gone = True
        except OSError as error:
            self.error = error

    def is_done(self) -> bool:
        return not self._thread.is_alive()


def _usage(cgroup: Cgroup) -> int | None:
    try:
        return cgroup.limit("memory.current")
    except OSError:
        return None


def _follow_reclaim(pending: Pending, action: Reclaim, now: float) -> Outcome | Pending:
    decision, work = pending.decision, pending.reclaiming
    if work is None or work.is_gone:
        raise CgroupGoneError(pending.cgroup.path)
    asked = format_size(action.size)
    if not work.is_done():
        if now < pending.deadline:
            return pending
        detail = f"the kernel is still at it {format_span(now - decision.at)} after it was asked for {asked}"
        return Outcome(decision, Result.FAILED, detail, now)
    after = _usage(pending.cgroup)
    change = ""
    if work.before is not None and after is not None:
        change = f"; memory.current went from {format_size(work.before)} to {format_size(after)}"
    if work.error is None:
        return Outcome(decision, Result.VERIFIED, f"{asked} reclaimed{change}", now)
    if isinstance(work.error, BlockingIOError):
        detail = f"the kernel found less than {asked} to take back{change}"
    elif isinstance(work.error, FileNotFoundError):
        detail = "there is no memory.reclaim: it takes Linux 5.19 and MemoryAccounting=yes"
    else:
        detail = f"memory.reclaim: {reason_of(work.error)}"
    return Outcome(decision, Result.FAILED, detail, now)


def follow_set(pending: Pending, action: SetProperties, now: float) -> Outcome | Pending:
    """The kernel's own files tell whether it is set; systemd writes them a moment after it has answered."""
    wrong = []
    for name, size in action.properties:
        try:
            effective = pending.cgroup.limit(_FILE_OF_PROPERTY[name])
        except OSError as error:
            wrong.append(f"{_FILE_OF_PROPERTY[name]}: {reason_of(error)}")
            continue
        if effective != (None if size is None else size // PAGE_SIZE * PAGE_SIZE):
            wrong.append(f"{_FILE_OF_PROPERTY[name]} is {format_size(effective, missing='max')}")
    if not wrong:
        spelled = ", ".join(spell_property(name, size) for name, size in action.properties)
        return Outcome(pending.decision, Result.VERIFIED, f"{spelled} is in force", now)
    if now < pending.deadline:
        return pending
    detail = f"the manager took it, but {', '.join(wrong)}"
    return Outcome(pending.decision, Result.FAILED, detail, now)


def follow_freezer(pending: Pending, now: float) -> Outcome | Pending:
    freezes = isinstance(pending.decision.action, Freeze)
    state = "frozen" if freezes else "thawed"
    try:
        if pending.cgroup.is_frozen() is freezes:
            return Outcome(pending.decision, Result.VERIFIED, f"all its processes are {state}", now)
    except OSError as error:
        why = reason_of(error)
        detail = f"whether it is {state} is unknown (cgroup.events: {why})"
        return Outcome(pending.decision, Result.FAILED, detail, now)
    if now < pending.deadline:
        return pending
    waited = format_span(now - pending.decision.at)
    return Outcome(pending.decision, Result.FAILED, f"it is not {state} {waited} after the decision", now)


def _follow_command(pending: Pending, manager: Manager | None, now: float) -> Outcome | Pending:
    decision, name = pending.decision, pending.command_unit
    try:
        result = None if manager is None else manager.command_result(name)
    except NoSuchUnitError:
        return Outcome(decision, Result.FAILED, f"{name} is gone, and its result with it", now)
    except BusError:
        result = None
    if result == "success":
        took = format_span(now - decision.at)
        return Outcome(decision, Result.VERIFIED, f"the command succeeded within {took} ({name})", now)
    if result is None and now < pending.deadline:
        return pending
    waited = format_span(now - decision.at)
    what = f"nothing is known of its end after {waited}" if result is None else f"its result is {result}"
    return Outcome(decision, Result.FAILED, f"{what}; see `journalctl -u {name}`", now)


def required(manager: Manager | None) -> Manager:
    if manager is None:
        raise OutOfReachError("the service manager is out of reach")
    return manager


def _label(processes: Sequence[Process]) -> str:
    return processes[0].label if len(processes) == 1 else f"{len(processes)} processes"
