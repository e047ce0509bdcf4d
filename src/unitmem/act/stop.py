"""`stop`: a stop job of the manager, then SIGKILL to what is left, where `else: kill` is given."""

from __future__ import annotations

from dataclasses import replace

from unitmem.act.ending import has_ended, request_end, take_last_resort
from unitmem.act.task import Pending, Task
from unitmem.policy.actions import END_WAIT, LastResort, Stop
from unitmem.policy.decision import Outcome, Result
from unitmem.text import format_span


def perform(task: Task[Stop]) -> Outcome | Pending:
    pending = request_end(task, task.manager.stop_unit)
    return replace(pending, deadline=task.now + END_WAIT) if pending.killed else pending


def verify(task: Task[Stop], pending: Pending) -> Outcome | Pending:
    if has_ended(task, killed=pending.killed):
        why = f"it had not stopped within {format_span(task.action.timeout)}"
        if pending.refusal is not None:
            why = f"the manager refuses to stop it ({pending.refusal})"
        how = f"killed, as {why}" if pending.killed else "stopped"
        return task.outcome(Result.VERIFIED, f"{how}; gone {task.waited} after the decision")
    if task.now < pending.deadline:
        return pending
    if task.action.otherwise is LastResort.KILL and not pending.killed:
        return take_last_resort(task, pending)
    what = "SIGKILL to all its processes" if pending.killed else "a stop was asked for"
    return task.outcome(Result.FAILED, f"still there {task.waited} after {what}", again=True)
