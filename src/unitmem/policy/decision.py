"""Decisions and outcomes as values, and what stands in the way of a decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from unitmem.kernel.process import (
    Process,
)
from unitmem.measure.catalogue import Dimension
from unitmem.policy.action import Action
from unitmem.policy.condition import Finding
from unitmem.policy.model import step_number
from unitmem.unit import Invocation


class Result(StrEnum):
    """What became of a decision."""

    VERIFIED = "verified"
    """Performed, and seen to have had its effect."""
    FAILED = "failed"
    """Not performed, or without its effect."""
    GONE = "gone"
    """The invocation or process that it was meant for had ended by then; nothing was done."""
    OBSERVED = "observed"
    """It would have been performed, but the policy only observes."""
    REFUSED = "refused"
    """Performing it is not allowed: see its refusal."""


class Obstacle(StrEnum):
    """Why what is due is not done."""

    PROTECTED = "protected"
    COOLING_DOWN = "cooling down"
    OUT_OF_BUDGET = "out of budget"
    """The policy's budget for this unit is spent."""
    OUT_OF_FILE_BUDGET = "out of the file's budget"
    """The budget for all policies and units together is spent."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An obstacle in the way of one decision, with what makes it one."""

    obstacle: Obstacle
    reason: str
    """To follow `since`."""
    until: float | None = None
    """When it passes at the earliest, by the clock of the sample; None if it doesn't."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Do this to that invocation, because of these findings. A value: performing it comes later."""

    at: float
    """When, by the monotonic clock of the sample."""
    policy: str
    step: int
    """The step's index in its policy; `step_number` counts from 1."""
    action: Action
    invocation: Invocation
    held: float
    """Seconds for which the condition has held."""
    hold: float
    """Seconds that the step asks for."""
    findings: tuple[Finding, ...]
    """The comparisons that made the condition true, with their numbers."""
    observe: bool = False
    refusal: Refusal | None = None
    """Why it must not be performed; None if it may be."""
    victim: Process | None = None
    """The process that was measured to be the largest, where the findings speak of one."""

    @property
    def unit(self) -> str:
        return self.invocation.unit

    @property
    def step_number(self) -> int:
        return step_number(self.step)

    @property
    def acts(self) -> bool:
        """Whether performing it does anything to the unit."""
        return self.refusal is None and not self.observe and self.action.acts


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a decision."""

    decision: Decision
    result: Result
    detail: str
    """What was done and seen, to follow the unit's name in a sentence."""
    at: float
    again: bool = False
    """Whether it is worth another try while the condition holds."""
    untried: bool = False
    """Whether nothing was so much as asked for: that costs no budget."""
    process: Process | None = None
    """The one process that was signalled."""


@dataclass(frozen=True, slots=True)
class Override:
    """Properties that a policy has set, and what they were before: to be set back when its episode ends."""

    policy: str
    unit: str
    former: Mapping[str, int | None] = field(hash=False)
    """Bytes by property; None was infinity."""


# Of what is told about a decision, the three that `explain` reads back
UNIT_FIELD = "UNITMEM_UNIT"
POLICY_FIELD = "UNITMEM_POLICY"
STEP_FIELD = "UNITMEM_STEP"


def environment_of(decision: Decision) -> dict[str, str]:
    """The decision as variables: for journal fields, and for the environment of a `run`."""
    first = decision.findings[0] if decision.findings else None
    variables = {
        UNIT_FIELD: decision.unit,
        POLICY_FIELD: decision.policy,
        STEP_FIELD: str(decision.step_number),
        "UNITMEM_HELD_USEC": str(int(decision.held * 1_000_000)),
    }
    if decision.invocation.invocation_id is not None:
        variables["UNITMEM_INVOCATION_ID"] = decision.invocation.invocation_id
    if first is not None:
        variables["UNITMEM_MEASURE"] = first.comparison.subject
        variables["UNITMEM_CONDITION"] = str(first.comparison)
        if first.value is not None:
            variables["UNITMEM_VALUE"] = _number(first.value, first.comparison.dimension)
        if first.threshold is not None:
            variables["UNITMEM_THRESHOLD"] = _number(first.threshold, first.comparison.dimension)
    return variables


def _number(value: float, dimension: Dimension) -> str:
    # a share of a limit may end within a byte, which nobody who reads it can use
    return str(int(value)) if dimension is Dimension.SIZE or not value % 1 else f"{value:.10g}"
