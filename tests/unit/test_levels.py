"""Limits that units share: how full each level is, when it will be, and the measures of the slice around a unit."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from unitmem.kernel.cgroup import Cgroup
from unitmem.kernel.host import Host
from unitmem.kernel.limits import HOST_LEVEL, Level
from unitmem.measure.collect import Surroundings, collect
from unitmem.measure.formulas import host_values
from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy.condition import UNKNOWN_LEVEL, Bounds, Derivation, comparisons, judge
from unitmem.policy.engine import evaluate
from unitmem.policy.model import PolicyFile
from unitmem.policy.state import State
from unitmem.policy.trends import NOT_YET_WATCHED, UnitFacts
from unitmem.policyfile.expression import ConditionError, parse_condition
from unitmem.policyfile.reader import parse
from unitmem.record.event import FILE_NAME
from unitmem.record.history import read_samples
from unitmem.record.recorder import Recorder
from unitmem.simulate.replay import Replayed, decisions
from unitmem.unit import Invocation, Unit, slice_path

M = 1 << 20
HOST = Host(1000 * M, available=600 * M)
STAT = "active_file {0}\ninactive_file {0}\nslab_reclaimable 0"


def level(path, limit=None, used=0, high=None):
    """A level of which `used` bytes can't be reclaimed, beside page cache."""
    known = used is not None
    return Level(path, limit, high, used + 50 * M if known else None, None, 50 * M if known else None, 0)


def files(current, limit="max", cache=0):
    return {"memory.current": current, "memory.max": limit, "memory.stat": STAT.format(cache // 2)}


def read(tree, path, *wanted, **shared):
    with Cgroup(path, tree.root) as cgroup:
        return collect(Unit(path.rpartition("/")[2], control_group=path), cgroup, HOST, wanted, **shared)


def machine(*units, host=HOST, at=0.0):
    return Sample(at, {unit.name: unit for unit in units}, host_values(host))


# --- how full it is ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "slice_", "host", "fill", "setter"),
    [
        (files(30 * M, 100 * M), files(90 * M, 120 * M), HOST, 75, "/a.slice"),
        (files(30 * M, 40 * M, 6 * M), files(90 * M, 180 * M), HOST, 60, "/a.slice/b.service"),
        (files(30 * M, 40 * M, 20 * M), files(90 * M, 180 * M, 60 * M), HOST, 40, "host"),
        (files(30 * M), files(90 * M), HOST, 40, "host"),
        (files(30 * M, 40 * M), files(30 * M, 40 * M), HOST, 75, "/a.slice/b.service"),
        (files(0, 0), files(90 * M), HOST, 100, "/a.slice/b.service"),
        (files(30 * M, 40 * M), {"memory.max": 400 * M}, HOST, None, None),
        (files(30 * M, 40 * M), files(90 * M), Host(1000 * M), None, None),
    ],
    ids=["slice", "unit", "machine", "no limits", "equal", "none at all", "slice unread", "machine unread"],
)
def test_fill_is_that_of_the_fullest_level(tree, own, slice_, host, fill, setter):
    """Of page cache, which goes when it is needed, nothing is full."""
    tree.add("/a.slice", slice_)
    tree.add("/a.slice/b.service", own)
    with Cgroup("/a.slice/b.service", tree.root) as cgroup:
        sample = collect(Unit("b.service"), cgroup, host, {"fill"})
    assert sample["fill"] == fill
    assert (fill is None) is ("fill" in sample.unknown)
    assert machine(sample, host=host).fill_set_by(sample) == setter


def test_fill_is_a_percentage():
    assert str(parse_condition("fill >= 62.5%")) == "fill >= 62.5%"
    with pytest.raises(ConditionError, match="a percentage already"):
        parse_condition("fill > 80% of limit")


# --- the slice around a unit -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "around"),
    [
        ("/system.slice/system-getty.slice/getty@tty1.service", "/system.slice/system-getty.slice"),
        ("/system.slice/a.service", "/system.slice"),
        ("/a.slice/a-b.slice", "/a.slice"),
        ("/user.slice/user@1.service/app.slice/x.scope", "/user.slice/user@1.service/app.slice"),
        ("/machine.slice/box.scope/payload/x.service", "/machine.slice"),
        ("/init.scope", "/"),
        ("/a.slice", "/"),
        ("/", None),
    ],
)
def test_the_nearest_slice(path, around):
    assert slice_path(path) == around


