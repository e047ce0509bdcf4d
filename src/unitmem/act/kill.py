"""`kill`: SIGKILL to every process of the unit at once."""

from __future__ import annotations

from unitmem.act.ending import has_ended, kill_all
from unitmem.act.task import Pending, Task
from unitmem.policy.actions import Kill
from unitmem.policy.decision import Outcome, Result


def perform(task: Task[Kill]) -> Outcome | Pending:
    kill_all(task)
    return task.pending(task.action.timeout)


def verify(task: Task[Kill], pending: Pending) -> Outcome | Pending:
    if has_ended(task, killed=True):
        return task.outcome(Result.VERIFIED, f"killed; gone {task.waited} after the decision")
    if task.now < pending.deadline:
        return pending
    detail = f"still there {task.waited} after SIGKILL to all its processes"
    return task.outcome(Result.FAILED, detail, again=True)
