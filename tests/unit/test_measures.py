"""Measures from the kernel's files: what a unit uses, what limits it, and numbers that can't be true."""

from __future__ import annotations

from dataclasses import replace

import pytest

from unitmem.kernel.ancestors import Ancestors
from unitmem.kernel.cgroup import Cgroup
from unitmem.kernel.host import Host, read_host
from unitmem.measure.catalogue import CGROUP_MEASURES, request_of
from unitmem.measure.collect import collect
from unitmem.measure.formulas import host_values, unit_values
from unitmem.measure.snapshot import sample_units
from unitmem.policy.condition import measures_of
from unitmem.policy.engine import evaluate
from unitmem.policy.state import State
from unitmem.policyfile.expression import parse_condition
from unitmem.policyfile.reader import parse
from unitmem.unit import Unit

K, M, G = 2**10, 2**20, 2**30
BELOW_ZERO = 2**64 - 4096
WEB = "/system.slice/web.service"
EMPTY = dict.fromkeys(("anon", "active_file", "inactive_file", "slab_reclaimable"), 0)
HOST = Host(8 * G, 6 * G, swap_total=G, swap_free=G)


def stat(**lines):
    return "\n".join(f"{key} {value}" for key, value in {**EMPTY, **lines}.items() if value is not None)


def measures(tree, host=HOST, path=WEB):
    """Return (values, unknown) of that unit."""
    with Cgroup(path, tree.root) as cgroup:
        above = Ancestors(tree.root).levels(path)
        return unit_values(cgroup.read(request_of(CGROUP_MEASURES), above), host)


@pytest.fixture
def meminfo(proc):
    """meminfo(text, mounts): the host whose /proc/meminfo has these numbers in kB."""

    def meminfo(*, options="rw,nsdelegate", **numbers):
        lines = [f"{key.replace('_file', '(file)')}: {value} kB\n" for key, value in numbers.items()]
        (proc.root / "meminfo").write_text("".join(lines))
        (proc.root / "self").mkdir(exist_ok=True)
        (proc.root / "self/mounts").write_text(f"proc /proc proc rw 0 0\ncgroup2 /c cgroup2 {options} 0 0\n")
        return read_host(proc.root)

    return meminfo


# --- what is read for a measure ----------------------------------------------------------------


@pytest.mark.parametrize(
    "measure", [each for each in CGROUP_MEASURES if each.value is not None], ids=lambda measure: measure.name
)
def test_a_measure_needs_no_more_than_it_asks_for(tree, measure):
    """And where all is read, its value is the same."""
    keys = {key: 10 + index for index, key in enumerate(request_of(CGROUP_MEASURES).stat)}
    tree.add("/system.slice", {"memory.max": 9 * M, "memory.current": 5 * M, "memory.stat": stat()})
    tree.add(
        WEB,
        dict.fromkeys(request_of(CGROUP_MEASURES).counters, 2 * M)
        | {
            "memory.current": 4 * M,
            "memory.stat": "\n".join(f"{key} {value}" for key, value in keys.items()),
            "memory.events": "high 1\nmax 2\noom 3\noom_kill 4",
            "memory.pressure": "some avg10=1 avg60=2 avg300=3\nfull avg10=4 avg60=5 avg300=6",
        },
    )
    values, _ = measures(tree)
    above = Ancestors(tree.root).levels(WEB)
    with Cgroup(WEB, tree.root) as cgroup:
        alone = unit_values(cgroup.read(request_of([measure]), above), HOST, [measure])
    assert alone == ({measure.name: values[measure.name]}, {})


