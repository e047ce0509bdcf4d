"""The limits of a cgroup and its ancestors, and the headroom that they leave.

Reference: Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from unitmem.kernel.host import Host
from unitmem.kernel.process import PAGE_SIZE

HOST_LEVEL = "host"
"""The name of the machine among the paths of levels."""
_PARTS = ("anon", "shmem", "kernel", "sock", "active_file", "inactive_file", "slab_reclaimable")
USAGE_KEYS = ("active_file", "inactive_file", "slab_reclaimable")
"""The keys of memory.stat that the usage of a level is computed from."""
# The kernel adds up memory.stat in batches of 64 pages for each CPU (MEMCG_CHARGE_BATCH).
STAT_LAG = 64 * PAGE_SIZE * (os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Level:
    """The limits and the usage of one cgroup on the way up to the root, in bytes.

    A limit of None is no limit, unless `unknown` has a reason for it.
    """

    path: str
    max: int | None = None
    high: int | None = None
    current: int | None = None
    inactive_file: int | None = None
    file: int | None = None
    """`active_file + inactive_file`: page cache that reclaim can take; tmpfs and locked files are in neither."""
    slab_reclaimable: int | None = None
    unknown: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Why `max` or `high` is unknown."""

    @property
    def workingset(self) -> int | None:
        """`current − inactive_file`: the usage after the cheapest reclaim."""
        if self.current is None or self.inactive_file is None:
            return None
        return max(0, self.current - self.inactive_file)

    @property
    def unreclaimable(self) -> int | None:
        """`current − file − slab_reclaimable`: the usage that no reclaim gives back without swap."""
        if self.current is None or self.file is None or self.slab_reclaimable is None:
            return None
        # memory.stat lags behind memory.current
        return max(0, self.current - self.file - self.slab_reclaimable)


ROOT_LEVEL = Level("/")
"""The root of all cgroups, which has no limit."""


def level_of(
    path: str, values: Mapping[str, int | None], stat: Mapping[str, int], unread: Mapping[str, str]
) -> Level:
    """Return the level of a cgroup by the values of its files and its memory.stat; `unread` has reasons by limit file."""
    active, inactive = stat.get("active_file"), stat.get("inactive_file")
    return Level(
        path,
        max=values.get("memory.max"),
        high=values.get("memory.high"),
        current=values.get("memory.current"),
        inactive_file=inactive,
        file=None if active is None or inactive is None else active + inactive,
        slab_reclaimable=stat.get("slab_reclaimable"),
        unknown={name.removeprefix("memory."): why for name, why in unread.items()},
    )


def impossible_parts(stat: Mapping[str, int], current: int) -> dict[str, str]:
    """Return the reason by key for those lines of memory.stat that are parts of memory.current, and greater."""
    return {
        key: f"{key} is {stat[key]}, more than memory.current ({current}), which can't be true"
        for key in _PARTS
        if stat.get(key, 0) > current + STAT_LAG
    }


def why_unknown(levels: Sequence[Level], limit: str) -> str | None:
    """Return the reason for which `limit`, `max` or `high`, of one of `levels` is unknown; None where all are known."""
    reasons = (
        f"{level.path.rstrip('/')}/memory.{limit}: {level.unknown[limit]}"
        for level in levels
        if limit in level.unknown
    )
    return next(reasons, None)


def tightest_limit(levels: Sequence[Level], machine: int) -> int:
    """Return the least memory.max from the unit up, or what the `machine` has for all cgroups."""
    return min([machine, *(level.max for level in levels if level.max is not None)])


def tightest_high(levels: Sequence[Level]) -> int | None:
    """Return the least memory.high from the unit up; None when there is none."""
    return min((level.high for level in levels if level.high is not None), default=None)


def fullest(levels: Sequence[Level], total: int | None, available: float | None) -> tuple[float, str] | None:
    """Return (percent, owner) of the level that is filled most with what can't be reclaimed; None if one is unknown.

    A level is a cgroup with a memory.max, from the unit up, or the machine, whose owner is `HOST_LEVEL`. Of equal ones it is
    the innermost.
    """
    if not total or available is None or why_unknown(levels, "max"):
        return None
    filled = []
    for level in levels:
        if level.max is not None:
            if level.unreclaimable is None:
                return None
            # a memory.max of 0 lets nothing in
            filled.append((100.0 * level.unreclaimable / level.max if level.max else 100.0, level.path))
    return max([*filled, (100.0 * max(0, total - available) / total, HOST_LEVEL)], key=lambda level: level[0])


def headroom(levels: Sequence[Level], host: Host) -> int | None:
    """Return the bytes that the unit can still allocate below every limit and in the machine; at least 0.

    Usage is counted without inactive page cache, which the kernel drops before it refuses memory: a
    service that has read many files is not out of memory. None when a part of the sum is unknown.
    """
    if host.available is None or why_unknown(levels, "max"):
        return None
    room = [host.available]
    for level in levels:
        if level.max is None:
            continue
        if level.workingset is None:
            return None
        room.append(max(0, level.max - level.workingset))
    return min(room)
