"""A program's own memory: in cgroups of both kinds built here, in containers, on no Linux at all; and this very one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitmem.guard.memory_info import MemoryInfo, parse_arenas, read_memory_info
from unitmem.guard.own_cgroup import (
    CgroupMount,
    names_below,
    parse_cgroup_mounts,
    parse_memory_cgroup,
    parse_v1_limit,
)

PAGE = os.sysconf("SC_PAGE_SIZE")
UNLIMITED_V1 = 9223372036854771712
NAMES = {item.name for item in fields(MemoryInfo)} - {"at", "unknown"}


# --- made by hand ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "headroom"),
    [
        ({}, None),
        ({"system_available": 700}, 700),
        ({"system_available": 0}, 0),
        ({"cgroup_limit": 800, "cgroup_current": 500}, 300),
        ({"cgroup_limit": 800, "cgroup_current": 500, "system_available": 700}, 300),
        ({"cgroup_limit": 800, "cgroup_current": 500, "system_available": 200}, 200),
        ({"cgroup_limit": 500, "cgroup_current": 800, "system_available": 200}, 0),
        ({"cgroup_limit": 0, "cgroup_current": 0}, 0),
        ({"cgroup_current": 500, "system_available": 200}, 200),  # nothing limits the cgroup
        ({"cgroup_current": 500}, None),
        ({"cgroup_limit": 800}, None),
        ({"cgroup_limit": 800, "system_available": 700}, None),  # what is used of the limit isn't known
        ({"system_available": 700, "unknown": {"cgroup_limit": "no cgroup"}}, None),
        (
            {"cgroup_limit": 800, "cgroup_current": 500, "unknown": {"system_available": "no /proc"}},
            None,
        ),
        ({"system_available": 700, "unknown": {"process_pss": "not asked for"}}, 700),
    ],
)
def test_one_that_is_made_by_hand_has_the_headroom_of_its_fields(given, headroom):
    assert MemoryInfo(at=0.0, **given).headroom == headroom


@pytest.mark.parametrize(
    "given", [{"headroom": 5}, {"headroom": 0}, {"unknown": {"headroom": "a limit can't be seen"}}]
)
def test_a_headroom_that_is_given_or_unknown_for_a_reason_stays(given):
    info = MemoryInfo(at=0.0, system_available=700, **given)
    assert info.headroom == given.get("headroom")
    assert replace(info, system_available=3).headroom == given.get("headroom")


def test_a_headroom_is_computed_anew_on_request():
    info = MemoryInfo(at=0.0, system_available=700)
    assert replace(info, system_available=600, headroom=None).headroom == 600


@pytest.mark.parametrize(
    ("info", "text"),
    [
        (MemoryInfo(at=1.5), "<MemoryInfo limit=none>"),
        (MemoryInfo(1.5, unknown={"cgroup_limit": "no cgroup"}), "<MemoryInfo>"),
        (MemoryInfo(1.5, headroom=0, cgroup_limit=0), "<MemoryInfo headroom=0B limit=0B>"),
        (
            MemoryInfo(1.5, 3 * 2**29, 52 * 2**20, 43 * 2**20, 2**20, 2**21, None, 0, 2**30),
            "<MemoryInfo pss=43.0M rss=52.0M runtime=1.0M headroom=1.0G limit=none current=2.0M swap=0B available=1.5G>",
        ),
    ],
)
def test_it_prints_what_is_known(info, text):
    assert (repr(info), str(info)) == (text, text)


def test_all_of_it_is_printed():
    whole = MemoryInfo(0.0, **dict.fromkeys(NAMES, 2**20))
    assert repr(whole).count("=1.0M") == len(NAMES)


# --- parsers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0::/system.slice/a.service\n", (2, "/system.slice/a.service")),
        ("0::/\n", (2, "/")),
        ("0::/../..\n", (2, "/../..")),
        ("0::/a (deleted)\n", (2, "/a")),
        ("4:memory:/x\n0::/y\n", (1, "/x")),
        ("0::/y\n4:cpu,memory:/x:z\n", (1, "/x:z")),
        ("9:name=memory:/x\n0::/y\n", (2, "/y")),
        ("4:memory:/x (deleted)\n", (1, "/x")),
    ],
)
def test_the_cgroup_that_counts_is_the_one_with_the_memory_controller(text, found):
    assert parse_memory_cgroup(text) == found


@pytest.mark.parametrize("text", ["", "9:name=systemd:/\n5:cpu:/x\n", "nonsense\n"])
def test_a_process_in_no_cgroup_that_counts_is_refused(text):
    with pytest.raises(ValueError, match="no cgroup accounts for its memory"):
        parse_memory_cgroup(text)


MOUNTS = r"""
22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
31 22 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 /../.. /sys/fs/cgroup/memory rw shared:7 master:2 - cgroup cgroup rw,cpu,memory
36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
41 31 0:38 /a\040b /mnt/un\134ified rw - cgroup2 cgroup2 rw,nsdelegate
50 22 0:40 / /srv/-\040cgroup2 rw - tmpfs cgroup2 rw,memory
"""


def test_mounts_are_those_of_v2_and_of_the_v1_hierarchy_with_memory():
    assert parse_cgroup_mounts(MOUNTS) == [
        CgroupMount(1, "/../..", Path("/sys/fs/cgroup/memory")),
        CgroupMount(2, "/a b", Path("/mnt/un\\ified")),
    ]


@pytest.mark.parametrize("text", ["35 31 - cgroup2 cgroup2 rw\n", "- - cgroup2\n"])
def test_a_bad_line_of_mountinfo_is_refused(text):
    with pytest.raises(ValueError, match="not a line of mountinfo"):
        parse_cgroup_mounts(text)


@pytest.mark.parametrize(
    ("path", "root", "names"),
    [
        ("/", "/", ()),
        ("/a/b", "/", ("a", "b")),
        ("/a/b", "/a", ("b",)),
        ("/a/b", "/a/b", ()),
        ("/ab", "/a", None),
        ("/", "/a", None),
        ("/../..", "/../..", ()),
        ("/../../a", "/../..", ("a",)),
        ("/../..", "/", None),
        ("/../a", "/", None),
        ("/../..", "/..", None),
        ("/", "/../..", None),
        ("/..", "/../..", None),
    ],
)
def test_a_path_below_a_mounts_root_has_names_and_another_has_none(path, root, names):
    assert names_below(path, root) == names


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("0\n", 0),
        ("4096\n", 4096),
        (f"{UNLIMITED_V1}\n", None),
        ("9223372036854710272\n", None),  # pages of 64 KiB
        ("9223372036854775807\n", None),
        ("18446744073709551615\n", None),
        ("4398046511104\n", 4398046511104),
    ],
)
def test_the_huge_number_of_v1_is_no_limit(text, limit):
    assert parse_v1_limit(text) == limit


def test_the_arenas_are_found_in_what_the_allocator_prints():
    printed = "# arenas allocated total = 4\n3 arenas * 1048576 bytes/arena     =            3,145,728\n"
    assert parse_arenas(printed) == 3 * 1048576
    with pytest.raises(ValueError, match="another allocator"):
        parse_arenas("")


@given(text=st.text() | st.text("0123456789: -/.cgroup2memory,\n"))
@pytest.mark.parametrize(
    "parse",
    [parse_memory_cgroup, parse_cgroup_mounts, parse_v1_limit, parse_arenas, lambda t: names_below(t, t)],
)
def test_a_parser_raises_nothing_but_value_error(parse, text):
    try:
        parse(text)
    except ValueError:
        return


# --- a machine built here ----------------------------------------------------------------------


class Machine:
    """A /proc whose `self` is this process, and the cgroup mounts that its mountinfo names."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.proc = root / "proc"
        (self.proc / "self").mkdir(parents=True)
        self.mounts = ""
        self.write("meminfo", "MemTotal: 1000 kB\nMemAvailable: 600 kB\nSwapTotal: 50 kB\nSwapFree: 30 kB\n")
        self.write("self/statm", "900 25 10 1 0 30 0\n")
        self.write("self/smaps_rollup", "0-1 ---p 0 00:00 0 [rollup]\nRss: 9 kB\nPss: 7 kB\n")

    def write(self, file: str, text: str) -> None:
        (self.proc / file).write_text(text)

    def enter(self, *lines: str) -> None:
        """What /proc/self/cgroup says."""
        self.write("self/cgroup", "".join(f"{line}\n" for line in lines))

    def mount(self, point: str, root: str = "/", version: int = 2) -> None:
        """A mount of a hierarchy: below `point`, of the cgroup `root`."""
        (self.root / point).mkdir(parents=True, exist_ok=True)
        kind = "cgroup2 cgroup2 rw" if version == 2 else "cgroup cgroup rw,memory"
        self.mounts += f"35 31 0:32 {root} {self.root / point} rw - {kind}\n"
        self.write("self/mountinfo", self.mounts)

    def cgroup(
        self, directory: str, files: Mapping[str, object] | None = None, *, root: bool = False
    ) -> None:
        """A cgroup with these files; the root of all lacks those that every other has."""
        path = self.root / directory
        path.mkdir(parents=True, exist_ok=True)
        (path / "cgroup.procs").touch()
        if not root:
            (path / "cgroup.events").touch()
        for name, content in (files or {}).items():
            (path / name).write_text(f"{content}\n")

    def read(self) -> MemoryInfo:
        info = read_memory_info(proc=self.proc)
        # whatever is read: what is None says why, and what is known does not
        missing = {name for name in NAMES if getattr(info, name) is None}
        assert missing - {"cgroup_limit"} <= info.unknown.keys() <= missing
        return info


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def v2(current=0, limit="max", inactive=0, **more):
    return {
        "memory.current": current,
        "memory.max": limit,
        "memory.stat": f"anon 1\ninactive_file {inactive}",
        "memory.swap.current": more.get("swap", 0),
    }


