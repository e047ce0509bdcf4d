"""The flight recorder: what is written is read back, it stays bounded, and nothing about it stops the guard."""

from __future__ import annotations

import errno
import json
import random
import signal
import sqlite3
from dataclasses import replace
from pathlib import Path
from shutil import copy

import pytest

from unitmem.kernel.process import Process
from unitmem.measure.catalogue import Trait, with_trait
from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy.actions import Signal
from unitmem.policy.condition import Finding
from unitmem.policy.decision import Decision, Obstacle, Outcome, Refusal, Result
from unitmem.policyfile.expression import parse_condition
from unitmem.record.event import FILE_NAME, Event, EventKind
from unitmem.record.history import History, HistoryError, find_histories, read_samples
from unitmem.record.recorder import Recorder, decision_event, outcome_event
from unitmem.unit import Invocation, Unit

M = 2**20
RUN = Invocation("a.service", f"{1:032x}", 7)
COMPARISON = parse_condition("anon > 40M")
DECISION = Decision(
    at=12.5,
    policy="p",
    step=1,
    action=Signal(signal.SIGUSR1),
    invocation=RUN,
    held=2.5,
    hold=2.0,
    findings=(Finding(COMPARISON, True, 50.0, 40.0, {}),),
)


def sample(at, **values):
    unit = UnitSample(
        Unit("a.service", invocation_id=RUN.invocation_id),
        RUN,
        protected="why",
        values=values,
        unknown={"pss": "not read"},
        at_most={"pss": 99},
        at_least={"pss": 7},
    )
    return Sample(at, {"a.service": unit})


@pytest.fixture
def recorder(tmp_path):
    recorder = Recorder(tmp_path, "boot-1")
    yield recorder
    recorder.close()


def test_a_sample_is_read_back_as_it_was(recorder, tmp_path):
    written = sample(10.125, anon=3, **{"pressure.some.avg10": 0.1})
    recorder.tick(written, 1000.0, ["pss"])
    recorder.close()
    assert list(read_samples(tmp_path / FILE_NAME)) == [written]


def test_ends_by_an_oom_kill_are_read_back_over_a_reboot_too(tmp_path):
    """They are kept as the seconds since then, which no other boot's clock moves."""
    for boot, clock, realtime in (("one", 500.0, 1000.0), ("two", 8.0, 1100.0)):
        recorder = Recorder(tmp_path, boot)
        unit = replace(sample(clock).units["a.service"], oom_ends=(clock - 4.5, clock - 1))
        recorder.tick(Sample(clock, {"a.service": unit}), realtime, [])
        recorder.close()
    read = [(each.at, each.units["a.service"].oom_ends) for each in read_samples(tmp_path / FILE_NAME)]
    assert read == [(500.0, (495.5, 499.0)), (600.0, (595.5, 599.0))]


def test_a_percentage_that_is_unknown_at_times_leaves_the_recorder_at_work(recorder, tmp_path):
    """Of several minutes with such times nothing is kept but that, for the same reason as earlier."""
    name = "pressure.some.avg10"
    unknown = {"pss": "not read", name: "it can't be read"}
    for tick in range(40):
        written = sample(tick * 20.0, **({} if tick % 20 == 0 else {name: 1.0}))
        if tick % 20 == 0:
            unit = replace(written.units["a.service"], unknown=unknown)
            written = Sample(written.at, {"a.service": unit})
        recorder.tick(written, 1000.0 + tick * 20, [])
    recorder.close()
    assert recorder.trouble is None
    read = [each.units["a.service"][name] for each in read_samples(tmp_path / FILE_NAME)]
    assert read == [None if tick % 20 == 0 else 1.0 for tick in range(40)]


def test_only_what_is_wanted_or_always_kept_is_written(recorder, tmp_path):
    recorder.tick(sample(1.0, anon=3, sock=4, file=5), 1000.0, ["sock"])
    recorder.close()
    (read,) = read_samples(tmp_path / FILE_NAME)
    assert set(read.units["a.service"].values) == {"anon", "sock"}
    assert "anon" in with_trait(Trait.RECORDED)


