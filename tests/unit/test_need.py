"""PSS is read process by process, the largest first, until the conditions are decided, and no further."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitmem.daemon.sampling import read_needed
from unitmem.kernel import processes
from unitmem.kernel.cgroup import Cgroup
from unitmem.kernel.host import Host
from unitmem.kernel.process import Process, ProcessGoneError
from unitmem.kernel.processes import Pins
from unitmem.measure.collect import collect, resolve, with_processes
from unitmem.measure.sample import UnitSample
from unitmem.policy.actions import Log
from unitmem.policy.condition import judge
from unitmem.policy.model import Policy, Step
from unitmem.policy.need import Need, costly_need
from unitmem.policy.state import State
from unitmem.policy.trends import UnitFacts
from unitmem.policyfile.expression import parse_condition
from unitmem.unit import Invocation, Unit

M = 2**20


class Memory:
    """What would be read of processes, by pid, in place of `Pins`; it keeps the order in which they were."""

    def __init__(self, sizes):
        self.sizes = sizes
        self.read = []

    def with_pss(self, process, proc):
        self.read.append(process.pid)
        if (size := self.sizes[process.pid]) is None:
            raise ProcessGoneError(process.pid)
        return replace(process, pss=size, uss=size // 2, swap_pss=0, hugetlb=0)


SAMPLE = UnitSample(Unit("a.service"), Invocation("a.service", "1" * 32, 1), values={"anon": 50 * M})


def unread(sizes):
    """The unit, of whose processes only RSS was read."""
    return with_processes(SAMPLE, [Process(pid, 1, "worker", rss=rss) for pid, rss in sizes.items()])


def read(when, sizes):
    """(sample as far as `when` needs it, pids in the order in which PSS was read) of processes by (RSS, PSS)."""
    memory = Memory({pid: pss for pid, (_, pss) in sizes.items()})
    sample = unread({pid: rss for pid, (rss, _) in sizes.items()})
    return read_needed(sample, memory, need_of(when)), memory.read


def need_of(when):
    policies = [Policy("p", ("*.service",), (Step(parse_condition(when), Log()),))]
    return partial(costly_need, policies, state=State(), now=0.0)


def truth(when, sample):
    return judge(parse_condition(when), UnitFacts(sample, None, 0.0)).truth


SIZES = {1: (10 * M, 1 * M), 2: (900 * M, 300 * M), 3: (20 * M, 2 * M), 4: (400 * M, 100 * M)}


@pytest.mark.parametrize(
    ("when", "pids"),
    [
        ("pss > 2G", []),  # more than all RSS
        ("pss > 900M", [2]),  # 300M and 430M at most
        ("pss > 500M", [2, 4]),
        ("pss < 250M", [2]),
        ("process.pss > 350M", [2, 4]),
        ("process.uss > 400M", [2, 4, 3, 1]),  # RSS is no bound of USS, which counts huge pages
        ("uss < 100M", [2]),
        ("pss > 400M", [2, 4, 3, 1]),  # what is over is named to the last byte
        ("anon > 1M or pss > 400M", []),
        ("anon > 1G and pss > 400M", []),
        ("growth(pss, 1min) > 1M/min", [2, 4, 3, 1]),
    ],
)
def test_the_largest_are_read_first_and_no_more_than_decides(when, pids):
    sample, in_order = read(when, SIZES)
    assert in_order == pids
    assert ("pss" in sample.values) == (len(pids) == len(SIZES))


def test_the_largest_process_is_known_once_no_other_can_be_larger():
    sample, in_order = read("pss > 750M", {1: (800 * M, 500 * M), 2: (300 * M, 10 * M), 3: (M, M)})
    assert in_order == [1, 2]
    assert sample.values["process.pss"] == 500 * M
    assert "process.pss" not in sample.unknown.keys() | sample.at_most.keys()


conditions = st.builds(
    "{}{} {} {}K".format,
    st.sampled_from(["", "not "]),
    st.sampled_from(["pss", "process.pss", "uss", "process.uss"]),
    st.sampled_from([">", ">=", "<", "<="]),
    st.integers(0, 300),
)
memories = st.lists(
    st.tuples(st.integers(0, 100), st.floats(0, 1), st.booleans()), min_size=1, max_size=8
).map(
    lambda each: {
        pid: (rss * 1024, None if gone else int(rss * share) * 1024)
        for pid, (rss, share, gone) in enumerate(each, 1)
    }
)


@given(when=st.builds("{} and {}".format, conditions, conditions) | conditions, sizes=memories)
def test_what_is_decided_early_is_what_all_would_decide(when, sizes):
    early, in_order = read(when, sizes)
    whole = resolve(
        unread({pid: rss for pid, (rss, _) in sizes.items()}),
        pins=Memory({p: s for p, (_, s) in sizes.items()}),
    )
    assert truth(when, early) is truth(when, whole) or not in_order
    assert in_order == sorted(in_order, key=lambda pid: -sizes[pid][0])
    living = [pid for pid in in_order if sizes[pid][1] is not None]
    if living and len(in_order) < len(sizes):  # without the last one it was open
        before = [
            replace(each, pss=None, uss=None, swap_pss=None) if each.pid == living[-1] else each
            for each in early.processes
        ]
        assert need_of(when)(with_processes(early, before)) is not Need.NOTHING


def test_a_process_that_cannot_be_read_leaves_the_sum_unknown(proc, tree):
    """However much the others have, and whether it is the first or the last that is tried."""
    tree.add("/a.service", {"memory.current": 4096}, pids=[7, 8])
    for unreadable in (7, 8):
        for pid in (7, 8):
            proc.add(pid, rss=pid * M, rollup=None if pid == unreadable else {"Pss": pid * M})
        with Cgroup("/a.service", tree.root) as cgroup, Pins() as pins:
            sample = collect(Unit("a.service"), cgroup, Host(2**40), {"pss"}, proc.root, pins=pins)
            sample = resolve(sample, proc.root, pins, is_enough=lambda closer: False)
        assert "1 of 2 processes" in sample.unknown["pss"]
        assert sample.at_least == sample.at_most == {}


def test_a_pinned_process_is_never_taken_for_the_next_owner_of_its_pid(proc, tree):
    """The directory of the first read stays that of the process it was opened for."""
    tree.add("/a.service", {"memory.current": 4096}, pids=[7])
    proc.add(7, rss=4 * M, rollup={"Pss": M})
    with Cgroup("/a.service", tree.root) as cgroup, Pins() as pins:
        sample = collect(Unit("a.service"), cgroup, Host(2**40), {"pss"}, proc.root, pins=pins)
        proc.remove(7)
        proc.add(7, start_time=101, rss=4 * M, rollup={"Pss": 3 * M})
        assert (
            resolve(sample, proc.root, pins).unknown["pss"] == "all its processes ended while they were read"
        )


def test_more_processes_than_may_be_open_are_opened_anew(proc, tree, monkeypatch):
    monkeypatch.setattr(processes, "MOST_PINS", 2)
    tree.add("/a.service", {"memory.current": 4096}, pids=range(1, 6))
    for pid in range(1, 6):
        proc.add(pid, rss=4 * M, rollup={"Pss": M})
    with Cgroup("/a.service", tree.root) as cgroup, Pins() as pins:
        sample = collect(Unit("a.service"), cgroup, Host(2**40), {"pss"}, proc.root, pins=pins)
        assert resolve(sample, proc.root, pins).values["pss"] == 5 * M
