"""The warning about a share of a limit that a slice has, for all units in it together."""

from __future__ import annotations

from collections.abc import Iterator

from unitmem.kernel.limits import HOST_LEVEL
from unitmem.measure.catalogue import OPERANDS, Scope, Trait
from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy.condition import Comparison, Condition, Derivation, comparisons
from unitmem.policy.model import Policy
from unitmem.simulate.thresholds import without_not
from unitmem.unit import Unit


def shared_limit_doubts(condition: Condition, policy: Policy, machine: Sample) -> Iterator[str]:
    """Yield the text of a warning for each share of a slice's limit, unless the condition looks at the slice too.

    Args:
        condition: a step's.
        policy: its policy.
        machine: the units that it governs here.
    """
    shared = (
        (unit.name, path)
        for unit in machine.units.values()
        if (path := slice_with_limit(unit, policy, machine)) is not None
    )
    terms = shares_of_limit(condition)
    unit, path = next(shared, (None, None)) if terms else (None, None)
    for term in terms if unit is not None else ():
        yield (
            f"`{term}` leaves out what other units use: the limit of {unit} is that of {path}, for all units "
            "in it together; compare `fill` too, such as `fill > 90%`"
        )


def shares_of_limit(condition: Condition) -> tuple[Comparison, ...]:
    """Return the comparisons of use with a share of `limit`; none if `condition` looks at what others use too."""
    terms = tuple(comparisons(without_not(condition)))
    if any(map(_is_about_levels, terms)):
        return ()
    return tuple(
        term
        for term in terms
        if term.of == "limit"
        and term.operator.startswith(">")
        and Trait.BOUNDED in OPERANDS[term.measure].traits
    )


def slice_with_limit(unit: UnitSample, policy: Policy, machine: Sample) -> str | None:
    """Return the path of the slice around `unit`, which `policy` governs, that sets its limit; None if none does.

    Nor of a slice that the policy governs itself: the condition is judged of all that is in it, too.
    """
    path = machine.limit_set_by(unit)
    # the root's is that of a container, in which it is what MemTotal is elsewhere
    if path in (None, HOST_LEVEL, "/") or path == unit.levels[0].path or not policy.governs(unit.unit):
        return None
    return None if policy.governs(Unit(path.rpartition("/")[2])) else path


def _is_about_levels(term: Comparison) -> bool:
    """Return whether `term` looks at what all units below a limit use together."""
    return (
        term.derivation is Derivation.ETA
        or term.measure in ("fill", "headroom")
        or OPERANDS[term.measure].scope is Scope.SLICE
    )
