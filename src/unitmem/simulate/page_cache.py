"""Comparisons that page cache alone makes true, although a healthy unit fills it up by reading files."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto

from unitmem.measure.catalogue import OPERANDS, Trait
from unitmem.policy.condition import All, AnyOf, Comparison, Condition, Not
from unitmem.simulate.thresholds import without_not


def page_cache_alone(condition: Condition) -> Iterator[Comparison]:
    """Yield the comparisons by which page cache alone makes `condition` true."""
    if _trigger(condition) is not _Trigger.PAGE_CACHE:
        return
    match condition:
        case Comparison():
            yield condition
        case All(terms) | AnyOf(terms):
            for term in terms:
                yield from page_cache_alone(term)


class _Trigger(Enum):
    """The cause by which a condition becomes true."""

    NOTHING = auto()
    """It is true of an idle unit."""
    PAGE_CACHE = auto()
    """Page cache is enough."""
    NEED = auto()
    """It takes memory that is in use, or a lack of memory."""


def _trigger(condition: Condition) -> _Trigger:
    match condition:
        case Comparison():
            return _trigger_of_comparison(condition)
        case Not():
            return _trigger(without_not(condition))
        case All(terms):
            triggers = {_trigger(term) for term in terms}
            return next(c for c in (_Trigger.NEED, _Trigger.PAGE_CACHE, _Trigger.NOTHING) if c in triggers)
        case AnyOf(terms):
            triggers = {_trigger(term) for term in terms}
            return next(c for c in (_Trigger.PAGE_CACHE, _Trigger.NOTHING, _Trigger.NEED) if c in triggers)


def _trigger_of_comparison(term: Comparison) -> _Trigger:
    rises, traits = term.operator.startswith(">"), OPERANDS[term.measure].traits
    if Trait.CACHE in traits:
        return _Trigger.PAGE_CACHE if rises else _Trigger.NOTHING
    if term.span is not None:
        return _Trigger.NEED
    if Trait.FIXED in traits:
        return _Trigger.NOTHING
    return _Trigger.NEED if rises is (Trait.SCARCE not in traits) else _Trigger.NOTHING
