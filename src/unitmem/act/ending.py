"""Shared by the actions that end a unit: whether it has ended, and SIGKILL to all of its processes."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from unitmem.act.task import OVER, Pending, Task
from unitmem.errors import (
    BusError,
    BusLostError,
    InvocationGoneError,
    NoSuchUnitError,
    OutOfReachError,
    RefusedError,
)
from unitmem.kernel.attributes import INVOCATION_ID, read_attribute
from unitmem.kernel.cgroup import Cgroup, CgroupGoneError
from unitmem.kernel.process import ProcessGoneError, ProcessHiddenError, send_signal
from unitmem.kernel.processes import read_processes
from unitmem.manager.dbus import TIMED_OUT
from unitmem.manager.systemd import Manager
from unitmem.policy.actions import END_WAIT, LastResort, Restart
from unitmem.policy.decision import Outcome, Result
from unitmem.unit import unit_kind

_OF_PROCESSES = ("service", "scope", "slice")
"""The kinds of unit that are their processes."""
_MOST_ROUNDS = 100
"""The most times that processes are listed in order to kill them one by one: some may start others meanwhile."""

Ask: TypeAlias = Callable[[Manager, str, str | None], None]
"""A request to a manager about a run of a unit: `Manager.stop_unit`."""


def has_ended(task: Task[Any], *, killed: bool) -> bool:
    """Return whether the invocation is over: its cgroup is removed, or the manager reports its end.

    If it was killed, or if the manager can't be asked, it is enough that no process is left: the cgroup may stay.
    """
    if not task.cgroup.exists() or (killed and has_no_process(task)):
        return True
    if task.reachable is not None:
        try:
            unit = task.reachable.describe(task.decision.unit)
        except NoSuchUnitError:
            return True
        except BusError:
            return has_no_process(task)
        if unit.active_state in OVER or unit.invocation_id != task.invocation_id:
            return True
    return task.reachable is None and has_no_process(task)


def has_no_process(task: Task[Any]) -> bool:
    """Return whether the run's processes have ended; of a mount, say, they had so before."""
    try:
        return unit_kind(task.decision.unit) in _OF_PROCESSES and task.cgroup.is_empty()
    except CgroupGoneError:
        return True
    except (OSError, ValueError):
        return False


def kill_all(task: Task[Any]) -> None:
    """Send SIGKILL to every process of the unit: through cgroup.kill, which no fork escapes, or else by the manager.

    Where the manager can't be asked, each process is killed through a pidfd.

    Raises:
        InvocationGoneError, NoSuchUnitError, CgroupGoneError: there is nothing left to kill.
        BusError: the manager can't do it either.
        OSError: a process can't be killed, or not all of them can be listed.
    """
    _check_run(task)
    try:
        task.cgroup.kill()
    except OSError:
        try:
            task.manager.kill_unit(task.decision.unit, task.invocation_id, "all", signal.SIGKILL)
        except (OutOfReachError, BusLostError):
            if not _kill_each(task.cgroup):
                raise


def _check_run(task: Task[Any]) -> None:
    """Return if the cgroup is still of the run that is meant, or nobody can tell.

    Processes that outlive their run keep its cgroup, and the next run is put into the same one. What is noted at the
    cgroup costs no time of a manager that hangs.

    Raises:
        InvocationGoneError, NoSuchUnitError: that run is over.
    """
    noted = read_attribute(task.cgroup, INVOCATION_ID)
    if noted is None or task.invocation_id is None:
        # a manager that doesn't answer is no reason to let a unit grow
        with suppress(BusError):
            task.unit_meant()
    elif noted != task.invocation_id:
        raise InvocationGoneError(task.decision.unit)