@pytest.mark.parametrize(
    ("off", "until"),
    [(0.0, 503.0), (36_000.0, 36_502.0), (-7200.0, 503.0)],
    ids=["at once", "hours later", "the wall clock set back"],
)
def test_time_goes_on_over_a_reboot_by_the_wall_clock(tmp_path, off, until):
    """Never backwards: at least a moment passes."""
    for boot, clocks in (("one", (500.0, 502.0)), ("two", (3.0, 5.0)), ("three", (4.0,))):
        recorder = Recorder(tmp_path, boot)
        for clock in clocks:
            realtime = {"one": 1000.0, "two": 1000.0 + off, "three": 1010.0 + off}[boot]
            recorder.tick(sample(clock, anon=1), realtime, [])
        recorder.close()
    times = [read.at for read in read_samples(tmp_path / FILE_NAME)]
    assert times == pytest.approx([500.0, 502.0, until, until + 2, until + 12])


def test_decisions_and_outcomes_keep_their_inputs(recorder, tmp_path):
    processes = [Process(4, 1, "python3", "python3 leak", rss=9, pss=8)]
    recorder.event(decision_event(DECISION, "it said", 1000.0, processes), 12.5)
    recorder.event(outcome_event(Outcome(DECISION, Result.GONE, "gone", 13.0), "then", 1001.0), 13.0)
    with History(tmp_path / FILE_NAME) as history:
        decided, outcome = history.events("a.service")
        assert history.events("b.service") == []
        assert history.events(since=1000.5) == [outcome]
    assert (decided.kind, decided.at, decided.message) == (EventKind.DECISION, 1000.0, "it said")
    assert (decided.run, decided.policy, decided.step) == (RUN.invocation_id, "p", 2)
    assert (decided.action, decided.result, decided.obstacle) == ("SIGUSR1", None, None)
    assert decided.detail["held"] == 2.5
    assert decided.detail["findings"] == [
        {"condition": "anon > 40.0M", "measure": "anon", "value": 50.0, "threshold": 40.0}
    ]
    assert decided.detail["processes"] == [
        {"pid": 4, "name": "python3", "command": "python3 leak", "rss": 9, "pss": 8}
    ]
    assert (outcome.kind, outcome.result) == (EventKind.OUTCOME, "gone")


def test_what_ran_in_a_unit_is_kept_where_its_name_does_not_say_it():
    backup = replace(DECISION, content="/usr/bin/backup")
    for decision, described in ((backup, "/usr/bin/backup"), (DECISION, None)):
        decided = decision_event(decision, "m", 1.0)
        outcome = outcome_event(Outcome(decision, Result.GONE, "gone", 1.0), "m", 1.0)
        assert [event.detail.get("description") for event in (decided, outcome)] == [described] * 2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"observe": True}, ("observed", None)),
        ({"refusal": Refusal(Obstacle.COOLING_DOWN, "it cools")}, (None, "cooling down")),
    ],
)
def test_what_was_not_done_is_kept_as_such(change, expected):
    event = decision_event(replace(DECISION, **change), "m", 1.0)
    assert (event.result, event.obstacle) == expected


def test_a_series_is_one_measure_of_one_unit(recorder, tmp_path):
    for clock in range(5):
        recorder.tick(sample(float(clock), anon=clock * M), 1000.0 + clock, [])
    recorder.tick(sample(9.0), 1009.0, [])
    recorder.close()
    with History(tmp_path / FILE_NAME) as history:
        assert history.series("a.service", "anon", 1001, 1003) == [(1001, M), (1002, 2 * M), (1003, 3 * M)]
        assert history.series("b.service", "anon", 1001, 1003) == []


def test_it_stays_bounded(tmp_path):
    recorder = Recorder(tmp_path, "boot", max_bytes=100_000)
    dice = random.Random(1)
    for clock in range(30_000):
        recorder.tick(sample(float(clock), anon=dice.randrange(2**40)), 1000.0 + clock, [])
    recorder.close()
    kept = list(read_samples(tmp_path / FILE_NAME))
    assert kept[-1].at == 29_999
    exact = [each for each in kept if "anon" in each.units["a.service"].values]
    assert 100 < len(exact) < 20_000
    # pages are used again, not given back
    assert (tmp_path / FILE_NAME).stat().st_size < 400_000


