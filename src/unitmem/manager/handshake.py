"""Whether a bus answers at all: libsystemd waits 90 s for one that takes a connection and says nothing.

No setting shortens that, and it is longer than a watchdog's patience.
Reference: the D-Bus specification, "Authentication Protocol".
"""

from __future__ import annotations

import os

# socket itself takes several times as long to import, of each command that asks a manager
from _socket import AF_UNIX, SOCK_STREAM, socket

from unitmem.unit import ManagerKind

ANSWERS_WITHIN = 5.0
"""Seconds in which a bus begins to answer."""


def answers(address: str, timeout: float | None = None) -> bool:
    """Return whether the bus at `address` answers in `timeout` seconds; True if that can't be tried from here.

    Args:
        address: as D-Bus writes them; of several, the first one counts.
        timeout: `ANSWERS_WITHIN` unless given.
    """
    path = _path_of(address)
    if path is None:
        return True
    connection = socket(AF_UNIX, SOCK_STREAM)
    connection.settimeout(ANSWERS_WITHIN if timeout is None else timeout)
    try:
        connection.connect(path)
        connection.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
        return connection.recv(64) != b""
    except (TimeoutError, BlockingIOError):  # the latter where nobody has taken connections for long
        return False
    except OSError:
        return True  # libsystemd says what is wrong with it
    finally:
        connection.close()


def address_of(kind: ManagerKind) -> str:
    """Return the address at which libsystemd looks for the bus of a manager."""
    if kind is ManagerKind.SYSTEM:
        return os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or "unix:path=/run/dbus/system_bus_socket"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return os.environ.get("DBUS_SESSION_BUS_ADDRESS") or f"unix:path={runtime}/bus"


def _path_of(address: str) -> str | None:
    transport, _, rest = address.partition(";")[0].partition(":")
    values = dict(part.partition("=")[::2] for part in rest.split(","))
    path = values.get("path")
    return path if transport == "unix" and path and "%" not in path else None