@pytest.mark.parametrize(
    ("condition", "read"),
    [
        ("current > 1G", set()),
        ("host.available < 1G", set()),
        ("anon > 1G", {"memory.stat"}),
        ("workingset > 80% of max", {"memory.stat", "memory.max"}),
        ("footprint > 1G", {"memory.stat", "memory.swap.current"}),
        ("swap > 1G and pressure.full.avg10 > 10%", {"memory.swap.current", "memory.pressure"}),
        ("events.oom_kill > 0 in 10min", {"memory.events"}),
        ("growth(swap, 10min) > 1M/min", {"memory.swap.current"}),
        ("eta(limit) < 5min", {"memory.stat", "memory.max"}),
    ],
)
def test_of_a_unit_only_the_files_are_read_that_a_condition_needs(tree, monkeypatch, condition, read):
    tree.add("/a.service")
    opened = set()
    read_file = Cgroup.read_file

    def noting(cgroup, name):
        if cgroup.path == "/a.service":
            opened.add(name)
        return read_file(cgroup, name)

    monkeypatch.setattr(Cgroup, "read_file", noting)
    with Cgroup("/a.service", tree.root) as cgroup:
        collect(Unit("a.service"), cgroup, HOST, measures_of(parse_condition(condition)))
    assert opened == read | {"memory.current"}


# --- what a unit uses --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("current", "lines", "unreclaimable"),
    [
        pytest.param(261 * M, {"anon": 4 * M, "sock": 256 * M}, 261 * M, id="sockets"),
        pytest.param(211 * M, {"anon": 5 * M, "unevictable": 206 * M}, 211 * M, id="locked page cache"),
        pytest.param(3 * G, {"anon": 5 * M, "hugetlb": 3 * G}, 3 * G, id="huge pages that are charged"),
        pytest.param(80 * M, {"shmem": 64 * M, "percpu": 9 * M}, 80 * M, id="tmpfs and percpu"),
        pytest.param(90 * M, {"active_file": 30 * M, "inactive_file": 40 * M}, 20 * M, id="page cache"),
        pytest.param(90 * M, {"slab_reclaimable": 50 * M}, 40 * M, id="dentries"),
        pytest.param(64 * K, {"inactive_file": 128 * K}, 0, id="a stat that lags"),
        pytest.param(90 * M, {"slab_reclaimable": None}, None, id="a part that the kernel doesn't show"),
    ],
)
def test_unreclaimable_is_what_is_charged_without_what_reclaim_takes(tree, current, lines, unreclaimable):
    tree.add(WEB, {"memory.current": current, "memory.stat": stat(**lines)})
    assert measures(tree)[0].get("unreclaimable") == unreclaimable


def test_of_two_looks_at_what_is_charged_the_lesser_counts(tree, monkeypatch):
    tree.add(WEB, {"memory.stat": stat(inactive_file=10 * M)})
    looks = iter([f"{50 * M}", f"{30 * M}"])
    read_file = Cgroup.read_file

    def moving(cgroup, name):
        return next(looks) if (cgroup.path, name) == (WEB, "memory.current") else read_file(cgroup, name)

    monkeypatch.setattr(Cgroup, "read_file", moving)
    values, _ = measures(tree)
    assert (values["current"], values["unreclaimable"]) == (30 * M, 20 * M)


def test_of_the_root_slice_it_is_the_machines(tree, meminfo):
    tree.add("/", {"memory.stat": stat()})
    known = {"MemTotal": 1000, "MemFree": 400, "Active_file": 100, "Inactive_file": 50, "SReclaimable": 20}
    assert measures(tree, meminfo(**known), "/")[0]["unreclaimable"] == 430 * K
    del known["SReclaimable"]
    assert "unreclaimable" in measures(tree, meminfo(**known), "/")[1]


