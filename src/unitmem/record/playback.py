"""Samples made of the chunks of a history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite, isnan
from typing import Any, NamedTuple

from unitmem.kernel.limits import Level
from unitmem.kernel.oom_preference import OomPreference
from unitmem.measure.catalogue import AGE, OPERANDS, Dimension
from unitmem.measure.sample import HELD, THINNED, HostSample, Sample, UnitSample
from unitmem.record.chunk import AT_LEAST, AT_MOST, HOST, PARTLY, Chunk, Description, Range
from unitmem.unit import Invocation, Unit

_WHOLE = frozenset(
    name for name, measure in OPERANDS.items() if measure.dimension in (Dimension.SIZE, Dimension.COUNT)
)


class Playback:
    """Plays chunks, which must be in the order in which they were written, and begin with a key.

    Args:
        with_ages: whether `age` is among the values; without, it follows from when the unit is up since, and a unit of
            which nothing has changed is the same object in all samples.
    """

    def __init__(self, *, with_ages: bool = True) -> None:
        self._with_ages = with_ages
        self._descriptions: dict[str, Description] = {}
        self._columns: dict[str, dict[str, Range]] = {}
        self._why, self._moved = HELD, 0.0
        self._units: dict[str, UnitSample] = {}
        self._partly: frozenset[str] = frozenset()
        self._host = HostSample()

    def samples(self, chunk: Chunk, moved: float = 0.0) -> Iterator[Sample]:
        """Yield the samples of `chunk`, with their times `moved` by that many seconds.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: it is damaged.
        """
        before = self._why, self._moved
        self._why, self._moved = THINNED if chunk.is_thinned else HELD, moved
        is_other = before != (self._why, moved)
        is_resumed = chunk.is_resumed
        for tick, (changed, described) in enumerate(self._ticks(chunk)):
            at = clock_of(chunk, tick) + moved
            if is_other:
                self._rebuild({HOST, *self._descriptions}, moved)
            elif described:
                self._rebuild(changed | described, moved)
            elif changed:
                self._update(changed, moved)
            about = self._descriptions.get(HOST, {})
            yield Sample(
                at,
                self._units_at(at - moved),
                self._host,
                frozenset(map(str, about.get("unseen", ()))) | self._partly,
                is_complete=not about.get("incomplete", False),
                thinned=self._partly,
                is_resumed=is_resumed,
            )
            is_resumed = is_other = False

    def values(self, chunk: Chunk, unit: str, measure: str) -> Iterator[tuple[int, Range]]:
        """Yield (tick, bounds) of one measure of one unit."""
        for tick, _ in enumerate(self._ticks(chunk)):
            bounds = self._columns.get(unit, {}).get(measure)
            if unit in self._descriptions and bounds is not None and not isnan(bounds.low):
                yield tick, bounds

    def _ticks(self, chunk: Chunk) -> Iterator[tuple[set[str], set[str]]]:
        """Take over the changes of each tick; yield the parts whose numbers, and those whose descriptions have changed."""
        if chunk.is_key:
            self._descriptions.clear()
            self._columns.clear()
        changes: dict[int, list[tuple[str, str, Range]]] = {}
        for part, columns in chunk.columns.items():
            for name, runs in columns.items():
                for run in runs:
                    changes.setdefault(run.tick, []).append((part, name, run))
        described: dict[int, list[tuple[str, Description | None]]] = {}
        for part, descriptions in chunk.descriptions.items():
            for tick, about in descriptions:
                described.setdefault(tick, []).append((part, about))
        for tick in range(chunk.samples):
            changed = set()
            for part, name, run in changes.get(tick, ()):
                self._columns.setdefault(part, {})[name] = run
                changed.add(part)
            for part, about in described.get(tick, ()):
                if about is None:
                    self._descriptions.pop(part, None)
                else:
                    self._descriptions[part] = about
            yield changed, {part for part, _ in described.get(tick, ())}
        for part in self._columns.keys() - self._descriptions.keys():
            del self._columns[part]

    def _update(self, changed: set[str], moved: float) -> None:
        """Make anew what has changed in numbers alone."""
        if any(part.startswith("/") for part in changed):  # of each unit below
            self._rebuild(changed, moved)
            return
        units = {}
        for name in changed:
            if name == HOST:
                known = self._known(HOST)
                unknown = self._unknown(HOST, known)
                self._host = HostSample(known.values, unknown, known.at_least, known.at_most)
            elif name in self._units:
                units[name] = self._renewed(self._units[name], moved)
        self._units = self._units | units if units else self._units

    def _rebuild(self, changed: set[str], moved: float) -> None:
        levels = {part for part in changed if part.startswith("/")}
        self._partly = frozenset(
            name for name, about in self._descriptions.items() if PARTLY in about and name[0] != "/"
        )
        self._update(changed & {HOST}, moved)
        units = {}
        for name, about in self._descriptions.items():  # in the order of the samples
            if name == HOST or name.startswith("/") or PARTLY in about:
                continue
            is_changed = name in changed or not levels.isdisjoint(about.get("levels", ()))
            units[name] = self._unit(name, about, moved) if is_changed else self._units[name]
        self._units = units

    def _unit(self, name: str, about: Mapping[str, Any], moved: float) -> UnitSample:
        run = about.get("run")
        invocation = None
        if run is not None:
            identity, inode = run
            invocation = Invocation(name, None if identity is None else str(identity), int(inode))
        described = UnitSample(
            Unit(
                name,
                invocation_id=None if invocation is None else invocation.invocation_id,
                control_group=None if (path := about.get("cgroup")) is None else str(path),
                aliases=tuple(map(str, about.get("aliases", ()))),
            ),
            invocation,
            protected=about.get("protected"),
            oom_preference=OomPreference(about.get("oom_preference", "none")),
            levels=tuple(self._levels(about.get("levels", ()))),
            oom_ends=tuple(float(end) + moved for end in about.get("oom_ends", ())),
        )
        return self._renewed(described, moved)

    def _renewed(self, before: UnitSample, moved: float) -> UnitSample:
        """Return a unit of which no more than numbers have changed."""
        known = self._known(before.name)
        start = None if self._with_ages else known.values.pop(AGE, None)
        up_since = None if start is None else start + moved
        return UnitSample(
            before.unit if up_since == before.unit.up_since else replace(before.unit, up_since=up_since),
            before.invocation,
            protected=before.protected,
            oom_preference=before.oom_preference,
            values=known.values,
            unknown=self._unknown(before.name, known),
            at_least=known.at_least,
            at_most=known.at_most,
            levels=before.levels,
            oom_ends=before.oom_ends,
        )

    def _known(self, part: str) -> _Part:
        known = _Part({}, {}, {}, [])
        for name, run in self._columns.get(part, {}).items():
            if run.low == run.high and not name.startswith((AT_MOST, AT_LEAST)):
                known.values[name] = _number(name, run.low)
            elif isnan(run.low):
                continue
            elif name.startswith(AT_MOST) and isfinite(run.high):
                measure = name.removeprefix(AT_MOST)
                known.at_most.setdefault(measure, _number(measure, run.high))
            elif name.startswith(AT_LEAST) and isfinite(run.low):
                measure = name.removeprefix(AT_LEAST)
                known.at_least.setdefault(measure, _number(measure, run.low))
            elif not name.startswith((AT_MOST, AT_LEAST)):
                known.at_least[name], known.at_most[name] = run.low, run.high
                known.wide.append(name)
        for name in known.values:
            known.at_most.pop(name, None)
            known.at_least.pop(name, None)
        return known

    def _unknown(self, part: str, known: _Part) -> dict[str, str]:
        reasons = self._descriptions.get(part, {}).get("unknown", {})
        unknown = {str(name): str(why) for name, why in reasons.items() if name not in known.values}
        return unknown | dict.fromkeys(known.wide, self._why)

    def _levels(self, paths: Sequence[str]) -> Iterator[Level]:
        if any(PARTLY in self._descriptions.get(path, {PARTLY: True}) for path in paths):
            return
        for path in paths:
            columns = self._columns.get(path, {})
            known = {name: int(run.low) for name, run in columns.items() if run.low == run.high}
            wide = [name for name, run in columns.items() if run.low < run.high and name in ("max", "high")]
            reasons = self._descriptions[path].get("unknown", {})
            yield Level(path, **known, unknown=dict.fromkeys(wide, self._why) | dict(reasons))

    def _units_at(self, clock: float) -> Mapping[str, UnitSample]:
        """Return the units at that time: of their ages, the starts are kept."""
        aged = {
            name: _aged(unit, clock)
            for name, unit in self._units.items()
            if AGE in unit.values or AGE in unit.at_least
        }
        return self._units | aged if aged else self._units


class _Part(NamedTuple):
    """What is known of a part: values, or bounds."""

    values: dict[str, float]
    at_least: dict[str, float]
    """Lower bounds of what has no value."""
    at_most: dict[str, float]
    wide: list[str]
    """The measures of which the history keeps bounds."""


def _aged(unit: UnitSample, clock: float) -> UnitSample:
    """Return `unit`, whose `age` is the time of its start, with its age at the time `clock`."""

    def age(start: float) -> float:
        return round(max(0.0, clock - start), 3)

    if AGE in unit.values:
        return replace(unit, values={**unit.values, AGE: age(unit.values[AGE])})
    first, last = unit.at_least[AGE], unit.at_most[AGE]
    return replace(
        unit,
        at_least={**unit.at_least, AGE: age(last)},
        at_most={**unit.at_most, AGE: age(first)},
    )


def clock_of(chunk: Chunk, tick: int) -> float:
    """Return the time of a sample of `chunk`: those of a thinned one lie evenly between its first and its last."""
    if not chunk.is_thinned:
        return chunk.clocks[tick]
    first, last = chunk.clocks
    return first if chunk.samples < 2 else first + (last - first) * tick / (chunk.samples - 1)


def _number(measure: str, value: float) -> float:
    return int(value) if measure in _WHOLE else value
