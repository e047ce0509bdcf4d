"""What holds of every policy over every timeline, recomputed from the timeline rather than from the state."""

from __future__ import annotations

import copy
import signal
from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy.actions import Kill, Log, Restart, Signal, Stop
from unitmem.policy.decision import Decision, Obstacle
from unitmem.policy.engine import evaluate
from unitmem.policy.model import DEFAULT_INTERVAL, Budget, Mode, Policy, PolicyFile, Step
from unitmem.policy.state import RETRY_AFTER, Phase, State, carry_over, rearm
from unitmem.policyfile.expression import parse_condition
from unitmem.unit import Invocation, Unit

M = 2**20
UNITS = ("a.service", "b.service", "c.service")

# --- conditions, read a second time ------------------------------------------------------------

CONDITIONS = {
    "anon > 2M": lambda anon, swap: anon > 2,
    "anon > 4M": lambda anon, swap: anon > 4,
    "anon > 6M": lambda anon, swap: anon > 6,
    "not anon < 4M": lambda anon, swap: not anon < 4,
    "swap > 3M": lambda anon, swap: swap > 3,
    "anon > 4M and swap > 3M": lambda anon, swap: anon > 4 and swap > 3,
    "anon > 6M or swap > 6M": lambda anon, swap: anon > 6 or swap > 6,
    "anon < 4M": lambda anon, swap: anon < 4,
    "swap < 4M": lambda anon, swap: swap < 4,
    "anon < 7M or swap < 2M": lambda anon, swap: anon < 7 or swap < 2,
}
READ = {text: parse_condition(text) for text in CONDITIONS}
TEXT = {condition: text for text, condition in READ.items()}


@cache
def truth(condition, anon, swap):
    """True or False if all that the unknown may be agrees on it, and None if not."""
    answers = {
        CONDITIONS[TEXT[condition]](a, s)
        for a in (range(10) if anon is None else [anon])
        for s in (range(10) if swap is None else [swap])
    }
    return answers.pop() if len(answers) == 1 else None


# --- what may happen ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """One unit at one tick."""

    anon: int | None
    swap: int | None
    there: bool = True
    anew: bool = False
    """It was started again since the last tick."""
    fails: str | None = None
    """"late": the action longest under way has failed; "at once": what is decided now fails."""
    run: int = 1

    def is_true(self, condition):
        return truth(condition, self.anon, self.swap)


# mostly large, so that much fires; most unlike the others last, as examples shrink to the first
READINGS = [
    *(Reading(anon, swap) for anon in (8, 5, 8, 3, 8, 1) for swap in (8, 4, 1)),
    *(Reading(anon, swap) for anon, swap in ((None, 8), (None, 4), (8, None), (None, None))),
    *[Reading(8, 8, fails="late"), Reading(8, 4, fails="late"), Reading(3, 8, fails="late")] * 2,
    *[Reading(8, 8, fails="at once"), Reading(8, 1, fails="at once")],
    *[Reading(8, 8, anew=True), Reading(5, 4, anew=True)] * 2,
    Reading(1, 1, there=False),
]

ACTIONS = [Log(), Signal(signal.SIGUSR1), Stop(), Log(), Signal(signal.SIGTERM), Restart(), Kill()]
conditions = st.sampled_from(list(READ.values()))
budgets = st.one_of(st.none(), st.builds(Budget, st.integers(1, 3), st.sampled_from([5.0, 12.0, 30.0])))
steps = st.builds(
    Step,
    conditions,
    st.sampled_from(ACTIONS),
    st.sampled_from([0.0, 2.0, 3.5, 7.0]),
    st.sampled_from([None, None, 1.0, 4.0]),
)
ladders = st.builds(
    Policy,
    name=st.just("p"),
    units=st.sampled_from([("*.service",), ("*.service",), ("[ab].service",)]),
    steps=st.lists(steps, min_size=1, max_size=4).map(tuple),
    unprotect=st.sampled_from([frozenset(), frozenset({"a.service"})]),
    mode=st.sampled_from([Mode.ACT, Mode.ACT, Mode.OBSERVE]),
    clear=st.one_of(st.none(), conditions),
    cooldown=st.sampled_from([0.0, 0.0, 3.0, 10.0]),
    budget=budgets,
)


def named(drawn):
    return [replace(policy, name=f"p{index}") for index, policy in enumerate(drawn)]


