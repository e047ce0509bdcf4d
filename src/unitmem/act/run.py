"""`run`: a command in a transient unit, whose Result= is its outcome."""

from __future__ import annotations

from dataclasses import dataclass

from unitmem.act.task import Pending, Task
from unitmem.errors import BusError, NoSuchUnitError
from unitmem.policy.actions import END_WAIT, Run
from unitmem.policy.decision import Decision, Outcome, Result, environment_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Running(Pending):
    """A command that is under way."""

    command_unit: str
    """The name of the transient unit that it runs in."""


def perform(task: Task[Run]) -> Outcome | Pending:
    decision, action = task.decision, task.action
    name = command_unit(decision)
    task.manager.start_command(name, action.command, environment_of(decision), action.timeout)
    # the manager enforces the timeout; what is added is for the manager itself
    deadline = task.now + action.timeout + END_WAIT
    return Running(decision, task.cgroup, deadline, command_unit=name)


def command_unit(decision: Decision) -> str:
    """Return the name of the transient unit that the command of `decision` runs in."""
    # several units may be decided on at once, which their cgroups' numbers tell apart
    moment = f"{int(decision.at * 1000)}-{decision.invocation.cgroup_inode}"
    return f"unitmem-run-{decision.policy}-{decision.step + 1}-{moment}.service"


def verify(task: Task[Run], pending: Running) -> Outcome | Pending:
    name = pending.command_unit
    try:
        result = None if task.reachable is None else task.reachable.command_result(name)
    except NoSuchUnitError:
        return task.outcome(Result.FAILED, f"{name} is gone, and its result with it")
    except BusError:
        result = None
    if result == "success":
        return task.outcome(Result.VERIFIED, f"the command succeeded within {task.waited} ({name})")
    if result is None and task.now < pending.deadline:
        return pending
    unknown = f"how it ended is unknown after {task.waited}"
    what = unknown if result is None else f"its result is {result}"
    return task.outcome(Result.FAILED, f"{what}; see `journalctl -u {name}`")
