"""The warning about a share of a limit that a slice has, for all units in it together."""

from __future__ import annotations

from collections.abc import Iterator

from unitmem.kernel.limits import HOST_LEVEL
from unitmem.measure.catalogue import OPERANDS, Scope, Trait
from unitmem.measure.sample import Sample
from unitmem.policy.condition import Comparison, Condition, Derivation, comparisons
from unitmem.policy.model import Policy
from unitmem.unit import Unit


def shared_limit_doubts(condition: Condition, policy: Policy, machine: Sample) -> Iterator[str]:
    """Yield the text of a warning for each share of a slice's limit, unless the condition looks at the slice too.

    Args:
        condition: a step's, without `not`.
        policy: its policy.
        machine: the units that it governs here.
    """
    terms = list(comparisons(condition))
    shared = next(_shared_limits(policy, machine), None)
    if shared is None or any(map(_is_about_levels, terms)):
        return
    unit, path = shared
    for term in terms:
        is_bounded = Trait.BOUNDED in OPERANDS[term.measure].traits
        if term.of == "limit" and term.operator.startswith(">") and is_bounded:
            yield (
                f"`{term}` leaves out what other units use: the limit of {unit} is that of {path}, for all units "
                "in it together; compare `fill` too, such as `fill > 90%`"
            )


def _shared_limits(policy: Policy, machine: Sample) -> Iterator[tuple[str, str]]:
    """Yield (unit, path of the slice) for each unit of `policy` here whose limit is set by a slice around it.

    A slice that the policy governs itself is left out: the condition is judged of all that is in it, too.
    """
    for sample in machine.units.values():
        path = machine.limit_set_by(sample)
        # the root's is that of a container, in which it is what MemTotal is elsewhere
        if (
            path in (None, HOST_LEVEL, "/")
            or path == sample.levels[0].path
            or not policy.governs(sample.unit)
        ):
            continue
        if not policy.governs(Unit(path.rpartition("/")[2])):
            yield sample.name, path


def _is_about_levels(term: Comparison) -> bool:
    """Return whether `term` looks at what all units below a limit use together."""
    return (
        term.derivation is Derivation.ETA
        or term.measure in ("fill", "headroom")
        or OPERANDS[term.measure].scope is Scope.SLICE
    )
