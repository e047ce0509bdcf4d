"""What every action is performed with, and what is left of it while its effect is not seen yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from unitmem.errors import InvocationGoneError, OutOfReachError
from unitmem.kernel.cgroup import Cgroup, CgroupGoneError
from unitmem.kernel.process import Process
from unitmem.manager.systemd import Manager
from unitmem.policy.action import Action
from unitmem.policy.decision import Decision, Outcome, Override, Result
from unitmem.text import format_span
from unitmem.unit import Unit

OVER = ("inactive", "failed")
"""The states of a unit whose run has ended."""
_Action = TypeVar("_Action", bound=Action)


@dataclass(frozen=True, slots=True)
class Pending:
    """An action under way, whose effect is not seen yet."""

    decision: Decision
    cgroup: Cgroup
    deadline: float
    killed: bool = False
    """Whether the last resort was taken."""


@dataclass(frozen=True, slots=True)
class Task(Generic[_Action]):
    """A decision to be performed or verified now, with what that takes."""

    decision: Decision
    cgroup: Cgroup
    """The one that was sampled for it."""
    reachable: Manager | None
    """The unit's manager; None while the bus is away."""
    now: float
    """Seconds of the decision's clock."""
    override: Override | None = None
    """For a `set`, what has to be set back."""

    @property
    def action(self) -> _Action:
        return cast("_Action", self.decision.action)

    @property
    def invocation_id(self) -> str | None:
        return self.decision.invocation.invocation_id

    @property
    def manager(self) -> Manager:
        """The unit's manager.

        Raises:
            OutOfReachError: the bus is away.
        """
        if self.reachable is None:
            raise OutOfReachError("the service manager is out of reach")
        return self.reachable

    @property
    def waited(self) -> str:
        """The time since the decision."""
        return format_span(self.now - self.decision.at)

    def unit_meant(self) -> Unit:
        """The unit as its manager describes it now.

        Raises:
            InvocationGoneError, NoSuchUnitError: the run that is meant is over.
            BusError: it can't be asked.
        """
        unit = self.manager.describe(self.decision.unit)
        if unit.invocation_id != self.invocation_id or unit.active_state in OVER:
            raise InvocationGoneError(self.decision.unit)
        return unit

    def check_cgroup(self) -> None:
        """Do nothing while the cgroup exists.

        Raises:
            CgroupGoneError: it is removed, and the unit has ended.
        """
        if not self.cgroup.exists():
            raise CgroupGoneError(self.cgroup.path)

    def pending(self, timeout: float) -> Pending:
        return Pending(self.decision, self.cgroup, self.now + timeout)

    def outcome(
        self, result: Result, detail: str, *, again: bool = False, process: Process | None = None
    ) -> Outcome:
        return Outcome(self.decision, result, detail, self.now, again=again, process=process)
