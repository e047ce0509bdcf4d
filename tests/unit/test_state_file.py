"""What outlives the daemon: encoded, kept, and read back; a crash or a damaged file loses no more than it must."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import make_dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from test_engine_properties import budgets, play, policy_files, timelines

from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy.actions import END_WAIT, Log, SetProperties, Signal, Stop
from unitmem.policy.decision import Obstacle, Override
from unitmem.policy.engine import evaluate
from unitmem.policy.fingerprint import fingerprint
from unitmem.policy.model import Budget, Mode, Policy, Step
from unitmem.policy.state import EVERY_UNIT, Ladder, Phase, Refused, State, StepState, carry_over
from unitmem.policyfile.expression import parse_condition
from unitmem.policyfile.reader import parse
from unitmem.record.clock import Instant
from unitmem.record.files import replace_file
from unitmem.record.state_file import (
    AHEAD_NAME,
    FILE_NAME,
    DamagedStateError,
    Remembered,
    Store,
    decode,
    encode,
)
from unitmem.unit import Invocation, Unit

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
        StepState(Phase.FIRED, held=10.0, looked_at=1000.0, fired_at=990.0),
        StepState(Phase.HOLDING, held=5.0, looked_at=1000.0),
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


def written(remembered, policies=(POLICY,)):
    """The document that a watch leaves."""
    return json.loads(json.dumps(encode(remembered, policies)))


def through_json(remembered, policies=(POLICY,)):
    return decode(written(remembered), policies, NOW.monotonic)


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


def test_what_the_manager_refuses_is_read_back():
    """But not that it was told, which the next watch tells again."""
    refused = {(RUN, "stop within 30s"): Refused("no", frozenset({("p", 2)}))}
    kept = through_json(Remembered(replace(REMEMBERED.state, refused=refused)))
    assert kept.state.refused == {(RUN, "stop within 30s"): Refused("no")}
    assert kept.trouble is None


@pytest.mark.parametrize("said", [None, [], [{"unit": "a.service"}], [7], 7])
def test_an_older_file_or_a_damaged_refusal_makes_the_manager_be_asked_once_more(said):
    document = written(REMEMBERED)
    if said is None:
        del document["refused"]
    else:
        document["refused"] = said
    assert decode(document, (POLICY,), NOW.monotonic) == through_json(REMEMBERED)


def test_an_end_that_was_under_way_is_not_asked_for_again_before_its_time_is_over():
    stopping = replace(
        OPEN, steps=(*OPEN.steps[:2], StepState(Phase.FIRED, held=10.0, looked_at=1000.0, fired_at=999.0))
    )
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

    monkeypatch.setattr("unitmem.record.files.os.write", full)
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
    monkeypatch.setattr("unitmem.record.files.os.fdatasync", synced.append)
    store = Store(tmp_path)
    store.save(REMEMBERED, (POLICY,), NOW, ahead=True)
    assert synced == []
    store.save(REMEMBERED, (POLICY,), NOW)
    assert len(synced) == 1


# --- a restart is a reload ---

COOLED = replace(POLICY, cooldown=60.0, budget=Budget(3, 600.0))
AFTER = {
    "the same": (COOLED,),
    "moved": (replace(COOLED, line=9),),
    "other steps": (replace(COOLED, steps=POLICY.steps[:2]),),
    "another cooldown": (replace(COOLED, cooldown=30.0),),
    "no cooldown": (replace(COOLED, cooldown=0.0),),
    "another budget": (replace(COOLED, budget=Budget(1, 60.0)),),
    "observing": (replace(COOLED, mode=Mode.OBSERVE),),
    "another name": (replace(COOLED, name="q"),),
    "gone": (),
    "one more": (replace(COOLED, name="q"), COOLED),
}


@pytest.mark.parametrize("before", [COOLED, replace(COOLED, mode=Mode.OBSERVE)], ids=["acting", "observing"])
@pytest.mark.parametrize("after", AFTER.values(), ids=AFTER)
def test_a_restart_leaves_what_a_reload_leaves(before, after):
    document = written(REMEMBERED, (before,))
    reloaded = carry_over(REMEMBERED.state, (before,), after, NOW.monotonic)
    restarted = decode(document, after, NOW.monotonic).state
    assert restarted == decode(written(Remembered(reloaded), after), after, NOW.monotonic).state
    assert (restarted.cooling, restarted.spent) == (reloaded.cooling, reloaded.spent)
    assert restarted.spent_in_all == reloaded.spent_in_all


@given(policy_files, timelines, budgets, policy_files)
def test_a_restart_leaves_what_a_reload_leaves_of_any_state(before, timeline, budget, after):
    last = play(before, timeline, budget)[-1]
    reloaded = carry_over(last.state, before, after, last.now + 1)
    restarted = decode(written(Remembered(last.state), before), after, last.now + 1).state
    assert restarted == decode(written(Remembered(reloaded), after), after, last.now + 1).state
    assert (restarted.cooling, restarted.spent) == (reloaded.cooling, reloaded.spent)
    assert restarted.spent_in_all == reloaded.spent_in_all


def test_an_edit_and_a_restart_do_not_act_again():
    """The signal that was sent before the edit is not sent once more after it."""
    old, new = (
        Policy("p", ("*.service",), (Step(parse_condition(when), Signal(signal.SIGUSR1)),), cooldown=600.0)
        for when in ("anon > 1M", "anon > 1.5M")
    )
    unit = UnitSample(Unit(RUN.unit), RUN, values={"anon": 2**21})
    state, (decision,) = evaluate([old], Sample(100.0, {RUN.unit: unit}), State(), 100.0)
    assert decision.acts
    state = decode(written(Remembered(state), (old,)), (new,), 101.0).state
    _, (decision,) = evaluate([new], Sample(102.0, {RUN.unit: unit}), state, 102.0)
    assert (decision.refusal.obstacle, decision.refusal.until) == (Obstacle.COOLING_DOWN, 701.0)


# --- other versions ---

POLICIES_OF_0_1 = """
interval: 2s
budget: {actions: 9, per: 1d}
policies:
  - name: everything
    units: ["*.service", "web@*.service"]
    except: ["quiet.service"]
    unprotect: [b.service, a.service]
    clear: "not anon > 10M and (workingset < 62.5% of limit or events.oom_kill <= 0 in 10min)"
    cooldown: 10min
    budget: {actions: 3, per: 1h}
    steps:
      - {when: "anon > 1.5M", for: 30s, repeat: 1h, do: log}
      - {when: "growth(anon, 10min) > 5M/min", do: {signal: SIGUSR1, to: all}}
      - {when: "eta(limit, 10min) < 5min", do: {signal: SIGTERM, timeout: 5s, else: kill}}
      - {when: "pressure.full.avg10 > 20%", do: {reclaim: 100M}}
      - {when: "swap > 1M", do: {set: {MemoryHigh: 1G, MemoryMax: infinity}}}
      - {when: "swap > 2M", do: freeze}
      - {when: "swap > 3M", do: thaw}
      - {when: "swap > 4M", do: {run: {command: [/usr/bin/true, "it's \\"so\\""], timeout: 3s}}}
      - {when: "swap > 5M", do: {restart: {timeout: 20s, else: kill}}}
      - {when: "swap > 6M", do: {stop: {timeout: 30s}}}
      - {when: "swap > 7M", do: kill}
  - name: plain
    units: ["*.scope"]
    mode: observe
    steps: [{when: "anon > 1M", do: stop}]
