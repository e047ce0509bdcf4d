"""A step that picks: one of all units for which it is due, and what comes of its action decides what follows."""

from __future__ import annotations

import io
import json
import signal
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import sample_of

from unitmem.kernel.limits import HOST_LEVEL, Level
from unitmem.kernel.oom_preference import OomPreference
from unitmem.measure.sample import HostSample, Sample, UnitSample
from unitmem.policy.actions import Kill, LastResort, Restart, SetProperties, Signal, Stop
from unitmem.policy.decision import Decision, Obstacle, Outcome, Result
from unitmem.policy.engine import evaluate
from unitmem.policy.model import Budget, Mode, Pick, Policy, PolicyFile, Step, wanted_measures
from unitmem.policy.need import is_candidate
from unitmem.policy.state import (
    State,
    carry_over,
    conclude,
    restart_timers,
    retry_all,
    step_state,
    unit_budget_left,
    withdraw,
)
from unitmem.policyfile.expression import parse_condition
from unitmem.policyfile.rank import parse_rank
from unitmem.record.state_file import Remembered, decode, encode
from unitmem.report.status import print_statuses
from unitmem.report.terminal import Console
from unitmem.tell.status import WatchStatus, status_document
from unitmem.tell.wording import decision_entry
from unitmem.unit import Invocation, Unit

M = 2**20
SHORT, ENOUGH = 1 * M, 100 * M
"""Bytes that are available: the machine is short, or isn't."""
HOG, SECOND, THIRD = "hog.service", "b.service", "a.service"


def policy(when="host.available < 10M", hold=0.0, action=None, pick="footprint", **more) -> Policy:
    settings = {name: more.pop(name) for name in ("avoid", "settle") if name in more}
    step = Step(
        parse_condition(when),
        action or Stop(timeout=20.0, otherwise=LastResort.KILL),
        hold,
        pick=Pick(parse_rank(pick), **({"settle": 0.0} | settings)),
    )
    return Policy("p", ("*.service", "*.slice"), (step,), **more)


def unit(name, footprint=None, run=1, path=None, **more) -> UnitSample:
    values = {} if footprint is None else {"footprint": footprint * M}
    path = path or f"/system.slice/{name}"
    return UnitSample(
        Unit(name, control_group=path),
        Invocation(name, f"{run:032x}", run),
        values=values | more.pop("values", {}),
        unknown={} if footprint is not None else {"footprint": "memory.swap.current: no such file"},
        **more,
    )


THREE = (unit(THIRD, 10), unit(HOG, 900), unit(SECOND, 20))


@dataclass
class Watch:
    """Looks at units every second, and keeps what was decided."""

    policies: tuple[Policy, ...]
    budget: Budget | None = None
    interval: float = 1.0
    state: State = field(default_factory=State)
    now: float = 0.0

    def look(self, *units: UnitSample, available: int = SHORT) -> list[Decision]:
        self.now += self.interval
        sample = Sample(self.now, {one.name: one for one in units}, HostSample({"host.available": available}))
        file = PolicyFile(self.policies, self.interval, self.budget)
        self.state, decisions = evaluate(file, sample, self.state, self.now)
        return list(decisions)

    def picked(self, *units: UnitSample, available: int = SHORT) -> list[str]:
        return [one.unit for one in self.look(*units, available=available) if one.refusal is None]

    def concluded(self, decision: Decision, result: Result, **more) -> None:
        self.state = conclude(self.state, Outcome(decision, result, "", self.now, **more), self.now)

    def withheld(self, name: str, step: int = 0) -> str | None:
        refusal = step_state(self.state.ladders.get(("p", name)), step).withheld
        return None if refusal is None else refusal.reason


# --- one of all --------------------------------------------------------------------------------


def test_after_settling_two_looks_have_to_agree_again_where_memory_stat_may_lag():
    """What was seen before the first pick had settled counts for nothing."""
    watch = Watch((policy("unreclaimable > 100M", pick="unreclaimable", settle=4.0, mode=Mode.OBSERVE),))
    units = [unit(name, 1, values={"unreclaimable": 100 * M + 1}) for name in (HOG, SECOND)]
    assert [len(watch.picked(*units)) for _ in range(8)] == [0, 1, 0, 0, 0, 0, 1, 0]


