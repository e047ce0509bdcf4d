"""Replay is the engine over recorded samples: the same decisions, in far less than real time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from unitmem.kernel.oom_preference import OomPreference
from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy import engine, verdicts
from unitmem.policy.actions import Log, Stop
from unitmem.policy.engine import evaluate
from unitmem.policy.model import Budget, Pick, Policy, PolicyFile, Step, observing
from unitmem.policy.state import State
from unitmem.policyfile.expression import parse_condition
from unitmem.policyfile.rank import parse_rank
from unitmem.record.event import FILE_NAME
from unitmem.record.history import read_samples
from unitmem.record.recorder import Recorder
from unitmem.simulate.replay import Replayed, decisions
from unitmem.unit import Invocation, Unit

M = 2**20
FILE = PolicyFile(
    (
        Policy(
            "p",
            ("*.service",),
            (
                Step(parse_condition("anon > 40M"), Log(), hold=3),
                Step(parse_condition("growth(anon, 10s) > 100M/min"), Stop()),
                Step(parse_condition("pss > 1M"), Stop()),
            ),
            clear=parse_condition("anon < 10M"),
            cooldown=20,
            budget=Budget(2, 60),
        ),
    ),
    budget=Budget(5, 600),
)


def samples(count=500):
    """A saw-tooth of two units, one of which is restarted now and then."""
    for at in range(count):
        yield Sample(
            float(at),
            {
                name: UnitSample(
                    Unit(name),
                    Invocation(name, f"{at // period:032x}", 1),
                    values={"anon": at % period * 2 * M},
                    unknown={"pss": "not read"},
                )
                for name, period in (("a.service", 50), ("b.service", 170))
            },
        )


def watched(file):
    """What a watch that observes decides."""
    state, told = State(), []
    for sample in samples():
        state, made = evaluate(file.policies, sample, state, sample.at, file.budget)
        told += made
    return told


def test_it_decides_as_a_watch_that_observes(tmp_path):
    """Through the recorder and back, to the last digit."""
    recorder = Recorder(tmp_path, "boot")
    for sample in samples():
        recorder.tick(sample, sample.at, FILE.measures, FILE.followed)
    recorder.close()
    replayed = Replayed()
    told = list(decisions(FILE, read_samples(tmp_path / FILE_NAME), replayed))
    assert told == watched(observing(FILE))
    assert {decision.step for decision in told} == {0, 1}
    assert any(decision.refusal for decision in told)
    assert (replayed.samples, replayed.first, replayed.last) == (500, 0.0, 499.0)


@pytest.mark.parametrize(
    ("interval", "every", "hold", "fires_at", "held"),
    [(2.0, 300, 10, None, None), (2.0, 5, 10, 15, 12), (300.0, 300, 301, 600, 600), (300.0, 5, 10, 10, 10)],
)
def test_time_between_samples_counts_as_far_as_the_watch_would_have_looked(
    interval, every, hold, fires_at, held
):
    step = Step(parse_condition("anon > 40M"), Log(), hold=hold)
    units = {
        "a.service": UnitSample(Unit("a.service"), Invocation("a.service", "1", 1), values={"anon": 50 * M})
    }
    told = list(
        decisions(
            PolicyFile((Policy("p", ("*.service",), (step,)),), interval),
            (Sample(float(number * every), units) for number in range(50)),
            Replayed(),
        )
    )
    assert [(decision.at, decision.held) for decision in told] == ([(fires_at, held)] if fires_at else [])


def test_nothing_is_done_whatever_the_mode():
    assert all(decision.observe for decision in decisions(FILE, samples(), Replayed()))


def test_what_was_not_recorded_is_unknown_for_that_reason():
    bare = (
        replace(sample, units={name: replace(unit, unknown={}) for name, unit in sample.units.items()})
        for sample in samples(5)
    )
    assert not [decision for decision in decisions(FILE, bare, Replayed()) if decision.step == 2]


def test_the_same_samples_give_the_same_decisions_again():
    first, second = (list(decisions(FILE, samples(), Replayed())) for _ in range(2))
    assert first == second != []


@pytest.mark.parametrize(("off", "acts"), [(36_000.0, 2), (1800.0, 1)])
def test_what_was_spent_before_a_reboot_is_given_back_by_the_wall_clock(tmp_path, off, acts):
    """One stop within an hour: the machine was off for longer, or for less."""
    ladder = Policy(
        "p", ("*.service",), (Step(parse_condition("anon > 1M"), Stop()),), budget=Budget(1, 3600)
    )
    for boot, clock, realtime in (("one", 9000.0, 1e6), ("two", 20.0, 1e6 + off)):
        run = Invocation("a.service", f"{clock:032.0f}", 1)
        recorder = Recorder(tmp_path, boot)
        units = {"a.service": UnitSample(Unit("a.service"), run, values={"anon": 2 * M})}
        recorder.tick(Sample(clock, units), realtime, [])
        recorder.close()
    told = list(decisions(PolicyFile((ladder,)), read_samples(tmp_path / FILE_NAME), Replayed()))
    assert [decision.refusal is None for decision in told].count(True) == acts


def covered(*steps, samples):
    """How often each of `steps` of a policy over all services could be judged."""
    policy = Policy("p", ("*.service",), tuple(Step(parse_condition(step), Log()) for step in steps))
    replayed = Replayed()
    assert list(decisions(PolicyFile((policy,)), samples, replayed)) == []
    return replayed, list(replayed.steps.values())


def test_it_counts_the_samples_by_which_each_step_could_be_judged():
    replayed, (anon, pss, growth, either) = covered(
        "anon > 1G",
        "pss > 1M",
        "growth(anon, 10s) > 1G/min",
        "anon < 0B or pss > 1M",
        samples=samples(20),
    )
    assert [each.judged for each in (anon, pss, growth, either)] == [20, 0, 10, 0]
    assert replayed.is_blind
    assert pss.unknown == {"pss is unknown (not read)": 20}
    assert set(pss.never) == {"a.service", "b.service"}
    assert growth.unknown == {"growth(anon, 10s) is unknown (not watched for that long yet)": 10}
    assert growth.never == anon.never == {}


def test_a_step_is_also_judged_for_none_where_no_unit_matches():
    others = (
        replace(sample, units={"x.socket": replace(sample.units["a.service"], unit=Unit("x.socket"))})
        for sample in samples(3)
    )
    replayed, (only,) = covered("anon > 1G", samples=others)
    assert (replayed.is_blind, only.judged, only.unknown) == (True, 0, {"no unit that matches": 3})


def test_a_unit_that_is_never_judged_is_named():
    def without(sample):
        lacking = replace(sample.units["b.service"], values={})
        return replace(sample, units={**sample.units, "b.service": lacking})

    replayed, (only,) = covered("anon > 1G", samples=map(without, samples(3)))
    assert (replayed.is_blind, only.judged) == (False, 3)
    assert only.never == {"b.service": "anon is unknown (not in this history)"}


@pytest.mark.parametrize("wobble", [0, 99_999])
def test_a_pick_has_its_outcome_at_once_and_is_counted(tmp_path, wobble):
    """Also through the recorder, which keeps what a pick goes by, if only within close bounds."""
    step = Step(parse_condition("slice.anon > 40M"), Stop(), pick=Pick(parse_rank("anon"), settle=5.0))
    file = PolicyFile((Policy("p", ("*.service",), (step,)),), interval=1.0)

    def units(at):
        for name, slice_, anon in (("a", "x", 10), ("b", "x", 30), ("c", "y", 20), ("d", "x", 50)):
            yield UnitSample(
                Unit(f"{name}.service", control_group=f"/{slice_}.slice/{name}.service"),
                Invocation(f"{name}.service", None, 1),
                values={"anon": anon * M + at % 2 * wobble, "slice.anon": 90 * M},
                oom_preference=OomPreference.OMIT if name == "d" else OomPreference.NONE,
            )

    recorder = Recorder(tmp_path, "boot")
    for at in range(8):
        sample = Sample(float(at), {unit.name: unit for unit in units(at)})
        recorder.tick(sample, float(at), file.measures)
    recorder.close()
    replayed = Replayed()
    made = list(decisions(file, read_samples(tmp_path / FILE_NAME), replayed))
    picked = [(decision.unit, decision.at) for decision in made if decision.refusal is None]
    assert picked == [("b.service", 0.0), ("c.service", 0.0), ("a.service", 5.0)]
    coverage = replayed.steps["p", 0]
    assert coverage.picked == {"a.service": 1, "b.service": 1, "c.service": 1}
    assert coverage.not_picked["d.service"] == 8
    assert coverage.not_picked["a.service"] > 4


def test_replay_judges_each_condition_once_a_sample(monkeypatch):
    """What the engine has found is what is counted; to judge it anew would double the cost."""
    judged = []
    truth_of = verdicts.truth_of
    for module in (engine, verdicts):
        monkeypatch.setattr(module, "truth_of", lambda *args: judged.append(args[0]) or truth_of(*args))
    list(decisions(FILE, samples(20), Replayed()))
    assert len(judged) == 20 * 2 * 4  # three steps and `clear` of two units
