"""Until when a condition about a unit has the truth that it has now, if nothing is read but the same again.

Most units are quiet most of the time. The truth of a condition about the instant follows from the sample. What looks
over a span of time changes with time as well, but at times that are known before: when a run is old enough, when an
event leaves the span, when the next point of a slope or the next part of a leak is due.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from math import inf

from unitmem.measure.catalogue import AGE
from unitmem.measure.sample import HostSample, Sample, UnitSample
from unitmem.policy.condition import Comparison, Derivation
from unitmem.policy.model import Policy
from unitmem.policy.slopes import MAX_EXCESS, MIN_POINTS, POINTS_A_SPAN, Window
from unitmem.policy.state import Ladder, LadderKey, Rest, State
from unitmem.policy.trends import PARTS, Trend

_MARGIN = 0.002
"""Seconds around such a time in which a unit doesn't rest: ages are rounded, and times are sums of others."""
_NEVER = -inf


def at_rest(state: State, policies: Sequence[Policy], sample: Sample, now: float) -> dict[str, Rest]:
    """Return the units of `sample` that need not be judged: all about them is as it was at the last tick."""
    resting, ladders = state.resting, state.ladders
    if resting.policies != tuple(policies):
        return {}
    of_host = {name for policy in policies for name in policy.of_host}
    changed = {name for name in of_host if _known(sample.host, name) != _known(resting.host, name)}
    is_same = ladders is resting.ladders
    return {
        name: rest
        for name, rest in resting.units.items()
        if now < rest.until
        and _is_as(sample.units.get(name), rest)
        and (not changed or changed.isdisjoint(rest.of_host))
        and (is_same or all(ladders.get(key) is ladder for key, ladder in rest.ladders))
    }


def rest_of(
    unit: UnitSample,
    policies: Sequence[Policy],
    ladders: Sequence[tuple[LadderKey, Ladder]],
    trend: Trend | None,
    now: float,
) -> Rest | None:
    """Return the rest of a unit that was judged `now`; None if it has to be judged at the next tick as well.

    Args:
        unit: its sample.
        policies: those that govern it.
        ladders: those of its ladders of which the verdicts follow from all that `Rest` has.
        trend: its trend, with that sample.
        now: the time of the sample.
    """
    if len(ladders) < len(policies) or not all(ladder.rests for _, ladder in ladders):
        return None
    terms = chain.from_iterable(policy.comparisons for policy in policies)
    until = rests_until(terms, unit, trend, now)
    if until <= now:
        return None
    of_host = frozenset(chain.from_iterable(policy.of_host for policy in policies))
    measures = frozenset(chain.from_iterable(policy.of_units for policy in policies))
    return Rest(unit, tuple(ladders), measures, of_host, until)


def _is_as(unit: UnitSample | None, rest: Rest) -> bool:
    """Return whether `unit` is as it was when it came to rest, but for what no condition is about."""
    before = rest.sample
    if unit is None or unit is before:
        return unit is before
    known, knew = unit.values, before.values
    measures = rest.measures if unit.unit.up_since is None else rest.measures - {AGE}
    return (
        unit.invocation == before.invocation
        and unit.unit == before.unit
        and unit.oom_ends == before.oom_ends
        and unit.cgroup_made == before.cgroup_made
        and all(known.get(name) == knew.get(name) for name in measures)
        and unit.unknown == before.unknown
        and unit.at_least == before.at_least
        and unit.at_most == before.at_most
    )


def _known(host: HostSample, measure: str) -> tuple[object, ...]:
    return tuple(part.get(measure) for part in (host.values, host.unknown, host.at_least, host.at_most))


def rests_until(terms: Iterable[Comparison], unit: UnitSample, trend: Trend | None, now: float) -> float:
    """Return the time up to which all `terms` have the truth that they have now, and `trend` stays the same.

    `now` or less where that may be over at the next tick; infinite where it doesn't depend on time.

    Args:
        terms: those about `unit`; the machine is taken to stay the same as well.
        unit: its sample, which stays the same.
        trend: its trend, with that sample.
        now: the time of the sample.
    """
    until = inf
    for term in terms:
        for edge in _edges(term, unit, trend, now):
            if edge == _NEVER:
                return now
            if edge > now - _MARGIN:
                until = min(until, edge - _MARGIN)
    return until


def _edges(term: Comparison, unit: UnitSample, trend: Trend | None, now: float) -> Iterator[float]:
    """Yield the times, past ones too, at which something about `term` changes; `_NEVER` if it may at any time."""
    since, span = unit.unit.up_since, term.span
    if span is None:
        if term.measure == AGE and since is not None:
            yield since + term.threshold
        return
    if trend is None or (since is None and AGE in unit.values):  # in a recording of before
        yield _NEVER
        return
    match term.derivation:
        case Derivation.INCREASE:
            yield from (at + span for at, _ in trend.events)
            yield from (at + span for at in (*unit.oom_ends, unit.cgroup_made, since) if at is not None)
        case Derivation.LEAK:
            width = span / PARTS
            yield (now // width + 1) * width
            yield from (at + 2 * span for at in (trend.since, since) if at is not None)
        case Derivation.GROWTH:
            window = trend.windows.get((term.measure, span), Window())
            yield from _edges_of(window, unit.values.get(term.measure), span)
        case _:  # eta, which follows levels as well
            yield _NEVER


def _edges_of(window: Window, value: float | None, span: float) -> Iterator[float]:
    points = window.points
    if len(points) < MIN_POINTS or window.slopes or value != points[0][1]:
        yield _NEVER
        return
    yield points[-1][0] + span / POINTS_A_SPAN
    yield from (at + span for at, _ in points[:2])
    yield points[0][0] + span * (1 + MAX_EXCESS)