def test_of_all_that_the_condition_is_true_of_the_greatest_is_picked():
    watch = Watch((policy(),))
    assert watch.picked(*THREE) == [HOG]
    assert watch.picked(*THREE) == []
    assert watch.withheld(THIRD) == watch.withheld(SECOND) == f"it is not picked: {HOG} is"


def test_those_that_are_not_picked_are_no_decisions():
    assert [one.unit for one in Watch((policy(),)).look(*THREE)] == [HOG]


def test_the_decision_says_among_whom_it_was_picked():
    (decision,) = Watch((policy(hold=0.0),)).look(*THREE)
    assert decision_entry(decision).message == (
        f"{HOG}: host.available 1.0M < 10.0M (policy p, step 1): stopping it (SIGKILL after 20s), "
        f"picked by footprint 900.0M of 3 candidates, next {SECOND} 20.0M"
    )
    (alone,) = Watch((policy(mode=Mode.OBSERVE),)).look(THREE[0])
    assert decision_entry(alone).message.endswith(
        "would stop it (SIGKILL after 20s), picked by footprint 10.0M of 1 candidate, but the policy only observes"
    )


def test_without_pick_all_of_them_are_hit():
    bare = replace(policy(), steps=(replace(policy().steps[0], pick=None),))
    assert Watch((bare,)).picked(*THREE) == [THIRD, HOG, SECOND]


def test_units_are_ranked_by_a_slope():
    watch = Watch((policy(pick="growth(footprint, 10s)"),))
    for second in range(12):
        looked = watch.picked(unit(HOG, 900), unit(THIRD, 10 + second), available=ENOUGH)
        assert looked == []
    assert watch.picked(unit(HOG, 900), unit(THIRD, 22)) == [THIRD]
    assert wanted_measures(watch.policies) == {"host.available", "footprint"}


def test_an_unknown_rank_is_never_picked_and_is_a_reason_that_the_step_cannot_be_judged():
    watch = Watch((policy(),))
    assert watch.picked(unit(HOG), unit(THIRD, 10)) == [THIRD]
    state = step_state(watch.state.ladders["p", HOG], 0)
    assert state.unknown == {"footprint": "memory.swap.current: no such file"}
    watch = Watch((policy(),))
    assert watch.picked(unit(HOG)) == []


@pytest.mark.parametrize(
    ("avoid", "preferences", "order"),
    [
        ((), {}, [HOG, SECOND, THIRD]),
        (("hog*",), {}, [SECOND, THIRD, HOG]),
        ((), {HOG: OomPreference.AVOID}, [SECOND, THIRD, HOG]),
        (("b.*",), {HOG: OomPreference.AVOID}, [THIRD, HOG, SECOND]),
        ((), {HOG: OomPreference.OMIT}, [SECOND, THIRD]),
        (("*",), {SECOND: OomPreference.OMIT}, [HOG, THIRD]),
    ],
)
def test_who_is_avoided_comes_last_and_who_is_omitted_never(avoid, preferences, order):
    watch = Watch((policy(avoid=avoid),))
    units = [replace(one, oom_preference=preferences.get(one.name, OomPreference.NONE)) for one in THREE]
    found = []
    for _ in range(5):
        for decision in watch.look(*units):
            if decision.refusal is None:
                found.append(decision.unit)
                watch.concluded(decision, Result.FAILED)
    assert found == order


def test_who_is_omitted_is_told_once_where_it_ranks_first():
    watch = Watch((policy(),))
    hog = replace(THREE[1], oom_preference=OomPreference.OMIT)
    told, picked = watch.look(hog, THREE[0])
    assert (told.unit, told.refusal.obstacle) == (HOG, Obstacle.NOT_PICKED)
    assert decision_entry(told).message.endswith(
        "not stopping it, since it is not picked: its ManagedOOMPreference= is omit"
    )
    assert (picked.unit, picked.refusal) == (THIRD, None)
    assert watch.look(hog, THREE[0]) == []


def test_whose_preference_is_read():
    """Only where it may matter: of a unit for which the condition of a step that picks holds."""
    one, bare = policy(), replace(policy(), steps=(replace(policy().steps[0], pick=None),))
    short, enough = HostSample({"host.available": SHORT}), HostSample({"host.available": ENOUGH})
    assert is_candidate([one], THREE[0], State(), 0.0, short)
    assert not is_candidate([one], THREE[0], State(), 0.0, enough)
    assert not is_candidate([bare], THREE[0], State(), 0.0, short)
    assert not is_candidate([replace(one, units=("x.service",))], THREE[0], State(), 0.0, short)
    # by levels that this very look extends
    assert is_candidate([policy("eta(limit) < 1min")], THREE[0], State(), 0.0, enough)


