"""Taking the sample of one tick."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from unitmem.kernel.cgroup import Cgroup, CgroupGoneError
from unitmem.kernel.host import Host
from unitmem.kernel.limits import Level
from unitmem.kernel.oom_preference import read_oom_preference
from unitmem.manager.tracker import Tracked, Tracker
from unitmem.measure.collect import SliceValues, collect, resolve
from unitmem.measure.formulas import host_values
from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy.engine import is_candidate, is_undecided
from unitmem.policy.model import Policy, wanted_measures
from unitmem.policy.state import State
from unitmem.unit import Invocation


def take_sample(
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
    units = {}
    seen: dict[str, Level] = {}
    slices: dict[str, SliceValues] = {}
    for tracked, cgroup in tracker.present():
        alive()
        name = tracked.unit.name
        governing = tuple(policy for policy in policies if policy.governs(tracked.unit))
        try:
            wanted = wanted_measures(governing)
            unit = collect(tracked.unit, cgroup, host, wanted, seen=seen, slices=slices, at=now)
            unit = replace(
                unit,
                protected=tracked.protected,
                oom_ends=tracker.oom_ends(name),
                cgroup_made=tracked.cgroup_made,
            )
            if is_undecided(governing, unit, state, now, machine):
                unit = resolve(unit)
            if is_candidate(governing, unit, state, now, machine):
                unit = replace(unit, oom_preference=read_oom_preference(cgroup))
        except CgroupGoneError:
            tracker.mark_gone(name)
            continue
        except OSError as error:
            # unreadable is not gone: the invocation keeps its place, and nothing of it is known
            unit = _unreadable(tracked, cgroup, error)
        units[name] = unit
    return Sample(now, units, machine, tracker.unseen(), tracker.is_listed)


def _unreadable(tracked: Tracked, cgroup: Cgroup, error: OSError) -> UnitSample:
    unit = tracked.unit
    return UnitSample(
        unit=unit,
        invocation=Invocation(unit.name, unit.invocation_id, cgroup.inode),
        protected=tracked.protected,
        unknown={cgroup.path: str(error)},
    )
