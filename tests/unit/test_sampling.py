"""Which units a tick reads: those of which a condition may have become true."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitmem.daemon.sampling import QUICKEST, READ_EVERY, Sampling
from unitmem.kernel.cgroup import Cgroup
from unitmem.kernel.files import OpenFiles
from unitmem.kernel.host import Host
from unitmem.kernel.limits import STAT_LAG
from unitmem.manager.tracker import Tracked
from unitmem.policy.ceiling import ceiling, has_ceiling
from unitmem.policy.condition import Bounds
from unitmem.policy.engine import evaluate
from unitmem.policy.state import State
from unitmem.policyfile.expression import parse_condition
from unitmem.policyfile.reader import parse
from unitmem.unit import Unit

from .conftest import CgroupTree

M = 1 << 20
PATH = "/a.slice/b.service"
HOST = Host(1000 * M, available=600 * M, swap_total=0)


class Units:
    """The part of a tracker that sampling asks, over cgroups that stay open."""

    is_listed = True

    def __init__(self, root: Path, *paths: str) -> None:
        kept = OpenFiles(100)
        self.tracked = [
            Tracked(Unit(path.rpartition("/")[2], control_group=path), Cgroup(path, root, kept))
            for path in paths
        ]

    def close(self):
        for each in self.tracked:
            each.cgroup.close()

    def present(self):
        return [(each, each.cgroup) for each in self.tracked if each.cgroup is not None]

    def unseen(self):
        return frozenset()

    def oom_ends(self, name):
        return ()

    def mark_gone(self, name):
        raise AssertionError(f"{name} is gone")


class Watched:
    """One unit under a policy, sampled and judged."""

    def __init__(self, units, root, text, **options) -> None:
        self.units = units
        self.file = parse(f"policies: [{{name: p, units: ['*.service'], {text}}}]").file
        self.sampling = Sampling((), root, **options)
        self.state = State()

    def tick(self, now, host=HOST):
        sample = self.sampling.take(self.units, host, self.file.policies, self.state, now, lambda: None)
        self.state, decisions = evaluate(self.file, sample, self.state, now)
        return sample, decisions


def steps(when, more=""):
    return f"steps: [{{when: '{when}', for: 4s, do: log}}]{more}"


def files(current, anon=0, cache=0, limit="max", high="max"):
    return {
        "memory.current": current,
        "memory.max": limit,
        "memory.high": high,
        "memory.stat": f"anon {anon}\nfile {cache}\nshmem 0\nsock 0\nactive_file {cache}\ninactive_file 0\n"
        "slab_reclaimable 0\nkernel 0\nzswap 0\nswapcached 0",
        "memory.swap.current": 0,
    }


@pytest.fixture
def watched(tree):
    """watched(text): a unit of 100M, 50M of it anonymous, in a slice, under a policy."""
    opened = []

    def watched(text, **options):
        tree.add("/a.slice", {"memory.max": 900 * M, "memory.current": 100 * M})
        tree.add(PATH, files(100 * M, 50 * M))
        units = Units(tree.root, PATH)
        opened.append(units)
        return Watched(units, tree.root, text, **options)

    yield watched
    for units in opened:
        units.close()


# --- the bound ---------------------------------------------------------------------------------


class Limits:
    """Facts of which only limits are known."""

    def bounds(self, measure):
        known = {"limit": 1000, "max": 800}.get(measure)
        return None if known is None else Bounds(known, known)


@pytest.mark.parametrize(
    ("condition", "size"),
    [
        ("current > 10M", 10 * M),
        ("unreclaimable >= 10M", 10 * M),
        ("workingset > 80% of limit", 800),
        ("anon > 10M", 10 * M - STAT_LAG),
        ("anon > 1K", 0),
        ("current > 50% of high", 0),
        ("current < 10M", 0),
        ("not current > 10M", 0),
        ("swap > 10M", 0),
        ("footprint > 10M", 0),
        ("sock > 10M", 0),
        ("peak > 10M", 0),
        ("pss > 10M", 0),
        ("slice.current > 10M", 0),
        ("growth(current, 10min) > 1M/min", 0),
        ("pressure.full.avg10 > 10%", 0),
        ("current > 10% of host.available", 0),
        ("current > 10M and current > 30M and swap < 1M", 30 * M),
        ("current > 30M or unreclaimable > 20M", 20 * M),
        ("current > 30M or pressure.full.avg10 > 10%", 0),
        ("(current > 30M or anon > 1G) and pressure.full.avg10 > 10%", 30 * M),
    ],
)
def test_below_what_memory_current_a_condition_is_false(condition, size):
    condition = parse_condition(condition)
    assert ceiling(condition, Limits()) == size
    assert has_ceiling(condition) or size == 0


# --- what is read ------------------------------------------------------------------------------


def test_a_unit_is_read_again_when_a_condition_may_have_become_true(tree, watched):
    watch = watched(steps("unreclaimable > 101M"))
    unread = []
    for now, current in enumerate((100 * M, 100 * M, 100 * M + 4096, 101 * M, 101 * M, 100 * M, 100 * M)):
        tree.add(PATH, files(current, 50 * M, 50 * M))
        unread.append(bool(watch.tick(now)[0].unread))
    assert unread == [False, True, True, False, False, True, True]


@pytest.mark.parametrize(
    ("text", "is_left"),
    [
        (steps("anon > 500M"), True),
        (steps("anon > 80% of limit and pressure.full.avg10 > 10%"), True),
        (steps("anon > 500M", ", clear: 'swap < 1M'"), True),
        (steps("anon > 80% of high"), False),
        (steps("anon > 500M or swap > 1G"), False),
        (steps("anon < 1M"), False),
        (steps("pressure.full.avg10 > 10%"), False),
        (steps("leak(anon, 1h) > 1M/h"), False),
        (steps("anon > 40M"), False),
        (steps("anon > 90M"), False),
        ("steps: [{when: 'anon > 500M', do: log}, {when: 'swap > 1G', do: log}]", False),
    ],
)
def test_only_what_memory_current_decides_is_left_unread(watched, text, is_left):
    watch = watched(text)
    samples = [watch.tick(now)[0] for now in (0.0, 2.0, 4.0)]
    assert [bool(sample.unread) for sample in samples] == [False, is_left, is_left]
    assert {sample.units["b.service"]["current"] for sample in samples} == {100 * M}


def test_with_metrics_all_is_read(watched):
    watch = watched(steps("anon > 500M"), reads_all=True)
    assert not any(watch.tick(now)[0].unread for now in range(9))


@pytest.mark.parametrize("path", [PATH, "/a.slice"])
def test_a_limit_that_is_lowered_is_seen_at_once(tree, watched, path):
    watch = watched("steps: [{when: 'unreclaimable > 80% of limit', do: log}]")
    assert [bool(watch.tick(now)[0].unread) for now in (0.0, 2.0)] == [False, True]
    tree.add(path, {"memory.max": 110 * M})
    sample, decisions = watch.tick(4.0)
    assert (sample.unread, len(decisions)) == (frozenset(), 1)


def test_a_unit_is_read_now_and_then_whatever_it_uses_and_not_all_at_once(tree, watched):
    watch = watched(steps("anon > 500M"))
    read = [now for now in range(130) if not watch.tick(float(now))[0].unread]
    assert [later - earlier for earlier, later in pairwise(read[1:])] == [READ_EVERY] * 3
    paths = [f"/a.slice/{number}.service" for number in range(8)]
    for path in paths:
        tree.add(path, files(100 * M))
    watch.units.tracked += Units(tree.root, *paths).tracked
    counts = [len(paths) + 1 - len(watch.tick(float(now))[0].unread) for now in range(200, 240)]
    assert counts[0] == len(paths) + 1
    assert max(counts[1:]) < 3


def test_what_moved_is_read_although_no_condition_is_near(tree, watched):
    """Its other values are shown and recorded."""
    watch = watched(steps("anon > 500M"))
    watch.tick(0.0)
    tree.add(PATH, files(98 * M, 20 * M))
    sample, _ = watch.tick(2.0)
    assert (sample.unread, sample.units["b.service"]["anon"]) == (frozenset(), 20 * M)


def test_another_run_and_another_description_are_read(watched):
    watch = watched(steps("anon > 500M"))
    watch.tick(0.0)
    for tracked in watch.units.tracked:
        tracked.unit = replace(tracked.unit, invocation_id="f" * 32)
    assert [bool(watch.tick(now)[0].unread) for now in (2.0, 4.0)] == [False, True]


def test_a_unit_is_read_at_each_tick_while_an_episode_is_open(tree, watched):
    watch = watched(steps("anon > 500M", ", clear: 'anon < 30M'"))
    watch.tick(0.0)
    for now in (2.0, 4.0, 6.0):
        tree.add(PATH, files(600 * M, 550 * M))
        _, decisions = watch.tick(now)
    assert len(decisions) == 1
    tree.add(PATH, files(100 * M, 50 * M))
    assert not any(watch.tick(now)[0].unread for now in (8.0, 10.0, 12.0))
    tree.add(PATH, files(90 * M, 20 * M))
    assert [bool(watch.tick(now)[0].unread) for now in (14.0, 16.0)] == [False, True]


# --- what is left unread was not over its threshold --------------------------------------------

CONDITIONS = [
    "current > 120M",
    "anon > 100M",
    "unreclaimable > 80% of limit",
    "workingset >= 60% of high",
    "anon > 60M and swap < 1M",
    "unreclaimable > 90M or file > 150M",
    "not anon < 70M",
]


@contextmanager
def both(text):
    """The same unit watched as ever, and read as a whole at each tick."""
    with TemporaryDirectory() as root:
        tree = CgroupTree(Path(root) / "cgroup")
        tree.add("/a.slice", {"memory.max": 900 * M, "memory.current": 100 * M})
        tree.add(PATH, files(100 * M, 50 * M))
        units = Units(tree.root, PATH)
        try:
            yield tree, Watched(units, tree.root, text), Watched(units, tree.root, text, reads_all=True)
        finally:
            units.close()


@given(
    st.lists(st.sampled_from(CONDITIONS), min_size=1, max_size=3),
    st.sampled_from(["", ", clear: 'anon < 40M'", ", cooldown: 6s"]),
    st.lists(
        st.tuples(
            st.integers(0, 120),
            st.sampled_from([0, 1, 20, 60]),
            st.sampled_from(["max", 150 * M, 100 * M]),
            st.sampled_from([900 * M, 130 * M]),
        ),
        min_size=5,
        max_size=30,
    ),
)
def test_nothing_is_decided_differently_than_if_all_was_read(conditions, more, trace):
    each = ", ".join(f"{{when: '{when}', for: 4s, do: log}}" for when in conditions)
    with both(f"steps: [{each}]{more}") as (tree, bounded, whole):
        for number, (anon, cache, own, above) in enumerate(trace):
            sizes = files((anon + cache) * M, anon * M, cache * M, own, "max" if own == "max" else own // 2)
            tree.add(PATH, sizes)
            tree.add("/a.slice", {"memory.max": above})
            now = 2.0 * number
            (_, decided), (_, right) = bounded.tick(now), whole.tick(now)
            assert [(one.step, one.held) for one in decided] == [(one.step, one.held) for one in right]
            assert bounded.state.ladders == whole.state.ladders


# --- looks between two ticks -------------------------------------------------------------------

G = 1 << 30


@pytest.mark.parametrize(
    ("text", "pause"),
    [
        (steps("anon > 100G"), 25),
        (steps("unreclaimable > 4100M"), 1),
        (steps("unreclaimable > 400M"), QUICKEST),
        (steps("anon > 100G or current > 4100M"), 1),
        (steps("anon > 4146M and current > 1M"), 1),
        (steps("workingset > 60M"), inf),
        (steps("unreclaimable > 4146M or swap > 1G"), 1),
        (steps("file > 100M and anon > 1M"), QUICKEST),
        (steps("anon < 1M"), inf),
        (steps("pressure.full.avg10 > 10%"), inf),
        (steps("leak(anon, 1h) > 1M/h"), inf),
    ],
)
def test_a_unit_is_looked_at_when_the_fastest_growth_may_have_met_a_threshold(tree, watched, text, pause):
    watch = watched(text)
    tree.add(PATH, files(100 * M, 50 * M, 50 * M) | {"memory.pressure": "full avg10=0 avg60=0 avg300=0"})
    for now in (10.0, 12.0):
        watch.tick(now)
        assert watch.sampling.look_at - now == pytest.approx(pause, rel=0.05)


@pytest.mark.parametrize("cache", [0, 300], ids=["by memory.current", "full of page cache, by its parts"])
def test_a_look_sees_that_a_threshold_was_crossed_and_the_tick_after_it_acts(tree, watched, cache):
    watch = watched("steps: [{when: 'unreclaimable > 200M', do: log}]")
    tree.add(PATH, files((cache + 100) * M, 50 * M, cache * M))
    assert watch.tick(0.0)[1] == ()
    seen = []
    for number, used in enumerate((110, 190, 199, 201)):
        tree.add(PATH, files((cache + used) * M, used * M, cache * M))
        seen.append(watch.sampling.look(watch.state, 0.1 + number / 10))
    assert seen == [False, False, False, True]
    assert len(watch.tick(0.5)[1]) == 1


def test_what_is_true_already_is_left_to_the_ticks(tree, watched):
    """Nor does a step that waits for `clear` to end cause a tick after the other."""
    watch = watched(steps("anon > 40M", ", clear: 'anon > 30M'"))
    for now in (0.0, 2.0):
        watch.tick(now)
        assert watch.sampling.look_at == inf
    watch = watched(steps("anon > 40M"))
    watch.tick(0.0)
    assert not watch.sampling.look(watch.state, 1.0)


def test_only_near_units_are_looked_at(tree, watched, monkeypatch):
    watch = watched("steps: [{when: 'anon > 500M', do: log}]")
    tree.add("/a.slice/far.service", files(1, limit=900 * G))
    watch.units.tracked += Units(tree.root, "/a.slice/far.service").tracked
    watch.file = parse(
        "policies: [{name: p, units: ['b.service'], steps: [{when: 'current > 500M', do: log}]},"
        "{name: q, units: ['far.service'], steps: [{when: 'current > 500G', do: log}]}]"
    ).file
    watch.tick(0.0)
    read, read_file = [], Cgroup.read_file
    monkeypatch.setattr(
        Cgroup, "read_file", lambda self, name: read.append((self.path, name)) or read_file(self, name)
    )
    assert not watch.sampling.look(watch.state, 0.1)
    assert read == [(PATH, "memory.current")]
    assert watch.sampling.look_at == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("when", "is_due"), [("events.high > 3 in 1min", True), ("anon > 90G", False), ("current > 80M", False)]
)
def test_memory_events_cause_a_tick_where_a_condition_may_be_about_them(tree, watched, when, is_due):
    watch = watched(steps(when))
    tree.add(PATH, {"memory.events": "high 0\nmax 0\noom 0\noom_kill 0"})
    watch.tick(0.0)
    watch.tick(2.0)
    (tracked,) = watch.units.tracked
    assert watch.sampling.look(watch.state, 3.0, {tracked.cgroup.inode}) is is_due
    assert not watch.sampling.look(watch.state, 3.0, {tracked.cgroup.inode + 1})
    assert watch.tick(4.0)[0].unread == frozenset()


def test_a_unit_that_is_gone_is_left_to_the_next_tick(tree, watched):
    watch = watched("steps: [{when: 'anon > 200M', do: log}]")
    watch.tick(0.0)
    tree.remove(PATH)
    for tracked in watch.units.tracked:
        tracked.cgroup.close()
    assert not watch.sampling.look(watch.state, 0.1)
    assert watch.sampling.look_at == inf


@pytest.mark.parametrize(
    "text", ["current > 500M and growth(current, 10s) > 1M/min", "current > 500M and events.oom > 0 in 1h"]
)
def test_what_looks_over_a_span_of_time_is_read_at_every_look(watched, text):
    """Beside a size that isn't met, too: else it would be known so much later than that is."""
    watch = watched(steps(text))
    for now in range(5):
        sample, _ = watch.tick(float(now))
        assert sample.unread == frozenset()