def test_the_status_says_who_was_picked_instead():
    watch = Watch((policy(),))
    watch.look(*THREE)
    now = Sample(watch.now, {one.name: one for one in THREE}, HostSample({"host.available": SHORT}))
    about = WatchStatus("p", "p.yaml", 1.0, True, {}, ())
    document = status_document(PolicyFile(watch.policies), now, watch.state, about, 0.0)
    withheld = {one["unit"]: one["steps"][0]["withheld"] for one in document["units"]}
    assert withheld == {HOG: None} | dict.fromkeys((SECOND, THIRD), f"it is not picked: {HOG} is")
    output = io.StringIO()
    print_statuses([document], 0.0, Console(output, width=200))
    assert f"step 1: due, but it is not picked: {HOG} is\n" in output.getvalue()
    assert "stop within 20s, else kill, picked by footprint" in output.getvalue()


# --- who can't be acted on doesn't hold the slot ------------------------------------------------


def test_a_protected_unit_is_told_once_and_the_next_one_is_picked():
    watch = Watch((policy(),))
    units = (*THREE, unit("d.service", 950, protected="it is"), unit("e.service", 990, protected="it is"))
    told, picked = watch.look(*units)
    assert (told.unit, told.refusal.obstacle, picked.unit) == ("e.service", Obstacle.PROTECTED, HOG)
    assert picked.ranking.first == ((HOG, 900.0 * M), (SECOND, 20.0 * M), (THIRD, 10.0 * M))
    watch.concluded(picked, Result.FAILED)
    assert [one.unit for one in watch.look(*units)] == [SECOND]
    assert watch.withheld("d.service") == "it is"


@pytest.mark.parametrize(
    ("more", "obstacle"),
    [
        ({"protected": "it is"}, Obstacle.PROTECTED),
        ({"oom_preference": OomPreference.OMIT}, Obstacle.NOT_PICKED),
    ],
)
@pytest.mark.parametrize("settle", [0.0, 5.0])
def test_the_obstacle_of_a_unit_that_is_first_only_later_is_told_then_and_once(more, obstacle, settle):
    watch = Watch((policy(settle=settle),))
    second = unit("d.service", 800, **more)
    (decision,) = watch.look(*THREE, second)
    assert decision.unit == HOG
    watch.concluded(decision, Result.VERIFIED)
    left = [THREE[0], second]
    told = [made for _ in range(8) for made in watch.look(*left) if made.refusal is not None]
    assert [(made.unit, made.refusal.obstacle) for made in told] == [("d.service", obstacle)]


def test_an_obstacle_is_not_told_again_of_a_unit_that_is_first_again():
    watch = Watch((policy(),))
    first = unit("d.service", 800, protected="it is")
    told = [
        made.unit
        for footprint in (700, 990, 700, 990)
        for made in watch.look(first, unit("e.service", footprint, protected="it is"))
    ]
    assert told == ["d.service", "e.service"]


def test_a_unit_that_cools_down_is_passed_over():
    watch = Watch((policy(cooldown=60.0),))
    (decision,) = watch.look(*THREE)
    watch.concluded(decision, Result.VERIFIED)
    watch.look(THREE[0], THREE[2], available=ENOUGH)
    again = (unit(HOG, 900, run=2), THREE[0])
    assert watch.picked(*again) == [THIRD]
    assert watch.withheld(HOG).startswith("it is cooling down")


def test_a_unit_that_ends_by_another_policy_is_passed_over():
    other = Policy("first", (HOG,), (Step(parse_condition("host.available < 10M"), Stop()),))
    assert Watch((other, policy())).picked(*THREE) == [HOG, SECOND]


