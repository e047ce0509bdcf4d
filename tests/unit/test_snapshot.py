"""Looking again at units that are known, from files alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from unitmem.kernel.ancestors import Ancestors
from unitmem.kernel.cgroup import Cgroup
from unitmem.kernel.host import Host
from unitmem.measure.collect import collect
from unitmem.measure.snapshot import sample_units
from unitmem.unit import Unit

UNITS = [
    Unit("a.service", control_group="/s.slice/a.service"),
    Unit("b.service"),
    Unit("c.service", control_group="/s.slice/c.service"),
]


@pytest.fixture
def again(tree, proc):
    """again(): those units now, by name."""
    (proc.root / "meminfo").write_text("MemTotal: 1024 kB\n")
    tree.add("/s.slice", {"memory.max": 4096})

    def again():
        return sample_units(UNITS, cgroups=tree.root, proc=proc.root).units

    return again


def test_what_stops_is_left_out_and_what_starts_anew_is_another_run(again, tree):
    tree.add("/s.slice/a.service", {"memory.current": 1})
    tree.add("/s.slice/c.service", {"memory.current": 2})
    first = again()
    assert list(first) == ["a.service", "b.service", "c.service"]
    assert [sample.values.get("current") for sample in first.values()] == [1, None, 2]
    tree.remove("/s.slice/a.service")
    assert list(again()) == ["b.service", "c.service"]
    tree.add("/s.slice/x.service")  # takes the inode that may have become free
    tree.add("/s.slice/a.service", {"memory.current": 3})
    second = again()
    assert second["a.service"].values["current"] == 3
    assert second["a.service"].invocation != first["a.service"].invocation
    assert second["c.service"].invocation == first["c.service"].invocation


def test_units_share_what_is_read_of_their_slice_within_one_look_only(again, tree):
    tree.add("/s.slice/a.service", {"memory.current": 1})
    assert again()["a.service"].values["limit"] == 4096
    tree.add("/s.slice", {"memory.max": 8192})
    assert again()["a.service"].values["limit"] == 8192


def test_an_ancestor_that_was_seen_is_not_read_again(tree):
    tree.add("/s.slice", {"memory.max": 4096})
    tree.add("/s.slice/a.service")
    ancestors = Ancestors(tree.root)
    (seen,) = ancestors.levels("/s.slice/a.service")
    tree.add("/s.slice", {"memory.max": 8192})
    assert ancestors.levels("/s.slice/a.service") == (seen,)
    ancestors.begin()
    assert ancestors.levels("/s.slice/a.service")[0].max == 8192


@pytest.mark.parametrize(("up_since", "at", "age"), [(5.0, 65.0, 60), (65.1, 65.0, 0), (None, 65.0, None)])
def test_age_is_counted_from_when_the_run_came_up(tree, up_since, at, age):
    tree.add("/a.service")
    with Cgroup("/a.service", tree.root) as cgroup:
        sample = collect(Unit("a.service", up_since=up_since), cgroup, Host(2**30), {"age"}, at=at)
    assert sample.values.get("age") == age
    assert ("age" in sample.unknown) == (age is None)


def test_looking_again_at_the_files_alone_tells_no_age(tree, proc):
    """The run may be another one than the one that the manager described."""
    (proc.root / "meminfo").write_text("MemTotal: 1024 kB\n")
    tree.add("/s.slice/a.service", {"memory.current": 1})
    sample = sample_units([replace(UNITS[0], up_since=1.0)], cgroups=tree.root, proc=proc.root)
    assert "age" in sample.units["a.service"].unknown
