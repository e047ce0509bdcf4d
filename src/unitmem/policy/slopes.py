"""The slope of a measure over a span: the median of the slopes between all pairs of points (Theil and Sen).

Up to a quarter of the points may be spikes, and it hardly moves. The slopes between the points of a window stay
sorted, so a look computes only those to its own value, and the middle.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

POINTS_A_SPAN = 32
"""The most points within a span that a slope is taken from: some 500 pairs, 4 KiB."""
MIN_POINTS = 5
"""The least points for a slope: of four, one spike at an end is in half of the pairs, and moves the median."""
MAX_EXCESS = 0.5
"""The share of its span by which the first point of a slope may be older than the span."""

Point = tuple[float, float]
"""(time, value)."""
Points = tuple[Point, ...]
"""In the order of time."""


@dataclass(frozen=True, slots=True)
class Window:
    """The points of a measure within a span, and the slopes between them."""

    points: Points = ()
    slopes: Sequence[float] = field(default=(), compare=False, repr=False)
    """Between any two of the points, sorted; empty while all values are the same, as those of most units are."""

    def extended(self, value: float | None, span: float, now: float) -> Window:
        """Return the window with `value`, unless that is too close to the last point, and without points that are too old."""
        points = self.points
        # one point from before the span is needed, to cover all of it; after a gap it would be too old
        oldest, start = now - span * (1 + MAX_EXCESS), 0
        while start < len(points) and points[start][0] < oldest:
            start += 1
        while start + 1 < len(points) and points[start + 1][0] <= now - span:
            start += 1
        window = _without(self, start) if start else self
        if value is None or (points and now - points[-1][0] < span / POINTS_A_SPAN):
            return window
        return _with(window, (now, value))

    def covers(self, span: float, now: float) -> bool:
        """Return whether there is a point from before the last `span` seconds."""
        return bool(self.points) and self.points[0][0] <= now - span

    def slope(self, value: float | None, now: float) -> float | None:
        """Return the slope in units a second up to `value`, the latest one; None of too few points."""
        points = self.points
        if value is None or not points:
            return None
        latest = points if points[-1][0] == now else (*points, (now, value))
        if len(latest) < MIN_POINTS:
            return None
        if not self.slopes and value == points[0][1]:
            return 0.0
        added = () if latest is points else [_between(point, latest[-1]) for point in points]
        return _median(_all_slopes(self), added)


def slope_of(points: Points) -> float | None:
    """Return the median slope of all pairs of `points`, in units a second; None for fewer than `MIN_POINTS`."""
    if len(points) < MIN_POINTS:
        return None
    return _median((), [_between(*pair) for pair in combinations(points, 2)])


def _without(window: Window, start: int) -> Window:
    """Return `window` without the points before the index `start`."""
    kept = window.points[start:]
    if not window.slopes or len(kept) < 2:
        return Window(kept)
    slopes = array("d", window.slopes)
    for index, point in enumerate(window.points[:start], 1):
        for later in window.points[index:]:
            del slopes[bisect_left(slopes, _between(point, later))]
    return Window(kept, slopes if slopes[0] or slopes[-1] else ())


def _with(window: Window, point: Point) -> Window:
    points = window.points
    if not window.slopes and (not points or point[1] == points[0][1]):
        return Window((*points, point))
    slopes = array("d", _all_slopes(window))
    for earlier in points:
        insort(slopes, _between(earlier, point))
    return Window((*points, point), slopes)


def _all_slopes(window: Window) -> Sequence[float]:
    return window.slopes or [0.0] * (len(window.points) * (len(window.points) - 1) // 2)


def _between(early: Point, late: Point) -> float:
    return (late[1] - early[1]) / (late[0] - early[0])


def _median(slopes: Sequence[float], added: Sequence[float]) -> float:
    """Return the median of sorted `slopes` and those `added`."""
    total = len(slopes) + len(added)
    middle = (total - 1) // 2
    # no more than the added ones can move it
    start = max(0, middle - len(added))
    near = sorted([*slopes[start : middle + 2], *added])
    return near[middle - start] if total % 2 else (near[middle - start] + near[middle - start + 1]) / 2
