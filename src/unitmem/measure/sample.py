"""A sample: the measures of units at one instant.

What is known is in `values`; what isn't is in `unknown` with the reason, and never in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from unitmem.kernel.limits import Level
from unitmem.kernel.process import (
    Process,
)
from unitmem.unit import Invocation, Unit


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
