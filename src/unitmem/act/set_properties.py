"""`set`: properties of the unit at run time; `overrides` sets them back."""

from __future__ import annotations

from unitmem.act.task import Pending, Task
from unitmem.errors import BusError, reason_of
from unitmem.kernel.process import PAGE_SIZE
from unitmem.policy.actions import END_WAIT, SetProperties, spell_property
from unitmem.policy.decision import Outcome, Result
from unitmem.text import format_size

_FILE_OF_PROPERTY = {
    "MemoryMin": "memory.min",
    "MemoryLow": "memory.low",
    "MemoryHigh": "memory.high",
    "MemoryMax": "memory.max",
    "MemorySwapMax": "memory.swap.max",
    "MemoryZSwapMax": "memory.zswap.max",
}


def perform(task: Task[SetProperties]) -> Outcome | Pending:
    if task.override is None and task.reachable is not None:
        raise BusError("what the properties are now can't be read, so nothing was set")
    task.manager.set_size_properties(task.decision.unit, dict(task.action.properties), task.invocation_id)
    return verify(task, task.pending(END_WAIT))


def verify(task: Task[SetProperties], pending: Pending) -> Outcome | Pending:
    """Check the kernel's files for the new values; systemd writes them shortly after it has replied."""
    task.check_cgroup()
    wrong = []
    for name, size in task.action.properties:
        try:
            effective = task.cgroup.limit(_FILE_OF_PROPERTY[name])
        except OSError as error:
            wrong.append(f"{_FILE_OF_PROPERTY[name]}: {reason_of(error)}")
            continue
        if effective != (None if size is None else size // PAGE_SIZE * PAGE_SIZE):
            wrong.append(f"{_FILE_OF_PROPERTY[name]} is {format_size(effective, missing='max')}")
    if not wrong:
        spelled = ", ".join(spell_property(name, size) for name, size in task.action.properties)
        return task.outcome(Result.VERIFIED, f"{spelled} is in force")
    if task.now < pending.deadline:
        return pending
    return task.outcome(Result.FAILED, f"the manager accepted it, but {', '.join(wrong)}")
