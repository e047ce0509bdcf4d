"""Decisions on file until their outcomes are reported: read back as they are, or refused, whatever is left of the file."""

from __future__ import annotations

import json
import math
import os
import signal
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_state_file import COOLED, KEY, NOW, OPEN, REMEMBERED, RUN, written

from unitmem.kernel.process import Process
from unitmem.measure.catalogue import Dimension
from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy import actions
from unitmem.policy.actions import (
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
from unitmem.policy.condition import Comparison, Derivation, Finding
from unitmem.policy.decision import (
    ActionProgress,
    Decision,
    Intent,
    Obstacle,
    Outcome,
    Override,
    Ranking,
    Refusal,
    Result,
)
from unitmem.policy.engine import evaluate
from unitmem.policy.state import EVERY_UNIT, conclude
from unitmem.record.ahead import Ahead
from unitmem.record.clock import Instant
from unitmem.record.intents import changes_document, intent_document, parse_intent
from unitmem.record.state_file import AHEAD_NAME, FILE_NAME, Remembered, Store, override_document
from unitmem.unit import Unit

ACTIONS = [
    Log(),
    Thaw(),
    Reclaim(2**20),
    SetProperties((("MemoryHigh", 2**20), ("MemoryMax", None))),
    Signal(signal.SIGTERM, Target.LARGEST, otherwise=LastResort.KILL),
    Run(("/bin/true", "a b")),
    Freeze(),
    Restart(20.0),
    Stop(30.0, LastResort.KILL),
    Kill(),
]
FINDING = Finding(Comparison("anon", ">", 85.0, of="limit"), True, 900.0, 800.0, {}, "/a.slice")
NEVER = Finding(
    Comparison("limit", ">", 60.0, span=600.0, derivation=Derivation.ETA), True, math.inf, 60.0, {"pss": "no"}
)
PROCESS = Process(7, 9, "a\udcff b")
RANKING = Ranking("footprint", Dimension.SIZE, 12, (("web.service", 9.0), ("db.service", 4.5)))
STOP = Decision(990.0, "p", 2, Stop(30.0), RUN, 10.5, 10.0, (FINDING, NEVER), victim=PROCESS, ranking=RANKING)
UNDER_WAY = Intent(STOP, 4990.0, begun=True, logged=True, progress=ActionProgress(1020.0))
INTENTS = [
    *(Intent(replace(STOP, action=action), 4990.0) for action in ACTIONS),
    Intent(replace(STOP, refusal=Refusal(Obstacle.COOLING_DOWN, "it cools down", 1010.0)), 4990.0),
    Intent(replace(STOP, content="/usr/bin/backup"), 4990.0),
    Intent(replace(STOP, observe=True, invocation=replace(RUN, invocation_id=None)), 4990.0, logged=True),
    UNDER_WAY,
    replace(UNDER_WAY, progress=ActionProgress(1010.0, killed=True, refusal="no", processes=(PROCESS,))),
    replace(UNDER_WAY, progress=ActionProgress(1010.0, killed=True, unasked="no answer", sent=True)),
    replace(UNDER_WAY, outcome=Outcome(STOP, Result.FAILED, "no", 991.0, again=True, process=PROCESS)),
]
STATE = replace(REMEMBERED.state, ladders={KEY: OPEN}, ending=frozenset({RUN}), cooling={}, spent={})
SAVED = Remembered(STATE, intents=(UNDER_WAY,))


def through_json(intent):
    return parse_intent(json.loads(json.dumps(intent_document(intent))), NOW.monotonic)


@pytest.mark.parametrize("intent", INTENTS)
def test_what_is_written_is_read_back(intent):
    assert through_json(intent) == intent


def test_an_intent_of_a_version_without_descriptions_and_without_unanswered_requests_is_read():
    document = json.loads(json.dumps(intent_document(UNDER_WAY)))
    del document["description"], document["progress"][4:]
    assert parse_intent(document, NOW.monotonic) == UNDER_WAY


def test_every_action_is_tried_here():
    assert {type(action) for action in ACTIONS} == set(actions.ACTIONS.values())


def changed(*path, to):
    """The document of an action under way, with one value changed."""
    document = json.loads(json.dumps(intent_document(INTENTS[-3])))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return document


@pytest.mark.parametrize("absurd", [math.nan, -math.inf, -1, 1e300, "12", None, [], True])
@pytest.mark.parametrize(
    "path",
    [
        ("at",),
        ("step",),
        ("inode",),
        ("held",),
        ("hold",),
        ("realtime",),
        ("action", "timeout"),
        ("progress", 0),
        ("progress", 3, 0, 0),
        ("progress", 3, 0, 1),
        ("findings", 0, "threshold"),
    ],
)
def test_a_number_that_can_not_be_true_is_refused(path, absurd):
    if absurd == 1e300 and path in (("realtime",), ("findings", 0, "threshold")):
        return  # a wall clock may be anything, and a threshold only explains
    if absurd == -1 and path == ("findings", 0, "threshold"):
        return
    with pytest.raises((ValueError, TypeError, KeyError)):
        parse_intent(changed(*path, to=absurd), NOW.monotonic)


@pytest.mark.parametrize(
    ("path", "other"),
    [
        (("action", "keyword"), "later"),
        (("action",), {"keyword": "stop"}),
        (("action", "otherwise"), "later"),
        (("findings", 0, "measure"), "later"),
        (("begun",), 1),
        (("policy",), 7),
        (("progress",), [1010.0]),
        (("progress",), [1010.0, True, None, [], None]),
        (("progress", 4), 7),
        (("progress", 5), 1),
        (("progress", 0), 1000.0 + 30 + 11),
        (("outcome",), ["later", "", 991.0, False, False, None]),
    ],
)
def test_what_is_not_known_is_refused(path, other):
    with pytest.raises((ValueError, TypeError, KeyError)):
        parse_intent(changed(*path, to=other), NOW.monotonic)


# --- the file ---


def loaded(*directories, now=NOW):
    """What the next watch finds."""
    with closing(Store(*directories)) as store:
        return store.load((COOLED,), now)


def noted(tmp_path, *records):
    """What a store finds that comes after one that has saved `SAVED` ahead, and noted these."""
    store = Store(tmp_path)
    store.save(Remembered(), (COOLED,), NOW)
    store.save(SAVED, (COOLED,), NOW, ahead=True)
    for record in records:
        store.note(record)
    store.close()
    return loaded(tmp_path)


KEY_OF_STOP = list(STOP.key)
NOT_BEGUN = {"intent": KEY_OF_STOP, "changes": {"begun": False}}
NOT_LOGGED = {"intent": KEY_OF_STOP, "changes": {"logged": False}}


def test_what_was_noted_is_found(tmp_path):
    outcome = Outcome(STOP, Result.VERIFIED, "stopped", 995.0)
    override = Override("p", "b.service", {"MemoryHigh": None})
    changes = changes_document({"outcome": outcome})
    kept = noted(
        tmp_path, {"intent": KEY_OF_STOP, "changes": changes}, {"override": override_document(override)}
    )
    assert kept.intents == (replace(UNDER_WAY, outcome=outcome),)
    assert kept.overrides == (override,)
    assert kept.state.ending == {RUN}
    assert kept.trouble is None


def test_what_the_state_has_taken_over_is_not_kept_twice(tmp_path):
    noted(tmp_path)
    store = Store(tmp_path)
    store.save(SAVED, (COOLED,), NOW)
    assert (tmp_path / AHEAD_NAME).read_bytes() == b""
    store.note(NOT_BEGUN)
    assert loaded(tmp_path).intents == (replace(UNDER_WAY, begun=False),)


def test_it_is_in_the_runtime_directory_and_open_before_anything_is_done(tmp_path):
    (tmp_path / "run").mkdir()
    store = Store(tmp_path, tmp_path / "run")
    store.load((COOLED,), NOW)
    assert (tmp_path / "run" / AHEAD_NAME).stat().st_mode & 0o777 == 0o600
    store.save(SAVED, (COOLED,), NOW, ahead=True)
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]
    assert loaded(tmp_path, tmp_path / "run").intents == (UNDER_WAY,)