@pytest.mark.parametrize(
    ("swap", "lines", "host", "footprint"),
    [
        pytest.param(0, {}, HOST, 90 * M, id="nothing in swap"),
        pytest.param(300 * M, {}, HOST, 390 * M, id="more in swap than in memory"),
        pytest.param(30 * M, {"zswap": 10 * M}, HOST, 110 * M, id="compressed in memory, and counted once"),
        pytest.param(30 * M, {"swapcached": 20 * M}, HOST, 100 * M, id="in both, and counted once"),
        pytest.param(0, {"zswap": 99 * M}, HOST, 0, id="never below 0"),
        pytest.param(None, {}, HOST, None, id="swap that isn't counted"),
        pytest.param(None, {}, replace(HOST, swap_total=0), 90 * M, id="no swap to count"),
        pytest.param(0, {"slab_reclaimable": None}, HOST, None, id="of an unknown part"),
    ],
)
def test_footprint_is_what_a_unit_holds_wherever_it_lies(tree, swap, lines, host, footprint):
    tree.add(WEB, {"memory.current": 90 * M, "memory.stat": stat(**lines)})
    if swap is not None:
        tree.add(WEB, {"memory.swap.current": swap})
    assert measures(tree, host)[0].get("footprint") == footprint


# --- the limit that binds ----------------------------------------------------------------------


def test_the_top_of_a_container_is_a_level(tree, proc):
    (proc.root / "meminfo").write_text(f"MemTotal: {64 * M} kB\n")
    tree.add("/", {"cgroup.events": "populated 1", "memory.max": 512 * M, "memory.current": 300 * M})
    tree.add(WEB, {"memory.current": 200 * M, "memory.max": "max"})
    sample = sample_units([Unit("w.service", control_group=WEB)], cgroups=tree.root, proc=proc.root)
    unit = sample.units["w.service"]
    assert (unit.limit, unit.levels[-1].path, sample.limit_set_by(unit)) == (512 * M, "/", "/")


def test_the_root_slice_of_a_container_is_a_cgroup_as_any_other(tree):
    tree.add("/", {"cgroup.events": "populated 1", "memory.max": 512 * M, "memory.current": 300 * M})
    tree.add("/", {"memory.stat": stat(inactive_file=100 * M)})
    values, _ = measures(tree, path="/")
    assert (values["current"], values["limit"], values["unreclaimable"]) == (300 * M, 512 * M, 200 * M)


@pytest.mark.parametrize(
    ("options", "limit"),
    [("rw,nsdelegate", 600 * K), ("rw,nsdelegate,memory_hugetlb_accounting", 1000 * K)],
)
def test_huge_pages_set_aside_are_no_memory_of_cgroups_that_are_not_charged_for_them(
    tree, meminfo, options, limit
):
    tree.add("/", {"memory.stat": stat()})
    tree.add(WEB, {"memory.current": K, "memory.max": "max"})
    known = {"MemTotal": 1000, "MemFree": 300, "Active_file": 0, "Inactive_file": 0, "SReclaimable": 0}
    host = meminfo(**known, Hugetlb=400, options=options)
    assert measures(tree, host)[0]["limit"] == limit
    root, _ = measures(tree, host, "/")
    assert (root["limit"], root["unreclaimable"]) == (limit, limit - 300 * K)
    assert host_values(host).total == 1000 * K


