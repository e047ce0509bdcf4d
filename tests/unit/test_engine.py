"""When policies fire: scenarios as tables of ticks and of what was decided at each.

The properties that hold for all policies and timelines are in test_engine_properties.
"""

from __future__ import annotations

import copy
import pickle
import signal
from dataclasses import dataclass, replace

import pytest

from unitmem.kernel.limits import STAT_LAG
from unitmem.kernel.process import Process
from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy.actions import Kill, LastResort, Log, Reclaim, Restart, Signal, Stop, Target
from unitmem.policy.decision import Decision, Obstacle, Outcome, Refusal, Result, gravest_first
from unitmem.policy.engine import evaluate
from unitmem.policy.model import Budget, Mode, Policy, PolicyFile, Step
from unitmem.policy.need import Need, costly_need
from unitmem.policy.slopes import POINTS_A_SPAN
from unitmem.policy.state import (
    RETRY_AFTER,
    Phase,
    State,
    budget_left,
    carry_over,
    conclude,
    forget_refusals,
    rearm,
    restart_timers,
    retry_all,
)
from unitmem.policy.trends import NOT_YET_WATCHED
from unitmem.policyfile.expression import parse_condition
from unitmem.unit import Invocation, Unit

M = 2**20
USR1 = Signal(signal.SIGUSR1)
DEAR = "it is dear"


def step(when, action=Log(), hold=0, repeat=None):  # noqa: B008 - frozen
    return Step(parse_condition(when), action, hold, repeat)


def policy(*steps, name="p", units=("*.service",), clear=None, **more):
    return Policy(name, units, steps, clear=clear and parse_condition(clear), **more)


def unit(anon, name="a", run=1, **more):
    """One unit of which `anon` MiB are known; None is unknown."""
    values = more.pop("values", {}) | ({} if anon is None else {"anon": anon * M})
    name = f"{name}.service"
    return UnitSample(Unit(name), Invocation(name, f"{run:032x}", run), values=values, **more)


@pytest.mark.parametrize(
    ("when", "hold", "values", "fired"),
    [
        ("unreclaimable > 100M", 0, {"unreclaimable": 100 * M + 1}, [2]),
        ("unreclaimable > 100M", 0, {"unreclaimable": 100 * M + STAT_LAG}, [2]),
        ("unreclaimable > 100M", 0, {"unreclaimable": 100 * M + STAT_LAG + 1}, [1]),
        ("workingset < 100M", 0, {"workingset": 100 * M - 1}, [2]),
        ("workingset < 100M", 0, {"workingset": 100 * M - STAT_LAG - 1}, [1]),
        ("slice.footprint > 100M", 0, {"slice.footprint": 100 * M + 1}, [2]),
        ("fill > 90%", 0, {"fill": 90.01, "limit": 100 * STAT_LAG}, [2]),
        ("fill > 90%", 0, {"fill": 92, "limit": 100 * STAT_LAG}, [1]),
        # by another one it is certain
        ("anon > 1M or unreclaimable > 100M", 0, {"anon": 2 * M, "unreclaimable": 100 * M + 1}, [1]),
        ("anon > 1M and unreclaimable > 100M", 0, {"anon": 2 * M, "unreclaimable": 100 * M + 1}, [2]),
        # memory.stat alone, and where `for` asks for more looks anyway
        ("anon > 100M", 0, {"anon": 100 * M + 1}, [1]),
        ("unreclaimable > 100M", 1, {"unreclaimable": 100 * M + 1}, [2]),
    ],
)
def test_what_memory_stat_may_lag_behind_takes_two_looks_that_agree(when, hold, values, fired):
    file = PolicyFile((policy(step(when, hold=hold)),), interval=1.0)
    state, seen = State(), []
    for now in (1.0, 2.0, 3.0):
        state, made = evaluate(file, Sample(now, {"a.service": unit(None, values=values)}), state, now)
        seen += [decision.at for decision in made]
    assert seen == fired


def test_looks_that_disagree_about_what_is_close_count_for_nothing():
    file = PolicyFile((policy(step("unreclaimable > 100M")),), interval=1.0)
    state, seen = State(), []
    for now, more in enumerate((1, 0, 1, 0, 1, 1)):
        values = {"unreclaimable": 100 * M + more}
        state, made = evaluate(file, Sample(now, {"a.service": unit(None, values=values)}), state, now)
        seen += [decision.at for decision in made]
    assert seen == [5]


# --- playing a scenario ------------------------------------------------------------------------


@dataclass(frozen=True)
class Failed:
    """An action that `step` of `policy` decided turns out to have failed: the last one, or the one of then."""

    step: int
    policy: str = "p"
    decided_at: int | None = None


@dataclass(frozen=True)
class Reload:
    """The file is read again, and says this."""

    policies: list[Policy]


def interrupt(state, policies, now):
    """`state` as a daemon finds it that is stopped and started again between two ticks."""
    return pickle.loads(pickle.dumps(state))


def play(policies, events, budget=None, interrupted_after=None):
    """Every decision of [(time, what, …)], what being the units that there are, or Failed, or Reload."""
    state, told = State(), []
    for index, (now, *what) in enumerate(events):
        match what:
            case [Failed() as failed]:
                of = (failed.policy, failed.step)
                of_it = [d for d in told if (d.policy, d.step) == of and d.acts]
                decision = next(d for d in reversed(of_it) if failed.decided_at in (None, d.at))
                state = rearm(state, decision, now)
            case [Reload() as file]:
                state = carry_over(state, policies, file.policies, now)
                policies = file.policies
            case units:
                sample = Sample(now, {sampled.unit.name: sampled for sampled in units})
                state, decisions = evaluate(policies, sample, state, now, budget)
                told += decisions
        if index == interrupted_after:
            state = interrupt(state, policies, now)
    return told, state


def line(decision: Decision):
    """`20 p/0@b out of budget`: when, the policy's step, the unit if it isn't a, and what is in the way."""
    name = decision.unit.removesuffix(".service")
    where = "" if name == "a" else f"@{name}"
    obstacle = "" if decision.refusal is None else f" {decision.refusal.obstacle}"
    return f"{decision.at} {decision.policy}/{decision.step}{where}{obstacle}"


def lines(policies, events, budget=None):
    return [line(decision) for decision in play(policies, events, budget)[0]]


def steady(first, last, anon, **more):
    """A tick a second, from the `first` to the `last`, all of them alike."""
    return [(now, unit(anon, **more)) for now in range(first, last + 1)]


