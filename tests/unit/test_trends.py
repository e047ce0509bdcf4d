"""What is remembered over time: counts of events, slopes and the time they leave, and how little of it is kept."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations, pairwise
from math import exp, inf, pi, sin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitmem.kernel.limits import Level
from unitmem.measure.sample import UnitSample
from unitmem.policy.condition import Bounds, Derivation, comparisons
from unitmem.policy.slopes import MAX_EXCESS, MIN_POINTS, POINTS_A_SPAN, Window, slope_of
from unitmem.policy.trends import NOT_YET_WATCHED, PARTS, RESOLUTION, UnitFacts, extend
from unitmem.policyfile.expression import parse_condition
from unitmem.unit import Invocation, Unit

M = 2**20
RUN = Invocation("web.service", "1" * 32, 7)
GROWTH, ETA, INCREASE, LEAK = Derivation.GROWTH, Derivation.ETA, Derivation.INCREASE, Derivation.LEAK


def sampled(invocation=RUN, **values):
    """A unit of which these measures are known; `events_oom` is `events.oom`."""
    known = {name.replace("_", "."): value for name, value in values.items() if value is not None}
    unknown = {name: "gone blind" for name, value in values.items() if value is None}
    return UnitSample(Unit("web.service"), invocation, values=known, unknown=unknown)


def watched(condition, ticks):
    """(trend, facts) after samples at `ticks`, a list of (time, sample)."""
    wanted = list(comparisons(parse_condition(condition)))
    trend = None
    facts = None
    for at, unit in ticks:
        trend = extend(trend, unit, wanted, at)
        facts = UnitFacts(unit, trend, at)
    return trend, facts


def growing(times, rate=M, start=100 * M, **values):
    """Samples of a unit whose anonymous memory grows by `rate` a second."""
    return [(at, sampled(anon=start + rate * at, **values)) for at in times]


def kept_points(trend):
    (window,) = trend.windows.values()
    return window.points


def slope(facts, span=60.0):
    bounds = facts.derived("anon", GROWTH, span)
    assert bounds is None or bounds.low == bounds.high
    return None if bounds is None else bounds.low


# --- a slope -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], None),
        ([(0, 0)], None),
        ([(at, at) for at in range(MIN_POINTS - 1)], None),
        ([(at, at) for at in range(MIN_POINTS)], 1),
        ([(at, 5) for at in range(9)], 0),
        ([(at, -2 * at) for at in range(9)], -2),
        ([(0, 0), (1, 1), (2, 2), (3, 3), (40, 40)], 1),  # of all pairs, whatever their distance
    ],
)
def test_a_slope_is_the_median_between_any_two_points(points, expected):
    assert slope_of(tuple(points)) == expected


lines = st.tuples(
    st.integers(MIN_POINTS, POINTS_A_SPAN + 2), st.integers(-1000, 1000).map(float), st.integers(0, 10**9)
)
spikes = st.integers(-(10**12), 10**12).map(float)


@given(line=lines, data=st.data())
def test_one_spike_does_not_move_a_slope(line, data):
    """However high it is, and wherever; the mean of the pairs would follow it anywhere."""
    count, rate, start = line
    points = [(float(at), start + rate * at) for at in range(count)]
    place = data.draw(st.integers(0, count - 1))
    points[place] = (points[place][0], data.draw(spikes))
    assert slope_of(tuple(points)) == rate


@given(line=lines, data=st.data())
def test_a_quarter_of_spikes_does_not_move_a_slope(line, data):
    count, rate, start = line
    points = [(float(at), start + rate * at) for at in range(count)]
    places = data.draw(st.sets(st.integers(0, count - 1), max_size=count // 4))
    for place in places:
        points[place] = (points[place][0], data.draw(spikes))
    assert slope_of(tuple(points)) == rate


@given(values=st.lists(st.integers(0, 2**40), min_size=MIN_POINTS, max_size=POINTS_A_SPAN))
def test_a_slope_lies_between_the_steepest_ones(values):
    points = [(float(at), float(value)) for at, value in enumerate(values)]
    steps = [late - early for early, late in pairwise(values)]
    assert min(steps) <= slope_of(tuple(points)) <= max(steps)
    assert slope_of(tuple((at, -value) for at, value in points)) == -slope_of(tuple(points))


@given(
    steps=st.lists(
        st.tuples(st.floats(0.1, 40), st.none() | st.integers(0, 3) | st.integers(0, 2**40)), max_size=150
    ),
    span=st.sampled_from([20.0, 60.0, 600.0]),
)
def test_a_slope_that_is_kept_up_is_the_one_between_all_pairs(steps, span):
    """At every look, whatever is added and dropped in between; many values are the same."""
    window, now = Window(), 0.0
    for gap, value in steps:
        now += gap
        window = window.extended(value, span, now)
        latest = window.points if value is None else (*window.points, (now, value))
        points = tuple(dict(latest).items())  # the last point may be of now
        expected = None if value is None else slope_of(points)
        assert window.slope(value, now) == expected
        assert list(window.slopes) in ([], sorted(slopes_between(window.points)))


def slopes_between(points):
    return [(b - a) / (late - early) for (early, a), (late, b) in combinations(points, 2)]


# --- growth over time --------------------------------------------------------------------------


@pytest.mark.parametrize("every", [0.1, 1, 2, 3, 5, 7, 15])
def test_growth_is_known_once_its_span_was_watched_and_from_then_on(every):
    """At any interval that the reader of policies lets pass."""
    wanted = list(comparisons(parse_condition("growth(anon, 1min) > 1M/min")))
    trend = None
    for tick in range(int(180 / every)):
        at = tick * every
        unit = sampled(anon=100 * M + M * at)
        trend = extend(trend, unit, wanted, at)
        facts = UnitFacts(unit, trend, at)
        assert slope(facts) == (pytest.approx(M) if at >= 60 else None), at
        if at < 60:
            assert facts.why_unknown("anon", GROWTH) == NOT_YET_WATCHED


@given(
    gaps=st.lists(st.floats(0.01, 14), min_size=1, max_size=300), span=st.sampled_from([60.0, 100.0, 600.0])
)
def test_what_is_kept_is_bounded_and_growth_known_only_where_it_covers_the_span(gaps, span):
    """At ticks of any distance, as events cause them."""
    wanted = list(comparisons(parse_condition(f"growth(anon, {span:g}s) > 1M/min")))
    trend = None
    at = 0.0
    for gap in gaps:
        at += gap
        unit = sampled(anon=M * at)
        trend = extend(trend, unit, wanted, at)
        points = kept_points(trend)
        assert len(points) <= POINTS_A_SPAN + 1
        assert all(at - time <= span * (1 + MAX_EXCESS) for time, _ in points)
        known = slope(UnitFacts(unit, trend, at), span)
        assert (known is not None) == (points[0][0] <= at - span)
        assert known is None or known == pytest.approx(M)


def test_a_long_span_costs_no_more_than_a_short_one():
    trend, facts = watched("growth(anon, 1h) > 1M/min", growing(range(0, 20000, 2)))
    points = kept_points(trend)
    assert len(points) <= POINTS_A_SPAN + 1
    assert slope(facts, 3600.0) == M


def test_growth_follows_a_turn_after_some_of_its_span():
    rising = growing(range(0, 100, 2))
    level = [(at, sampled(anon=200 * M)) for at in range(100, 200, 2)]
    condition = "growth(anon, 1min) > 1M/min"
    assert slope(watched(condition, [*rising, *level[:5]])[1]) == pytest.approx(M, rel=0.2)
    assert slope(watched(condition, [*rising, *level])[1]) == 0


@pytest.mark.parametrize("spike", [0, 10**15])
@pytest.mark.parametrize("at", [0, 60, 90, 118, 120])
def test_a_spike_among_the_samples_does_not_move_growth(spike, at):
    ticks = growing(range(0, 122, 2))
    ticks[at // 2] = (at, sampled(anon=spike))
    assert slope(watched("growth(anon, 1min) > 1M/min", ticks)[1]) == M


def test_while_its_measure_is_unknown_growth_is_unknown_for_that_reason():
    ticks = [*growing(range(0, 100, 2)), (100, sampled(anon=None))]
    _, facts = watched("growth(anon, 1min) > 1M/min", ticks)
    assert slope(facts) is None
    assert facts.why_unknown("anon", GROWTH) == "gone blind"


@pytest.mark.parametrize(
    ("gap", "is_known"),
    [((80, 82), True), ((70, 90), True), ((62, 98), True), ((10, 98), False), ((40, 160), False)],
)
def test_after_a_short_gap_growth_is_known_at_once_and_after_a_long_one_it_is_not(gap, is_known):
    """A gap that leaves no point from before the span, or too few within it, is one to wait after."""
    first, last = gap
    times = range(0, last + 4, 2)
    ticks = [(at, sampled(anon=None if first <= at <= last else M * at)) for at in times]
    _, facts = watched("growth(anon, 1min) > 1M/min", ticks)
    assert slope(facts) == (M if is_known else None)


def test_after_any_gap_growth_is_known_again_once_its_span_was_watched_anew():
    before, after = growing(range(0, 100, 2)), growing(range(1000, 1064, 2))
    gap = [(at, sampled(anon=None)) for at in range(100, 1000, 2)]
    condition = "growth(anon, 1min) > 1M/min"
    assert slope(watched(condition, [*before, *gap, *after[:10]])[1]) is None
    assert slope(watched(condition, [*before, *gap, *after])[1]) == M


def test_another_run_starts_from_nothing():
    other = Invocation("web.service", "2" * 32, 8)
    ticks = growing(range(0, 100, 2))
    trend, _ = watched("growth(anon, 1min) > 1M/min", ticks)
    unit = sampled(other, anon=5 * M)
    assert slope(UnitFacts(unit, trend, 102)) is None
    trend, facts = watched("growth(anon, 1min) > 1M/min", [*ticks, (102, unit)])
    assert slope(facts) is None
    assert kept_points(trend) == ((102, 5 * M),)


def test_each_span_has_a_trend_of_its_own_and_eta_shares_that_of_its_measure():
    condition = "growth(anon, 1min) > 1M/min or growth(anon, 2min) > 1M/min or eta(limit, 1min) < 1h or eta(high, 1min) < 1h"
    trend, _ = watched(condition, [(0, sampled(anon=1, unreclaimable=1))])
    assert trend.windows.keys() == {("anon", 60.0), ("anon", 120.0), ("unreclaimable", 60.0)}


@pytest.mark.parametrize("condition", ["anon > 1M", "pressure.some.avg10 > 5%"])
def test_nothing_is_remembered_for_what_looks_at_one_instant(condition):
    assert watched(condition, [(0, sampled(anon=1))])[0] is None


def test_nothing_is_remembered_of_a_unit_that_does_not_run():
    assert watched("growth(anon, 1min) > 1M/min", [(0, sampled(None, anon=1))])[0] is None


def test_what_no_condition_needs_any_longer_is_forgotten():
    ticks = growing(range(0, 100, 2))
    trend, _ = watched("growth(anon, 1min) > 1M/min", ticks)
    assert extend(trend, ticks[-1][1], [], 100) is None
    other = comparisons(parse_condition("events.oom > 0 in 1h"))
    assert extend(trend, ticks[-1][1], other, 100).windows == {}


# --- the slope of the floor ----------------------------------------------------------------------

HOUR, DAY = 3600.0, 86400.0


def noise(height):
    """A function of time with values around 0, always the same."""
    seeded = random.Random(7)
    return lambda at: seeded.gauss(0, height)


def saw(period, height):
    return lambda at: height * (at % period) / period


def wave(period, height):
    return lambda at: height * sin(2 * pi * at / period)


def slopes_of(what, span, until, every=300, derivation="leak", **values):
    """(time, MiB an hour) at every tick at which it is known, of a run that is watched from its start on."""
    wanted = list(comparisons(parse_condition(f"{derivation}(anon, {span:g}s) > 1M/h")))
    trend, found = None, []
    for at in range(0, int(until) + 1, every):
        unit = sampled(anon=what(at) * M, **{name: value(at) for name, value in values.items()})
        trend = extend(trend, unit, wanted, at)
        derived = UnitFacts(unit, trend, at).derived("anon", Derivation(derivation), span)
        if derived is not None:
            found.append((at, derived.low / M * HOUR))
    return found


NOISE = {height: noise(height) for height in (100, 200)}
FLAT = {
    "a collector's sawtooth": (lambda at: 300 + saw(37 * 60, 200)(at), DAY),
    "one that is longer than a part": (lambda at: 300 + saw(6 * HOUR, 200)(at), DAY),
    "a daily wave": (lambda at: 500 + wave(DAY, 300)(at), DAY),
    "a daily wave in a longer span": (lambda at: 500 + wave(DAY, 300)(at), 2 * DAY),
    "a warm-up": (lambda at: 2000 * (1 - exp(-at / (3 * HOUR))), DAY),
    "a warm-up with a collector": (lambda at: (800 + saw(1800, 200)(at)) * (1 - exp(-at / HOUR)), DAY),
    "a noisy database": (lambda at: 2000 + NOISE[200](at), DAY),
    "steps of a batch, given back": (lambda at: 300 + (400 if at % (4 * HOUR) > HOUR else 0), DAY),
    "shrinking": (lambda at: 3000 - 5 * at / HOUR, DAY),
    "level": (lambda at: 300, DAY),
}
LEAKS = {
    "steady": (lambda at: 300 + 5 * at / HOUR, DAY),
    "steady, in an hour": (lambda at: 300 + 5 * at / HOUR, 2 * HOUR),
    "slow, under noise": (lambda at: 2000 + 5 * at / HOUR + abs(NOISE[100](at)), DAY),
    "under a collector's sawtooth": (lambda at: 300 + 5 * at / HOUR + saw(37 * 60, 200)(at), DAY),
}


@pytest.mark.parametrize(("what", "span"), FLAT.values(), ids=FLAT)
def test_what_does_not_leak_has_no_leak(what, span):
    found = slopes_of(what, span, 3 * span)
    assert found
    assert max(leak for _, leak in found) < 1  # MiB an hour; what is left of a warm-up


@pytest.mark.parametrize(("what", "span"), LEAKS.values(), ids=LEAKS)
def test_a_leak_is_seen_at_each_look_and_for_what_it_is(what, span):
    found = slopes_of(what, span, 3 * span, every=60)
    assert found[0][0] == 2 * span
    assert [leak for _, leak in found] == pytest.approx([5] * len(found), rel=0.1)


@pytest.mark.parametrize("what", ["a collector's sawtooth", "a daily wave", "a noisy database"])
def test_growth_takes_for_a_leak_what_leak_does_not(what):
    assert max(growth for _, growth in slopes_of(FLAT[what][0], HOUR, 3 * DAY, 60, "growth")) > 30


def test_a_wave_that_is_longer_than_the_span_looks_like_a_leak():
    assert max(leak for _, leak in slopes_of(FLAT["a daily wave"][0], 6 * HOUR, 3 * DAY)) > 30


@pytest.mark.parametrize(
    ("age", "known_from"),
    [
        (lambda at: at, 2 * HOUR),
        (lambda at: at + 10 * DAY, HOUR),  # an old run: once its span was watched
        (lambda at: at + 0.75 * HOUR, 1.25 * HOUR),
        (lambda at: None, 2 * HOUR),  # it is at least as old as it was watched
    ],
)
def test_a_leak_is_known_once_the_run_is_twice_the_span_old_and_its_span_was_watched(age, known_from):
    found = slopes_of(lambda at: 300 + at / HOUR, HOUR, 3 * HOUR, every=30, age=age)
    assert found[0][0] == known_from
    assert len(found) == (3 * HOUR - known_from) / 30 + 1  # and at each look from then on


def test_a_leak_that_is_not_known_yet_says_so():
    _, facts = watched("leak(anon, 1h) > 1M/h", growing(range(0, 60, 2)))
    assert facts.derived("anon", LEAK, HOUR) is None
    assert facts.why_unknown("anon", LEAK) == NOT_YET_WATCHED
    _, facts = watched("leak(anon, 1h) > 1M/h", [(0, sampled(anon=None))])
    assert facts.why_unknown("anon", LEAK) == "gone blind"


def test_after_a_gap_a_leak_is_unknown_until_its_span_is_covered_again():
    """Not 0: a part in which nobody looked may have had the lowest floor, or the highest."""
    part = HOUR / PARTS
    times = [at for at in range(0, int(5 * HOUR), 30) if not 3 * HOUR <= at < 3 * HOUR + part]
    wanted = list(comparisons(parse_condition("leak(anon, 1h) > 1M/h")))
    trend, known = None, {}
    for at in times:
        unit = sampled(anon=300 * M + at)
        trend = extend(trend, unit, wanted, at)
        known[at] = UnitFacts(unit, trend, at).derived("anon", LEAK, HOUR) is not None
    blind = [at for at, is_known in known.items() if not is_known and at >= 2 * HOUR]
    assert (min(blind), max(blind)) == (3 * HOUR + part, 4 * HOUR + part - 30)
    assert all(not is_known for at, is_known in known.items() if min(blind) <= at <= max(blind))


def test_a_short_gap_leaves_a_leak_known():
    part = HOUR / PARTS
    ticks = [at for at in range(0, int(3 * HOUR), 30) if not 2.5 * HOUR <= at < 2.5 * HOUR + part - 60]
    _, facts = watched("leak(anon, 1h) > 1B/h", [(at, sampled(anon=300 * M + at)) for at in ticks])
    assert facts.derived("anon", LEAK, HOUR).low == pytest.approx(1, rel=0.1)


def test_a_leak_costs_no_more_over_a_long_span_than_over_a_short_one():
    ticks = [(at, sampled(anon=300 * M + at)) for at in range(0, 20000, 2)]
    trend, _ = watched("leak(anon, 1h) > 1M/h", ticks)
    (floors,) = trend.floors.values()
    assert len(floors) <= PARTS + 1
    assert not trend.windows


def test_another_run_has_no_leak_of_the_one_before():
    ticks = [(at, sampled(anon=300 * M + M * at)) for at in range(0, 8000, 30)]
    other = Invocation("web.service", "2" * 32, 8)
    trend, facts = watched("leak(anon, 1h) > 1M/h", [*ticks, (8000, sampled(other, anon=900 * M, age=DAY))])
    assert facts.derived("anon", LEAK, HOUR) is None
    assert trend.floors == {("anon", HOUR): ((8000, 900 * M),)}


# --- the time that is left ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "limit", "expected"),
    [
        (1, 1000 * M, 800),  # 200M used after 100 s, 800M to go
        (1, 200 * M, 0),  # met
        (1, 150 * M, 0),  # long met
        (0, 1000 * M, inf),
        (-0.5, 1000 * M, inf),
        (0, 50 * M, 0),
        (-0.5, 40 * M, 0),
    ],
)
@pytest.mark.parametrize("target", ["limit", "high"])
def test_eta_is_what_is_left_at_this_rate(rate, limit, expected, target):
    own = {"max": limit} if target == "limit" else {}
    levels = (Level("/web.service", high=limit),) if target == "high" else ()
    ticks = [
        (at, replace(sampled(unreclaimable=100 * M + rate * M * at, **own, **{target: limit}), levels=levels))
        for at in range(0, 102, 2)
    ]
    _, facts = watched(f"eta({target}, 1min) < 1h", ticks)
    assert facts.derived(target, ETA, 60.0) == Bounds(expected, expected)


@given(rate=st.integers(-1000, 1000).map(float), start=st.integers(0, 10**9), limit=st.integers(0, 10**9))
def test_eta_is_never_below_nothing_and_infinite_only_where_the_limit_will_not_be_met(rate, start, limit):
    values = {at: max(0.0, start + rate * at) for at in range(0, 70, 2)}
    ticks = [(at, sampled(unreclaimable=value, max=limit, limit=limit)) for at, value in values.items()]
    eta = watched("eta(limit, 1min) < 1h", ticks)[1].derived("limit", ETA, 60.0).low
    assert eta >= 0
    assert (eta == 0) == (values[68] >= limit)
    assert (eta == inf) == (values[68] < limit and rate <= 0)


def test_eta_is_not_known_before_its_span_was_watched():
    ticks = [(at, sampled(unreclaimable=M * at, max=900 * M, limit=900 * M)) for at in range(0, 62, 2)]
    _, facts = watched("eta(limit, 1min) < 1h", ticks[:-1])
    assert facts.derived("limit", ETA, 60.0) is None
    assert facts.why_unknown("limit", ETA) == NOT_YET_WATCHED
    _, facts = watched("eta(limit, 1min) < 1h", ticks)
    assert facts.derived("limit", ETA, 60.0) == Bounds(840, 840)


@pytest.mark.parametrize("blind", ["unreclaimable", "high"])
def test_eta_needs_both_what_grows_and_what_it_meets(blind):
    values = {"unreclaimable": M, "high": 900 * M}
    ticks = [(at, sampled(**values)) for at in range(0, 100, 2)]
    _, facts = watched("eta(high, 1min) < 1h", [*ticks, (100, sampled(**values | {blind: None}))])
    assert facts.derived("high", ETA, 60.0) is None
    assert facts.why_unknown("high", ETA) == "gone blind"


# --- counts of events --------------------------------------------------------------------------


def counted(counts):
    return [(at, sampled(events_oom=count)) for at, count in counts]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([(0, 5)], Bounds(0, 5)),  # what was before the first look may lie within the span
        ([(0, 5), (10, 7)], Bounds(2, 7)),
        ([(0, 5), (60, 7)], Bounds(2, 2)),  # known exactly once the span was watched
        ([(0, 5), (30, 7), (89, 7)], Bounds(2, 2)),
        ([(0, 5), (30, 7), (90, 7)], Bounds(0, 0)),  # a minute ago it was 7 already
        ([(0, 0), (10, 1), (20, 2), (75, 3)], Bounds(2, 2)),
    ],
)
def test_an_increase_is_counted_from_the_start_of_its_span(counts, expected):
    _, facts = watched("events.oom > 0 in 1min", counted(counts))
    assert facts.derived("events.oom", INCREASE, 60.0) == expected


@pytest.mark.parametrize(
    ("age", "counts", "expected"),
    [
        (30, [(0, 5)], Bounds(5, 5)),  # all of a young run's events are within the span
        (60, [(0, 5)], Bounds(5, 5)),
        (61, [(0, 5)], Bounds(0, 5)),
        (None, [(0, 5)], Bounds(0, 5)),
        (30, [(0, 0), (10, 3)], Bounds(3, 3)),
        (1000, [(0, 5), (60, 7)], Bounds(2, 2)),
    ],
)
def test_a_run_that_is_younger_than_the_span_has_all_of_its_events_within_it(age, counts, expected):
    ticks = [(at, sampled(events_oom=count, age=age)) for at, count in counts]
    _, facts = watched("events.oom > 0 in 1min", ticks)
    assert facts.derived("events.oom", INCREASE, 60.0) == expected


@pytest.mark.parametrize(
    ("own", "ends", "expected"),
    [
        (0, (), Bounds(0, 0)),
        (1, (), Bounds(1, 1)),
        (0, (950.0, 960.0, 999.0), Bounds(3, 3)),
        (2, (950.0,), Bounds(3, 3)),
        (0, (940.0, 100.0), Bounds(0, 0)),  # longer ago than the span
        (None, (950.0,), None),
    ],
)
def test_runs_that_an_oom_kill_ended_count_one_each(own, ends, expected):
    at = 1000.0
    known = {} if own is None else {"events.oom_kill": own}
    unit = replace(sampled(), values={"age": 5.0, "events.oom": 0, **known}, oom_ends=ends)
    _, facts = watched("events.oom_kill > 2 in 1min", [(at, unit)])
    assert facts.derived("events.oom_kill", INCREASE, 60.0) == expected
    assert facts.derived("events.oom", INCREASE, 60.0) == Bounds(0, 0)  # and count as no other event


NEXT = replace(RUN, invocation_id="2" * 32)


@pytest.mark.parametrize(
    ("ticks", "expected"),
    [
        # the kernel counts on in a cgroup that a run leaves to the next
        ([(0, RUN, 7, 9e6), (100, NEXT, 7, 1.0)], Bounds(0, 0)),
        ([(0, RUN, 7, 9e6), (100, NEXT, 8, 1.0)], Bounds(0, 1)),  # of either run
        ([(0, RUN, 7, 9e6), (100, NEXT, 8, 1.0), (110, NEXT, 10, 11.0)], Bounds(2, 3)),
        ([(0, RUN, 7, 9e6), (100, NEXT, 8, 1.0), (160, NEXT, 10, 61.0)], Bounds(2, 2)),
        ([(0, RUN, 7, 9e6), (99, RUN, None, 9e6), (100, NEXT, 7, 1.0)], Bounds(0, 0)),
        (
            [(0, RUN, 7, 9e6), (99, NEXT, None, 1.0), (100, replace(RUN, invocation_id="3" * 32), 7, 1.0)],
            Bounds(0, 0),
        ),
        # a new one has the events of its own run
        ([(0, RUN, 7, 9e6), (100, replace(NEXT, cgroup_inode=8), 7, 1.0)], Bounds(7, 7)),
    ],
)
def test_a_run_does_not_have_the_events_of_an_earlier_one_in_its_cgroup(ticks, expected):
    samples = [(at, sampled(run, events_oom=count, age=age)) for at, run, count, age in ticks]
    _, facts = watched("events.oom > 0 in 1min", samples)
    assert facts.derived("events.oom", INCREASE, 60.0) == expected


def test_the_events_of_a_slice_are_not_those_of_a_run_in_it():
    runs = [(0, RUN, 1), (50, RUN, 3), (100, NEXT, 3)]
    ticks = [(at, sampled(run, slice_events_oom=count, age=1.0)) for at, run, count in runs]
    _, facts = watched("slice.events.oom > 0 in 1min", ticks)
    assert facts.derived("slice.events.oom", INCREASE, 60.0) == Bounds(0, 3)


@pytest.mark.parametrize(
    ("made", "expected"), [(939.0, Bounds(0, 5)), (940.0, Bounds(5, 5)), (None, Bounds(5, 5))]
)
def test_a_young_run_in_an_older_cgroup_may_have_events_of_before_the_span(made, expected):
    unit = replace(sampled(events_oom=5, age=1.0), cgroup_made=made)
    _, facts = watched("events.oom > 0 in 1min", [(1000.0, unit)])
    assert facts.derived("events.oom", INCREASE, 60.0) == expected


def test_only_changes_of_counts_are_kept():
    trend, _ = watched("events.oom > 0 in 1h", counted((at, 3) for at in range(5000)))
    assert len(trend.events) == 1


def test_an_increase_of_what_is_not_known_is_not_known():
    _, facts = watched("events.oom > 0 in 1min", [(0, sampled(events_oom=1)), (90, sampled(anon=1))])
    assert facts.derived("events.oom", INCREASE, 60.0) is None


@given(steps=st.lists(st.tuples(st.floats(0.1, 40), st.integers(0, 3)), min_size=1, max_size=50))
def test_an_increase_is_never_told_wrong(steps):
    """The count at the start of the span, known to the one who made it up, lies within what is told."""
    at, count = 0.0, 0
    history = []
    wanted = list(comparisons(parse_condition("events.oom > 0 in 1min")))
    trend = None
    for gap, more in steps:
        at, count = at + gap, count + more
        history.append((at, count))
        unit = sampled(events_oom=count)
        trend = extend(trend, unit, wanted, at)
        low, high = UnitFacts(unit, trend, at).derived("events.oom", INCREASE, 60.0)
        before = [total for time, total in history if time <= at - 60]
        true = count - (before[-1] if before else 0)
        assert low <= true <= high
        assert low == high or not before


def test_what_is_remembered_of_a_throttled_unit_is_bounded_and_nearly_right():
    """A change at each tick of a long span; what is thinned out is counted with what came before it."""
    ticks = [(float(at), sampled(events_high=10 * at)) for at in range(5000)]
    trend, facts = watched("events.high > 0 in 1h", ticks)
    assert len(trend.events) < 1000
    for span in (10.0, 60.0, 3600.0):
        low, high = facts.derived("events.high", INCREASE, span)
        assert low == high
        assert 10 * span <= low <= 10 * span * (1 + 2 * RESOLUTION)