def test_units_in_a_slice_have_its_measures_which_are_read_once(tree):
    tree.add("/a.slice", files(90 * M, 120 * M) | {"memory.events": "oom_kill 3"})
    for name in ("b", "c"):
        tree.add(f"/a.slice/{name}.service", files(30 * M, 40 * M))
    wanted = ("slice.unreclaimable", "slice.max", "slice.events.oom_kill", "slice.fill", "anon")
    around = Surroundings(tree.root)
    first = read(tree, "/a.slice/b.service", *wanted, around=around)
    values = {name: value for name, value in first.values.items() if name.startswith("slice.")}
    assert values == {
        "slice.unreclaimable": 90 * M,
        "slice.max": 120 * M,
        "slice.events.oom_kill": 3,
        "slice.fill": 75,
    }
    assert first["slice.max"] == 120 * M
    tree.add("/a.slice", files(91 * M, 120 * M))
    second = read(tree, "/a.slice/c.service", *wanted, around=around)
    assert values.items() <= second.values.items()
    assert read(tree, "/a.slice/c.service", *wanted)["slice.unreclaimable"] == 91 * M


def test_nothing_is_read_of_a_slice_that_nobody_asks_for(tree):
    tree.add("/a.slice/b.service", files(1))
    sample = read(tree, "/a.slice/b.service", "anon", around=Surroundings(tree.root / "missing"))
    assert not any(name.startswith("slice.") for name in (*sample.values, *sample.unknown))


@pytest.mark.parametrize(
    ("path", "measure", "reason"),
    [
        ("/a.slice/b.service", "slice.max", "/a.slice: the unit has no limit of its own"),
        ("/a.slice/b.service", "slice.anon", "/a.slice: memory.stat: "),
        ("/a.slice", "slice.max", "/: memory.max: the root cgroup has no such file"),
        ("/", "slice.anon", "there is no slice around the root slice"),
    ],
)
def test_what_a_slice_does_not_have_is_unknown_with_the_reason(tree, path, measure, reason):
    tree.add("/a.slice", {"memory.max": "max"})
    tree.add("/a.slice/b.service", files(1))
    sample = read(tree, path, measure)
    assert sample[measure] is None
    assert sample.unknown[measure].startswith(reason)


@pytest.mark.parametrize(
    "text",
    [
        "slice.unreclaimable > 80% of slice.max",
        "slice.pressure.full.avg10 > 40%",
        "slice.events.oom_kill > 0 in 10min",
        "growth(slice.anon, 10min) > 5.0M/min",
    ],
)
def test_conditions_name_measures_of_a_slice(text):
    assert str(parse_condition(text)) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("slice.unreclaimible > 1G", "did you mean 'slice.unreclaimable'?"),
        ("slice.pss > 1G", "the measures of its cgroup alone, and 'pss' is none of them"),
        ("growth(slice.max, 10min) > 1M/min", "no growth"),
        ("unreclaimible > 1G", "did you mean 'unreclaimable'?"),
    ],
)
def test_what_a_slice_does_not_have_is_refused(text, says):
    with pytest.raises(ConditionError) as refused:
        parse_condition(text)
    assert says in str(refused.value)


def test_events_of_a_slice_may_be_from_before_a_young_run():
    """Its counters go on over the runs of the units in it, which may be younger than the span."""
    file = parse(CROWD.replace("eta(limit, 1min) < 5min", "slice.events.oom_kill > 0 in 10min")).file
    young = run("calm.service", level("/a.slice/calm.service"), age=5.0, **{"slice.events.oom_kill": 3})
    state, made = evaluate(file, machine(young), State(), 0.0)
    assert made == ()
    more = replace(young, values={**young.values, "age": 7.0, "slice.events.oom_kill": 4})
    assert len(evaluate(file, machine(more, at=2.0), state, 2.0)[1]) == 1


