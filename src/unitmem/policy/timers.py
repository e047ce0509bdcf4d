"""The phase of one step from look to look, and the time that is credited to its `for`."""

from __future__ import annotations

from dataclasses import replace

from unitmem.policy.condition import Verdict
from unitmem.policy.model import Step
from unitmem.policy.state import IDLE, Phase, StepState

_LONGEST_GAP = 60.0
"""Seconds without a look after which the credit of a shorter `for` starts over."""

INTERVALS_CREDITED = 2
"""The most intervals with which one look credits a `for`."""


def advance(
    step: Step, before: StepState, verdict: Verdict, now: float, interval: float
) -> tuple[StepState, bool]:
    """Return the step's state after `verdict`, and whether it is due to fire."""
    if verdict.truth is not True:
        # a fired step stays fired to the episode's end; its own clock starts over
        has_fired = before.phase is Phase.FIRED or before.fired_at is not None
        if verdict.truth is False and not has_fired and before.not_before is None:
            return IDLE, False
        phase = Phase.FIRED if before.phase is Phase.FIRED else Phase.IDLE
        unknown = {name: why for finding in verdict.findings for name, why in finding.unknown.items()}
        unknown = unknown if verdict.truth is None else {}
        after = StepState(phase, fired_at=before.fired_at, not_before=before.not_before, unknown=unknown)
        return after, False
    held = _credited(step, before, now, interval)
    # two looks, however far apart, may have met a spike each: it takes a third one, unless `for` asks for two
    is_proven = bool(before.held)
    if step.hold <= interval:
        is_proven = before.held is not None or not verdict.is_close
    is_due = held >= step.hold and is_proven and (before.not_before is None or now >= before.not_before)
    if before.phase is Phase.FIRED:
        is_again = step.repeat is not None and (
            before.fired_at is None or now - before.fired_at >= step.repeat
        )
        after = replace(before, held=held, looked_at=now, withheld=None, reported=None, unknown={})
        return after, is_due and is_again
    return StepState(Phase.HOLDING, held, now, before.fired_at, before.not_before), is_due


def _credited(step: Step, before: StepState, now: float, interval: float) -> float:
    """Return the seconds credited to a condition that holds now: only time in which somebody looked counts."""
    if before.held is None or before.looked_at is None:
        return 0.0
    most = INTERVALS_CREDITED * interval
    gap = now - before.looked_at
    return 0.0 if gap > max(step.hold, _LONGEST_GAP, most) else before.held + min(gap, most)