"""
LEFT_BY_0_1 = {
    "version": 1,
    "policies": {
        "everything": (
            "(Policy(name='everything', units=('*.service', 'web@*.service'), steps=("
            "Step(when=Comparison(measure='anon', operator='>', threshold=1572864.0, of=None, span=None, derivation=None), action=Log(), hold=30.0, repeat=3600.0, line=None), "
            "Step(when=Comparison(measure='anon', operator='>', threshold=87381.33333333333, of=None, span=600.0, derivation=<Derivation.GROWTH: 'growth'>), action=Signal(number=<Signals.SIGUSR1: 10>, to=<Target.ALL: 'all'>, timeout=10.0, otherwise=None), hold=0.0, repeat=None, line=None), "
            "Step(when=Comparison(measure='limit', operator='<', threshold=300.0, of=None, span=600.0, derivation=<Derivation.ETA: 'eta'>), action=Signal(number=<Signals.SIGTERM: 15>, to=<Target.MAIN: 'main'>, timeout=5.0, otherwise=<LastResort.KILL: 'kill'>), hold=0.0, repeat=None, line=None), "
            "Step(when=Comparison(measure='pressure.full.avg10', operator='>', threshold=20.0, of=None, span=None, derivation=None), action=Reclaim(size=104857600, timeout=30.0), hold=0.0, repeat=None, line=None), "
            "Step(when=Comparison(measure='swap', operator='>', threshold=1048576.0, of=None, span=None, derivation=None), action=SetProperties(properties=(('MemoryHigh', 1073741824), ('MemoryMax', None))), hold=0.0, repeat=None, line=None), "
            "Step(when=Comparison(measure='swap', operator='>', threshold=2097152.0, of=None, span=None, derivation=None), action=Freeze(timeout=10.0), hold=0.0, repeat=None, line=None), "
            "Step(when=Comparison(measure='swap', operator='>', threshold=3145728.0, of=None, span=None, derivation=None), action=Thaw(timeout=10.0), hold=0.0, repeat=None, line=None), "
            "Step(when=Comparison(measure='swap', operator='>', threshold=4194304.0, of=None, span=None, derivation=None), action=Run(command=('/usr/bin/true', 'it\\'s \"so\"'), timeout=3.0), hold=0.0, repeat=None, line=None), "
            "Step(when=Comparison(measure='swap', operator='>', threshold=5242880.0, of=None, span=None, derivation=None), action=Restart(timeout=20.0, otherwise=<LastResort.KILL: 'kill'>), hold=0.0, repeat=None, line=None), "
            "Step(when=Comparison(measure='swap', operator='>', threshold=6291456.0, of=None, span=None, derivation=None), action=Stop(timeout=30.0, otherwise=None), hold=0.0, repeat=None, line=None), "
            "Step(when=Comparison(measure='swap', operator='>', threshold=7340032.0, of=None, span=None, derivation=None), action=Kill(timeout=10.0), hold=0.0, repeat=None, line=None)), "
            "excluded=('quiet.service',), unprotect=frozenset(), mode=<Mode.ACT: 'act'>, clear=All(terms=(Not(term=Comparison(measure='anon', operator='>', threshold=10485760.0, of=None, span=None, derivation=None)), AnyOf(terms=(Comparison(measure='workingset', operator='<', threshold=62.5, of='limit', span=None, derivation=None), Comparison(measure='events.oom_kill', operator='<=', threshold=0.0, of=None, span=600.0, derivation=<Derivation.INCREASE: 'increase'>))))), "
            "cooldown=600.0, budget=Budget(actions=3, per=3600.0), line=None), ['a.service', 'b.service'])"
        ),
        "plain": (
            "(Policy(name='plain', units=('*.scope',), steps=("
            "Step(when=Comparison(measure='anon', operator='>', threshold=1048576.0, of=None, span=None, derivation=None), action=Stop(timeout=90.0, otherwise=None), hold=0.0, repeat=None, line=None),), "
            "excluded=(), unprotect=frozenset(), mode=<Mode.OBSERVE: 'observe'>, clear=None, "
            "cooldown=0.0, budget=None, line=None), [])"
        ),
    },
    "ladders": [
        {
            "policy": "everything",
            "unit": "a.service",
            "invocation_id": "00000000000000000000000000000001",
            "inode": 7,
            "episode_since": 990.0,
            "is_ending": False,
            "steps": [
                {"fired_at": 990.0, "not_before": None},
                {"fired_at": 991.0, "not_before": None},
                {"fired_at": None, "not_before": None},
                {"fired_at": None, "not_before": None},
                {"fired_at": None, "not_before": None},
                {"fired_at": None, "not_before": None},
                {"fired_at": None, "not_before": None},
                {"fired_at": None, "not_before": None},
                {"fired_at": None, "not_before": None},
                {"fired_at": None, "not_before": None},
                {"fired_at": None, "not_before": None},
            ],
        },
        {
            "policy": "everything",
            "unit": "b.service",
            "invocation_id": "00000000000000000000000000000002",
            "inode": 8,
            "episode_since": 980.0,
            "is_ending": True,
            "steps": [
                {"fired_at": 980.0, "not_before": None},
                {"fired_at": None, "not_before": None},
                {"fired_at": None, "not_before": None},
                {"fired_at": None, "not_before": None},
                {"fired_at": None, "not_before": None},
                {"fired_at": None, "not_before": None},
                {"fired_at": None, "not_before": None},
                {"fired_at": None, "not_before": None},
                {"fired_at": None, "not_before": None},
                {"fired_at": 995.0, "not_before": None},
                {"fired_at": None, "not_before": None},
            ],
        },
        {
            "policy": "plain",
            "unit": "s.scope",
            "invocation_id": None,
            "inode": 9,
            "episode_since": 985.0,
            "is_ending": False,
            "steps": [{"fired_at": 985.0, "not_before": None}],
        },
    ],
    "cooling": [["everything", "c.service", 1060.0]],
    "spent": [["everything", "a.service", [991.0]], ["everything", "b.service", [995.0]]],
    "spent_in_all": {"act": [991.0, 995.0], "observe": [985.0]},
    "holds": [{"policy": "everything", "unit": "a.service", "former": {"MemoryHigh": None}}],
    "monotonic": 1000.0,
    "realtime": 5000.0,
    "boot_id": "one",
}
"""A document as 0.1 wrote it, to the letter, under `POLICIES_OF_0_1`."""


def of_0_1(old="", new=""):
    return parse(POLICIES_OF_0_1.replace(old, new)).file.policies


def test_what_0_1_has_left_goes_on():
    """Its fingerprints were the repr of its classes, of which each is in it."""
    kept = decode(LEFT_BY_0_1, of_0_1(), 1000.0)
    assert kept.trouble is None
    state = kept.state
    assert set(state.ladders) == {
        ("everything", "a.service"),
        ("everything", "b.service"),
        ("plain", "s.scope"),
    }
    steps = state.ladders["everything", "a.service"].steps
    assert [step.fired_at for step in steps[:3]] == [990.0, 991.0, None]
    assert state.ladders["everything", "b.service"].steps[9] == StepState(
        fired_at=995.0, not_before=995.0 + 30 + END_WAIT
    )
    assert state.cooling == {("everything", "c.service"): 1060.0}
    assert state.spent[("everything", "a.service")] == (991.0,)
    assert state.spent_in_all == {Mode.ACT: (991.0, 995.0), Mode.OBSERVE: (985.0,)}
    assert kept.overrides == (Override("everything", "a.service", {"MemoryHigh": None}),)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("anon > 1.5M", "anon > 1.6M"),
        ("do: kill}", "do: {kill: {timeout: 9s}}}"),
        ("b.service", "d.service"),
        ("62.5%", "63%"),
    ],
)
def test_what_was_edited_since_0_1_cools_down(old, new):
    """And whatever else the edit does, budgets and cooldowns go on."""
    state = decode(LEFT_BY_0_1, of_0_1(old, new), 1000.0).state
    assert set(state.ladders) == {("plain", "s.scope")}
    assert state.cooling == {
        ("everything", "a.service"): 1600.0,
        ("everything", "b.service"): 1600.0,
        ("everything", "c.service"): 1060.0,
    }
    assert state.spent == {("everything", "a.service"): (991.0,), ("everything", "b.service"): (995.0,)}


def test_0_1_said_nothing_of_what_it_did_not_know():
    """A policy that uses a field of a later version is not the one that 0.1 has seen, whatever else it says."""
    later = make_dataclass("Step", [("later", int | None, None)], bases=(Step,), frozen=True)
    policies = of_0_1()
    for used, goes_on in ((None, True), (1, False)):
        steps = tuple(
            later(step.when, step.action, step.hold, step.repeat, later=used) for step in policies[0].steps
        )
        state = decode(LEFT_BY_0_1, [replace(policies[0], steps=steps)], 1000.0).state
        assert (("everything", "a.service") in state.ladders) is goes_on


def newer(**changes):
    """What a later version leaves of REMEMBERED, as far as this one can guess."""
    return written(REMEMBERED, (COOLED,)) | {"version": 2} | changes


def test_what_is_understood_of_a_newer_version_counts(tmp_path):
    kept = decode(written(REMEMBERED, (COOLED,)), (COOLED,), NOW.monotonic)
    ladders = [entry | {"later": [1]} for entry in newer()["ladders"]]
    clocks = {"monotonic": 1000.0, "realtime": 5000.0, "boot_id": "one", "version": 99}
    (tmp_path / FILE_NAME).write_text(json.dumps(newer(ladders=ladders) | clocks))
    assert Store(tmp_path).load((COOLED,), NOW) == kept
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize(
    "said", [{"later": 1}, {"mode": "later"}, {"steps": [{"action": {"name": "later"}}]}]
)
def test_a_policy_that_said_more_than_is_known_is_cut_short(said):
    """Also one of a mode that isn't known: it may have acted."""
    kept = decode(newer(policies={"p": {**fingerprint(COOLED), **said}}), (COOLED,), NOW.monotonic).state
    assert kept.ladders == {}
    assert kept.cooling == {("p", "c.service"): 1060.0, KEY: 1060.0}
    assert kept.spent == REMEMBERED.state.spent


