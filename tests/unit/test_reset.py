"""A reset: what it gives back, what it leaves as it is, and how that is told."""

from __future__ import annotations

import pytest

from unitmem.policy.model import Mode
from unitmem.policy.state import (
    EVERY_UNIT,
    GivenBack,
    Ladder,
    Phase,
    Refused,
    State,
    StepState,
    has_kept,
    reset,
)
from unitmem.policy.trends import Trend
from unitmem.tell.reset import reset_document, reset_entry
from unitmem.unit import Invocation, ManagerKind

NOW = 1000.0
A, B = Invocation("a.service", "1", 1), Invocation("b.service", "2", 2)
FIRED = StepState(Phase.FIRED, held=9.0, looked_at=NOW, fired_at=990.0)
WAITING = StepState(Phase.HOLDING, held=9.0, looked_at=NOW, not_before=NOW + 5)
STATE = State(
    ladders={
        ("p", "a.service"): Ladder(A, (FIRED, WAITING), episode_since=990.0),
        ("p", "b.service"): Ladder(B, (WAITING, StepState(not_before=NOW - 5))),
        ("q", "b.service"): Ladder(B, (StepState(not_before=NOW - 5),)),
    },
    cooling={("p", "a.service"): NOW + 60, ("q", "a.service"): NOW - 1, ("p", EVERY_UNIT): NOW + 7},
    spent={("p", "a.service"): (980.0, 990.0), ("p", "b.service"): (970.0,), ("q", "b.service"): ()},
    spent_in_all={Mode.ACT: (970.0, 980.0, 990.0)},
    refused={(A, "restart"): Refused("it refuses"), (B, "stop"): Refused("it refuses")},
    trends={"a.service": Trend(A)},
)


def test_a_reset_of_all_gives_everything_back():
    state, given_back = reset(STATE, None, NOW)
    assert given_back == GivenBack(
        cooldowns={("p", "a.service"): 60.0, ("p", EVERY_UNIT): 7.0},
        actions={("p", "a.service"): 2, ("p", "b.service"): 1},
        retries=(("p", "a.service"), ("p", "b.service")),
        refusals=(("a.service", "restart"), ("b.service", "stop")),
        file_actions=3,
    )
    again, nothing = reset(state, None, NOW)
    assert (again, nothing.is_nothing) == (state, True)


def test_a_reset_of_a_unit_leaves_the_others_and_what_they_share():
    state, given_back = reset(STATE, "a.service", NOW)
    assert given_back == GivenBack(
        cooldowns={("p", "a.service"): 60.0},
        actions={("p", "a.service"): 2},
        retries=(("p", "a.service"),),
        refusals=(("a.service", "restart"),),
    )
    assert state.ladders["p", "b.service"] == STATE.ladders["p", "b.service"]
    assert state.spent_in_all == STATE.spent_in_all
    assert state.cooling.keys() == {("q", "a.service"), ("p", EVERY_UNIT)}
    assert state.spent.keys() == {("p", "b.service"), ("q", "b.service")}
    assert list(state.refused) == [(B, "stop")]


@pytest.mark.parametrize("unit", [None, "a.service"])
def test_an_episode_and_what_fired_in_it_stay(unit):
    state, _ = reset(STATE, unit, NOW)
    ladder = state.ladders["p", "a.service"]
    assert (ladder.episode_since, ladder.steps[0]) == (990.0, FIRED)
    assert ladder.steps[1] == StepState(Phase.HOLDING, held=9.0, looked_at=NOW)
    assert state.trends == STATE.trends


def test_nothing_is_a_state_that_has_nothing_to_give_back():
    for unit in (None, "a.service"):
        state, given_back = reset(State(), unit, NOW)
        assert (state, given_back.is_nothing) == (State(), True)
    assert not reset(STATE, "a.service", NOW)[1].is_nothing
    state, given_back = reset(STATE, "c.service", NOW)
    assert (state, given_back.is_nothing) == (STATE, True)


def test_what_is_kept_about_a_unit():
    kept = [unit for unit in ("a.service", "b.service", "c.service") if has_kept(STATE, unit)]
    assert kept == ["a.service", "b.service"]


def test_the_entry_about_one_unit_is_found_by_its_name():
    _, given_back = reset(STATE, "a.service", NOW)
    entry = reset_entry(reset_document("a.service", given_back), 1000, ManagerKind.USER)
    assert entry.message == (
        "a.service: reset by uid 1000: ended the cooldown of policy p (1min left), "
        "gave 2 actions back to its budget in policy p, ended the pause of policy p after a failed action, "
        "forgot that the manager has refused `restart`"
    )
    assert entry.fields == {
        "MESSAGE_ID": "d53efb50424a4292aee84d44c6f7b0ea",
        "UNITMEM_UID": 1000,
        "UNITMEM_UNIT": "a.service",
        "OBJECT_SYSTEMD_USER_UNIT": "a.service",
    }


def test_the_entry_about_all_names_the_first_units():
    many = GivenBack({(("p"), f"u{number}.service"): 60.0 for number in range(7)}, {}, (), (), file_actions=1)
    entry = reset_entry(reset_document(None, many), 0, ManagerKind.SYSTEM)
    assert entry.message.startswith(
        "reset by uid 0: gave 1 action back to the file's budget; u0.service: ended the cooldown of policy p (1min left)"
    )
    assert entry.message.endswith(" and 2 more")
    assert entry.fields.keys() == {"MESSAGE_ID", "UNITMEM_UID"}


@pytest.mark.parametrize(
    ("given_back", "message"),
    [
        (
            GivenBack({}, {}, (), (), file_actions=2),
            "reset by uid 0: gave 2 actions back to the file's budget",
        ),
        (
            GivenBack({("p", EVERY_UNIT): 60.0}, {}, (), ()),
            "reset by uid 0: every unit: ended the cooldown of policy p (1min left)",
        ),
    ],
)
def test_what_is_about_no_unit_has_none_in_its_fields(given_back, message):
    entry = reset_entry(reset_document(None, given_back), 0, ManagerKind.SYSTEM)
    assert (entry.message, entry.fields.keys()) == (message, {"MESSAGE_ID", "UNITMEM_UID"})
