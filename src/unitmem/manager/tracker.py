"""The governed units and their open cgroups, kept up to date by one listing and then the manager's signals.

A listing is costly for PID 1 on a big machine, so it is made at the start, after the manager has reloaded, and
after the bus was away. In between, signals say which unit to describe again. A unit that is being started has
its cgroup before its job is done, and may leak by then: while a job runs, its unit is described at every update.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic, time

from unitmem.errors import BusError, BusLostError, NoSuchUnitError
from unitmem.kernel.cgroup import Cgroup, CgroupGoneError
from unitmem.kernel.files import CGROUP_ROOT, OpenFiles
from unitmem.kernel.memory_events import MemoryEvents
from unitmem.manager.signals import Change
from unitmem.manager.systemd import Manager
from unitmem.unit import CGROUP_KINDS, CORE_UNITS, Unit, matches, protection, unit_kind

_MOST_ENDS, _MOST_UNITS = 256, 1000
"""The most ends by an OOM kill that are remembered of a unit, and the most units of which any are."""
_IN_TRANSITION = frozenset({"activating", "deactivating", "reloading", "maintenance"})


@dataclass(slots=True)
class Tracked:
    """A unit with its open cgroup, if it has one now."""

    unit: Unit
    cgroup: Cgroup | None = None
    protected: str | None = None
    """The reason for which a policy must name it exactly to touch it; None if it isn't protected."""
    cgroup_made: float | None = None
    """When its cgroup was made, by the monotonic clock, as seen when it was opened. It may have been earlier: cgroupfs tells
    when a directory was changed last, and not its birth."""