def v1(usage=0, limit=UNLIMITED_V1, inactive=0, hierarchical=UNLIMITED_V1, hierarchy=1):
    return {
        "memory.usage_in_bytes": usage,
        "memory.limit_in_bytes": limit,
        "memory.stat": f"inactive_file 0\nswap 0\nhierarchical_memory_limit {hierarchical}\n"
        f"total_inactive_file {inactive}\ntotal_swap 11",
        "memory.use_hierarchy": hierarchy,
    }


def cgroup_of(info):
    return (info.cgroup_current, info.cgroup_limit, info.headroom)


def test_the_process_and_the_machine_are_read(machine):
    machine.mount("cg")
    machine.enter("0::/a.service")
    machine.cgroup("cg", root=True)
    machine.cgroup("cg/a.service", v2(current=5000, limit=8000, inactive=1000, swap=77))
    before = time.monotonic()
    info = machine.read()
    assert before <= info.at <= time.monotonic()
    assert (info.system_available, info.process_rss, info.process_pss) == (600 * 1024, 25 * PAGE, 7 * 1024)
    assert (info.cgroup_current, info.cgroup_limit, info.swap, info.headroom) == (5000, 8000, 77, 4000)
    assert info.unknown == {}


@pytest.mark.parametrize(
    ("slice_", "service", "limit", "headroom"),
    [
        (v2(900, "max"), v2(500, "max"), None, 600 * 1024),
        (v2(900, "max"), v2(500, 800), 800, 300),
        (v2(900, 1000), v2(500, 5000), 1000, 100),
        (v2(900, 1000, inactive=300), v2(500, 5000, inactive=200), 1000, 400),
        # a neighbour uses most of the slice: the least headroom is not where the least limit is
        (v2(1950, 2000), v2(500, 800), 800, 50),
        (v2(900, "max"), v2(500, 10**9), 10**9, 600 * 1024),
        (v2(900, "max"), v2(500, 400), 400, 0),
        (v2(900, 0), v2(500, "max"), 0, 0),
    ],
)
def test_limit_and_headroom_are_the_tightest_of_every_ancestor_and_the_machine(
    machine, slice_, service, limit, headroom
):
    machine.mount("cg")
    machine.enter("0::/a.slice/b.service")
    machine.cgroup("cg", root=True)
    machine.cgroup("cg/a.slice", slice_)
    machine.cgroup("cg/a.slice/b.service", service)
    assert cgroup_of(machine.read()) == (500, limit, headroom)


