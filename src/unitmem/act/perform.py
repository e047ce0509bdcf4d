"""Performing a decision, and seeing what became of it.

Right before it acts, `perform` makes sure that the invocation is the one that breached: the manager
is asked to act on the invocation rather than on the unit's name, the cgroup is addressed through the
directory that was sampled, and single processes are signalled through a pidfd after a look whether
they still sit in the unit. Nothing here waits: what takes time comes back as `Pending`, to be
followed up at later ticks, so that a stop that hangs holds up nobody.
"""

from __future__ import annotations

from unitmem.act.follow_up import (
    Pending,
    Reclaiming,
    follow_freezer,
    follow_set,
    kill_all,
    required,
    run_meant,
)
from unitmem.errors import BusError, BusLostError, InvocationGoneError, NoSuchUnitError, OutOfReachError
from unitmem.kernel.cgroup import Cgroup, CgroupGoneError
from unitmem.kernel.process import (
    Process,
    ProcessGoneError,
    ProcessHiddenError,
    read_process,
    send_signal,
    with_pss,
)
from unitmem.kernel.processes import read_processes
from unitmem.manager.systemd import Manager
from unitmem.policy.actions import (
    END_WAIT,
    ENDING_SIGNALS,
    Action,
    Freeze,
    Kill,
    Log,
    Reclaim,
    Restart,
    Run,
    SetProperties,
    Signal,
    Stop,
    Target,
    Thaw,
)
from unitmem.policy.decision import Decision, Outcome, Override, Result, environment_of
from unitmem.quantity import format_size


def perform(
    decision: Decision, cgroup: Cgroup, manager: Manager | None, now: float, override: Override | None = None
) -> Outcome | Pending:
    """Do what `decision` says, or say why not.

    Args:
        decision: what to do.
        cgroup: the cgroup that was sampled for it.
        manager: the unit's manager; None while the bus is away.
        now: seconds of the decision's clock.
        override: for a `set`, what `prepare` gave.
    """
    if decision.refusal is not None:
        return Outcome(decision, Result.REFUSED, decision.refusal.reason, now)
    if decision.observe:
        return Outcome(decision, Result.OBSERVED, "nothing was done: the policy only observes", now)
    if isinstance(decision.action, Log):
        return Outcome(decision, Result.VERIFIED, "logged", now)
    if not cgroup.exists():
        return _invocation_gone(decision, now)
    try:
        return _act(decision, cgroup, manager, now, override)
    except (InvocationGoneError, NoSuchUnitError, CgroupGoneError):
        return _invocation_gone(decision, now)
    except ProcessGoneError:
        # the unit lives on, and another of its processes may breach by now
        return Outcome(decision, Result.GONE, "the process ended before it was signalled", now, again=True)
    except ProcessHiddenError:
        return Outcome(decision, Result.FAILED, "the process is hidden from unitmem (hidepid)", now)
    except _NoVictimError as error:
        return Outcome(decision, Result.FAILED, str(error), now)
    except OutOfReachError as error:
        return Outcome(decision, Result.FAILED, f"it can't be done: {error}", now, again=True, untried=True)
    except BusLostError as error:
        if not _may_be_repeated(decision.action):
            return Outcome(decision, Result.FAILED, f"whether it was done is not known: {error}", now)
        return Outcome(decision, Result.FAILED, f"it can't be done: {error}", now, again=True)
    except (BusError, OSError) as error:
        return Outcome(decision, Result.FAILED, f"it can't be done: {error}", now, again=True)


def _may_be_repeated(action: Action) -> bool:
    """Whether it is harmless to ask the manager again for what it may have done already, its answer being lost."""
    match action:
        case Run() | Signal(to=Target.ALL):
            return False
        case _:  # asked of one run of the unit, or the same a second time
            return True


