"""What a policy would have decided about recorded samples, by the engine alone.

As with `watch --observe`, nothing is done, so the recording goes on unchanged. A history has no processes, so the
target of a signal to the largest is not known.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from unitmem.measure.sample import HostSample, Sample, UnitSample
from unitmem.policy.decision import Decision
from unitmem.policy.engine import evaluate
from unitmem.policy.model import PolicyFile, observing
from unitmem.policy.state import State

NOT_RECORDED = "not in this history"


@dataclass(slots=True)
class Replayed:
    """The result of a replay, which `decisions` fills while it runs."""

    samples: int = 0
    first: float | None = None
    last: float | None = None


def decisions(file: PolicyFile, samples: Iterable[Sample], replayed: Replayed) -> Iterator[Decision]:
    """Yield every decision, withheld ones included, in the order of the samples, which must be that of time."""
    observed = observing(file)
    wanted = sorted(observed.measures)
    state = State()
    for sample in samples:
        replayed.samples += 1
        replayed.first = sample.at if replayed.first is None else replayed.first
        replayed.last = sample.at
        state, made = evaluate(observed, _with_reasons(sample, wanted), state, sample.at)
        yield from made


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