def test_the_budget_is_the_policys_and_goes_to_the_hog():
    watch = Watch((policy(budget=Budget(1, 3600.0)),))
    (decision,) = watch.look(*THREE)
    assert decision.unit == HOG
    watch.concluded(decision, Result.VERIFIED)
    (refused,) = watch.look(THREE[0], THREE[2])
    assert (refused.unit, refused.refusal.obstacle) == (SECOND, Obstacle.OUT_OF_BUDGET)
    assert watch.look(THREE[0], THREE[2]) == []
    assert watch.withheld(THIRD) == watch.withheld(SECOND)
    assert unit_budget_left(watch.policies[0], watch.state, THIRD, watch.now) == 0


def test_what_was_spent_before_a_policy_picks_counts_for_all():
    bare = replace(policy(budget=Budget(2, 3600.0)), steps=(replace(policy().steps[0], pick=None),))
    watch = Watch((bare,))
    assert len(watch.picked(*THREE[:2])) == 2
    picks = policy(budget=Budget(2, 3600.0))
    watch.state = carry_over(watch.state, watch.policies, (picks,), watch.now)
    watch.policies = (picks,)
    assert watch.picked(*THREE) == []


def test_the_files_budget_counts_as_ever():
    watch = Watch((policy(),), budget=Budget(1, 3600.0))
    (decision,) = watch.look(*THREE)
    watch.concluded(decision, Result.FAILED)
    (refused,) = watch.look(*THREE)
    assert refused.refusal.obstacle is Obstacle.OUT_OF_FILE_BUDGET


# --- nested units ------------------------------------------------------------------------------


def test_of_nested_units_the_innermost_is_picked():
    outer = unit("apps.slice", 2000, path="/apps.slice")
    inner = (unit(HOG, 900, path="/apps.slice/hog.service"), unit(THIRD, 10, path="/apps.slice/a.service"))
    watch = Watch((policy(),))
    (decision,) = watch.look(outer, *inner)
    assert decision.unit == HOG
    assert decision.ranking.first == ((HOG, 900.0 * M), (THIRD, 10.0 * M))
    assert watch.withheld("apps.slice").endswith("the condition holds for a unit within it, too")


def test_an_outer_unit_is_not_picked_where_none_within_it_may_be():
    outer = unit("apps.slice", 2000, path="/apps.slice")
    inner = unit(HOG, 900, path="/apps.slice/hog.service", oom_preference=OomPreference.OMIT)
    assert Watch((policy(),)).picked(outer, inner) == []
    assert Watch((policy(),)).picked(outer, unit(HOG, path="/apps.slice/hog.service")) == []
    assert Watch((policy(),)).picked(outer) == ["apps.slice"]


def test_an_outer_unit_is_picked_for_what_is_true_of_it_alone():
    outer = unit("apps.slice", 2000, path="/apps.slice")
    inner = unit(HOG, 900, path="/apps.slice/hog.service")
    assert Watch((policy("footprint > 1000M"),)).picked(outer, inner) == ["apps.slice"]


# --- what comes of it --------------------------------------------------------------------------


def test_after_a_verified_action_it_settles_and_the_time_starts_over():
    watch = Watch((policy(hold=3.0, settle=5.0),))
    decisions = []
    for _ in range(30):
        made = watch.look(*(one for one in THREE if one.name not in {d.unit for d in decisions}))
        decisions += made
        for decision in made:
            watch.concluded(decision, Result.VERIFIED)
    assert [(one.unit, one.at) for one in decisions] == [(HOG, 4.0), (SECOND, 12.0), (THIRD, 20.0)]


def test_while_it_settles_the_others_say_so():
    watch = Watch((policy(settle=5.0),))
    (decision,) = watch.look(*THREE)
    watch.concluded(decision, Result.VERIFIED)
    assert watch.picked(*THREE) == []
    assert watch.withheld(HOG) is None
    assert watch.withheld(THIRD) == f"it is not picked: {HOG} was, and the effect settles first"


def test_after_a_failure_the_next_one_is_picked_at_once():
    watch = Watch((policy(hold=3.0, settle=60.0),))
    decisions = []
    for _ in range(4):
        decisions += watch.look(*THREE)
    for _ in range(2):
        watch.concluded(decisions[-1], Result.FAILED, again=True)
        decisions += watch.look(*THREE)
    assert [(one.unit, one.at) for one in decisions] == [(HOG, 4.0), (SECOND, 5.0), (THIRD, 6.0)]


