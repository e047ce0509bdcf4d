"""The service manager over D-Bus: list, describe, follow, stop and signal units."""

from __future__ import annotations

from unitmem.manager.requests import UnitRequests
from unitmem.manager.signals import UnitSignals


class Manager(UnitRequests, UnitSignals):
    """A connection to one service manager, to read its units, follow them, and act on them.

    For one thread. A connection that was lost stays lost: open another one.

    Raises:
        BusError: the bus can't be reached.
        UnsupportedSystemError: the machine isn't run by systemd.
    """