LADDER = policy(
    step("anon > 40M", hold=2), step("anon > 60M", USR1, hold=2), step("anon > 80M", Stop(), hold=2)
)
ALARM = policy(step("anon > 60M"))
SIGNAL = policy(step("anon > 60M", USR1))
HYSTERESIS = policy(step("anon > 60M"), clear="anon < 40M")
COOLED = replace(ALARM, cooldown=10)
REPEATED = policy(step("anon > 60M", hold=2, repeat=5), clear="anon < 40M")

SCENARIOS = {
    # --- holding ---
    "a condition that never holds": ([LADDER], [(0, unit(10)), (9, unit(40))], []),
    "held for its span": ([LADDER], steady(0, 2, 50), ["2 p/0"]),
    "once an episode": ([LADDER], steady(0, 9, 50), ["2 p/0"]),
    "a break starts the span over": (
        [LADDER],
        [(0, unit(50)), (1, unit(30)), *steady(2, 4, 50)],
        ["4 p/0"],
    ),
    "unknown is a break": ([LADDER], [(0, unit(50)), (1, unit(None)), *steady(2, 4, 50)], ["4 p/0"]),
    "a climb": ([LADDER], [(t, unit(40 + 5 * t)) for t in range(1, 14)], ["3 p/0", "7 p/1", "11 p/2"]),
    "a span of zero fires at once": ([ALARM], [(0, unit(70))], ["0 p/0"]),
    "what is excluded is not governed": ([replace(ALARM, excluded=("a.*",))], [(0, unit(70))], []),
    "a unit without a cgroup has nothing that could be judged": (
        [ALARM],
        [(0, replace(unit(70), invocation=None)), (1, unit(70))],
        ["1 p/0"],
    ),
    # --- invocations ---
    "another run starts from nothing": ([LADDER], [*steady(0, 1, 50), *steady(2, 4, 50, run=2)], ["4 p/0"]),
    "a unit that was away starts from nothing": ([LADDER], [(0, unit(50)), (1,), (2, unit(50))], []),
    "after the stop nothing more": ([LADDER], steady(0, 9, 95), ["2 p/0", "2 p/1", "2 p/2"]),
    "a kill ends it as well, and nothing that follows it is decided": (
        [policy(step("anon > 60M", Kill()), step("anon > 60M"))],
        steady(0, 2, 70),
        ["0 p/0"],
    ),
    "what is only observed ends nothing": (
        [policy(step("anon > 60M", Kill()), step("anon > 60M", hold=1), mode=Mode.OBSERVE)],
        steady(0, 2, 70),
        ["0 p/0", "1 p/1"],
    ),
    "the run after a restart is judged again": (
        [policy(step("anon > 60M", Restart()))],
        [*steady(0, 2, 70), (3, unit(70, run=2)), (4, unit(70, run=2))],
        ["0 p/0", "3 p/0"],
    ),
    "a stop of one policy silences the next": (
        [policy(step("anon > 60M", Stop()), name="one"), policy(step("anon > 60M", Stop()), name="two")],
        steady(0, 2, 70),
        ["0 one/0"],
    ),
    "two units each have a ladder": (
        [LADDER],
        [(0, unit(50)), (1, unit(50), unit(50, "b")), (2, unit(50), unit(50, "b")), (3, unit(50, "b"))],
        ["2 p/0", "3 p/0@b"],
    ),
    # --- episodes ---
    "an episode ends when no condition holds": (
        [LADDER],
        [*steady(0, 2, 50), (3, unit(10)), *steady(4, 8, 50)],
        ["2 p/0", "6 p/0"],
    ),
    "the unknown ends no episode": (
        [LADDER],
        [*steady(0, 2, 50), (3, unit(None)), *steady(4, 8, 50)],
        ["2 p/0"],
    ),
    "a swing around the threshold, without clear": (
        [ALARM],
        [(t, unit(55 if t % 2 else 65)) for t in range(6)],
        ["0 p/0", "2 p/0", "4 p/0"],
    ),
    "a swing around the threshold, with clear": (
        [HYSTERESIS],
        [(t, unit(55 if t % 2 else 65)) for t in range(6)],
        ["0 p/0"],
    ),
    "only clear ends the episode": (
        [HYSTERESIS],
        [(0, unit(70)), (1, unit(40)), (2, unit(70)), (3, unit(39)), (4, unit(70))],
        ["0 p/0", "4 p/0"],
    ),
    "a clear that is unknown ends nothing": (
        [HYSTERESIS],
        [(0, unit(70)), (1, unit(None)), (2, unit(70))],
        ["0 p/0"],
    ),
    "while clear holds, nothing is held": (
        [policy(step("anon > 60M", hold=2), clear="swap < 1M")],
        [
            *steady(0, 3, 70, values={"swap": 0}),
            *steady(4, 6, 70, values={"swap": 5 * M}),
        ],
        ["6 p/0"],
    ),
    "a step that comes back within the episode stays silent": (
        [replace(LADDER, clear=parse_condition("anon < 30M"))],
        [*steady(0, 2, 70), *steady(3, 4, 35), *steady(5, 9, 70)],
        ["2 p/0", "2 p/1"],
    ),
    # --- cooldown ---
    "no episode within the cooldown, which is told once": (
        [COOLED],
        [(0, unit(70)), (1, unit(10)), *steady(2, 12, 70)],
        ["0 p/0", "2 p/0 cooling down", "11 p/0"],
    ),
    "the cooldown outlives the run": (
        [COOLED],
        [(0, unit(70)), *steady(3, 14, 70, run=2)],
        ["0 p/0", "3 p/0 cooling down", "13 p/0"],
    ),
    "the cooldown of a unit that ended starts when it was missed": (
        [COOLED],
        [(0, unit(70)), (2,), (9,), *steady(11, 13, 70, run=2)],
        ["0 p/0", "11 p/0 cooling down", "12 p/0"],
    ),
    "the cooldown has passed while the unit was away": (
        [COOLED],
        [(0, unit(70)), (2,), (12,), (13, unit(70, run=2))],
        ["0 p/0", "13 p/0"],
    ),
    "where nothing fired there is nothing to cool down from": (
        [policy(step("anon > 60M", hold=2), cooldown=10)],
        [*steady(0, 1, 70), (2, unit(10)), *steady(3, 5, 70)],
        ["5 p/0"],
    ),
    "the span is held while it cools down": (
        [policy(step("anon > 60M", hold=2), cooldown=10)],
        [*steady(0, 2, 70), (3, unit(10)), *steady(4, 14, 70)],
        ["2 p/0", "6 p/0 cooling down", "13 p/0"],
    ),
    "an open episode is not cooled down": (
        [replace(LADDER, cooldown=100)],
        [*steady(0, 2, 50), *steady(3, 5, 70), *steady(6, 8, 90)],
        ["2 p/0", "5 p/1", "8 p/2"],
    ),
    "a protected unit cools down as others do": (
        [replace(SIGNAL, cooldown=10)],
        [
            (0, unit(70, protected=DEAR)),
            (1, unit(10, protected=DEAR)),
            *steady(2, 11, 70, protected=DEAR),
        ],
        ["0 p/0 protected", "2 p/0 cooling down", "11 p/0 protected"],
    ),
    "a cooldown is the policy's": (
        [replace(COOLED, name="one"), replace(ALARM, name="two")],
        [(0, unit(70)), (1, unit(10)), (2, unit(70))],
        ["0 one/0", "0 two/0", "2 one/0 cooling down", "2 two/0"],
    ),
    # --- repeat ---
    "every so often while it holds": ([REPEATED], steady(0, 17, 70), ["2 p/0", "7 p/0", "12 p/0", "17 p/0"]),
    "as seldom as ticks are": (
        [REPEATED],
        [(t, unit(70)) for t in range(0, 20, 3)],
        ["3 p/0", "9 p/0", "15 p/0"],
    ),
    "not while it is unknown, and then the span is held anew": (
        [REPEATED],
        [*steady(0, 6, 70), (7, unit(None)), *steady(8, 15, 70)],
        ["2 p/0", "10 p/0", "15 p/0"],
    ),
    "not while it doesn't hold, though the episode goes on": (
        [REPEATED],
        [*steady(0, 3, 70), *steady(4, 9, 50), *steady(10, 12, 70)],
        ["2 p/0", "12 p/0"],
    ),
    "a short break does not hurry it": (
        [REPEATED],
        [*steady(0, 2, 70), (3, unit(50)), *steady(4, 7, 70)],
        ["2 p/0", "7 p/0"],
    ),
    # --- budgets ---
    "the third restart within the span is the last": (
        [policy(step("anon > 60M", Restart()), budget=Budget(3, 60))],
        [
            *((10 * (run - 1), unit(70, run=run)) for run in (1, 2, 3)),
            *((30 + 5 * tick, unit(70, run=4)) for tick in range(7)),
            *((61 + tick, unit(70, run=5)) for tick in range(9)),
            (70, unit(70, run=5)),
        ],
        ["0 p/0", "10 p/0", "20 p/0", "30 p/0 out of budget", "60 p/0", "61 p/0 out of budget", "70 p/0"],
    ),
    "what is repeated is paid for each time": (
        [policy(step("anon > 60M", USR1, repeat=1), budget=Budget(2, 10))],
        steady(0, 12, 70),
        ["0 p/0", "1 p/0", "2 p/0 out of budget", "10 p/0", "11 p/0", "12 p/0 out of budget"],
    ),
    "logging costs nothing, and no budget withholds it": (
        [
            policy(
                step("anon > 50M", repeat=1),
                step("anon > 50M", USR1),
                step("anon > 50M", USR1),
                budget=Budget(1, 60),
            )
        ],
        steady(0, 2, 70),
        ["0 p/0", "0 p/1", "0 p/2 out of budget", "1 p/0", "2 p/0"],
    ),
    "what is refused costs nothing": (
        [replace(SIGNAL, budget=Budget(1, 60))],
        [(0, unit(70, protected=DEAR)), (1, unit(70, run=2)), (2, unit(70, run=3))],
        ["0 p/0 protected", "1 p/0", "2 p/0 out of budget"],
    ),
    "the budget is each unit's": (
        [replace(SIGNAL, budget=Budget(1, 60))],
        [(0, unit(70), unit(70, "b"))],
        ["0 p/0", "0 p/0@b"],
    ),
    "cooling down comes before the budget": (
        [replace(SIGNAL, budget=Budget(1, 60), cooldown=10)],
        [(0, unit(70)), (1, unit(10)), *steady(2, 12, 70), (60, unit(70))],
        ["0 p/0", "2 p/0 cooling down", "11 p/0 out of budget", "60 p/0"],
    ),
    "the last of several is kept for the harshest step": (
        [
            policy(
                step("anon > 60M", USR1, repeat=1),
                step("anon > 90M", Restart(), hold=1),
                budget=Budget(3, 60),
            )
        ],
        [*steady(0, 5, 70), *steady(6, 8, 95), *steady(9, 12, 95, run=2), (60, unit(95, run=2))],
        [
            "0 p/0",
            "1 p/0",
            "2 p/0 out of budget",
            "7 p/1",
            "9 p/0 out of budget",
            "10 p/1 out of budget",
            # the oldest of the three is given back, and is the last again
            "60 p/1",
        ],
    ),
    "steps that are equally harsh share all of it": (
        [policy(step("anon > 60M", Stop()), step("anon > 70M", Restart()), budget=Budget(2, 60))],
        [(0, unit(65)), (1, unit(65, run=2)), (2, unit(75, run=3))],
        ["0 p/0", "1 p/0", "2 p/0 out of budget", "2 p/1 out of budget"],
    ),
    "an action that failed is paid for too": (
        [policy(step("anon > 60M", Stop()), budget=Budget(1, 60))],
        [(0, unit(70)), (1, Failed(0)), *steady(2, 60, 70)],
        ["0 p/0", "11 p/0 out of budget", "60 p/0"],
    ),
}

