"""`restart`: a restart job of the manager, then SIGKILL to what is left of the old run, where `else: kill` is given."""

from __future__ import annotations

from dataclasses import replace

from unitmem.act.ending import take_last_resort
from unitmem.act.task import Pending, Task
from unitmem.errors import BusError, NoSuchUnitError
from unitmem.policy.actions import LastResort, Restart
from unitmem.policy.decision import Outcome, Result


def perform(task: Task[Restart]) -> Outcome | Pending:
    if task.unit_meant().active_state == "deactivating":
        # a restart would undo that, and start what somebody wants to be stopped
        return task.outcome(Result.GONE, "it is stopping already")
    task.manager.restart_unit(task.decision.unit, task.invocation_id)
    return task.pending(task.action.timeout)


def verify(task: Task[Restart], pending: Pending) -> Outcome | Pending:
    state = "unknown, as the manager can't be asked"
    is_old = True
    if task.reachable is not None:
        try:
            unit = task.reachable.describe(task.decision.unit)
            run = task.invocation_id
            is_old = unit.invocation_id == run and (run is not None or task.cgroup.exists())
            state = unit.state
            if unit.active_state == "active" and not is_old:
                killed = ", killed first" if pending.killed else ""
                detail = f"restarted{killed}; the new run was up {task.waited} after the decision"
                return task.outcome(Result.VERIFIED, detail)
        except NoSuchUnitError:
            state, is_old = "not loaded", False
        except BusError:
            pass
    if task.now < pending.deadline:
        return pending
    is_there = is_old and task.cgroup.exists()
    if task.action.otherwise is LastResort.KILL and not pending.killed and is_there:
        after = take_last_resort(task, pending)
        if isinstance(after, Outcome):
            return after
        if after.killed:
            # it has to come up again as well
            return replace(after, deadline=task.now + task.action.timeout)
    detail = f"{task.waited} after it was asked for, the unit is {state}"
    return task.outcome(Result.FAILED, detail, again=is_there)
