"""Steps that end every unit of a policy at once, as their condition is true of all of them. Pure."""

from __future__ import annotations

from unitmem.measure.catalogue import OPERANDS, Scope, Trait
from unitmem.policy.condition import FILL, All, AnyOf, Comparison, Condition
from unitmem.policy.model import Policy, Step
from unitmem.simulate.thresholds import without_not
from unitmem.unit import is_glob


def hits_all(policy: Policy, step: Step) -> Condition | None:
    """Return the part of the step's condition that is true of many units at once, all of which it ends; else None."""
    if step.pick is not None or not step.action.ends_the_unit:
        return None
    if len(policy.units) == 1 and not is_glob(policy.units[0]):
        return None
    return _about_all(without_not(step.when))


def _about_all(condition: Condition) -> Condition | None:
    """Return `condition`, or the one of its alternatives that looks at nothing of a unit's own use."""
    match condition:
        case Comparison(measure=measure):
            is_shared = measure == FILL or OPERANDS[measure].scope in (Scope.HOST, Scope.SLICE)
            return condition if is_shared else None
        case AnyOf(terms):
            return next((found for term in terms if (found := _about_all(term)) is not None), None)
        case All(terms):
            varying = [term for term in terms if not _is_fixed(term)]
            return condition if varying and all(map(_about_all, varying)) else None
        case _:  # no `not` is left
            return None


def _is_fixed(term: Condition) -> bool:
    """Return whether `term` is about what doesn't depend on a unit's use, such as its age: few differ by that."""
    return isinstance(term, Comparison) and Trait.FIXED in OPERANDS[term.measure].traits