def _kill_each(cgroup: Cgroup) -> bool:
    """Send SIGKILL to each process, also to those that are started meanwhile; return whether there were any.

    Raises:
        CgroupGoneError: the cgroup is removed.
        OSError: a process can't be killed, while all others were, or not all of them can be listed.
    """
    killed: set[tuple[int, int]] = set()
    trouble: OSError | None = None
    for _ in range(_MOST_ROUNDS):
        others = [each for each in read_processes(cgroup) if (each.pid, each.start_time) not in killed]
        if not others:
            break
        for process in others:
            killed.add((process.pid, process.start_time))
            try:
                send_signal(process, signal.SIGKILL, still_meant=partial(cgroup.contains, process.pid))
            except (ProcessGoneError, ProcessHiddenError):
                pass
            except OSError as error:
                trouble = trouble or error
    if trouble is not None:
        raise trouble
    return bool(killed)


def request_end(task: Task[Any], ask: Ask) -> Pending:
    """Ask the manager to end the unit; where it refuses to for good, take the last resort at once if there is one.

    Where it can't be asked and there is a last resort, the action is under way all the same: `request_again` asks
    once it can be, and the last resort needs no manager.

    Raises:
        RefusedError: it refuses for good, and there is no last resort, or it refuses the start of a restart.
        InvocationGoneError, NoSuchUnitError, CgroupGoneError: that run is over.
        BusError: it can't be asked.
        OSError: the last resort can't be taken.
    """
    pending = task.pending(task.action.timeout)
    is_answering = task.reachable is not None and task.reachable.lost is None
    try:
        ask(task.manager, task.decision.unit, task.invocation_id)
    except RefusedError as error:
        if task.action.otherwise is not LastResort.KILL:
            raise
        # who asks for a restart wants the unit to run: what may not be started would stay down
        if isinstance(task.action, Restart) and not task.manager.refuses_only_stops(task.decision.unit):
            raise
        kill_all(task)
        return replace(pending, killed=True, refusal=str(error))
    except (OutOfReachError, BusLostError) as error:
        if task.action.otherwise is not LastResort.KILL:
            raise
        return replace(pending, unasked=str(error), sent=is_answering and error.name in TIMED_OUT)
    return pending


def request_again(task: Task[Any], pending: Pending, ask: Ask) -> Outcome | Pending:
    """Ask the manager for what it could not be asked for; then that has its whole time.

    Return `pending` as it is where there is nothing to ask for, or it still can't be asked, and the outcome where the
    manager refuses it for good.
    """
    if pending.unasked is None or task.reachable is None or task.action.otherwise is None:
        return pending  # `resume` takes the last resort away where nothing may be done any more
    try:
        again = request_end(task, ask)
    except RefusedError as error:
        refused = task.refused(error)
        return (
            replace(refused, detail=f"killed; {refused.detail}", untried=False) if pending.killed else refused
        )
    except (InvocationGoneError, NoSuchUnitError, CgroupGoneError, BusError, OSError):
        return pending  # the next look sees an end, and the deadline comes
    if again.unasked is not None:
        return replace(pending, unasked=again.unasked, sent=True) if again.sent else pending
    return replace(again, killed=again.killed or pending.killed, resumed=pending.resumed)


def why_unasked(pending: Pending, verb: str, within: str) -> str:
    """Return that the manager could not be asked to `verb` the unit in that time, or did not answer."""
    failed = f"did not answer the {verb}" if pending.sent else f"could not be asked to {verb} it"
    return f"the manager {failed} within {within} ({pending.unasked})"


def take_last_resort(task: Task[Any], pending: Pending) -> Outcome | Pending:
    """Kill the unit, which has not stopped in time; return the action with a new deadline, or why it failed."""
    try:
        kill_all(task)
    except (InvocationGoneError, NoSuchUnitError, CgroupGoneError):
        return pending  # it has just ended, and not by us: the next look sees that
    except (BusError, OSError) as error:
        return task.outcome(Result.FAILED, f"it did not stop, and {error}", again=True)
    return replace(pending, killed=True, deadline=task.now + END_WAIT)
