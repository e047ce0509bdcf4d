"""What a policy would have decided about recorded samples, by the engine alone.

As with `watch --observe`, nothing is done, so the recording goes on unchanged. A history has no processes, so the
target of a signal to the largest is not known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from unitmem.measure.sample import HostSample, Sample, UnitSample
from unitmem.policy.condition import Verdict, judge
from unitmem.policy.decision import Decision
from unitmem.policy.engine import evaluate, facts_about
from unitmem.policy.model import PolicyFile, observing
from unitmem.policy.state import State
from unitmem.policy.timers import INTERVALS_CREDITED

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

    @property
    def never(self) -> dict[str, str]:
        """A reason for each unit for which it was never known."""
        return {unit: why for unit, why in self.blind.items() if unit not in self.known}

    def add(self, verdicts: Mapping[str, Verdict]) -> None:
        """Count a sample; `verdicts` are by the units that match in it."""
        known = {unit for unit, verdict in verdicts.items() if verdict.truth is not None}
        self.known |= known
        for unit in verdicts.keys() - known:
            self.blind[unit] = "; ".join(map(str, verdicts[unit].findings))
        if known:
            self.judged += 1
        else:
            self.unknown[self.blind[min(verdicts)] if verdicts else _NO_UNIT] += 1


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


def decisions(file: PolicyFile, samples: Iterable[Sample], replayed: Replayed) -> Iterator[Decision]:
    """Yield every decision, withheld ones included, in the order of the samples, which must be that of time."""
    observed = observing(file)
    wanted = sorted(observed.measures)
    for policy in observed.policies:
        replayed.steps.update({(policy.name, index): Coverage() for index in range(len(policy.steps))})
    state = State()
    for recorded in samples:
        sample = _with_reasons(recorded, wanted)
        replayed.samples += 1
        if replayed.last is not None and sample.at - replayed.last > INTERVALS_CREDITED * file.interval:
            replayed.gaps += 1
        replayed.first = sample.at if replayed.first is None else replayed.first
        replayed.last = sample.at
        state, made = evaluate(observed, sample, state, sample.at)
        _cover(observed, sample, state, replayed)
        yield from made


def _cover(file: PolicyFile, sample: Sample, state: State, replayed: Replayed) -> None:
    """Count for each step whether it can be judged by `sample`, also where the engine had no need to."""
    for policy in file.policies:
        facts = {
            unit.name: facts_about(unit, policy, state, sample.at, sample.host)
            for unit in sample.units.values()
            if unit.invocation is not None and policy.governs(unit.unit)
        }
        for index, step in enumerate(policy.steps):
            verdicts = {unit: judge(step.when, known) for unit, known in facts.items()}
            replayed.steps[policy.name, index].add(verdicts)


def _with_reasons(sample: Sample, wanted: Iterable[str]) -> Sample:
    of_host = [name for name in wanted if name.startswith("host.")]
    of_units = [name for name in wanted if not name.startswith("host.")]
    host = replace(sample.host, unknown=_reasons(sample.host, of_host))
    units = {
        name: replace(unit, unknown=_reasons(unit, of_units, unit.at_most))
        for name, unit in sample.units.items()
    }
    return replace(sample, units=units, host=host)


def _reasons(
    part: UnitSample | HostSample, wanted: Iterable[str], bounded: Collection[str] = ()
) -> Mapping[str, str]:
    """Return the reasons why measures are unknown, including those that were not recorded."""
    missing = [name for name in wanted if name not in part.values and name not in bounded]
    return {**dict.fromkeys(missing, NOT_RECORDED), **part.unknown}
