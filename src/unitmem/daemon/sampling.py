"""Taking the sample of one tick."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path

from unitmem.kernel.cgroup import Cgroup, CgroupGoneError
from unitmem.kernel.files import CGROUP_ROOT, OpenFiles
from unitmem.kernel.host import Host
from unitmem.kernel.oom_preference import read_oom_preference
from unitmem.kernel.processes import Pins
from unitmem.manager.tracker import Tracked, Tracker
from unitmem.measure.catalogue import CGROUP_NAMES, OPERANDS, Trait
from unitmem.measure.collect import Surroundings, collect, resolve
from unitmem.measure.formulas import host_values
from unitmem.measure.sample import HostSample, Sample, UnitSample
from unitmem.policy.ceiling import ceiling, distance, has_ceiling
from unitmem.policy.condition import truth_of
from unitmem.policy.engine import facts_about
from unitmem.policy.model import Policy, Step, wanted_measures
from unitmem.policy.need import Need, costly_need, is_candidate
from unitmem.policy.state import Phase, State, StepState, step_state
from unitmem.policy.verdicts import is_close
from unitmem.unit import Invocation

READ_EVERY = 30.0
"""Seconds after which a unit is read whatever its memory.current is."""
_SPREAD = 16
"""The parts of that time over which units that were read at the same tick are spread."""
_UNCHANGED = 1 / 64
"""The share by which memory.current may differ for values that were read before to stay in use."""
FASTEST = 4 << 30
"""The bytes a second by which memory is taken to grow: what one thread can fill is less."""
QUICKEST = 0.1
"""The least seconds between two looks at a unit."""
_LIMIT_FILES = ("memory.max", "memory.high", "memory.swap.max")


@dataclass(slots=True)
class _Known:
    """What is known of one unit from earlier ticks."""

    governing: tuple[Policy, ...]
    wanted: frozenset[str]
    near: frozenset[str]
    """Those of the measures of its steps that are read between two ticks: no processes."""
    limit_files: tuple[str, ...]
    """The files that thresholds of its conditions depend on."""
    levels: bool
    """Whether they depend on the limits of slices as well."""
    has_ceiling: bool
    """Whether memory.current may bound what all of its conditions are about."""
    cgroup: Cgroup | None = None
    sample: UnitSample | None = None
    """The last one that was read."""
    read_again: float = 0.0
    ceiling: float = 0.0
    """All conditions of steps are false while memory.current is less, and `limits` stay the same."""
    limits: object = None
    """Its limits then; None where it is read at every tick."""
    look_at: float = inf
    """When a step that is idle may be due, at the fastest growth."""


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
        self._unknown: dict[tuple[Policy, ...], _Known] = {}
        """What is known of a unit beforehand, by the policies that govern it."""
        self._host, self._machine = Host(None), HostSample()
        self._at = 0.0
        self.look_at = inf
        """When the next unit is to be looked at between two ticks."""

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
            self._policies, self._known, self._unknown = policies, {}, {}
        before, self._known = self._known, {}
        self._host, self._machine, self._at = host, machine, now
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
                    with Pins() as pins:
                        unit = self._read(known, tracked, cgroup, host, now, tracker.oom_ends(name), pins)
                        need = partial(costly_need, known.governing, state=state, now=now, host=machine)
                        unit = read_needed(unit, pins, need) if unit.processes else unit
                    if is_candidate(known.governing, unit, state, now, machine):
                        unit = replace(unit, oom_preference=read_oom_preference(cgroup))
                    self._note(known, unit, limits, state, now, machine)
                known.cgroup = cgroup
            except CgroupGoneError:
                known.look_at = inf
                tracker.mark_gone(name)
                continue
            except OSError as error:
                # unreadable is not gone: the invocation keeps its place, and nothing of it is known
                unit = _unreadable(tracked, cgroup, error)
            units[name] = unit
        self.look_at = min((known.look_at for known in self._known.values()), default=inf)
        return Sample(now, units, machine, tracker.unseen(), frozenset(unread), tracker.is_listed)

    @property
    def nearest(self) -> tuple[str, float] | None:
        """The unit that is nearest to a threshold, and the seconds until it is looked at; None if none is near to one."""
        near = [known for known in self._known.values() if known.sample is not None and known.look_at < inf]
        nearest = min(near, key=lambda known: known.look_at, default=None)
        if nearest is None or nearest.sample is None:
            return None
        return nearest.sample.name, nearest.look_at - self._at

    def look(self, state: State, now: float, changed: Collection[int] = ()) -> bool:
        """Look at the units of which a step may be due before the next tick; return whether a condition has become true.

        They alone are read, and of those only memory.current while that bounds them. Nothing is decided here.

        Args:
            state: the engine's state after the last tick.
            now: the time, by the monotonic clock.
            changed: the inodes of cgroups whose memory.events has changed. Their units are read at the next tick; what else
                than memory their conditions may be about is left to a tick.
        """
        is_true = False
        for known in self._known.values():
            has_changed = known.cgroup is not None and known.cgroup.inode in changed
            if has_changed:
                known.read_again = now
                is_true = is_true or not known.has_ceiling
            if has_changed or known.look_at <= now:
                try:
                    left = self._look_at(known, state, now)
                except (CgroupGoneError, OSError, ValueError):
                    left = inf  # the next tick sees what it is
                self._set_pace(known, left, now)
                is_true = is_true or left <= 0
        self.look_at = min((known.look_at for known in self._known.values()), default=inf)
        return is_true

    def _look_at(self, known: _Known, state: State, now: float) -> float:
        """Return the least distance of a unit from what a step that is idle waits for.

        Raises:
            CgroupGoneError, OSError, ValueError: it can't be read.
        """
        if known.cgroup is None or known.sample is None:
            return inf
        if known.limits is not None and (left := known.ceiling - known.cgroup.current()) > 0:
            return left
        unit = collect(known.sample.unit, known.cgroup, self._host, known.near, around=self._around, at=now)
        return self._distance(known, unit, state, now)

    def _set_pace(self, known: _Known, left: float, now: float) -> None:
        # what is true already is the tick's to judge
        known.look_at = now + max(QUICKEST, left / FASTEST) if left > 0 else inf

    def _distance(self, known: _Known, unit: UnitSample, state: State, now: float) -> float:
        if unit.invocation in state.ending:
            return inf
        left = inf
        for policy in known.governing:
            facts = facts_about(unit, policy, state, now, self._machine)
            ladder = state.ladders.get((policy.name, unit.name))
            for index, step in enumerate(policy.steps):
                if _is_awaited(step, step_state(ladder, index)):
                    left = min(left, distance(step.when, facts))
        return left

    def _is_close(self, known: _Known, unit: UnitSample, state: State, now: float) -> bool:
        """Return whether a condition of a unit holds so closely that the next look has to agree before a step fires."""
        return any(
            truth_of(step.when, facts) and is_close(step, before, facts)
            for policy in known.governing
            for facts in [facts_about(unit, policy, state, now, self._machine)]
            for index, step in enumerate(policy.steps)
            for before in [step_state(state.ladders.get((policy.name, unit.name)), index)]
        )

    def _of(self, tracked: Tracked) -> _Known:
        governing = tuple(policy for policy in self._policies if policy.governs(tracked.unit))
        if governing not in self._unknown:
            self._unknown[governing] = self._governed_by(governing)
        return replace(self._unknown[governing])

    def _governed_by(self, governing: tuple[Policy, ...]) -> _Known:
        wanted = wanted_measures(governing)
        fixed = [OPERANDS[name] for name in wanted if Trait.FIXED in OPERANDS[name].traits]
        files = {file for measure in fixed for file in measure.files}
        return _Known(
            governing,
            self._always | wanted,
            CGROUP_NAMES & wanted,
            tuple(file for file in _LIMIT_FILES if file in files),
            any(Trait.LEVELS in measure.traits for measure in fixed),
            not self._reads_all
            and all(has_ceiling(step.when) for policy in governing for step in policy.steps)
            # what looks over a span of time needs every look, also beside a size that isn't met
            and not any(term.span is not None for policy in governing for term in policy.comparisons),
        )

    def _read(
        self,
        known: _Known,
        tracked: Tracked,
        cgroup: Cgroup,
        host: Host,
        now: float,
        oom_ends: tuple[float, ...],
        pins: Pins,
    ) -> UnitSample:
        unit = collect(tracked.unit, cgroup, host, known.wanted, around=self._around, at=now, pins=pins)
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
        self._set_pace(known, known.ceiling - current, now)
        has_moved = abs(current - before) > before * _UNCHANGED
        return None if current >= known.ceiling or has_moved else last

    def _note(
        self, known: _Known, unit: UnitSample, limits: object, state: State, now: float, machine: HostSample
    ) -> None:
        """Note a sample that was read, and up to which memory.current it stays in use."""
        known.sample, known.limits = unit, limits
        left = self._distance(known, unit, state, now)
        self._set_pace(known, left, now)
        if left <= 0 and self._is_close(known, unit, state, now):
            known.look_at = now + QUICKEST
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


def _is_awaited(step: Step, state: StepState) -> bool:
    """Return whether a step waits for its condition to hold, or for a second look that agrees with the first one."""
    is_unproven = state.phase is Phase.HOLDING and state.held == step.hold == 0 and state.withheld is None
    return state.phase is Phase.IDLE or is_unproven


def read_needed(unit: UnitSample, pins: Pins, need_of: Callable[[UnitSample], Need]) -> UnitSample:
    """Return `unit` with PSS of as many of its processes as the conditions need."""
    match need_of(unit):
        case Need.NOTHING:
            return unit
        case Need.BOUNDS:
            return resolve(unit, pins=pins, is_enough=lambda closer: need_of(closer) is Need.NOTHING)
        case Need.VALUES:
            return resolve(unit, pins=pins)


def _unreadable(tracked: Tracked, cgroup: Cgroup, error: OSError) -> UnitSample:
    unit = tracked.unit
    return UnitSample(
        unit=unit,
        invocation=Invocation(unit.name, unit.invocation_id, cgroup.inode),
        protected=tracked.protected,
        unknown={cgroup.path: str(error)},
    )