ONE_AND_TWO = [replace(SIGNAL, name="one"), replace(SIGNAL, name="two")]

FILE_BUDGETS = {
    "one budget for all policies and units": (
        Budget(2, 60),
        ONE_AND_TWO,
        [(now, unit(70), unit(70, "b")) for now in (0, 1, 59, 60)],
        [
            "0 one/0",
            "0 one/0@b",
            "0 two/0 out of the file's budget",
            "0 two/0@b out of the file's budget",
            "60 two/0",
            "60 two/0@b",
        ],
    ),
    "what only observes takes nothing from what acts": (
        Budget(1, 60),
        [replace(ONE_AND_TWO[0], mode=Mode.OBSERVE), ONE_AND_TWO[1]],
        [(0, unit(70)), (1, unit(70), unit(70, "b"))],
        [
            "0 one/0",
            "0 two/0",
            "1 one/0@b out of the file's budget",
            "1 two/0@b out of the file's budget",
        ],
    ),
    "logging and what is refused cost nothing": (
        Budget(1, 60),
        [policy(step("anon > 60M"), step("anon > 60M", USR1))],
        [(0, unit(70, protected=DEAR)), (1, unit(70, "b"))],
        ["0 p/0", "0 p/1 protected", "1 p/0@b", "1 p/1@b"],
    ),
    "the policy's own budget is named first": (
        Budget(1, 60),
        [replace(SIGNAL, budget=Budget(1, 30))],
        [(0, unit(70)), (1, unit(10)), *((now, unit(70)) for now in (2, 29, 30, 59, 60))],
        ["0 p/0", "2 p/0 out of budget", "30 p/0 out of the file's budget", "60 p/0"],
    ),
}

