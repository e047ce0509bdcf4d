"""The connection of a watch to its manager: dropped without an answer, and renewed with growing pauses."""

from __future__ import annotations

import selectors
from collections.abc import Callable

from unitmem.errors import BusError
from unitmem.manager.dbus import TIMED_OUT
from unitmem.manager.systemd import Manager
from unitmem.unit import ManagerKind

FIRST_PAUSE, LAST_PAUSE = 1.0, 30.0
"""The first and the longest pause between attempts to connect, in seconds; it doubles each time."""


class Connection:
    """The connection of a watch to its manager.

    Args:
        kind: which manager.
        manager: connected, and not followed yet; None if it can't be reached so far.
        selector: the selector that the manager's signals wake.
        on_lost: called with a message each time that the manager is lost.
        on_return: called with a message when the manager answers again.
        renewed: called each time that a connection is made: signals were missed before.
        connect: makes a connection.
    """

    def __init__(
        self,
        kind: ManagerKind,
        manager: Manager | None,
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
        self._kind = kind
        self._selector = selector
        self._on_lost = on_lost
        self._on_return = on_return
        self._renewed = renewed
        self._connect = connect
        self._bus = -1
        self._pause = FIRST_PAUSE
        self._is_known_to_answer = True
        self._has_answered = False
        self._late_at: float | None = None
        """When a call was found to have got no answer; None once the manager has answered a ping."""
        if manager is not None:
            self._use(manager, self.retry_at)

    def close(self) -> None:
        if self.manager is not None:
            self.manager.close()

    def reach(self, now: float) -> Manager | None:
        """Return the manager as `answering` does; if it is out of reach and an attempt is due, connect first."""
        if self.manager is None and now >= self.retry_at:
            self.renew(now)
        return self.answering(now)

    def answering(self, now: float) -> Manager | None:
        """Return the manager; None if it is out of reach, or its last call got no answer.

        It counts as away until the time is another one than `now`: a manager that hangs costs one timeout a tick.
        Then it is dropped unless it answers a ping, as that one call may just have taken too long.
        """
        manager = self.manager
        if manager is None or manager.lost is None:
            self._late_at = None
            return manager
        if manager.lost.name in TIMED_OUT and self._late_at in (None, now):
            self._late_at = now
            return None
        self._late_at = None
        try:
            manager.ping()
        except BusError as error:
            self.lose(error, now)
        return self.manager

    def lose(self, error: BusError | OSError, now: float) -> None:
        """Drop a manager that doesn't answer, and schedule the next attempt."""
        self._drop()
        if self._is_known_to_answer:
            meanwhile = "continuing with the known units" if self._has_answered else "no unit is watched yet"
            self._on_lost(f"{error}; {meanwhile} and reconnecting")
        self._is_known_to_answer = False
        self.retry_at = now + self._pause
        self._pause = min(self._pause * 2, LAST_PAUSE)

    def renew(self, now: float) -> None:
        """Try to connect to the manager."""
        self._drop()
        try:
            manager = self._connect(self._kind)
        except (BusError, OSError) as error:
            self.lose(error, now)
        else:
            self._use(manager, now)

    def confirm(self) -> bool:
        """Register that the manager answered every call; return whether it was lost before."""
        if self._is_known_to_answer:
            return False
        self._is_known_to_answer = True
        self._pause = FIRST_PAUSE
        self._on_return(f"the {self._kind} manager is back")
        return True

    def _use(self, manager: Manager, now: float) -> None:
        try:
            manager.follow()
            # by its number: once the connection is lost, it has none to be found by any more
            self._bus = manager.fileno()
            self._selector.register(self._bus, selectors.EVENT_READ)
        except (BusError, OSError) as error:
            manager.close()
            self.lose(error, now)
        else:
            self.manager = manager
            self._has_answered = True
            self._renewed()

    def _drop(self) -> None:
        if self.manager is not None:
            self._selector.unregister(self._bus)
            self.manager.close()
            self.manager = None
