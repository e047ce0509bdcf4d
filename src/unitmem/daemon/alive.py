"""The messages of a watch to the manager that has started it: that it starts, is ready, and isn't stuck."""

from __future__ import annotations

from unitmem.daemon.world import World

EVERY = 1.0
"""Seconds between two messages during a long tick."""
STARTS_WITHIN = 120
"""Seconds that a start may take from the last message on: more than a call and the longest pause after it."""


class Alive:
    """Whether the watch is ready, and when it last said that it goes on."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._next = 0.0
        self.is_ready = False
        """Whether the manager was told so; until then its start goes on."""

    def __call__(self) -> None:
        """Send a message, unless one was sent a moment ago."""
        if (now := self._world.monotonic()) >= self._next:
            self._next = now + EVERY
            self._world.notify(watchdog=1)
            if not self.is_ready:
                self._world.notify(extend_timeout_usec=STARTS_WITHIN * 1_000_000)

    def ready(self) -> None:
        self.is_ready = True
        self._world.notify(ready=1)