STOPPING = policy(step("anon > 60M", Stop()))

FAILURES = {
    "tried again a little later": (
        [STOPPING],
        [*steady(0, 4, 70), (5, Failed(0)), *steady(5, 20, 70)],
        ["0 p/0", "15 p/0"],
    ),
    "what fails at once is held on to": (
        [policy(step("anon > 60M", Stop(), hold=20))],
        [*steady(0, 20, 70), (20, Failed(0)), *steady(21, 31, 70)],
        ["20 p/0", "30 p/0"],
    ),
    "what fails late has to hold again: nobody looked": (
        [policy(step("anon > 60M", Stop(), hold=20))],
        [*steady(0, 24, 70), (25, Failed(0)), *steady(25, 46, 70)],
        ["20 p/0", "45 p/0"],
    ),
    "so it is with other policies over that unit": (
        [policy(step("anon > 60M", USR1, hold=5), name="two"), replace(STOPPING, name="one")],
        [*steady(0, 8, 70), (9, Failed(0, "one")), *steady(9, 14, 70)],
        ["0 one/0", "14 two/0"],
    ),
    "in the tick of its failure other policies are judged": (
        [
            policy(step("swap > 1M", Stop()), name="one"),
            policy(step("anon > 60M", USR1, hold=3), name="two"),
        ],
        [
            (0, unit(70)),
            (1, unit(10, values={"swap": 5 * M})),
            (1, Failed(0, "one")),
            *steady(2, 5, 70),
        ],
        ["1 one/0", "5 two/0"],
    ),
    "so it is with a step that is repeated": (
        [policy(step("anon > 60M", hold=4, repeat=1), step("anon > 60M", Stop(), hold=4))],
        [*steady(0, 8, 70), (9, Failed(1)), *steady(9, 13, 70)],
        ["4 p/0", "4 p/1", "13 p/0"],
    ),
    "a signal that failed does not call off a stop": (
        [policy(step("anon > 60M", USR1), step("anon > 60M", Stop(), hold=1))],
        [*steady(0, 2, 70), (2, Failed(0)), *steady(3, 20, 70)],
        ["0 p/0", "1 p/1"],
    ),
    "a signal that failed leaves the other steps where they are": (
        [policy(step("anon > 60M", USR1), step("anon > 60M", hold=4))],
        [*steady(0, 2, 70), (2, Failed(0)), *steady(3, 12, 70)],
        ["0 p/0", "4 p/1", "12 p/0"],
    ),
    "a failure that comes to light when it has fired again undoes nothing": (
        [policy(step("anon > 60M", USR1, repeat=3))],
        [*steady(0, 4, 70), (4, Failed(0, decided_at=0)), *steady(5, 9, 70)],
        ["0 p/0", "3 p/0", "6 p/0", "9 p/0"],
    ),
    "it is not tried again while the condition doesn't hold": (
        [replace(STOPPING, clear=parse_condition("anon < 10M"))],
        [(0, unit(70)), (1, Failed(0)), *steady(1, 14, 50), (15, unit(70))],
        ["0 p/0", "15 p/0"],
    ),
    "the failure of what was meant for another run changes nothing": (
        [STOPPING],
        [(0, unit(70)), (1, unit(10, run=2)), (2, Failed(0)), (3, unit(70, run=2))],
        ["0 p/0", "3 p/0"],
    ),
}

ALARM_TOO = replace(ALARM, name="too", excluded=("a.*",))
HELD_LONGER = replace(ALARM, steps=(replace(ALARM.steps[0], hold=1),))
"""ALARM after an edit."""
MOVED = replace(LADDER, steps=tuple(replace(step, line=99) for step in LADDER.steps), line=98)

RELOADS = {
    "what has only moved in its file goes on": (
        [LADDER],
        [*steady(0, 1, 50), (1, Reload([MOVED])), (2, unit(50))],
        ["2 p/0"],
    ),
    "an open episode stays open": (
        [HYSTERESIS],
        [(0, unit(70)), (1, Reload([ALARM_TOO, HYSTERESIS])), (2, unit(50)), (3, unit(70))],
        ["0 p/0"],
    ),
    "what has changed starts anew": (
        [ALARM],
        [(0, unit(70)), (1, Reload([HELD_LONGER])), *steady(1, 2, 70)],
        ["0 p/0", "2 p/0"],
    ),
    "a changed policy goes on cooling down": (
        [COOLED],
        [
            (0, unit(70)),
            (1, unit(10)),
            (1, Reload([replace(HELD_LONGER, cooldown=10)])),
            *steady(2, 11, 70),
        ],
        ["0 p/0", "3 p/0 cooling down", "11 p/0"],
    ),
    "an edit does not refill the budget": (
        [replace(SIGNAL, budget=Budget(1, 60))],
        [
            (0, unit(70)),
            (1, Reload([replace(SIGNAL, budget=Budget(1, 60), cooldown=5)])),
            *steady(1, 8, 70),
            (60, unit(70)),
        ],
        ["0 p/0", "1 p/0 cooling down", "6 p/0 out of budget", "60 p/0"],
    ),
    "another name is another policy": (
        [replace(SIGNAL, budget=Budget(1, 60))],
        [
            (0, unit(70)),
            (1, Reload([replace(SIGNAL, name="q", budget=Budget(1, 60))])),
            (2, unit(70)),
        ],
        ["0 p/0", "2 q/0"],
    ),
    "what is ending is still let alone": (
        [STOPPING],
        [(0, unit(70)), (1, Reload([replace(STOPPING, cooldown=1)])), *steady(1, 3, 70)],
        ["0 p/0"],
    ),
}

ALL = {
    **{name: (None, *scenario) for name, scenario in (SCENARIOS | FAILURES | RELOADS).items()},
    **FILE_BUDGETS,
}


@pytest.mark.parametrize("name", ALL)
def test_scenario(name):
    budget, policies, events, expected = ALL[name]
    assert lines(policies, events, budget) == expected


