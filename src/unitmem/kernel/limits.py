"""The limits of a cgroup and its ancestors, and the headroom that they leave.

Reference: Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unitmem.kernel.host import Host


@dataclass(frozen=True, slots=True)
class Level:
    """The limits and the usage of one cgroup on the way up to the root, in bytes; a limit of None is no limit."""

    path: str
    max: int | None = None
    high: int | None = None
    current: int | None = None
    inactive_file: int | None = None
    file: int | None = None
    """`active_file + inactive_file`: page cache that reclaim can take; tmpfs and locked files are in neither."""
    slab_reclaimable: int | None = None

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


def tightest_limit(levels: Sequence[Level], total: int) -> tuple[int, str]:
    """Return (bytes, owner): the least memory.max from the unit up, or the machine's `total`, whose owner is `host`."""
    limits = [(level.max, level.path) for level in levels if level.max is not None]
    return min([*limits, (total, "host")], key=lambda limit: limit[0])


def tightest_high(levels: Sequence[Level]) -> int | None:
    """Return the least memory.high from the unit up; None when there is none."""
    return min((level.high for level in levels if level.high is not None), default=None)


def fullest(levels: Sequence[Level], total: int | None, available: int | None) -> tuple[float, str] | None:
    """Return (percent, owner) of the level that is filled most with what can't be reclaimed; None if one is unknown.

    A level is a cgroup with a memory.max, from the unit up, or the machine, whose owner is `host`. Of equal ones it is
    the innermost.
    """
    if not total or available is None:
        return None
    filled = []
    for level in levels:
        if level.max is not None:
            if level.unreclaimable is None:
                return None
            # a memory.max of 0 lets nothing in
            filled.append((100.0 * level.unreclaimable / level.max if level.max else 100.0, level.path))
    return max([*filled, (100.0 * max(0, total - available) / total, "host")], key=lambda level: level[0])


def headroom(levels: Sequence[Level], host: Host) -> int | None:
    """Return the bytes that the unit can still allocate below every limit and in the machine; at least 0.

    Usage is counted without inactive page cache, which the kernel drops before it refuses memory: a
    service that has read many files is not out of memory. None when a part of the sum is unknown.
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
