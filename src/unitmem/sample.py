"""Every measure of a unit at one instant: its name, where it comes from, and the formula that makes it.

What is known is in `values`; what isn't is in `unknown` with the reason, and never in both. The pure
formulas come first, the collecting after them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from pathlib import Path

from unitmem.cgroup import (
    EVENT_KINDS,
    PRESSURE_KINDS,
    PRESSURE_WINDOWS,
    PROC_ROOT,
    Cgroup,
    CgroupGoneError,
    CgroupReading,
    Host,
    Level,
    parse_self_cgroup,
)
from unitmem.process import (
    Process,
    ProcessGoneError,
    ProcessHiddenError,
    read_process,
    with_command,
    with_pss,
)
from unitmem.unit import Invocation, Unit


class Dimension(StrEnum):
    """What kind of number a measure is, and so what it can be compared with."""

    SIZE = "size"
    PERCENT = "percent"
    COUNT = "count"
    RATE = "rate"
    """Bytes a second."""
    SPAN = "span"
    """Seconds."""


class Scope(Enum):
    """What a measure is a number of."""

    UNIT = "unit"
    PROCESSES = "the unit's processes, summed"
    LARGEST = "the unit's largest process"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Measure:
    """A number that has a name in policies, tables and JSON."""

    name: str
    dimension: Dimension
    scope: Scope
    source: str
    """The kernel's file it is read from."""
    formula: str
    """How it comes from there, in one line."""


@dataclass(frozen=True, slots=True)
class UnitSample:
    """One unit at one instant."""

    unit: Unit
    invocation: Invocation | None = None
    """None for a unit that has no cgroup now, of which nothing can be measured."""
    protected: str | None = None
    """Why no policy may touch it without naming it under `unprotect:`."""
    values: Mapping[str, float] = field(default_factory=dict)
    """What is known, by measure: bytes (int), percent (float) or counts since the unit's start (int)."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Why a measure is missing."""
    at_most: Mapping[str, int] = field(default_factory=dict)
    """Upper bounds of measures not read, since reading is costly: PSS is never more than RSS."""
    processes: tuple[Process, ...] = ()
    levels: tuple[Level, ...] = ()
    """The limits of its cgroup and of each ancestor."""

    def largest(self, size: str) -> Process | None:
        """The process whose `size` (`pss`, `rss`, `uss`, `swap_pss`) is the largest of those known."""
        known = [process for process in self.processes if getattr(process, size) is not None]
        return max(known, key=lambda process: int(getattr(process, size)), default=None)


@dataclass(frozen=True, slots=True)
class Sample:
    """All units that matter, at one instant of the monotonic clock."""

    at: float
    units: Mapping[str, UnitSample] = field(default_factory=dict)


_RECORDED = 10
_WEIGHED_AT_MOST = 1 << 30  # some 15 ms

PROCESS_SIZES = ("pss", "rss", "uss", "swap_pss")