@pytest.mark.parametrize("name", ALL)
def test_scenario_from_every_interrupted_prefix(name):
    """The state is all that is carried: to stop after any tick and to go on later changes nothing."""
    budget, policies, events, expected = ALL[name]
    for cut in range(len(events)):
        told, _ = play(policies, events, budget, interrupted_after=cut)
        assert [line(decision) for decision in told] == expected


# --- what a decision says ----------------------------------------------------------------------


def decide(policies, *units):
    return play(policies, [(0, *units)])[0]


def test_a_decision_names_what_was_read():
    (decision,) = decide([policy(step("anon > 1M or swap > 1M"))], unit(2))
    assert [str(finding) for finding in decision.findings] == ["anon 2.0M > 1.0M"]
    assert (decision.invocation.unit, decision.policy, decision.step) == ("a.service", "p", 0)


def test_a_decision_tells_how_long_it_held_and_had_to():
    told, _ = play([LADDER], [(0, unit(50)), (1, unit(50)), (5, unit(50))])
    assert [(decision.held, decision.hold) for decision in told] == [(5, 2)]


@pytest.mark.parametrize(
    ("interval", "hold", "looks", "fires_at", "held"),
    [
        # late under pressure, and not disarmed
        (2, 10, [0, 5, 10, 15], 15, 12),
        (2, 10, [0, 5, 10], None, 8),
        (2, 10, range(0, 12, 2), 10, 10),
        # two looks never suffice, however far apart
        (2, 10, [0, 60], None, 4),
        (2, 3, [0, 4], None, 4),
        (2, 3, [0, 4, 5], 5, 5),
        (2, 2, [0, 2], 2, 2),
        # after a gap longer than `for` and a minute it starts over
        (2, 10, [0, 5, 10, 70], 70, 12),
        (2, 10, [0, 5, 10, 71], None, 0),
        (2, 100, [0, 5, 10, 71, 171], None, 16),
        (2, 100, [0, 5, 10, 71, 172], None, 0),
        # an interval longer than that is no gap
        (3600, 1800, [0, 3600], 3600, 3600),
    ],
)
def test_time_that_nobody_looked_at_does_not_count(interval, hold, looks, fires_at, held):
    file = PolicyFile((policy(step("anon > 40M", hold=hold)),), interval)
    state, fired = State(), None
    for now in looks:
        state, decisions = evaluate(file, Sample(now, {"a.service": unit(50)}), state, now)
        fired = now if decisions else fired
    ((after,),) = [ladder.steps for ladder in state.ladders.values()]
    assert (fired, after.held) == (fires_at, held)


def test_after_a_suspend_conditions_have_to_hold_anew():
    policies = [policy(step("anon > 40M"), step("anon > 40M", hold=3))]
    _, state = play(policies, steady(0, 2, 50))
    state = restart_timers(state)
    told = []
    for now in range(3, 8):
        state, decisions = evaluate(policies, Sample(now, {"a.service": unit(50)}), state, now)
        told += map(line, decisions)
    assert told == ["6 p/1"]


@pytest.mark.parametrize(
    ("action", "unprotect", "refused"),
    [(Stop(), (), True), (USR1, (), True), (Log(), (), False), (Stop(), ("a.service",), False)],
)
def test_a_protected_unit(action, unprotect, refused):
    (decision,) = decide(
        [policy(step("anon > 1M", action), unprotect=frozenset(unprotect))], unit(2, protected=DEAR)
    )
    obstacle = decision.refusal and (decision.refusal.obstacle, decision.refusal.reason)
    assert obstacle == ((Obstacle.PROTECTED, DEAR) if refused else None)
    assert decision.acts == (not refused and action != Log())


def test_a_refused_stop_does_not_end_the_ladder():
    steps = step("anon > 60M", Stop()), step("anon > 60M", hold=1)
    assert lines([policy(*steps)], steady(0, 1, 70, protected=DEAR)) == ["0 p/0 protected", "1 p/1"]


@pytest.mark.parametrize(
    ("cooldown", "budget", "file_budget", "reason", "until"),
    [
        (90, None, None, "it is cooling down for another 1min 29s", 91),
        (0, Budget(1, 60), None, "its budget of 1 action per 1min is spent for another 58s", 60),
        (0, None, Budget(1, 60), "the file's budget of 1 action per 1min is spent for another 58s", 60),
    ],
)
def test_what_is_withheld_says_why_and_until_when(cooldown, budget, file_budget, reason, until):
    withheld = replace(SIGNAL, cooldown=cooldown, budget=budget)
    events = [(0, unit(70)), (1, unit(10)), (2, unit(70)), (3, unit(70))]
    told, state = play([withheld], events, file_budget)
    assert (told[1].refusal.reason, told[1].refusal.until, told[1].acts) == (reason, until, False)
    # status goes on to tell it, of the time that is left
    ((kept,),) = [ladder.steps for ladder in state.ladders.values()]
    assert (kept.phase, kept.withheld.until) == (Phase.HOLDING, until)


def test_a_budget_says_for_what_its_last_action_is_kept():
    steps = step("anon > 60M", USR1, repeat=1), step("anon > 90M", Restart())
    (_, withheld), _ = play([policy(*steps, budget=Budget(2, 60))], steady(0, 1, 70))
    assert withheld.refusal.until == 60
    assert withheld.refusal.reason == (
        "its budget of 2 actions per 1min is spent for another 59s, except the last action, which is kept for `restart`"
    )


def test_room_in_a_budget_is_counted_back_from_now():
    budget = Budget(3, 10)
    assert [budget_left(budget, (0, 5, 6), now) for now in (6, 9.9, 10, 15, 16)] == [0, 0, 1, 2, 3]
    assert budget_left(Budget(1, 10), (5, 6, 7), 8) == 0  # after an edit that cut it


def test_the_largest_process_is_the_one_by_the_measure_that_breached():
    small, big = Process(1, 1, "small", pss=1 * M, rss=9 * M), Process(2, 1, "big", pss=5 * M, rss=6 * M)
    sample = unit(1, values={"process.pss": 5 * M}, processes=(small, big))
    kill = Signal(signal.SIGKILL, Target.LARGEST)
    assert decide([policy(step("process.pss > 4M", kill))], sample)[0].victim == big
    assert decide([policy(step("anon >= 1M", kill))], sample)[0].victim is None


# --- what is remembered ------------------------------------------------------------------------


def test_phases_are_told():
    _, state = play([LADDER], [*steady(0, 2, 50), (3, unit(70))])
    phases = [s.phase for s in state.ladders["p", "a.service"].steps]
    assert phases == [Phase.FIRED, Phase.HOLDING, Phase.IDLE]


