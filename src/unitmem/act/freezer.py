"""`freeze` and `thaw`: through the manager, and verified in cgroup.events."""

from __future__ import annotations

from unitmem.act.task import Pending, Task
from unitmem.errors import reason_of
from unitmem.policy.actions import Freeze, Thaw
from unitmem.policy.decision import Outcome, Result


def perform(task: Task[Freeze | Thaw]) -> Outcome | Pending:
    manager = task.manager
    ask = manager.freeze_unit if isinstance(task.action, Freeze) else manager.thaw_unit
    ask(task.decision.unit, task.invocation_id)
    return verify(task, task.pending(task.action.timeout))


def verify(task: Task[Freeze | Thaw], pending: Pending) -> Outcome | Pending:
    task.check_cgroup()
    freezes = isinstance(task.action, Freeze)
    state = "frozen" if freezes else "thawed"
    try:
        if task.cgroup.is_frozen() is freezes:
            return task.outcome(Result.VERIFIED, f"all its processes are {state}")
    except OSError as error:
        why = reason_of(error)
        return task.outcome(Result.FAILED, f"whether it is {state} is unknown (cgroup.events: {why})")
    if task.now < pending.deadline:
        return pending
    return task.outcome(Result.FAILED, f"it is not {state} {task.waited} after the decision")