policy_files = st.lists(ladders, min_size=1, max_size=3).map(named)
pauses = st.sampled_from([1, 1, 2, 4])
protections = st.sampled_from([frozenset(), frozenset(), frozenset({"a.service", "b.service"})])


def readings(units):
    return st.tuples(*[st.sampled_from(READINGS)] * units)


timelines = st.integers(1, len(UNITS)).flatmap(
    lambda units: st.lists(st.tuples(pauses, readings(units)), min_size=8, max_size=24)
)


# --- playing it --------------------------------------------------------------------------------


@dataclass
class Tick:
    """What there was at one tick, and what came of it."""

    now: int
    readings: dict[str, Reading]
    """Of the units that are there."""
    ending: set[str]
    """Units that an action under way was ending as the tick began."""
    renewed: set[str]
    """Units that were let alone until then, for an action that has failed."""
    decisions: tuple[Decision, ...] = ()
    failed: list[Decision] = field(default_factory=list)
    """Before the tick or right after it."""
    state: State | None = None


def sampled(name, reading, protected):
    known = {"anon": reading.anon, "swap": reading.swap}
    return UnitSample(
        Unit(name),
        Invocation(name, f"{reading.run:032x}", reading.run),
        protected="it is dear" if name in protected else None,
        values={measure: value * M for measure, value in known.items() if value is not None},
    )


def ends(decision):
    return decision.acts and decision.action.ends_the_unit


def play(policies, timeline, budget=None, protected=frozenset()):
    """Each tick of `timeline`, with its decisions; every action is under way until it fails."""
    state, now = State(), 0
    ticks: list[Tick] = []
    runs: dict[str, int] = defaultdict(lambda: 1)
    under_way: dict[str, list[Decision]] = defaultdict(list)
    for pause, row in timeline:
        now += pause
        there = {}
        for name, reading in zip(UNITS, row, strict=False):
            runs[name] += reading.anew
            if reading.there:
                there[name] = replace(reading, run=runs[name])
        tick = Tick(now, there, set(), set())
        for name in list(under_way):
            run = there[name].run if name in there else None
            under_way[name] = [d for d in under_way[name] if d.invocation.cgroup_inode == run]
            if under_way[name] and there[name].fails == "late":
                decision = under_way[name].pop(0)
                state = rearm(state, decision, now)
                tick.failed.append(decision)
                if ends(decision):
                    tick.renewed.add(name)
            if any(ends(decision) for decision in under_way[name]):
                tick.ending.add(name)
        sample = Sample(now, {name: sampled(name, reading, protected) for name, reading in there.items()})
        state, tick.decisions = evaluate(policies, sample, state, now, budget)
        for decision in tick.decisions:
            if decision.acts and there[decision.unit].fails == "at once":
                state = rearm(state, decision, now)
                tick.failed.append(decision)
            elif decision.acts:
                under_way[decision.unit].append(decision)
        tick.state = state
        ticks.append(tick)
    return ticks


def told(ticks):
    return [decision for tick in ticks for decision in tick.decisions]


def has_fired(decision):
    return decision.refusal is None or decision.refusal.obstacle is Obstacle.PROTECTED


def is_paid_for(decision):
    return decision.refusal is None and not isinstance(decision.action, Log)


def is_clear(policy, reading):
    if policy.clear is not None:
        return reading.is_true(policy.clear) is True
    return all(reading.is_true(step.when) is False for step in policy.steps)


def held_since(ticks, index, policy, step, unit):
    """Since when the step's condition was seen to hold at every tick up to that `index`; None if it doesn't."""
    since, run = None, ticks[index].readings[unit].run
    for tick in reversed(ticks[: index + 1]):
        reading = tick.readings.get(unit)
        if reading is None or reading.run != run or unit in tick.ending:
            break
        if reading.is_true(step.when) is not True or is_clear(policy, reading):
            break
        since = tick.now
        if unit in tick.renewed:
            break
    return since


def is_proven(ticks, index, step, since):
    """Whether there were looks enough: two that are further apart than the interval may have met a spike each."""
    looks = sum(tick.now >= since for tick in ticks[: index + 1])
    return step.hold <= DEFAULT_INTERVAL or looks > 2