def _measures() -> Iterable[Measure]:
    def unit(name: str, source: str, formula: str, dimension: Dimension = Dimension.SIZE) -> Measure:
        return Measure(name, dimension, Scope.UNIT, source, formula)

    stat = "memory.stat"
    yield unit("current", "memory.current", "everything charged to the unit, page cache included")
    yield unit("peak", "memory.peak", "the highest `current` so far")
    yield unit("swap", "memory.swap.current", "swap in use")
    yield unit("zswap", "memory.zswap.current", "memory that zswap uses for compressed pages")
    yield unit("workingset", "memory.current, memory.stat", "current − inactive_file")
    yield unit("anon", stat, "anon")
    yield unit("file", stat, "file")
    yield unit("kernel", stat, "kernel, or where missing slab + kernel_stack + pagetables + percpu")
    yield unit("shmem", stat, "shmem")
    yield unit("sock", stat, "sock")
    yield unit("unreclaimable", stat, "anon + shmem + kernel − slab_reclaimable")
    yield unit("limit", "memory.max", "the least of the unit's, each ancestor's, and MemTotal")
    yield unit("high", "memory.high", "the least of the unit's and each ancestor's")
    yield unit(
        "headroom",
        "memory.max, memory.current, memory.stat, /proc/meminfo",
        "the least of max − workingset of the unit and of each ancestor, and MemAvailable",
    )
    for kind in PRESSURE_KINDS:
        for window in PRESSURE_WINDOWS:
            yield unit(f"pressure.{kind}.{window}", "memory.pressure", f"{kind} {window}", Dimension.PERCENT)
    for event in EVENT_KINDS:
        yield unit(f"events.{event}", "memory.events", f"{event}, since the unit's start", Dimension.COUNT)
    sources = {
        "pss": ("/proc/PID/smaps_rollup", "Pss"),
        "rss": ("/proc/PID/statm", "resident"),
        "uss": ("/proc/PID/smaps_rollup", "Private_Clean + Private_Dirty + Private_Hugetlb"),
        "swap_pss": ("/proc/PID/smaps_rollup", "SwapPss"),
    }
    for size, (source, formula) in sources.items():
        yield Measure(size, Dimension.SIZE, Scope.PROCESSES, source, f"{formula}, of all processes together")
        yield Measure(
            f"process.{size}", Dimension.SIZE, Scope.LARGEST, source, f"{formula}, of the largest process"
        )

    def host(name: str, source: str, formula: str, dimension: Dimension = Dimension.SIZE) -> Measure:
        return Measure(f"host.{name}", dimension, Scope.HOST, source, formula)

    yield host("total", "/proc/meminfo", "MemTotal")
    yield host("available", "/proc/meminfo", "MemAvailable")
    yield host("swap_total", "/proc/meminfo", "SwapTotal")
    yield host("swap_free", "/proc/meminfo", "SwapFree")
    for kind in PRESSURE_KINDS:
        for window in PRESSURE_WINDOWS:
            yield host(
                f"pressure.{kind}.{window}", "/proc/pressure/memory", f"{kind} {window}", Dimension.PERCENT
            )


MEASURES: Mapping[str, Measure] = {measure.name: measure for measure in _measures()}

PROCESS_MEASURES = frozenset(
    name for name, measure in MEASURES.items() if measure.scope in (Scope.PROCESSES, Scope.LARGEST)
)
COSTLY_MEASURES = frozenset(name for name in PROCESS_MEASURES if not name.endswith("rss"))
"""Those that walk a process's page tables."""
NEVER_GROWS = frozenset(
    name
    for name, measure in MEASURES.items()
    if measure.dimension is not Dimension.SIZE
    or measure.scope is Scope.HOST
    or name in ("peak", "limit", "high", "headroom")
)
"""Measures whose slope says nothing of what a unit uses."""
EVENT_MEASURES = tuple(f"events.{event}" for event in EVENT_KINDS)


# --- formulas ----------------------------------------------------------------------------------


def unit_values(reading: CgroupReading, host: Host) -> tuple[dict[str, float], dict[str, str]]:
    """(values, unknown) of every measure that comes from a unit's cgroup and the host."""
    values: dict[str, float] = {}
    unknown: dict[str, str] = {}

    def put(name: str, value: float | None, reason: str) -> None:
        if value is None:
            unknown[name] = reason
        else:
            values[name] = value

    def why(*files: str) -> str:
        reasons = [f"{file}: {reading.unknown[file]}" for file in files if file in reading.unknown]
        return "; ".join(reasons) or f"{' or '.join(files)} lacks it on this kernel"

    stat = reading.stat
    current = reading.current
    put("current", _root_current(reading, host), why("memory.current"))
    put("peak", reading.peak, why("memory.peak"))
    put("swap", reading.swap, why("memory.swap.current"))
    put("zswap", reading.zswap, why("memory.zswap.current"))
    inactive = stat.get("inactive_file")
    put(
        "workingset",
        None if current is None or inactive is None else max(0, current - inactive),
        why("memory.current", "memory.stat"),
    )
    for name in ("anon", "file", "shmem", "sock"):
        put(name, stat.get(name), why("memory.stat"))
    kernel = kernel_memory(stat)
    put("kernel", kernel, why("memory.stat"))
    put("unreclaimable", unreclaimable(stat, kernel), why("memory.stat"))
    values["limit"] = tightest_limit(reading.levels, host)[0]
    put("high", tightest_high(reading.levels), "no memory.high is set on the unit or above it")
    put("headroom", headroom(reading.levels, host), why("memory.current", "memory.stat"))
    for key in (f"{kind}.{window}" for kind in PRESSURE_KINDS for window in PRESSURE_WINDOWS):
        put(f"pressure.{key}", reading.pressure.get(key), why("memory.pressure"))
        reason = host.unknown.get("memory.pressure", "not in /proc/pressure/memory")
        put(f"host.pressure.{key}", host.pressure.get(key), reason)
    for event in EVENT_KINDS:
        put(f"events.{event}", reading.events.get(event), why("memory.events"))
    for name in ("total", "available", "swap_total", "swap_free"):
        put(f"host.{name}", getattr(host, name), "not in /proc/meminfo")
    return values, unknown


