"""What outlives the daemon: encoded, kept, and read back; a crash or a damaged file loses no more than it must."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from unitmem.files import replace_file
from unitmem.policy.actions import END_WAIT, Log, Signal, Stop
from unitmem.policy.decision import Override
from unitmem.policy.model import Mode, Policy, Step
from unitmem.policy.state import Ladder, Phase, State, StepState
from unitmem.policyfile.expression import parse_condition
from unitmem.record.clock import Instant
from unitmem.record.state_file import (
    AHEAD_NAME,
    FILE_NAME,
    DamagedStateError,
    Remembered,
    Store,
    decode,
    encode,
    fingerprint,
)
from unitmem.unit import Invocation

NOW = Instant(monotonic=1000.0, realtime=5000.0, boot_id="one")
RUN = Invocation("a.service", "0" * 31 + "1", 7)
KEY = ("p", "a.service")
POLICY = Policy(
    "p",
    ("*.service",),
    (
        Step(parse_condition("anon > 1M"), Log()),
        Step(parse_condition("anon > 2M"), Signal(signal.SIGUSR1), hold=5),
        Step(parse_condition("anon > 3M"), Stop(timeout=30)),
    ),
    unprotect=frozenset({"b.service", "a.service"}),
)
OPEN = Ladder(
    RUN,
    (
        StepState(Phase.FIRED, since=990.0, fired_at=990.0),
        StepState(Phase.HOLDING, since=995.0),
        StepState(),
    ),
    episode_since=990.0,
)
REMEMBERED = Remembered(
    State(
        ladders={KEY: OPEN, ("p", "idle.service"): replace(OPEN, episode_since=None)},
        cooling={("p", "c.service"): 1060.0},
        spent={KEY: (980.0, 990.0)},
        spent_in_all={Mode.ACT: (990.0,)},
    ),
    (Override("p", "a.service", {"MemoryHigh": None, "MemoryMax": 2**20}),),
)


def through_json(remembered, policies=(POLICY,), shift=0.0):
    return decode(json.loads(json.dumps(encode(remembered, (POLICY,)))), policies, shift)


def test_what_is_kept_is_read_back():
    """Open episodes with what fired in them, cooldowns, budgets and overrides; what only held starts anew."""
    kept = through_json(REMEMBERED)
    assert kept.overrides == REMEMBERED.overrides
    assert kept.state == State(
        ladders={
            KEY: Ladder(
                RUN, (StepState(Phase.FIRED, fired_at=990.0), StepState(), StepState()), episode_since=990.0
            )
        },
        cooling=REMEMBERED.state.cooling,
        spent=REMEMBERED.state.spent,
        spent_in_all=REMEMBERED.state.spent_in_all,
    )


def test_an_end_that_was_under_way_is_not_asked_for_again_before_its_time_is_over():
    stopping = replace(OPEN, steps=(*OPEN.steps[:2], StepState(Phase.FIRED, since=990.0, fired_at=999.0)))
    state = replace(REMEMBERED.state, ladders={KEY: stopping}, ending=frozenset({RUN}))
    step = through_json(Remembered(state)).state.ladders[KEY].steps[2]
    assert step.phase is Phase.IDLE
    assert step.not_before == 999.0 + 30 + END_WAIT


def test_a_changed_policy_keeps_cooldown_and_budget_only():
    changed = replace(POLICY, steps=POLICY.steps[:2])
    kept = through_json(REMEMBERED, (changed,))
    assert kept.state.ladders == {}
    assert (kept.state.cooling, kept.state.spent) == (REMEMBERED.state.cooling, REMEMBERED.state.spent)
    assert kept.overrides == REMEMBERED.overrides


def test_a_policy_that_has_only_moved_in_its_file_is_the_same():
    moved = replace(POLICY, line=9, steps=tuple(replace(step, line=9) for step in POLICY.steps))
    assert fingerprint(moved) == fingerprint(POLICY)
    assert fingerprint(replace(POLICY, cooldown=1.0)) != fingerprint(POLICY)


@pytest.mark.parametrize(
    ("later", "left"),
    [
        (replace(NOW, monotonic=1020.0, realtime=5020.0), 40.0),
        (Instant(monotonic=3.0, realtime=5020.0, boot_id="two"), 40.0),
        (Instant(monotonic=3.0, realtime=4000.0, boot_id="two"), 60.0),
    ],
    ids=["same boot", "after a reboot", "after a reboot, with the clock set back"],
)
def test_time_left_is_the_same_to_whoever_comes_next(tmp_path, later, left):
    Store(tmp_path).save(REMEMBERED, (POLICY,), NOW)
    kept = Store(tmp_path).load((POLICY,), later)
    assert kept.state.cooling["p", "c.service"] - later.monotonic == pytest.approx(left)


def test_without_a_file_or_a_directory_nothing_is_remembered(tmp_path):
    assert Store(tmp_path).load((POLICY,), NOW) == Remembered()
    store = Store(None)
    store.save(REMEMBERED, (POLICY,), NOW)
    assert store.load((POLICY,), NOW) == Remembered()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"version": 1}', '{"version": 99}', "\xff"],
)
def test_a_damaged_file_is_set_aside_and_said_so(tmp_path, text):
    (tmp_path / FILE_NAME).write_text(text, encoding="latin-1")
    with pytest.raises(DamagedStateError, match="set aside"):
        Store(tmp_path).load((POLICY,), NOW)
    assert [path.name for path in tmp_path.iterdir()] == [f"{FILE_NAME}.damaged-5000"]
    assert Store(tmp_path).load((POLICY,), NOW) == Remembered()


def test_any_part_of_the_file_alone_is_damaged_and_never_another_error(tmp_path):
    Store(tmp_path).save(REMEMBERED, (POLICY,), NOW)
    whole = (tmp_path / FILE_NAME).read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / FILE_NAME).write_bytes(whole[:length])
        with pytest.raises(DamagedStateError):
            Store(tmp_path).load((POLICY,), NOW)


def test_what_has_not_changed_is_not_written_again(tmp_path):
    store = Store(tmp_path)
    store.save(REMEMBERED, (POLICY,), NOW)
    written = (tmp_path / FILE_NAME).stat().st_ino
    store.save(REMEMBERED, (POLICY,), replace(NOW, monotonic=1001.0))
    assert (tmp_path / FILE_NAME).stat().st_ino == written
    store.save(Remembered(), (POLICY,), NOW)
    assert (tmp_path / FILE_NAME).stat().st_ino != written


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.save(REMEMBERED, (POLICY,), NOW)

    def full(descriptor, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unitmem.files.os.write", full)
    with pytest.raises(OSError, match="No space"):
        store.save(Remembered(), (POLICY,), NOW)
    monkeypatch.undo()
    assert Store(tmp_path).load((POLICY,), NOW).overrides == REMEMBERED.overrides
    store.save(Remembered(), (POLICY,), NOW)
    assert Store(tmp_path).load((POLICY,), NOW).overrides == ()


def test_a_file_is_replaced_as_a_whole_with_its_mode(tmp_path):
    path = tmp_path / "a.json"
    replace_file(path, "old", durable=True)
    replace_file(path, "new", durable=False, mode=0o644)
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("make", [Path.symlink_to, Path.hardlink_to], ids=["symbolic", "hard"])
def test_a_link_in_the_way_is_not_written_through(tmp_path, make):
    """Whoever may write to the directory of metrics must not choose what root overwrites."""
    path, other = tmp_path / "a.prom", tmp_path / "other"
    other.write_text("theirs")
    make(tmp_path / ".a.prom.new", other)
    replace_file(path, "new", durable=False)
    assert (path.read_text(), path.is_symlink()) == ("new", False)
    assert other.read_text() == "theirs"


def test_what_a_crash_has_left_is_not_in_the_way(tmp_path):
    (tmp_path / ".a.json.new").write_text("half of wh")
    replace_file(tmp_path / "a.json", "new", durable=False)
    assert os.listdir(tmp_path) == ["a.json"]


# --- ahead of an action ---

OTHER = Remembered(overrides=(Override("p", "b.service", {"MemoryHigh": 1}),))


def later(seconds, boot="one"):
    return Instant(NOW.monotonic + seconds, NOW.realtime + seconds, boot)


def test_what_was_written_ahead_of_an_action_outlives_the_daemon(tmp_path):
    store = Store(tmp_path)
    store.save(REMEMBERED, (POLICY,), NOW)
    store.save(OTHER, (POLICY,), later(1), ahead=True)
    assert Store(tmp_path).load((POLICY,), later(2)) == OTHER


def test_what_was_written_when_the_action_was_under_way_counts_more(tmp_path):
    store = Store(tmp_path)
    store.save(REMEMBERED, (POLICY,), NOW)
    store.save(OTHER, (POLICY,), later(1), ahead=True)
    store.save(REMEMBERED, (POLICY,), later(1))
    assert Store(tmp_path).load((POLICY,), later(2)).overrides == REMEMBERED.overrides
    (tmp_path / FILE_NAME).write_text("rubbish")
    with pytest.raises(DamagedStateError):  # and nothing older is taken for what was lost
        Store(tmp_path).load((POLICY,), later(3))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}'])
def test_what_a_crash_of_the_machine_left_of_it_is_passed_over(tmp_path, text):
    store = Store(tmp_path)
    store.save(REMEMBERED, (POLICY,), NOW)
    (tmp_path / AHEAD_NAME).write_text(text)
    assert Store(tmp_path).load((POLICY,), later(2)).overrides == REMEMBERED.overrides
    store.save(OTHER, (POLICY,), later(3), ahead=True)
    assert Store(tmp_path).load((POLICY,), later(4, boot="two")).overrides == REMEMBERED.overrides


def test_ahead_of_an_action_no_disk_is_waited_for(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("unitmem.files.os.fdatasync", synced.append)
    store = Store(tmp_path)
    store.save(REMEMBERED, (POLICY,), NOW, ahead=True)
    assert synced == []
    store.save(REMEMBERED, (POLICY,), NOW)
    assert len(synced) == 1
