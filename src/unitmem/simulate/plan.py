"""What a policy file would do here and now: the units that match, the conditions that hold, and what a stop stops too.

Pure: the machine is a sample, and functions that answer questions about units.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from unitmem.kernel.limits import HOST_LEVEL
from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy.actions import Restart, Stop
from unitmem.policy.condition import Comparison, Verdict, comparisons, judge
from unitmem.policy.model import Pick, Policy, PolicyFile, Step
from unitmem.policy.picking import Candidate, ranked
from unitmem.policy.trends import NOT_YET_WATCHED, UnitFacts, extend
from unitmem.simulate.lint import impossible
from unitmem.simulate.shared_limit import shares_of_limit, slice_with_limit
from unitmem.unit import STARTED_BY, STOPPED_WITH, matches

Dependents = Callable[[str], Mapping[str, tuple[str, ...]]]
"""A function from a unit to the units that depend on it, by property; empty for a unit that isn't loaded."""


class Answers(NamedTuple):
    """The manager's answers about units, by name."""

    active: Callable[[str], bool]
    """Whether the unit is active."""
    dependents: Dependents
    refuses_stops: Callable[[str], bool]
    """Whether nobody can have the unit stopped."""


@dataclass(frozen=True, slots=True)
class Dependent:
    """A unit that depends on another one."""

    unit: str
    relation: str
    """The setting of the dependency: `BindsTo`."""
    to: str
    """The unit that the setting names."""

    def __str__(self) -> str:
        return f"{self.to} <- {self.unit} ({self.relation})"


class SharedLimit(NamedTuple):
    """A limit that a unit has from a slice, for all units in it together."""

    path: str
    """The path of the slice."""
    shares: tuple[Comparison, ...]
    """The comparisons with a share of it, by steps that don't look at what other units use."""


@dataclass(frozen=True, slots=True)
class UnitPlan:
    """The plan of one policy for one unit that it governs."""

    sample: UnitSample
    protected: str | None
    """The reason for which the policy doesn't touch it; None if it may."""
    verdicts: tuple[Verdict, ...]
    """The verdict on each step's condition now; none for a unit without a cgroup."""
    stopped_with: tuple[Dependent, ...] = ()
    """The active units that a stop would stop as well."""
    started_by: tuple[Dependent, ...] = ()
    """The active units that would start it again."""
    refuses_stops: bool = False
    """Whether a step would stop or restart it, which the manager refuses."""
    shared_limit: SharedLimit | None = None
    """The slice that sets its limit, if a step compares with a share of that."""


@dataclass(frozen=True, slots=True)
class Idle:
    """A policy or step that can't do anything here."""

    step: int | None
    """The index of the step; None for the whole policy."""
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PolicyPlan:
    """The plan of one policy for all units that it governs here."""

    policy: Policy
    units: tuple[UnitPlan, ...]
    idle: tuple[Idle, ...]


def plan(file: PolicyFile, machine: Sample, answers: Answers) -> tuple[PolicyPlan, ...]:
    """Return what each policy of `file` would do.

    Args:
        file: the policies.
        machine: every loaded unit that a pattern of the file matches, with the measures that the file needs.
        answers: what the manager says of units.
    """
    return tuple(_plan_policy(policy, machine, answers) for policy in file.policies)


def stopped_with(unit: str, dependents: Dependents) -> Iterator[Dependent]:
    """Yield every unit that a stop of `unit` stops as well: its dependents, theirs, and so on, the nearest first.

    A stop also passes through units that don't run, as in transaction.c of systemd.
    """
    seen = {unit}
    queue = deque([unit])
    while queue:
        name = queue.popleft()
        named = dependents(name)
        for relation, setting in STOPPED_WITH.items():
            for other in named.get(relation, ()):
                if other not in seen:
                    seen.add(other)
                    queue.append(other)
                    yield Dependent(other, setting, name)


def started_by(unit: str, dependents: Dependents) -> Iterator[Dependent]:
    """Yield every unit that would start `unit` again: its sockets, timers and the like."""
    named = dependents(unit)
    for relation, setting in STARTED_BY.items():
        for other in named.get(relation, ()):
            yield Dependent(other, setting, unit)


