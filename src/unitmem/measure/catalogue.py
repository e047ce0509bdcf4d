"""Every measure by name: what kind of number it is, where it comes from, and the formula that makes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum

from unitmem.kernel.cgroup import EVENT_KINDS
from unitmem.kernel.files import PRESSURE_KINDS, PRESSURE_WINDOWS


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

UNIT_MEASURES = tuple(name for name, measure in MEASURES.items() if measure.scope is not Scope.HOST)
"""What can be known of a unit, in the order of `MEASURES`."""