# --- when it will be full ----------------------------------------------------------------------

CROWD = """
policies:
  - name: crowd
    units: ["*.service"]
    steps: [{when: "eta(limit, 1min) < 5min", do: log}]
"""
ETA = next(comparisons(parse_condition("eta(limit, 1min) < 5min")))


def run(name, *levels, number=1, **values):
    """A unit below these levels, the first of which is its own."""
    own = {"unreclaimable": levels[0].unreclaimable, "limit": 1000 * M} if levels else {}
    known = {key: value for key, value in (own | values).items() if value is not None}
    return UnitSample(Unit(name), Invocation(name, None, number), values=known, levels=levels)


def watched(samples, condition="eta(limit, 1min) < 5min", units="*.service"):
    """The state after `samples`, and the facts about each unit of the last one."""
    file = parse(CROWD.replace("eta(limit, 1min) < 5min", condition).replace("*.service", units)).file
    state = State()
    for sample in samples:
        state, _ = evaluate(file, sample, state, sample.at)
    trends = state.trends
    return {
        name: UnitFacts(unit, trends.get(name), sample.at, sample.host, state.levels)
        for name, unit in sample.units.items()
    }


def filling(at, *, limit=400 * M, available=600 * M, slice_used=None, high=None):
    """`calm` and `leak` in a slice with a limit, of which the leak takes another 2 MiB a second."""
    leaked = 100 * M + 2 * M * at
    used = leaked + 10 * M if slice_used is None else slice_used(at)
    around = level("/a.slice", limit, used, high)
    return machine(
        run("calm.service", level("/a.slice/calm.service", None, 10 * M), around),
        run("leak.service", level("/a.slice/leak.service", 900 * M, leaked), around),
        host=Host(1000 * M, available=available(at) if callable(available) else available),
        at=float(at),
    )


def test_eta_is_that_of_the_level_that_fills_first():
    """For all that is in it, as all of them will be refused memory then."""
    facts = watched([filling(at) for at in range(0, 62, 2)])
    left = (400 - 10 - 100 - 120) / 2
    assert {name: fact.derived("limit", Derivation.ETA, 60.0) for name, fact in facts.items()} == {
        "calm.service": Bounds(left, left),
        "leak.service": Bounds(left, left),
    }


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"limit": None}, (900 - 220) / 2),  # its own
        ({"limit": None, "available": lambda at: 600 * M - 8 * M * at}, 120 / 8),  # the machine's
        ({"slice_used": lambda at: 200 * M - M * at}, (900 - 220) / 2),
        ({"slice_used": lambda at: 401 * M}, 0),
    ],
    ids=["unit", "machine", "slice shrinks", "slice full"],
)
def test_each_level_by_what_grows_there(changed, expected):
    facts = watched([filling(at, **changed) for at in range(0, 62, 2)])["leak.service"]
    assert facts.derived("limit", Derivation.ETA, 60.0) == Bounds(expected, expected)


def test_eta_of_high_is_by_levels_too():
    samples = [filling(at, high=300 * M) for at in range(0, 62, 2)]
    facts = watched(samples, "eta(high, 1min) < 5min")["calm.service"]
    left = (300 - 10 - 100 - 120) / 2
    assert facts.derived("high", Derivation.ETA, 60.0) == Bounds(left, left)


def test_eta_of_what_does_not_grow_is_never():
    samples = [filling(at, slice_used=lambda at: 100 * M) for at in range(0, 62, 2)]
    facts = watched(samples)["calm.service"]
    assert facts.derived("limit", Derivation.ETA, 60.0) == Bounds(inf, inf)


def test_a_limit_that_was_set_a_moment_ago_bounds_nothing_from_below():
    """The others say how late it can be at most."""
    samples = [filling(at, limit=400 * M if at > 50 else None) for at in range(0, 62, 2)]
    facts = watched(samples)["leak.service"]
    assert facts.derived("limit", Derivation.ETA, 60.0) == Bounds(0, (900 - 220) / 2)
    assert facts.why_unknown("limit", Derivation.ETA) == NOT_YET_WATCHED


