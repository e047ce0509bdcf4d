"""Every measure by name, with its dimension, scope, source files, formula and traits.

A measure is one entry here. Conditions, tables, metrics, the history and warnings take what they need from it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, Flag, StrEnum, auto

from unitmem.kernel.cgroup import EVENT_KINDS, CgroupReading, Request
from unitmem.kernel.files import PRESSURE_KINDS, PRESSURE_WINDOWS
from unitmem.kernel.host import Host
from unitmem.kernel.limits import (
    USAGE_KEYS,
    Level,
    fullest,
    headroom,
    tightest_high,
    tightest_limit,
    why_unknown,
)


class Dimension(StrEnum):
    """The dimension of a measure: what it can be compared with."""

    SIZE = "size"
    PERCENT = "percent"
    COUNT = "count"
    RATE = "rate"
    """Bytes a second."""
    SPAN = "span"
    """Seconds."""


class Scope(Enum):
    """The scope of a measure: a unit, its slice, its processes, the largest of them, or the host."""

    UNIT = "unit"
    SLICE = "the nearest slice around the unit"
    PROCESSES = "the unit's processes, summed"
    LARGEST = "the unit's largest process"
    HOST = "host"


class Trait(Flag):
    """The properties of a measure besides its value."""

    NONE = 0
    GROWS = auto()
    """Its slope is a growth of the unit's memory."""
    BOUNDED = auto()
    """It can't be above the memory.max of the unit and its ancestors, nor above the machine's size."""
    CACHE = auto()
    """It includes page cache, which a healthy unit fills up by reading files."""
    SCARCE = auto()
    """It is low when memory is short."""
    FIXED = auto()
    """It doesn't depend on the unit's usage."""
    LIMIT = auto()
    """It is a limit, or the room below one."""
    COSTLY = auto()
    """The kernel walks page tables to compute it."""
    LEVELS = auto()
    """It depends on the cgroups above the unit as well."""
    LAGGING = auto()
    """It is computed from memory.current and memory.stat, which are some pages apart."""
    RECORDED = auto()
    """The history always records it, even if no condition needs it."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A number with a name, which is the same in policies, tables and JSON."""

    name: str
    dimension: Dimension
    scope: Scope
    source: str
    """The kernel's files that it is read from, or the manager's property, separated by commas."""
    formula: str
    """The formula as text, on one line."""
    value: Callable[[CgroupReading, Host], float | None] | None = None
    """The formula as code, for measures of a unit or the host; it returns None where a part is unknown.

    It raises a ValueError where it knows the reason better than the files do.
    """
    traits: Trait = Trait.NONE
    absent: str | None = None
    """The reason for which it is unknown where all its files can be read."""
    keys: tuple[str, ...] = ()
    """The keys of memory.stat that it is computed from."""

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(self.source.split(", "))

    @property
    def size(self) -> str:
        """The size that a measure of processes is about: `pss` of `process.pss`."""
        return self.name.removeprefix("process.")


_SIZE, _PERCENT, _COUNT = Dimension.SIZE, Dimension.PERCENT, Dimension.COUNT
_STAT = "memory.stat"
_USE = Trait.GROWS | Trait.BOUNDED
_MANAGER = "ActiveEnterTimestampMonotonic"
_OTHER_FORMS = (_STAT, "memory.events", "memory.pressure", "/proc/meminfo", _MANAGER)
_KERNEL_PARTS = ("slab", "kernel_stack", "pagetables", "percpu")
_NO_LIMIT = "the unit has no limit of its own"


def _counter(name: str, file: str, formula: str, traits: Trait, absent: str | None = None) -> Measure:
    """Return a measure that is the value of a one-value file."""
    return Measure(
        name, _SIZE, Scope.UNIT, file, formula, lambda unit, _: unit.counters.get(file), traits, absent
    )


def _stat(key: str, traits: Trait) -> Measure:
    """Return a measure that is a line of memory.stat."""
    return Measure(
        key, _SIZE, Scope.UNIT, _STAT, key, lambda unit, _: unit.stat.get(key), traits, keys=(key,)
    )