def test_the_root_cgroup_is_the_machine(machine):
    machine.mount("cg")
    machine.enter("0::/")
    machine.cgroup("cg", {"memory.stat": "anon 5"}, root=True)
    info = machine.read()
    assert cgroup_of(info) == (400 * 1024, None, 600 * 1024)
    assert (info.swap, info.unknown) == (20 * 1024, {})


@pytest.mark.parametrize(
    ("path", "root", "directory"),
    [
        ("/", "/", "cg"),
        ("/../..", "/../..", "cg"),
        ("/app", "/", "cg/app"),
        ("/docker/abc", "/docker/abc", "cg"),
        ("/docker/abc/app", "/docker/abc", "cg/app"),
    ],
)
def test_in_a_container_the_top_of_its_namespace_has_a_limit_too(machine, path, root, directory):
    machine.mount("cg", root)
    machine.enter(f"0::{path}")
    machine.cgroup("cg", v2(500, 800))
    if directory != "cg":
        machine.cgroup(directory, v2(300, "max"))
    current = 500 if directory == "cg" else 300
    assert cgroup_of(machine.read()) == (current, 800, 300)


@pytest.mark.parametrize(("path", "root"), [("/../..", "/"), ("/../b", "/"), ("/", "/../..")])
def test_where_the_path_means_nothing_the_kernel_says_who_is_at_the_mounts_top(machine, path, root):
    machine.mount("cg", root)
    machine.enter(f"0::{path}")
    machine.cgroup("cg", v2(500, 800))
    (machine.root / "cg/cgroup.procs").write_text(f"1\n{os.getpid()}\n")
    assert cgroup_of(machine.read()) == (500, 800, 300)


