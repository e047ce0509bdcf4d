"""A connection to a service manager's bus: calls, properties, and what their errors mean.

Reference: org.freedesktop.systemd1(5). Properties are read one by one, since pystemd's `Unit.load()`
introspects: that takes 2.4 ms and 1.25 MiB for each unit, and one property 55 µs. Every call blocks
and holds the GIL until the manager answers or `$SYSTEMD_BUS_TIMEOUT` (5 s unless set) is over.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from pystemd.daemon import booted
from pystemd.dbusexc import DBusBaseError
from pystemd.dbuslib import DBus, DBusAddress, apply_signature

from unitmem.errors import BusError, BusLostError, NoSuchUnitError, RefusedError, UnsupportedSystemError
from unitmem.manager.dbus import (
    DENIED,
    LOST,
    LOST_NUMBERS,
    NOT_FOUND,
    REFUSED_FOR_GOOD,
    describe,
    error_name,
)
from unitmem.manager.handshake import address_of, answers
from unitmem.unit import ManagerKind, is_unit_name

MANAGER_PATH = b"/org/freedesktop/systemd1"
UNIT_PATH = b"/org/freedesktop/systemd1/unit"
MANAGER = b"org.freedesktop.systemd1.Manager"
UNIT = b"org.freedesktop.systemd1.Unit"
PROPERTIES = b"org.freedesktop.DBus.Properties"
SERVICE = b"org.freedesktop.systemd1"
_BUS = b"org.freedesktop.DBus"
_BUS_PATH = b"/org/freedesktop/DBus"

INFINITY = 2**64 - 1
_CALL_TIMEOUT = "5s"
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


class NotFoundError(BusError):
    """The object of the call doesn't exist, or the unit file that it takes."""

    def __init__(self, message: str, words: str, name: str | None) -> None:
        super().__init__(message, None, name)
        self.words = words
        """What the manager said."""


class ManagerBus:
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
        if not answers(address or address_of(kind)):
            raise BusError(
                f"the {kind} bus can't be reached: it takes connections and doesn't answer",
                hint=_unreachable_hint(kind),
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

    def close(self) -> None:
        if self._open:
            self._open = False
            self._bus.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def ping(self) -> None:
        """Return if the manager answers.

        Raises:
            BusLostError: it doesn't.
            BusError: refused.
        """
        self._call(MANAGER_PATH, b"org.freedesktop.DBus.Peer", "Ping")
        self.lost = None

    # --- calls and properties, for what is built on it ---

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
            raise no_such_unit(name)
        try:
            yield self._call(MANAGER_PATH, MANAGER, "GetUnit", "s", name)
        except NotFoundError:
            raise no_such_unit(name) from None

    def _call(self, path: bytes, interface: bytes, method: str, signature: str = "", *values: Any) -> Any:
        arguments = apply_signature(
            signature.encode(), [value.encode() if isinstance(value, str) else value for value in values]
        )
        return self._send(path, interface, method, arguments)

    def _send(self, path: bytes, interface: bytes, method: str, arguments: list[Any]) -> Any:
        with self._asking(method) as bus:
            return bus.call_method(SERVICE, path, interface, method.encode(), arguments).body

    def _property(self, path: bytes, interface: bytes, name: str, signature: str) -> Any:
        with self._asking(name) as bus:
            return bus.get_property(SERVICE, path, interface, name.encode(), signature.encode())

    def _name_owner(self) -> bytes:
        """Return the unique bus name that the manager has now."""
        arguments = apply_signature(b"s", [SERVICE])
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
            return NotFoundError(message, describe(error), name)
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


def no_such_unit(name: str) -> NoSuchUnitError:
    """Return the error where no unit of that name is loaded."""
    return NoSuchUnitError(
        f"no unit {name} is loaded",
        f"`systemctl status {name}` shows whether there is one that isn't running",
    )


def _unreachable_hint(kind: ManagerKind) -> str:
    if kind is ManagerKind.USER:
        return "log in as that user, or set XDG_RUNTIME_DIR=/run/user/UID; `loginctl enable-linger` keeps their manager running"
    return "see `systemctl status dbus.service`"
