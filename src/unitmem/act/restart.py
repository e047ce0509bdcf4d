"""`restart`: a restart job of the manager, then SIGKILL to what is left of the old run, where `else: kill` is given."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from unitmem.act.ending import has_no_process, request_again, request_end, take_last_resort, why_unasked
from unitmem.act.task import OVER, Pending, Task
from unitmem.errors import BusError, BusLostError, NoSuchUnitError, OutOfReachError
from unitmem.manager.systemd import Manager
from unitmem.policy.actions import LastResort, Restart
from unitmem.policy.decision import Outcome, Result
from unitmem.unit import START_LIMIT_HIT, ManagerKind

_STOPPING = "it is stopping already"


def perform(task: Task[Restart]) -> Outcome | Pending:
    with suppress(OutOfReachError, BusLostError):  # which the request meets as well
        if task.unit_meant().active_state == "deactivating":
            # a restart would undo that, and start what somebody wants to be stopped
            return task.outcome(Result.GONE, _STOPPING)
    return request_end(task, Manager.restart_unit)


def verify(task: Task[Restart], pending: Pending) -> Outcome | Pending:
    state = "unknown, as the manager can't be asked"
    is_old, is_stopping = True, False
    if task.reachable is not None:
        try:
            unit = task.reachable.describe(task.decision.unit)
            run = task.invocation_id
            is_old = unit.invocation_id == run and (run is not None or task.cgroup.exists())
            state = unit.state
            is_stopping = unit.active_state == "deactivating"
            if is_stopping and pending.unasked is not None and not (pending.sent or pending.killed):
                return task.outcome(Result.GONE, _STOPPING)
            if unit.active_state == "active" and not is_old:
                killed = ", killed first" + _refused(pending) if pending.killed else ""
                detail = f"restarted{killed}; the new run was up {task.waited} after the decision"
                return task.outcome(Result.VERIFIED, detail)
            if unit.active_state in OVER and (why := _stays_down(task, pending)) is not None:
                return task.outcome(Result.FAILED, why)
        except NoSuchUnitError:
            state, is_old = "not loaded", False
        except BusError:
            pass
    if not (is_stopping and pending.sent):  # else that is the restart, which was only not answered
        again = request_again(task, pending, Manager.restart_unit)
        if isinstance(again, Outcome):
            return again
        pending = again
    if task.now < pending.deadline:
        return pending
    is_there = is_old and task.cgroup.exists() and not has_no_process(task)
    if task.action.otherwise is LastResort.KILL and not pending.killed and is_there:
        after = take_last_resort(task, pending)
        if isinstance(after, Outcome):
            return after
        if after.killed:
            # it has to come up again as well
            return replace(after, deadline=task.now + task.action.timeout)
    detail = f"{task.waited} after it was asked for, the unit is {state}"
    if pending.unasked is not None:
        killed = "; it was killed, and its Restart= may start it again" if pending.killed else ""
        detail = why_unasked(pending, "restart", task.waited) + killed
    return task.outcome(Result.FAILED, detail, again=is_there)


def _refused(pending: Pending) -> str:
    return "" if pending.refusal is None else f", as the manager refuses to restart it ({pending.refusal})"


def _stays_down(task: Task[Restart], pending: Pending) -> str | None:
    """Return why the unit, which is down, won't come up by itself; None if it may.

    Between its stop and its start it is down as well, and may have failed in its stop.
    """
    manager, name = task.manager, task.decision.unit
    if pending.refusal is not None:  # so no job is queued
        return f"killed{_refused(pending)}; it is down"
    if manager.result(name) != START_LIMIT_HIT:
        return None
    limit = manager.start_limit(name)
    systemctl = "systemctl --user" if manager.kind is ManagerKind.USER else "systemctl"
    return (
        f"it was stopped, and the manager refuses to start it: {START_LIMIT_HIT} ({limit}). "
        f"It stays down until `{systemctl} reset-failed {name}` and `{systemctl} start {name}`"
    )