@pytest.mark.parametrize(("path", "root"), [("/../..", "/"), ("/", "/../.."), ("/gone", "/")])
def test_a_cgroup_that_is_not_to_be_seen_is_not_guessed(machine, path, root):
    machine.mount("cg", root)
    machine.enter(f"0::{path}")
    machine.cgroup("cg", v2(500, 800))
    info = machine.read()
    reason = f"its cgroup, {path}, is not visible in any mount of cgroup v2"
    assert info.unknown == dict.fromkeys(("cgroup_current", "cgroup_limit", "swap", "headroom"), reason)


def test_of_several_mounts_the_one_that_shows_the_most_ancestors_is_read(machine):
    machine.mount("narrow", "/a.slice/b.service")
    machine.mount("wide")
    machine.mount("covered")
    machine.enter("0::/a.slice/b.service")
    machine.cgroup("narrow", v2(500, "max"))
    machine.cgroup("wide", root=True)
    machine.cgroup("wide/a.slice", v2(900, 1000))
    machine.cgroup("wide/a.slice/b.service", v2(500, "max"))
    assert cgroup_of(machine.read()) == (500, 1000, 100)


def test_a_process_that_is_moved_is_followed(machine):
    machine.mount("cg")
    machine.cgroup("cg", root=True)
    machine.cgroup("cg/a", v2(1, 10))
    machine.cgroup("cg/b", v2(2, 20))
    limits = []
    for name in ("a", "b"):
        machine.enter(f"0::/{name}")
        limits.append(machine.read().cgroup_limit)
    assert limits == [10, 20]


# --- what is missing ---------------------------------------------------------------------------


@pytest.fixture
def service(machine):
    """A service of v2 with a limit, from which a test takes something away."""
    machine.mount("cg")
    machine.enter("0::/b.service")
    machine.cgroup("cg", root=True)
    machine.cgroup("cg/b.service", v2(500, 800))
    return machine


@pytest.mark.parametrize(
    ("file", "content", "unknown"),
    [
        ("proc/meminfo", None, {"system_available", "headroom"}),
        ("proc/meminfo", "MemTotal: 8 kB\n", {"system_available", "headroom"}),
        ("proc/self/statm", None, {"process_rss"}),
        ("proc/self/statm", "x\n", {"process_rss"}),
        ("proc/self/smaps_rollup", None, {"process_pss"}),
        ("proc/self/smaps_rollup", "", {"process_pss"}),
        ("proc/self/cgroup", None, {"cgroup_current", "cgroup_limit", "swap", "headroom"}),
        ("proc/self/cgroup", "", {"cgroup_current", "cgroup_limit", "swap", "headroom"}),
        ("proc/self/mountinfo", None, {"cgroup_current", "cgroup_limit", "swap", "headroom"}),
        ("proc/self/mountinfo", "", {"cgroup_current", "cgroup_limit", "swap", "headroom"}),
        ("cg/b.service/memory.current", None, {"cgroup_current", "headroom"}),
        ("cg/b.service/memory.current", "max", {"cgroup_current", "headroom"}),
        ("cg/b.service/memory.current", str(2**64 - 4096), {"cgroup_current", "headroom"}),
        ("proc/meminfo", "MemTotal: 0 kB\nMemAvailable: 0 kB\n", {"system_available", "headroom"}),
        ("proc/meminfo", "MemTotal: 8 kB\nMemAvailable: 9 kB\n", {"system_available", "headroom"}),
        ("cg/b.service/memory.stat", None, {"headroom"}),
        ("cg/b.service/memory.swap.current", None, {"swap"}),
        ("cg/b.service/memory.max", "lots", {"cgroup_limit", "headroom"}),
        ("cg/b.service/memory.max", str(2**64 - 4096), {"cgroup_limit", "headroom"}),
        ("cg/b.service/memory.max", None, set()),
    ],
)
def test_what_can_not_be_read_is_unknown_alone(service, file, content, unknown):
    path = service.root / file
    path.unlink() if content is None else path.write_text(content)
    info = service.read()
    assert info.unknown.keys() == unknown
    assert all(info.unknown.values())


