"""The service manager over D-Bus: list, describe, follow, stop and signal units.

Reference: org.freedesktop.systemd1(5). Properties are read one by one, since pystemd's `Unit.load()`
introspects: that takes 2.4 ms and 1.25 MiB for each unit, and one property 55 µs. Every call blocks
and holds the GIL until the manager answers or `$SYSTEMD_BUS_TIMEOUT` (5 s unless set) is over.
"""

from __future__ import annotations

import errno
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Any, Self, TypeAlias

from pystemd.daemon import booted
from pystemd.dbusexc import DBusBaseError
from pystemd.dbuslib import DBus, DBusAddress, apply_signature, path_decode, path_encode

from unitmem.errors import (
    BusError,
    BusLostError,
    InvocationGoneError,
    NoSuchUnitError,
    RefusedError,
    UnsupportedSystemError,
)
from unitmem.manager.dbus import (
    DENIED,
    INVALID,
    LOST,
    LOST_NUMBERS,
    NOT_FOUND,
    REFUSED_FOR_GOOD,
    TIMED_OUT,
    describe,
    error_name,
    hex_of,
    text_of,
    variants,
)
from unitmem.unit import CGROUP_KINDS, DEPENDENTS, ManagerKind, StartLimit, Unit, is_unit_name, unit_kind

_SERVICE = b"org.freedesktop.systemd1"
_MANAGER_PATH = b"/org/freedesktop/systemd1"
_UNIT_PATH = b"/org/freedesktop/systemd1/unit"
_MANAGER = b"org.freedesktop.systemd1.Manager"
_UNIT = b"org.freedesktop.systemd1.Unit"
_PROPERTIES = b"org.freedesktop.DBus.Properties"
_BUS = b"org.freedesktop.DBus"
_BUS_PATH = b"/org/freedesktop/DBus"

COMMAND_END_WAIT = 5.0
"""Seconds that a command has to end after its timeout, before SIGKILL."""

_INFINITY = 2**64 - 1
_CALL_TIMEOUT = "5s"
# process() answers empty for libsystemd's own housekeeping too: one such answer is not yet the end
_QUIET_ANSWERS = 3
# whoever floods the bus must not keep `changes` from returning; what is left over is for the next call
_MOST_AT_ONCE = 10_000
# of a signal's body: the job's number, its path, its unit and its result; of the longest name, each byte escaped
_MOST_PARTS, _LONGEST_PART = 4, 1024
# What a program is apt to handle. libsystemd gives up a call that a handler interrupts, and whether
# the manager has acted is unknown then: a signal to a unit could neither be trusted nor sent again
_DEFERRED = frozenset(
    {
        signal.SIGALRM,
        signal.SIGCHLD,
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGWINCH,
    }
)


class Change(StrEnum):
    """The changes that the manager's signals report."""

    APPEARED = "UnitNew"
    VANISHED = "UnitRemoved"
    JOB_QUEUED = "JobNew"
    JOB_DONE = "JobRemoved"
    RELOADED = "Reloading"
    """The manager has reloaded its unit files; all that was known about units may be stale."""
    RESULT = "PropertiesChanged"
    """Result= of a unit, which is told only where `Manager.follow_results` asks for it."""


_Read: TypeAlias = Callable[[bytes, str, str], Any]
"""A reader of one unit's properties: interface, name and signature."""


@dataclass(frozen=True, slots=True)
class UnitChange:
    """One signal of the manager: the change, and its unit (None for RELOADED)."""

    change: Change
    unit: str | None
    result: str | None = None
    """Result= for RESULT: `success`, `oom-kill`, …"""


