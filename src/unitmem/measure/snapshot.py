"""Taking one sample of the units that patterns name: the manager lists and describes them, the kernel's files are read.

For single samples. A watch follows the manager's signals instead (`manager.tracker`), because listing units is
costly for PID 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Protocol

from unitmem.errors import NoSuchUnitError, reason_of
from unitmem.kernel.cgroup import Cgroup, CgroupGoneError
from unitmem.kernel.files import CGROUP_ROOT, PROC_ROOT, OpenFiles
from unitmem.kernel.host import read_host
from unitmem.kernel.process import with_command
from unitmem.kernel.unit_cgroups import Place, find_unit_cgroups
from unitmem.measure.catalogue import CGROUP_NAMES, COSTLY_NAMES, UNIT_NAMES
from unitmem.measure.collect import Surroundings, collect, resolve
from unitmem.measure.formulas import host_values
from unitmem.measure.sample import Sample, UnitSample
from unitmem.unit import CGROUP_KINDS, Unit, complete_name, is_core, is_glob, matches, protection

_NO_CGROUP = "the unit has no cgroup now"
_FILES_OF_A_CGROUP = 32
"""More than are ever read of one."""


class UnitSource(Protocol):
    """The methods of a service manager that `take_sample` calls; `systemd.Manager` has them."""

    def list_units(self) -> list[Unit]: ...

    def control_group(self) -> str: ...

    def complete(self, unit: Unit) -> Unit: ...

    def describe(self, name: str, *, at_once: bool = False) -> Unit: ...


def take_sample(
    manager: UnitSource,
    patterns: Sequence[str] = (),
    *,
    wanted: Collection[str] = (),
    include_all: bool = False,
    skip_missing: bool = False,
    brief: bool = False,
    cgroups: Path = CGROUP_ROOT,
    proc: Path = PROC_ROOT,
) -> Sample:
    """Sample every unit that `patterns` mean; one that stops meanwhile is left out.

    The manager lists the units, and their cgroups are found by the names of directories; what it alone knows of each
    is asked for unit by unit, which takes most of the time.

    Args:
        manager: the manager of the units.
        patterns: names and shell globs, completed as systemctl does (`ssh` is `ssh.service`). A name
            means that unit, whatever its state. A glob means the loaded units that match and have a
            cgroup. None at all means every unit with a cgroup except slices, which are sums of the others.
        wanted: names of measures; those of processes are read only if they are asked for, the others always.
        include_all: also slices where there are no patterns, and loaded units without a cgroup.
        skip_missing: leave out a name of which no unit is loaded.
        brief: leave out the invocation, the main and control process and the age, so that two calls do for all units
            that are listed; and every measure that isn't wanted.
        cgroups: where cgroup v2 is mounted.
        proc: where /proc is.

    Raises:
        NoSuchUnitError: a name, not a glob, of which no unit is loaded, unless that is skipped.
        BusError: the manager doesn't answer.
        UnsupportedSystemError: the host can't be read.
    """
    sampler = Sampler(wanted if brief else CGROUP_NAMES.union(wanted), cgroups, proc)
    names = [complete_name(pattern) for pattern in patterns]
    exact = [name for name in names if not is_glob(name)]
    globs = [name for name in names if is_glob(name)] if names else ["*"]
    loaded: dict[str, Unit] = {}
    places: dict[str, Place | None] = {}
    if globs or (brief and len(exact) > 1):
        loaded = {unit.name: unit for unit in manager.list_units() if is_present(unit)}
        places = find_unit_cgroups(manager.control_group(), cgroups)

    @cache
    def look_up(name: str) -> Unit:
        unit, place = loaded.get(name), places.get(name)
        if unit is not None and brief and name not in places:
            return unit
        if unit is None or place is None:  # an alias, say, or a name that is in two slices
            return manager.describe(name, at_once=True)
        unit = replace(unit, control_group=place.path, slice=place.slice)
        return unit if brief else manager.complete(unit)

    named = list(_described(exact, look_up)) if skip_missing else [look_up(name) for name in exact]
    exact_names = {unit.name for unit in named}
    matching = {
        name: unit
        for name, unit in loaded.items()
        if unit.kind in CGROUP_KINDS
        and matches(name, globs)
        and (include_all or unit.active_state != "inactive")
        and (include_all or name in places)
        and (include_all or names or unit.kind != "slice")
    }
    described = {unit.name: unit for unit in _described(matching, look_up)}
    if not include_all:
        described = {name: unit for name, unit in described.items() if unit.control_group is not None}
    for unit in named:
        known = described.get(unit.name, unit)
        described[unit.name] = replace(unit, aliases=tuple(sorted({*known.aliases, *unit.aliases})))
    if not places:
        places = _places_in_slices(described.values(), cgroups)
    core = [(name, place.path) for name, place in places.items() if place is not None and is_core(name)]
    units = {}
    for name, unit in sorted(described.items()):
        sample = sampler.at(unit)
        if sample is None and (include_all or name in exact_names):
            sample = _unknown(unit, _NO_CGROUP) if brief else _without_cgroup(unit, manager)
        if sample is not None:
            # what a policy's service may not touch; this process and its session are no part of it
            protected = protection(unit, None, core)
            units[name] = sample if protected is None else replace(sample, protected=protected)
    return sampler.sample(units)


def sample_units(
    units: Iterable[Unit],
    *,
    wanted: Collection[str] = (),
    cgroups: Path = CGROUP_ROOT,
    proc: Path = PROC_ROOT,
) -> Sample:
    """Sample each of `units` from the kernel's files alone, without a call to the manager.

    A unit that has stopped is left out; one that was started again in the same cgroup is included.

    Raises:
        UnsupportedSystemError: the host can't be read.
    """
    sampler = Sampler(CGROUP_NAMES.union(wanted), cgroups, proc)
    # of a run that has begun since, nobody has asked how long it has been up
    samples = {unit.name: sampler.at(replace(unit, up_since=None)) for unit in units}
    return sampler.sample({name: sample for name, sample in samples.items() if sample is not None})


def is_present(unit: Unit) -> bool:
    """Return whether a listed unit exists: it is loaded, or still runs without a file."""
    return unit.load_state != "not-found" or unit.active_state != "inactive"


class Sampler:
    """One reading of the kernel's files, in which the host and each slice are read once.

    Args:
        wanted: names of measures.
        cgroups: where cgroup v2 is mounted.
        proc: where /proc is.

    Raises:
        UnsupportedSystemError: the host can't be read.
    """

    def __init__(self, wanted: Collection[str], cgroups: Path, proc: Path) -> None:
        self._at = time.monotonic()
        self._wanted = frozenset(wanted)
        self._cgroups = cgroups
        self._proc = proc
        self._host = read_host(proc)
        self._around = Surroundings(cgroups)

    def sample(self, units: Mapping[str, UnitSample]) -> Sample:
        """Return a sample of `units`, which were read by this sampler, and of the host."""
        return Sample(self._at, units, host_values(self._host))

    def at(self, unit: Unit) -> UnitSample | None:
        """Sample `unit`; return None if it stopped since it was described."""
        if unit.control_group is None:
            return _unknown(unit, _NO_CGROUP)
        try:
            # its files stay open while it is read, since memory.current is read twice
            with Cgroup(unit.control_group, self._cgroups, OpenFiles(_FILES_OF_A_CGROUP)) as cgroup:
                return self.read(unit, cgroup)
        except CgroupGoneError:
            return None
        except OSError as error:
            return _unknown(unit, reason_of(error))

    def read(self, unit: Unit, cgroup: Cgroup) -> UnitSample:
        """Sample `unit` through its open `cgroup`, with the command lines of the processes that are read.

        Raises:
            CgroupGoneError: it stopped, or was started again.
            OSError: its files can't be read.
        """
        sample = collect(unit, cgroup, self._host, self._wanted, self._proc, self._around, self._at)
        if not COSTLY_NAMES.isdisjoint(self._wanted):
            sample = resolve(sample, self._proc)
        if not sample.processes:
            return sample
        return replace(
            sample, processes=tuple(with_command(process, self._proc) for process in sample.processes)
        )


def _places_in_slices(units: Iterable[Unit], cgroups: Path) -> dict[str, Place | None]:
    """Return the places of all units in those of `units` that are slices."""
    places: dict[str, Place | None] = {}
    for unit in units:
        if unit.kind == "slice" and unit.control_group is not None:
            places |= find_unit_cgroups(unit.control_group, cgroups, unit.name)
    return places


def _described(names: Collection[str], describe: Callable[[str], Unit]) -> Iterator[Unit]:
    for name in names:
        try:
            yield describe(name)
        except NoSuchUnitError:  # unloaded since it was listed
            continue


def _without_cgroup(unit: Unit, manager: UnitSource) -> UnitSample | None:
    """Return a sample of `unit`, whose cgroup doesn't exist, without measures; None if it has stopped by now.

    For a socket, for instance, the manager names a cgroup that it creates only for the unit's first process.
    """
    try:
        if replace(manager.describe(unit.name), aliases=unit.aliases) != unit:
            return None
    except NoSuchUnitError:
        return None
    return _unknown(unit, _NO_CGROUP)


def _unknown(unit: Unit, reason: str) -> UnitSample:
    return UnitSample(unit, unknown=dict.fromkeys(UNIT_NAMES, reason))
