"""The trend of a unit's measures, as far as conditions ask for it: counts of events, and points for slopes.

Each trend is kept no longer and no denser than its conditions need: only changes of counts, and a
bounded number of points for a slope. A leak is the slope of the floor: of the least values in equal parts of its span.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import inf

from unitmem.kernel.limits import STAT_LAG, fullest
from unitmem.measure.catalogue import AGE, EVENT_NAMES, OOM_KILLS, OPERANDS, Dimension, Scope, Trait
from unitmem.measure.sample import NO_HOST, NOT_READ, HostSample, Sample, UnitSample
from unitmem.policy.condition import (
    ETA_USAGE,
    FILL,
    FUNCTIONS,
    UNKNOWN_LEVEL,
    Bounds,
    Comparison,
    Derivation,
)
from unitmem.policy.levels import LEVELS_MISSING, fillings, has_levels, lacks_levels, time_left
from unitmem.policy.slopes import Points, Window, slope_of
from unitmem.unit import Invocation

NOT_YET_WATCHED = "not watched for that long yet"
"""The reason for which a derivation over a span is unknown at first; it passes by itself."""

PARTS = 8
"""The equal parts of the span of a leak, by the monotonic clock; the part that has just begun is one more."""
MIN_RISES = 6
"""The least number of parts, of all but the first, whose floor is higher than the one before."""

RESOLUTION = 1 / 64
"""The least distance of kept counts, as a share of their age: a throttled unit's change a hundred times a second.
Events between two of them are counted with those before."""
_THIN_EVERY = 64

_EMPTY = Window()

Counts = tuple[tuple[float, Mapping[str, float]], ...]
"""(time, cumulative counts by measure), in the order of time."""
Slope = tuple[str, float]
"""A measure, and the span in seconds over which its slope is asked for."""


@dataclass(frozen=True, slots=True)
class Trend:
    """The counts and points of one invocation."""

    invocation: Invocation
    events: Counts = ()
    """Cumulative counts, at each time they changed."""
    windows: Mapping[Slope, Window] = field(default_factory=dict)
    floors: Mapping[Slope, Points] = field(default_factory=dict)
    """The least value in each part of the span of a leak, where anybody looked in it."""
    since: float = 0.0
    """The time of the first look."""
    inherited: Mapping[str, float] = field(default_factory=dict)
    """The last known counts of an earlier run in the same cgroup, in which the kernel counts on."""


@dataclass(frozen=True, slots=True)
class LevelTrend:
    """The points of what is unreclaimable at a level that units share, and its slopes at the last tick."""

    window: Window = field(default_factory=Window)
    slope: float | None = None
    """Bytes a second, over as much of the span as was watched; None of too few points."""
    growth: float | None = None
    """The slope once the level was watched for the whole span; None before."""


LevelTrends = Mapping[Slope, LevelTrend]
"""The trends of levels, by (path or `HOST_LEVEL`, span), which are kept once for all units below them."""
NO_LEVELS: LevelTrends = {}


def extend(trend: Trend | None, unit: UnitSample, wanted: Iterable[Comparison], now: float) -> Trend | None:
    """Return `trend` with the values of `unit` added, and without what no comparison in `wanted` needs any longer.

    None if no comparison needs one.
    """
    if unit.invocation is None:
        return None
    counted: list[float] = []
    slopes: set[Slope] = set()
    leaks: set[Slope] = set()
    for comparison in wanted:
        match comparison.derivation, comparison.span:
            case Derivation.INCREASE, float(span):
                counted.append(span)
            case Derivation.GROWTH | Derivation.ETA, float(span):
                slopes.add((comparison.followed, span))
            case Derivation.LEAK, float(span):
                leaks.add((comparison.measure, span))
    if not counted and not slopes and not leaks:
        return None
    if trend is None or trend.invocation != unit.invocation:
        trend = Trend(unit.invocation, since=now, inherited=_inherited(trend, unit.invocation))
    events = _with_counts(trend.events, unit, max(counted), now) if counted else ()
    # what lies between bounds says nothing of a slope: it begins anew
    windows = {
        slope: trend.windows.get(slope, _EMPTY).extended(unit.values.get(slope[0]), slope[1], now)
        for slope in slopes
        if slope[0] not in unit.at_least
    }
    floors = {
        leak: _with_floor(trend.floors.get(leak, ()), unit, leak, now)
        for leak in leaks
        if leak[0] not in unit.at_least
    }
    return Trend(unit.invocation, events, windows, floors, trend.since, trend.inherited)


def without_answered(unit: UnitSample, last_ended: tuple[Invocation, float] | None) -> UnitSample:
    """Return `unit` without the OOM kills of earlier runs that a policy has answered by ending another run since.

    Args:
        unit: the unit.
        last_ended: the last run of it that the policy decided to end, and until when that was there.
    """
    # if it is this run, its action may have failed, and is tried again for the same kills
    if not unit.oom_ends or last_ended is None or last_ended[0] == unit.invocation:
        return unit
    return replace(unit, oom_ends=tuple(end for end in unit.oom_ends if end > last_ended[1]))


def extend_levels(
    levels: LevelTrends, sample: Sample, wanted: Mapping[str, Iterable[Comparison]], now: float
) -> LevelTrends:
    """Return `levels` with what is unreclaimable at each level now, and without what no eta needs any longer.

    A level of which nothing can be read now keeps its points until they are too old.

    Args:
        levels: what the last call returned.
        sample: the units and the machine.
        wanted: the comparisons about each unit of `sample`, by its name.
        now: the time of `sample`.
    """
    used: dict[Slope, float | None] = {}
    spans = set()
    for name, asked in wanted.items():
        for comparison in asked:
            if comparison.derivation is Derivation.ETA and comparison.span is not None:
                spans.add(comparison.span)
                for filling in fillings(sample.units[name], sample.host, comparison.measure):
                    if filling.path is not None:
                        used[filling.path, comparison.span] = filling.used
    unread: dict[Slope, float | None] = {slope: None for slope in levels if slope[1] in spans}
    followed = {
        slope: _with_level(levels.get(slope), value, slope[1], now)
        for slope, value in (unread | used).items()
    }
    return {slope: trend for slope, trend in followed.items() if slope in used or trend.window.points}


def _with_level(trend: LevelTrend | None, value: float | None, span: float, now: float) -> LevelTrend:
    window = (_EMPTY if trend is None else trend.window).extended(value, span, now)
    slope = window.slope(value, now)
    return LevelTrend(window, slope, slope if window.covers(span, now) else None)


def leak_of(floors: Points) -> float:
    """Return the slope of `floors`, one for each part of a span; 0 where they don't keep rising to the last."""
    values = [value for _, value in floors]
    rises = sum(late > early for early, late in pairwise(values))
    if rises < MIN_RISES or values[-1] <= max(values[:-1]):
        return 0.0
    return slope_of(floors) or 0.0