def test_a_new_run_in_a_filling_slice_is_watched_first():
    """What has filled the slice may be the run before it."""
    samples = [filling(at) for at in range(0, 62, 2)]
    again = [
        Sample(
            s.at,
            {**s.units, "leak.service": run("leak.service", *s.units["leak.service"].levels, number=2)},
            s.host,
        )
        for s in [filling(at) for at in range(62, 122, 2)]
    ]
    facts = watched([*samples, *again])
    assert facts["leak.service"].derived("limit", Derivation.ETA, 60.0) is None
    assert facts["calm.service"].derived("limit", Derivation.ETA, 60.0) is not None


def test_a_level_is_followed_once_and_only_where_an_eta_is_asked_for():
    file = parse(CROWD).file
    state, _ = evaluate(file, filling(0), State(), 0.0)
    assert set(state.levels) == {("/a.slice", 60.0), ("host", 60.0)}
    other = parse(CROWD.replace("eta(limit, 1min) < 5min", "growth(anon, 1min) > 1M/min")).file
    assert evaluate(other, filling(2), state, 2.0)[0].levels == {}
    assert evaluate(file, machine(), state, 2.0)[0].levels == {}


def test_one_tick_at_which_nothing_can_be_read_does_not_end_what_is_known_of_a_level():
    samples = [filling(at) for at in range(0, 62, 2)]
    blind = machine(*(run(name) for name in samples[0].units), at=62.0)
    later = [filling(at) for at in (64, 66)]
    facts = watched([*samples, blind, *later])["calm.service"]
    left = (400 - 10 - 100 - 132) / 2
    assert facts.derived("limit", Derivation.ETA, 60.0) == Bounds(left, left)


def test_a_level_that_is_gone_is_forgotten():
    file = parse(CROWD).file
    state, _ = evaluate(file, filling(0), State(), 0.0)
    alone = machine(run("calm.service", level("/calm.service", None, M)), at=100.0)
    assert set(evaluate(file, alone, state, 100.0)[0].levels) == {("host", 60.0)}


def test_a_full_slice_fires_for_all_in_it():
    """As of nothing else in its own numbers would it be told of the calm one."""
    file = parse(CROWD).file
    state, fired = State(), []
    for at in range(0, 62, 2):
        state, made = evaluate(file, filling(at), state, float(at))
        fired += [(decision.unit, str(decision.findings[0])) for decision in made]
    said = "eta(limit, 1min) 1min 25s at /a.slice < 5min"
    assert fired == [("calm.service", said), ("leak.service", said)]


@pytest.mark.parametrize(
    ("slice_used", "leaked", "said"),
    [
        (380 * M, 100 * M, "fill 95.0% at /a.slice > 80%"),
        (100 * M, 810 * M, "fill 90.0% > 80%"),
        (100 * M, 100 * M, "fill 85.0% at this machine > 80%"),
    ],
)
def test_what_fires_names_the_level(slice_used, leaked, said):
    sample = run(
        "leak.service",
        level("/a.slice/leak.service", 900 * M, leaked),
        level("/a.slice", 400 * M, slice_used),
    )
    sample = replace(sample, values={**sample.values, "fill": float(said.split()[1][:-1])})
    facts = UnitFacts(sample, None, 0.0, host_values(Host(1000 * M, available=150 * M)))
    (finding,) = judge(parse_condition("fill > 80%"), facts).findings
    assert str(finding) == said


# --- limits that are not known -----------------------------------------------------------------

IMPOSSIBLE = 2**64 - 4096


