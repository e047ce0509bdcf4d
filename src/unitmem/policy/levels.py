"""The time until a limit is met, at the level that fills first: a cgroup from the unit up, or the machine.

A level fills with what is unreclaimable there, whichever of its units has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf

from unitmem.kernel.limits import HOST_LEVEL
from unitmem.measure.sample import HostSample, UnitSample
from unitmem.policy.condition import ETA_USAGE, Bounds
from unitmem.unit import ROOT_SLICE

LEVELS_MISSING = "levels are not in this history"


@dataclass(frozen=True, slots=True)
class Filling:
    """A level with a limit, and what is unreclaimable there, in bytes; None is unknown."""

    path: str | None
    """The path of its cgroup, or `HOST_LEVEL`; None is the unit itself."""
    limit: float | None
    used: float | None

    def time_left(self, slope: float | None) -> float | None:
        """Return the seconds until `used`, at this slope in bytes a second, meets the limit; infinite if it doesn't grow."""
        if self.limit is None or self.used is None or slope is None:
            return None
        if self.used >= self.limit:
            return 0.0
        return (self.limit - self.used) / slope if slope > 0 else inf


def has_levels(unit: UnitSample) -> bool:
    """Return whether the levels of `unit` are known; those of the root slice are the machine alone."""
    return bool(unit.levels) or unit.name == ROOT_SLICE


def lacks_levels(unit: UnitSample, target: str) -> bool:
    """Return whether nothing says what meets `target`, `limit` or `high`: no levels, nor that it is the unit's own.

    A history has levels only where its watch asked for them, and those of 0.1 have none.
    """
    if has_levels(unit):
        return False
    own = unit.values.get("max") if target == "limit" else None
    return own is None or own != unit.values.get(target)


def fillings(unit: UnitSample, host: HostSample, target: str) -> Iterator[Filling]:
    """Yield each level of `unit` that has, or may have, a limit of the kind `target`, which is `limit` or `high`.

    Of a sample without levels it is the unit itself, if the limit is known to be its own.
    """
    own = unit.values.get(ETA_USAGE)
    if not unit.levels:
        if not lacks_levels(unit, target):
            yield Filling(None, unit.values.get(target), own)
        return
    for index, level in enumerate(unit.levels):
        name = "max" if target == "limit" else "high"
        limit: int | None = getattr(level, name)
        if limit is not None or name in level.unknown:
            yield Filling(level.path, limit, level.unreclaimable) if index else Filling(None, limit, own)
    if target == "limit":
        total, available = host.total, host.available
        used = None if total is None or available is None else max(0, total - available)
        yield Filling(HOST_LEVEL, total, used)


def time_left(
    unit: UnitSample, host: HostSample, target: str, slope_of: Callable[[str | None], float | None]
) -> tuple[Bounds, str | None] | None:
    """Return (bounds of the seconds until the first level of `unit` is full, its path); None where nothing is known.

    The path is that of the first of those that are known; it is None for the unit itself.

    Args:
        unit: the unit, with its levels.
        host: the machine.
        target: `limit` or `high`.
        slope_of: the slope of what is unreclaimable at the level of that path, in bytes a second; None where it is
            unknown.
    """
    left = [
        (filling.time_left(slope_of(filling.path)), filling.path) for filling in fillings(unit, host, target)
    ]
    known = [(seconds, path) for seconds, path in left if seconds is not None]
    if not known:
        return None
    seconds, path = min(known, key=lambda each: each[0])
    # what is unknown may be full before, and makes nothing later
    return Bounds(seconds if len(known) == len(left) else 0.0, seconds), path
