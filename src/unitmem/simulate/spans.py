"""Slopes over spans so short that what goes up and down within a day looks like a leak."""

from __future__ import annotations

from collections.abc import Iterator

from unitmem.measure.catalogue import OPERANDS, Trait
from unitmem.policy.condition import AnyOf, Comparison, Condition, Derivation, Not, comparisons

_DAY = 86400.0


def short_slopes(condition: Condition) -> Iterator[Comparison]:
    """Yield each growth or leak over less than a day by which `condition` becomes true without a level beside it."""
    match condition:
        case AnyOf(terms):
            for term in terms:
                yield from short_slopes(term)
        case Not():
            return
        case _:
            together = list(comparisons(condition))
            short = [term for term in together if _is_short(term)]
            if all(term in short or Trait.FIXED in OPERANDS[term.measure].traits for term in together):
                yield from short


def _is_short(term: Comparison) -> bool:
    is_slope = term.derivation in (Derivation.GROWTH, Derivation.LEAK)
    return is_slope and term.operator.startswith(">") and term.span is not None and term.span < _DAY