def _of_host(name: str, file: str, formula: str, value: Callable[[Host], float | None]) -> Measure:
    scarce = Trait.SCARCE if name in ("available", "swap_free") else Trait.NONE
    fixed = Trait.FIXED if name in ("total", "swap_total") else Trait.NONE
    dimension = _PERCENT if name.startswith("pressure.") else _SIZE
    return Measure(
        f"host.{name}", dimension, Scope.HOST, file, formula, lambda _, host: value(host), scarce | fixed
    )


def _of_processes(size: str, source: str, formula: str, traits: Trait = Trait.COSTLY) -> Iterator[Measure]:
    traits |= Trait.GROWS
    together = f"{formula}, of all processes together"
    yield Measure(size, _SIZE, Scope.PROCESSES, source, together, traits=traits)
    largest = f"{formula}, of the largest process"
    yield Measure(f"process.{size}", _SIZE, Scope.LARGEST, source, largest, traits=traits)


def _measures() -> Iterator[Measure]:
    unit = Scope.UNIT
    yield Measure(
        "current",
        _SIZE,
        unit,
        "memory.current",
        "everything charged to the unit, page cache included",
        _current,
        _USE | Trait.CACHE | Trait.RECORDED,
    )
    yield _counter("peak", "memory.peak", "the highest `current` so far", Trait.CACHE)
    yield _counter("swap", "memory.swap.current", "swap in use", Trait.GROWS | Trait.RECORDED)
    yield _counter(
        "zswap", "memory.zswap.current", "memory that zswap uses for compressed pages", Trait.GROWS
    )
    yield Measure(
        "workingset",
        _SIZE,
        unit,
        "memory.current, memory.stat",
        "current − inactive_file",
        _workingset,
        _USE | Trait.LAGGING | Trait.RECORDED,
        keys=("inactive_file",),
    )
    yield _stat("anon", _USE | Trait.RECORDED)
    yield _stat("file", _USE | Trait.CACHE)
    yield Measure(
        "kernel",
        _SIZE,
        unit,
        _STAT,
        "kernel, or where missing slab + kernel_stack + pagetables + percpu",
        lambda unit, _: _kernel(unit.stat),
        _USE,
        keys=("kernel", *_KERNEL_PARTS),
    )
    yield _stat("shmem", _USE)
    yield _stat("sock", Trait.GROWS)
    yield Measure(
        "unreclaimable",
        _SIZE,
        unit,
        "memory.current, memory.stat",
        "current − active_file − inactive_file − slab_reclaimable",
        _unreclaimable,
        _USE | Trait.LAGGING | Trait.RECORDED,
        keys=USAGE_KEYS,
    )
    yield Measure(
        "footprint",
        _SIZE,
        unit,
        "memory.current, memory.stat, memory.swap.current",
        "unreclaimable − zswap − swapcached + swap",
        _footprint,
        Trait.GROWS | Trait.LAGGING | Trait.RECORDED,
        keys=(*USAGE_KEYS, "zswap", "swapcached"),
    )
    yield _counter("max", "memory.max", "the unit's own", Trait.LIMIT | Trait.FIXED, _NO_LIMIT)
    yield _counter("swap_max", "memory.swap.max", "the unit's own", Trait.LIMIT | Trait.FIXED, _NO_LIMIT)
    yield Measure(
        "limit",
        _SIZE,
        unit,
        "memory.max",
        "the least of the unit's, each ancestor's, and MemTotal (− Hugetlb where cgroups aren't charged for it)",
        _limit,
        Trait.LIMIT | Trait.FIXED | Trait.LEVELS | Trait.RECORDED,
    )
    yield Measure(
        "high",
        _SIZE,
        unit,
        "memory.high",
        "the least of the unit's and each ancestor's",
        lambda unit, _: tightest_high(_levels(unit, "high")),
        Trait.LIMIT | Trait.FIXED | Trait.LEVELS,
        "no memory.high is set on the unit or above it",
    )
    yield Measure(
        "headroom",
        _SIZE,
        unit,
        "memory.max, memory.current, memory.stat, /proc/meminfo",
        "the least of max − workingset of the unit and of each ancestor, and MemAvailable",
        lambda unit, host: headroom(_levels(unit, "max"), host),
        Trait.LIMIT | Trait.SCARCE | Trait.LEVELS | Trait.LAGGING,
        "what is used below a limit, or MemAvailable, can't be read",
        USAGE_KEYS,
    )
    yield Measure(
        "fill",
        Dimension.PERCENT,
        unit,
        "memory.max, memory.current, memory.stat, /proc/meminfo",
        "the most of unreclaimable / max of the unit and of each ancestor, and (MemTotal − MemAvailable) / MemTotal",
        _fill,
        Trait.LIMIT | Trait.LEVELS | Trait.LAGGING | Trait.RECORDED,
        "what can't be reclaimed below a limit, or MemAvailable, can't be read",
        USAGE_KEYS,
    )
    for kind in PRESSURE_KINDS:
        for window in PRESSURE_WINDOWS:
            yield _pressure(kind, window)
    for event in EVENT_KINDS:
        yield _event(event)
    yield Measure(
        "age",
        Dimension.SPAN,
        unit,
        _MANAGER,
        "how long this run of the unit has been up",
        traits=Trait.FIXED | Trait.RECORDED,
        absent="the service manager doesn't say since when it is active",
    )
    yield from _of_processes("pss", "/proc/PID/smaps_rollup", "Pss")
    yield from _of_processes("rss", "/proc/PID/statm", "resident", Trait.NONE)
    yield from _of_processes(
        "uss", "/proc/PID/smaps_rollup", "Private_Clean + Private_Dirty + Private_Hugetlb"
    )
    yield from _of_processes("swap_pss", "/proc/PID/smaps_rollup", "SwapPss")
    yield _of_host("total", "/proc/meminfo", "MemTotal", lambda host: host.total)
    yield _of_host("available", "/proc/meminfo", "MemAvailable", lambda host: host.available)
    yield _of_host("swap_total", "/proc/meminfo", "SwapTotal", lambda host: host.swap_total)
    yield _of_host("swap_free", "/proc/meminfo", "SwapFree", lambda host: host.swap_free)
    for kind in PRESSURE_KINDS:
        for window in PRESSURE_WINDOWS:
            yield _pressure_of_host(kind, window)


