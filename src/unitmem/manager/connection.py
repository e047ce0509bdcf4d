"""The connection of a watch to its manager: dropped without an answer, and renewed with growing pauses."""

from __future__ import annotations

import selectors
from collections.abc import Callable

from unitmem.errors import BusError
from unitmem.manager.systemd import Manager
from unitmem.unit import ManagerKind

FIRST_PAUSE, LAST_PAUSE = 1.0, 30.0
"""The first and the longest pause between attempts to connect, in seconds; it doubles each time."""


class Connection:
    """The connection of a watch to its manager.

    Args:
        manager: connected, and not followed yet.
        selector: the selector that the manager's signals wake.
        on_lost: called with a message each time that the manager is lost.
        on_return: called with a message when the manager answers again.
        renewed: called each time that a connection is made: signals were missed before.
        connect: makes a connection.

    Raises:
        BusError: the manager can't be followed.
    """

    def __init__(
        self,
        manager: Manager,
        selector: selectors.BaseSelector,
        on_lost: Callable[[str], None],
        on_return: Callable[[str], None],
        renewed: Callable[[], None],
        connect: Callable[[ManagerKind], Manager] = Manager,
    ) -> None:
        self.manager: Manager | None = None
        """The manager; None while it is out of reach."""
        self.retry_at = 0.0
        """The time of the next attempt, while the manager is out of reach."""
        self._kind = manager.kind
        self._selector = selector
        self._on_lost = on_lost
        self._on_return = on_return
        self._renewed = renewed
        self._connect = connect
        self._bus = -1
        self._pause = FIRST_PAUSE
        self._is_known_to_answer = True
        self._use(manager)

    def close(self) -> None:
        if self.manager is not None:
            self.manager.close()

    def reach(self, now: float) -> Manager | None:
        """Return the manager as `answering` does; if it is out of reach and an attempt is due, connect first."""
        if self.manager is None and now >= self.retry_at:
            self.renew(now)
        return self.answering(now)

    def answering(self, now: float) -> Manager | None:
        """Return the manager; drop it and return None if its last call got no answer, and a ping gets none either."""
        if self.manager is not None and self.manager.lost is not None:
            try:
                self.manager.ping()  # that one call may just have taken too long
            except BusError as error:
                self.lose(error, now)
        return self.manager

    def lose(self, error: BusError, now: float) -> None:
        """Drop a manager that doesn't answer, and schedule the next attempt."""
        if self.manager is not None:
            self._selector.unregister(self._bus)
            self.manager.close()
            self.manager = None
        if self._is_known_to_answer:
            self._on_lost(f"{error}; continuing with the known units and reconnecting")
        self._is_known_to_answer = False
        self._try_later(now)

    def renew(self, now: float) -> None:
        """Try to connect to the manager."""
        manager = None
        try:
            manager = self._connect(self._kind)
            self._use(manager)
        except (BusError, OSError):
            if manager is not None:
                manager.close()
            self._try_later(now)

    def confirm(self) -> bool:
        """Register that the manager answered every call; return whether it was lost before."""
        if self._is_known_to_answer:
            return False
        self._is_known_to_answer = True
        self._pause = FIRST_PAUSE
        self._on_return(f"the {self._kind} manager is back")
        return True

    def _use(self, manager: Manager) -> None:
        manager.follow()
        # by its number: once the connection is lost, it has none to be found by any more
        self._bus = manager.fileno()
        self._selector.register(self._bus, selectors.EVENT_READ)
        self.manager = manager
        self._renewed()

    def _try_later(self, now: float) -> None:
        self.retry_at = now + self._pause
        self._pause = min(self._pause * 2, LAST_PAUSE)