def test_of_a_record_that_was_cut_off_nothing_is_read_and_the_next_one_is_whole(tmp_path):
    """Wherever it was cut off, and whichever record it is."""
    noted(tmp_path, NOT_BEGUN, NOT_LOGGED)
    path = tmp_path / AHEAD_NAME
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    counts = [len(b"".join(lines[: count + 1])) for count in range(len(lines))]
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        kept = loaded(tmp_path)
        done = sum(length >= count for count in counts)
        not_begun = replace(UNDER_WAY, begun=False)
        begun = [(), (UNDER_WAY,), (not_begun,), (replace(not_begun, logged=False),)][done]
        assert (kept.intents, kept.trouble) == (begun, None)
        if length % 50 == 0 and 0 < done < 3:
            with closing(Store(tmp_path)) as store:
                store.load((COOLED,), NOW)
                store.note(NOT_LOGGED)
            assert loaded(tmp_path).intents == (replace(begun[0], logged=False),)


GARBAGE = [b"\xff\n", b"{\n", b"[]\n", b"null\n", b"[" * 9999 + b"\n"]


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("place", ["first", "last"])
def test_a_record_that_is_not_understood_restrains_every_policy_and_is_reported(tmp_path, garbage, place):
    noted(tmp_path)
    path = tmp_path / AHEAD_NAME
    text = path.read_bytes()
    path.write_bytes(garbage + text if place == "first" else text + garbage)
    kept = loaded(tmp_path)
    if place == "last":
        assert kept.intents == (UNDER_WAY,)
        assert "under_way" in str(kept.trouble)
        assert kept.state.cooling[COOLED.name, EVERY_UNIT] == NOW.monotonic + COOLED.cooldown
    else:  # the state after it says all
        assert (kept.intents, kept.trouble) == ((UNDER_WAY,), None)