class Tracker:
    """The units that `governs` accepts, kept up to date.

    Args:
        governs: whether a policy governs the unit of that name.
        own_cgroup: the cgroup path of this process, whose unit and slices are protected.
        root: where cgroup v2 is mounted.
        names: units of interest that are named exactly: one that isn't listed may be an alias.
        counts_oom: whether to remember the runs that an OOM kill ended, for `oom_ends`.
        kept: the files that are kept open from one reading to the next; None: none are.
    """

    def __init__(
        self,
        governs: Callable[[str], bool],
        own_cgroup: str | None,
        root: Path = CGROUP_ROOT,
        names: Collection[str] = (),
        *,
        counts_oom: bool = False,
        kept: OpenFiles | None = None,
    ) -> None:
        self._kept = kept
        self.events = MemoryEvents()
        self._counts_oom = counts_oom
        self._oom_killed: dict[str, float] = {}
        self._oom_ends: dict[str, deque[float]] = {}
        self._governs = governs
        self._names = frozenset(names)
        self._aliases: dict[str, str] = {}
        self._own_cgroup = own_cgroup
        self._root = root
        self._units: dict[str, Tracked] = {}
        self._core: dict[str, str] = {}
        self._jobs: set[str] = set()
        self._stale: set[str] = set()
        self._must_list = True
        self.has_reloaded = False
        """Whether the manager signalled that it has reloaded its units, as of the last update."""
        self.refusal: str | None = None
        """The reason for which the manager refuses to list units, if it does."""
        self.is_listed = False
        """Whether units were listed: before, any unit may run unseen."""
        self.has_opened = False
        """Whether the cgroup of a unit was opened since the user of this has set it to False."""
        self.unopened: dict[str, str] = {}
        """Units whose cgroup can't be opened, which are therefore unseen, with the reasons."""

    def close(self) -> None:
        for tracked in self._units.values():
            self._let_go(tracked)
        self._units.clear()
        self.events.close()

    def govern(
        self, governs: Callable[[str], bool], names: Collection[str] = (), *, counts_oom: bool = False
    ) -> None:
        """Take an interest in other units from the next update on; the arguments are those of the class."""
        self._governs = governs
        self._counts_oom = counts_oom
        self._names = frozenset(names)
        self._aliases = {alias: name for alias, name in self._aliases.items() if alias in names}
        self._must_list = True

    def resume(self) -> None:
        """List the units anew at the next update, since signals were missed."""
        self._must_list = True

    def update(
        self, manager: Manager, alive: Callable[[], None] = lambda: None, now: float | None = None
    ) -> None:
        """Update the units by the manager's signals since the last call.

        Args:
            manager: the connected manager.
            alive: called before each unit, since describing all units of a big machine takes long.
            now: the time, for `oom_ends`.

        Raises:
            BusLostError: no answer; the units stay as they were, and `resume` is due.
        """
        if self._counts_oom and not manager.follows_results:
            with _refusals_ignored():
                manager.follow_results(self._counts_oom_of)
        self.has_reloaded = False
        self._note_changes(manager, now)
        if self._must_list:
            try:
                self._list(manager)
                self.refusal = None
            except BusLostError:
                raise
            except BusError as error:  # asked for again next time
                self.refusal = str(error)
        # what protects others first: a slice must not be seen before the core units in it. Then what isn't known yet:
        # where the manager answers now and then, each attempt has to come further than the last
        order = sorted(self._stale | self._unsettled(), key=lambda name: name in self._units)
        for name in sorted(order, key=lambda name: not matches(name, CORE_UNITS)):
            alive()
            # what has ended since isn't asked for: each call that fails leaks a kilobyte in pystemd
            self._note_changes(manager, now)
            if name not in self._stale and name not in self._units:
                continue
            with _refusals_ignored():
                self._look_at(name, manager)
                if name not in self.unopened:
                    self._stale.discard(name)

    def _note_changes(self, manager: Manager, now: float | None) -> None:
        """Note what the manager's signals since the last call say: which units to describe, and which are gone."""
        for change in manager.changes():
            name = change.unit
            if change.change is Change.RESULT:
                if name is not None and now is not None:
                    self._note_result(name, change.result, now)
                continue
            if change.change is Change.RELOADED:
                self._must_list = self.has_reloaded = True
            if name is None:
                continue
            if change.change is Change.APPEARED:
                # it may be what a name that nobody knew so far is an alias of, which has the same kind
                self._stale |= {
                    other for other in self._unknown_names() if unit_kind(other) == unit_kind(name)
                }
            if not self._is_of_interest(name):
                continue
            match change.change:
                case Change.VANISHED:
                    self._forget(name)
                    continue
                case Change.JOB_QUEUED:
                    self._jobs.add(name)
                case Change.JOB_DONE:
                    self._jobs.discard(name)
            self._stale.add(name)

    def present(self) -> list[tuple[Tracked, Cgroup]]:
        """Return every governed unit that has an open cgroup, with that cgroup, in the order of names."""
        return [
            (tracked, tracked.cgroup)
            for _, tracked in sorted(self._units.items())
            if tracked.cgroup is not None and self._is_governed(tracked.unit.name)
        ]

    def unseen(self) -> frozenset[str]:
        """Return the units that may run although they are not `present`."""
        return frozenset((self._stale - self._units.keys()) | self.unopened.keys())

    def oom_ends(self, name: str) -> tuple[float, ...]:
        """Return the times of the OOM kills that ended earlier runs of that unit, as far as they were seen."""
        return tuple(self._oom_ends.get(name, ()))

    def find(self, name: str) -> Tracked | None:
        return self._units.get(name)

    def mark_gone(self, name: str) -> None:
        """Close the cgroup of that unit, which was found removed, and describe the unit again at the next update."""
        tracked = self._units.get(name)
        if tracked is not None:
            self._let_go(tracked)
            self._stale.add(name)

    # --- keeping up ---

    def _is_of_interest(self, name: str) -> bool:
        return unit_kind(name) in CGROUP_KINDS and (self._is_governed(name) or matches(name, CORE_UNITS))

    def _is_governed(self, name: str) -> bool:
        return self._governs(name) or name in self._aliases.values()

    def _counts_oom_of(self, name: str) -> bool:
        return self._counts_oom and self._is_governed(name)

    def _note_result(self, name: str, result: str | None, now: float) -> None:
        """Note an end by an OOM kill once the next run begins: until then the kill is in the run's own counter."""
        if result == "oom-kill":
            self._oom_killed.setdefault(name, now)
        elif name in self._oom_killed:
            at = self._oom_killed.pop(name)
            self._oom_ends.setdefault(name, deque(maxlen=_MOST_ENDS)).append(at)
        for noted in (self._oom_killed, self._oom_ends):
            if len(noted) > _MOST_UNITS:
                del noted[next(iter(noted))]

    def _unknown_names(self) -> set[str]:
        """Return the names that are neither those of known units nor known as aliases."""
        return {name for name in self._names if name not in self._units and name not in self._aliases}

    def _unsettled(self) -> set[str]:
        return {
            name
            for name, tracked in self._units.items()
            if tracked.cgroup is None and (name in self._jobs or tracked.unit.active_state in _IN_TRANSITION)
        }

    def _list(self, manager: Manager) -> None:
        names = {unit.name for unit in manager.list_units() if self._is_of_interest(unit.name)}
        self._must_list = False
        self.is_listed = True
        self._jobs &= names
        for name in self._units.keys() - names:
            self._forget(name)
        self._stale |= names | self._unknown_names()

    def _look_at(self, name: str, manager: Manager) -> None:
        try:
            unit = manager.describe(name)
        except NoSuchUnitError:
            self._forget(name)
            return
        if unit.name != name:  # an alias: the unit is tracked under its own name
            self._forget(name)
            if name not in self._names:
                return
            self._aliases[name] = name = unit.name
        aliases = tuple(sorted(alias for alias, meant in self._aliases.items() if meant == name))
        unit = replace(unit, aliases=aliases)
        tracked = self._units.setdefault(name, Tracked(unit))
        tracked.unit = unit
        self._bind(tracked)
        self._note_core(unit)
        tracked.protected = protection(unit, self._own_cgroup, tuple(self._core.items()))

    def _bind(self, tracked: Tracked) -> None:
        """Open the unit's cgroup, unless the one that is open is still the unit's."""
        path = tracked.unit.control_group
        held = tracked.cgroup
        if held is not None and held.path == path and held.exists():
            return
        self._let_go(tracked)
        self.unopened.pop(tracked.unit.name, None)
        if path is None or not self._is_governed(tracked.unit.name):
            return
        try:
            tracked.cgroup = Cgroup(path, self._root, self._kept)
            self.has_opened = True
            tracked.cgroup_made = monotonic() - max(0.0, time() - tracked.cgroup.changed_at)
            self.events.add(tracked.cgroup)
        except CgroupGoneError:
            return  # stopped since; a signal of that is on its way
        except OSError as error:  # too many open files, say
            self._let_go(tracked)
            self.unopened[tracked.unit.name] = str(error)

    def _note_core(self, unit: Unit) -> None:
        """Note the cgroup of a core unit: every slice around it is protected as well."""
        if matches(unit.name, CORE_UNITS):
            self._place_core(unit.name, unit.control_group)

    def _place_core(self, name: str, path: str | None) -> None:
        if path == self._core.get(name):
            return
        if path is None:
            del self._core[name]
        else:
            self._core[name] = path
        for tracked in self._units.values():
            tracked.protected = protection(tracked.unit, self._own_cgroup, tuple(self._core.items()))

    def _forget(self, name: str) -> None:
        tracked = self._units.pop(name, None)
        if tracked is not None:
            self._let_go(tracked)
        self._place_core(name, None)
        self._jobs.discard(name)
        self._stale.discard(name)
        self.unopened.pop(name, None)
        self._aliases = {alias: meant for alias, meant in self._aliases.items() if meant != name}

    def _let_go(self, tracked: Tracked) -> None:
        if tracked.cgroup is not None:
            self.events.remove(tracked.cgroup)
            tracked.cgroup.close()
            tracked.cgroup = None


@contextmanager
def _refusals_ignored() -> Iterator[None]:
    """Ignore refusals of the manager: the unit stays stale, and is described again next time.

    Raises:
        BusLostError: no answer.
    """
    try:
        yield
    except BusLostError:
        raise
    except BusError:
        return