def test_a_step_tells_what_it_lacks():
    _, state = play([LADDER], [(0, unit(None, unknown={"anon": "no such file"}))])
    assert [s.unknown for s in state.ladders["p", "a.service"].steps] == [{"anon": "no such file"}] * 3


def test_an_action_is_tried_again_no_sooner_than_it_says():
    _, state = play([STOPPING], [(0, unit(70)), (5, Failed(0)), (6, unit(70))])
    (retried,) = state.ladders["p", "a.service"].steps
    assert (retried.phase, retried.not_before) == (Phase.HOLDING, 5 + RETRY_AFTER)


def test_an_edit_ends_an_episode_like_any_other_and_refills_nothing():
    """The cooldown of the file as it is now begins; from observing to acting, everything begins anew."""
    before = replace(LADDER, cooldown=9, budget=Budget(2, 60))
    _, state = play([before], steady(0, 3, 90))
    key = (LADDER.name, "a.service")
    assert state.spent[key]
    edited = carry_over(state, [before], [replace(before, cooldown=30)], 4)
    assert (edited.ladders, edited.cooling, edited.spent) == ({}, {key: 34}, state.spent)
    observing = replace(before, mode=Mode.OBSERVE)
    _, observed = play([observing], steady(0, 3, 90))
    acting = carry_over(observed, [observing], [before], 4)
    assert (acting.ladders, acting.cooling, acting.spent) == ({}, {}, {})


def test_nothing_is_kept_of_units_that_are_gone_for_good():
    every = replace(
        LADDER, cooldown=10, budget=Budget(3, 60), clear=parse_condition("growth(anon, 5s) < 0B/s")
    )
    events = [*steady(0, 2, 90), (3,), (63,)]
    _, state = play([every], events, Budget(9, 60))
    assert state == State()


def test_what_was_given_is_left_as_it_was():
    policies, events = [replace(LADDER, cooldown=9, budget=Budget(2, 60))], steady(0, 3, 90)
    _, state = play(policies, events)
    before = copy.deepcopy(state)
    evaluate(policies, Sample(4, {}), state, 4)
    carry_over(state, policies, [], 4)
    assert state == before


# --- what a unit did over time -----------------------------------------------------------------


def oom(count, run=1):
    return unit(1, run=run, values={} if count is None else {"events.oom_kill": count})


@pytest.mark.parametrize(
    ("when", "ticks", "fires_at"),
    [
        ("events.oom_kill > 0 in 10s", [(0, oom(0)), (1, oom(1))], [1]),
        ("events.oom_kill > 0 in 10s", [(0, oom(7)), (1, oom(7)), (20, oom(7))], []),
        ("events.oom_kill > 1 in 10s", [(0, oom(0)), (1, oom(1)), (15, oom(2))], []),
        ("events.oom_kill > 1 in 10s", [(0, oom(0)), (1, oom(1)), (10, oom(2))], [10]),
        ("events.oom_kill > 0 in 10s", [(0, oom(5)), (1, oom(0, run=2)), (2, oom(1, run=2))], [2]),
        # long past, it counts no more, and the next is another episode
        ("events.oom_kill > 0 in 10s", [(0, oom(0)), (1, oom(1)), (11, oom(1)), (12, oom(2))], [1, 12]),
        # fewer than so many is not known before the span is over, unless there were none at all
        ("events.oom_kill < 1 in 10s", [(0, oom(3)), (9, oom(3)), (10, oom(3))], [10]),
        ("events.oom_kill < 1 in 10s", [(0, oom(0))], [0]),
        # counted while nobody could look: within the span at first, and not known to be later
        ("events.oom_kill > 0 in 10s", [(0, oom(0)), (1, oom(None)), (8, oom(5))], [8]),
        ("events.oom_kill > 0 in 10s", [(0, oom(0)), (1, oom(None)), (15, oom(5))], []),
        (
            "events.oom_kill > 0 in 10s or events.oom_kill > 9 in 1min",
            [(0, oom(0)), (1, oom(None)), (15, oom(5)), (16, oom(6))],
            [16],
        ),
    ],
)
def test_events_in_a_span(when, ticks, fires_at):
    told, _ = play([policy(step(when))], ticks)
    assert [decision.at for decision in told] == fires_at


def killed(*ends, run=1):
    """A run without OOM kills, after others that one ended at those times."""
    return replace(oom(0, run=run), oom_ends=ends)


KILLED = policy(step("events.oom_kill > 0 in 1min", Restart()), units=("a.service",))


@pytest.mark.parametrize(
    ("policies", "ticks", "expected"),
    [
        # the run after a kill is restarted once, not each run after it
        ([KILLED], [(1, killed(1)), (2,), (3, killed(1, run=2)), (9, killed(1, run=3))], ["1 p/0"]),
        # another kill is another reason
        ([KILLED], [(1, killed(1)), (3, killed(1, run=2)), (9, killed(1, 8, run=3))], ["1 p/0", "9 p/0"]),
        # one while the run is being ended is none
        ([KILLED], [(1, killed(1)), (3, killed(1)), (4, killed(1, 4, run=2))], ["1 p/0"]),
        # a restart that failed is tried again for the same kill
        (
            [KILLED],
            [(1, killed(1)), (2, Failed(0)), (3, killed(1)), (12, killed(1)), (13, killed(1, run=2))],
            ["1 p/0", "12 p/0"],
        ),
        # another policy's counts go on
        (
            [KILLED, policy(step("events.oom_kill > 1 in 1min", Stop()), name="q")],
            [(1, killed(1)), (3, killed(1, 3, run=2)), (5, killed(1, 3, run=3))],
            ["1 p/0", "3 q/0"],
        ),
        # and one that observes would have ended it
        ([replace(KILLED, mode=Mode.OBSERVE)], [(1, killed(1)), (3, killed(1, run=2))], ["1 p/0"]),
        # a reload is no reason to count it again
        ([KILLED], [(1, killed(1)), (2, Reload([KILLED])), (3, killed(1, run=2))], ["1 p/0"]),
    ],
)
def test_one_oom_kill_does_not_end_one_run_after_another(policies, ticks, expected):
    assert lines(policies, ticks) == expected


def test_what_was_ended_is_kept_for_as_long_as_it_matters():
    _, state = play([KILLED], [(1, killed(1)), (3, killed(1, run=2)), (60, killed(1, run=2))])
    assert state.last_ended
    assert not play([KILLED], [(1, killed(1)), (3,), (63,)])[1].last_ended
    assert not play([policy(step("anon > 1M", Stop()))], [(1, unit(2))])[1].last_ended