def test_what_was_spent_in_a_mode_that_is_not_known_was_spent_acting():
    kept = decode(newer(spent_in_all={"act": [990.0], "later": [991.0]}), (COOLED,), NOW.monotonic)
    assert kept.state.spent_in_all == {Mode.ACT: (990.0, 991.0)}
    assert kept.trouble is None


EVERY = ("p", EVERY_UNIT)


@pytest.mark.parametrize(
    ("changes", "cooling"),
    [
        ({"ladders": {"later": 1}}, {EVERY: 1060.0}),
        ({"ladders": [{"policy": "p", "unit": "a.service", "later": 1}]}, {KEY: 1060.0}),
        ({"ladders": [{"policy": "p", "units": ["a.service"]}]}, {EVERY: 1060.0}),
        ({"cooling": [["p", "c.service", {"until": 1060.0}]]}, {("p", "c.service"): 1060.0}),
        ({"cooling": None}, {EVERY: 1060.0}),
        ({"spent": [["p", "a.service", {"act": [990.0]}]]}, {KEY: 1600.0}),
        ({"spent": 7}, {EVERY: 1600.0}),
        ({"spent_in_all": {"act": 7}}, {EVERY: 4600.0}),
        ({"policies": []}, {KEY: 1060.0}),
        ({"policies": None}, {KEY: 1060.0, EVERY: 1060.0}),
        ({"holds": [{"policy": "p", "unit": "a.service", "former": {"MemoryHigh": "80%"}}]}, {KEY: 1060.0}),
        ({"picked": {"p": "a.service"}}, {EVERY: 1060.0}),
    ],
)
def test_what_is_not_understood_counts_as_of_now_and_is_told(changes, cooling):
    """An episode as one that ends now, a budget as one that is spent now; for every unit where none is named."""
    kept = decode(newer(**changes), (COOLED,), 1000.0, budget=Budget(2, 3600.0))
    others = {} if "cooling" in changes else {("p", "c.service"): 1060.0}
    assert kept.state.cooling == others | cooling
    (section,) = changes
    assert (section in str(kept.trouble)) is (changes != {"policies": []})


