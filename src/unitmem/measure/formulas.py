"""Computing the value of every measure from readings, or the reason for which it is unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unitmem.kernel.cgroup import CgroupReading
from unitmem.kernel.host import Host
from unitmem.kernel.process import Process
from unitmem.measure.catalogue import (
    CGROUP_MEASURES,
    HOST_MEASURES,
    PROCESS_MEASURES,
    Measure,
    Scope,
    Trait,
)
from unitmem.measure.sample import NOT_READ, HostSample

_COSTLY = tuple(measure for measure in PROCESS_MEASURES if Trait.COSTLY in measure.traits)


def unit_values(
    reading: CgroupReading, host: Host, measures: Sequence[Measure] = CGROUP_MEASURES
) -> tuple[dict[str, float], dict[str, str]]:
    """Return (values, unknown) of `measures`, for which all that they need was read from a unit's cgroup."""
    values: dict[str, float] = {}
    unknown: dict[str, str] = {}
    host = _without_less_than(reading, host)
    for measure in measures:
        try:
            value = None if measure.value is None else measure.value(reading, host)
        except ValueError as error:
            unknown[measure.name] = str(error)
            continue
        if value is None:
            unknown[measure.name] = _why(measure, {**host.unknown, **reading.unknown})
        else:
            values[measure.name] = value
    return values, unknown


def _without_less_than(reading: CgroupReading, host: Host) -> Host:
    """Return `host`, or one of which nothing is known if a cgroup uses more than twice all its memory.

    In a container whose MemTotal is its limit, a cgroup may be above that: by a forced charge for a moment, and for
    longer after the limit was lowered.
    """
    currents = (reading.current, *(level.current for level in reading.levels))
    used = max((current for current in currents if current is not None), default=0)
    if host.total is None or used <= 2 * host.total:
        return host
    sizes = f"MemTotal is {host.total // 1024} kB, less than half of memory.current of a cgroup ({used // 1024} kB)"
    return Host(None, unknown={"/proc/meminfo": f"{sizes}, which can't be true"})


def host_values(host: Host) -> HostSample:
    """Return the measures of the machine."""
    nothing = CgroupReading("/", 0)
    known = {m.name: m.value(nothing, host) for m in HOST_MEASURES if m.value is not None}
    values = {name: value for name, value in known.items() if value is not None}
    unknown = {m.name: _why(m, host.unknown) for m in HOST_MEASURES if m.name not in values}
    return HostSample(values, unknown)


def _why(measure: Measure, unknown: Mapping[str, str]) -> str:
    """Return the reason for which `measure` has no value, given the files that can't be read."""
    reasons = [f"{file}: {unknown[file]}" for file in measure.files if file in unknown]
    return "; ".join(reasons) or measure.absent or f"{' or '.join(measure.files)} lacks it on this kernel"


def process_values(
    processes: Sequence[Process],
) -> tuple[dict[str, float], dict[str, str], dict[str, int]]:
    """Return (values, unknown, at_most) of the sums over all processes of a unit, and of the largest of them.

    One process that can't be read makes a sum unknown. Without any process, all are 0: so a list of processes that
    could not be read must not be passed as an empty one.
    """
    values: dict[str, float] = {}
    unknown: dict[str, str] = {}
    at_most: dict[str, int] = {}
    refused = [process for process in processes if process.unknown is not None]
    bounds = [bound for process in processes if (bound := process.pss_at_most) is not None]
    for measure in PROCESS_MEASURES:
        known = [size for process in processes if (size := getattr(process, measure.size)) is not None]
        if len(known) == len(processes):
            values[measure.name] = _aggregate(measure, known)
            continue
        reason = NOT_READ
        if refused:
            reason = f"{len(refused)} of {len(processes)} processes: {refused[0].unknown}"
        elif all(process.pss is not None for process in processes):
            reason = "smaps_rollup lacks it on this kernel"
        unknown[measure.name] = reason
        # not of USS: it counts huge pages, and RSS does not
        if measure.size == "pss" and not refused and len(bounds) == len(processes):
            most = _aggregate(measure, bounds)
            if measure.scope is Scope.LARGEST and max(known, default=None) == most:
                values[measure.name] = most
                del unknown[measure.name]
            else:
                at_most[measure.name] = most
    return values, unknown, at_most


class Measured:
    """Lower bounds of the sums over all processes of a unit, and of the largest, by those measured so far."""

    def __init__(self) -> None:
        self.at_least: dict[str, int] = {}

    def add(self, process: Process) -> None:
        for measure in _COSTLY:
            if (size := getattr(process, measure.size)) is not None:
                least = self.at_least.get(measure.name, 0)
                self.at_least[measure.name] = _aggregate(measure, (least, size))


def _aggregate(measure: Measure, sizes: Sequence[int]) -> int:
    return sum(sizes) if measure.scope is Scope.PROCESSES else max(sizes, default=0)
