"""Taking up an action of an earlier watch, which ended before it saw the outcome."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from unitmem.act.perform import perform
from unitmem.act.run import Running, command_unit
from unitmem.act.signal import Signalled
from unitmem.act.task import Pending
from unitmem.errors import BusError, BusLostError, NoSuchUnitError
from unitmem.kernel.cgroup import Cgroup, CgroupGoneError
from unitmem.manager.systemd import Manager
from unitmem.policy.actions import END_WAIT, Kill, Reclaim, Restart, Run, SetProperties, Signal, Stop
from unitmem.policy.decision import ActionProgress, Decision, Intent, Outcome, Result
from unitmem.unit import Invocation

_ENDED = "unitmem ended before it saw the outcome"
_LATE = 60.0
"""Seconds after its deadline until which an action still takes its last resort."""


class _Removed(Cgroup):
    """The cgroup of a run that is over."""

    def __init__(self, path: str, root: Path) -> None:
        self.path, self.root, self.inode = path, root, 0
        self._fd, self._files = -1, {}

    def exists(self) -> bool:
        return False


def progress_of(pending: Pending) -> ActionProgress:
    """Return what `resume` needs to know about `pending`."""
    processes = pending.processes if isinstance(pending, Signalled) else ()
    return ActionProgress(
        pending.deadline, pending.killed, pending.refusal, processes, pending.unasked, pending.sent
    )


def resume(
    intent: Intent, manager: Manager, root: Path, now: float, *, observe: bool = False
) -> Outcome | Pending | None:
    """Return the outcome of `intent` if it is known, or the action to follow; None if the unit can't be looked at yet.

    Nothing is requested here, least of all again. What may have been requested, and has had no effect, has failed.

    Args:
        intent: as the earlier watch has left it.
        manager: the unit's manager.
        root: where cgroups are.
        now: seconds of the decision's clock.
        observe: whether nothing may be done any more, so that there is no last resort.
    """
    decision = intent.decision
    progress = intent.progress or ActionProgress(decision.at + _time_allowed(decision))
    # long after it, the reason for a last resort is gone too: whoever needs one has the step fire anew
    observe = observe or now > progress.deadline + _LATE
    if observe and isinstance(decision.action, Signal | Stop | Restart):
        decision = replace(decision, action=replace(decision.action, otherwise=None))
    if intent.outcome is not None:
        return intent.outcome
    if not decision.acts:
        return perform(decision, _Removed("/", root), manager, now)
    if not intent.begun:
        return Outcome(decision, Result.FAILED, "unitmem ended before it was requested", now, again=True)
    if isinstance(decision.action, Reclaim):
        # the kernel has stopped it, as the process that asked for it is gone
        return Outcome(decision, Result.FAILED, _ENDED, now)
    if isinstance(decision.action, Signal) and intent.progress is None:
        return Outcome(decision, Result.FAILED, f"{_ENDED}: whether it was sent is unknown", now)
    try:
        return _follow(decision, progress, manager, root, now, is_requested=intent.progress is not None)
    except BusLostError:
        return None
    except (BusError, OSError) as error:
        if now < progress.deadline:
            return None
        return Outcome(decision, Result.FAILED, f"{_ENDED}, which can't be seen now: {error}", now)


def _follow(
    decision: Decision,
    progress: ActionProgress,
    manager: Manager,
    root: Path,
    now: float,
    *,
    is_requested: bool,
) -> Outcome | Pending:
    cgroup, is_ending = _look_at(decision.invocation, manager, root)
    followed = (
        decision,
        cgroup,
        progress.deadline,
        progress.killed,
        progress.refusal,
        progress.unasked,
        progress.sent,
    )
    match decision.action:
        case Signal():
            return Signalled(*followed, resumed=True, processes=progress.processes)
        case Run():
            return Running(*followed, resumed=True, command_unit=command_unit(decision))
        case Stop() | Restart() | Kill() if not is_requested and cgroup.exists() and not is_ending:
            cgroup.close()
            detail = f"{_ENDED}: whether it was requested is unknown, and the unit still runs"
            return Outcome(decision, Result.FAILED, detail, now, again=True, is_unknown=True)
        case _:
            return Pending(*followed, resumed=True)


def _look_at(invocation: Invocation, manager: Manager, root: Path) -> tuple[Cgroup, bool]:
    """Return the cgroup of that run, as removed if the run is over, and whether the manager is ending it.

    Raises:
        BusError: the manager can't say.
        OSError: the cgroup can't be opened.
    """
    try:
        unit = manager.describe(invocation.unit)
    except NoSuchUnitError:
        return _Removed(invocation.unit, root), False
    path = unit.control_group
    if path is None or unit.invocation_id != invocation.invocation_id:
        return _Removed(path or invocation.unit, root), False
    try:
        cgroup = Cgroup(path, root)
    except CgroupGoneError:
        return _Removed(path, root), False
    if cgroup.inode != invocation.cgroup_inode:
        cgroup.close()
        return _Removed(path, root), False
    return cgroup, unit.active_state == "deactivating"


def _time_allowed(decision: Decision) -> float:
    """Return the seconds from the decision within which its effect is expected."""
    action = decision.action
    return END_WAIT if isinstance(action, SetProperties) else float(getattr(action, "timeout", END_WAIT))