def test_who_has_failed_is_picked_again_after_its_pause():
    watch = Watch((policy(),))
    (decision,) = watch.look(*THREE[:2])
    watch.concluded(decision, Result.FAILED, again=True)
    (second,) = watch.look(*THREE[:2])
    watch.concluded(second, Result.FAILED, again=True)
    assert [name for _ in range(12) for name in watch.picked(*THREE[:2])] == [HOG]


@pytest.mark.parametrize("restarts", [False, True])
def test_who_has_failed_comes_after_all_others_even_if_its_pause_is_over(restarts):
    watch = Watch((policy(),), interval=20.0)
    made = []
    for _ in range(4):
        for decision in watch.look(*THREE):
            made.append(decision.unit)
            watch.concluded(decision, Result.FAILED, again=True)
        if restarts:
            saved(watch)
    assert made == [HOG, SECOND, THIRD, HOG]


def test_what_the_manager_refuses_for_good_leaves_the_slot_to_the_next():
    watch = Watch((policy(),))
    (decision,) = watch.look(*THREE)
    watch.concluded(decision, Result.FAILED, untried=True)
    assert watch.picked(*THREE) == [SECOND]


def test_a_manager_that_is_away_is_no_reason_to_try_the_next():
    watch = Watch((policy(),))
    (decision,) = watch.look(*THREE)
    watch.concluded(decision, Result.FAILED, untried=True, again=True)
    assert watch.picked(*THREE) == []
    watch.state = retry_all(watch.state)
    assert watch.picked(*THREE) == [HOG]


def test_what_could_not_be_tried_has_not_failed_however_long_it_takes():
    watch = Watch((policy(),))
    (picked,) = watch.look(*THREE)
    watch.concluded(picked, Result.FAILED, again=True, untried=True)
    for _ in range(60):
        assert watch.picked(*THREE) == []
    watch.state = retry_all(watch.state)
    assert watch.picked(*THREE) == [HOG]


@pytest.mark.parametrize(("again", "next_one"), [(True, HOG), (False, SECOND)])
def test_a_request_without_an_answer_may_be_under_way_so_the_others_wait(again, next_one):
    watch = Watch((policy(),))
    (picked,) = watch.look(*THREE)
    watch.concluded(picked, Result.FAILED, again=again, is_unknown=True)
    for _ in range(8):
        assert watch.picked(*THREE) == []
    assert next(found for _ in range(60) if (found := watch.picked(*THREE))) == [next_one]


def test_what_was_never_requested_is_as_if_it_had_not_been_decided():
    watch = Watch((policy(budget=Budget(1, 3600.0)),))
    (picked,) = watch.look(*THREE)
    watch.state = withdraw(watch.state, picked)
    watch.concluded(picked, Result.FAILED, again=True)
    assert watch.picked(*THREE) == [HOG]


@pytest.mark.parametrize("is_one_policy", [True, False])
def test_while_one_is_picked_no_other_step_picks_another(is_one_policy):
    """A second threshold must not end the next one while the first is being ended."""
    first, second = policy(), policy("host.available < 20M", action=Kill())
    both = (
        (replace(first, steps=(*first.steps, *second.steps)),)
        if is_one_policy
        else (first, replace(second, name="q"))
    )
    watch = Watch(both)
    (picked,) = watch.look(*THREE)
    assert picked.unit == HOG
    for _ in range(5):
        assert watch.picked(*THREE) == []
    watch.concluded(picked, Result.FAILED)
    assert watch.picked(*THREE)


def test_after_one_that_was_gone_all_are_judged_anew():
    watch = Watch((policy(hold=3.0, settle=60.0),))
    decisions = [one for _ in range(4) for one in watch.look(*THREE)]
    watch.concluded(decisions[0], Result.GONE)
    at = [(one.unit, one.at) for _ in range(6) for one in watch.look(THREE[0], THREE[2])]
    assert at == [(SECOND, 8.0)]


@pytest.mark.parametrize(
    ("action", "waits"),
    [
        (Stop(timeout=20.0), 30),
        (Stop(timeout=20.0, otherwise=LastResort.KILL), 60),
        (Restart(timeout=20.0, otherwise=LastResort.KILL), 70),
        (Signal(signal.SIGTERM, timeout=20.0, otherwise=LastResort.KILL), 40),
        (Kill(timeout=5.0), 15),
        (SetProperties((("MemoryHigh", M),)), 20),
    ],
    ids=str,
)
def test_an_outcome_that_does_not_come_counts_as_failed(action, waits):
    watch = Watch((policy(action=action),))
    watch.look(*THREE)
    started = watch.now
    while not (names := watch.picked(*THREE)):
        pass
    assert (names, watch.now - started) == ([SECOND], waits)


