"""What is said of one unit at one look: the verdict on a step, and the rank for a `pick`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isinf

from unitmem.measure.catalogue import OPERANDS, Trait
from unitmem.policy.condition import Verdict, comparisons, judge, truth_of
from unitmem.policy.model import Pick, Step
from unitmem.policy.state import StepState
from unitmem.policy.trends import UnitFacts

_FALSE = Verdict(False, ())


def is_close(step: Step, before: StepState, facts: UnitFacts) -> bool:
    """Return whether the condition of `step`, if it holds, has to at the next look as well before the step fires."""
    return (
        step.hold == 0
        and before.held is None
        and any(Trait.LAGGING in OPERANDS[term.measure].traits for term in comparisons(step.when))
        and truth_of(step.when, facts.with_lag()) is not True
    )


def verdict_on(step: Step, before: StepState, facts: UnitFacts) -> Verdict:
    """Return the verdict on a step's condition, without findings where it doesn't hold: nobody is told of these."""
    if truth_of(step.when, facts) is False:
        return _FALSE
    verdict = judge(step.when, facts)
    return replace(verdict, is_close=True) if verdict.truth and is_close(step, before, facts) else verdict


def rank_of(pick: Pick, facts: UnitFacts) -> tuple[float | None, Mapping[str, str]]:
    """Return the value by which a unit is ranked, or None and the reasons; the middle where a history has close bounds."""
    found = judge(pick.by, facts).findings[0]
    if found.value is None and pick.by.function is None:
        bounds = facts.bounds(pick.by.measure)
        if bounds is not None and not isinf(bounds.high):
            return (bounds.low + bounds.high) / 2, {}
    return found.value, found.unknown