class Manager:
    """A connection to one service manager: the machine's, or the calling user's.

    For one thread. A connection that was lost stays lost: open another one.

    Raises:
        BusError: the bus can't be reached.
        UnsupportedSystemError: the machine isn't run by systemd.
    """

    def __init__(self, kind: ManagerKind = ManagerKind.SYSTEM, address: str | None = None) -> None:
        self.kind = kind
        # read by libsystemd as it opens a bus; 25 s, its own default, is half a watchdog's patience
        os.environ.setdefault("SYSTEMD_BUS_TIMEOUT", _CALL_TIMEOUT)
        if address is None and not booted():
            raise UnsupportedSystemError(
                "this machine isn't run by systemd (there is no /run/systemd/system)",
                hint="run unitmem on a systemd machine; in a container, run it on the host",
            )
        self._bus = DBusAddress(address.encode()) if address else DBus(kind is ManagerKind.USER)
        try:
            self._bus.open()
        except DBusBaseError as error:
            raise BusError(
                f"the {kind} bus can't be reached: {describe(error)}", hint=_unreachable_hint(kind)
            ) from None
        self._open = True
        self.lost: BusLostError | None = None
        """The error of the last call, if it got no answer: further calls may time out as well."""
        self.follows_results = False
        """Whether `follow_results` was called."""
        self._signals: deque[tuple[bytes, bytes, Any]] = deque()
        self._owner: bytes | None = None
        self._reloading = False
        self._callbacks: list[Callable[..., None]] = []

    def close(self) -> None:
        if self._open:
            self._open = False
            self._bus.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # --- asking ---

    def list_units(self) -> list[Unit]:
        """Return every loaded unit, without the fields that only `describe` reads. Costly for PID 1.

        Raises:
            BusError: no answer.
        """
        rows = self._call(_MANAGER_PATH, _MANAGER, "ListUnits") or []
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
        return text_of(self._property(_MANAGER_PATH, _MANAGER, "ControlGroup", "s"))

    def complete(self, unit: Unit) -> Unit:
        """Return a listed `unit` whose cgroup is known with its run: invocation, processes, since when it is up.

        Raises:
            NoSuchUnitError: it isn't loaded any more.
            BusLostError: no answer.
            BusError: refused.
        """
        path = bytes(path_encode(_UNIT_PATH, unit.name.encode()))
        try:
            return _with_run(unit, partial(self._property, path))
        except _NotFoundError:
            raise _no_such_unit(unit.name) from None

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
                name=text_of(read(_UNIT, "Id", "s")),
                description=text_of(read(_UNIT, "Description", "s")),
                load_state=text_of(read(_UNIT, "LoadState", "s")),
                active_state=text_of(read(_UNIT, "ActiveState", "s")),
                sub_state=text_of(read(_UNIT, "SubState", "s")),
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
            raise _no_such_unit(name)
        return unit if unit.name == name else replace(unit, aliases=(name,))

    def dependents(self, name: str) -> dict[str, tuple[str, ...]]:
        """Return the units that stop with `name`, and those that start it, by the property of `name` that lists them.

        Raises:
            NoSuchUnitError: no unit of that name is loaded.
            BusLostError: no answer.
            BusError: refused.
        """
        with self._loaded(name) as path:
            found = {relation: self._property(path, _UNIT, relation, "as") for relation in DEPENDENTS}
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
            is_loaded = text_of(self._property(path, _UNIT, "LoadState", "s")) == "loaded"
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
            burst = int(self._property(path, _UNIT, "StartLimitBurst", "u"))
            span = int(self._property(path, _UNIT, "StartLimitIntervalUSec", "t"))
        return StartLimit(burst, span / 1_000_000) if burst and 0 < span < _INFINITY else None

    def ping(self) -> None:
        """Return if the manager answers.

        Raises:
            BusLostError: it doesn't.
            BusError: refused.
        """
        self._call(_MANAGER_PATH, b"org.freedesktop.DBus.Peer", "Ping")
        self.lost = None

    # --- following ---

    def follow(self) -> None:
        """Subscribe to the manager's signals; `changes()` returns them from here on.

        Raises:
            BusLostError: the connection is dead, or the manager doesn't answer.
            BusError: refused.
        """

        def receive(message: Any, error: Any = None, userdata: Any = None) -> None:  # noqa: ARG001
            # an exception in here would surface as SystemError from somewhere else. Who sent it is judged by `changes`,
            # as the manager may have a new name; until then nothing large is kept, as anyone may send it
            with suppress(Exception):
                message.process_reply(False)
                if _is_terse(message.body):
                    self._signals.append((message.get_sender(), message.get_member(), message.body))

        self._callbacks.append(receive)  # libsystemd keeps no reference
        for change in (each for each in Change if each is not Change.RESULT):
            with self._asking(f"following {change}") as bus:
                bus.match_signal(_SERVICE, _MANAGER_PATH, _MANAGER, change.value.encode(), receive)
        self._owner = self._name_owner()
        self._call(_MANAGER_PATH, _MANAGER, "Subscribe")

    def follow_results(self, is_wanted: Callable[[str], bool]) -> None:
        """Have `changes()` return Result= as well, at each change of a unit's state, of units that `is_wanted` accepts.

        A unit that is restarted has its former result for a moment only, so reading it later is too late.

        Raises:
            BusLostError: the connection is dead.
            BusError: refused.
        """

        def receive(message: Any, error: Any = None, userdata: Any = None) -> None:  # noqa: ARG001
            if message.get_sender() != self._owner:
                return  # not even parsed: what pystemd parses of it is freed late
            path = message.get_path()
            name = text_of(path_decode(path, _UNIT_PATH)) if path.startswith(_UNIT_PATH) else ""
            if name and is_wanted(name):
                message.process_reply(False)
                self._signals.append((message.get_sender(), message.get_member(), (name, message.body)))

        self._callbacks.append(receive)
        with self._asking(f"following {Change.RESULT}") as bus:
            bus.match_signal(_SERVICE, None, _PROPERTIES, Change.RESULT.value.encode(), receive)
        self.follows_results = True

    def fileno(self) -> int:
        """Return the descriptor that is readable when a signal has arrived; call `changes()` before each wait as well.

        Raises:
            BusLostError: the connection is closed.
        """
        descriptor = int(self._connection().get_fd())
        if descriptor < 0:
            raise self._lost(os.strerror(-descriptor))
        return descriptor

    def changes(self) -> list[UnitChange]:
        """Return the changes since the last call, in order, including those that arrived during other calls.

        Raises:
            BusLostError: the connection is dead.
        """
        bus = self._connection()
        quiet = 0
        try:
            for _ in range(_MOST_AT_ONCE):
                quiet = quiet + 1 if bus.process().is_empty() else 0
                if quiet == _QUIET_ANSWERS:
                    break
        except (DBusBaseError, SystemError) as error:
            raise self._lost(describe(error)) from None
        if any(sender != self._owner for sender, _, _ in self._signals):
            # the manager has a new name after `daemon-reexec`. Anyone else may send us such signals
            # too, straight to our address, and libsystemd can't tell: a false UnitRemoved would
            # make a unit vanish from sight
            known = {self._owner, self._name_owner()}
        else:
            known = {self._owner}
        happened: list[UnitChange] = []
        while self._signals:
            sender, member, body = self._signals.popleft()
            if sender in known:
                self._owner = sender
                happened += self._understand(Change(text_of(member)), body)
        return happened

    def _understand(self, change: Change, body: Any) -> Iterator[UnitChange]:
        """Yield the change that a signal reports, if any.

        During a reload the manager signals that every unit is removed and that it is new, which isn't so; and it
        answers no call until it has signalled the end of the reload.
        """
        if change is Change.RELOADED:
            self._reloading = bool(body)
            if self._reloading:
                return
        elif self._reloading and change in (Change.APPEARED, Change.VANISHED):
            return
        if change is Change.RESULT:
            name, (_, properties, _) = body
            if "Result" in (changed := {text_of(key): properties[key] for key in properties}):
                yield UnitChange(change, name, text_of(changed["Result"]))
            return
        yield UnitChange(change, _unit_of(change, body))

    # --- acting ---

    def stop_unit(self, name: str, invocation_id: str | None) -> None:
        """Queue a stop job, as `systemctl stop --no-block` does; the unit's own ExecStop and timeout apply.

        Args:
            name: the unit.
            invocation_id: the invocation that is meant: the manager refuses if another one runs by now. None means
                whatever runs under that name.

        Raises:
            InvocationGoneError: that run is over, or there is no such unit.
            RefusedError: refused for good, as by RefuseManualStop=, or as the unit file is gone.
            BusLostError: no answer.
            BusError: refused.
        """
        self._act(name, invocation_id, "Stop", "s", "replace")

    def kill_unit(self, name: str, invocation_id: str | None, whom: str, number: int) -> None:
        """Have the manager signal `whom` of the unit: `main`, `control` or `all`.

        Args:
            name: the unit.
            invocation_id: the run of it that is meant, as for `stop_unit`.
            whom: which processes.
            number: the signal.

        Raises:
            InvocationGoneError: that run is over, or there is no such unit.
            BusLostError: no answer.
            BusError: refused.
        """
        self._act(name, invocation_id, "Kill", "si", whom, number)

    def restart_unit(self, name: str, invocation_id: str | None) -> None:
        """Queue a restart job, as `systemctl restart --no-block` does.

        Args and errors are those of `stop_unit`.
        """
        self._act(name, invocation_id, "Restart", "s", "replace")

    def freeze_unit(self, name: str, invocation_id: str | None) -> None:
        """Freeze every process of the unit; return when the kernel is done, or the call has timed out.

        Args and errors are those of `stop_unit`.
        """
        self._act_in_kernel(name, invocation_id, "Freeze")

    def thaw_unit(self, name: str, invocation_id: str | None) -> None:
        """Thaw a frozen unit. Args and errors are those of `stop_unit`."""
        self._act_in_kernel(name, invocation_id, "Thaw")

    def _act_in_kernel(self, name: str, invocation_id: str | None, method: str) -> None:
        try:
            self._act(name, invocation_id, method)
        except BusLostError as error:
            # it answers when the kernel is done, which a unit that is short of memory keeps waiting
            if error.name not in TIMED_OUT:
                raise
            self.ping()

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
        return {prop: None if size == _INFINITY else size for prop, size in sizes.items()}

    def set_size_properties(
        self, name: str, sizes: Mapping[str, int | None], invocation_id: str | None = None
    ) -> None:
        """Set properties at run time, as `systemctl set-property --runtime` does; None is infinity.

        Args and errors are those of `stop_unit`; without an invocation, the unit is addressed by its name.
        """
        values = [(prop, "t", _INFINITY if size is None else size) for prop, size in sizes.items()]
        if invocation_id is None:
            head = apply_signature(b"sb", [name.encode(), True])
            path, interface, method = _MANAGER_PATH, _MANAGER, "SetUnitProperties"
        else:
            head = apply_signature(b"b", [True])
            path, interface, method = _invocation_path(invocation_id), _UNIT, "SetProperties"
        try:
            self._send(path, interface, method, [*head, *variants(values)])
        except _NotFoundError as error:
            if error.name == INVALID:
                raise  # of a value that is out of range, and not of the unit
            raise InvocationGoneError(f"that run of {name} is over") from None

    def start_command(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], timeout: float
    ) -> None:
        """Start `command` as the transient service `name`, which gets SIGTERM after `timeout` seconds.

        SIGKILL follows `COMMAND_END_WAIT` seconds later. The unit stays loaded for `command_result`
        as long as this connection lives, and no longer, however it ends.

        Raises:
            BusLostError: no answer.
            BusError: refused.
        """
        arguments = [word.encode() for word in command]
        values = [
            ("Description", "s", f"Command of a memory policy ({name})".encode()),
            ("Type", "s", b"oneshot"),
            ("ExecStart", "a(sasb)", [(arguments[0], arguments, False)]),
            ("Environment", "as", [f"{key}={value}".encode() for key, value in environment.items()]),
            ("TimeoutStartUSec", "t", int(timeout * 1_000_000)),
            ("TimeoutStopUSec", "t", int(COMMAND_END_WAIT * 1_000_000)),
            ("AddRef", "b", True),
            ("CollectMode", "s", b"inactive-or-failed"),  # or each one that failed would be kept for good
        ]
        head = apply_signature(b"ss", [name.encode(), b"fail"])
        no_other_units = [(ord("a"), b"(sa(sv))"), (-1, None)]
        self._send(_MANAGER_PATH, _MANAGER, "StartTransientUnit", [*head, *variants(values), *no_other_units])

    def command_result(self, name: str) -> str | None:
        """Return Result= of a command that `start_command` started: `success`, `timeout`, …; None until it has ended.

        Then the unit is released, so that a result is returned only once.

        Raises:
            NoSuchUnitError: the unit is no longer loaded: the connection that started it is closed.
            BusLostError: no answer.
            BusError: refused.
        """
        with self._loaded(name) as path:
            if text_of(self._property(path, _UNIT, "ActiveState", "s")) not in ("inactive", "failed"):
                return None
            # while its job waits to be run it looks like one that was successful
            if hex_of(self._property(path, _UNIT, "InvocationID", "ay")) is None:
                return None
            result = text_of(self._property(path, b"org.freedesktop.systemd1.Service", "Result", "s"))
        with suppress(BusError):  # it is another connection's: the manager forgets it by itself
            self._call(path, _UNIT, "Unref")
        return result

    def _act(
        self, name: str, invocation_id: str | None, method: str, signature: str = "", *values: str | int
    ) -> None:
        """Call `method` of that run, or of whatever runs under that name."""
        try:
            if invocation_id is None:
                self._call(_MANAGER_PATH, _MANAGER, f"{method}Unit", f"s{signature}", name, *values)
            else:
                self._call(_invocation_path(invocation_id), _UNIT, method, signature, *values)
        except _NotFoundError as error:
            if self._runs(name, invocation_id):  # so it is the unit file that isn't found
                raise RefusedError(error.words, None, error.name) from None
            raise InvocationGoneError(f"that run of {name} is over") from None

    def _runs(self, name: str, invocation_id: str | None) -> bool:
        """Return whether that run of the unit goes on."""
        try:
            unit = self.describe(name)
        except NoSuchUnitError:
            return False
        is_meant = invocation_id in (None, unit.invocation_id)
        return is_meant and unit.active_state not in ("inactive", "failed")

    # --- the wire ---

    def _connection(self) -> Any:
        """Return the bus; raise an error if it is closed, since libsystemd would read freed memory."""
        if not self._open:
            raise self._lost("it was closed")
        return self._bus

    @contextmanager
    def _asking(self, what: str) -> Iterator[Any]:
        """Yield the bus for one call, with signals deferred, and pystemd's errors turned into unitmem's."""
        bus = self._connection()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _DEFERRED)
        try:
            yield bus
        except DBusBaseError as error:
            raise self._bus_error(what, error) from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @contextmanager
    def _loaded(self, name: str) -> Iterator[bytes]:
        """Yield the object path of a loaded unit.

        Raises:
            NoSuchUnitError: no unit of that name is loaded; also from calls within the block.
        """
        if not is_unit_name(name):
            raise _no_such_unit(name)
        try:
            yield self._call(_MANAGER_PATH, _MANAGER, "GetUnit", "s", name)
        except _NotFoundError:
            raise _no_such_unit(name) from None

    def _call(self, path: bytes, interface: bytes, method: str, signature: str = "", *values: Any) -> Any:
        arguments = apply_signature(
            signature.encode(), [value.encode() if isinstance(value, str) else value for value in values]
        )
        return self._send(path, interface, method, arguments)

    def _send(self, path: bytes, interface: bytes, method: str, arguments: list[Any]) -> Any:
        with self._asking(method) as bus:
            return bus.call_method(_SERVICE, path, interface, method.encode(), arguments).body

    def _refuses_manual(self, path: bytes, what: str) -> bool:
        return bool(self._property(path, _UNIT, f"RefuseManual{what}", "b"))

    def _property(self, path: bytes, interface: bytes, name: str, signature: str) -> Any:
        with self._asking(name) as bus:
            return bus.get_property(_SERVICE, path, interface, name.encode(), signature.encode())

    def _properties(self, path: bytes) -> _Read:
        """Return a reader of the properties of an object, which are asked for in one call."""
        every = self._call(path, _PROPERTIES, "GetAll", "s", "")
        return lambda _, name, __: every[name.encode()]

    def _name_owner(self) -> bytes:
        """Return the unique bus name that the manager has now."""
        arguments = apply_signature(b"s", [_SERVICE])
        with self._asking("GetNameOwner") as bus:
            return bytes(bus.call_method(_BUS, _BUS_PATH, _BUS, b"GetNameOwner", arguments).body)

    def _bus_error(self, what: str, error: DBusBaseError) -> BusError:
        name = error_name(error)
        number = abs(error.errno or errno.EINTR)  # pystemd leaves it out of interrupted calls
        if number == errno.ETIMEDOUT:
            name = name or "org.freedesktop.DBus.Error.Timeout"
        if number in LOST_NUMBERS or (name or "").startswith(LOST):
            return self._lost(describe(error), name)
        message = f"{what} of the {self.kind} manager failed: {describe(error)}"
        if name in NOT_FOUND or number == errno.ENOENT:
            return _NotFoundError(message, describe(error), name)
        if name in REFUSED_FOR_GOOD:
            return RefusedError(describe(error), None, name)
        if name in DENIED:
            hint = "run it as root, or allow org.freedesktop.systemd1.manage-units in polkit"
            return BusError(message, hint, name)
        return BusError(message, None, name)

    def _lost(self, reason: str, name: str | None = None) -> BusLostError:
        self.lost = BusLostError(
            f"the connection to the {self.kind} manager is lost: {reason}", _unreachable_hint(self.kind), name
        )
        return self.lost


