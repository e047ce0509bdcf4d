"""The library's `System`: the units of a service manager and their memory.

Units are listed and described by the manager over D-Bus; their memory is read from the kernel's files.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias

from unitmem.errors import NoSuchUnitError
from unitmem.kernel.cgroup import CgroupGoneError, own_cgroup, require_memory_controller
from unitmem.kernel.files import CGROUP_ROOT, PROC_ROOT
from unitmem.measure.catalogue import CGROUP_NAMES, OPERANDS, UNIT_NAMES
from unitmem.measure.sample import Sample, UnitSample
from unitmem.measure.snapshot import Sampler, take_sample
from unitmem.text import close_to, seconds
from unitmem.unit import ManagerKind, complete_name, is_glob, matches, unit_kind

if TYPE_CHECKING:
    from unitmem.manager.systemd import Manager
    from unitmem.manager.tracker import Tracker

Connect: TypeAlias = "Callable[[ManagerKind], Manager]"


def connect(kind: ManagerKind) -> Manager:
    """Open a connection to a service manager.

    Raises:
        UnsupportedSystemError: this machine isn't run by systemd.
        BusError: the manager can't be reached.
    """
    from unitmem.manager.systemd import Manager  # noqa: PLC0415 - pystemd, which not every caller needs

    return Manager(kind)


class System:
    """The units of the machine's service manager, or of the calling user's own, and their memory.

    A connection to the manager, which `close` or the end of a `with` block gives up. For one thread:
    another one takes a `System` of its own.

    Args:
        user: whether it is the calling user's manager.
        connect: opens the connection; a test brings its own.
        cgroups: where cgroup v2 is mounted.
        proc: where /proc is.

    Raises:
        UnsupportedSystemError: the machine isn't run by systemd, or has no cgroup v2 with a memory controller.
        BusError: the manager can't be reached.
    """

    def __init__(
        self,
        *,
        user: bool = False,
        connect: Connect = connect,
        cgroups: Path = CGROUP_ROOT,
        proc: Path = PROC_ROOT,
    ) -> None:
        self._kind = ManagerKind.of(user=user)
        self._connect = connect
        self._cgroups = cgroups
        self._proc = proc
        # systemd first: a machine without it most often lacks cgroup v2 too, and for that reason
        self.manager = connect(self._kind)
        """The connection; `list_units`, `describe` and the like ask it."""
        try:
            require_memory_controller(cgroups)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; no other method may be called afterwards."""
        self.manager.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def units(self, *patterns: str, measures: Collection[str] | None = None) -> list[UnitSample]:
        """Sample every unit that `patterns` mean, by name.

        Args:
            patterns: names and shell globs, completed as systemctl does (`ssh` is `ssh.service`). A name
                means that unit, whatever its state. A glob means the loaded units that match and have a
                cgroup. None at all means every unit with a cgroup except slices, which are sums of the others.
            measures: names of those that are needed; None is all of them. Others may be known as well, but
                those of processes are not read unless they are asked for. PSS and its like take some 15 ms
                a GiB, for which each process waits.

        Raises:
            NoSuchUnitError: a name, not a glob, of which no unit is loaded.
            BusError: the manager doesn't answer, or refuses.
            UnsupportedSystemError: the machine's memory can't be read.
            ValueError: there is no such measure.
        """
        return list(self.sample(*patterns, measures=measures).units.values())

    def unit(self, name: str, measures: Collection[str] | None = None) -> UnitSample:
        """Sample the unit `name`, or the one that it is an alias of; one that has no cgroup has no known measure.

        Args and errors are those of `units`.

        Raises:
            ValueError: `name` is a glob.
            NoSuchUnitError: no unit of that name is loaded, or it has just stopped.
        """
        if is_glob(name):
            raise ValueError(f"{name!r} is a pattern: `units` takes patterns, `unit` one name")
        for unit in self.units(name, measures=measures):
            return unit
        raise NoSuchUnitError(f"{name} stopped while it was being read", "try again")

    def sample(
        self,
        *patterns: str,
        measures: Collection[str] | None = None,
        include_all: bool = False,
        skip_missing: bool = False,
        brief: bool = False,
    ) -> Sample:
        """Sample the machine and every unit that `patterns` mean.

        Args and errors are those of `units`.

        Args:
            patterns: as there.
            measures: as there.
            include_all: also slices where there are no patterns, and loaded units without a cgroup.
            skip_missing: leave out a name of which no unit is loaded.
            brief: leave out invocations, main and control processes and ages, which take several calls for each unit,
                and every measure that isn't asked for.
        """
        return take_sample(
            self.manager,
            patterns,
            wanted=_checked(measures),
            include_all=include_all,
            skip_missing=skip_missing,
            brief=brief,
            cgroups=self._cgroups,
            proc=self._proc,
        )

    def follow(
        self, *patterns: str, interval: float = 5.0, measures: Collection[str] | None = None
    ) -> Iterator[Sample]:
        """Return an iterator of samples: one now, one every `interval`, and one when the manager starts or ends a unit.

        It keeps its phase, however long the caller takes between two samples; those that were due meanwhile
        become one. Units that match and appear later are in it as well. The manager is listened to rather
        than asked again and again. A connection of its own ends with the iterator (`close` it, or let it go).

        Args:
            patterns: names and globs, as in `units`; a name of which no unit is loaded is waited for.
            interval: seconds from one sample to the next.
            measures: as in `units`.

        Raises:
            BusError: the manager can't be followed; later, that the connection is lost (`BusLostError`).
            UnsupportedSystemError: the machine's memory can't be read.
            ValueError: there is no such measure, or no such interval.
        """
        # checked at the call, and not as the first sample is asked for
        return self._follow(patterns, seconds(interval), _checked(measures))

    def _follow(self, patterns: Sequence[str], interval: float, wanted: Collection[str]) -> Iterator[Sample]:
        from unitmem.manager.tracker import Tracker  # noqa: PLC0415 - pystemd

        names = [complete_name(pattern) for pattern in patterns]
        exact = [name for name in names if not is_glob(name)]

        def is_meant(name: str) -> bool:
            return matches(name, names) if names else unit_kind(name) != "slice"

        tracker = Tracker(is_meant, own_cgroup(self._proc), self._cgroups, exact)
        with self._connect(self._kind) as manager:
            try:
                manager.follow()
                started = due = time.monotonic()
                before: object = None
                while True:
                    tracker.update(manager)
                    runs = {
                        (each.unit.name, each.unit.invocation_id, cgroup.inode)
                        for each, cgroup in tracker.present()
                    }
                    # a signal about another unit is no reason to read these
                    if time.monotonic() >= due or runs != before:
                        before = runs
                        yield self._sample(tracker, wanted)
                    now = time.monotonic()
                    if now >= due:
                        due = started + ((now - started) // interval + 1) * interval
                    select.select([manager], [], [], due - now)
            finally:
                tracker.close()

    def _sample(self, tracker: Tracker, wanted: Collection[str]) -> Sample:
        """Sample the units that are present, and the machine."""
        sampler = Sampler(CGROUP_NAMES.union(wanted), self._cgroups, self._proc)
        units = {}
        for tracked, cgroup in tracker.present():
            try:
                unit = sampler.read(tracked.unit, cgroup)
            except CgroupGoneError:
                tracker.mark_gone(tracked.unit.name)
            else:
                units[tracked.unit.name] = replace(unit, protected=tracked.protected)
        return replace(sampler.sample(units), unseen=tracker.unseen(), is_complete=tracker.is_listed)


def _checked(measures: Collection[str] | None) -> Collection[str]:
    if measures is None:
        return UNIT_NAMES
    for name in measures:
        if name not in OPERANDS:
            raise ValueError(f"there is no measure {name!r}{close_to(name, OPERANDS)}")
    return measures