def kernel_memory(stat: Mapping[str, int]) -> int | None:
    """Bytes the kernel holds for the unit: `kernel` of memory.stat, which is there since Linux 5.18."""
    if "kernel" in stat:
        return stat["kernel"]
    parts = ("slab", "kernel_stack", "pagetables", "percpu")
    return sum(stat.get(part, 0) for part in parts) if "slab" in stat else None


def unreclaimable(stat: Mapping[str, int], kernel: int | None) -> int | None:
    """Bytes that no reclaim gives back without swap: anonymous memory, tmpfs, and what the kernel pins."""
    if kernel is None or not {"anon", "shmem", "slab_reclaimable"} <= stat.keys():
        return None
    return stat["anon"] + stat["shmem"] + max(0, kernel - stat["slab_reclaimable"])


def tightest_limit(levels: Sequence[Level], host: Host) -> tuple[int, str]:
    """(bytes, whose): the least memory.max from the unit up, or the machine's memory as `host`."""
    limits = [(level.max, level.path) for level in levels if level.max is not None]
    return min([*limits, (host.total, "host")], key=lambda limit: limit[0])


def tightest_high(levels: Sequence[Level]) -> int | None:
    """The least memory.high from the unit up; None when there is none."""
    return min((level.high for level in levels if level.high is not None), default=None)


def headroom(levels: Sequence[Level], host: Host) -> int | None:
    """Bytes the unit can still allocate before a limit above it, or the machine, is met; at least 0.

    Usage is counted without inactive page cache, which the kernel drops before it refuses memory: a
    service that has read many files is not out of memory. None when a part of it is unknown.
    """
    if host.available is None:
        return None
    room = [host.available]
    for level in levels:
        if level.max is None:
            continue
        if level.workingset is None:
            return None
        room.append(max(0, level.max - level.workingset))
    return min(room)


def process_values(
    processes: Sequence[Process],
) -> tuple[dict[str, float], dict[str, str], dict[str, int]]:
    """(values, unknown, at_most) of the sums over `processes` and of the largest of them.

    A sum that lacks one process is no sum: one that can't be read makes the measure unknown.
    """
    values: dict[str, float] = {}
    unknown: dict[str, str] = {}
    at_most: dict[str, int] = {}
    for size in PROCESS_SIZES:
        known = [getattr(process, size) for process in processes if getattr(process, size) is not None]
        if len(known) == len(processes):
            values[size] = sum(known)
            values[f"process.{size}"] = max(known, default=0)
            continue
        refused = [process for process in processes if process.unknown is not None]
        reason = (
            f"{len(refused)} of {len(processes)} processes: {refused[0].unknown}" if refused else "not read"
        )
        unknown[size] = unknown[f"process.{size}"] = reason
        bounds = [process.pss_at_most for process in processes]
        # not of USS: it counts huge pages, and RSS does not
        if size == "pss" and not refused and None not in bounds:
            at_most[size] = sum(bound for bound in bounds if bound is not None)
            at_most[f"process.{size}"] = max((b for b in bounds if b is not None), default=0)
    return values, unknown, at_most


def _root_current(reading: CgroupReading, host: Host) -> int | None:
    # the root cgroup has no memory.current; systemd gives this for -.slice, and so do we
    if reading.path == "/" and host.available is not None:
        return host.total - host.available
    return reading.current


# --- collecting --------------------------------------------------------------------------------


