"""Decisions, obstacles, outcomes and overrides as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from unitmem.kernel.process import (
    Process,
)
from unitmem.measure.catalogue import Dimension
from unitmem.policy.action import Action
from unitmem.policy.condition import Finding
from unitmem.policy.journal_fields import DESCRIPTION_FIELD, POLICY_FIELD, STEP_FIELD, UNIT_FIELD
from unitmem.policy.model import step_number
from unitmem.unit import Invocation, titled


class Result(StrEnum):
    """The result of a decision."""

    VERIFIED = "verified"
    """It was performed, and its effect was verified."""
    FAILED = "failed"
    """It was not performed, or had no effect in time."""
    GONE = "gone"
    """The invocation or process had ended before; nothing was done."""
    OBSERVED = "observed"
    """It would have been performed, but the policy only observes."""
    REFUSED = "refused"
    """An obstacle forbids it: see its refusal."""


class Obstacle(StrEnum):
    """Why a step that is due doesn't act."""

    PROTECTED = "protected"
    COOLING_DOWN = "cooling down"
    REFUSED_BY_MANAGER = "refused by the manager"
    """The manager has refused that action for good, for this invocation."""
    OUT_OF_BUDGET = "out of budget"
    """The policy's budget is spent: that for this unit, or for all together if the policy picks."""
    OUT_OF_FILE_BUDGET = "out of the file's budget"
    """The budget for all policies and units together is spent."""
    NOT_PICKED = "not picked"
    """The step picks one unit at a time, and another one was picked; or it never picks this one."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The obstacle of one decision, with the reason."""

    obstacle: Obstacle
    reason: str
    """The reason, a clause that follows `since`."""
    until: float | None = None
    """The earliest end of the obstacle, by the clock of the sample; None if it doesn't end by itself."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The units among which one was picked."""

    by: str
    """What they are ranked by: `footprint`."""
    dimension: Dimension
    of: int
    """How many units there were."""
    first: tuple[tuple[str, float], ...]
    """The first ten units with their values, in the order in which they are picked; the first one was."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A value: do this action to this invocation, because of these findings."""

    at: float
    """The time of the sample, by the monotonic clock."""
    policy: str
    step: int
    """The step's index in its policy; `step_number` counts from 1."""
    action: Action
    invocation: Invocation
    held: float
    """Seconds for which the condition has held, as `for` counts them: those that ticks have credited."""
    hold: float
    """Seconds of the step's `for`."""
    findings: tuple[Finding, ...]
    """The comparisons that made the condition true, with their numbers."""
    observe: bool = False
    refusal: Refusal | None = None
    """The obstacle; None if it may be performed."""
    victim: Process | None = None
    """The largest process, where a finding is about a measure of processes."""
    ranking: Ranking | None = None
    """The units among which it was picked; None where the step doesn't pick."""
    content: str = ""
    """The unit's `Unit.content` then."""

    @property
    def key(self) -> DecisionKey:
        return self.policy, self.unit, self.step, self.at

    @property
    def unit(self) -> str:
        return self.invocation.unit

    @property
    def title(self) -> str:
        """The unit, as a message names it."""
        return titled(self.unit, self.content)

    @property
    def step_number(self) -> int:
        return step_number(self.step)

    @property
    def acts(self) -> bool:
        """Whether performing it does anything to the unit."""
        return self.refusal is None and not self.observe and self.action.acts


DecisionKey = tuple[str, str, int, float]
"""(policy, unit, step, time): a step fires once a tick for a unit."""


def gravest_first(decisions: Sequence[Decision]) -> list[Decision]:
    """Return `decisions` in the order to perform them: units by their gravest action, a unit's own as they were given.

    Before them come the units for which no manager is asked: one that hangs must not keep them waiting.
    """
    gravest: dict[str, int] = {}
    waiting: set[str] = set()
    for decision in decisions:
        if decision.acts:
            gravest[decision.unit] = max(gravest.get(decision.unit, 0), decision.action.severity)
            if decision.action.asks_manager:
                waiting.add(decision.unit)
    return sorted(
        decisions,
        key=lambda decision: (
            decision.unit in waiting or decision.unit not in gravest,
            -gravest.get(decision.unit, 0),
        ),
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a decision: its result, and what was done and seen."""

    decision: Decision
    result: Result
    detail: str
    """What was done and seen, a clause that follows the unit's name."""
    at: float
    again: bool = False
    """Whether the step may fire again while the condition holds."""
    untried: bool = False
    """Whether no action was attempted, so that it costs no budget."""
    is_unknown: bool = False
    """Whether it isn't known if it was requested at all, and so whether it is under way."""
    process: Process | None = None
    """The one process that was signalled."""


@dataclass(frozen=True, slots=True)
class Override:
    """The former values of properties that a policy has set, to be set back when its episode ends."""

    policy: str
    unit: str
    former: Mapping[str, int | None] = field(hash=False)
    """Bytes by property; None is infinity."""


@dataclass(frozen=True, slots=True)
class ActionProgress:
    """How far an action has come whose effect is not seen yet."""

    deadline: float
    killed: bool = False
    """Whether the last resort was taken."""
    refusal: str | None = None
    """What the manager said, where it refused the action for good, so that the last resort was taken at once."""
    processes: tuple[Process, ...] = ()
    """The processes that a signal has to end."""
    unasked: str | None = None
    """Why the manager could not be asked yet, though the last resort was taken."""
    sent: bool = False
    """Whether it was asked all the same and has not answered."""


@dataclass(frozen=True, slots=True)
class Intent:
    """A decision, from before it is performed until its outcome is reported."""

    decision: Decision
    realtime: float
    """When it was decided, by the wall clock."""
    begun: bool = False
    """Whether its action may have been requested; else it was not."""
    progress: ActionProgress | None = None
    """None until the request is made, and where its outcome was seen at once."""
    outcome: Outcome | None = None
    """The outcome, until it is reported; None while it isn't seen."""
    logged: bool = False
    """Whether the journal has the decision."""


def environment_of(decision: Decision) -> dict[str, str]:
    """Return the variables of a decision, for journal fields and for the environment of a `run`."""
    first = decision.findings[0] if decision.findings else None
    variables = {
        UNIT_FIELD: decision.unit,
        POLICY_FIELD: decision.policy,
        STEP_FIELD: str(decision.step_number),
        "UNITMEM_HELD_USEC": str(int(decision.held * 1_000_000)),
    }
    if decision.invocation.invocation_id is not None:
        variables["UNITMEM_INVOCATION_ID"] = decision.invocation.invocation_id
    if decision.content:
        variables[DESCRIPTION_FIELD] = decision.content
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
