"""`signal`: to all processes of the unit through the manager, or to one of them through a pidfd."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace

from unitmem.act.task import Pending, Task
from unitmem.kernel.cgroup import Cgroup
from unitmem.kernel.process import (
    Process,
    ProcessGoneError,
    ProcessHiddenError,
    is_alive,
    read_process,
    send_signal,
    with_pss,
)
from unitmem.kernel.processes import read_processes
from unitmem.policy.actions import END_WAIT, ENDING_SIGNALS, LastResort, Signal, Target
from unitmem.policy.decision import Outcome, Result
from unitmem.text import format_size


class _NoVictimError(Exception):
    """The unit has no process that the decision applies to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signalled(Pending):
    """An ending signal that was sent, and the processes that it has to end."""

    processes: tuple[Process, ...]


def perform(task: Task[Signal]) -> Outcome | Pending:
    if task.action.to is Target.ALL:
        return _signal_all(task)
    try:
        return _signal_one(task, _find_process(task))
    except ProcessGoneError:
        # the unit lives on, and another of its processes may breach by now
        return task.outcome(Result.GONE, "the process ended before it was signalled", again=True)
    except ProcessHiddenError:
        return task.outcome(Result.FAILED, "the process is hidden from unitmem (hidepid)")
    except _NoVictimError as error:
        return task.outcome(Result.FAILED, str(error))


def verify(task: Task[Signal], pending: Signalled) -> Outcome | Pending:
    action = task.action
    alive = [process for process in pending.processes if is_alive(process)]
    process = pending.processes[0] if len(pending.processes) == 1 else None
    name = "SIGKILL" if pending.killed else action.name
    if not alive:
        after = f" after {action.name} had not" if pending.killed else ""
        detail = f"{name} ended {_label(pending.processes)}{after}"
        return task.outcome(Result.VERIFIED, detail, process=process)
    if task.now < pending.deadline:
        return pending
    if action.otherwise is LastResort.KILL and not pending.killed:
        return _kill(task, pending, alive)
    detail = f"{_label(alive)} still runs {task.waited} after {name}"
    return task.outcome(Result.FAILED, detail, process=process)


def _signal_all(task: Task[Signal]) -> Outcome | Pending:
    number = task.action.number
    manager = task.manager
    processes: list[Process] = []
    unseen = ""
    if number in ENDING_SIGNALS:
        try:
            processes = read_processes(task.cgroup)
        except OSError as error:
            unseen = f", and whether they end can't be seen: {error}"
    manager.kill_unit(task.decision.unit, task.invocation_id, "all", number)
    if processes:
        return _signalled(task, processes)
    detail = f"{number.name} sent to all its processes{unseen}"
    return task.outcome(Result.FAILED if unseen else Result.VERIFIED, detail)


def _signal_one(task: Task[Signal], victim: Process) -> Outcome | Pending:
    number = task.action.number
    _send(victim, number, task.cgroup)
    if number in ENDING_SIGNALS:
        return _signalled(task, [victim])
    size = f", PSS {format_size(victim.pss)}" if victim.pss is not None else ""
    return task.outcome(Result.VERIFIED, f"{number.name} delivered to {victim.label}{size}", process=victim)


def _signalled(task: Task[Signal], processes: Sequence[Process]) -> Signalled:
    deadline = task.now + task.action.timeout
    return Signalled(task.decision, task.cgroup, deadline, processes=tuple(processes))


def _kill(task: Task[Signal], pending: Signalled, alive: Sequence[Process]) -> Outcome | Pending:
    failed: Outcome | None = None  # one that may not be killed spares no other
    for victim in alive:
        try:
            _send(victim, signal.SIGKILL, task.cgroup)
        except ProcessGoneError:
            continue
        except ProcessHiddenError:
            detail = f"SIGKILL can't be sent: {victim.label} is hidden from unitmem (hidepid)"
            failed = failed or task.outcome(Result.FAILED, detail)
        except OSError as error:
            failed = failed or task.outcome(Result.FAILED, f"SIGKILL can't be sent: {error}", again=True)
    return failed or replace(pending, killed=True, deadline=task.now + END_WAIT)


def _send(victim: Process, number: signal.Signals, cgroup: Cgroup) -> None:
    send_signal(victim, number, still_meant=lambda: cgroup.contains(victim.pid))


def _find_process(task: Task[Signal]) -> Process:
    """Return the one process to signal, as it is now.

    Raises:
        _NoVictimError: the unit has none.
        ProcessGoneError: it ended.
        InvocationGoneError: the unit was started anew.
    """
    to = task.action.to
    if to is Target.LARGEST:
        return task.decision.victim or _largest(task.cgroup)
    unit = task.unit_meant()
    pid = unit.main_pid if to is Target.MAIN else unit.control_pid
    if pid is None:
        raise _NoVictimError(f"it has no {to} process now: nothing was signalled")
    process = read_process(pid)
    if not task.cgroup.contains(pid):
        raise _NoVictimError(f"its {to} process {pid} is not in its cgroup: nothing was signalled")
    return process


def _largest(cgroup: Cgroup) -> Process:
    """Return the process with the largest PSS, huge pages added, or RSS where PSS can't be read.

    Raises:
        _NoVictimError: the cgroup has no process, or one of unknown size, which may be the largest.
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
    return max(sized, key=lambda process: process.held or 0)


def _label(processes: Sequence[Process]) -> str:
    return processes[0].label if len(processes) == 1 else f"{len(processes)} processes"
