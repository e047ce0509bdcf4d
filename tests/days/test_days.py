"""The shipped policies over days of machines: no wrong action, none missed, and how early."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from machine import Did, live

from days import DAYS, Day
from unitmem import load_policies
from unitmem.policy.decision import Decision
from unitmem.policy.model import PolicyFile
from unitmem.policyfile.reader import parse
from unitmem.record.event import FILE_NAME
from unitmem.record.history import read_samples
from unitmem.record.recorder import Recorder
from unitmem.simulate.replay import Replayed, decisions

EXAMPLES = Path(__file__).parents[2] / "examples"


def file_of(one: Day) -> PolicyFile:
    return load_policies(EXAMPLES / one.policy) if one.policy.endswith(".yaml") else parse(one.policy).file


def took(one: Day) -> list[Did]:
    """Everything that was done, or logged, and every kill of the kernel."""
    done = []
    for event in live(one.machine, file_of(one)):
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
        assert right.most is None or len(when) <= right.most, f"{right} came {len(when)} times"
        early = [at for at in when if at < right.after]
        assert not early, f"{right}: too early at {early[:5]}"


@pytest.mark.slow
@pytest.mark.parametrize("hours", [-5, 5])
def test_a_day_on_which_the_clock_is_set_is_replayed_as_it_was(hours: int, tmp_path: Path) -> None:
    one = next(
        one
        for one in DAYS
        if one.name == f"a leak is restarted in time though the clock is set by {hours:+g} h"
    )
    file = replace(file_of(one), interval=one.machine.look)
    recorder = Recorder(tmp_path, "boot")
    made = [
        event
        for event in live(
            one.machine,
            file,
            look=lambda sample: recorder.tick(
                sample, one.machine.wall(sample.at), file.measures, file.followed
            ),
        )
        if isinstance(event, Decision)
    ]
    recorder.close()
    replayed = list(decisions(file, read_samples(tmp_path / FILE_NAME, with_ages=False), Replayed()))
    assert [(each.unit, each.action) for each in replayed] == [(each.unit, each.action) for each in made]
    # by values that are kept within 1%, a look sooner or later
    assert [each.at for each in replayed] == pytest.approx(
        [each.at for each in made], abs=3 * one.machine.look
    )