def _no_such_unit(name: str) -> NoSuchUnitError:
    return NoSuchUnitError(
        f"no unit {name} is loaded",
        f"`systemctl status {name}` shows whether there is one that isn't running",
    )


class _NotFoundError(BusError):
    """The object of the call doesn't exist, or the unit file that it takes."""

    def __init__(self, message: str, words: str, name: str | None) -> None:
        super().__init__(message, None, name)
        self.words = words
        """What the manager said."""


def _invocation_path(invocation_id: str) -> bytes:
    """Return an object path that refers to a unit only during that invocation (manager.c of systemd)."""
    return bytes(path_encode(_UNIT_PATH, invocation_id.encode()))


def _with_run(unit: Unit, read: _Read) -> Unit:
    """Return `unit` with its invocation, its main and control process, and since when it is up."""
    up_since = None
    if unit.active_state not in ("inactive", "failed"):
        # while it starts, it last became active in another run, if ever
        entered = "InactiveExit" if unit.active_state == "activating" else "ActiveEnter"
        up_since = read(_UNIT, f"{entered}TimestampMonotonic", "t") / 1_000_000 or None
    interface = _interface_of(unit.name)
    has_control = unit.kind in ("service", "socket", "mount", "swap")
    return replace(
        unit,
        invocation_id=hex_of(read(_UNIT, "InvocationID", "ay")),
        up_since=up_since,
        main_pid=(read(interface, "MainPID", "u") or None) if unit.kind == "service" else None,
        control_pid=(read(interface, "ControlPID", "u") or None) if has_control else None,
    )