def collect(
    unit: Unit,
    cgroup: Cgroup,
    host: Host,
    wanted: Collection[str],
    proc: Path = PROC_ROOT,
    seen: MutableMapping[str, Level] | None = None,
) -> UnitSample:
    """`unit` sampled through its open `cgroup`: all that is cheap, and processes if `wanted` asks for them.

    Args:
        unit: as its manager describes it.
        cgroup: its cgroup, open.
        host: the machine, read in the same tick.
        wanted: names of measures; PSS and its like are only bounded here, `resolve` reads them.
        proc: where /proc is.
        seen: as `Cgroup.read` takes it, for a tick in which many units are sampled.

    Raises:
        CgroupGoneError: the unit stopped, or was started anew.
    """
    reading = cgroup.read(seen)
    values, unknown = unit_values(reading, host)
    sample = UnitSample(
        unit=unit,
        invocation=Invocation(unit.name, unit.invocation_id, cgroup.inode),
        values=values,
        unknown=unknown,
        levels=reading.levels,
    )
    if PROCESS_MEASURES.isdisjoint(wanted):
        return sample
    try:
        return _with_processes(sample, read_processes(cgroup, proc))
    except CgroupGoneError:
        raise
    except OSError as error:
        reason = f"not every process of it can be found: {os.strerror(error.errno or errno.EIO).lower()}"
        return replace(sample, unknown={**sample.unknown, **dict.fromkeys(PROCESS_MEASURES, reason)})


def resolve(sample: UnitSample, proc: Path = PROC_ROOT) -> UnitSample:
    """`sample` with PSS, USS and SwapPss of every process of it that still runs."""
    processes = []
    for process in sample.processes:
        try:
            processes.append(process if process.unknown else with_pss(process, proc))
        except ProcessGoneError:
            continue
    return _with_processes(sample, processes)


def weigh_largest(sample: UnitSample, cgroup: Cgroup, proc: Path = PROC_ROOT) -> list[Process]:
    """The largest few processes of a unit, for the record: with PSS, unless to read it would take long, and command lines.

    What `sample` has of them is taken as it is.
    """
    try:
        processes = sample.processes or tuple(read_processes(cgroup, proc))
    except (CgroupGoneError, OSError):
        return []
    by_size = sorted(processes, key=lambda process: process.pss or process.rss or 0, reverse=True)
    largest = [with_command(process, proc) for process in by_size[:_RECORDED]]
    if sum(process.rss or 0 for process in largest) > _WEIGHED_AT_MOST:
        return largest
    weighed = []
    for process in largest:
        try:
            known = process.pss is not None or process.unknown is not None
            weighed.append(process if known else with_pss(process, proc))
        except ProcessGoneError:
            continue
    return weighed


def own_cgroup(proc: Path = PROC_ROOT) -> str | None:
    """The cgroup path of this very process; None where it has none in the v2 hierarchy."""
    try:
        return parse_self_cgroup((proc / "self/cgroup").read_text())
    except OSError:
        return None


def _with_processes(sample: UnitSample, processes: Sequence[Process]) -> UnitSample:
    values, unknown, at_most = process_values(processes)
    kept = {name: reason for name, reason in sample.unknown.items() if name not in PROCESS_MEASURES}
    return replace(
        sample,
        processes=tuple(processes),
        values={**sample.values, **values},
        unknown={**kept, **unknown},
        at_most=at_most,
    )


def read_processes(cgroup: Cgroup, proc: Path = PROC_ROOT) -> list[Process]:
    """Every process of `cgroup` with its RSS; one that /proc hides from us is there, and unknown.

    Raises:
        CgroupGoneError: the unit stopped, or was started anew.
        OSError: not every process of it can be found.
    """
    processes = []
    missing = set()
    for pid in cgroup.pids():
        try:
            processes.append(read_process(pid, proc))
        except ProcessGoneError:
            missing.add(pid)
        except ProcessHiddenError:
            processes.append(_hidden(pid))
    if missing:
        # what ended has left the cgroup as well, as a zombie has; what has not is only hidden
        processes += [_hidden(pid) for pid in cgroup.pids() if pid in missing]
    return processes


def _hidden(pid: int) -> Process:
    return Process(
        pid, start_time=0, name="", unknown="hidden from this user (/proc is mounted with hidepid)"
    )