@pytest.mark.parametrize(("units", "bound"), [(1, 400_000), (300, 1_000_000)])
def test_it_stays_bounded_however_large_a_tick_is(tmp_path, units, bound):
    recorder = Recorder(tmp_path, "boot", max_bytes=bound)
    read = Sample(0.0, {f"unit-{n}.service": sample(0.0, anon=1).units["a.service"] for n in range(units)})
    for clock in range(4 * bound // (200 * units)):
        recorder.tick(replace(read, at=float(clock)), 1000.0 + clock, [])
    recorder.close()
    assert (tmp_path / FILE_NAME).stat().st_size < 1.3 * bound
    assert len(list(read_samples(tmp_path / FILE_NAME))) > 1


def test_it_stays_bounded_however_much_is_decided(tmp_path):
    bound = 1_000_000
    recorder = Recorder(tmp_path, "boot", max_bytes=bound)
    processes = [Process(pid, 1, "name", "ä" * 200, rss=1, pss=1) for pid in range(10)]
    for clock in range(1000):
        recorder.event(decision_event(DECISION, "m", 1000.0 + clock, processes), float(clock))
        recorder.tick(sample(float(clock), anon=1), 1000.0 + clock, [])
    recorder.close()
    assert (tmp_path / FILE_NAME).stat().st_size < 1.3 * bound
    with History(tmp_path / FILE_NAME) as history:
        assert history.events()[-1].at == 1999.0
        assert len(list(history.samples())) > 500


def test_what_sqlite_takes_for_no_text_is_kept_all_the_same(recorder, tmp_path):
    processes = [Process(7, 1, "caf\udce9", "caf\udce9", rss=1)]
    recorder.event(decision_event(DECISION, "m", 1000.0, processes), 1.0)
    assert recorder.trouble is None
    with History(tmp_path / FILE_NAME) as history:
        assert len(history.events()) == 1


def test_a_reader_that_takes_its_time_does_not_make_it_grow(tmp_path):
    recorder = Recorder(tmp_path, "boot", max_bytes=300_000)
    for clock in range(1000):
        recorder.tick(sample(float(clock), anon=clock), 1000.0 + clock, [])
    with History(tmp_path / FILE_NAME) as history:
        samples = history.samples()
        next(samples)
        for clock in range(1000, 5000):
            recorder.tick(sample(float(clock), anon=clock), 1000.0 + clock, [])
        size = sum(path.stat().st_size for path in tmp_path.iterdir())
        recorder.close()
        rest = [read.at for read in samples]
    assert rest[-1] == 4999
    assert rest == sorted(rest)
    assert size < 6_000_000


def test_it_goes_on_once_it_can_be_written_again(tmp_path):
    recorder = Recorder(tmp_path, "boot")
    other = sqlite3.connect(tmp_path / FILE_NAME)
    other.execute("BEGIN EXCLUSIVE")
    recorder.event(decision_event(DECISION, "m", 1000.0), 1.0)
    assert "can't be written" in recorder.trouble
    other.rollback()
    other.close()
    recorder.tick(sample(2.0, anon=1), 1001.0, [])
    assert recorder.trouble is not None  # not before a while
    recorder.tick(sample(100.0, anon=1), 1100.0, [])
    assert recorder.trouble is None
    recorder.close()
    assert [read.at for read in read_samples(tmp_path / FILE_NAME)] == [100.0]


def test_it_can_be_read_while_it_is_written(recorder, tmp_path):
    """With all that is older than two minutes, and at once with all that is around a decision."""
    with History(tmp_path / FILE_NAME) as history:
        for clock in range(130):
            recorder.tick(sample(float(clock), anon=1), 1000.0 + clock, [])
        assert len(list(history.samples())) == 60
        recorder.event(decision_event(DECISION, "m", 1130.0), 130.0)
        recorder.tick(sample(130.0, anon=1), 1130.0, [])
        assert len(list(history.samples())) == 131


def test_a_damaged_file_is_set_aside(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"SQLite format 3\0" + b"rubbish" * 1000)
    recorder = Recorder(tmp_path, "boot")
    assert "set aside" in recorder.trouble
    recorder.tick(sample(1.0, anon=1), 1000.0, [])
    recorder.close()
    assert (tmp_path / f"{FILE_NAME}.damaged").exists()
    assert len(list(read_samples(tmp_path / FILE_NAME))) == 1


def test_what_can_not_be_written_is_said_and_nothing_raised(tmp_path):
    recorder = Recorder(tmp_path / "nowhere", "boot")
    assert "nothing is recorded" in recorder.trouble
    recorder.tick(sample(1.0, anon=1), 1000.0, [])

    recorder = Recorder(tmp_path, "boot")
    other = sqlite3.connect(tmp_path / FILE_NAME)
    other.execute("DROP TABLE events")
    other.commit()
    recorder.event(decision_event(DECISION, "m", 1.0), 1.0)
    assert "can't be written" in recorder.trouble
    recorder.tick(sample(1.0, anon=1), 1000.0, [])


def test_without_a_directory_nothing_is_kept():
    recorder = Recorder(None, "boot")
    recorder.tick(sample(1.0, anon=1), 1000.0, [])
    assert recorder.trouble is None


LINE = {"at": 1, "units": {"a.service": {"run": "1", "values": {"anon": 5, "pss": None}}}}


def test_lines_of_json_are_samples_too(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps(LINE) + "\n\n" + json.dumps(LINE | {"at": 2.5}) + "\n")
    first, second = read_samples(path)
    assert (first.at, second.at) == (1.0, 2.5)
    unit = first.units["a.service"]
    assert unit.invocation == Invocation("a.service", "1", 0)
    assert unit.values == {"anon": 5}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", r"lines:1: not a sample"),
        (json.dumps(LINE) + "\n[]", r"lines:2: not a sample"),
        ('{"at": 1}', "not a sample: 'units'"),
        ('{"at": 1, "units": {"a.service": {"values": {"anon": "much"}}}}', "'much' is not a number"),
        ('{"at": 1, "units": {"a.service": {"values": {"anon": true}}}}', "True is not a number"),
        (json.dumps(LINE) + "\n" + json.dumps(LINE | {"at": 0.5}), "lines:2: `at` falls from 1 to 0.5"),
    ],
)
def test_a_line_that_is_off_is_told_by_its_number(tmp_path, text, words):
    path = tmp_path / "lines"
    path.write_text(text)
    with pytest.raises(HistoryError, match=words):
        list(read_samples(path))


