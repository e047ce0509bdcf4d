"""Taking the sample of one tick."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from unitmem.kernel.cgroup import Cgroup, CgroupGoneError
from unitmem.kernel.files import CGROUP_ROOT, OpenFiles
from unitmem.kernel.host import Host
from unitmem.manager.tracker import Tracked, Tracker
from unitmem.measure.catalogue import COSTLY_NAMES
from unitmem.measure.collect import Surroundings, collect, resolve
from unitmem.measure.formulas import host_values
from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy.engine import is_undecided
from unitmem.policy.model import Policy, wanted_measures
from unitmem.policy.state import State
from unitmem.unit import Invocation


class Sampling:
    """The samples of one watch; what the policies want of each unit is found once for all of its runs.

    Args:
        always: names of measures that are read of every unit, whatever the policies want.
        root: where cgroup v2 is mounted.
        kept: the files that are kept open from one tick to the next.
    """

    def __init__(
        self, always: Collection[str] = (), root: Path = CGROUP_ROOT, kept: OpenFiles | None = None
    ) -> None:
        self._always = frozenset(always)
        self._around = Surroundings(root, kept)
        self._policies: Sequence[Policy] = ()
        self._wanted: dict[tuple[str, ...], tuple[tuple[Policy, ...], frozenset[str]]] = {}

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
            self._policies, self._wanted = policies, {}
        before, self._wanted = self._wanted, {}
        self._around.begin()
        units = {}
        for tracked, cgroup in tracker.present():
            alive()
            names = tracked.unit.names
            governing, wanted = self._wanted[names] = before.get(names) or self._of(tracked)
            try:
                unit = collect(tracked.unit, cgroup, host, wanted, around=self._around, at=now)
                unit = replace(
                    unit,
                    protected=tracked.protected,
                    oom_ends=tracker.oom_ends(tracked.unit.name),
                    cgroup_made=tracked.cgroup_made,
                )
                is_costly = not COSTLY_NAMES.isdisjoint(wanted)
                if is_costly and is_undecided(governing, unit, state, now, machine):
                    unit = resolve(unit)
            except CgroupGoneError:
                tracker.mark_gone(tracked.unit.name)
                continue
            except OSError as error:
                # unreadable is not gone: the invocation keeps its place, and nothing of it is known
                unit = _unreadable(tracked, cgroup, error)
            units[tracked.unit.name] = unit
        return Sample(now, units, machine, tracker.unseen(), tracker.is_listed)

    def _of(self, tracked: Tracked) -> tuple[tuple[Policy, ...], frozenset[str]]:
        """Return the policies that govern a unit, and the measures that are wanted of it."""
        governing = tuple(policy for policy in self._policies if policy.governs(tracked.unit))
        return governing, self._always | wanted_measures(governing)


def _unreadable(tracked: Tracked, cgroup: Cgroup, error: OSError) -> UnitSample:
    unit = tracked.unit
    return UnitSample(
        unit=unit,
        invocation=Invocation(unit.name, unit.invocation_id, cgroup.inode),
        protected=tracked.protected,
        unknown={cgroup.path: str(error)},
    )