class UnitFacts:
    """The facts for `condition.judge`: a sample of a unit and of the host, and the unit's trend."""

    def __init__(
        self,
        unit: UnitSample,
        trend: Trend | None,
        now: float,
        host: HostSample = NO_HOST,
        levels: LevelTrends = NO_LEVELS,
        lag: int = 0,
    ) -> None:
        self._unit = unit
        self._host = host
        self._trend = trend if trend is not None and trend.invocation == unit.invocation else None
        self._now = now
        self._levels = levels
        self._lag = lag
        """Bytes by which what depends on memory.stat may be wrong."""
        self._slopes: dict[Slope, float | None] = {}

    def bounds(self, measure: str) -> Bounds | None:
        part = self._part(measure)
        if (value := self._age if measure == AGE else part.values.get(measure)) is not None:
            lag = self._lag_of(measure) if self._lag else 0
            return Bounds(value - lag, value + lag)
        most, least = part.at_most.get(measure), part.at_least.get(measure)
        if most is None and least is None:
            return None
        return Bounds(least or 0, inf if most is None else most)

    def _lag_of(self, measure: str) -> float:
        entry, limit = OPERANDS[measure], self._unit.values.get("limit")
        if Trait.LAGGING not in entry.traits:
            return 0.0
        if entry.dimension is Dimension.SIZE:
            return self._lag
        return 100 * self._lag / limit if limit else 0.0

    def with_lag(self) -> UnitFacts:
        """Return these facts as far as they are certain: memory.stat lags behind memory.current."""
        return UnitFacts(self._unit, self._trend, self._now, self._host, self._levels, STAT_LAG)

    @property
    def _age(self) -> float | None:
        """The seconds for which the run is up; a sample of which nothing else has changed may be from before."""
        since = self._unit.unit.up_since
        return self._unit.values.get(AGE) if since is None else round(max(0.0, self._now - since), 3)

    def _part(self, measure: str) -> UnitSample | HostSample:
        return self._host if measure.startswith("host.") else self._unit

    def derived(self, measure: str, derivation: Derivation, span: float) -> Bounds | None:
        match derivation:
            case Derivation.INCREASE:
                return self._increase(measure, span)
            case Derivation.GROWTH:
                return _exactly(self._growth(measure, span))
            case Derivation.ETA:
                left = self._eta(measure, span)
                return None if left is None else left[0]
            case Derivation.LEAK:
                return _exactly(self._leak(measure, span))

    def why_unknown(self, measure: str, derivation: Derivation | None) -> str:
        function = None if derivation is None else FUNCTIONS.get(derivation)
        followed = None if function is None else function.follows
        for operand in filter(None, (measure, followed)):
            part = self._part(operand)
            if operand not in part.values:
                return part.unknown.get(operand, NOT_READ)
        if derivation is Derivation.ETA and lacks_levels(self._unit, measure):
            return LEVELS_MISSING
        if derivation is Derivation.ETA and self._unit.levels and FILL in self._unit.unknown:
            return self._unit.unknown[FILL]
        return NOT_YET_WATCHED

    def level(self, comparison: Comparison) -> str | None:
        if comparison.derivation is Derivation.ETA and comparison.span is not None:
            left = self._eta(comparison.measure, comparison.span)
            return None if left is None else left[1]
        if comparison.measure != FILL or comparison.derivation is not None or not has_levels(self._unit):
            return None
        # a history has bounds of what is available: where both make the same level the fullest, that is the one
        paths = set()
        for available in self.bounds("host.available") or ():
            level = fullest(self._unit.levels, self._host.total, available)
            paths.add(None if level is None else level[1])
        own = self._unit.levels[0].path if self._unit.levels else None
        if len(paths) != 1 or None in paths:
            return UNKNOWN_LEVEL
        return next(iter(paths - {own}), None)

    def _eta(self, target: str, span: float) -> tuple[Bounds, str | None] | None:
        """Return what `time_left` does, by slopes over the whole span; None before it was watched."""
        own = self._growth(ETA_USAGE, span)
        if own is None:  # what has filled a level so far may have been the run before this one
            return None

        def slope(path: str | None) -> float | None:
            if path is None:
                return own
            return self._levels.get((path, span), LevelTrend()).growth

        return time_left(self._unit, self._host, target, slope)

    def _increase(self, measure: str, span: float) -> Bounds | None:
        """Return bounds of the number of events of the unit within the last `span` seconds."""
        own = self._own_increase(measure, span)
        if own is None or measure != OOM_KILLS:
            return own
        ended = sum(1 for at in self._unit.oom_ends if at > self._now - span)
        return Bounds(own.low + ended, own.high + ended)

    def _own_increase(self, measure: str, span: float) -> Bounds | None:
        """Return bounds of the number of events of this run; at most all since its cgroup was made."""
        total = self._unit.values.get(measure)
        if total is None or self._trend is None:
            return None
        start = self._now - span
        before = [counts for at, counts in self._trend.events if at <= start]
        if before and measure in before[-1]:
            return Bounds(total - before[-1][measure], total - before[-1][measure])
        # a slice is older than the runs in it, and its counts are not theirs
        is_own = OPERANDS[measure].scope is Scope.UNIT
        inherited = self._trend.inherited.get(measure) if is_own else None
        if is_own and inherited is None and self._is_new(span):
            return Bounds(total, total)
        # not known as the span began: what was counted since is in it, what came before that may be
        after = [counts[measure] for at, counts in self._trend.events if at > start and measure in counts]
        known = [counts[measure] for counts in before if measure in counts]
        least = known[-1] if known else inherited or 0
        return Bounds(total - (after[0] if after else total), total - least)

    def _is_new(self, span: float) -> bool:
        """Return whether the run and its cgroup, which a run may leave to the next, are no older than `span`."""
        made = self._unit.cgroup_made
        age = self._age
        return age is not None and age <= span and (made is None or made >= self._now - span)

    def slope(self, measure: str, span: float) -> float | None:
        """Return the slope of `measure` in bytes a second, over as much of the span as was watched; None of too few points."""
        if (measure, span) not in self._slopes:  # several steps may ask for it
            value = self._unit.values.get(measure)
            self._slopes[measure, span] = self._window(measure, span).slope(value, self._now)
        return self._slopes[measure, span]

    def _growth(self, measure: str, span: float) -> float | None:
        """Return the slope of `measure` once it was watched for the whole span."""
        return self.slope(measure, span) if self._window(measure, span).covers(span, self._now) else None

    def _leak(self, measure: str, span: float) -> float | None:
        """Return the slope of the measure's floor; None until the run is twice the span old, so that it has warmed up."""
        if self._trend is None or measure not in self._unit.values:
            return None
        age = max(self._age or 0.0, self._now - self._trend.since)
        if age < 2 * span:
            return None
        this_part = self._now // (span / PARTS)
        floors = self._trend.floors.get((measure, span), ())
        over = tuple(floor for floor in floors if floor[0] // (span / PARTS) < this_part)
        # a part in which nobody looked has no floor
        return leak_of(over) if len(over) == PARTS else None

    def _window(self, measure: str, span: float) -> Window:
        return _EMPTY if self._trend is None else self._trend.windows.get((measure, span), _EMPTY)


def _exactly(value: float | None) -> Bounds | None:
    return None if value is None else Bounds(value, value)


def _inherited(earlier: Trend | None, invocation: Invocation) -> Mapping[str, float]:
    """Return the counts that the cgroup of `invocation` had when `earlier` was last looked at; none of another cgroup."""
    if earlier is None or earlier.invocation.cgroup_inode != invocation.cgroup_inode:
        return {}
    counts = dict(earlier.inherited)
    for _, later in earlier.events:
        counts |= later
    return counts


def _with_counts(events: Counts, unit: UnitSample, span: float, now: float) -> Counts:
    counts = {event: unit.values[event] for event in EVENT_NAMES if event in unit.values}
    # only changes are kept: a quiet unit costs two entries however long the span is
    if not events or events[-1][1] != counts:
        events = (*events, (now, counts))
        if len(events) % _THIN_EVERY == 0:
            events = _thinned(events, now)
    # one entry from before the span is needed, to count from
    old = [index for index, (at, _) in enumerate(events) if at <= now - span]
    return events[old[-1] :] if old else events


def _thinned(events: Counts, now: float) -> Counts:
    """Return `events` without those that are closer to the one before than `RESOLUTION` allows at their age."""
    kept = [events[0]]
    for event, later in pairwise(events[1:]):
        if later[0] - kept[-1][0] > (now - kept[-1][0]) * RESOLUTION:
            kept.append(event)
    return (*kept, *events[1:][-1:])


def _with_floor(floors: Points, unit: UnitSample, leak: Slope, now: float) -> Points:
    measure, span = leak
    width = span / PARTS
    part = now // width
    if (value := unit.values.get(measure)) is not None:
        if not floors or floors[-1][0] // width < part:
            floors = (*floors, (now, value))
        elif value < floors[-1][1]:
            floors = (*floors[:-1], (now, value))
    while floors and floors[0][0] // width < part - PARTS:
        floors = floors[1:]
    return floors
