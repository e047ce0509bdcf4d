"""Taking the sample of one tick."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unitmem.kernel.cgroup import Cgroup, CgroupGoneError
from unitmem.kernel.files import CGROUP_ROOT, OpenFiles
from unitmem.kernel.host import Host
from unitmem.manager.tracker import Tracked, Tracker
from unitmem.measure.catalogue import COSTLY_NAMES, OPERANDS, Trait
from unitmem.measure.collect import Surroundings, collect, resolve
from unitmem.measure.formulas import host_values
from unitmem.measure.sample import HostSample, Sample, UnitSample
from unitmem.policy.ceiling import ceiling, has_ceiling
from unitmem.policy.engine import facts_about, is_undecided
from unitmem.policy.model import Policy, wanted_measures
from unitmem.policy.state import State
from unitmem.unit import Invocation

READ_EVERY = 30.0
"""Seconds after which a unit is read whatever its memory.current is."""
_SPREAD = 16
"""The parts of that time over which units that were read at the same tick are spread."""
_UNCHANGED = 1 / 64
"""The share by which memory.current may differ for values that were read before to stay in use."""
_LIMIT_FILES = ("memory.max", "memory.high", "memory.swap.max")


@dataclass(slots=True)
class _Known:
    """What is known of one unit from earlier ticks."""

    governing: tuple[Policy, ...]
    wanted: frozenset[str]
    limit_files: tuple[str, ...]
    """The files that thresholds of its conditions depend on."""
    levels: bool
    """Whether they depend on the limits of slices as well."""
    has_ceiling: bool
    """Whether memory.current may bound what all of its conditions are about."""
    sample: UnitSample | None = None
    """The last one that was read."""
    read_again: float = 0.0
    ceiling: float = 0.0
    """All conditions of steps are false while memory.current is less, and `limits` stay the same."""
    limits: object = None
    """Its limits then; None where it is read at every tick."""


class Sampling:
    """The samples of one watch; what the policies want of each unit is found once for all of its ticks.

    A unit of which no condition can have become true since it was read isn't read again: memory.current, which is cheap,
    bounds what the conditions are about. The values of the last reading then stay in use, for half a minute at most.

    Args:
        always: names of measures that are read of every unit, whatever the policies want.
        root: where cgroup v2 is mounted.
        kept: the files that are kept open from one tick to the next.
        reads_all: whether to read every unit at every tick.
    """

    def __init__(
        self,
        always: Collection[str] = (),
        root: Path = CGROUP_ROOT,
        kept: OpenFiles | None = None,
        *,
        reads_all: bool = False,
    ) -> None:
        self._always = frozenset((*always, "current"))
        self._around = Surroundings(root, kept)
        self._reads_all = reads_all
        self._policies: Sequence[Policy] = ()
        self._known: dict[tuple[str, ...], _Known] = {}

    def close(self) -> None:
        self._around.close()

    def take(
        self,
        tracker: Tracker,
        host: Host,
        policies: Sequence[Policy],
        state: State,
        now: float,
        alive: Callable[[], None],
    ) -> Sample:
        """Return a sample of every governed unit that has a cgroup; PSS is read only where a condition depends on it.

        Args:
            tracker: the units; those whose cgroup is found removed are marked there.
            host: the machine at this tick.
            policies: those in force.
            state: the engine's state.
            now: the time of the sample, by the monotonic clock.
            alive: called before each unit, since reading all units of a big machine takes long.
        """
        machine = host_values(host)
        if policies is not self._policies:
            self._policies, self._known = policies, {}
        before, self._known = self._known, {}
        self._around.begin()
        units, unread = {}, set()
        for tracked, cgroup in tracker.present():
            alive()
            name = tracked.unit.name
            known = self._known[tracked.unit.names] = before.get(tracked.unit.names) or self._of(tracked)
            try:
                # before the unit is read: limits that change meanwhile differ at the next tick
                limits = self._limits(known, cgroup, host) if known.has_ceiling else None
                if (unit := self._unread(known, tracked, cgroup, limits, state, now)) is not None:
                    unread.add(name)
                else:
                    unit = self._read(known, tracked, cgroup, host, now, tracker.oom_ends(name))
                    is_costly = not COSTLY_NAMES.isdisjoint(known.wanted)
                    if is_costly and is_undecided(known.governing, unit, state, now, machine):
                        unit = resolve(unit)
                    self._note(known, unit, limits, state, now, machine)
            except CgroupGoneError:
                tracker.mark_gone(name)
                continue
            except OSError as error:
                # unreadable is not gone: the invocation keeps its place, and nothing of it is known
                unit = _unreadable(tracked, cgroup, error)
            units[name] = unit
        return Sample(now, units, machine, tracker.unseen(), frozenset(unread), tracker.is_listed)

    def _of(self, tracked: Tracked) -> _Known:
        governing = tuple(policy for policy in self._policies if policy.governs(tracked.unit))
        wanted = wanted_measures(governing)
        fixed = [OPERANDS[name] for name in wanted if Trait.FIXED in OPERANDS[name].traits]
        files = {file for measure in fixed for file in measure.files}
        return _Known(
            governing,
            self._always | wanted,
            tuple(file for file in _LIMIT_FILES if file in files),
            any(Trait.LEVELS in measure.traits for measure in fixed),
            not self._reads_all
            and all(has_ceiling(step.when) for policy in governing for step in policy.steps),
        )

    def _read(
        self,
        known: _Known,
        tracked: Tracked,
        cgroup: Cgroup,
        host: Host,
        now: float,
        oom_ends: tuple[float, ...],
    ) -> UnitSample:
        unit = collect(tracked.unit, cgroup, host, known.wanted, around=self._around, at=now)
        return replace(unit, protected=tracked.protected, oom_ends=oom_ends, cgroup_made=tracked.cgroup_made)

    def _unread(
        self, known: _Known, tracked: Tracked, cgroup: Cgroup, limits: object, state: State, now: float
    ) -> UnitSample | None:
        """Return the last sample of a unit if none of its conditions can have become true since; None if it must be read.

        Raises:
            CgroupGoneError: the cgroup is removed.
        """
        last = known.sample
        if (
            last is None
            or limits is None
            or now >= known.read_again
            or last.unit is not tracked.unit
            or last.invocation is None
            or last.invocation.cgroup_inode != cgroup.inode
            or last.protected != tracked.protected
            or (before := last.current) is None
            or limits != known.limits
        ):
            return None
        for policy in known.governing:
            ladder = state.ladders.get((policy.name, last.name))
            if ladder is None or ladder.invocation != last.invocation or not ladder.is_idle:
                return None
        try:
            current = cgroup.current()
        except (OSError, ValueError):
            return None
        has_moved = abs(current - before) > before * _UNCHANGED
        return None if current >= known.ceiling or has_moved else last

    def _note(
        self, known: _Known, unit: UnitSample, limits: object, state: State, now: float, machine: HostSample
    ) -> None:
        """Note a sample that was read, and up to which memory.current it stays in use."""
        known.sample, known.limits = unit, limits
        if limits is None:
            return
        known.ceiling = min(
            (
                ceiling(step.when, facts)
                for policy in known.governing
                for facts in [facts_about(unit, policy, state, now, machine)]
                for step in policy.steps
            ),
            default=0.0,
        )
        shift = READ_EVERY * (len(self._known) % _SPREAD) / _SPREAD
        known.read_again = ((now + shift) // READ_EVERY + 1) * READ_EVERY - shift

    def _limits(self, known: _Known, cgroup: Cgroup, host: Host) -> object:
        """Return what the conditions of a unit depend on besides its use; None if it can't be read.

        Raises:
            CgroupGoneError: the cgroup is removed.
        """
        try:
            own = [cgroup.read_file(name) for name in known.limit_files]
        except OSError:  # without the memory controller, say
            return None
        above = self._around.ancestors.limits(cgroup.path) if known.levels else ()
        return own, above, host.limit, host.swap_total


def _unreadable(tracked: Tracked, cgroup: Cgroup, error: OSError) -> UnitSample:
    unit = tracked.unit
    return UnitSample(
        unit=unit,
        invocation=Invocation(unit.name, unit.invocation_id, cgroup.inode),
        protected=tracked.protected,
        unknown={cgroup.path: str(error)},
    )