def _interface_of(name: str) -> bytes:
    """Return the interface with the properties of units of that kind."""
    return b"org.freedesktop.systemd1." + unit_kind(name).capitalize().encode()


def _unit_of(change: Change, body: Any) -> str | None:
    # UnitNew, UnitRemoved: (id, path); JobNew: (id, job, unit); JobRemoved: (id, job, unit, result)
    match change:
        case Change.APPEARED | Change.VANISHED:
            return text_of(body[0])
        case Change.JOB_QUEUED | Change.JOB_DONE:
            return text_of(body[2])
        case Change.RELOADED | Change.RESULT:
            return None


def _is_terse(body: Any) -> bool:
    """Return whether `body` has no more than a signal of the manager: a few numbers, and names and paths of units."""
    parts = body if isinstance(body, list | tuple) else [body]
    return len(parts) <= _MOST_PARTS and all(
        isinstance(part, int) or (isinstance(part, bytes | str) and len(part) <= _LONGEST_PART)
        for part in parts
    )


def _unreachable_hint(kind: ManagerKind) -> str:
    if kind is ManagerKind.USER:
        return "log in as that user, or set XDG_RUNTIME_DIR=/run/user/UID; `loginctl enable-linger` keeps their manager running"
    return "see `systemctl status dbus.service`"
