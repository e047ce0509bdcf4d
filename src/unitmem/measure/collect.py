"""Sampling one unit: its cgroup, and its processes where a measure of processes is asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path

from unitmem.errors import reason_of
from unitmem.kernel.cgroup import Cgroup, CgroupGoneError
from unitmem.kernel.files import PROC_ROOT
from unitmem.kernel.host import Host
from unitmem.kernel.limits import Level
from unitmem.kernel.process import Process, ProcessGoneError, with_command, with_pss
from unitmem.kernel.processes import Pins, read_processes
from unitmem.measure.catalogue import (
    COUNTER_FILES,
    PROCESS_NAMES,
    SLICE_MEASURES,
    SLICE_PREFIX,
    UNIT_NAMES,
)
from unitmem.measure.formulas import Measured, process_values, unit_values
from unitmem.measure.sample import UnitSample
from unitmem.unit import Invocation, Unit, slice_path

_RECORDED = 10
_FEW = 50  # some 2 ms
_MEASURED_AT_MOST = 1 << 30  # some 15 ms
_SLICE_NAMES = frozenset(measure.name for measure in SLICE_MEASURES)

SliceValues = tuple[Mapping[str, float], Mapping[str, str]]
"""The (values, unknown) of a slice, by the names that they have for the units in it: `slice.anon`."""


# --- collecting --------------------------------------------------------------------------------


def collect(
    unit: Unit,
    cgroup: Cgroup,
    host: Host,
    wanted: Collection[str],
    proc: Path = PROC_ROOT,
    seen: MutableMapping[str, Level] | None = None,
    slices: MutableMapping[str, SliceValues] | None = None,
    at: float | None = None,
    pins: Pins | None = None,
) -> UnitSample:
    """Return a sample of `unit`, read through its open `cgroup`; processes are read if `wanted` asks for them.

    Args:
        unit: as its manager describes it.
        cgroup: its cgroup, open.
        host: the machine, read in the same tick.
        wanted: names of measures; for PSS, USS and SwapPss only bounds are read here, `resolve` reads the values.
        proc: where /proc is.
        seen: ancestors that were already read, as in `Cgroup.read`.
        slices: slices that were already read at this instant, by path, and are not read again; that of `unit` is added
            if `wanted` asks for it.
        at: the time by the monotonic clock, from which its age is counted; None leaves that unknown.
        pins: what keeps its processes pinned for `resolve`.

    Raises:
        CgroupGoneError: the unit stopped, or was started again.
    """
    reading = cgroup.read(COUNTER_FILES, seen)
    values, unknown = unit_values(reading, host)
    if asked := _SLICE_NAMES.intersection(wanted):
        known, missing = _slice_values(cgroup, host, {} if slices is None else slices)
        values |= {name: known[name] for name in asked if name in known}
        unknown |= {name: missing[name] for name in asked if name in missing}
    if at is not None and unit.up_since is not None:
        values["age"] = round(max(0.0, at - unit.up_since), 3)
        del unknown["age"]
    sample = UnitSample(
        unit=unit,
        invocation=Invocation(unit.name, unit.invocation_id, cgroup.inode),
        values=values,
        unknown=unknown,
        levels=reading.levels,
    )
    if PROCESS_NAMES.isdisjoint(wanted):
        return sample
    try:
        return with_processes(sample, read_processes(cgroup, proc, pins=pins))
    except CgroupGoneError:
        raise
    except OSError as error:
        return _without_processes(sample, f"not every process of it can be found: {reason_of(error)}")


def resolve(
    sample: UnitSample,
    proc: Path = PROC_ROOT,
    pins: Pins | None = None,
    is_enough: Callable[[UnitSample], bool] | None = None,
) -> UnitSample:
    """Return `sample` with PSS, USS and SwapPss of its processes that still run, the largest first, until that is enough.

    A sample without processes is returned unchanged.

    Args:
        sample: as `collect` returns it.
        proc: where /proc is.
        pins: what `collect` has pinned them with.
        is_enough: whether the bounds of a sample are enough, those of the processes that were not read being from RSS;
            None reads all.
    """
    if not sample.processes:
        return sample
    left = {process.pid: process for process in sample.processes}
    bounds = {pid: bound for pid, process in left.items() if (bound := process.pss_at_most) is not None}
    if len(bounds) < len(left) or any(process.unknown for process in sample.processes):
        is_enough = None  # what is unknown of one is unknown of their sum
    measured, most = Measured(), sum(bounds.values())
    by_size = sorted(left, key=lambda pid: bounds.get(pid, 0), reverse=True)
    for pid, following in zip(by_size, [*by_size[1:], None], strict=True):
        try:
            process = left[pid] if left[pid].unknown else _with_pss(left[pid], proc, pins)
        except ProcessGoneError:
            del left[pid]
            most -= bounds.get(pid, 0)
            continue
        left[pid] = process
        if process.unknown:
            is_enough = None
        if is_enough is not None and process.pss is not None and following is not None:
            measured.add(process)
            most += process.pss - bounds[pid]
            largest = max(measured.at_least["process.pss"], bounds[following])
            at_most = {"pss": most, "process.pss": largest}
            if is_enough(replace(sample, at_most=at_most, at_least=measured.at_least)):
                break
    if not left:  # what has taken their place was not listed
        return _without_processes(sample, "all its processes ended while they were read")
    return with_processes(sample, tuple(left.values()))


def _with_pss(process: Process, proc: Path, pins: Pins | None) -> Process:
    return with_pss(process, proc) if pins is None else pins.with_pss(process, proc)


def list_few(sample: UnitSample, cgroup: Cgroup, proc: Path = PROC_ROOT) -> UnitSample:
    """Return `sample` with the processes of its unit and their RSS, if they are few; no process waits for that."""
    try:
        if sample.processes or len(pids := cgroup.pids(proc)) > _FEW:
            return sample
        return replace(sample, processes=tuple(read_processes(cgroup, proc, pids)))
    except (CgroupGoneError, OSError):
        return sample


def measure_largest(sample: UnitSample, cgroup: Cgroup, proc: Path = PROC_ROOT) -> list[Process]:
    """Return the largest few processes of a unit with command lines, and with PSS unless reading it takes long.

    Values that `sample` already has are not read again; those of its processes that have ended are all that is known.
    """
    try:
        processes = sample.processes or tuple(read_processes(cgroup, proc))
    except (CgroupGoneError, OSError):
        return []
    by_size = sorted(processes, key=lambda process: process.held or 0, reverse=True)
    largest = [with_command(process, proc) for process in by_size[:_RECORDED]]
    if sum(process.rss or 0 for process in largest) > _MEASURED_AT_MOST:
        return largest
    measured = []
    for process in largest:
        try:
            known = process.pss is not None or process.unknown is not None
            measured.append(process if known else with_pss(process, proc))
        except ProcessGoneError:
            measured.append(process)
    return measured


def _slice_values(cgroup: Cgroup, host: Host, slices: MutableMapping[str, SliceValues]) -> SliceValues:
    """Return the measures of the slice around `cgroup`, which are read unless `slices` has them."""
    path = slice_path(cgroup.path)
    if path is None:
        return {}, dict.fromkeys(_SLICE_NAMES, "there is no slice around the root slice")
    if path not in slices:
        values: Mapping[str, float] = {}
        try:
            with Cgroup(path, cgroup.root) as around:
                values, unknown = unit_values(around.read(COUNTER_FILES), host)
        except CgroupGoneError:
            unknown = dict.fromkeys(UNIT_NAMES, "it was removed")
        except OSError as error:
            unknown = dict.fromkeys(UNIT_NAMES, reason_of(error))
        slices[path] = (
            {SLICE_PREFIX + name: value for name, value in values.items()},
            {SLICE_PREFIX + name: f"{path}: {reason}" for name, reason in unknown.items()},
        )
    return slices[path]


def _without_processes(sample: UnitSample, reason: str) -> UnitSample:
    values = {name: value for name, value in sample.values.items() if name not in PROCESS_NAMES}
    unknown = {**sample.unknown, **dict.fromkeys(PROCESS_NAMES, reason)}
    return replace(sample, processes=(), values=values, unknown=unknown, at_most={}, at_least={})


def with_processes(sample: UnitSample, processes: Sequence[Process]) -> UnitSample:
    """Return `sample` with the measures of `processes`, which are all of its unit, or bounds of them."""
    values, unknown, at_most = process_values(processes)
    kept = {name: reason for name, reason in sample.unknown.items() if name not in PROCESS_NAMES}
    return replace(
        sample,
        processes=tuple(processes),
        values={**sample.values, **values},
        unknown={**kept, **unknown},
        at_most=at_most,
        at_least=_at_least(processes) if at_most else {},
    )


def _at_least(processes: Iterable[Process]) -> Mapping[str, int]:
    measured = Measured()
    for process in processes:
        measured.add(process)
    return measured.at_least
