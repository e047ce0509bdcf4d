"""What a policy would have decided about recorded samples, by the engine alone.

As with `watch --observe`, nothing is done, so the recording goes on unchanged. A history has no processes, so the
target of a signal to the largest is not known.

Of many values a history has bounds alone. A condition that these don't decide is open: it fires nothing, and that is
counted, since the values themselves may have fired it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from unitmem.measure.catalogue import AGE
from unitmem.measure.sample import THINNED, HostSample, Sample, UnitSample
from unitmem.policy.condition import Verdict, measures_of
from unitmem.policy.decision import Decision, Obstacle
from unitmem.policy.engine import evaluate
from unitmem.policy.model import Policy, PolicyFile, observing
from unitmem.policy.state import LadderKey, State, restart_timers, step_state
from unitmem.policy.timers import INTERVALS_CREDITED
from unitmem.unit import Unit

NOT_RECORDED = "not in this history"
_NO_UNIT = "no unit that matches"


@dataclass(slots=True)
class Coverage:
    """How often a step could be judged by the samples."""

    judged: int = 0
    """The samples in which it was known for at least one unit whether its condition holds."""
    known: set[str] = field(default_factory=set)
    """The units for which it was known at least once."""
    unknown: Counter[str] = field(default_factory=Counter)
    """The samples in which it was known for no unit, by the reason."""
    blind: dict[str, str] = field(default_factory=dict)
    """A reason for each unit for which it was unknown at least once."""
    open: int = 0
    """The samples in which it was left open for a unit, as the history has bounds alone, or nothing, of what there was."""
    left_open: dict[str, str] = field(default_factory=dict)
    """A reason for each unit for which it was left open at least once."""

    picked: Counter[str] = field(default_factory=Counter)
    """How often each unit was picked, if the step picks."""
    not_picked: Counter[str] = field(default_factory=Counter)
    """The samples in which the step was due for a unit, or soon would have been, and another one was picked."""

    @property
    def never(self) -> dict[str, str]:
        """A reason for each unit for which it was never known."""
        return {unit: why for unit, why in self.blind.items() if unit not in self.known}

    def add(self, known: Collection[str], unknown: Collection[str], left_open: Mapping[str, str]) -> None:
        """Count a sample, given the units that match in it, and reasons for those for which it is left open."""
        self.open += bool(left_open)
        self.left_open |= left_open
        if known:
            self.judged += 1
        else:
            self.unknown[self.blind[min(unknown)] if unknown else _NO_UNIT] += 1


@dataclass(slots=True)
class Replayed:
    """The result of a replay, which `decisions` fills while it runs."""

    samples: int = 0
    first: float | None = None
    last: float | None = None
    steps: dict[tuple[str, int], Coverage] = field(default_factory=dict)
    """By policy and index of the step."""
    gaps: int = 0
    """How often two samples are further apart than a tick credits to `for`."""

    @property
    def is_sparse(self) -> bool:
        """Whether most samples are so far apart that a `for` is credited with less time than has passed."""
        return 2 * self.gaps > self.samples

    @property
    def is_blind(self) -> bool:
        """Whether some step could be judged in no sample."""
        return not all(coverage.judged for coverage in self.steps.values())

    @property
    def is_open(self) -> bool:
        """Whether something more may have been done, as a condition was left open."""
        return any(coverage.open for coverage in self.steps.values())


def decisions(file: PolicyFile, samples: Iterable[Sample], replayed: Replayed) -> Iterator[Decision]:
    """Yield every decision, withheld ones included, in the order of the samples, which must be that of time."""
    observed = observing(file)
    for policy in observed.policies:
        replayed.steps.update({(policy.name, index): Coverage() for index in range(len(policy.steps))})
    state = State()
    reasons, counting = _Reasons(observed.measures), _Counting(observed, replayed)
    for recorded in samples:
        sample = reasons.added_to(recorded)
        replayed.samples += 1
        if replayed.last is not None and sample.at - replayed.last > INTERVALS_CREDITED * file.interval:
            replayed.gaps += 1
        replayed.first = sample.at if replayed.first is None else replayed.first
        replayed.last = sample.at
        if sample.is_resumed:
            state = restart_timers(state)
        judged: dict[LadderKey, Sequence[Verdict]] = {}
        state, made = evaluate(observed, sample, state, sample.at, judged=judged)
        counting.count(sample, judged, state)
        for decision in made:
            if decision.ranking is not None:
                replayed.steps[decision.policy, decision.step].picked[decision.unit] += 1
        yield from made


@dataclass(slots=True)
class _Tally:
    """The units for which a step was judged, and what came of it; of a unit at rest, when it was."""

    known: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    left_open: dict[str, str] = field(default_factory=dict)

    def remove(self, unit: str) -> None:
        self.known.discard(unit)
        self.unknown.discard(unit)
        self.left_open.pop(unit, None)


class _Counting:
    """Counts for each step whether it can be judged by a sample, also where the engine had no need to."""

    def __init__(self, file: PolicyFile, replayed: Replayed) -> None:
        self._file = file
        self._steps = replayed.steps
        self._judged = {step: _Tally() for step in replayed.steps}

    def count(self, sample: Sample, judged: Mapping[LadderKey, Sequence[Verdict]], state: State) -> None:
        for each in self._judged.values():
            for unit in (each.known | each.unknown) - state.resting.units.keys():
                each.remove(unit)
        for (name, unit), verdicts in judged.items():
            ladder = state.ladders.get((name, unit))
            for index, verdict in enumerate(verdicts):
                self._note(name, index, unit, verdict, sample)
                withheld = step_state(ladder, index).withheld
                if withheld is not None and withheld.obstacle is Obstacle.NOT_PICKED:
                    self._steps[name, index].not_picked[unit] += 1
        thinned = {policy.name: _thinned(policy, sample) for policy in self._file.policies}
        for step, coverage in self._steps.items():
            each = self._judged[step]
            coverage.add(each.known, each.unknown, thinned[step[0]] | each.left_open)

    def _note(self, policy: str, index: int, unit: str, verdict: Verdict, sample: Sample) -> None:
        judged, coverage = self._judged[policy, index], self._steps[policy, index]
        judged.remove(unit)
        if verdict.truth is not None:
            judged.known.add(unit)
            coverage.known.add(unit)
            return
        judged.unknown.add(unit)
        coverage.blind[unit] = "; ".join(map(str, verdict.findings))
        if (why := _why_open(verdict, sample, unit)) is not None:
            judged.left_open[unit] = why


def _thinned(policy: Policy, sample: Sample) -> dict[str, str]:
    return {unit: THINNED for unit in sample.thinned if policy.governs(Unit(unit))}


def _why_open(verdict: Verdict, sample: Sample, unit: str) -> str | None:
    """Return why bounds alone leave open what `verdict`, an unknown one, is about; None if they don't."""
    bounded = sample.units[unit].at_least.keys() | sample.host.at_least.keys()
    for finding in verdict.findings:
        if finding.truth is None and not bounded.isdisjoint(measures_of(finding.comparison)):
            return str(finding)
    return None


