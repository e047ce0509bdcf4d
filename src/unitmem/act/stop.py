"""`stop`: a stop job of the manager, then SIGKILL to what is left, where `else: kill` is given."""

from __future__ import annotations

from dataclasses import replace

from unitmem.act.ending import has_ended, request_again, request_end, take_last_resort, why_unasked
from unitmem.act.task import Pending, Task
from unitmem.manager.systemd import Manager
from unitmem.policy.actions import END_WAIT, LastResort, Stop
from unitmem.policy.decision import Outcome, Result
from unitmem.text import format_span


def perform(task: Task[Stop]) -> Outcome | Pending:
    return _with_time_to_end(task, request_end(task, Manager.stop_unit))


def verify(task: Task[Stop], pending: Pending) -> Outcome | Pending:
    if has_ended(task, killed=pending.killed):
        if pending.sent and not pending.killed:
            detail = f"gone {task.waited} after the decision; the manager had not answered the stop"
            return task.outcome(Result.VERIFIED, detail)
        if pending.unasked is not None and not pending.killed:
            return task.outcome(Result.GONE, "it ended before the manager could be asked to stop it")
        how = f"killed, as {_why_killed(task, pending)}" if pending.killed else "stopped"
        # without a stop job, it has failed to systemd
        may_start = "; its Restart= may start it again" if pending.unasked is not None else ""
        return task.outcome(Result.VERIFIED, f"{how}; gone {task.waited} after the decision{may_start}")
    if not pending.killed:
        after = request_again(task, pending, Manager.stop_unit)
        if isinstance(after, Outcome):
            return after
        pending = _with_time_to_end(task, after)
    if task.now < pending.deadline:
        return pending
    if task.action.otherwise is LastResort.KILL and not pending.killed:
        return take_last_resort(task, pending)
    what = "SIGKILL to all its processes" if pending.killed else "a stop was asked for"
    return task.outcome(Result.FAILED, f"still there {task.waited} after {what}", again=True)


def _with_time_to_end(task: Task[Stop], pending: Pending) -> Pending:
    return replace(pending, deadline=task.now + END_WAIT) if pending.killed else pending


def _why_killed(task: Task[Stop], pending: Pending) -> str:
    if pending.refusal is not None:
        return f"the manager refuses to stop it ({pending.refusal})"
    within = format_span(task.action.timeout)
    if pending.unasked is not None:
        return why_unasked(pending, "stop", within)
    return f"it had not stopped within {within}"
