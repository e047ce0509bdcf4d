"""The history's own format: what is read back is true of what was, however little is kept of it, and whatever became of the file."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitmem.measure.sample import HELD, THINNED, HostSample, Sample, UnitSample
from unitmem.policy.actions import Log, Signal
from unitmem.policy.condition import Finding
from unitmem.policy.decision import Decision
from unitmem.policy.model import Policy, PolicyFile, Step
from unitmem.policyfile.expression import parse_condition
from unitmem.record.event import FILE_NAME
from unitmem.record.history import History, HistoryError, read_samples
from unitmem.record.recorder import Recorder, decision_event
from unitmem.simulate.replay import Replayed, decisions
from unitmem.unit import Invocation, Unit

M = 2**20
OLD = Path(__file__).parents[1] / "history-1.sql"
WANTED = ("pss", "age", "host.available", "events.oom_kill")
DECISION = Decision(
    at=0.0,
    policy="p",
    step=0,
    action=Signal(signal.SIGUSR1),
    invocation=Invocation("a.service", "1", 1),
    held=0.0,
    hold=0.0,
    findings=(Finding(parse_condition("anon > 40M"), True, 50.0, 40.0, {}),),
)


def unit_of(name="a.service", run=1, **values):
    identity = f"{run:032x}"
    return UnitSample(Unit(name, invocation_id=identity), Invocation(name, identity, run), values=values)


def up_since(start, unit, at):
    """Return `unit` with its age at that time, as it is read of one that came up at `start`."""
    return replace(unit, unit=replace(unit.unit, up_since=start), values={"age": round(at - start, 3)})


def write(directory, samples, decided=(), **options):
    """Record `samples`, with a decision before those whose places are in `decided`."""
    recorder = Recorder(directory, "boot", **options)
    for place, sample in enumerate(samples):
        if place in decided:
            recorder.event(decision_event(DECISION, "m", 1e6 + sample.at), sample.at)
        recorder.tick(sample, 1e6 + sample.at, WANTED)
    recorder.close()
    assert recorder.trouble is None


@contextmanager
def edited(directory) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(directory / FILE_NAME)) as database:
        yield database
        database.commit()


def is_within(read, written, measure):
    """Whether what is read of a measure is true, and as close as is promised."""
    value = written.values.get(measure)
    if value is None:
        return measure not in read.values and measure not in read.at_most
    if measure in read.values:
        return read.values[measure] == pytest.approx(value, abs=0.003 if measure == "age" else 0)
    low, high = read.at_least[measure], read.at_most[measure]
    return low <= value <= high and high - low <= max(64 << 10, high / 100) and read.unknown[measure] == HELD


# --- what is read back -------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from([1.0, 2.0, 2.001, 7.5, 30.0, 61.0, 400.0]),  # to the next look
        st.dictionaries(
            st.sampled_from(["a.service", "b.service"]),
            st.tuples(
                st.integers(1, 2),  # run
                st.one_of(st.none(), st.integers(0, 100).map(lambda step: 400 * M + step * 100_000)),
                st.integers(0, 3),
            ),
        ),
        st.integers(0, 2**36),
    ),
    min_size=1,
    max_size=60,
)


def samples_of(steps):
    at = 100.0
    for pause, units, available in steps:
        at += pause
        read = {}
        for name, (run, anon, kills) in units.items():
            values = {"events.oom_kill": kills, "age": round(at - run, 3), "swap": 0}
            read[name] = unit_of(name, run, **values, **({} if anon is None else {"anon": anon}))
        yield Sample(at, read, HostSample({"host.available": available}))


@given(STEPS, st.sets(st.integers(0, 59), max_size=3))
def test_what_is_read_back_is_true_of_what_was(tmp_path_factory, steps, decided):
    directory = tmp_path_factory.mktemp("history")
    written = list(samples_of(steps))
    write(directory, written, decided)
    read = list(read_samples(directory / FILE_NAME))
    assert [each.at for each in read] == [each.at for each in written]
    around = [written[place].at for place in decided if place < len(written)]
    for was, now in zip(written, read, strict=True):
        assert list(now.units) == list(was.units) or set(now.units) == set(was.units)
        assert is_within(now.host, was.host, "host.available")
        for name, unit in was.units.items():
            assert now.units[name].invocation == unit.invocation
            assert all(is_within(now.units[name], unit, measure) for measure in ("anon", "swap", "age"))
            assert now.units[name].values["events.oom_kill"] == unit.values["events.oom_kill"]
            if any(at - 60 <= was.at <= at + 60 for at in around):
                assert now.units[name].at_least == {}


@given(STEPS)
def test_what_is_thinned_is_still_true(tmp_path_factory, steps):
    """Of a unit that came, went or was restarted within the minutes of a thinned chunk nothing is claimed."""
    directory = tmp_path_factory.mktemp("history")
    written = list(samples_of(steps))
    write(directory, written)
    with edited(directory) as database:
        database.execute("DELETE FROM chunks")
    read = list(read_samples(directory / FILE_NAME))
    assert len(read) == len(written)
    assert (read[0].at, read[-1].at) == pytest.approx((written[0].at, written[-1].at))
    for was, now in zip(written, read, strict=True):
        assert set(now.units) | now.thinned >= set(was.units)
        assert now.is_unseen("b.service") is ("b.service" in now.thinned)
        for name, unit in now.units.items():
            anon = was.units[name].values.get("anon")
            assert unit.invocation == was.units[name].invocation
            if "anon" in unit.values:
                assert unit.values["anon"] == anon
            elif anon is not None:
                assert unit.at_least["anon"] <= anon <= unit.at_most["anon"]
                assert unit.unknown["anon"] in (HELD, THINNED)


def test_what_does_not_change_is_known_exactly_until_it_does(tmp_path):
    write(
        tmp_path,
        [Sample(float(at), {"a.service": unit_of(anon=300 * M + (at == 500))}) for at in range(1000)],
    )
    read = list(read_samples(tmp_path / FILE_NAME))
    exact = [each for each in read if each.units["a.service"].values.get("anon") == 300 * M]
    assert len(exact) >= 1000 - 3 * 60


def test_around_a_decision_everything_is_exact(tmp_path):
    dice = random.Random(1)
    written = [
        Sample(float(at), {"a.service": unit_of(anon=300 * M + dice.randrange(M))}) for at in range(900)
    ]
    write(tmp_path, written, [450])
    read = list(read_samples(tmp_path / FILE_NAME))
    known = [each.units["a.service"].values.get("anon") for each in read]
    assert known[390:511] == [each.units["a.service"].values["anon"] for each in written[390:511]]
    assert known.count(None) > 500


def test_a_measure_that_slopes_are_taken_of_is_kept_exactly(tmp_path):
    recorder = Recorder(tmp_path, "boot")
    for at in range(300):
        recorder.tick(
            Sample(float(at), {"a.service": unit_of(anon=300 * M + at)}), 1e6 + at, ["anon"], ["anon"]
        )
    recorder.close()
    read = [each.units["a.service"].values["anon"] for each in read_samples(tmp_path / FILE_NAME)]
    assert read == [300 * M + at for at in range(300)]


def test_a_unit_that_may_run_unseen_stays_so(tmp_path):
    unit = {"a.service": unit_of(anon=M)}
    written = [
        Sample(1.0, unit),
        Sample(2.0, {}, unseen=frozenset({"a.service"})),
        Sample(3.0, {}, is_complete=False),
        Sample(4.0, unit),
    ]
    write(tmp_path, written)
    assert list(read_samples(tmp_path / FILE_NAME)) == written


def test_a_stop_and_a_suspend_are_marked(tmp_path):
    """As the watch has done then, a replay restarts its timers."""
    for start in (0, 20):
        recorder = Recorder(tmp_path, "boot")
        for at in range(start, start + 10):
            if at == 25:
                recorder.resumed()
            recorder.tick(Sample(float(at), {"a.service": unit_of(anon=50 * M)}), 1e6 + at, [])
        recorder.close()
    samples = list(read_samples(tmp_path / FILE_NAME))
    assert [each.at for each in samples if each.is_resumed] == [0.0, 20.0, 25.0]
    step = Step(parse_condition("anon > 40M"), Log(), hold=7)
    file = PolicyFile((Policy("p", ("*.service",), (step,)),), 30.0)
    assert [decision.at for decision in decisions(file, samples, Replayed())] == [7.0]


def test_of_a_watch_that_is_killed_the_last_two_minutes_are_lost_and_no_decision(tmp_path):
    recorder = Recorder(tmp_path, "boot")
    for at in range(1000):
        recorder.tick(Sample(float(at), {"a.service": unit_of(anon=at * M)}), 1e6 + at, [])
    recorder.event(decision_event(DECISION, "m", 1e6), 1000.0)
    with History(tmp_path / FILE_NAME) as history:
        assert list(history.samples())[-1].at >= 1000 - 121
        assert len(history.events()) == 1
    recorder.close()


# --- how much it is ----------------------------------------------------------------------------


def quiet_day(units=20, hours=2):
    dice = random.Random(1)
    sizes = {f"service-{number}.service": 4096 * dice.randrange(5000, 200_000) for number in range(units)}
    for tick in range(hours * 1800):
        sizes = {
            name: size + 4096 * dice.randrange(-9, 10) * (dice.random() < 0.05)
            for name, size in sizes.items()
        }
        units_read = {
            name: unit_of(name, anon=size, current=2 * size, swap=0) for name, size in sizes.items()
        }
        yield Sample(2.0 * tick, units_read, HostSample({"host.available": dice.randrange(2**33, 2**33 + M)}))


def test_a_quiet_day_takes_a_small_part_of_what_its_samples_take_in_json(tmp_path):
    plain = 0

    def counted():
        nonlocal plain
        for sample in quiet_day():
            plain += sum(len(json.dumps(dict(unit.values))) for unit in sample.units.values())
            yield sample

    write(tmp_path, counted())
    assert (tmp_path / FILE_NAME).stat().st_size < plain / 30


def test_once_it_is_full_the_oldest_are_thinned_and_none_is_missing(tmp_path):
    dice = random.Random(1)
    written = [Sample(float(at), {"a.service": unit_of(anon=dice.randrange(2**33))}) for at in range(8000)]
    write(tmp_path, written, max_bytes=80_000)
    read = list(read_samples(tmp_path / FILE_NAME))
    assert len(read) == 8000
    known = ["anon" in each.units["a.service"].values for each in read]
    assert not known[0]
    assert known[-1]
    for was, now in zip(written, read, strict=True):
        if "anon" not in now.units["a.service"].values:
            bounds = now.units["a.service"].at_least["anon"], now.units["a.service"].at_most["anon"]
            assert bounds[0] <= was.units["a.service"].values["anon"] <= bounds[1]
    with History(tmp_path / FILE_NAME) as history:
        series = history.series("a.service", "anon", 1e6, 1e6 + 8000)
        assert [at for at, _ in series] == sorted(at for at, _ in series)
        assert series[0][0] == 1e6


# --- what a replay makes of it -----------------------------------------------------------------


def replayed(samples, condition, hold=0.0):
    step = Step(parse_condition(condition), Log(), hold=hold)
    result = Replayed()
    file = PolicyFile((Policy("p", ("*.service",), (step,)),), 1.0)
    made = list(decisions(file, samples, result))
    return made, result, result.steps["p", 0]


def thinned(tmp_path, samples):
    write(tmp_path, samples)
    with edited(tmp_path) as database:
        database.execute("DELETE FROM chunks")
    return list(read_samples(tmp_path / FILE_NAME))


def test_what_bounds_leave_open_is_counted_and_not_assumed(tmp_path):
    read = thinned(
        tmp_path, [Sample(float(at), {"a.service": unit_of(anon=(at % 100) * M)}) for at in range(900)]
    )
    made, result, coverage = replayed(read, "anon > 98M")
    assert (made, result.is_open, coverage.open) == ([], True, 900)
    assert coverage.left_open == {"a.service": "anon is unknown (thinned)"}
    made, result, coverage = replayed(read, "anon > 200M")
    assert (made, result.is_open, coverage.judged) == ([], False, 900)


def test_what_bounds_decide_is_decided(tmp_path):
    read = thinned(
        tmp_path, [Sample(float(at), {"a.service": unit_of(anon=(50 + at % 9) * M)}) for at in range(900)]
    )
    made, result, _ = replayed(read, "anon > 40M", hold=30.0)
    assert ([decision.at for decision in made], result.is_open) == ([30.0], False)


def test_an_age_is_read_back_as_it_was_told(tmp_path):
    """What is kept is the start, to the microsecond: rounding it too made an age one millisecond another."""
    starts = [10.000449 + run * 7.123357 for run in range(40)]
    written = [
        Sample(at := start + 0.251499, {"a.service": up_since(start, unit_of(run=run + 1), at)})
        for run, start in enumerate(starts)
    ]
    write(tmp_path, written)
    read = read_samples(tmp_path / FILE_NAME)
    ages = [sample.units["a.service"].values["age"] for sample in read]
    assert ages == [sample.units["a.service"].values["age"] for sample in written]


def test_an_age_within_bounds_is_an_age(tmp_path):
    """What is kept is the start, which moves a little where ages are measured late."""
    written = [
        Sample(100_000.0 + at, {"a.service": unit_of(age=1200.0 + at - at % 7 * 0.4)}) for at in range(900)
    ]
    for was, now in zip(written, thinned(tmp_path, written), strict=True):
        unit = now.units["a.service"]
        assert unit.at_least["age"] <= was.units["a.service"].values["age"] <= unit.at_most["age"]
        assert unit.at_most["age"] - unit.at_least["age"] < 5


def test_a_unit_that_came_and_went_is_left_open(tmp_path):
    samples = [
        Sample(float(at), {"b.service": unit_of("b.service")} if at == 50 else {}) for at in range(200)
    ]
    made, result, coverage = replayed(thinned(tmp_path, samples), "anon > 40M")
    assert (made, result.is_open) == ([], True)
    assert coverage.left_open == {"b.service": THINNED}


def test_a_slope_is_not_taken_of_bounds(tmp_path):
    """Nor over a span in which there were bounds alone."""
    written = [
        Sample(float(at), {"a.service": unit_of(anon=300 * M + (at < 300) * at * 1000)}) for at in range(700)
    ]
    write(tmp_path, written)
    made, result, coverage = replayed(read_samples(tmp_path / FILE_NAME), "growth(anon, 60s) > 50K/s")
    assert (made, result.is_open) == ([], True)
    assert 0 < coverage.judged < 500


# --- other versions ----------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path):
    """A history that version 0.1 and later ones have begun."""
    with edited(tmp_path) as database:
        database.executescript(OLD.read_text())
    return tmp_path / FILE_NAME


def test_the_old_format_is_read(old):
    read = list(read_samples(old))
    assert [each.units["web.service"].anon for each in read] == [40 * M, 41 * M, 42 * M]
    assert [each.host.available for each in read] == [5 * M] * 3
    assert read[1].units["web.service"].protected == "why"
    with History(old) as history:
        assert history.series("web.service", "anon", 1001.0, 1002.0) == [(1001.0, 41 * M), (1002.0, 42 * M)]
        assert [event.message for event in history.events()] == ["it said"]


def test_the_old_format_is_gone_on_with(old):
    recorder = Recorder(old.parent, "boot")
    recorder.tick(Sample(20.0, {"web.service": unit_of("web.service", anon=43 * M)}), 1010.0, [])
    recorder.event(decision_event(DECISION, "again", 1010.0), 20.0)
    recorder.close()
    assert recorder.trouble is None
    assert [(each.at, each.units["web.service"].anon) for each in read_samples(old)] == [
        (10.0, 40 * M),
        (11.0, 41 * M),
        (12.0, 42 * M),
        (20.0, 43 * M),
    ]
    with History(old) as history:
        assert [event.message for event in history.events()] == ["it said", "again"]
        assert len(history.series("web.service", "anon", 0.0, 2000.0)) == 4


def test_old_samples_go_first_when_room_is_needed(old):
    with edited(old.parent) as database:
        database.executemany(
            "INSERT INTO ticks (at, clock, boot, units) VALUES (1003, 13, 'boot', ?)", [[" " * 5000]] * 100
        )
    recorder = Recorder(old.parent, "boot", max_bytes=100_000)
    dice = random.Random(1)
    for at in range(3000):
        recorder.tick(Sample(20.0 + at, {"a.service": unit_of(anon=dice.randrange(2**40))}), 1010.0 + at, [])
    recorder.close()
    with edited(old.parent) as database:
        assert database.execute("SELECT COUNT(*) FROM ticks").fetchone()[0] < 20
    assert recorder.trouble is None


@pytest.mark.parametrize(
    "script", ["PRAGMA user_version = 9; CREATE TABLE events (id)", "CREATE TABLE letters (id)"]
)
def test_a_file_of_another_version_is_left_as_it_is(tmp_path, script):
    with edited(tmp_path) as database:
        database.executescript(script)
    before = (tmp_path / FILE_NAME).read_bytes()
    recorder = Recorder(tmp_path, "boot")
    assert "another version of unitmem has written it" in recorder.trouble
    recorder.tick(Sample(1.0, {"a.service": unit_of(anon=M)}), 1000.0, [])
    recorder.event(decision_event(DECISION, "m", 1000.0), 100.0)
    recorder.close()
    assert (tmp_path / FILE_NAME).read_bytes() == before
    with pytest.raises(HistoryError):
        list(read_samples(tmp_path / FILE_NAME))


# --- damage ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    write(directory, quiet_day(5, 1), range(0, 1800, 60))
    return (directory / FILE_NAME).read_bytes()


def use(directory):
    """Read all of a history, then go on with it; return what was said."""
    said = []
    try:
        with History(directory / FILE_NAME) as history:
            history.events()
            history.series("service-1.service", "anon", 0.0, 1e9)
            list(history.samples())
    except HistoryError as error:
        said.append(str(error))
    recorder = Recorder(directory, "boot", max_bytes=100_000)
    for at in range(0, 400, 5):
        recorder.tick(Sample(1e5 + at, {"a.service": unit_of(anon=at * M)}), 2e6 + at, WANTED)
        recorder.event(decision_event(DECISION, "m", 2e6 + at), 1e5 + at)
    recorder.close()
    return said, recorder.trouble


def test_a_history_cut_off_anywhere_is_read_or_refused_and_gone_on_with(tmp_path, whole):
    for length in range(0, len(whole), max(1, len(whole) // 15)):
        for path in tmp_path.iterdir():
            path.unlink()
        (tmp_path / FILE_NAME).write_bytes(whole[:length])
        _, trouble = use(tmp_path)
        assert trouble is None or "set aside" in trouble, (length, trouble)
        with History(tmp_path / FILE_NAME) as history:
            assert history.events()[-1].at >= 2e6 + 390


def test_a_history_with_flipped_bytes_is_read_or_refused_and_gone_on_with(tmp_path, whole):
    dice = random.Random(1)
    for _ in range(15):
        for path in tmp_path.iterdir():
            path.unlink()
        damaged = bytearray(whole)
        for _ in range(30):
            damaged[dice.randrange(100, len(damaged))] ^= 1 << dice.randrange(8)
        (tmp_path / FILE_NAME).write_bytes(damaged)
        use(tmp_path)


def test_a_history_damaged_in_its_pages_is_set_aside_at_the_first_write_and_the_decision_kept(
    tmp_path, whole
):
    damaged = bytearray(whole)
    damaged[1024:] = random.Random(1).randbytes(len(whole) - 1024)
    (tmp_path / FILE_NAME).write_bytes(damaged)
    recorder = Recorder(tmp_path, "boot")
    recorder.event(decision_event(DECISION, "kept", 2e6), 1e5)
    assert "set aside" in recorder.trouble
    recorder.close()
    assert (tmp_path / f"{FILE_NAME}.damaged").exists()
    with History(tmp_path / FILE_NAME) as history:
        assert [event.message for event in history.events()] == ["kept"]


@pytest.mark.parametrize("kind", ["fifo", "directory", "endless"])
def test_what_is_no_file_is_refused_at_once(tmp_path, kind):
    path = tmp_path / FILE_NAME
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path = Path("/dev/zero")
    with pytest.raises(HistoryError, match=r"directory|not a regular file"):
        list(read_samples(path))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "1" * 5000, '{"at": ' + "1" * 5000 + "}", '{"at": 1, "units": 5}']
)
def test_absurd_lines_are_refused_with_their_number(tmp_path, text):
    path = tmp_path / "lines"
    path.write_text(text)
    with pytest.raises(HistoryError, match=":1: not a sample"):
        list(read_samples(path))


def test_absurd_events_are_refused(tmp_path):
    write(tmp_path, [Sample(1.0, {"a.service": unit_of(anon=M)})], [0])
    for detail in ("[" * 100_000, "5", "\\x00"):
        with edited(tmp_path) as database:
            database.execute("UPDATE events SET detail = ?", [detail])
        with History(tmp_path / FILE_NAME) as history, pytest.raises(HistoryError, match="event at"):
            history.events()


def test_a_sample_with_bounds_says_so():
    held = replace(unit_of(), at_least={"anon": 1.0}, at_most={"anon": 2.0}, unknown={"anon": HELD})
    made, _, coverage = replayed([Sample(1.0, {"a.service": held})], "anon > 1B")
    assert (made, coverage.open) == ([], 1)
