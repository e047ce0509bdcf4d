"""Thresholds so near to a limit that in a fast leak the kernel kills before anything is done. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from unitmem.measure.catalogue import OPERANDS, Trait
from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy.actions import SetProperties
from unitmem.policy.condition import FILL, All, AnyOf, Comparison, Condition
from unitmem.policy.model import Policy, Step
from unitmem.simulate.thresholds import without_not

NEAR = 98.0
"""The percentage of a limit from which on a threshold is near to it.

In a unit with 1 GiB, a leak of 200 MiB/s fills what is left between two looks, which are 100 ms apart at least;
a slower one does while the condition has to last.
"""


def near_limit_doubts(policy: Policy, step: Step, machine: Sample | None) -> Iterator[str]:
    """Yield the text of a warning if the step acts only where a comparison holds that is true only near a limit.

    Not where MemoryHigh= slows down what grows: by a step of the policy, or for all units of it here.

    Args:
        policy: the policy.
        step: one of its steps.
        machine: the units that it governs here; None where they can't be sampled.
    """
    is_slowed = any(
        isinstance(each.action, SetProperties) and "MemoryHigh" in dict(each.action.properties)
        for each in policy.steps
    )
    if is_slowed or not step.action.acts:
        return
    units = () if machine is None else machine.units.values()
    governed = [unit for unit in units if policy.governs(unit.unit) and "limit" in unit.values]
    if (near := _near(without_not(step.when), governed)) is not None:
        yield (
            f"a fast leak meets the limit before anything is done at `{near}`: take 90% of the limit or less, or set "
            "MemoryHigh= of the unit, which slows it down"
        )


def _near(condition: Condition, units: list[UnitSample]) -> Comparison | None:
    """Return a comparison near a limit that `condition` can't be true without."""
    match condition:
        case Comparison():
            return condition if any(NEAR <= share < 100 for share in _shares(condition, units)) else None
        case All(terms):
            return next((found for term in terms if (found := _near(term, units)) is not None), None)
        case AnyOf(terms):
            each = [_near(term, units) for term in terms]
            return each[0] if None not in each else None
        case _:  # no `not` is left
            return None


def _shares(term: Comparison, units: list[UnitSample]) -> Iterator[float]:
    """Yield the percentage of its limit that each unit has to use for `term`; only one where none is known here."""
    traits = OPERANDS[term.measure].traits
    is_of_use = Trait.BOUNDED in traits and Trait.CACHE not in traits
    if term.span is not None or not term.operator.startswith(">") or not (is_of_use or term.measure == FILL):
        return
    is_share = term.of in ("limit", "max") or term.measure == FILL
    if not units and is_share:
        yield term.threshold
    for unit in units:
        if "high" in unit.values:
            continue
        if is_share:
            yield term.threshold
        elif term.of is None and unit.values["limit"]:
            yield 100 * term.threshold / unit.values["limit"]
