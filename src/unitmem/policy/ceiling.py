"""How much memory a unit may be charged for until a condition about it can become true.

Most conditions compare a part of memory.current with a size. While memory.current is below that size so is its part, and
the condition is known to be false without reading the part.
"""

from __future__ import annotations

from math import inf

from unitmem.kernel.limits import STAT_LAG
from unitmem.measure.catalogue import OPERANDS, Dimension, Scope, Trait
from unitmem.policy.condition import All, AnyOf, Comparison, Condition, Facts, Not, judge

_EXACT = frozenset({"current", "workingset", "unreclaimable"})
"""The measures that are computed from memory.current, and so are never above it."""


def has_ceiling(condition: Condition) -> bool:
    """Return whether there may be a memory.current below which `condition` is false, whatever else is."""
    match condition:
        case Comparison():
            return _is_part(condition)
        case All(terms):
            return any(map(has_ceiling, terms))
        case AnyOf(terms):
            return all(map(has_ceiling, terms))
        case Not():
            return False


def ceiling(condition: Condition, facts: Facts) -> float:
    """Return a size: `condition` is false while memory.current is less, and limits stay as they are; 0 is never."""
    match condition:
        case Comparison():
            return _ceiling_of(condition, facts)
        case All(terms):
            return max(ceiling(term, facts) for term in terms)
        case AnyOf(terms):
            return min(ceiling(term, facts) for term in terms)
        case Not():
            return 0.0


def distance(condition: Condition, facts: Facts) -> float:
    """Return by how many bytes a unit's memory has to grow until `condition` is true; infinite where that doesn't do it."""
    match condition:
        case Comparison() if _is_part(condition):
            value, threshold = facts.bounds(condition.measure), _threshold(condition, facts)
            return inf if value is None or threshold is None else max(0.0, threshold - value.high)
        case All(terms):
            return max(distance(term, facts) for term in terms)
        case AnyOf(terms):
            return min(distance(term, facts) for term in terms)
        case _:
            return 0.0 if judge(condition, facts).truth else inf


def _is_part(comparison: Comparison) -> bool:
    """Return whether a part of memory.current, or all of it, is compared with a size that doesn't depend on use."""
    measure = OPERANDS[comparison.measure]
    return (
        measure.scope is Scope.UNIT
        and measure.dimension is Dimension.SIZE
        and Trait.BOUNDED in measure.traits
        and comparison.derivation is None
        and comparison.operator in (">", ">=")
        and (comparison.of is None or Trait.FIXED in OPERANDS[comparison.of].traits)
    )


def _ceiling_of(comparison: Comparison, facts: Facts) -> float:
    if not _is_part(comparison):
        return 0.0
    threshold = _threshold(comparison, facts)
    if threshold is None:
        return 0.0
    return max(0.0, threshold if comparison.measure in _EXACT else threshold - STAT_LAG)


def _threshold(comparison: Comparison, facts: Facts) -> float | None:
    """Return the size that is compared with; None where what it is a share of is unknown."""
    if comparison.of is None:
        return comparison.threshold
    whole = facts.bounds(comparison.of)
    return whole.low * comparison.threshold / 100 if whole is not None and whole.low == whole.high else None
