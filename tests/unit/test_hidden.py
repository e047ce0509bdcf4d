"""Processes that /proc hides from this user (hidepid) are unknown: they are neither gone nor of no size."""

from __future__ import annotations

import pytest

from unitmem import sample as sampling
from unitmem.cgroup import Cgroup
from unitmem.process import Process, ProcessGoneError, ProcessHiddenError
from unitmem.sample import process_values, read_processes


@pytest.mark.parametrize("error", [ProcessGoneError, ProcessHiddenError])
def test_a_hidden_process_makes_the_sums_unknown(tree, monkeypatch, error):
    """With hidepid=2 it looks as if it had ended, but it is still in its cgroup."""

    def read(pid, proc):
        if pid == 8:
            raise error(pid)
        return Process(pid, 1, "seen", rss=2**20)

    monkeypatch.setattr(sampling, "read_process", read)
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

    monkeypatch.setattr(sampling, "read_process", read)
    tree.add("/a.service", pids=[7, 8])
    with Cgroup("/a.service", tree.root) as cgroup:
        assert [process.pid for process in read_processes(cgroup)] == [7]