@pytest.mark.parametrize(
    "record",
    [
        {"later": 1},
        {"state": 7},
        {"intent": KEY_OF_STOP},
        {"intent": KEY_OF_STOP, "changes": {"progress": [1e9, False, None, []]}},
        {"override": {"policy": "p", "unit": "a.service", "former": {"MemoryHigh": -1.5e400}}},
    ],
)
def test_a_record_of_another_version_restrains_and_is_reported(tmp_path, record):
    kept = noted(tmp_path, record)
    assert kept.trouble is not None
    assert kept.state.cooling


def test_nothing_is_left_of_the_file_that_was_written_before_a_reboot(tmp_path):
    """What the state on disk has under way is over, as the machine was started anew."""
    store = Store(tmp_path)
    store.save(SAVED, (COOLED,), NOW)
    store.note(NOT_BEGUN)
    later = Instant(monotonic=100.0, realtime=NOW.realtime + 60, boot_id="two")
    (intent,) = loaded(tmp_path, now=later).intents
    assert intent.decision.at == 100.0 - 60 - 10
    assert intent.outcome.result is Result.GONE
    assert "the machine was restarted" in intent.outcome.detail


def test_a_disk_that_is_full_leaves_whole_records(tmp_path, monkeypatch):
    noted(tmp_path)
    store = Store(tmp_path)
    store.load((COOLED,), NOW)
    write = os.write
    monkeypatch.setattr("unitmem.record.ahead.os.write", lambda to, data: write(to, data[:10]))
    with pytest.raises(OSError, match="No space"):
        store.note(NOT_BEGUN)
    monkeypatch.undo()
    assert loaded(tmp_path).intents == (UNDER_WAY,)
    store.note(NOT_BEGUN)
    assert loaded(tmp_path).intents == (replace(UNDER_WAY, begun=False),)


def test_a_run_that_is_being_ended_is_not_judged_until_that_has_an_outcome(tmp_path):
    unit = UnitSample(Unit(RUN.unit), RUN, values={"anon": 2**23})
    state = noted(tmp_path).state
    for at in (1001.0, 1100.0):
        state, made = evaluate([COOLED], Sample(at, {RUN.unit: unit}), state, at)
        assert made == ()
    state = conclude(state, Outcome(STOP, Result.FAILED, "it is still there", 1101.0, again=True), 1101.0)
    made = []
    for at in range(1102, 1120, 2):
        state, more = evaluate([COOLED], Sample(at, {RUN.unit: unit}), state, at)
        made += [decision.action.name for decision in more]
    assert "stop" in made


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-1e999", "true", '"12"'])
@pytest.mark.parametrize("section", ["cooling", "spent", "holds", "ladders"])
def test_a_number_of_the_state_that_is_none_restrains_and_is_reported(tmp_path, section, number):
    absurd = {
        "cooling": ["p", "c.service", 12345],
        "spent": ["p", "c.service", [12345]],
        "holds": {"policy": "p", "unit": "c.service", "former": {"MemoryHigh": 12345}},
        "ladders": written(SAVED, (COOLED,))["ladders"][0] | {"episode_since": 12345},
    }[section]
    document = written(SAVED, (COOLED,)) | {
        section: [absurd],
        "monotonic": 1000.0,
        "realtime": 5000.0,
        "boot_id": "one",
    }
    (tmp_path / FILE_NAME).write_text(json.dumps(document).replace("12345", number))
    kept = loaded(tmp_path)
    assert section in str(kept.trouble)
    unit = absurd["unit"] if isinstance(absurd, dict) else absurd[1]
    assert kept.state.cooling["p", unit] > NOW.monotonic


@given(st.binary(max_size=200), st.integers(0, 600))
def test_whatever_is_in_the_file_nothing_fails(tmp_path_factory, rubbish, place):
    directory = tmp_path_factory.mktemp("state")
    noted(directory, NOT_BEGUN)
    path = directory / AHEAD_NAME
    text = path.read_bytes()
    path.write_bytes(text[:place] + rubbish + text[place:])
    kept = loaded(directory)
    assert len(kept.intents) <= 1
    assert Ahead(path)
    assert (directory / FILE_NAME).exists()
