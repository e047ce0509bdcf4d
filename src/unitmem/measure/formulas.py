"""How each measure comes from what was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unitmem.kernel.cgroup import EVENT_KINDS, CgroupReading
from unitmem.kernel.files import PRESSURE_KINDS, PRESSURE_WINDOWS
from unitmem.kernel.host import Host
from unitmem.kernel.limits import headroom, tightest_high, tightest_limit
from unitmem.kernel.process import Process
from unitmem.measure.catalogue import PROCESS_SIZES

# --- formulas ----------------------------------------------------------------------------------


def unit_values(reading: CgroupReading, host: Host) -> tuple[dict[str, float], dict[str, str]]:
    """Return (values, unknown) of every measure that comes from a unit's cgroup and the host."""
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
    """Return the bytes that the kernel holds for the unit: `kernel` of memory.stat (Linux 5.18), or the sum of its parts.

    None where a part is missing: a kernel may charge what it doesn't show, as page tables before Linux 5.11.
    """
    if "kernel" in stat:
        return stat["kernel"]
    parts = ("slab", "kernel_stack", "pagetables", "percpu")
    return sum(stat[part] for part in parts) if stat.keys() >= set(parts) else None


def unreclaimable(stat: Mapping[str, int], kernel: int | None) -> int | None:
    """Return the bytes that no reclaim gives back without swap: anonymous memory, tmpfs, and what the kernel pins."""
    if kernel is None or not {"anon", "shmem", "slab_reclaimable"} <= stat.keys():
        return None
    return stat["anon"] + stat["shmem"] + max(0, kernel - stat["slab_reclaimable"])


def process_values(
    processes: Sequence[Process],
) -> tuple[dict[str, float], dict[str, str], dict[str, int]]:
    """Return (values, unknown, at_most) of the sums over all processes of a unit, and of the largest of them.

    A sum that lacks one process is no sum: one that can't be read makes the measure unknown. Without any
    process all are 0, so `processes` is never a list that could not be made.
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
        reason = "not read"
        if refused:
            reason = f"{len(refused)} of {len(processes)} processes: {refused[0].unknown}"
        elif all(process.pss is not None for process in processes):
            reason = "smaps_rollup lacks it on this kernel"
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
