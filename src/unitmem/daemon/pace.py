"""When ticks are due, and when events may cause an earlier one."""

from __future__ import annotations

LONGEST_SUSPEND = 1.0
"""Seconds for which the machine may be suspended without any effect: the clocks are not read at once."""
EVENTS_PER_INTERVAL = 10
"""The most ticks that events may cause within one interval: a throttled unit causes a hundred events a second."""
REST_PER_TICK = 9
"""Events wait this many times as long as the last tick took, so that their ticks take a tenth of the time at most."""
REST_PER_CROSSING = 2
"""Ticks for units that start or cross a threshold wait this many times as long: what is guarded against doesn't wait."""


class Pace:
    """A schedule of ticks every `interval` seconds, at multiples from `start`, so that they don't drift."""

    def __init__(self, start: float, interval: float) -> None:
        self._start = start
        self._interval = interval
        self._number = 0
        self.events_from = start
        """The time from which an event may cause a tick."""
        self.crossings_from = start
        """The time from which a unit that crosses a threshold may cause a tick: each does so once."""
        self.starts_from = start
        """The time from which a unit that starts may cause a tick."""

    @property
    def due(self) -> float:
        """The time at which the next tick is due."""
        return self._start + self._number * self._interval

    def ticked(self, began: float, ended: float) -> int:
        """Register a tick; return how many were missed while it ran: these become one with the next."""
        took = ended - began
        self.events_from = began + max(self._interval / EVENTS_PER_INTERVAL, took * (1 + REST_PER_TICK))
        self.crossings_from = ended + took * REST_PER_CROSSING
        self.starts_from = max(self.crossings_from, began + self._interval / EVENTS_PER_INTERVAL)
        passed = int((ended - self._start) / self._interval)
        missed = max(0, passed - self._number)
        self._number = passed + 1
        return missed