def test_an_outcome_that_comes_too_late_changes_nothing():
    watch = Watch((policy(settle=60.0),))
    (first,) = watch.look(*THREE)
    while not (second := watch.look(*THREE)):
        pass
    before = watch.state
    watch.concluded(first, Result.VERIFIED)
    assert watch.state.groups == before.groups
    watch.concluded(second[0], Result.VERIFIED)
    assert watch.state.groups != before.groups


def test_observing_has_its_outcome_at_once_and_the_picked_one_leaves_the_ranking():
    watch = Watch((policy(hold=3.0, settle=5.0, mode=Mode.OBSERVE),))
    made = [(one.unit, one.at) for _ in range(40) for one in watch.look(*THREE)]
    assert made == [(HOG, 4.0), (SECOND, 12.0), (THIRD, 20.0)]


def test_observing_picks_one_a_look_even_if_nothing_settles():
    watch = Watch((policy(mode=Mode.OBSERVE),))
    assert [watch.picked(*THREE) for _ in range(4)] == [[HOG], [SECOND], [THIRD], []]


def test_an_action_that_ends_nothing_goes_on_to_the_next_of_the_episode():
    watch = Watch((policy(action=SetProperties((("MemoryHigh", M),)), settle=2.0),))
    made = []
    for _ in range(12):
        for decision in watch.look(*THREE):
            made.append(decision.unit)
            watch.concluded(decision, Result.VERIFIED)
    assert made == [HOG, SECOND, THIRD]


def test_a_step_that_repeats_picks_the_same_again_after_its_time():
    again = policy(action=Signal(signal.SIGUSR1))
    again = replace(again, steps=(replace(again.steps[0], repeat=4.0),))
    watch = Watch((again,))
    made = []
    for _ in range(6):
        for decision in watch.look(*THREE[:2]):
            made.append((decision.unit, watch.now))
            watch.concluded(decision, Result.VERIFIED)
    assert made == [(HOG, 1.0), (THIRD, 2.0), (HOG, 5.0), (THIRD, 6.0)]


# --- groups ------------------------------------------------------------------------------------


def test_a_condition_on_the_machine_runs_its_time_once_for_all():
    watch = Watch((policy(hold=5.0),))
    for _ in range(5):
        assert watch.picked(THREE[0]) == []
    # it has come only now, and the time has run
    assert watch.picked(THREE[0], THREE[1]) == [HOG]


def test_a_condition_of_the_units_own_runs_its_time_for_each():
    watch = Watch((policy("footprint > 5M", hold=5.0),))
    for _ in range(5):
        assert watch.picked(THREE[0]) == []
    assert watch.picked(THREE[0], THREE[1]) == [THIRD]
    mixed = Watch((policy("host.available < 10M and footprint > 5M", hold=5.0),))
    for _ in range(5):
        assert mixed.picked(THREE[0]) == []
    assert mixed.picked(THREE[0], THREE[1]) == [THIRD]


def test_of_all_that_are_too_large_by_themselves_one_is_picked_too():
    watch = Watch((policy("footprint > 5M"),))
    assert [watch.picked(*THREE), watch.picked(*THREE)] == [[HOG], []]


def in_slice(name, slice_, footprint, anon):
    return unit(name, footprint, path=f"/{slice_}/{name}", values={"slice.anon": anon * M})


def test_each_slice_that_is_full_has_one_picked():
    watch = Watch((policy("slice.anon > 100M", hold=2.0),))
    units = (
        in_slice("a1.service", "a.slice", 10, 200),
        in_slice("a2.service", "a.slice", 20, 200),
        in_slice("b1.service", "b.slice", 90, 50),
        in_slice("c1.service", "c.slice", 5, 300),
    )
    assert [watch.picked(*units) for _ in range(3)] == [[], [], ["a2.service", "c1.service"]]
    assert watch.withheld("a1.service") == "it is not picked: a2.service is"


def test_a_group_within_another_waits_for_it():
    watch = Watch((policy("host.available < 10M or slice.anon > 100M"),))
    units = (in_slice("a1.service", "a.slice", 10, 200), in_slice("b1.service", "b.slice", 90, 50))
    assert watch.picked(*units) == ["b1.service"]
    assert watch.picked(*units, available=ENOUGH) == []


