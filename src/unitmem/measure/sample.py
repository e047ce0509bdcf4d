"""A sample: the measures of units and of the host at one instant.

A measure that was asked for is either in `values`, or in `unknown` with the reason, never in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import overload

from unitmem.kernel.limits import HOST_LEVEL, Level, fullest, why_unknown
from unitmem.kernel.oom_preference import OomPreference
from unitmem.kernel.process import Process
from unitmem.measure.catalogue import MEASURES, OPERANDS, Dimension, Scope
from unitmem.unit import Invocation, Unit

NOT_READ = "not read"
HELD = "kept within 1% only"
"""The reason for a value of which a history has bounds that are close to each other."""
THINNED = "thinned"
"""The reason for a value of which a history has the least and the greatest of several minutes."""


class _Size:
    """A descriptor for the value of the size measure with the attribute's name."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix

    def __set_name__(self, owner: type, name: str) -> None:
        self._measure = self._prefix + name

    @overload
    def __get__(self, instance: None, owner: type) -> _Size: ...
    @overload
    def __get__(self, instance: UnitSample | HostSample, owner: type) -> int | None: ...
    def __get__(self, instance: UnitSample | HostSample | None, owner: type) -> _Size | int | None:
        if instance is None:
            return self
        value = instance.values.get(self._measure)
        return None if value is None else int(value)


@dataclass(frozen=True, slots=True)
class HostSample:
    """The machine at one instant."""

    values: Mapping[str, float] = field(default_factory=dict)
    """The known values, by the measure's full name (`host.available`): bytes or percent."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Why a measure is missing."""
    at_least: Mapping[str, float] = field(default_factory=dict)
    """Lower bounds of measures that a history has no exact values of."""
    at_most: Mapping[str, float] = field(default_factory=dict)
    """Upper bounds of them."""

    total = _Size("host.")
    available = _Size("host.")
    swap_total = _Size("host.")
    swap_free = _Size("host.")


NO_HOST = HostSample()
"""A host sample without any known value."""


@dataclass(frozen=True, slots=True, repr=False)
class UnitSample:
    """One unit at one instant.

    `sample["pressure.some.avg10"]` is the value of any measure, None where it is unknown; the sizes that
    are asked for most are attributes as well.
    """

    unit: Unit
    invocation: Invocation | None = None
    """The invocation; None for a unit that has no cgroup now, so that nothing can be measured."""
    protected: str | None = None
    """The reason for which a policy must name it under `unprotect:` to touch it; None if it isn't protected."""
    values: Mapping[str, float] = field(default_factory=dict)
    """The known values, by measure: bytes (int), percent (float) or counts since the unit's start (int)."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Why a measure is missing."""
    at_most: Mapping[str, float] = field(default_factory=dict)
    """Upper bounds of measures that were not read because that is costly: PSS is never more than RSS."""
    at_least: Mapping[str, float] = field(default_factory=dict)
    """Lower bounds of the same, what the processes have of which it was read, and of what a history has no exact values of."""
    processes: tuple[Process, ...] = ()
    levels: tuple[Level, ...] = ()
    """The limits of its cgroup and of each ancestor."""
    oom_ends: tuple[float, ...] = ()
    """When an OOM kill ended an earlier run of it, by the clock of the sample, as far as that was asked for and seen."""
    cgroup_made: float | None = None
    """When its cgroup was made, by the clock of the sample: before the run, if an earlier one has left it. It may have been
    earlier still."""
    oom_preference: OomPreference = OomPreference.NONE
    """Its ManagedOOMPreference=, read only where a step picks one of the units for which its condition holds."""

    current = _Size()
    peak = _Size()
    max = _Size()
    limit = _Size()
    headroom = _Size()
    workingset = _Size()
    unreclaimable = _Size()
    footprint = _Size()
    anon = _Size()
    swap = _Size()
    pss = _Size()
    rss = _Size()
    uss = _Size()
    swap_pss = _Size()

    @property
    def name(self) -> str:
        return self.unit.name

    def __getitem__(self, measure: str) -> float | None:
        """Return the value of `measure`: bytes, percent or a count; None if it is unknown.

        Raises:
            KeyError: no unit has a measure of that name.
        """
        if measure not in OPERANDS or OPERANDS[measure].scope is Scope.HOST:
            raise KeyError(measure)
        return self.values.get(measure)

    def __repr__(self) -> str:
        known = ", ".join(
            f"{name}={value}"
            for name, value in self.values.items()
            if "." not in name and MEASURES[name].dimension is Dimension.SIZE
        )
        return f"<UnitSample {self.name}{': ' if known else ''}{known}>"

    def largest(self, size: str) -> Process | None:
        """Return the process whose `size` (`pss`, `rss`, `uss`, `swap_pss`) is the largest of those known."""
        known = [process for process in self.processes if getattr(process, size) is not None]
        return max(known, key=lambda process: int(getattr(process, size)), default=None)


@dataclass(frozen=True, slots=True)
class Sample:
    """The units that were asked for, and the machine, at one instant."""

    at: float
    """Seconds of `time.monotonic()`."""
    units: Mapping[str, UnitSample] = field(default_factory=dict)
    """The samples of units, by name."""
    host: HostSample = NO_HOST
    unseen: frozenset[str] = frozenset()
    """Units that may run but are not in `units`: they are not described yet, or their cgroup can't be opened."""
    unread: frozenset[str] = frozenset()
    """Those of `units` whose values are from an earlier look: since then no condition about them can have become true,
    and no ladder of theirs is open."""
    is_complete: bool = True
    """Whether all units that run are known; if not, any unit that is missing here may run."""
    thinned: frozenset[str] = frozenset()
    """The units among `unseen` of which a history has nothing any more, as they came or went within a few minutes."""
    is_resumed: bool = field(default=False, compare=False)
    """Whether nobody looked just before, as a recorded watch had stopped or the machine was suspended."""

    def is_unseen(self, unit: str) -> bool:
        """Return whether the unit of that name may run although it is not in `units`."""
        return not self.is_complete or unit in self.unseen

    def limit_set_by(self, unit: UnitSample) -> str | None:
        """Return the path of the cgroup that sets the tightest limit of `unit`, or `host`; None if it isn't known."""
        if self.host.total is None or unit.invocation is None or why_unknown(unit.levels, "max"):
            return None
        limits = {level.max: level.path for level in reversed(unit.levels)}  # of equal ones the innermost
        return HOST_LEVEL if unit.limit is None else limits.get(unit.limit, HOST_LEVEL)

    def fill_set_by(self, unit: UnitSample) -> str | None:
        """Return the path of the cgroup that sets the `fill` of `unit`, or `host`; None if it isn't known."""
        level = fullest(unit.levels, self.host.total, self.host.available)
        return None if level is None or "fill" not in unit.values else level[1]

    def value(self, unit: UnitSample, measure: str) -> float | None:
        """Return the value of `measure`, of `unit` or of the host; None if it is unknown."""
        return (self.host if measure.startswith("host.") else unit).values.get(measure)

    def why_unknown(self, unit: UnitSample, measure: str) -> str | None:
        """Return the reason for which `measure` is unknown; None where there is none."""
        return (self.host if measure.startswith("host.") else unit).unknown.get(measure)