@pytest.mark.parametrize("path", ["/a.slice", "/a.slice/b.service"])
@pytest.mark.parametrize(("name", "measures"), [("max", ("limit", "fill", "headroom")), ("high", ("high",))])
def test_a_limit_that_can_not_be_true_is_not_none_but_unknown(tree, path, name, measures):
    for each in ("/a.slice", "/a.slice/b.service"):
        tree.add(each, files(30 * M, 100 * M) | {"memory.high": 90 * M})
    tree.add(path, {f"memory.{name}": IMPOSSIBLE})
    sample = read(tree, "/a.slice/b.service", *measures)
    why = f"{path}/memory.{name}: memory.{name} is {IMPOSSIBLE}, which can't be true"
    assert {measure: sample.unknown.get(measure) for measure in measures} == dict.fromkeys(measures, why)
    if name == "max":
        assert (machine(sample).limit_set_by(sample), machine(sample).fill_set_by(sample)) == (None, None)


def test_a_limit_that_can_not_be_read_is_unknown_as_well(tree):
    tree.add("/a.slice", {"memory.current": 90 * M, "memory.stat": STAT.format(0)})
    (tree.root / "a.slice/memory.max").mkdir()
    tree.add("/a.slice/b.service", files(30 * M, 100 * M))
    assert read(tree, "/a.slice/b.service", "limit").unknown["limit"] == "/a.slice/memory.max: is a directory"


def test_without_the_memory_controller_a_cgroup_has_no_limit(tree):
    tree.add("/a.slice", files(90 * M, 120 * M))
    tree.add("/a.slice/b.service", {"cgroup.events": "populated 1"})
    assert read(tree, "/a.slice/b.service", "limit")["limit"] == 120 * M


def with_unknown_max(sample, path="/a.slice"):
    """`sample` where the memory.max of that level could not be read, with what follows from that."""
    units = {
        name: replace(
            unit,
            values={measure: value for measure, value in unit.values.items() if measure != "limit"},
            unknown={"limit": f"{path}/memory.max: is a directory"},
            levels=tuple(
                replace(level, max=None, unknown={"max": "is a directory"}) if level.path == path else level
                for level in unit.levels
            ),
        )
        for name, unit in sample.units.items()
    }
    return replace(sample, units=units)


def test_eta_is_unknown_where_a_limit_is():
    facts = watched([with_unknown_max(filling(at)) for at in range(0, 62, 2)])["calm.service"]
    verdict = judge(parse_condition("eta(limit, 1min) > 5min"), facts)
    assert verdict.truth is None
    assert "/a.slice/memory.max: is a directory" in str(verdict.findings[0])


def test_a_limit_that_is_unknown_is_recorded_as_such(tmp_path):
    recorder = Recorder(tmp_path, "boot")
    recorder.tick(with_unknown_max(filling(0)), 1000.0, parse(CROWD).file.measures)
    recorder.close()
    (sample,) = read_samples(tmp_path / FILE_NAME)
    assert [level.unknown for level in sample.units["calm.service"].levels] == [{}, {"max": "is a directory"}]


# --- on record ---------------------------------------------------------------------------------


def test_a_replay_finds_the_level_that_filled(tmp_path):
    file: PolicyFile = parse(CROWD).file
    recorder = Recorder(tmp_path, "boot")
    for at in range(0, 62, 2):
        recorder.tick(filling(at), 1000.0 + at, file.measures, file.followed)
    recorder.close()
    samples = list(read_samples(tmp_path / FILE_NAME))
    assert [sample.units["calm.service"].levels for sample in samples[:1]] == [
        filling(0).units["calm.service"].levels
    ]
    made = list(decisions(file, samples, Replayed()))
    assert [decision.unit for decision in made] == ["calm.service", "leak.service"]