def filled(name, slice_, footprint, percent, own=None):
    """A unit in a slice with a limit of 100M that is filled by so much, and its own limit of 100M."""
    levels = [
        Level(
            f"/{slice_}/{name}",
            max=100 * M if own else None,
            current=(own or 0) * M,
            file=0,
            slab_reclaimable=0,
        ),
        Level(f"/{slice_}", max=100 * M, current=percent * M, file=0, slab_reclaimable=0),
    ]
    return unit(
        name,
        footprint,
        path=f"/{slice_}/{name}",
        levels=tuple(levels),
        values={"fill": float(max(percent, own or 0)), "host.total": 1000 * M},
    )


def test_a_full_slice_is_a_group_by_fill():
    watch = Watch((policy("fill > 90%"),))
    units = (
        filled("a1.service", "a.slice", 10, 95),
        filled("a2.service", "a.slice", 20, 95),
        filled("b1.service", "b.slice", 30, 96),
        filled("c1.service", "c.slice", 40, 50, own=97),
        filled("c2.service", "c.slice", 40, 50, own=98),
    )
    sample = sample_of(*units, at=1.0)
    host = HostSample({"host.total": 1000 * M, "host.available": 900 * M})
    state, decisions = evaluate(watch.policies, replace(sample, host=host), State(), 1.0)
    # what fills its own limit shares it with nobody
    assert {one.unit for one in decisions} == {"a2.service", "b1.service", "c1.service", "c2.service"}
    assert {level for _, _, level in state.groups} >= {"/a.slice", "/b.slice"}


def test_what_is_unknown_resets_the_time_of_the_group():
    watch = Watch((policy("slice.anon > 100M", hold=3.0),))
    known = in_slice("a1.service", "a.slice", 10, 200)
    unknown = unit("a1.service", 10, path="/a.slice/a1.service")
    looks = [known, known, known, unknown, known, known, known, known]
    assert [watch.picked(one) for one in looks].index(["a1.service"]) == 7


def test_two_steps_each_pick_their_own():
    one = policy(action=SetProperties((("MemoryHigh", M),)))
    both = replace(one, steps=(*one.steps, *policy("host.available < 5M").steps))
    watch = Watch((both,))
    assert [(one.unit, one.step) for one in watch.look(*THREE)] == [(HOG, 0), (HOG, 1)]


def test_a_step_without_pick_beside_one_that_picks():
    one = policy()
    bare = Step(parse_condition("footprint > 100M"), SetProperties((("MemoryHigh", M),)))
    watch = Watch((replace(one, steps=(bare, *one.steps)),))
    units = (*THREE[:2], unit(SECOND, 200))
    assert [(one.unit, one.step) for one in watch.look(*units)] == [(HOG, 0), (SECOND, 0), (HOG, 1)]


# --- over reloads, restarts and gaps ------------------------------------------------------------


def saved(watch: Watch) -> None:
    """Let a watch be replaced by another one, by way of the file."""
    document = json.loads(json.dumps(encode(Remembered(watch.state), watch.policies)))
    watch.state = decode(document, watch.policies, watch.now).state


def test_a_restart_while_an_action_is_under_way_changes_nothing():
    watch = Watch((policy(),))
    watch.look(*THREE)
    saved(watch)
    assert watch.picked(*THREE) == []
    assert watch.withheld(THIRD) == f"it is not picked: {HOG} is"


def test_a_restart_while_it_settles_changes_nothing():
    watch = Watch((policy(settle=10.0),))
    (decision,) = watch.look(*THREE)
    watch.concluded(decision, Result.VERIFIED)
    saved(watch)
    while not (names := watch.picked(THREE[0], THREE[2])):
        pass
    assert (names, watch.now) == ([SECOND], 11.0)


def test_one_that_ended_while_nobody_watched_has_all_judged_anew():
    watch = Watch((policy(hold=3.0),))
    while not watch.picked(*THREE):
        pass
    saved(watch)
    started = watch.now
    while not (names := watch.picked(THREE[0], THREE[2])):
        pass
    assert names == [SECOND]
    assert watch.now - started == 60 + 3