def test_a_limit_that_may_not_be_read_is_not_taken_for_none(service):
    path = service.root / "cg/b.service/memory.max"
    path.unlink()
    path.mkdir()
    info = service.read()
    assert info.unknown == dict.fromkeys(("cgroup_limit", "headroom"), f"is a directory ({path})")


def test_an_ancestor_that_is_no_cgroup_is_not_taken_for_one_without_limit(service):
    """As where the process is moved, and its old place removed, between two files."""
    service.enter("0::/gone.slice/b.service")
    service.cgroup("cg/gone.slice/b.service", v2(500, 800))
    info = service.read()
    assert info.cgroup_current == 500
    path = service.root / "cg/gone.slice/memory.max"
    assert info.unknown == dict.fromkeys(("cgroup_limit", "headroom"), f"no such file or directory ({path})")


def test_a_cgroup_without_the_controller_has_the_limits_above_it(service):
    service.enter("0::/b.service/inner")
    service.cgroup("cg/b.service/inner")
    info = service.read()
    assert cgroup_of(info) == (None, 800, 300)
    assert info.unknown == {
        name: f"its cgroup has no {file}: that isn't counted there"
        for name, file in {"cgroup_current": "memory.current", "swap": "memory.swap.current"}.items()
    }


def test_pss_is_read_only_if_it_is_asked_for(service):
    info = read_memory_info(pss=False, proc=service.proc)
    assert info.process_pss is None
    assert info.unknown == {"process_pss": "not asked for"}


def test_a_machine_without_proc_has_the_runtimes_numbers(tmp_path):
    info = read_memory_info(proc=tmp_path / "none")
    assert info.unknown.keys() == NAMES - {"runtime_total"}
    assert info.runtime_total > 0


# --- cgroup v1, alone or beside v2 -------------------------------------------------------------


@pytest.fixture
def hybrid(machine):
    """As systemd mounts it: v1 has the memory controller, and v2 is there for the processes alone."""
    machine.mount("cg/unified")
    machine.mount("cg/memory", version=1)
    machine.enter("9:name=systemd:/a/b", "4:memory:/a/b", "0::/a/b")
    machine.cgroup("cg/unified/a/b")
    machine.cgroup("cg/memory", v1(9000), root=True)
    return machine


@pytest.mark.parametrize(
    ("outer", "inner", "limit", "headroom"),
    [
        (v1(900), v1(500), None, 600 * 1024),
        (v1(900), v1(500, 800, hierarchical=800), 800, 300),
        (v1(900, 1000), v1(500, 5000, hierarchical=1000), 1000, 100),
        (v1(900, 1000, inactive=300), v1(500, 5000, hierarchical=1000), 1000, 400),
        (v1(1950, 2000), v1(500, 800, hierarchical=800), 800, 50),
        (v1(900), v1(500, 0, hierarchical=0), 0, 0),
        # before Linux 5.11 a cgroup need not count its children
        (v1(900, 1000, hierarchy=0), v1(500, 5000, hierarchical=5000), 5000, 4500),
    ],
)
def test_v1_is_read_with_every_ancestor_too(hybrid, outer, inner, limit, headroom):
    hybrid.cgroup("cg/memory/a", outer)
    hybrid.cgroup("cg/memory/a/b", inner)
    info = hybrid.read()
    assert cgroup_of(info) == (500, limit, headroom)
    assert (info.swap, info.unknown) == (11, {})


def test_a_v1_container_sees_the_limit_above_it_and_does_not_guess_what_is_used_there(machine):
    machine.mount("cg/memory", "/docker/abc", version=1)
    machine.enter("4:memory:/docker/abc", "0::/")
    machine.cgroup("cg/memory", v1(500, 5000, hierarchical=1000))
    info = machine.read()
    assert cgroup_of(info) == (500, 1000, None)
    assert info.unknown == {
        "headroom": f"a cgroup above {machine.root}/cg/memory is limited to 1000 bytes, "
        "and what is used there can't be seen"
    }


