"""The input of an action (`Task`), and an action whose effect is not seen yet (`Pending`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from unitmem.errors import InvocationGoneError, OutOfReachError, RefusedError
from unitmem.kernel.cgroup import Cgroup, CgroupGoneError
from unitmem.kernel.process import Process
from unitmem.manager.systemd import Manager
from unitmem.policy.action import Action
from unitmem.policy.decision import Decision, Outcome, Override, Result
from unitmem.text import format_span
from unitmem.unit import Unit

OVER = ("inactive", "failed")
"""Active states of a unit whose run has ended."""
_Action = TypeVar("_Action", bound=Action)


@dataclass(frozen=True, slots=True)
class Pending:
    """An action that is under way: its effect is not seen yet."""

    decision: Decision
    cgroup: Cgroup
    deadline: float
    killed: bool = False
    """Whether the last resort was taken."""
    refusal: str | None = None
    """What the manager said, where it refused the action for good, so that the last resort was taken at once."""
    unasked: str | None = None
    """Why the manager could not be asked yet, where there is a last resort that needs no manager."""
    sent: bool = False
    """Whether it was asked all the same and has not answered, so that it does that as soon as it goes on."""
    resumed: bool = False
    """Whether an earlier watch has performed it; see `resume`."""


@dataclass(frozen=True, slots=True)
class Task(Generic[_Action]):
    """A decision to perform or verify now, with its cgroup, manager and clock."""

    decision: Decision
    cgroup: Cgroup
    """The cgroup that was sampled for the decision."""
    reachable: Manager | None
    """The unit's manager; None while the bus is away."""
    now: float
    """Seconds of the decision's clock."""
    override: Override | None = None
    """The values that a `set` overrides; None for other actions."""

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
            BusLostError: its last call got no answer, and another one may time out as well.
        """
        if self.reachable is None:
            raise OutOfReachError("the service manager is out of reach")
        if self.reachable.lost is not None:
            raise self.reachable.lost
        return self.reachable

    @property
    def waited(self) -> str:
        """The time since the decision."""
        return format_span(self.now - self.decision.at)

    def unit_meant(self) -> Unit:
        """Return the unit as the manager describes it now, if it is still the invocation of the decision.

        Raises:
            InvocationGoneError, NoSuchUnitError: that invocation is over.
            BusError: the manager can't be asked.
        """
        unit = self.manager.describe(self.decision.unit)
        if unit.invocation_id != self.invocation_id or unit.active_state in OVER:
            raise InvocationGoneError(self.decision.unit)
        return unit

    def check_cgroup(self) -> None:
        """Raise an error if the cgroup is removed.

        Raises:
            CgroupGoneError: it is removed, so the unit has ended.
        """
        if not self.cgroup.exists():
            raise CgroupGoneError(self.cgroup.path)

    def pending(self, timeout: float) -> Pending:
        return Pending(self.decision, self.cgroup, self.now + timeout)

    def refused(self, error: RefusedError) -> Outcome:
        """Return the outcome of an action that the manager refuses for good, in its words; it costs no budget."""
        detail = f"the manager refuses it as the unit is configured: {error}"
        return Outcome(self.decision, Result.FAILED, detail, self.now, untried=True)

    def outcome(
        self, result: Result, detail: str, *, again: bool = False, process: Process | None = None
    ) -> Outcome:
        return Outcome(self.decision, result, detail, self.now, again=again, process=process)