def episodes(ticks, policy, unit):
    """(its decisions that fired, when it ended) of each episode, the last one open and maybe empty."""
    found: list[tuple[list[Decision], int | None]] = []
    fired: list[Decision] = []
    run = None
    for tick in ticks:
        reading = tick.readings.get(unit)
        is_over = (
            reading is None or reading.run != run or (unit not in tick.ending and is_clear(policy, reading))
        )
        if is_over and fired:
            found.append((fired, tick.now))
            fired = []
        run = reading.run if reading else None
        ours = (d for d in tick.decisions if (d.policy, d.unit) == (policy.name, unit))
        fired = [*fired, *(decision for decision in ours if has_fired(decision))]
    return [*found, (fired, None)]


# --- the properties ----------------------------------------------------------------------------


@given(policy_files, timelines, budgets, protections)
def test_what_fires_was_known_to_hold_at_every_tick_of_its_span(policies, timeline, budget, protected):
    ticks = play(policies, timeline, budget, protected)
    by_name = {policy.name: policy for policy in policies}
    for index, tick in enumerate(ticks):
        for decision in tick.decisions:
            policy = by_name[decision.policy]
            step = policy.steps[decision.step]
            since = held_since(ticks, index, policy, step, decision.unit)
            assert since is not None
            # no pause is longer than two intervals
            assert decision.held == tick.now - since >= step.hold == decision.hold
            assert is_proven(ticks, index, step, since)


spans = st.integers(0, 1200).map(lambda quarters: quarters / 4)  # exact sums


@given(
    st.integers(1, 40).map(lambda quarters: quarters / 4),
    spans,
    st.lists(st.one_of(st.integers(0, 16).map(lambda quarters: quarters / 4), spans), max_size=30),
)
def test_no_more_is_credited_than_somebody_looked(interval, hold, gaps):
    """And a step whose `for` is longer than the interval takes three looks."""
    step = Step(READ["anon > 4M"], Log(), hold)
    file = PolicyFile((Policy("p", ("*.service",), (step,)),), interval)
    sample = {"a.service": sampled("a.service", Reading(8, 1), frozenset())}
    state, now, begun, looks, held = State(), 0.0, 0.0, 0, 0.0
    for gap in [0.0, *gaps]:
        now += gap
        state, decisions = evaluate(file, Sample(now, sample), state, now)
        ((after,),) = [ladder.steps for ladder in state.ladders.values()]
        if gap > max(hold, 60, 2 * interval):
            begun, looks, held = now, 0, 0.0
            assert after.held == 0
        looks += 1
        assert held <= after.held <= min(now - begun, 2 * interval * (looks - 1))
        assert after.held - held == min(gap, 2 * interval) or looks == 1
        held = after.held
        if hold > interval and looks < 3:
            assert not decisions
        assert all(decision.held == held for decision in decisions)


@given(policy_files, timelines, budgets)
def test_a_step_fires_once_an_episode_or_as_often_as_it_repeats(policies, timeline, budget):
    ticks = play(policies, timeline, budget)
    failed_at = {id(decision): tick.now for tick in ticks for decision in tick.failed}
    for policy in policies:
        for fired, _ in [episode for unit in UNITS for episode in episodes(ticks, policy, unit)]:
            for index, step in enumerate(policy.steps):
                ours = [decision for decision in fired if decision.step == index]
                for first, second in pairwise(ours):
                    if failed_at.get(id(first), second.at + 1) <= second.at:
                        assert second.at - failed_at[id(first)] >= RETRY_AFTER
                    else:
                        assert step.repeat is not None
                        assert second.at - first.at >= step.repeat


@given(policy_files, timelines, budgets)
def test_no_window_holds_more_actions_than_the_budgets(policies, timeline, budget):
    paid = [decision for decision in told(play(policies, timeline, budget)) if is_paid_for(decision)]

    def is_kept(limit, times):
        return limit is None or all(
            later - sooner >= limit.per for sooner, later in zip(times, times[limit.actions :], strict=False)
        )

    for policy in policies:
        for unit in UNITS:
            assert is_kept(policy.budget, [d.at for d in paid if (d.policy, d.unit) == (policy.name, unit)])
    for observe in (False, True):
        assert is_kept(budget, [d.at for d in paid if d.observe is observe])


@given(ladders, timelines, st.integers(2, 4))
def test_mild_steps_leave_one_action_to_the_harshest(policy, timeline, actions):
    policy = replace(policy, budget=Budget(actions, 1000.0))
    paid = [decision for decision in told(play([policy], timeline)) if is_paid_for(decision)]
    harshest = max(step.action.severity for step in policy.steps)
    for unit in UNITS:
        mild = [d for d in paid if d.unit == unit and d.action.severity < harshest]
        assert len(mild) < actions


