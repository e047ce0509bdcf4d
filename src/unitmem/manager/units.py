"""Units, as their manager describes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from pystemd.dbuslib import path_encode

from unitmem.manager.bus import (
    INFINITY,
    MANAGER,
    MANAGER_PATH,
    PROPERTIES,
    UNIT,
    UNIT_PATH,
    ManagerBus,
    NotFoundError,
    no_such_unit,
)
from unitmem.manager.dbus import hex_of, text_of
from unitmem.unit import CGROUP_KINDS, DEPENDENTS, StartLimit, Unit, unit_kind

_Read: TypeAlias = Callable[[bytes, str, str], Any]
"""A reader of one unit's properties: interface, name and signature."""


class UnitReader(ManagerBus):
    """A connection over which units are listed and described."""

    def list_units(self) -> list[Unit]:
        """Return every loaded unit, without the fields that only `describe` reads. Costly for PID 1.

        Raises:
            BusError: no answer.
        """
        rows = self._call(MANAGER_PATH, MANAGER, "ListUnits") or []
        return [
            Unit(
                name=text_of(row[0]),
                description=text_of(row[1]),
                load_state=text_of(row[2]),
                active_state=text_of(row[3]),
                sub_state=text_of(row[4]),
            )
            for row in rows
        ]

    def control_group(self) -> str:
        """Return the path of the cgroup that all of the manager's units are below; empty for the root of all.

        Raises:
            BusError: no answer.
        """
        return text_of(self._property(MANAGER_PATH, MANAGER, "ControlGroup", "s"))

    def complete(self, unit: Unit) -> Unit:
        """Return a listed `unit` whose cgroup is known with its run: invocation, processes, since when it is up.

        Raises:
            NoSuchUnitError: it isn't loaded any more.
            BusLostError: no answer.
            BusError: refused.
        """
        path = bytes(path_encode(UNIT_PATH, unit.name.encode()))
        try:
            return _with_run(unit, partial(self._property, path))
        except NotFoundError:
            raise no_such_unit(unit.name) from None

    def describe(self, name: str, *, at_once: bool = False) -> Unit:
        """Return the unit `name` (or the one that it is an alias of), with its cgroup, processes and invocation.

        Only a loaded unit is described; every running one is loaded. Reading a property of another unit would
        make the manager load it, signal that, and unload it again, for each property.

        Args:
            name: the unit.
            at_once: ask for all of its hundreds of properties in one call, which takes as long as a dozen calls.

        Raises:
            NoSuchUnitError: no unit of that name is loaded.
            BusLostError: no answer.
            BusError: refused.
        """
        with self._loaded(name) as path:
            read = self._properties(path) if at_once else partial(self._property, path)
            unit = Unit(
                name=text_of(read(UNIT, "Id", "s")),
                description=text_of(read(UNIT, "Description", "s")),
                load_state=text_of(read(UNIT, "LoadState", "s")),
                active_state=text_of(read(UNIT, "ActiveState", "s")),
                sub_state=text_of(read(UNIT, "SubState", "s")),
            )
            unit = _with_run(unit, read)
            if unit.kind in CGROUP_KINDS:
                interface = _interface_of(unit.name)
                unit = replace(
                    unit,
                    control_group=text_of(read(interface, "ControlGroup", "s")) or None,
                    slice=text_of(read(interface, "Slice", "s")) or None,
                )
        # one whose file was deleted runs on, and is not found either
        if unit.load_state == "not-found" and unit.active_state == "inactive":
            raise no_such_unit(name)
        return unit if unit.name == name else replace(unit, aliases=(name,))

    def dependents(self, name: str) -> dict[str, tuple[str, ...]]:
        """Return the units that stop with `name`, and those that start it, by the property of `name` that lists them.

        Raises:
            NoSuchUnitError: no unit of that name is loaded.
            BusLostError: no answer.
            BusError: refused.
        """
        with self._loaded(name) as path:
            found = {relation: self._property(path, UNIT, relation, "as") for relation in DEPENDENTS}
        return {relation: tuple(sorted(map(text_of, units))) for relation, units in found.items() if units}

    def result(self, name: str) -> str:
        """Return Result= of the unit's last run: `success`, `oom-kill`, `start-limit-hit`, …

        Raises:
            NoSuchUnitError: no unit of that name is loaded.
            BusLostError: no answer.
            BusError: refused, or units of this kind have no result.
        """
        with self._loaded(name) as path:
            return text_of(self._property(path, _interface_of(name), "Result", "s"))

    def refuses_stops(self, name: str) -> bool:
        """Return whether the unit has RefuseManualStop=: nobody can have it stopped or restarted.

        Raises:
            NoSuchUnitError: no unit of that name is loaded.
            BusLostError: no answer.
            BusError: refused.
        """
        with self._loaded(name) as path:
            return self._refuses_manual(path, "Stop")

    def refuses_only_stops(self, name: str) -> bool:
        """Return whether the unit has RefuseManualStop=, and nothing that forbids its start.

        Raises:
            NoSuchUnitError: no unit of that name is loaded.
            BusLostError: no answer.
            BusError: refused.
        """
        with self._loaded(name) as path:
            is_loaded = text_of(self._property(path, UNIT, "LoadState", "s")) == "loaded"
            stop, start = self._refuses_manual(path, "Stop"), self._refuses_manual(path, "Start")
        return is_loaded and stop and not start

    def start_limit(self, name: str) -> StartLimit | None:
        """Return how often the unit may be started; None without a limit.

        Raises:
            NoSuchUnitError: no unit of that name is loaded.
            BusLostError: no answer.
            BusError: refused.
        """
        with self._loaded(name) as path:
            burst = int(self._property(path, UNIT, "StartLimitBurst", "u"))
            span = int(self._property(path, UNIT, "StartLimitIntervalUSec", "t"))
        return StartLimit(burst, span / 1_000_000) if burst and 0 < span < INFINITY else None

    def size_properties(self, name: str, properties: Iterable[str]) -> dict[str, int | None]:
        """Return the value of each of `properties`, such as MemoryHigh, in bytes; None is infinity.

        Raises:
            NoSuchUnitError: no unit of that name is loaded.
            BusLostError: no answer.
            BusError: refused, or this systemd has no such property.
        """
        interface = _interface_of(name)
        with self._loaded(name) as path:
            sizes = {prop: int(self._property(path, interface, prop, "t")) for prop in properties}
        return {prop: None if size == INFINITY else size for prop, size in sizes.items()}

    def _refuses_manual(self, path: bytes, what: str) -> bool:
        return bool(self._property(path, UNIT, f"RefuseManual{what}", "b"))

    def _properties(self, path: bytes) -> _Read:
        """Return a reader of the properties of an object, which are asked for in one call."""
        every = self._call(path, PROPERTIES, "GetAll", "s", "")
        return lambda _, name, __: every[name.encode()]


def _with_run(unit: Unit, read: _Read) -> Unit:
    """Return `unit` with its invocation, its main and control process, and since when it is up."""
    up_since = None
    if unit.active_state not in ("inactive", "failed"):
        # while it starts, it last became active in another run, if ever
        entered = "InactiveExit" if unit.active_state == "activating" else "ActiveEnter"
        up_since = read(UNIT, f"{entered}TimestampMonotonic", "t") / 1_000_000 or None
    interface = _interface_of(unit.name)
    has_control = unit.kind in ("service", "socket", "mount", "swap")
    return replace(
        unit,
        invocation_id=hex_of(read(UNIT, "InvocationID", "ay")),
        up_since=up_since,
        main_pid=(read(interface, "MainPID", "u") or None) if unit.kind == "service" else None,
        control_pid=(read(interface, "ControlPID", "u") or None) if has_control else None,
    )


def _interface_of(name: str) -> bytes:
    """Return the interface with the properties of units of that kind."""
    return b"org.freedesktop.systemd1." + unit_kind(name).capitalize().encode()