def grows(times, rate, start=100, spikes=()):
    """A unit that uses `start` MiB, and `rate` more each second, of a limit of its own of 1000."""
    limits = {"max": 1000 * M, "limit": 1000 * M}
    ticks = []
    for now in times:
        used = (start + rate * now + (500 if now in spikes else 0)) * M
        ticks.append((now, unit(None, values={"anon": used, "unreclaimable": used, **limits})))
    return ticks


def away(now):
    return now, unit(None, unknown={"anon": "no such file"})


EVERY_2S, EVERY_7S = range(0, 120, 2), range(0, 120, 7)


@pytest.mark.parametrize(
    ("when", "ticks", "fires_at"),
    [
        # once it was watched for the whole span, and no sooner
        ("growth(anon, 30s) > 60M/min", grows(EVERY_2S, 2), [30]),
        ("growth(anon, 30s) > 60M/min", grows(range(0, 30, 2), 2), []),
        ("growth(anon, 30s) > 60M/min", grows(EVERY_2S, 1), []),
        ("growth(anon, 30s) < 0B/s", grows(EVERY_2S, -1, start=500), [30]),
        # ticks that don't divide the span
        ("growth(anon, 30s) > 60M/min", grows(EVERY_7S, 2), [35]),
        ("growth(anon, 10s) > 60M/min", grows(range(0, 60, 3), 2), [12]),
        # spikes are no growth, and don't hide it
        ("growth(anon, 30s) > 60M/min", grows(EVERY_2S, 0, spikes=(20, 30, 44)), []),
        ("growth(anon, 30s) > 60M/min", grows(EVERY_2S, 2, spikes=(10, 30)), [30]),
        # a unit that can't be read for some ticks was watched all the same; after longer it was not
        ("growth(anon, 30s) > 60M/min", [*grows(range(0, 12, 2), 2), away(12), *grows([14, 30], 2)], [30]),
        ("growth(anon, 30s) > 60M/min", [*grows(range(0, 12, 2), 2), *grows(range(80, 92, 2), 2)], []),
        # another run
        (
            "growth(anon, 30s) > 60M/min",
            [*grows(range(0, 30, 2), 2), *((now, replace(sampled, invocation=Invocation("a.service", "2", 2)))
             for now, sampled in grows(range(30, 62, 2), 2))],
            [60],
        ),
        # 660 MiB then, and 340 more at 5 a second
        ("eta(limit, 30s) < 70s", grows(EVERY_2S, 5), [112]),
        ("eta(limit, 30s) < 1h", grows(EVERY_2S, 0), []),
        ("eta(limit, 30s) < 1h", grows(EVERY_2S, -1, start=500), []),
        ("eta(limit, 30s) > 1h", grows(EVERY_2S, 0), [30]),
        ("eta(limit, 30s) < 1s", grows(EVERY_2S, 50), [30]),
        ("eta(high, 30s) < 1h", grows(EVERY_2S, 5), []),
    ],
)  # fmt: skip
def test_slopes(when, ticks, fires_at):
    told, _ = play([policy(step(when))], ticks)
    assert [decision.at for decision in told] == fires_at


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("growth(anon, 30s) > 60M/min", "growth(anon, 30s) 120.0M/min > 60.0M/min"),
        ("eta(limit, 30s) < 10min", "eta(limit, 30s) 7min < 10min"),
    ],
)
def test_a_slope_is_told_with_its_number(when, said):
    told, _ = play([policy(step(when))], grows(EVERY_2S, 2))
    assert [str(finding) for finding in told[0].findings] == [said]


def test_a_slope_is_said_to_be_unknown_only_for_as_long_as_it_is_not_watched():
    early, late = (play([policy(step("growth(anon, 30s) > 9G/s"))], grows(range(0, end, 2), 2))[1]
                   for end in (20, 40))  # fmt: skip
    (young,), (old,) = (state.ladders["p", "a.service"].steps for state in (early, late))
    assert (young.unknown, old.unknown) == ({"growth(anon, 30s)": NOT_YET_WATCHED}, {})


@pytest.mark.parametrize("interval", [0.05, 0.3, 1, 9])
def test_a_trail_is_bounded_however_often_it_is_extended(interval):
    ticks = grows([tick * interval for tick in range(min(2000, int(70 / interval)))], 2)
    watching = policy(step("growth(anon, 30s) > 9G/s"), step("events.oom_kill > 0 in 1h"))
    _, state = play([watching], ticks)
    trend = state.trends["a.service"]
    ((window,), events) = trend.windows.values(), trend.events
    assert len(window.points) <= POINTS_A_SPAN + 2
    assert len(events) == 1


@pytest.mark.parametrize(
    ("when", "need"),
    [
        ("pss > 50M", Need.BOUNDS),
        ("pss > 101M", Need.NOTHING),
        ("pss < 101M", Need.NOTHING),
        ("anon > 10M and pss > 50M", Need.NOTHING),
        ("anon > 1M or pss > 50M", Need.NOTHING),
        ("swap > 1M", Need.NOTHING),
        # of 20M at least
        ("pss < 20M", Need.NOTHING),
        ("uss < 10M", Need.NOTHING),
        ("uss < 11M", Need.BOUNDS),
        # whoever acts names the number
        ("pss > 19M", Need.VALUES),
        ("not uss <= 9M", Need.VALUES),
        ("anon > 10M and pss > 19M", Need.NOTHING),
        # each point counts, whatever is known of this one
        ("anon > 10M and growth(pss, 1min) > 1M/min", Need.VALUES),
        ("growth(anon, 1min) > 1M/min", Need.NOTHING),
    ],
)
def test_pss_is_read_only_where_a_bound_leaves_it_open(when, need):
    sample = unit(
        5,
        at_most={"pss": 100 * M},
        at_least={"pss": 20 * M, "uss": 10 * M},
        unknown={"pss": "not read", "swap": "no swap"},
    )
    assert costly_need([policy(step(when))], sample, State(), 0) is need
    # what ends an episode is judged as well
    assert costly_need([policy(step("anon > 99M"), clear=when)], sample, State(), 0) is need


# --- what can't be seen ------------------------------------------------------------------------


