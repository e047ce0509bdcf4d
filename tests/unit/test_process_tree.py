"""Who belongs to a tree of processes, whatever /proc shows of them, and what they have together."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from unitmem.kernel.process import PinnedProcess
from unitmem.kernel.process_tree import ProcessTree

PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def tree_of(proc):
    """tree_of(10): a tree in the /proc of the test, which names no children: all of it is searched."""
    pinned = []

    def start(pid, *, whole=True):
        pinned.append(PinnedProcess(pid, proc.root))
        return ProcessTree(pinned[-1], whole=whole, proc=proc.root)

    yield start
    for process in pinned:
        process.close()


def pids(tree):
    return [process.pid for process in tree.look()]


def test_all_that_descends_from_the_root_and_nobody_else(proc, tree_of):
    proc.add(1)
    proc.add(10, parent=1)
    proc.add(11, parent=10)
    proc.add(12, parent=11)
    proc.add(13, parent=10)
    proc.add(14, parent=1)
    assert sorted(pids(tree_of(10))) == [10, 11, 12, 13]
    assert pids(tree_of(10))[0] == 10
    assert pids(tree_of(10, whole=False)) == [10]


def test_who_was_seen_stays_when_another_becomes_its_parent(proc, tree_of):
    proc.add(10)
    proc.add(11, parent=10)
    tree = tree_of(10)
    assert pids(tree) == [10, 11]
    proc.add(11, parent=1)
    proc.add(12, parent=11)
    proc.add(10, state="Z")
    assert pids(tree) == [11, 12]
    assert not tree.is_over()
    proc.add(11, state="Z", parent=1)
    proc.remove(12)
    assert tree.is_over()
    assert pids(tree) == []
    assert tree.is_over()


def test_the_next_owner_of_a_members_pid_is_no_member(proc, tree_of):
    proc.add(10)
    proc.add(11, parent=10)
    tree = tree_of(10)
    assert pids(tree) == [10, 11]
    proc.add(11, parent=1, start_time=101)
    assert pids(tree) == [10]
    proc.add(11, parent=10, start_time=102)  # but for another child
    assert pids(tree) == [10, 11]


def test_zombies_are_no_members_but_main_threads_that_ended_are(proc, tree_of):
    proc.add(10)
    proc.add(11, parent=10, state="Z")
    proc.add(12, parent=10, state="Z", threads=3)
    (proc.root / "12/task/13").mkdir(parents=True)
    (proc.root / "12/task/13/stat").write_text((proc.root / "10/stat").read_text())
    (proc.root / "12/task/13/statm").write_text("0 7 0 0 0 0 0\n")
    process = tree_of(10).look()[1]
    assert (process.pid, process.rss) == (12, 7 * PAGE)


def test_what_can_not_be_read_is_none_and_stays_a_member(proc, tree_of):
    proc.add(10, rss=PAGE, rollup={"Pss": 1024})
    proc.add(11, parent=10, rss=PAGE, rollup={"Pss": 2048})
    tree = tree_of(10)
    tree.look()
    (proc.root / "11/statm").write_text("odd\n")
    assert [(process.pid, process.rss) for process in tree.look()] == [(10, PAGE), (11, None)]
    (proc.root / "11/smaps_rollup").unlink()
    measured = tree.measure_pss(tree.look())
    assert [process.pss for process in measured] == [1024, None]
    assert measured[1].unknown == "no such file or directory"


def test_a_child_that_can_not_be_read_is_not_left_out_silently(proc, tree_of, monkeypatch):
    """Its memory is not in the sum, so its parent's carries the reason, until it can be read."""
    proc.add(10, rss=PAGE, rollup={"Pss": 1024})
    proc.add(11, parent=10, rollup={"Pss": 2048})
    proc.add(12, parent=10, rollup={"Pss": 4096})
    tree = tree_of(10)

    def refuse(process):
        if process.pid == 11:
            raise OSError(errno.EMFILE, "Too many open files")
        return read_stat(process)

    read_stat = PinnedProcess.read_stat
    with monkeypatch.context() as patch:
        patch.setattr(PinnedProcess, "read_stat", refuse)
        measured = tree.measure_pss(tree.look())
    why = "not all its children can be read: too many open files"
    assert [(process.pid, process.pss, process.unknown) for process in measured] == [
        (10, 1024, why),
        (12, 4096, None),
    ]
    again = tree.measure_pss(tree.look())
    assert sorted((process.pid, process.unknown) for process in again) == [(10, None), (11, None), (12, None)]


def test_children_that_can_not_be_listed_are_not_taken_for_none(proc, tree_of, monkeypatch):
    proc.add(10, rss=PAGE, rollup={"Pss": 1024})
    (proc.root / "10/task/10").mkdir(parents=True)
    (proc.root / "10/task/10/children").write_text("")
    tree = tree_of(10)
    assert [process.unknown for process in tree.look()] == [None]
    monkeypatch.setattr(
        PinnedProcess, "list_children", Mock(side_effect=PermissionError(13, "Permission denied"))
    )
    assert [(process.rss, process.unknown) for process in tree.look()] == [
        (PAGE, "not all its children can be read: permission denied")
    ]


def test_who_ends_between_look_and_weighing_is_left_out(proc, tree_of):
    proc.add(10, rollup={"Pss": 1024})
    proc.add(11, parent=10, rollup={"Pss": 2048})
    tree = tree_of(10)
    looked = tree.look()
    proc.remove(11)
    assert [process.pid for process in tree.measure_pss(looked)] == [10]


@pytest.mark.parametrize("lists_children", [True, False])
def test_a_real_tree_is_found_by_lists_of_children_and_by_search_alike(lists_children):
    """A child of another thread than the first one counts too."""
    program = (
        "import subprocess, sys, threading\n"
        "def start():\n"
        "    print(subprocess.Popen(['sh', '-c', 'sleep 600 & echo $!; wait']).pid, flush=True)\n"
        "    sys.stdin.read()\n"
        "threading.Thread(target=start).start()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-SEc", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as root:
        printed = sorted(int(root.stdout.readline()) for _ in range(2))
        with PinnedProcess(root.pid) as pinned:
            tree = ProcessTree(pinned, whole=True)
            if (
                tree._lists_children
                is not Path("/proc/self/task").joinpath(str(os.getpid()), "children").exists()
            ):
                pytest.fail("whether children are listed is not known")
            tree._lists_children = tree._lists_children and lists_children
            found = tree.look()
            delivery = tree.kill()
        assert sorted(process.pid for process in found[1:]) == printed
        assert {process.pid for process in delivery.reached} == {root.pid, *printed}
        assert delivery.refused == ()
        assert root.wait() == -signal.SIGKILL


def test_what_can_not_be_signalled_is_named_and_the_others_are_signalled(monkeypatch):
    with subprocess.Popen(
        ["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, text=True
    ) as root:
        child = int(root.stdout.readline())
        with PinnedProcess(root.pid) as pinned:
            tree = ProcessTree(pinned, whole=True)

            def refuse_root(descriptor, number, send=signal.pidfd_send_signal):
                if descriptor == pinned._directory:
                    raise PermissionError(1, "Operation not permitted")
                send(descriptor, number)

            monkeypatch.setattr(signal, "pidfd_send_signal", refuse_root)
            delivery = tree.kill()
            assert [process.pid for process in delivery.reached] == [child]
            assert [(process.pid, error.errno) for process, error in delivery.refused] == [(root.pid, 1)]
            monkeypatch.undo()
            while not tree.is_over():
                tree.kill()
                time.sleep(0.01)