# --- numbers that can't be true ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "unknown", "number"),
    [
        (
            {"MemTotal": 0, "MemAvailable": 0, "SwapTotal": 0, "SwapFree": 0},
            {"total", "available", "swap_total", "swap_free"},
            "MemTotal is 0",
        ),
        (
            {"MemAvailable": 1001},
            {"total", "available"},
            "MemAvailable is 1001 kB, more than MemTotal (1000 kB)",
        ),
        ({"MemFree": 2000}, {"total"}, "MemFree is 2000 kB, more than MemTotal (1000 kB)"),
        ({"Hugetlb": 2000}, {"total"}, "Hugetlb is 2000 kB, more than MemTotal (1000 kB)"),
        ({"SwapFree": 101}, {"swap_total", "swap_free"}, "SwapFree is 101 kB, more than SwapTotal (100 kB)"),
        ({"SwapFree": BELOW_ZERO // K}, {"swap_free"}, f"SwapFree is {BELOW_ZERO}"),
        ({"SwapFree": BELOW_ZERO}, {"swap_free"}, f"SwapFree is {BELOW_ZERO * K}"),
    ],
)
def test_of_the_machine_they_are_unknown_with_the_number(meminfo, numbers, unknown, number):
    sound = {"MemTotal": 1000, "MemAvailable": 900, "SwapTotal": 100, "SwapFree": 50}
    sample = host_values(meminfo(**{**sound, **numbers}))
    names = {"host.total", "host.available", "host.swap_total", "host.swap_free"}
    assert names - sample.values.keys() == {f"host.{name}" for name in unknown}
    for name in unknown:
        assert number in sample.unknown[f"host.{name}"]


@pytest.mark.parametrize(
    ("files", "unknown", "number"),
    [
        ({"memory.current": BELOW_ZERO}, {"current", "workingset", "unreclaimable"}, BELOW_ZERO),
        ({"memory.swap.current": BELOW_ZERO}, {"swap", "footprint"}, BELOW_ZERO),
        ({"memory.stat": stat(sock=BELOW_ZERO)}, {"sock"}, BELOW_ZERO),
        ({"memory.stat": stat(inactive_file=2**62)}, {"workingset", "unreclaimable"}, 2**62),
        ({"memory.stat": stat(anon=9 * G)}, {"anon"}, 9 * G),
    ],
)
def test_of_a_cgroup_they_are_unknown_with_the_number(tree, files, unknown, number):
    sound = {"memory.current": M, "memory.swap.current": M, "memory.stat": stat(sock=K)}
    tree.add(WEB, sound)
    before, _ = measures(tree)
    tree.add(WEB, files)
    values, reasons = measures(tree)
    assert before.keys() - values.keys() >= unknown
    for name in unknown:
        assert str(number) in reasons[name]


def test_a_machine_of_less_than_half_of_what_a_cgroup_uses_limits_nothing(tree):
    tree.add(WEB, {"memory.current": G + K, "memory.max": 2 * G, "memory.stat": stat()})
    values, unknown = measures(tree, Host(512 * M, 100 * M))
    assert {"limit", "headroom"}.isdisjoint(values)
    for name in ("limit", "headroom"):
        assert (
            f"MemTotal is {512 * K} kB, less than half of memory.current of a cgroup ({M + 1} kB)"
            in unknown[name]
        )


def test_a_container_whose_memory_is_its_limit_may_be_above_it(tree):
    """The kernel charges some things although there is no room, and a limit may have been lowered a moment ago."""
    tree.add(WEB, {"memory.current": 600 * M, "memory.max": 512 * M, "memory.stat": stat()})
    values, _ = measures(tree, Host(512 * M, 0))
    assert (values["limit"], values["headroom"]) == (512 * M, 0)


def test_a_mount_may_have_any_name(tree, proc, meminfo):
    meminfo(MemTotal=1000, Hugetlb=400)
    mounts = proc.root / "self/mounts"
    mounts.write_bytes(b"sshfs /home/u/a\x0cb\xff fuse.sshfs rw 0 0\n\n" + mounts.read_bytes())
    assert read_host(proc.root).limit == 600 * K


@pytest.mark.parametrize(
    "numbers",
    [
        {"MemTotal": 0, "MemAvailable": 0},
        {"MemTotal": 4, "MemAvailable": 0},
        {"MemTotal": 4, "MemAvailable": 6 * M},
    ],
)
def test_a_healthy_unit_is_never_acted_on_for_them(tree, proc, meminfo, numbers):
    checked = parse(
        """\
policies:
  - name: p
    units: ["*.service"]
    steps: [{when: "unreclaimable > 80% of limit or headroom < 100M", do: stop}]
"""
    )
    assert checked.file is not None
    tree.add(WEB, {"memory.current": 30 * M, "memory.stat": stat()})
    meminfo(**numbers)
    sample = sample_units([Unit("w.service", control_group=WEB)], cgroups=tree.root, proc=proc.root)
    assert evaluate(checked.file.policies, sample, State(), sample.at)[1] == ()
