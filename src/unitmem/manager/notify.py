"""The daemon's messages to its own manager: sd_notify(3), and the watchdog."""

from __future__ import annotations

import os
import socket

import pystemd.daemon as sd_daemon

# --- the daemon's own ties to its manager ----------------------------------------------------------


class Notifier:
    """Sends messages of sd_notify(3) without ever waiting: a manager that doesn't read must not hold up the watch.

    libsystemd's own function waits until there is room in the manager's queue, with the GIL held.

    Args:
        address: a path, or `@name` of the abstract namespace; $NOTIFY_SOCKET unless given. Without either, nothing
            is sent.
    """

    def __init__(self, address: str | None = None) -> None:
        address = os.environ.get("NOTIFY_SOCKET") if address is None else address
        self._address = f"\0{address[1:]}" if address and address.startswith("@") else address or ""
        # opened beforehand: the watchdog has to be answered when there is no descriptor left, too
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address else None
        self._unsent: dict[str, bytes] = {}

    def __call__(self, **states: str | int) -> None:
        """Send one message, such as `ready=1` or `status="…"`, after those that there was no room for.

        What can't be sent now is sent at a later call. Of messages that begin alike, only the last is kept.
        """
        if self._socket is None:
            return
        kind = next(iter(states))
        self._unsent.pop(kind, None)
        self._unsent[kind] = "\n".join(f"{name.upper()}={value}" for name, value in states.items()).encode()
        try:
            for kind, message in list(self._unsent.items()):
                self._socket.sendto(message, socket.MSG_DONTWAIT, self._address)
                del self._unsent[kind]
        except OSError:
            return  # no room, or the manager is executing itself anew

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


def watchdog_interval() -> float | None:
    """Return the seconds within which the manager expects `watchdog=1`; None without a watchdog."""
    usec = sd_daemon.watchdog_enabled(False)
    return usec / 1_000_000 if usec else None