def test_what_is_not_understood_of_a_policy_that_is_gone_is_nobodys_concern():
    assert decode(newer(cooling=[["gone", "c.service", "later"]]), (COOLED,), 1000.0).trouble is None


def test_a_section_more_restrains_nobody_in_the_same_version():
    kept = decode(written(REMEMBERED, (COOLED,)) | {"later": 1}, (COOLED,), NOW.monotonic)
    assert kept == decode(written(REMEMBERED, (COOLED,)), (COOLED,), NOW.monotonic)


def test_a_cooldown_of_every_unit_withholds_each_of_them():
    unit = UnitSample(Unit(RUN.unit), RUN, values={"anon": 2**22})
    state = decode(newer(ladders=None), (COOLED,), 1000.0).state
    for at, fires in ((1030.0, False), (1059.0, False), (1060.0, True)):
        state, made = evaluate([COOLED], Sample(at, {RUN.unit: unit}), state, at)
        assert any(decision.refusal is None for decision in made) is fires


def test_a_state_that_others_may_write_is_not_used_and_makes_it_act_less(tmp_path):
    """They could have ended a cooldown, or have it set any property of any unit."""
    tmp_path.chmod(0o755)
    store = Store(tmp_path)
    policy = replace(POLICY, cooldown=60.0)
    override = Override("p", "a.service", {"MemoryHigh": 1})
    store.save(Remembered(State(), (override,)), (policy,), NOW)
    assert store.load((policy,), NOW).overrides == (override,)
    for path, mode in ((tmp_path / FILE_NAME, 0o666), (tmp_path, 0o777)):
        before = path.stat().st_mode
        path.chmod(mode)
        loaded = store.load((policy,), NOW)
        store.save(Remembered(), (policy,), NOW)
        path.chmod(before)
        assert loaded.overrides == ()
        assert loaded.state.cooling == {("p", EVERY_UNIT): NOW.monotonic + 60}
        assert f"run `chmod go-w {path}`" in str(loaded.trouble)
        assert store.load((policy,), NOW).overrides == (override,), "what is to be set back is not forgotten"