def pick_order(pick: Pick, units: Iterable[UnitPlan]) -> tuple[tuple[str, float], ...]:
    """Return (unit, value) of those that could be picked, in that order; none where `pick` ranks by a slope.

    ManagedOOMPreference= is not looked at.
    """
    if pick.by.function is not None:
        return ()
    able = [
        Candidate(unit.sample, HOST_LEVEL, unit.sample.values[pick.by.measure], 0)
        for unit in units
        if unit.protected is None and pick.by.measure in unit.sample.values
    ]
    return tuple((each.unit.name, each.value) for each in ranked(pick, able))


def _plan_policy(policy: Policy, machine: Sample, answers: Answers) -> PolicyPlan:
    units = tuple(
        _plan_unit(policy, machine, sample, answers)
        for sample in machine.units.values()
        if policy.governs(sample.unit)
    )
    return PolicyPlan(policy, units, tuple(_idle(policy, machine, units)))


def _plan_unit(policy: Policy, machine: Sample, sample: UnitSample, answers: Answers) -> UnitPlan:
    name = sample.unit.name
    protected = None if policy.unprotects(sample.unit) else sample.protected
    if sample.invocation is None:
        return UnitPlan(sample, protected, ())
    facts = _facts(policy, machine, sample)
    verdicts = tuple(judge(step.when, facts) for step in policy.steps)
    if protected is not None:
        return UnitPlan(sample, protected, verdicts)
    active, dependents = answers.active, answers.dependents
    taken = tuple(each for each in stopped_with(name, dependents) if active(each.unit))
    stopping = {each.unit for each in taken}
    # what stops with it starts nothing
    starting = (
        each for each in started_by(name, dependents) if active(each.unit) and each.unit not in stopping
    )
    would_stop = any(isinstance(step.action, Stop | Restart) for step in policy.steps)
    return UnitPlan(
        sample,
        protected,
        verdicts,
        taken,
        tuple(starting),
        would_stop and answers.refuses_stops(name),
        _shared_limit(policy, machine, sample),
    )


def _shared_limit(policy: Policy, machine: Sample, sample: UnitSample) -> SharedLimit | None:
    shares = tuple(term for step in policy.steps for term in shares_of_limit(step.when))
    path = slice_with_limit(sample, policy, machine) if shares else None
    return None if path is None else SharedLimit(path, shares)


def _facts(policy: Policy, machine: Sample, sample: UnitSample) -> UnitFacts:
    """Return the facts of a single sample: slopes are unknown, events are those since the unit's start at most."""
    asked = [comparison for step in policy.steps for comparison in comparisons(step.when)]
    return UnitFacts(sample, extend(None, sample, asked, now=0), 0, machine.host)


# --- what can't do anything here ---------------------------------------------------------------


def _idle(policy: Policy, machine: Sample, units: tuple[UnitPlan, ...]) -> Iterator[Idle]:
    """Yield the policy or the steps of it that can't do anything here, with the reasons."""
    running = [unit for unit in units if unit.sample.invocation is not None]
    if not units:
        matching = any(
            any(matches(name, policy.units) for name in sample.unit.names)
            for sample in machine.units.values()
        )
        reason = (
            "every loaded unit that matches is excluded" if matching else "no unit that matches is loaded now"
        )
        yield Idle(None, (reason,))
        return
    if not running:
        yield Idle(None, ("no unit that matches runs now",))
    for index, step in enumerate(policy.steps):
        never = impossible(step.when, policy, machine)
        unknown = _unknown(index, [unit for unit in running if _may_act(step, unit)])
        reasons = (*never, *_protected(step, units), *(() if never else unknown))
        if reasons:
            yield Idle(index, reasons)


def _may_act(step: Step, unit: UnitPlan) -> bool:
    return unit.protected is None or not step.action.acts


def _protected(step: Step, units: tuple[UnitPlan, ...]) -> Iterator[str]:
    if not any(_may_act(step, unit) for unit in units):
        yield "every unit that matches is protected"


def _unknown(index: int, running: list[UnitPlan]) -> Iterator[str]:
    """Yield the unknown measures because of which a step can't be judged for any of these units."""
    missing = [
        {
            name: why
            for finding in unit.verdicts[index].findings
            for name, why in finding.unknown.items()
            if why != NOT_YET_WATCHED
        }
        if unit.verdicts[index].truth is None
        else {}
        for unit in running
    ]
    if missing and all(missing):
        for name, why in {name: why for each in missing for name, why in each.items()}.items():
            yield f"{name} is unknown ({why})"
