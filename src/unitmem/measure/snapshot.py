"""One look at the units of a machine: which ones are meant, and a sample of each, with the host read once.

For a command that looks and ends. The daemon, which looks again and again, follows the manager
instead (`tracker`), because listing units is dear to PID 1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Protocol

from unitmem.errors import NoSuchUnitError, reason_of
from unitmem.kernel.cgroup import Cgroup, CgroupGoneError
from unitmem.kernel.files import CGROUP_ROOT, PROC_ROOT
from unitmem.kernel.host import Host, read_host
from unitmem.kernel.limits import Level
from unitmem.kernel.process import with_command
from unitmem.measure.catalogue import COSTLY_MEASURES, UNIT_MEASURES
from unitmem.measure.collect import collect, resolve
from unitmem.measure.sample import UnitSample
from unitmem.unit import CGROUP_KINDS, CORE_UNITS, Unit, complete_name, is_glob, matches, protection


class Manager(Protocol):
    """What a survey asks a service manager; `systemd.Manager` answers it."""

    def list_units(self) -> list[Unit]: ...

    def describe(self, name: str) -> Unit: ...


@dataclass(frozen=True, slots=True)
class Survey:
    """The units that were meant, by name, and the machine they run on, at one instant."""

    host: Host
    units: tuple[UnitSample, ...]


def survey(
    manager: Manager,
    patterns: Sequence[str] = (),
    *,
    wanted: Collection[str] = (),
    include_all: bool = False,
    skip_missing: bool = False,
    cgroups: Path = CGROUP_ROOT,
    proc: Path = PROC_ROOT,
) -> Survey:
    """A sample of every unit that `patterns` mean.

    Args:
        manager: whose units.
        patterns: names and shell globs, completed as systemctl does (`ssh` is `ssh.service`). A name
            means that unit, whatever its state. A glob means the loaded units that match and have a
            cgroup. None at all means every unit with a cgroup except slices, which are sums of the others.
        wanted: names of measures; those of processes are read only if they are asked for.
        include_all: also slices where there are no patterns, and loaded units without a cgroup.
        skip_missing: leave out a name of which no unit is loaded.
        cgroups: where cgroup v2 is mounted.
        proc: where /proc is.

    A unit that stops meanwhile is left out.

    Raises:
        NoSuchUnitError: a name, not a glob, of which no unit is loaded, unless that is skipped.
        BusError: the manager doesn't answer.
        UnsupportedSystemError: the host can't be read.
    """
    host = read_host(proc)
    describe = cache(manager.describe)
    loaded = {unit.name: unit for unit in manager.list_units() if is_present(unit)}
    names = [complete_name(pattern) for pattern in patterns]
    exact = [name for name in names if not is_glob(name)]
    named = list(_described(exact, describe)) if skip_missing else [describe(name) for name in exact]
    globs = [name for name in names if is_glob(name)] if names else ["*"]
    matching = {
        name: unit
        for name, unit in loaded.items()
        if unit.kind in CGROUP_KINDS
        and matches(name, globs)
        and (include_all or unit.active_state != "inactive")
        and (include_all or names or unit.kind != "slice")
    }
    described = {unit.name: unit for unit in _described(matching, describe)}
    if not include_all:
        described = {name: unit for name, unit in described.items() if unit.control_group is not None}
    described |= {unit.name: unit for unit in named}
    core = [
        (unit.name, unit.control_group)
        for unit in _described([name for name in loaded if matches(name, CORE_UNITS)], describe)
        if unit.control_group is not None
    ]
    samples = []
    seen: dict[str, Level] = {}
    for _, unit in sorted(described.items()):
        sample = _sample(unit, host, wanted, cgroups, proc, seen)
        if sample is None and (include_all or unit in named):
            sample = _without_cgroup(unit, manager)
        if sample is not None:
            # what a policy's service may not touch; this process and its session are no part of it
            samples.append(replace(sample, protected=protection(unit, None, core)))
    return Survey(host, tuple(samples))


def survey_again(
    units: Iterable[Unit],
    *,
    wanted: Collection[str] = (),
    cgroups: Path = CGROUP_ROOT,
    proc: Path = PROC_ROOT,
) -> Survey:
    """A sample of each of `units` as the kernel's files have it now, without a word to the manager.

    For a view that looks every other second. A unit that has stopped is left out; one that was
    started anew at its old place is there again.

    Raises:
        UnsupportedSystemError: the host can't be read.
    """
    host = read_host(proc)
    seen: dict[str, Level] = {}
    samples = (_sample(unit, host, wanted, cgroups, proc, seen) for unit in units)
    return Survey(host, tuple(sample for sample in samples if sample is not None))


def is_present(unit: Unit) -> bool:
    """Whether `unit`, as listed, is more than a name that others mention; one whose file was deleted may still run."""
    return unit.load_state != "not-found" or unit.active_state != "inactive"


def _described(names: Collection[str], describe: Callable[[str], Unit]) -> Iterator[Unit]:
    for name in names:
        try:
            yield describe(name)
        except NoSuchUnitError:  # unloaded since it was listed
            continue


def _sample(
    unit: Unit, host: Host, wanted: Collection[str], cgroups: Path, proc: Path, seen: dict[str, Level]
) -> UnitSample | None:
    """`unit` sampled; None if it stopped since it was described."""
    if unit.control_group is None:
        return UnitSample(unit, unknown=_nothing_known("the unit has no cgroup now"))
    try:
        with Cgroup(unit.control_group, cgroups) as cgroup:
            sample = collect(unit, cgroup, host, wanted, proc, seen)
        if not COSTLY_MEASURES.isdisjoint(wanted):
            sample = resolve(sample, proc)
        return replace(sample, processes=tuple(with_command(process, proc) for process in sample.processes))
    except CgroupGoneError:
        return None
    except OSError as error:
        return UnitSample(unit, unknown=_nothing_known(reason_of(error)))


def _without_cgroup(unit: Unit, manager: Manager) -> UnitSample | None:
    """`unit` whose cgroup isn't there, if it runs all the same; None if it stopped since it was described.

    The manager names a cgroup for a socket, say, that it makes only once the unit has a process.
    """
    try:
        if manager.describe(unit.name) != unit:
            return None
    except NoSuchUnitError:
        return None
    return UnitSample(unit, unknown=_nothing_known("the unit has no cgroup now"))


def _nothing_known(reason: str) -> Mapping[str, str]:
    return dict.fromkeys(UNIT_MEASURES, reason)