@pytest.mark.parametrize(
    ("slice_used", "available", "named"),
    [
        (380 * M, 600 * M, "/a.slice"),
        (100 * M, 100 * M, HOST_LEVEL),
        # by one bound of the machine it is the fuller one, by the other the slice is
        (360 * M, 100 * M, UNKNOWN_LEVEL),
    ],
)
def test_a_replay_names_the_level_of_fill(tmp_path, slice_used, available, named):
    """Of the machine a history has bounds, as what is available never stays the same."""
    file: PolicyFile = parse(CROWD.replace("eta(limit, 1min) < 5min", "fill > 80%")).file
    recorder = Recorder(tmp_path, "boot")
    for at in range(0, 62, 2):
        sample = filling(0, slice_used=lambda _: slice_used, available=available - at % 4 * M // 8)
        fill = 95.0 if slice_used > 360 * M else 90.0 + at % 4 / 80
        units = {
            name: replace(unit, values={**unit.values, "fill": fill}) for name, unit in sample.units.items()
        }
        recorder.tick(replace(sample, units=units, at=float(at)), 1000.0 + at, file.measures, file.followed)
    recorder.close()
    made = list(decisions(file, read_samples(tmp_path / FILE_NAME), Replayed()))
    assert [decision.unit for decision in made] == ["calm.service", "leak.service"]
    assert {decision.findings[0].level for decision in made} == {named}
    assert (" at " in str(made[0].findings[0])) is (named != UNKNOWN_LEVEL)
    # who share a level, or may, are one group
    picks = "pick: {by: unreclaimable, settle: 5min}, do: stop"
    file = parse(CROWD.replace("eta(limit, 1min) < 5min", "fill > 80%").replace("do: log", picks)).file
    assert len(list(decisions(file, read_samples(tmp_path / FILE_NAME), Replayed()))) == 1


def test_a_watch_over_fill_reads_the_limit_that_memory_stat_lags_behind_a_share_of():
    """Or with a history it would take two looks where without one it takes one."""
    file = parse(CROWD.replace("eta(limit, 1min) < 5min", "fill > 80%")).file
    assert file.measures == {"fill", "limit"}
    assert file.policies[0].named == {"fill"}


def test_levels_are_recorded_only_where_they_are_asked_for(tmp_path):
    recorder = Recorder(tmp_path, "boot")
    recorder.tick(filling(0), 1000.0, ["anon"])
    recorder.close()
    (sample,) = read_samples(tmp_path / FILE_NAME)
    assert sample.units["calm.service"].levels == ()


@pytest.mark.parametrize("target", ["limit", "high"])
def test_without_levels_a_replay_does_not_hold_a_unit_against_the_limit_of_its_slice(tmp_path, target):
    """As a watch recorded them that looked at no level, and as every history of 0.1 is."""
    recorder = Recorder(tmp_path, "boot")
    for at in range(0, 62, 2):
        sample = filling(at)
        units = {
            name: replace(unit, values={**unit.values, "max": 900 * M, "limit": 250 * M, "high": 250 * M})
            for name, unit in sample.units.items()
        }
        recorder.tick(
            replace(sample, units=units),
            1000.0 + at,
            ["unreclaimable", "limit", "max", "high"],
            ["unreclaimable"],
        )
    recorder.close()
    file, replayed = parse(CROWD.replace("eta(limit", f"eta({target}")).file, Replayed()
    assert list(decisions(file, read_samples(tmp_path / FILE_NAME), replayed)) == []
    (coverage,) = replayed.steps.values()
    assert coverage.judged == 0
    why = f"eta({target}, 1min) is unknown (levels are not in this history)"
    assert coverage.blind == dict.fromkeys(sample.units, why)


def test_without_levels_the_fill_is_at_no_level_that_is_known():
    sample = run("leak.service", fill=85.0, limit=400 * M)
    facts = UnitFacts(sample, None, 0.0, host_values(Host(1000 * M, available=150 * M)))
    assert str(judge(parse_condition("fill > 80%"), facts).findings[0]) == "fill 85.0% > 80%"


def test_the_limit_of_the_root_slice_is_the_machines():
    def root(at):
        values = {"unreclaimable": 100 * M + 10 * M * at, "limit": 1000 * M}
        return machine(run("-.slice", **values), at=float(at))

    facts = watched([root(at) for at in range(0, 62, 2)], units="-.slice")["-.slice"]
    assert facts.derived("limit", Derivation.ETA, 60.0) == Bounds(30, 30)


def test_a_replay_counts_what_it_judged_by_a_level():
    file, replayed = parse(CROWD).file, Replayed()
    assert list(decisions(file, [filling(at) for at in range(0, 122, 2)], replayed)) != []
    (coverage,) = replayed.steps.values()
    assert (coverage.judged, coverage.known) == (31, {"calm.service", "leak.service"})