def test_a_history_that_is_none_is_told(tmp_path):
    with pytest.raises(HistoryError, match="no such file"):
        list(read_samples(tmp_path / "none"))
    with pytest.raises(HistoryError, match="no such file"):
        History(tmp_path / "none")
    assert find_histories(tmp_path) == []


def test_a_history_that_is_removed_or_replaced_is_begun_anew_with_what_was_decided_then(tmp_path):
    recorder, path, kept = Recorder(tmp_path, "boot"), tmp_path / FILE_NAME, tmp_path / "kept"
    copy(path, kept)

    def replace_it():
        copy(kept, tmp_path / "other")
        (tmp_path / "other").rename(path)

    for at, change in enumerate((path.unlink, replace_it)):
        change()
        for part in ("-wal", "-shm"):
            path.with_name(path.name + part).unlink(missing_ok=True)
        recorder.event(Event(1000.0 + at, EventKind.DECISION, "a.service", "m"), 10.0 + at)
        assert recorder.trouble == f"{path} was removed or replaced: another one is begun"
        recorder.trouble_reported()
        with History(path) as history:
            assert 1000.0 + at in [event.at for event in history.events("a.service")]
    recorder.close()


def test_a_disk_that_answers_nothing_ends_no_watch(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path, "boot")

    def fail(*_args, **_options):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "stat", fail)
    recorder.event(Event(1000.0, EventKind.DECISION, "a.service", "m"), 10.0)
    recorder.close()