def _pressure(kind: str, window: str) -> Measure:
    key = f"{kind}.{window}"
    recorded = Trait.RECORDED if window == "avg10" else Trait.NONE
    return Measure(
        f"pressure.{key}",
        _PERCENT,
        Scope.UNIT,
        "memory.pressure",
        f"{kind} {window}",
        lambda unit, _: unit.pressure.get(key),
        recorded,
    )


def _pressure_of_host(kind: str, window: str) -> Measure:
    key = f"{kind}.{window}"
    return _of_host(
        f"pressure.{key}", "/proc/pressure/memory", f"{kind} {window}", lambda host: host.pressure.get(key)
    )


def _event(event: str) -> Measure:
    return Measure(
        f"events.{event}",
        _COUNT,
        Scope.UNIT,
        "memory.events",
        f"{event}, since the unit's start",
        lambda unit, _: unit.events.get(event),
    )


# --- formulas ----------------------------------------------------------------------------------


def _current(unit: CgroupReading, host: Host) -> float | None:
    # the root cgroup has no memory.current; systemd gives this for -.slice, and so do we
    if unit.is_root:
        return None if host.total is None or host.available is None else host.total - host.available
    return unit.current


def _workingset(unit: CgroupReading, _: Host) -> float | None:
    inactive = unit.stat.get("inactive_file")
    return None if unit.current is None or inactive is None else max(0, unit.current - inactive)


def _fill(unit: CgroupReading, host: Host) -> float | None:
    level = fullest(_levels(unit, "max"), host.total, host.available)
    return None if level is None else level[0]


def _kernel(stat: Mapping[str, int]) -> int | None:
    # `kernel` is there since Linux 5.18. A kernel may charge a part that it doesn't show, as page tables before 5.11
    if "kernel" in stat:
        return stat["kernel"]
    return sum(stat[part] for part in _KERNEL_PARTS) if stat.keys() >= set(_KERNEL_PARTS) else None