def test_what_cannot_be_read_of_it_restrains_the_policy():
    watch = Watch((policy(settle=50.0),))
    watch.look(*THREE)
    document = encode(Remembered(watch.state), watch.policies)
    (entry,) = document["groups"]
    damaged = document | {"groups": [entry | {"at": "soon"}]}
    remembered = decode(damaged, watch.policies, watch.now)
    assert remembered.trouble is not None
    watch.state = remembered.state
    assert watch.picked(THREE[0], THREE[2]) == []
    assert watch.withheld(THIRD) == "it is cooling down for another 59s"
    del document["groups"]
    assert decode(document, watch.policies, watch.now).trouble is None


def test_a_reload_goes_on_where_the_policy_is_the_same():
    watch = Watch((policy(),))
    watch.look(*THREE)
    watch.state = carry_over(watch.state, watch.policies, (policy(),), watch.now)
    assert watch.picked(*THREE) == []
    changed = (policy(settle=1.0),)
    watch.state = carry_over(watch.state, watch.policies, changed, watch.now)
    assert watch.state.groups == {}


def test_a_suspend_starts_the_time_of_a_group_over():
    watch = Watch((policy(hold=4.0),))
    for _ in range(4):
        watch.look(*THREE)
    watch.state = restart_timers(watch.state)
    assert [watch.picked(*THREE) for _ in range(5)] == [[], [], [], [], [HOG]]


# --- at any sequence ----------------------------------------------------------------------------

RESULTS = st.sampled_from([None, None, Result.VERIFIED, Result.FAILED, Result.GONE])
UNIT = st.tuples(
    st.integers(1, 9),
    st.sampled_from([None, 5, 5, 20, 20, 900]),
    st.sampled_from(["a.slice", "a.slice", "b.slice"]),
    st.sampled_from([50, 200, 200]),
    st.sampled_from([None, None, None, "protected"]),
)
LOOKS = st.lists(
    st.tuples(st.lists(UNIT, max_size=5), st.sampled_from([SHORT, SHORT, ENOUGH]), RESULTS, st.booleans()),
    min_size=6,
    max_size=25,
)
CONDITIONS = ["host.available < 10M", "slice.anon > 100M", "footprint > 10M and host.available < 10M"]


@given(
    LOOKS,
    st.sampled_from(CONDITIONS),
    st.sampled_from([0.0, 2.0]),
    st.sampled_from([0.0, 3.0]),
    st.sampled_from([None, Budget(3, 20.0)]),
)
def test_at_most_one_is_picked_and_not_concluded_in_a_group(looks, when, hold, settle, budget):
    watch = Watch((policy(when, hold, settle=settle, budget=budget),))
    waiting: dict[str, Decision] = {}
    """By level, recomputed from what was decided."""
    settled: dict[str, float] = {}
    tried: set[str] = set()
    for units, available, result, restarts in looks:
        made = [
            replace(in_slice(f"{number}.service", slice_, size, anon), protected=why)
            if size is not None
            else replace(unit(f"{number}.service", path=f"/{slice_}/{number}.service"), protected=why)
            for number, size, slice_, anon, why in units
        ]
        if restarts:
            saved(watch)
        by_name = {one.name: one for one in made}
        for decision in watch.look(*by_name.values(), available=available):
            if decision.refusal is not None:
                continue
            level = (
                by_name[decision.unit].unit.control_group.rpartition("/")[0]
                if "slice" in when
                else HOST_LEVEL
            )
            # the same one may be, if it was away for a look and is back
            is_same = level in waiting and waiting[level].invocation == decision.invocation
            assert level not in waiting or is_same or watch.now - waiting[level].at >= 60
            assert watch.now >= settled.get(level, 0.0) + (hold if level in settled else 0.0)
            assert by_name[decision.unit].protected is None
            value = by_name[decision.unit].values["footprint"]
            assert decision.ranking.first[0] == (decision.unit, value)
            # who has failed before comes after all others
            untried = [size for name, size in decision.ranking.first if name not in tried]
            assert value >= max(untried, default=0)
            tried.add(decision.unit)
            waiting[level] = decision
            settled.pop(level, None)
        if result is not None and waiting:
            level = min(waiting)
            decision = waiting.pop(level)
            if result is Result.VERIFIED and watch.now - decision.at < 60:
                settled[level] = watch.now + settle
            watch.concluded(decision, result)
