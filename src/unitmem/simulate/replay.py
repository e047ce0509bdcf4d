"""What a policy would have decided about samples of the past: the engine, and nothing else.

As with `watch --observe`, nothing is done, so the past goes on as it did. Processes are not in a
history, so whom a signal to the largest would have met is not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy.decision import Decision
from unitmem.policy.engine import evaluate
from unitmem.policy.model import PolicyFile, observing, wanted_measures
from unitmem.policy.state import State

NOT_RECORDED = "not in this history"


@dataclass(slots=True)
class Replayed:
    """What came of it, filled while `decisions` runs."""

    samples: int = 0
    first: float | None = None
    last: float | None = None


def decisions(file: PolicyFile, samples: Iterable[Sample], replayed: Replayed) -> Iterator[Decision]:
    """Every decision and near-decision, in the order of time, which is that of the samples."""
    policies = observing(file).policies
    wanted = sorted(wanted_measures(policies))
    state = State()
    for sample in samples:
        replayed.samples += 1
        replayed.first = sample.at if replayed.first is None else replayed.first
        replayed.last = sample.at
        units = {name: _with_reasons(unit, wanted) for name, unit in sample.units.items()}
        state, made = evaluate(policies, Sample(sample.at, units), state, sample.at, file.budget)
        yield from made


def _with_reasons(unit: UnitSample, wanted: Iterable[str]) -> UnitSample:
    missing = {
        name: NOT_RECORDED
        for name in wanted
        if name not in unit.values and name not in unit.at_most and name not in unit.unknown
    }
    return replace(unit, unknown={**unit.unknown, **missing}) if missing else unit