@pytest.mark.parametrize("unseen", [True, False])
def test_an_episode_ends_with_its_unit_but_not_while_that_can_not_be_seen(unseen):
    """And nothing is known to hold meanwhile."""
    policies = [policy(step("anon > 40M", USR1), step("anon > 60M", hold=5), cooldown=100)]

    def tick(now, units, state):
        hidden = frozenset({"a.service"} if unseen and not units else ())
        sample = Sample(now, {sampled.unit.name: sampled for sampled in units}, unseen=hidden)
        return evaluate(policies, sample, state, now)

    state, _ = tick(0, [unit(70)], State())
    state, decisions = tick(1, [], state)
    assert decisions == ()
    assert (("p", "a.service") in state.ladders) is unseen
    assert (("p", "a.service") in state.cooling) is not unseen
    if unseen:
        first, second = state.ladders["p", "a.service"].steps
        assert (first.phase, second.phase) == (Phase.FIRED, Phase.IDLE)
        _, decisions = tick(7, [unit(70)], state)
        assert decisions == ()


def test_what_was_not_tried_costs_nothing_and_comes_at_once_when_it_can():
    policies = [policy(step("anon > 40M", Stop()), budget=Budget(1, 3600))]
    sample = {"a.service": unit(70)}
    state, (decision,) = evaluate(policies, Sample(0, sample), State(), 0, Budget(1, 3600))
    state = rearm(state, decision, 0, untried=True)
    assert (state.spent, state.spent_in_all) == ({}, {})
    state, decisions = evaluate(policies, Sample(60, sample), state, 60, Budget(1, 3600))
    assert decisions == ()
    state, (decision,) = evaluate(policies, Sample(61, sample), retry_all(state), 61, Budget(1, 3600))
    assert decision.acts


def test_what_the_manager_refuses_for_good_costs_nothing_and_is_not_tried_again_in_its_run():
    """That it is withheld is told once for each step; other actions, and other runs, are not concerned."""
    policies = [
        policy(
            step("anon > 40M", Stop()),
            step("anon > 60M", Kill(), hold=1),
            clear="anon < 20M",
            budget=Budget(1, 3600),
        )
    ]
    state, told = State(), []
    for now, anon, run in [
        *((now, 50, 1) for now in range(400)),
        (400, 10, 1),
        (401, 50, 1),
        (402, 10, 1),
        (403, 50, 1),
        *((404 + t, 70, 1) for t in range(2)),
        (406, 50, 2),
    ]:
        state, decisions = evaluate(policies, Sample(now, {"a.service": unit(anon, run=run)}), state, now)
        told += map(line, decisions)
        for decision in decisions:
            if decision.acts and isinstance(decision.action, Stop):
                state = conclude(state, Outcome(decision, Result.FAILED, "no", now, untried=True), now)
    assert told == ["0 p/0", "401 p/0 refused by the manager", "405 p/1", "406 p/0 out of budget"]
    assert state.refused == {}


@pytest.mark.parametrize("changed", [forget_refusals, retry_all])
def test_what_the_manager_refused_is_tried_again_where_it_may_have_changed_its_mind(changed):
    policies = [policy(step("anon > 40M", Stop(), repeat=5))]
    sample = {"a.service": unit(50)}
    state, (decision,) = evaluate(policies, Sample(0, sample), State(), 0)
    state = conclude(state, Outcome(decision, Result.FAILED, "it is so", 0, untried=True), 0)
    state, (withheld,) = evaluate(policies, Sample(5, sample), state, 5)
    assert withheld.refusal == Refusal(Obstacle.REFUSED_BY_MANAGER, "it is so")
    state, decisions = evaluate(policies, Sample(6, sample), state, 6)
    assert decisions == ()
    _, (decision,) = evaluate(policies, Sample(7, sample), changed(state), 7)
    assert decision.acts


def test_a_refusal_concerns_the_action_as_it_is_written():
    """A `stop` with a last resort is not withheld, since that takes it."""
    policies = [
        policy(step("anon > 40M", Stop())),
        policy(step("anon > 40M", Stop(), hold=2), name="same"),
        policy(step("anon > 40M", Stop(otherwise=LastResort.KILL), hold=2), name="harsher"),
    ]
    state, told = State(), []
    for now in range(4):
        state, decisions = evaluate(policies, Sample(now, {"a.service": unit(50)}), state, now)
        told += map(line, decisions)
        if now == 0:
            state = conclude(state, Outcome(decisions[0], Result.FAILED, "no", 0, untried=True), 0)
    assert told == ["0 p/0", "2 same/0 refused by the manager", "2 harsher/0"]


@pytest.mark.parametrize("result", [Result.GONE, Result.FAILED])
def test_an_invocation_that_no_action_ends_any_more_is_judged_again_if_it_is_there(result):
    policies = [policy(step("anon > 40M", Stop()), step("anon > 60M", Kill(), hold=2))]
    state, told = State(), []
    for now in range(8):
        state, decisions = evaluate(policies, Sample(now, {"a.service": unit(70)}), state, now)
        told += decisions
        if now == 3:
            state = conclude(state, Outcome(told[0], result, "it is gone", now), now)
    assert [line(decision) for decision in told] == ["0 p/0", "6 p/1"]


def test_units_are_acted_on_by_their_gravest_action_and_steps_in_their_order():
    ladder = [policy(step("anon > 40M", USR1), step("anon > 60M", Stop())), ONE_AND_TWO[0]]
    decisions = decide(ladder, unit(50, "a"), unit(70, "b"), unit(90, "c", protected=DEAR), unit(70, "d"))
    assert [line(decision) for decision in gravest_first(decisions)] == [
        *("0 p/0@b", "0 p/1@b", "0 p/0@d", "0 p/1@d", "0 p/0"),
        *("0 p/0@c protected", "0 p/1@c protected", "0 one/0@c protected"),
    ]


def test_units_for_which_no_manager_is_asked_come_first():
    """One that hangs is asked after what needs none; a unit's own steps stay in their order."""
    policies = [
        policy(step("anon > 40M", Stop()), name="stop", units=("stop.service", "both.service")),
        policy(step("anon > 40M", Reclaim(1)), name="mild", units=("mild.service", "both.service")),
        policy(step("anon > 40M", Kill()), name="kill", units=("kill.service",)),
        policy(step("anon > 40M", Log()), name="log", units=("log.service",)),
    ]
    decisions = decide(policies, *(unit(50, name) for name in ("both", "log", "mild", "stop", "kill")))
    ordered = [(decision.unit, decision.policy) for decision in gravest_first(decisions)]
    assert ordered == [
        ("kill.service", "kill"),
        ("mild.service", "mild"),
        ("both.service", "stop"),
        ("stop.service", "stop"),
        ("log.service", "log"),
    ]