def _unreclaimable(unit: CgroupReading, host: Host) -> int | None:
    if unit.is_root:
        return host.unreclaimable
    reclaimable = [unit.stat[key] for key in USAGE_KEYS if key in unit.stat]
    if unit.current is None or len(reclaimable) < len(USAGE_KEYS):
        return None
    # memory.stat lags behind memory.current
    return max(0, unit.current - sum(reclaimable))


def _footprint(unit: CgroupReading, host: Host) -> int | None:
    """Return what the unit holds, in memory and in swap; a page in both, or compressed in memory, counts once."""
    held, swap = _unreclaimable(unit, host), unit.counters.get("memory.swap.current")
    if swap is None and host.swap_total == 0:
        swap = 0  # a kernel without swap has no such file
    if held is None or swap is None:
        return None
    # a kernel without zswap, or older than 5.12, lacks these lines
    return max(0, held - unit.stat.get("zswap", 0) - unit.stat.get("swapcached", 0) + swap)


def _limit(unit: CgroupReading, host: Host) -> int:
    if host.limit is None:
        raise ValueError(host.why_unknown("MemTotal"))
    return tightest_limit(_levels(unit, "max"), host.limit)


def _levels(unit: CgroupReading, limit: str) -> Sequence[Level]:
    """Return the levels of `unit`.

    Raises:
        ValueError: `limit` of one of them is unknown.
    """
    if why := why_unknown(unit.levels, limit):
        raise ValueError(why)
    return unit.levels


# --- the catalogue -----------------------------------------------------------------------------

MEASURES: Mapping[str, Measure] = {measure.name: measure for measure in _measures()}


def _of_scope(*scopes: Scope) -> tuple[Measure, ...]:
    return tuple(measure for measure in MEASURES.values() if measure.scope in scopes)


CGROUP_MEASURES = _of_scope(Scope.UNIT)
PROCESS_MEASURES = _of_scope(Scope.PROCESSES, Scope.LARGEST)
HOST_MEASURES = _of_scope(Scope.HOST)
UNIT_NAMES = tuple(name for name, measure in MEASURES.items() if measure.scope is not Scope.HOST)
"""The names of all measures of units."""
PROCESS_NAMES = frozenset(measure.name for measure in PROCESS_MEASURES)
CGROUP_NAMES = frozenset(measure.name for measure in CGROUP_MEASURES)
SLICE_PREFIX = "slice."
_NOT_OF_SLICES = Trait.BOUNDED | Trait.RECORDED  # what bounds the unit doesn't bound the others in its slice
SLICE_MEASURES = tuple(
    replace(
        measure, name=SLICE_PREFIX + measure.name, scope=Scope.SLICE, traits=measure.traits & ~_NOT_OF_SLICES
    )
    for measure in CGROUP_MEASURES
    if measure.value is not None
)
"""The measures of the nearest slice around a unit, such as `slice.anon`."""
OPERANDS: Mapping[str, Measure] = {**MEASURES, **{measure.name: measure for measure in SLICE_MEASURES}}
"""Every measure that conditions can name: those of `MEASURES`, and those of a unit's slice."""
AGE = "age"
"""The measure that time alone changes."""
OOM_KILLS = "events.oom_kill"
"""The event of which the end of a run counts one for the runs after it."""
EVENT_NAMES = tuple(name for name, measure in OPERANDS.items() if measure.dimension is Dimension.COUNT)


def request_of(measures: Collection[Measure]) -> Request:
    """Return what has to be read of a cgroup for the values of `measures`."""
    files = dict.fromkeys(file for measure in measures for file in measure.files)
    return Request(
        counters=tuple(file for file in files if file not in _OTHER_FORMS),
        stat=tuple(dict.fromkeys(key for measure in measures for key in measure.keys)),
        events="memory.events" in files,
        pressure="memory.pressure" in files,
        levels=any(Trait.LEVELS in measure.traits for measure in measures),
    )


def with_trait(trait: Trait) -> tuple[str, ...]:
    """Return the names of the measures that have `trait`, in the order of the catalogue."""
    return tuple(name for name, measure in MEASURES.items() if trait in measure.traits)


COSTLY_NAMES = frozenset(with_trait(Trait.COSTLY))
