"""The shipped policies over days of machines: no wrong action, none missed, and how early."""

from __future__ import annotations

from pathlib import Path

import pytest
from machine import Did, live

from days import DAYS, Day
from unitmem import load_policies
from unitmem.policy.decision import Decision
from unitmem.policyfile.reader import parse

EXAMPLES = Path(__file__).parents[2] / "examples"


def took(one: Day) -> list[Did]:
    """Everything that was done, or logged, and every kill of the kernel."""
    file = load_policies(EXAMPLES / one.policy) if one.policy.endswith(".yaml") else parse(one.policy).file
    done = []
    for event in live(one.machine, file):
        match event:
            case Did():
                done.append(event)
            case Decision(refusal=None):
                action = event.action.keyword if event.action.acts else f"log of {event.policy}"
                done.append(Did(event.at, event.unit, action))
    return done


@pytest.mark.slow
@pytest.mark.parametrize("one", [pytest.param(one, id=one.name.replace(" ", "-")) for one in DAYS])
def test_a_day(one: Day) -> None:
    done = took(one)
    asked = {(right.unit, right.action) for right in one.right}
    allowed = one.may | asked | {(unit, "oom") for unit, _ in asked}
    wrong = [did for did in done if (did.unit, did.action) not in allowed]
    assert not wrong, wrong[:5]
    for right in one.right:
        when = [did.at for did in done if (did.unit, did.action) == (right.unit, right.action)]
        in_time = [at for at in when if right.after <= at <= right.before]
        assert len(in_time) >= right.times, f"{right} was missed: {when[:5]}"
        early = [at for at in when if at < right.after]
        assert not early, f"{right}: too early at {early[:5]}"
