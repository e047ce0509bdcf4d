"""What a `pick` ranks units by: a measure of their own use, or the slope of one."""

from __future__ import annotations

from unitmem.measure.catalogue import OPERANDS, Dimension, Scope
from unitmem.policy.condition import RANKS, SLOPES, Comparison
from unitmem.policyfile.expression import ConditionError, parse_subject


def parse_rank(text: str) -> Comparison:
    """Parse what units are ranked by; return the comparison with 0 of which it is the left side.

    Raises:
        ConditionError: units can't be ranked by `text`.
    """
    by = parse_subject(text)
    if by.derivation not in (None, *SLOPES):
        raise ConditionError(
            "units are ranked by a measure, growth or leak: write `growth(footprint, 10min)`", 0
        )
    if by.measure not in RANKS:
        why = f"{by.measure!r} {_no_rank(by.measure)}"
        raise ConditionError(f"{why}: rank by a measure of the unit's cgroup, such as `footprint`", 0)
    return by


def _no_rank(measure: str) -> str:
    """Return why units can't be ranked by `measure`, a clause that follows its name."""
    operand = OPERANDS[measure]
    match operand.scope:
        case Scope.HOST:
            return "is the same for every unit"
        case Scope.SLICE:
            return "is the same for all units in a slice"
        case Scope.PROCESSES | Scope.LARGEST:
            return "is a measure of processes, which takes too long to read of every unit"
        case _ if operand.dimension is Dimension.COUNT:
            return "counts events since the unit's start"
        case _:
            return "doesn't say what a unit uses"
