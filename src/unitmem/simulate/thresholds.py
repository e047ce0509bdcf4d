"""Comparisons as thresholds: which of two is met first, and whether both can be met at once. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from unitmem.policy.condition import All, AnyOf, Comparison, Condition, Not, comparisons

_OPPOSITE = {">": "<=", ">=": "<", "<": ">=", "<=": ">"}


def without_not(condition: Condition, *, negated: bool = False) -> Condition:
    """Return `condition`, or its opposite if `negated`, in comparisons, `and` and `or` alone."""
    match condition:
        case Comparison():
            return replace(condition, operator=_OPPOSITE[condition.operator]) if negated else condition
        case Not(term):
            return without_not(term, negated=not negated)
        case All(terms) | AnyOf(terms):
            joined = tuple(without_not(term, negated=negated) for term in terms)
            return All(joined) if isinstance(condition, All) is not negated else AnyOf(joined)


class Rung(NamedTuple):
    """The place of a comparison on a ladder."""

    measured: Comparison
    """The comparison without operator and threshold."""
    rises: bool
    """Whether the value has to rise to meet it."""
    height: float
    """A number by which comparisons are ordered: the greater, the later it is met."""

    @property
    def subject(self) -> tuple[Comparison, bool]:
        return self.measured, self.rises


def rung_of(condition: Condition) -> Rung | None:
    """Return the place of `condition` on a ladder; None where it is more than one comparison."""
    term = without_not(condition)
    if not isinstance(term, Comparison):
        return None
    rises = term.operator.startswith(">")
    return Rung(replace(term, operator="", threshold=0), rises, term.threshold if rises else -term.threshold)


def exclude_each_other(one: Condition, other: Condition) -> bool:
    """Return whether a comparison of each is about the same measure, and no value satisfies both."""
    rungs, others = (
        [rung for term in comparisons(without_not(condition)) if (rung := rung_of(term)) is not None]
        for condition in (one, other)
    )
    return any(
        rung.measured == another.measured
        and rung.rises is not another.rises
        and rung.height >= -another.height
        for rung in rungs
        for another in others
    )
