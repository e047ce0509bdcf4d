"""A unit at rest is not judged again, and nobody can tell: decisions, states and verdicts are as if it were."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitmem.measure.sample import HostSample, Sample, UnitSample
from unitmem.policy import verdicts
from unitmem.policy.actions import Log, Signal, Stop
from unitmem.policy.decision import Outcome, Result
from unitmem.policy.engine import evaluate
from unitmem.policy.model import Budget, Pick, Policy, PolicyFile, Step
from unitmem.policy.state import Resting, State, conclude, reset, restart_timers
from unitmem.policyfile.expression import parse_condition
from unitmem.policyfile.rank import parse_rank
from unitmem.unit import Invocation, Unit

M = 2**20
CONDITIONS = [
    parse_condition(text)
    for text in (
        "anon > 4M",
        "anon > 2M and age > 20s",
        "not age < 37s",
        "anon > 2M or growth(anon, 16s) > 1M/min",
        "growth(anon, 64s) < 1M/h",
        "leak(anon, 32s) > 1M/h",
        "leak(anon, 80s) < 1M/h and anon > 2M",
        "events.oom_kill > 0 in 20s",
        "events.oom_kill < 1 in 1min",
        "anon > 50% of limit",
        "host.available < 3M and anon > 2M",
        "anon > 60% of host.available",
        "eta(limit, 16s) < 5min",
        "fill > 40%",
    )
]
steps = st.builds(
    Step,
    st.sampled_from(CONDITIONS),
    st.sampled_from([Log(), Log(), Signal(signal.SIGUSR1), Stop()]),
    st.sampled_from([0.0, 0.0, 4.0, 11.0]),
    st.sampled_from([None, 6.0]),
    pick=st.sampled_from([None, None, Pick(parse_rank("anon")), Pick(parse_rank("growth(anon, 20s)"))]),
)
ladders = st.builds(
    Policy,
    name=st.just("p"),
    units=st.sampled_from([("*",), ("[ab].service",)]),
    steps=st.lists(steps, min_size=1, max_size=3).map(tuple),
    clear=st.sampled_from([None, None, *CONDITIONS[:3], CONDITIONS[7]]),
    cooldown=st.sampled_from([0.0, 15.0]),
    budget=st.sampled_from([None, Budget(2, 40.0)]),
)
files = st.lists(ladders, min_size=1, max_size=3).map(
    lambda drawn: PolicyFile(tuple(replace(policy, name=f"p{index}") for index, policy in enumerate(drawn)))
)

# a unit changes seldom; None is not known
changes = st.fixed_dictionaries(
    {},
    optional={
        "anon": st.sampled_from([None, M, 3 * M, 5 * M]),
        "events.oom_kill": st.integers(0, 2),
        "limit": st.sampled_from([None, 6 * M, 8 * M]),
        "fill": st.sampled_from([10.0, 50.0]),
        "run": st.booleans(),
        "killed": st.just(True),
        "gone": st.booleans(),
        "unseen": st.booleans(),
    },
)
quiet = st.just({})
events = st.sampled_from(["", "", "", "", "", "", "fail", "reset", "restart", "edit"])
ticks = st.tuples(
    st.sampled_from([2.0, 2.0, 2.0, 1.3, 2.0003, 9.0]),
    st.tuples(*[st.one_of(quiet, quiet, quiet, quiet, changes)] * 3),
    st.sampled_from([None, None, None, 2 * M, 9 * M]),
    events,
)


class Machine:
    """Three units, of which each is the same object until something about it changes."""

    def __init__(self):
        self.now, self.available = 5.0, 9 * M
        self.known = [{"anon": M, "events.oom_kill": 0, "limit": 8 * M, "fill": 10.0} for _ in range(3)]
        self.about = [{"run": 1, "since": 2.0, "gone": False, "unseen": False, "ends": ()} for _ in range(3)]
        self.units = [self.sampled(index) for index in range(3)]

    def sampled(self, index):
        name, about = f"{'abc'[index]}.service", self.about[index]
        values = {measure: value for measure, value in self.known[index].items() if value is not None}
        run = str(about["run"])
        return UnitSample(
            Unit(name, invocation_id=run, up_since=about["since"], control_group=f"/x.slice/{name}"),
            Invocation(name, run, 1),
            values=values,
            oom_ends=about["ends"],
        )

    def tick(self, pause, changed, available):
        self.now += pause
        self.available = self.available if available is None else available
        for index, change in enumerate(changed):
            if not change:
                continue
            about = self.about[index]
            self.known[index] |= {key: change[key] for key in self.known[index] if key in change}
            about |= {key: change[key] for key in ("gone", "unseen") if key in change}
            if change.get("run") or "killed" in change:
                ends = (*about["ends"], self.now - 0.7) if "killed" in change else about["ends"]
                about |= {"run": about["run"] + 1, "since": self.now - 0.5, "ends": ends}
            self.units[index] = self.sampled(index)
        there = [
            unit
            for unit, about in zip(self.units, self.about, strict=True)
            if not about["gone"] | about["unseen"]
        ]
        unseen = [unit.name for unit, about in zip(self.units, self.about, strict=True) if about["unseen"]]
        host = HostSample({"host.available": self.available, "host.total": 12 * M})
        return Sample(self.now, {unit.name: unit for unit in there}, host, frozenset(unseen))


@given(files, st.lists(ticks, min_size=10, max_size=60), st.booleans())
def test_a_rest_changes_nothing(file, timeline, are_same):
    machine, state, verdicts = Machine(), State(), {}
    decided = []
    for pause, changed, available, event in timeline:
        sample = machine.tick(pause, changed, available)
        if not are_same:  # what nobody asks for moves
            units = {
                name: replace(unit, values={**unit.values, "current": sample.at, "age": sample.at})
                for name, unit in sample.units.items()
            }
            sample = replace(sample, units=units)
        judged, anew = {}, {}
        awake = replace(state, resting=Resting())
        state, decisions = evaluate(file, sample, state, sample.at, judged=judged)
        assert evaluate(file, sample, awake, sample.at, judged=anew) == (state, decisions)
        at_rest = {key: verdicts[key] for key in anew.keys() - judged.keys()}
        verdicts = judged | at_rest
        assert verdicts == anew
        decided += [decision for decision in decisions if decision.acts]
        match event:
            case "fail" if decided:
                failed = Outcome(decided.pop(), Result.FAILED, "", sample.at, again=True)
                state = conclude(state, failed, sample.at)
            case "reset":
                state, _ = reset(state, None, sample.at)
            case "restart":
                state = restart_timers(state)
            case "edit":
                file = replace(file, policies=tuple(reversed(file.policies)))


@pytest.mark.parametrize("anon", [M, 3 * M, 5 * M])
@pytest.mark.parametrize("condition", CONDITIONS, ids=str)
def test_what_time_alone_changes_is_seen_at_the_same_tick(condition, anon):
    """Of units of which one is quiet, one was killed once, and one has an event later on."""
    file = PolicyFile((Policy("p", ("*",), (Step(condition, Log()),)),))
    happens = {0: ({"anon": anon},) * 3, 3: ({}, {"killed": True}, {}), 40: ({}, {}, {"events.oom_kill": 1})}
    machine, state = Machine(), State()
    for tick in range(150):
        sample = machine.tick(1.3, happens.get(tick, ({},) * 3), None)
        awake = replace(state, resting=Resting())
        state, decisions = evaluate(file, sample, state, sample.at)
        assert evaluate(file, sample, awake, sample.at) == (state, decisions)


@pytest.mark.parametrize("is_read_anew", [False, True])
@pytest.mark.parametrize(
    ("condition", "judged"),
    [
        ("anon > 4M", 1),
        ("anon > 4M and age > 1h", 1),
        ("leak(anon, 8h) > 1M/h", 5),  # at first, and as each part of an hour begins
        ("events.oom_kill > 0 in 1h", 3),
        ("anon > 80% of host.total", 1),
        ("host.available < 1M", 200),  # it moves
    ],
)
def test_a_quiet_unit_is_judged_only_when_something_about_it_can_change(
    monkeypatch, condition, judged, is_read_anew
):
    seen = []
    truth_of = verdicts.truth_of
    monkeypatch.setattr(verdicts, "truth_of", lambda *args: seen.append(args[1]) or truth_of(*args))
    file = PolicyFile((Policy("p", ("*",), (Step(parse_condition(condition), Log()),)),))
    unit = UnitSample(
        Unit("a.service", up_since=0.0),
        Invocation("a.service", "1", 1),
        values={"anon": M, "events.oom_kill": 0},
    )
    state = State()
    for minute in range(200):
        now = 100_000.0 + 60.0 * minute
        host = HostSample({"host.available": 5 * M + minute, "host.total": 9 * M})
        if is_read_anew:
            unit = replace(unit, values={**unit.values, "age": now, "current": 2 * M + minute})
        state, _ = evaluate(file, Sample(now, {unit.name: unit}, host), state, now)
    assert len(seen) == judged
