"""Performing a decision, and following it until its effect is verified or its deadline has passed.

Right before it acts, `perform` checks that the invocation is the one that breached: the manager is asked
to act on the invocation rather than on the unit's name, the cgroup is addressed through the directory
that was sampled, and single processes are signalled through a pidfd after checking that they are still in
the unit. Nothing here waits: `perform` returns an `Outcome` where the effect is seen at once, and
otherwise a `Pending`, which `follow_up` checks at later ticks and turns into an outcome, so that a stop
that hangs delays nothing else. After the deadline the last resort is taken, if there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from unitmem.act import freezer, kill, reclaim, restart, run, set_properties, signal, stop
from unitmem.act.task import Pending, Task
from unitmem.errors import (
    BusError,
    BusLostError,
    InvocationGoneError,
    NoSuchUnitError,
    OutOfReachError,
    RefusedError,
)
from unitmem.kernel.cgroup import Cgroup, CgroupGoneError
from unitmem.manager.systemd import Manager
from unitmem.policy.action import Action
from unitmem.policy.actions import Freeze, Kill, Reclaim, Restart, Run, SetProperties, Signal, Stop, Thaw
from unitmem.policy.decision import Decision, Outcome, Override, Result


class Deed(Protocol):
    """A module that performs and verifies one action."""

    def perform(self, task: Task[Any]) -> Outcome | Pending:
        """Start the action; the caller turns exceptions into outcomes."""

    def verify(self, task: Task[Any], pending: Any) -> Outcome | Pending:
        """Check the action's effect; `pending` is what `perform`, or the last `verify`, returned."""


DEEDS: Mapping[type[Action], Deed] = {
    Thaw: freezer,
    Reclaim: reclaim,
    SetProperties: set_properties,
    Signal: signal,
    Run: run,
    Freeze: freezer,
    Restart: restart,
    Stop: stop,
    Kill: kill,
}


def perform(
    decision: Decision, cgroup: Cgroup, manager: Manager | None, now: float, override: Override | None = None
) -> Outcome | Pending:
    """Perform `decision`; the outcome says why, where that is refused or fails.

    Args:
        decision: the decision to perform.
        cgroup: the cgroup that was sampled for it.
        manager: the unit's manager; None while the bus is away.
        now: seconds of the decision's clock.
        override: for a `set`, what `prepare` gave.
    """
    action = decision.action
    task: Task[Any] = Task(decision, cgroup, manager, now, override)
    if decision.refusal is not None:
        return task.outcome(Result.REFUSED, decision.refusal.reason)
    if decision.observe:
        return task.outcome(Result.OBSERVED, "nothing was done: the policy only observes")
    if not action.acts:
        return task.outcome(Result.VERIFIED, "logged")
    try:
        task.check_cgroup()
        return DEEDS[type(action)].perform(task)
    except (InvocationGoneError, NoSuchUnitError, CgroupGoneError):
        detail = "it was stopped or restarted meanwhile, and a new run is left alone"
        return task.outcome(Result.GONE, detail)
    except OutOfReachError as error:
        return Outcome(decision, Result.FAILED, f"it can't be done: {error}", now, again=True, untried=True)
    except RefusedError as error:
        return task.refused(error)
    except BusLostError as error:
        if not action.is_harmless_twice:
            failed = task.outcome(Result.FAILED, f"whether it was done is not known: {error}")
        else:
            failed = task.outcome(Result.FAILED, f"it can't be done: {error}", again=True)
        return replace(failed, is_unknown=True)
    except (BusError, OSError) as error:
        return task.outcome(Result.FAILED, f"it can't be done: {error}", again=True)


def follow_up(
    pending: Pending, manager: Manager | None, now: float, *, observe: bool = False
) -> Outcome | Pending:
    """Check the effect of `pending`; after its deadline, take the last resort or report failure.

    With `observe`, as its policy acts no longer, what the manager could not be asked for yet is left undone.
    """
    task: Task[Any] = Task(pending.decision, pending.cgroup, manager, now)
    if observe and pending.unasked is not None and not pending.killed:
        detail = "it is not done any more: the policy only observes now, or is gone"
        # it is for the policy to refuse it, and not for the manager: `again`
        return Outcome(pending.decision, Result.FAILED, detail, now, again=True, untried=not pending.sent)
    try:
        after = DEEDS[type(pending.decision.action)].verify(task, pending)
    except CgroupGoneError:
        after = task.outcome(Result.GONE, "the unit ended before it was seen to work")
    if isinstance(after, Outcome) and pending.resumed:
        pending.cgroup.close()  # nobody else has it
        return replace(after, detail=f"{after.detail}; seen after a restart of unitmem")
    return after
