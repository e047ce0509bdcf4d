"""Processes that /proc hides from this user (hidepid) are unknown: they are neither gone nor of no size."""

from __future__ import annotations

import errno
import os
from unittest.mock import Mock

import pytest

from unitmem.kernel import processes as listing
from unitmem.kernel.cgroup import Cgroup, CgroupReading
from unitmem.kernel.host import Host
from unitmem.kernel.process import Process, ProcessGoneError, ProcessHiddenError
from unitmem.kernel.processes import read_processes
from unitmem.measure.catalogue import PROCESS_NAMES
from unitmem.measure.collect import collect, measure_largest, resolve
from unitmem.measure.formulas import process_values, unit_values
from unitmem.unit import Unit


@pytest.mark.parametrize("error", [ProcessGoneError, ProcessHiddenError])
def test_a_hidden_process_makes_the_sums_unknown(tree, monkeypatch, error):
    """With hidepid=2 it looks as if it had ended, but it is still in its cgroup."""

    def read(pid, proc):
        if pid == 8:
            raise error(pid)
        return Process(pid, 1, "seen", rss=2**20)

    monkeypatch.setattr(listing, "read_process", read)
    tree.add("/a.service", pids=[7, 8])
    with Cgroup("/a.service", tree.root) as cgroup:
        processes = read_processes(cgroup)
    assert [process.pid for process in processes] == [7, 8]
    values, unknown, at_most = process_values(processes)
    assert (values, at_most) == ({}, {})
    assert "hidepid" in unknown["rss"]


def test_a_process_that_has_ended_is_left_out(tree, monkeypatch):
    def read(pid, proc):
        if pid == 8:
            tree.add("/a.service", pids=[7])
            raise ProcessGoneError(pid)
        return Process(pid, 1, "seen", rss=2**20)

    monkeypatch.setattr(listing, "read_process", read)
    tree.add("/a.service", pids=[7, 8])
    with Cgroup("/a.service", tree.root) as cgroup:
        assert [process.pid for process in read_processes(cgroup)] == [7]


def test_processes_that_can_not_all_be_found_are_unknown_and_what_is_counted_is_not(tree, monkeypatch):
    """No sum over those that were found, which a policy would take for small."""
    tree.add("/a.service", {"memory.current": 4096}, pids=[1])
    monkeypatch.setattr(Cgroup, "pids", Mock(side_effect=PermissionError(errno.EACCES, "Permission denied")))
    with Cgroup("/a.service", tree.root) as cgroup:
        sample = collect(Unit("a.service"), cgroup, Host(2**30), {"pss", "current"})
    assert sample.values["current"] == 4096
    assert not PROCESS_NAMES & sample.values.keys()
    assert sample.unknown["pss"] == "not every process of it can be found: permission denied"


def unlistable(tree, how):
    """A unit of which not all processes can be listed."""
    tree.add("/a.service", {"memory.current": 4096}, pids=[1])
    if how == "nested":
        tree.add("/a.service" + "/x" * 65, pids=[os.getpid()])
    elif how == "unreadable":
        (tree.root / "a.service/cgroup.procs").unlink()
        (tree.root / "a.service/cgroup.procs").mkdir()
    elif how == "foreign":
        tree.add("/a.service", pids=[0])


REASONS = {
    "nested": "cgroups in it are nested deeper than 64 levels",
    "unreadable": "is a directory",
    "foreign": "some are in a pid namespace that can't be seen from this one",
}


@pytest.mark.parametrize("how", REASONS)
def test_what_could_not_be_listed_stays_unknown_with_the_reason(tree, how):
    unlistable(tree, how)
    with Cgroup("/a.service", tree.root) as cgroup:
        sample = resolve(collect(Unit("a.service"), cgroup, Host(2**30), {"pss"}))
        assert measure_largest(sample, cgroup) == []
    assert not PROCESS_NAMES & (sample.values.keys() | sample.at_most.keys())
    for measure in PROCESS_NAMES:
        assert sample.unknown[measure] == f"not every process of it can be found: {REASONS[how]}"


def test_a_unit_without_processes_has_a_pss_of_0(tree):
    tree.add("/a.service")
    with Cgroup("/a.service", tree.root) as cgroup:
        sample = resolve(collect(Unit("a.service"), cgroup, Host(2**30), {"pss"}))
    assert {sample.values[measure] for measure in PROCESS_NAMES} == {0}
    assert not PROCESS_NAMES & sample.unknown.keys()


def test_a_unit_whose_processes_were_not_asked_for_does_not_get_a_pss(tree):
    tree.add("/a.service", pids=[1])
    with Cgroup("/a.service", tree.root) as cgroup:
        sample = resolve(collect(Unit("a.service"), cgroup, Host(2**30), {"current"}))
    assert not PROCESS_NAMES & sample.values.keys()


def test_when_all_that_were_listed_have_ended_what_followed_them_is_unknown(tree, proc):
    tree.add("/a.service", pids=[7])
    proc.add(7, rss=2**20)
    with Cgroup("/a.service", tree.root) as cgroup:
        sample = collect(Unit("a.service"), cgroup, Host(2**30), {"pss"}, proc.root)
    assert sample.values["rss"] == 2**20
    proc.remove(7)
    sample = resolve(sample, proc.root)
    assert not PROCESS_NAMES & (sample.values.keys() | sample.at_most.keys())
    assert sample.unknown["pss"] == "all its processes ended while they were read"


PARTS = {"slab": 1, "kernel_stack": 2, "pagetables": 4, "percpu": 8}


@pytest.mark.parametrize(
    ("stat", "kernel"),
    [
        ({**PARTS, "kernel": 100}, 100),
        (PARTS, 15),
        *(({key: size for key, size in PARTS.items() if key != missing}, None) for missing in PARTS),
    ],
)
def test_kernel_memory_is_no_sum_that_lacks_a_part(stat, kernel):
    values, _ = unit_values(CgroupReading("/a", 1, stat=stat), Host(2**30))
    assert values.get("kernel") == kernel


def test_a_size_that_the_kernel_does_not_tell_of_is_unknown_with_that_reason():
    _, unknown, _ = process_values([Process(7, 1, "seen", rss=1, pss=1)])
    assert unknown == dict.fromkeys(
        ("uss", "process.uss", "swap_pss", "process.swap_pss"), "smaps_rollup lacks it on this kernel"
    )