class _Reasons:
    """Adds the reasons why measures are unknown that were not recorded; a unit that is the same stays the same."""

    def __init__(self, wanted: frozenset[str]) -> None:
        self._of_host = {name for name in wanted if name.startswith("host.")}
        self._of_units = wanted - self._of_host
        self._before: Mapping[str, UnitSample] = {}
        self._after: dict[str, UnitSample] = {}

    def added_to(self, sample: Sample) -> Sample:
        host = replace(sample.host, unknown=_reasons(sample.host, self._of_host, sample.host.at_most))
        before, after = self._before, self._after
        self._after = {
            name: after[name] if before.get(name) is unit else self._added_to(unit)
            for name, unit in sample.units.items()
        }
        self._before = sample.units
        return replace(sample, units=self._after, host=host)

    def _added_to(self, unit: UnitSample) -> UnitSample:
        known = unit.values.keys() if unit.unit.up_since is None else {*unit.values, AGE}
        if self._of_units <= known:
            return unit
        return replace(unit, unknown=_reasons(unit, self._of_units - known, unit.at_most))


def _reasons(
    part: UnitSample | HostSample, wanted: Iterable[str], bounded: Collection[str] = ()
) -> Mapping[str, str]:
    """Return the reasons why measures are unknown, including those that were not recorded."""
    missing = [name for name in wanted if name not in part.values and name not in bounded]
    return {**dict.fromkeys(missing, NOT_RECORDED), **part.unknown}