ABSURD = {
    "an integer of 400 digits": lambda text: text.replace("1060", "9" * 400),
    "an integer of 5,000 digits": lambda text: text.replace("1060", "9" * 5000),
    "infinity": lambda text: text.replace("1060", "Infinity"),
    "NaN": lambda text: text.replace("1060", "NaN"),
    "the year 33,658": lambda text: text.replace("1060", "1000000000000"),
    "a lone surrogate": lambda text: text.replace("a.service", r"\ud800.service"),
    "a property below zero": lambda text: text.replace('"MemoryHigh": 1', '"MemoryHigh": -5'),
    "a property beyond 64 bits": lambda text: text.replace('"MemoryHigh": 1', f'"MemoryHigh": {2**64}'),
    "another property": lambda text: text.replace("MemoryHigh", "ExecStart"),
    "brackets": lambda text: "[" * 100_000,
    "brackets in it": lambda text: text.replace("1060", "[" * 100_000),
    "a list": lambda text: "[]",
    "nothing": lambda text: "",
    "bytes that are no text": lambda text: text.replace("a.service", "\udcff"),
    "times of a future clock": lambda text: text.replace('"monotonic": 1000.0', '"monotonic": 1e308'),
    "an infinite clock": lambda text: text.replace('"monotonic": 1000.0', '"monotonic": -Infinity'),
}