def _act(
    decision: Decision, cgroup: Cgroup, manager: Manager | None, now: float, override: Override | None
) -> Outcome | Pending:
    unit, run = decision.unit, decision.invocation.invocation_id
    match decision.action:
        case Signal(to=Target.ALL) as action:
            return _signal_all(decision, action, cgroup, required(manager), now)
        case Signal() as action:
            victim = _find_process(decision, action.to, cgroup, manager)
            return _signal_one(decision, action, victim, cgroup, now)
        case Stop(timeout):
            required(manager).stop_unit(unit, run)
            return Pending(decision, cgroup, now + timeout)
        case Restart(timeout):
            if run_meant(decision, required(manager)).active_state == "deactivating":
                # a restart would undo that, and start what somebody wants to be stopped
                return Outcome(decision, Result.GONE, "it is stopping already", now)
            required(manager).restart_unit(unit, run)
            return Pending(decision, cgroup, now + timeout)
        case Kill(timeout):
            kill_all(decision, cgroup, manager)
            return Pending(decision, cgroup, now + timeout)
        case Reclaim(size, timeout):
            return Pending(decision, cgroup, now + timeout, reclaiming=Reclaiming(cgroup, size))
        case SetProperties(properties):
            if override is None and required(manager):
                raise BusError("what the properties are now can't be read, so nothing was set")
            required(manager).set_size_properties(unit, dict(properties), run)
            return follow_set(Pending(decision, cgroup, now + END_WAIT), decision.action, now)
        case Freeze(timeout):
            required(manager).freeze_unit(unit, run)
            return follow_freezer(Pending(decision, cgroup, now + timeout), now)
        case Thaw(timeout):
            required(manager).thaw_unit(unit, run)
            return follow_freezer(Pending(decision, cgroup, now + timeout), now)
        case Run(command, timeout):
            # several units may be decided on at once, which their cgroups' numbers tell apart
            moment = f"{int(decision.at * 1000)}-{decision.invocation.cgroup_inode}"
            name = f"unitmem-run-{decision.policy}-{decision.step_number}-{moment}.service"
            required(manager).start_command(name, command, environment_of(decision), timeout)
            # the manager enforces the timeout; what is added is for the manager itself
            return Pending(decision, cgroup, now + timeout + END_WAIT, command_unit=name)
        case Log():
            return Outcome(decision, Result.VERIFIED, "logged", now)


# --- signals -----------------------------------------------------------------------------------


class _NoVictimError(Exception):
    """There is no process that the decision could mean."""


def _signal_all(
    decision: Decision, action: Signal, cgroup: Cgroup, manager: Manager, now: float
) -> Outcome | Pending:
    processes: list[Process] = []
    unseen = ""
    if action.number in ENDING_SIGNALS:
        try:
            processes = read_processes(cgroup)
        except OSError as error:
            unseen = f", and whether they end can't be seen: {error}"
    manager.kill_unit(decision.unit, decision.invocation.invocation_id, "all", action.number)
    if processes:
        return Pending(decision, cgroup, now + action.timeout, tuple(processes))
    detail = f"{action.number.name} sent to all its processes{unseen}"
    return Outcome(decision, Result.FAILED if unseen else Result.VERIFIED, detail, now)


def _signal_one(
    decision: Decision, action: Signal, victim: Process, cgroup: Cgroup, now: float
) -> Outcome | Pending:
    send_signal(victim, action.number, still_meant=lambda: cgroup.contains(victim.pid))
    if action.number in ENDING_SIGNALS:
        return Pending(decision, cgroup, now + action.timeout, (victim,))
    size = f", PSS {format_size(victim.pss)}" if victim.pss is not None else ""
    detail = f"{action.number.name} delivered to {victim.label}{size}"
    return Outcome(decision, Result.VERIFIED, detail, now, process=victim)


def _find_process(decision: Decision, to: Target, cgroup: Cgroup, manager: Manager | None) -> Process:
    """The one process that `to` means, as it is now.

    Raises:
        _NoVictimError: the unit has none.
        ProcessGoneError: it ended.
        InvocationGoneError: the unit was started anew.
    """
    if to is Target.LARGEST:
        return decision.victim or _largest(cgroup)
    unit = run_meant(decision, required(manager))
    pid = unit.main_pid if to is Target.MAIN else unit.control_pid
    if pid is None:
        raise _NoVictimError(f"it has no {to} process now: nothing was signalled")
    process = read_process(pid)
    if not cgroup.contains(pid):
        raise _NoVictimError(f"its {to} process {pid} is not in its cgroup: nothing was signalled")
    return process


def _largest(cgroup: Cgroup) -> Process:
    """Return the process with the most PSS; by RSS where PSS can't be read.

    Raises:
        _NoVictimError: it has none, or one whose size is unknown, which may be the largest.
        OSError: not all of them can be listed.
    """
    sized = []
    for process in read_processes(cgroup):
        if process.rss is None:
            why = f"{process.label}: {process.unknown}"
            raise _NoVictimError(f"which process is the largest is unknown ({why}): nothing was signalled")
        try:
            sized.append(with_pss(process))
        except ProcessGoneError:
            continue
    if not sized:
        raise _NoVictimError("it has no process: nothing was signalled")
    return max(sized, key=lambda process: process.pss if process.pss is not None else process.rss or 0)


def _invocation_gone(decision: Decision, now: float) -> Outcome:
    return Outcome(
        decision, Result.GONE, "it was stopped or restarted meanwhile, and a new run is left alone", now
    )