@given(policy_files, timelines)
def test_nothing_is_done_to_a_protected_unit_unless_the_policy_names_it(policies, timeline):
    allowed = {(policy.name, unit) for policy in policies for unit in policy.unprotect}
    for decision in told(play(policies, timeline, protected=frozenset(UNITS))):
        if (decision.policy, decision.unit) not in allowed:
            assert not decision.acts
            assert decision.refusal is not None or isinstance(decision.action, Log)


@given(policy_files, timelines, budgets)
def test_nothing_is_decided_for_what_is_ending(policies, timeline, budget):
    for tick in play(policies, timeline, budget):
        ending = set(tick.ending)
        for decision in tick.decisions:
            assert decision.unit not in ending
            if ends(decision):
                ending.add(decision.unit)


@given(policy_files, timelines, budgets, protections)
def test_no_episode_begins_while_it_cools_down(policies, timeline, budget, protected):
    ticks = play(policies, timeline, budget, protected)
    for policy in policies:
        for unit in UNITS:
            for (_, ended), (fired, _) in pairwise(episodes(ticks, policy, unit)):
                assert all(decision.at >= ended + policy.cooldown for decision in fired)


@given(policy_files, timelines, protections)
def test_each_unit_gets_what_it_would_have_had_alone(policies, timeline, protected):
    together = told(play(policies, timeline, protected=protected))
    for index, unit in enumerate(UNITS[: len(timeline[0][1])]):
        gone = Reading(None, None, there=False)
        alone = [
            (pause, tuple(reading if at == index else gone for at, reading in enumerate(row)))
            for pause, row in timeline
        ]
        assert [d for d in together if d.unit == unit] == told(play(policies, alone, protected=protected))


@given(policy_files, timelines, protections)
def test_observing_decides_what_acting_does_until_it_ends_the_unit(policies, timeline, protected):
    timeline = [(pause, tuple(replace(reading, fails=None) for reading in row)) for pause, row in timeline]
    acting, observing = (
        told(play([replace(policy, mode=mode) for policy in policies], timeline, protected=protected))
        for mode in (Mode.ACT, Mode.OBSERVE)
    )
    assert all(decision.observe and not decision.acts for decision in observing)
    for unit in UNITS:
        ours = [d for d in acting if d.unit == unit]
        until = next((index + 1 for index, decision in enumerate(ours) if ends(decision)), None)
        theirs = [replace(d, observe=False) for d in observing if d.unit == unit]
        assert ours[:until] == theirs[:until]


@given(policy_files, timelines, budgets, protections)
def test_exactly_what_is_due_is_decided_and_what_withholds_it_is_told_once(
    policies, timeline, budget, protected
):
    ticks = play(policies, timeline, budget, protected)
    withheld: dict[tuple[str, str, int, int], Obstacle] = {}
    for index, tick in enumerate(ticks):
        seen = ticks[:index]
        decisions = [(d.policy, d.unit, d.step, d.refusal and d.refusal.obstacle) for d in tick.decisions]
        paid = [(d.policy, d.unit, d.observe, d.at) for d in told(seen) if is_paid_for(d)]
        silent = set(tick.ending)
        expected = []
        was_withheld, withheld = withheld, {k: v for k, v in withheld.items() if k[1] in tick.ending}
        for policy, unit in [(p, unit) for p in policies for unit in tick.readings if p.governs(Unit(unit))]:
            for number in due(ticks, index, policy, unit):
                if unit in silent:
                    continue
                step, observes = policy.steps[number], policy.mode is Mode.OBSERVE
                key = policy.name, unit, tick.readings[unit].run, number
                line = policy.name, unit, number
                obstacle = None
                ended = [end for _, end in episodes([*seen, replace(tick, decisions=())], policy, unit)[:-1]]
                if ended and tick.now < ended[-1] + policy.cooldown:
                    obstacle = Obstacle.COOLING_DOWN
                elif isinstance(step.action, Log):
                    pass
                elif unit in protected - policy.unprotect:
                    obstacle = Obstacle.PROTECTED
                elif is_spent(
                    policy.budget,
                    [at for *of, _, at in paid if of == [policy.name, unit]],
                    tick,
                    is_last_kept(policy, step.action),
                ):
                    obstacle = Obstacle.OUT_OF_BUDGET
                elif is_spent(budget, [at for _, _, observed, at in paid if observed is observes], tick):
                    obstacle = Obstacle.OUT_OF_FILE_BUDGET
                elif observes:
                    paid.append((policy.name, unit, True, tick.now))
                else:
                    paid.append((policy.name, unit, False, tick.now))
                    if step.action.ends_the_unit:
                        silent.add(unit)
                if obstacle in (None, Obstacle.PROTECTED):
                    expected.append((*line, obstacle))
                    continue
                if unit in tick.renewed or was_withheld.get(key) is not obstacle:
                    expected.append((*line, obstacle))
                withheld[key] = obstacle
        assert decisions == expected


