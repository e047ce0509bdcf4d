"""Processes that /proc hides from this user (hidepid) are unknown: they are neither gone nor of no size."""

from __future__ import annotations

import errno
from unittest.mock import Mock

import pytest

from unitmem.kernel import processes as listing
from unitmem.kernel.cgroup import Cgroup
from unitmem.kernel.host import Host
from unitmem.kernel.process import Process, ProcessGoneError, ProcessHiddenError
from unitmem.kernel.processes import read_processes
from unitmem.measure.catalogue import PROCESS_MEASURES
from unitmem.measure.collect import collect
from unitmem.measure.formulas import process_values
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
        sample = collect(Unit("a.service"), cgroup, Host(2**30), {"pss"})
    assert sample.values["current"] == 4096
    assert not PROCESS_MEASURES & sample.values.keys()
    assert sample.unknown["pss"] == "not every process of it can be found: permission denied"
