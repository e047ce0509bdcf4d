"""What conditions need of a unit that is costly to read."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from unitmem.measure.catalogue import COSTLY_NAMES
from unitmem.measure.sample import NO_HOST, HostSample, UnitSample
from unitmem.policy.condition import Finding, comparisons, judge, truth_of
from unitmem.policy.engine import facts_about
from unitmem.policy.model import Policy
from unitmem.policy.state import State


class Need(Enum):
    """What conditions need of the costly measures (PSS, USS, SwapPss) of a unit."""

    NOTHING = auto()
    BOUNDS = auto()
    """Closer ones: those that are known leave a condition open."""
    VALUES = auto()
    """For a slope, or to name the number that is over a threshold."""


def costly_need(
    policies: Sequence[Policy], unit: UnitSample, state: State, now: float, host: HostSample = NO_HOST
) -> Need:
    """Return what the conditions of `policies` need of the costly measures of `unit`, given their bounds."""
    need = Need.NOTHING
    for policy in policies:
        if not policy.governs(unit.unit):
            continue
        facts = facts_about(unit, policy, state, now, host)
        for condition in policy.conditions:
            if any(
                comparison.function is not None and comparison.followed in COSTLY_NAMES
                for comparison in comparisons(condition)
            ):
                return Need.VALUES
            verdict = judge(condition, facts)
            for finding in verdict.findings:
                if verdict.truth is None and not COSTLY_NAMES.isdisjoint(finding.unknown):
                    need = Need.BOUNDS
                if verdict.truth and finding.comparison.measure in COSTLY_NAMES and _is_over(finding):
                    return Need.VALUES
    return need


def is_candidate(
    policies: Sequence[Policy], unit: UnitSample, state: State, now: float, host: HostSample = NO_HOST
) -> bool:
    """Return whether the condition of a step that picks one of the units for which it is due may hold for `unit` now.

    What looks over a span of time may: that this look changes it is found only when all units are judged.
    """
    return any(
        any(term.span is not None for term in comparisons(step.when))
        or truth_of(step.when, facts_about(unit, policy, state, now, host)) is not False
        for policy in policies
        if policy.governs(unit.unit)
        for step in policy.steps
        if step.pick is not None
    )


def _is_over(finding: Finding) -> bool:
    """Return whether a lower bound alone decides it."""
    return finding.value is None and finding.truth is (finding.comparison.operator in (">", ">="))