def is_spent(budget, times, tick, kept=False):
    return budget is not None and sum(at > tick.now - budget.per for at in times) >= budget.actions - kept


def is_last_kept(policy, action):
    return (
        policy.budget is not None
        and policy.budget.actions > 1
        and any(step.action.severity > action.severity for step in policy.steps if step.action.acts)
    )


def due(ticks, index, policy, unit):
    """The places of the steps that fire at that tick, if nothing is in the way."""
    tick, seen = ticks[index], ticks[:index]
    fired = episodes([*seen, replace(tick, decisions=())], policy, unit)[-1][0]
    failed_at = {id(d): earlier.now for earlier in seen for d in earlier.failed}
    failed_at |= {id(d): tick.now for d in tick.failed if d.at < tick.now}
    for number, step in enumerate(policy.steps):
        since = held_since(ticks, index, policy, step, unit)
        if since is None or tick.now - since < step.hold or not is_proven(ticks, index, step, since):
            continue
        last = next((decision for decision in reversed(fired) if decision.step == number), None)
        if last is None:
            yield number
        elif id(last) in failed_at:
            if tick.now >= failed_at[id(last)] + RETRY_AFTER:
                yield number
        elif step.repeat is not None and tick.now - last.at >= step.repeat:
            yield number


@given(policy_files, timelines, budgets)
def test_a_phase_is_what_it_says(policies, timeline, budget):
    for index, tick in enumerate(ticks := play(policies, timeline, budget)):
        for (name, unit), ladder in tick.state.ladders.items():
            (policy,) = (policy for policy in policies if policy.name == name)
            fired = {decision.step for decision in episodes(ticks[: index + 1], policy, unit)[-1][0]}
            assert (ladder.episode_since is not None) == bool(fired)
            for number, step in enumerate(ladder.steps):
                assert step.phase is not Phase.FIRED or number in fired
                assert (step.held is None) or step.phase is not Phase.IDLE
                assert (step.held is not None) or step.phase is not Phase.HOLDING
                assert step.withheld is None or (step.held is not None and not step.unknown)


@given(policy_files, timelines, budgets)
def test_the_same_input_gives_the_same_output_and_is_left_as_it_was(policies, timeline, budget):
    state, now = State(), 0
    for pause, row in timeline:
        now += pause
        there = {
            name: sampled(name, reading, frozenset())
            for name, reading in zip(UNITS, row, strict=False)
            if reading.there
        }
        arguments = policies, Sample(now, there), state, now, budget
        before = copy.deepcopy(arguments)
        first, second = evaluate(*arguments), evaluate(*before)
        assert first == second
        assert arguments == before
        state = first[0]


anything = st.one_of(
    st.tuples(st.just("tick"), pauses, readings(3)),
    st.tuples(st.just("tick"), st.just(0), readings(3)),
    st.tuples(st.just("reload"), policy_files, budgets),
    st.tuples(st.just("fail"), st.integers(0, 30), st.integers(0, 30)),
)


@given(policy_files, st.lists(anything, max_size=25), protections)
def test_no_order_of_events_makes_it_raise(policies, events, protected):
    """Reloads, failures of any decision at any time, units without a cgroup, ticks at the same instant."""
    state, now, budget, decided = State(), 0, None, []
    for what, first, second in events:
        if what == "tick":
            now += first
            units = {
                name: replace(
                    sampled(name, reading, protected),
                    **({} if reading.there else {"invocation": None}),
                )
                for name, reading in zip(UNITS, second, strict=True)
            }
            state, decisions = evaluate(policies, Sample(now, units), state, now, budget)
            decided += decisions
        elif what == "reload":
            state = carry_over(state, policies, first, now)
            policies, budget = first, second
        elif decided:
            state = rearm(state, decided[first % len(decided)], now + second)
    assert state.ending <= {decision.invocation for decision in decided}
