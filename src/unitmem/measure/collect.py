"""Sampling one unit: its cgroup, and its processes where a measure of processes is asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from unitmem.errors import reason_of
from unitmem.kernel.ancestors import Ancestors
from unitmem.kernel.cgroup import Cgroup, CgroupGoneError, Request
from unitmem.kernel.files import CGROUP_ROOT, PROC_ROOT, OpenFiles
from unitmem.kernel.host import Host
from unitmem.kernel.process import Process, ProcessGoneError, with_command, with_pss
from unitmem.kernel.processes import Pins, read_processes
from unitmem.measure.catalogue import (
    AGE,
    MEASURES,
    PROCESS_NAMES,
    SLICE_PREFIX,
    Measure,
    Scope,
    request_of,
)
from unitmem.measure.formulas import Measured, process_values, unit_values
from unitmem.measure.sample import UnitSample
from unitmem.unit import Invocation, Unit, slice_path

_RECORDED = 10
_FEW = 50  # some 2 ms
_MEASURED_AT_MOST = 1 << 30  # some 15 ms


class _Wanted(NamedTuple):
    """What measures that are wanted need to have read."""

    measures: tuple[Measure, ...]
    """Those that are computed from the cgroup."""
    request: Request
    of_slice: tuple[Measure, ...]
    """Those of the slice around it, by the names that the slice has for them."""
    slice_request: Request
    processes: bool
    age: bool

    @classmethod
    @lru_cache(maxsize=256)  # one for each set of policies that govern a unit
    def of(cls, names: frozenset[str]) -> _Wanted:
        own = [measure for name, measure in MEASURES.items() if name in names]
        of_cgroup = tuple(
            measure for measure in own if measure.scope is Scope.UNIT and measure.value is not None
        )
        of_slice = tuple(measure for name, measure in MEASURES.items() if SLICE_PREFIX + name in names)
        return cls(
            of_cgroup,
            request_of(of_cgroup),
            of_slice,
            request_of(of_slice),
            not PROCESS_NAMES.isdisjoint(names),
            AGE in names,
        )


SliceValues = tuple[Mapping[str, float], Mapping[str, str]]
"""The (values, unknown) of a slice, by the names that they have for the units in it: `slice.anon`."""


class Surroundings:
    """What is around the units that are read: at one instant each level and each slice is read once.

    Args:
        root: where cgroup v2 is mounted.
        kept: the files that are kept open from one instant to the next; None: none are.
    """

    def __init__(self, root: Path = CGROUP_ROOT, kept: OpenFiles | None = None) -> None:
        self.ancestors = Ancestors(root, kept)
        self._slices: dict[tuple[str, Request], SliceValues] = {}

    def begin(self) -> None:
        """Begin another instant."""
        self.ancestors.begin()
        self._slices.clear()

    def close(self) -> None:
        self.ancestors.close()

    def slice_values(self, path: str | None, host: Host, wanted: _Wanted) -> SliceValues:
        """Return the wanted measures of the slice at `path`, the nearest one around a unit."""
        if path is None:
            names = (SLICE_PREFIX + measure.name for measure in wanted.of_slice)
            return {}, dict.fromkeys(names, "there is no slice around the root slice")
        key = path, wanted.slice_request
        if key not in self._slices:
            self._slices[key] = self._read_slice(path, host, wanted)
        return self._slices[key]

    def _read_slice(self, path: str, host: Host, wanted: _Wanted) -> SliceValues:
        names = [measure.name for measure in wanted.of_slice]
        values: Mapping[str, float] = {}
        try:
            above = self.ancestors.levels(path) if wanted.slice_request.levels else ()
            with self.ancestors.opened(path) as around:
                reading = around.read(wanted.slice_request, above)
            values, unknown = unit_values(reading, host, wanted.of_slice)
        except CgroupGoneError:
            unknown = dict.fromkeys(names, "it was removed")
        except OSError as error:
            unknown = dict.fromkeys(names, reason_of(error))
        return (
            {SLICE_PREFIX + name: value for name, value in values.items()},
            {SLICE_PREFIX + name: f"{path}: {reason}" for name, reason in unknown.items()},
        )


# --- collecting --------------------------------------------------------------------------------


def collect(
    unit: Unit,
    cgroup: Cgroup,
    host: Host,
    wanted: Collection[str],
    proc: Path = PROC_ROOT,
    around: Surroundings | None = None,
    at: float | None = None,
    pins: Pins | None = None,
) -> UnitSample:
    """Return a sample of `unit` with the measures in `wanted`, read through its open `cgroup`.

    Args:
        unit: as its manager describes it.
        cgroup: its cgroup, open.
        host: the machine, read in the same tick.
        wanted: names of measures; files that none of them needs are not read. For PSS, USS and SwapPss only bounds are
            read here, `resolve` reads the values.
        proc: where /proc is.
        around: what is around the units, read at this instant; None for this unit alone.
        at: the time by the monotonic clock, from which its age is counted; None leaves that unknown.
        pins: what keeps its processes pinned for `resolve`.

    Raises:
        CgroupGoneError: the unit stopped, or was started again.
    """
    around = Surroundings(cgroup.root) if around is None else around
    asked = _Wanted.of(frozenset(wanted))
    above = around.ancestors.levels(cgroup.path) if asked.request.levels else ()
    reading = cgroup.read(asked.request, above)
    values, unknown = unit_values(reading, host, asked.measures)
    if asked.of_slice:
        known, missing = around.slice_values(slice_path(cgroup.path), host, asked)
        values |= known
        unknown |= missing
    if asked.age:
        if at is not None and unit.up_since is not None:
            values[AGE] = round(max(0.0, at - unit.up_since), 3)
        else:
            unknown[AGE] = MEASURES[AGE].absent or ""
    sample = UnitSample(
        unit=unit,
        invocation=Invocation(unit.name, unit.invocation_id, cgroup.inode),
        values=values,
        unknown=unknown,
        levels=reading.levels,
    )
    if not asked.processes:
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