def test_v1_without_swap_accounting_does_not_know_swap(hybrid):
    hybrid.cgroup("cg/memory/a/b", {**v1(500), "memory.stat": "total_inactive_file 0"})
    hybrid.cgroup("cg/memory/a", v1(500))
    info = hybrid.read()
    assert cgroup_of(info) == (500, None, 600 * 1024)
    assert info.unknown == {"swap": "the kernel does no swap accounting"}


def test_v1_that_is_not_mounted_is_unknown_although_v2_is(machine):
    machine.mount("cg/unified")
    machine.enter("4:memory:/a", "0::/a")
    machine.cgroup("cg/unified/a", v2(500, 800))
    assert (
        machine.read().unknown["cgroup_limit"] == "its cgroup, /a, is not visible in any mount of cgroup v1"
    )


# --- this very process -------------------------------------------------------------------------


def test_this_process_is_read_on_this_machine_whatever_its_cgroups_are():
    info = read_memory_info()
    assert info.system_available > 0
    assert info.process_rss >= info.process_pss > 2**20
    assert 0 < info.runtime_total < info.process_rss
    for name in ("cgroup_current", "headroom", "swap"):
        assert (getattr(info, name) is None) == (name in info.unknown)
    if info.cgroup_limit is not None and info.headroom is not None:
        assert info.headroom <= info.cgroup_limit


def test_the_runtimes_total_follows_small_objects_and_not_large_ones():
    # in an interpreter of its own: what others have given back to the runtime is not asked for anew
    script = """
from unitmem import read_memory_info
before = read_memory_info(pss=False)
small = [object() for _ in range(2_000_000)]
with_small = read_memory_info(pss=False)
large = bytearray(b"x") * (64 * 2**20)
with_large = read_memory_info(pss=False)
print(with_small.runtime_total - before.runtime_total)
print(with_large.runtime_total - with_small.runtime_total)
print(with_large.process_rss - with_small.process_rss)
"""
    small, large, resident = map(int, run(script).split())
    assert small >= 16 * 2_000_000 * 0.9  # 16 bytes each; the list itself is one large object
    assert large < 32 * 2**20
    assert resident > 32 * 2**20


def test_many_threads_read_at_once_and_leave_no_descriptor_open():
    before = sorted(os.listdir("/proc/self/fd"))
    infos = []
    threads = [
        threading.Thread(target=lambda: infos.extend(read_memory_info() for _ in range(5))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(infos) == 40
    assert all(info.process_rss and info.runtime_total for info in infos)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_reading_again_and_again_takes_no_memory():
    def read(times):
        return [read_memory_info(pss=False).process_rss for _ in range(times)][-1]

    before = read(30)
    assert read(250) - before < 2**19  # 2 KiB left behind each time would be as much


def run(script, **environment):
    """What a new interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.mark.parametrize("platform", ["darwin", "win32", "freebsd14"])
def test_without_linux_the_library_imports_and_gives_the_runtimes_numbers(platform):
    script = f"""
import os, select, signal, sys
sys.platform = {platform!r}
del os.sysconf, os.pidfd_open, os.O_PATH, select.epoll, select.EPOLLPRI, signal.pidfd_send_signal
import unitmem
seen = []
unitmem.watch(1, seen.append, immediate=True, ticks=())
(info,) = seen
assert info.runtime_total > 0 and info.at > 0
assert set(info.unknown.values()) == {{"available on Linux only, and this is {platform}"}}
print(*sorted(info.unknown))
"""
    assert run(script).split() == sorted(NAMES - {"runtime_total"})


@pytest.mark.parametrize(
    ("before", "environment", "reason"),
    [
        ("", {"PYTHONMALLOC": "malloc"}, "Python runs with another allocator than pymalloc"),
        (
            "sys.implementation.name = 'pypy'",
            {},
            "pypy doesn't report what its allocator holds",
        ),
        (
            "sys.modules['ctypes'] = None",
            {},
            "this Python doesn't report what its allocator holds (import of ctypes halted; None in sys.modules)",
        ),
    ],
)
def test_a_python_that_does_not_tell_is_unknown_with_the_reason(before, environment, reason):
    script = (
        f"import sys\n{before}\nimport unitmem\nprint(unitmem.read_memory_info().unknown['runtime_total'])"
    )
    assert run(script, **environment) == reason


def test_the_debug_allocator_tells_as_well():
    script = "import unitmem\nprint(unitmem.read_memory_info().runtime_total)"
    assert int(run(script, PYTHONMALLOC="debug")) > 0
