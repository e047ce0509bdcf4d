"""What a policy says: the same in any version that knows what it says, and different where it says something else."""

from __future__ import annotations

import json
import signal
from dataclasses import fields, make_dataclass, replace

import pytest
from hypothesis import given
from test_engine_properties import policy_files

from unitmem.policy.actions import (
    ACTIONS,
    Freeze,
    Kill,
    LastResort,
    Log,
    Reclaim,
    Restart,
    Run,
    SetProperties,
    Signal,
    Stop,
    Target,
    Thaw,
)
from unitmem.policy.fingerprint import fingerprint
from unitmem.policy.model import Budget, Mode, Pick, Policy, Step
from unitmem.policyfile.expression import parse_condition
from unitmem.policyfile.rank import parse_rank

ANON = parse_condition("anon > 1M")
POLICY = Policy("p", ("*.service",), (Step(ANON, Log()),))

ON_DISK = {
    Log(): {"name": "log"},
    Signal(signal.SIGUSR1): {"name": "SIGUSR1", "number": "SIGUSR1"},
    Signal(signal.SIGTERM, Target.LARGEST, 5.0, LastResort.KILL): {
        "name": "SIGTERM",
        "number": "SIGTERM",
        "to": "largest",
        "timeout": 5.0,
        "otherwise": "kill",
    },
    Stop(30.0, LastResort.KILL): {"name": "stop", "timeout": 30.0, "otherwise": "kill"},
    Restart(): {"name": "restart"},
    Kill(3.0): {"name": "kill", "timeout": 3.0},
    Reclaim(4096): {"name": "reclaim", "size": 4096},
    SetProperties((("MemoryHigh", 4096), ("MemoryMax", None))): {
        "name": "set",
        "properties": [["MemoryHigh", 4096], ["MemoryMax", None]],
    },
    Freeze(): {"name": "freeze"},
    Thaw(): {"name": "thaw"},
    Run(("/bin/true", "a b")): {"name": "run", "command": ["/bin/true", "a b"]},
}


def test_it_is_what_is_not_the_default():
    """To the letter, since it is compared with what another version has written."""
    full = Policy(
        "full",
        ("*.service",),
        (Step(ANON, Stop(), hold=30.0, repeat=60.0, line=7),),
        excluded=("quiet.service",),
        unprotect=frozenset({"b.service", "a.service"}),
        mode=Mode.OBSERVE,
        clear=parse_condition("not (anon > 1M or swap < 62.5% of limit)"),
        cooldown=600.0,
        budget=Budget(3, 3600.0),
        line=5,
    )
    step = {"when": "anon > 1.0M", "action": {"name": "stop"}}
    assert fingerprint(full) == {
        "name": "full",
        "units": ["*.service"],
        "steps": [step | {"hold": 30.0, "repeat": 60.0}],
        "excluded": ["quiet.service"],
        "unprotect": ["a.service", "b.service"],
        "mode": "observe",
        "clear": "not (anon > 1.0M or swap < 62.5% of limit)",
        "cooldown": 600.0,
        "budget": {"actions": 3, "per": 3600.0},
    }
    bare = Policy("bare", ("*.service",), (Step(ANON, Stop()),))
    assert fingerprint(bare) == {"name": "bare", "units": ["*.service"], "steps": [step]}


def test_a_pick_is_what_it_ranks_by_and_what_is_not_the_default():
    by = parse_rank("growth(footprint, 10min)")
    picks = (Pick(by), Pick(by, avoid=("ci-*.service",), settle=60.0))
    steps = fingerprint(replace(POLICY, steps=tuple(Step(ANON, Stop(), pick=pick) for pick in picks)))[
        "steps"
    ]
    said = {"by": "growth(footprint, 10min) > 0B/min"}
    assert [step["pick"] for step in steps] == [said, said | {"avoid": ["ci-*.service"], "settle": 60.0}]


@pytest.mark.parametrize(("action", "said"), ON_DISK.items(), ids=str)
def test_an_action_is_its_name_and_what_is_not_the_default(action, said):
    assert fingerprint(replace(POLICY, steps=(Step(ANON, action),)))["steps"][0]["action"] == said


def test_every_action_is_among_them():
    assert {type(action) for action in ON_DISK} == set(ACTIONS.values())


FULL = replace(POLICY, budget=Budget(1, 60.0), steps=(Step(ANON, Stop(), pick=Pick(parse_rank("anon"))),))
PLACES = {
    "policy": lambda add: add(FULL),
    "step": lambda add: replace(FULL, steps=(add(FULL.steps[0]),)),
    "budget": lambda add: replace(FULL, budget=add(FULL.budget)),
    "action": lambda add: replace(FULL, steps=(replace(FULL.steps[0], action=add(Stop())),)),
    "pick": lambda add: replace(FULL, steps=(replace(FULL.steps[0], pick=add(FULL.steps[0].pick)),)),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_field_that_a_later_version_adds_makes_no_difference_until_it_is_used(place):
    def with_later(used):
        def add(value):
            name = type(value).__name__
            later = make_dataclass(name, [("later", int | None, None)], bases=(type(value),), frozen=True)
            return later(**{each.name: getattr(value, each.name) for each in fields(value)}, later=used)

        return fingerprint(place(add))

    assert with_later(None) == fingerprint(FULL) != with_later(1)


@given(policy_files, policy_files)
def test_it_outlives_json_and_tells_policies_apart(some, others):
    for one, other in zip(some, others, strict=False):
        assert json.loads(json.dumps(fingerprint(one))) == fingerprint(one)
        assert (fingerprint(one) == fingerprint(other)) is (one == other)
