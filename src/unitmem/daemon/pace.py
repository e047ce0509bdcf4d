"""When ticks are due, and from when on events may cause one earlier."""

from __future__ import annotations

EVENTS_PER_INTERVAL = 10
"""How many ticks at most events may cause within one interval: a throttled unit causes a hundred a second."""
REST_PER_TICK = 9
"""How many times as long as a tick has taken events wait after it: they cost a tenth of the time at most."""


class Pace:
    """Ticks every `interval` seconds, on a grid from `start` on, so that they don't drift."""

    def __init__(self, start: float, interval: float) -> None:
        self._start = start
        self._interval = interval
        self._number = 0
        self.events_from = start
        """From when on an event may cause a tick."""

    @property
    def due(self) -> float:
        """When the next tick is due."""
        return self._start + self._number * self._interval

    def ticked(self, began: float, ended: float) -> int:
        """Take note of a tick; return how many were missed meanwhile: those coalesce with the next one."""
        took = ended - began
        self.events_from = began + max(self._interval / EVENTS_PER_INTERVAL, took * (1 + REST_PER_TICK))
        passed = int((ended - self._start) / self._interval)
        missed = max(0, passed - self._number)
        self._number = passed + 1
        return missed