@pytest.mark.parametrize("boot_id", ["one", "two"])
@pytest.mark.parametrize("name", ABSURD)
def test_absurd_contents_end_nothing_and_are_not_obeyed(tmp_path, name, boot_id):
    """What comes of them can be saved again, holds no policy back for longer than a week, and sets no such value."""
    policy = replace(POLICY, cooldown=60.0)
    state = State(cooling={("p", "a.service"): 1060})
    store = Store(tmp_path)
    store.save(Remembered(state, (Override("p", "a.service", {"MemoryHigh": 1}),)), (policy,), NOW)
    path = tmp_path / FILE_NAME
    text = path.read_text()
    assert '"MemoryHigh": 1' in text
    path.write_bytes(ABSURD[name](text).encode(errors="surrogateescape"))
    now = replace(NOW, boot_id=boot_id)
    try:
        loaded = store.load((policy,), now)
    except DamagedStateError:
        assert store.load((policy,), now) == Remembered()  # it is set aside
        return
    assert all(until - now.monotonic <= 7 * 86400 for until in loaded.state.cooling.values())
    for override in loaded.overrides:
        assert override.unit.isascii()
        assert override.former.keys() <= {key.name for key in SetProperties.own_keys()}
        assert all(size is None or 0 <= size < 2**64 - 1 for size in override.former.values())
    Store(tmp_path).save(loaded, (policy,), now)
