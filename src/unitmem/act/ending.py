"""Shared by the actions that end a unit: whether it has ended, and SIGKILL to all of its processes."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from unitmem.act.task import OVER, Pending, Task
from unitmem.errors import BusError, InvocationGoneError, NoSuchUnitError, RefusedError
from unitmem.kernel.cgroup import CgroupGoneError
from unitmem.policy.actions import END_WAIT, LastResort, Restart
from unitmem.policy.decision import Outcome, Result
from unitmem.unit import unit_kind

_OF_PROCESSES = ("service", "scope", "slice")
"""The kinds of unit that are their processes."""


def has_ended(task: Task[Any], *, killed: bool) -> bool:
    """Return whether the invocation is over: its cgroup is removed, or the manager reports its end.

    If it was killed, or if the manager can't be asked, it is enough that no process is left: the cgroup may stay.
    """
    if not task.cgroup.exists():
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
    return (killed or task.reachable is None) and has_no_process(task)


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

    Raises:
        InvocationGoneError, NoSuchUnitError, CgroupGoneError: there is nothing left to kill.
        BusError: the manager can't do it either.
    """
    # processes that outlive their run keep its cgroup, and the next run is put into the same one.
    # A manager that doesn't answer is no reason to let a unit grow
    with suppress(BusError):
        task.unit_meant()
    try:
        task.cgroup.kill()
    except OSError:
        task.manager.kill_unit(task.decision.unit, task.invocation_id, "all", signal.SIGKILL)


def request_end(task: Task[Any], ask: Callable[[str, str | None], None]) -> Pending:
    """Ask the manager by `ask`; where it refuses to stop the unit for good, take the last resort at once if there is one.

    Raises:
        RefusedError: it refuses for good, and there is no last resort, or it refuses the start of a restart.
        InvocationGoneError, NoSuchUnitError, CgroupGoneError: that run is over.
        BusError: it can't be asked.
    """
    pending = task.pending(task.action.timeout)
    try:
        ask(task.decision.unit, task.invocation_id)
    except RefusedError as error:
        if task.action.otherwise is not LastResort.KILL:
            raise
        # who asks for a restart wants the unit to run: what may not be started would stay down
        if isinstance(task.action, Restart) and not task.manager.refuses_only_stops(task.decision.unit):
            raise
        kill_all(task)
        return replace(pending, killed=True, refusal=str(error))
    return pending


def take_last_resort(task: Task[Any], pending: Pending) -> Outcome | Pending:
    """Kill the unit, which has not stopped in time; return the action with a new deadline, or why it failed."""
    try:
        kill_all(task)
    except (InvocationGoneError, NoSuchUnitError, CgroupGoneError):
        return pending  # it has just ended, and not by us: the next look sees that
    except BusError as error:
        return task.outcome(Result.FAILED, f"it did not stop, and {error}", again=True)
    return replace(pending, killed=True, deadline=task.now + END_WAIT)
