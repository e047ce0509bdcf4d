"""The kernel's memory files, parsed; and cgroups read from a tree of directories built here."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitmem.errors import UnsupportedSystemError
from unitmem.kernel import members
from unitmem.kernel.ancestors import Ancestors
from unitmem.kernel.cgroup import (
    Cgroup,
    CgroupGoneError,
    Request,
    parse_self_cgroup,
    require_memory_controller,
)
from unitmem.kernel.files import (
    PROC_ROOT,
    OpenFiles,
    find_keyed,
    parse_counter,
    parse_flat_keyed,
    parse_pressure,
)
from unitmem.kernel.host import Host, parse_meminfo, read_host
from unitmem.kernel.limits import USAGE_KEYS, Level
from unitmem.kernel.memory_events import MemoryEvents

# --- parsers -----------------------------------------------------------------------------------

PRESSURE = """\
some avg10=0.22 avg60=1.17 avg300=12.00 total=2437153
full avg10=0.00 avg60=0.50 avg300=100.00 total=1437153
"""


@pytest.mark.parametrize(
    ("text", "value"),
    [("0\n", 0), ("4096\n", 4096), ("9223372036854771712\n", 9223372036854771712), ("max\n", None), ("7", 7)],
)
def test_a_counter_is_bytes_and_max_is_none(text, value):
    assert parse_counter(text) == value


@pytest.mark.parametrize(
    "text", ["", "\n", "-1\n", "1.5\n", "maximum\n", "1 2\n", "1_000\n", "٣\n", "0x10\n", "9" * 5000]
)
def test_a_bad_counter_is_refused(text):
    with pytest.raises(ValueError):
        parse_counter(text)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("anon 1\nfile 2\n", {"anon": 1, "file": 2}),
        ("low 0\noom_kill 3\n", {"low": 0, "oom_kill": 3}),
        ("anon 1", {"anon": 1}),
    ],
)
def test_flat_keyed_lines_are_numbers_by_key(text, values):
    assert parse_flat_keyed(text) == values


@pytest.mark.parametrize(
    "text", ["anon\n", "anon max\n", "anon -1\n", "anon 1 2\n", "\n", "anon  1\n", "anon\t1\n"]
)
def test_a_bad_flat_keyed_line_is_refused(text):
    with pytest.raises(ValueError):
        parse_flat_keyed(text)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("file 1\nfile_dirty 2\nactive_file 3\nanon 4", {"anon": 4, "file": 1}),
        ("active_file 3\nanon 4\nx y\n", {"anon": 4}),
        ("anon\nfile 0", {"file": 0}),
    ],
)
def test_lines_are_found_by_their_whole_key_and_others_are_not_looked_at(text, values):
    assert find_keyed(text, ("anon", "file")) == values


@given(st.dictionaries(st.text("abc_", min_size=1), st.integers(0, 2**64)))
def test_what_is_found_is_what_is_parsed(values):
    text = "".join(f"{key} {value}\n" for key, value in values.items())
    assert find_keyed(text, values) == parse_flat_keyed(text) == values


@pytest.mark.parametrize("text", ["anon x", "anon -1\n", "anon 1 2\n", "anon  1\n", "anon 1\r\n"])
def test_a_bad_value_of_a_key_that_is_asked_for_is_refused(text):
    with pytest.raises(ValueError):
        find_keyed(text, ("anon",))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (
            PRESSURE,
            {
                "some.avg10": 0.22,
                "some.avg60": 1.17,
                "some.avg300": 12.0,
                "full.avg10": 0.0,
                "full.avg60": 0.5,
                "full.avg300": 100.0,
            },
        ),
        ("some avg10=1.00 total=5\n", {"some.avg10": 1.0}),
        ("", {}),
    ],
)
def test_pressure_is_percentages_by_kind_and_window(text, values):
    assert parse_pressure(text) == values


@pytest.mark.parametrize(
    "text",
    ["some avg10\n", "some avg10=\n", "some avg10=high\n", "\n", "some avg10=nan\n", "some avg10=inf\n"],
)
def test_bad_pressure_is_refused(text):
    with pytest.raises(ValueError):
        parse_pressure(text)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("MemTotal:       16 kB\nHugePages_Total:       5\n", {"MemTotal": 16 * 1024}),
        ("MemTotal:\n", {}),
        ("", {}),
    ],
)
def test_meminfo_is_bytes_by_key_and_plain_counts_are_left_out(text, values):
    assert parse_meminfo(text) == values


@pytest.mark.parametrize("text", ["MemTotal: lots kB\n", "MemTotal: -1 kB\n"])
def test_bad_meminfo_is_refused(text):
    with pytest.raises(ValueError):
        parse_meminfo(text)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("0::/system.slice/a.service\n", "/system.slice/a.service"),
        ("0::/\n", "/"),
        ("12:memory:/x\n0::/y\n", "/y"),
        ("0::/a.service (deleted)\n", "/a.service"),
        ("12:memory:/x\n", None),
        ("", None),
    ],
)
def test_a_process_has_the_path_of_its_v2_cgroup(text, path):
    assert parse_self_cgroup(text) == path


@given(text=st.text() | st.text("max someful=avg10.60 total\n:kB0123-"))
@pytest.mark.parametrize(
    "parse", [parse_counter, parse_flat_keyed, parse_pressure, parse_meminfo, parse_self_cgroup]
)
def test_a_parser_raises_nothing_but_value_error(parse, text):
    try:
        parse(text)
    except ValueError:
        return


# --- the machine -------------------------------------------------------------------------------


def test_a_mount_with_the_memory_controller_is_taken(tree):
    (tree.root / "cgroup.controllers").write_text("cpuset cpu memory pids\n")
    require_memory_controller(tree.root)


@pytest.mark.parametrize(
    ("controllers", "message", "hint"),
    [
        (None, "cgroup v2 is not mounted at", "systemd.unified_cgroup_hierarchy=1"),
        ("cpu pids\n", "the memory controller of cgroup v2 is off", "without cgroup_disable=memory"),
        (
            "memory_recursiveprot\n",
            "the memory controller of cgroup v2 is off",
            "without cgroup_disable=memory",
        ),
    ],
)
def test_a_mount_without_it_is_refused_with_what_to_do(tree, controllers, message, hint):
    if controllers is not None:
        (tree.root / "cgroup.controllers").write_text(controllers)
    with pytest.raises(UnsupportedSystemError, match=message) as caught:
        require_memory_controller(tree.root)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("meminfo", "pressure", "host"),
    [
        (
            "MemTotal: 8 kB\nMemAvailable: 4 kB\nSwapTotal: 2 kB\nSwapFree: 1 kB\n",
            "some avg10=1.00 total=0\n",
            Host(8192, 4096, 2048, 1024, {"some.avg10": 1.0}),
        ),
        (
            "MemTotal: 8 kB\n",
            None,
            Host(8192, unknown={"/proc/pressure/memory": "pressure accounting is off (boot with psi=1)"}),
        ),
        (
            "MemTotal: 8 kB\n",
            "some avg10\n",
            Host(8192, unknown={"/proc/pressure/memory": "not a `key=value` pair: 'avg10'"}),
        ),
    ],
)
def test_the_host_is_what_meminfo_and_its_pressure_say(proc, meminfo, pressure, host):
    (proc.root / "meminfo").write_text(meminfo)
    if pressure is not None:
        (proc.root / "pressure").mkdir()
        (proc.root / "pressure/memory").write_text(pressure)
    assert read_host(proc.root) == host


@pytest.mark.parametrize("meminfo", [None, "", "MemFree: 1 kB\n", "MemTotal: x kB\n"])
def test_a_machine_without_a_total_is_refused(proc, meminfo):
    if meminfo is not None:
        (proc.root / "meminfo").write_text(meminfo)
    with pytest.raises(UnsupportedSystemError, match="meminfo can't be read"):
        read_host(proc.root)


# --- one cgroup --------------------------------------------------------------------------------

WEB = "/system.slice/web.service"
FILES = {
    "memory.current": 1000,
    "memory.peak": 2000,
    "memory.swap.current": 30,
    "memory.zswap.current": 4,
    "memory.stat": "anon 500\ninactive_file 300",
    "memory.events": "high 1\nmax 2\noom 3\noom_kill 4",
    "memory.pressure": PRESSURE.rstrip("\n"),
    "memory.max": 4096,
    "memory.high": "max",
}


COUNTERS = ("memory.current", "memory.peak", "memory.swap.current", "memory.zswap.current")
EVERYTHING = Request(
    (*COUNTERS, "memory.max", "memory.high"),
    ("anon", *USAGE_KEYS),
    events=True,
    pressure=True,
    levels=True,
)


def read(tree, path=WEB, request=EVERYTHING):
    with Cgroup(path, tree.root) as cgroup:
        return cgroup.read(request, Ancestors(tree.root).levels(path))


def test_every_file_of_a_cgroup_is_read(tree):
    tree.add(WEB, FILES)
    reading = read(tree)
    assert (reading.path, *map(reading.counters.get, COUNTERS)) == (
        WEB,
        1000,
        2000,
        30,
        4,
    )
    assert reading.stat == {"anon": 500, "inactive_file": 300}
    assert reading.events == {"high": 1, "max": 2, "oom": 3, "oom_kill": 4}
    assert reading.pressure == parse_pressure(PRESSURE)
    assert reading.levels[0] == Level(WEB, max=4096, high=None, current=1000, inactive_file=300)
    assert reading.unknown == {}


NO_ACCOUNTING = "the file is missing (MemoryAccounting=no?)"


@pytest.mark.parametrize(
    ("file", "attribute", "reason"),
    [
        ("memory.current", "counters", NO_ACCOUNTING),
        ("memory.peak", "counters", "needs Linux 5.19"),
        ("memory.swap.current", "counters", "the kernel does no swap accounting"),
        ("memory.zswap.current", "counters", "the kernel has no zswap, or is older than 5.19"),
        ("memory.stat", "stat", NO_ACCOUNTING),
        ("memory.events", "events", NO_ACCOUNTING),
        ("memory.pressure", "pressure", "pressure accounting is off (boot with psi=1)"),
    ],
)
def test_a_missing_file_is_unknown_with_its_reason_and_the_rest_is_read(tree, file, attribute, reason):
    tree.add(WEB, {name: content for name, content in FILES.items() if name != file})
    reading = read(tree)
    found = getattr(reading, attribute)
    assert file not in found if attribute == "counters" else found == {}
    assert reading.unknown == {file: reason}


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("memory.current", "lots", "not a number: 'lots'"),
        ("memory.current", "", "not a number: ''"),
        ("memory.stat", "anon x", "not a number: 'x'"),
        ("memory.pressure", "some avg10", "not a `key=value` pair: 'avg10'"),
    ],
)
def test_a_malformed_file_is_unknown_with_what_is_wrong_in_it(tree, file, content, reason):
    tree.add(WEB, {**FILES, file: content})
    assert read(tree).unknown == {file: reason}


def test_a_file_that_is_not_utf8_is_unknown(tree):
    tree.add(WEB, FILES)
    (tree.root / WEB[1:] / "memory.stat").write_bytes(b"anon \xff\n")
    reading = read(tree)
    assert reading.stat == {}
    assert "memory.stat" in reading.unknown


def test_a_file_that_can_not_be_read_is_unknown(tree):
    tree.add(WEB, {name: content for name, content in FILES.items() if name != "memory.current"})
    (tree.root / WEB[1:] / "memory.current").mkdir()
    assert read(tree).unknown == {"memory.current": "is a directory"}


def test_the_levels_are_the_cgroup_and_each_ancestor_below_the_root(tree):
    tree.add("/", {"memory.stat": "anon 1"})
    tree.add(
        "/a.slice",
        {"memory.max": 5000, "memory.high": 4000, "memory.current": 10, "memory.stat": "inactive_file 3"},
    )
    tree.add("/a.slice/a-b.slice", {"memory.max": "max", "memory.high": "max", "memory.current": 9})
    tree.add("/a.slice/a-b.slice/c.service", {"memory.max": 700})
    assert read(tree, "/a.slice/a-b.slice/c.service").levels == (
        Level("/a.slice/a-b.slice/c.service", max=700),
        Level("/a.slice/a-b.slice", current=9),
        Level("/a.slice", max=5000, high=4000, current=10, inactive_file=3),
    )


def test_the_root_cgroup_has_no_counters_and_no_levels(tree):
    tree.add("/", {"memory.stat": "anon 5", "memory.pressure": "some avg10=1.00 total=0"})
    reading = read(tree, "/")
    assert (reading.path, reading.current, reading.levels) == ("/", None, ())
    assert reading.stat == {"anon": 5}
    assert reading.pressure == {"some.avg10": 1.0}
    assert set(reading.unknown.values()) == {"the root cgroup has no such file"}


@pytest.mark.parametrize(
    ("current", "inactive", "workingset"), [(10, 3, 7), (3, 10, 0), (None, 3, None), (3, None, None)]
)
def test_the_workingset_of_a_level_is_at_least_0_and_unknown_with_its_parts(current, inactive, workingset):
    assert Level("/a", current=current, inactive_file=inactive).workingset == workingset


@pytest.mark.parametrize(
    ("current", "file", "slab", "unreclaimable"),
    [
        (10, 3, 2, 5),
        (10, 0, 0, 10),
        (3, 10, 0, 0),
        (None, 3, 0, None),
        (3, None, 0, None),
        (3, 0, None, None),
    ],
)
def test_what_no_reclaim_gives_back_is_at_least_0_and_unknown_with_its_parts(
    current, file, slab, unreclaimable
):
    level = Level("/a", current=current, file=file, slab_reclaimable=slab)
    assert level.unreclaimable == unreclaimable


def test_the_file_lists_of_a_level_are_added_up(tree):
    tree.add(WEB, {**FILES, "memory.stat": "inactive_file 300\nactive_file 200\nslab_reclaimable 100"})
    assert (read(tree).levels[0].file, read(tree).levels[0].unreclaimable) == (500, 400)


def usage(current: int, cache: int) -> dict[str, int | str]:
    stat = f"active_file {cache}\ninactive_file 0\nslab_reclaimable 0"
    return FILES | {"memory.current": current, "memory.stat": stat}


@pytest.mark.parametrize(
    ("at", "current", "cache", "unreclaimable"),
    [
        ("memory.stat", 600, 100, 500),
        ("memory.stat", 1200, 700, 300),
        ("memory.stat", 1300, 500, 500),
        ("memory.current", 600, 100, 100),
        ("memory.current", 1200, 700, 500),
        ("memory.current", 1300, 500, 500),
    ],
)
def test_cache_that_goes_or_comes_while_a_cgroup_is_read_is_never_counted_as_unreclaimable(
    tree, monkeypatch, at, current, cache, unreclaimable
):
    """500 of 1000 are page cache; what there is changes before memory.stat, or memory.current for the second time."""
    tree.add(WEB, usage(1000, 500))
    plain, seen = Cgroup.read_file, []

    def read_file(cgroup: Cgroup, name: str) -> str:
        seen.append(name)
        if name == at and seen.count("memory.stat") == 1:
            tree.add(WEB, usage(current, cache))
        return plain(cgroup, name)

    monkeypatch.setattr(Cgroup, "read_file", read_file)
    with Cgroup(WEB, tree.root) as cgroup:
        reading = cgroup.read(Request(stat=USAGE_KEYS, levels=True))
    assert seen.count("memory.current") == 2
    assert reading.levels[0].unreclaimable == unreclaimable <= max(500, current - cache)


# --- cgroups that go and come ------------------------------------------------------------------


@pytest.mark.parametrize("path", [WEB, "/missing", f"{WEB}/memory.current"])
def test_what_is_no_cgroup_can_not_be_opened(tree, path):
    if path.startswith(f"{WEB}/"):
        tree.add(WEB, FILES)
    with pytest.raises(CgroupGoneError):
        Cgroup(path, tree.root)


def test_a_symbolic_link_is_no_cgroup(tree):
    tree.add(WEB, FILES)
    (tree.root / "link").symlink_to(tree.root / WEB[1:])
    with pytest.raises(CgroupGoneError):
        Cgroup("/link", tree.root)


READINGS = {
    "read": lambda cgroup: cgroup.read(Request()),
    "read_file": lambda cgroup: cgroup.read_file("memory.current"),
    "pids": Cgroup.pids,
    "limit": lambda cgroup: cgroup.limit("memory.high"),
    "is_frozen": Cgroup.is_frozen,
}


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS)
def test_a_removed_cgroup_is_gone(tree, reading):
    tree.add(WEB, FILES)
    with Cgroup(WEB, tree.root) as cgroup:
        assert cgroup.exists()
        tree.remove(WEB)
        assert not cgroup.exists()
        with pytest.raises(CgroupGoneError):
            reading(cgroup)


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS)
def test_a_cgroup_made_again_under_the_same_path_is_another_one(tree, reading):
    tree.add(WEB, FILES, pids=[1])
    with Cgroup(WEB, tree.root) as old:
        tree.remove(WEB)
        tree.add(WEB, FILES, pids=[2])
        with Cgroup(WEB, tree.root) as new:
            assert new.inode != old.inode
            assert (old.exists(), new.exists()) == (False, True)
            assert new.pids() == [2]
        with pytest.raises(CgroupGoneError):
            reading(old)


def test_a_missing_file_of_a_cgroup_that_exists_is_no_sign_of_its_end(tree):
    tree.add(WEB)
    with Cgroup(WEB, tree.root) as cgroup, pytest.raises(FileNotFoundError):
        cgroup.read_file("memory.current")


def test_closing_twice_is_harmless_and_reading_then_fails(tree):
    tree.add(WEB, FILES)
    cgroup = Cgroup(WEB, tree.root)
    cgroup.close()
    cgroup.close()
    with pytest.raises(OSError):
        cgroup.read_file("memory.current")


# --- what is asked of the kernel --------------------------------------------------------------


@pytest.mark.parametrize(("content", "size"), [("max", None), (0, 0), (4096, 4096)])
def test_a_limit_is_bytes_and_max_is_none(tree, content, size):
    tree.add(WEB, {"memory.high": content})
    with Cgroup(WEB, tree.root) as cgroup:
        assert cgroup.limit("memory.high") == size


@pytest.mark.parametrize(
    ("content", "frozen"),
    [("populated 1\nfrozen 1", True), ("populated 1\nfrozen 0", False), ("populated 1", False)],
)
def test_a_cgroup_is_frozen_when_its_events_say_so(tree, content, frozen):
    tree.add(WEB, {"cgroup.events": content})
    with Cgroup(WEB, tree.root) as cgroup:
        assert cgroup.is_frozen() is frozen


REQUESTS = {
    "kill": (Cgroup.kill, "cgroup.kill", "1"),
    "reclaim": (lambda cgroup: cgroup.reclaim(4096), "memory.reclaim", "4096"),
}
each_request = pytest.mark.parametrize(("ask", "file", "text"), REQUESTS.values(), ids=REQUESTS)


@each_request
def test_a_request_is_written_to_its_file(tree, ask, file, text):
    tree.add(WEB)
    (tree.root / WEB[1:] / file).touch()
    with Cgroup(WEB, tree.root) as cgroup:
        ask(cgroup)
    assert (tree.root / WEB[1:] / file).read_text() == text


@each_request
def test_a_request_that_the_kernel_does_not_know_creates_no_file(tree, ask, file, text):
    tree.add(WEB)
    with Cgroup(WEB, tree.root) as cgroup, pytest.raises(FileNotFoundError):
        ask(cgroup)
    assert not (tree.root / WEB[1:] / file).exists()


@each_request
def test_a_request_to_a_removed_cgroup_says_that_it_is_gone(tree, ask, file, text):
    tree.add(WEB)
    with Cgroup(WEB, tree.root) as cgroup:
        tree.remove(WEB)
        with pytest.raises(CgroupGoneError):
            ask(cgroup)


@each_request
def test_a_request_does_not_reach_a_cgroup_made_again_under_the_same_path(tree, ask, file, text):
    tree.add(WEB)
    with Cgroup(WEB, tree.root) as old:
        tree.remove(WEB)
        tree.add(WEB)
        successor = tree.root / WEB[1:] / file
        successor.touch()
        with Cgroup(WEB, tree.root), pytest.raises(CgroupGoneError):
            ask(old)
    assert successor.read_text() == ""


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENODEV, CgroupGoneError), (errno.EAGAIN, BlockingIOError), (errno.EACCES, PermissionError)],
)
@each_request
def test_what_the_kernel_answers_to_a_request(tree, monkeypatch, ask, file, text, number, error):
    def refuse(descriptor, data):
        raise OSError(number, os.strerror(number))

    tree.add(WEB)
    (tree.root / WEB[1:] / file).touch()
    before = open_descriptors()
    with Cgroup(WEB, tree.root) as cgroup:
        monkeypatch.setattr(os, "write", refuse)
        with pytest.raises(error):
            ask(cgroup)
        monkeypatch.undo()
    assert open_descriptors() == before


# --- processes ---------------------------------------------------------------------------------


def test_the_processes_are_those_of_the_whole_subtree_each_once(tree):
    tree.add("/user@1000.service", pids=[])
    tree.add("/user@1000.service/init.scope", pids=[10])
    tree.add("/user@1000.service/app.slice", pids=[])
    tree.add("/user@1000.service/app.slice/a.service", pids=[11, 12])
    tree.add("/user@1000.service/app.slice/b.service/nested/deep", pids=[13, 10])
    tree.add("/user@1001.service", pids=[99])
    with Cgroup("/user@1000.service", tree.root) as cgroup:
        assert sorted(cgroup.pids()) == [10, 11, 12, 13]


def nest(tree, names, pids=()):
    """Cgroups in WEB, each in the one before, with `pids` in the deepest; the path may be of any length."""
    tree.add(WEB, pids=[1])
    directory = os.open(tree.root / WEB[1:], os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=directory)
        parent, directory = directory, os.open(name, os.O_RDONLY, dir_fd=directory)
        os.close(parent)
        procs = os.open("cgroup.procs", os.O_WRONLY | os.O_CREAT, dir_fd=directory)
        os.write(procs, "".join(f"{pid}\n" for pid in (pids if name is names[-1] else ())).encode())
        os.close(procs)
    os.close(directory)


def list_pids(tree, proc=PROC_ROOT):
    with Cgroup(WEB, tree.root) as cgroup:
        return cgroup.pids(proc)


@pytest.mark.parametrize("length", [1, 250])
def test_processes_are_found_however_long_the_path_of_their_cgroup(tree, length):
    nest(tree, [f"{level:0{length}}" for level in range(9 if length == 1 else 60)], pids=[7])
    assert list_pids(tree) == [1, 7]


def test_processes_that_are_nested_too_deep_to_look_for_are_not_left_out_silently(tree):
    nest(tree, [str(level) for level in range(64)], pids=[7])
    assert list_pids(tree) == [1, 7]
    tree.remove(WEB)
    nest(tree, [str(level) for level in range(65)])
    before = open_descriptors()
    with pytest.raises(OSError, match="cgroups in it are nested deeper than 64 levels"):
        list_pids(tree)
    assert open_descriptors() == before


def test_more_cgroups_than_are_looked_into_are_not_left_out_silently(tree, monkeypatch):
    monkeypatch.setattr(members, "_MOST_CGROUPS", 50)
    tree.add(WEB, pids=[5])
    for number in range(49):
        tree.add(f"{WEB}/{number}")
    assert list_pids(tree) == [5]
    tree.add(f"{WEB}/one-more", pids=[6])
    with pytest.raises(OSError, match="there are more than 50 cgroups in it"):
        list_pids(tree)


def test_too_many_cgroups_are_counted_by_the_kernel_and_not_walked_through(tree, monkeypatch):
    monkeypatch.setattr(members, "_MOST_CGROUPS", 50)
    tree.add(WEB, {"cgroup.stat": "nr_descendants 49\nnr_dying_descendants 9000"}, pids=[5])
    tree.add(f"{WEB}/one", pids=[6])
    assert list_pids(tree) == [5, 6]
    tree.add(WEB, {"cgroup.stat": "nr_descendants 50\nnr_dying_descendants 0"}, pids=[5])
    with pytest.raises(OSError, match="there are more than 50 cgroups in it"):
        list_pids(tree)


@pytest.mark.parametrize(
    ("events", "found"), [("populated 0\nfrozen 0", [5]), ("populated 1", [5, 6, 7]), ("garbage", [5, 6, 7])]
)
def test_below_a_cgroup_without_processes_none_are_looked_for(tree, events, found):
    tree.add(WEB, pids=[5])
    tree.add(f"{WEB}/one", {"cgroup.events": events}, pids=[6])  # as it would not be
    tree.add(f"{WEB}/one/deep", pids=[7])
    assert list_pids(tree) == found


def test_without_descriptors_to_look_deeper_not_all_processes_are_known(tree):
    nest(tree, [str(level) for level in range(40)], pids=[7])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = open_descriptors()
    free = os.dup(0)
    os.close(free)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 20, hard))
        with pytest.raises(OSError) as caught:
            list_pids(tree)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EMFILE
    assert open_descriptors() == before


@pytest.mark.parametrize("where", [WEB, f"{WEB}/child"])
def test_a_list_of_processes_that_can_not_be_read_is_not_an_empty_one(tree, where):
    tree.add(WEB)
    tree.add(f"{WEB}/child")
    (tree.root / where[1:] / "cgroup.procs").unlink()
    (tree.root / where[1:] / "cgroup.procs").mkdir()
    with pytest.raises(IsADirectoryError):
        list_pids(tree)


def test_a_missing_list_of_processes_is_not_an_empty_one(tree):
    tree.add(WEB)
    (tree.root / WEB[1:] / "cgroup.procs").unlink()
    with pytest.raises(FileNotFoundError):
        list_pids(tree)


def test_a_process_of_a_foreign_pid_namespace_is_not_left_out_silently(tree):
    """The kernel lists it as 0; a sum over the others would be too small."""
    tree.add(WEB, pids=[0, 5, 0])
    with pytest.raises(OSError, match="some are in a pid namespace that can't be seen from this one"):
        list_pids(tree)


def test_a_cgroup_within_that_goes_meanwhile_takes_only_its_own_processes_along(tree):
    tree.add(WEB, pids=[5])
    tree.add(f"{WEB}/child", pids=[6])
    (tree.root / WEB[1:] / "child/cgroup.procs").unlink()
    with Cgroup(WEB, tree.root) as cgroup:
        assert cgroup.pids() == [5]


@pytest.fixture
def opening(monkeypatch):
    """opening(path, happen): calls `happen` whenever the walk opens what ends with that path."""
    calls = {}

    def open_after(name, *args, dir_fd=None, **kwargs):
        path = str(name) if dir_fd is None else f"{Path(f'/proc/self/fd/{dir_fd}').readlink()}/{name}"
        for end, happen in calls.items():
            if path.endswith(end):
                happen()
        return opened(name, *args, dir_fd=dir_fd, **kwargs)

    opened = os.open
    monkeypatch.setattr(os, "open", open_after)
    return calls.__setitem__


def fail(number):
    def happen():
        raise OSError(number, os.strerror(number))

    return happen


def test_a_part_that_may_not_be_looked_at_is_not_left_out_silently(tree, opening):
    """A user to whom a part of the tree was handed over may close it; who asks for all must not get some."""
    tree.add(WEB, pids=[5])
    tree.add(f"{WEB}/closed", pids=[6])
    opening("/closed", fail(errno.EACCES))
    with pytest.raises(PermissionError):
        list_pids(tree)


def test_a_cgroup_that_is_removed_before_it_is_opened_had_no_process(tree, opening):
    tree.add(WEB, pids=[5])
    tree.add(f"{WEB}/empty")
    tree.add(f"{WEB}/other", pids=[6])
    opening("/empty", lambda: (tree.root / WEB[1:] / "empty").rename(tree.root / "removed"))
    assert list_pids(tree) == [5, 6]


def test_the_processes_of_a_threaded_cgroup_are_listed_at_its_domain(tree, opening):
    tree.add(WEB)
    tree.add(f"{WEB}/domain", pids=[5])
    tree.add(f"{WEB}/domain/pool", {"cgroup.threads": 6})
    opening("/pool/cgroup.procs", fail(errno.EOPNOTSUPP))
    assert list_pids(tree) == [5]


@pytest.mark.parametrize("name", ["worker", "\rTgid:\t1"])
def test_the_processes_of_a_threaded_unit_are_those_of_all_threads_in_it(tree, proc, opening, name):
    tree.add(WEB, {"cgroup.threads": "5\n6"})
    tree.add(f"{WEB}/pool", {"cgroup.threads": "7\n8"})
    for thread, process in ((5, 5), (6, 5), (7, 7)):  # and 8 is hidden, or has ended
        proc.add(thread)
        (proc.root / f"{thread}/status").write_bytes(f"Name:\t{name}\nTgid:\t{process}\n".encode())
    opening("/cgroup.procs", fail(errno.EOPNOTSUPP))
    assert list_pids(tree, proc.root) == [5, 7, 8]


def test_a_cgroup_below_may_be_called_anything(tree, proc):
    tree.add(WEB)
    proc.add(7)
    (proc.root / "7/cgroup").write_bytes(f"0::{WEB}/".encode() + b"\xff\n")
    with Cgroup(WEB, tree.root) as cgroup:
        assert cgroup.contains(7, proc.root)


@pytest.mark.parametrize(
    ("process", "contained"),
    [
        (WEB, True),
        (f"{WEB}/worker", True),
        (f"{WEB}2", False),
        ("/system.slice", False),
        ("/", False),
        (f"{WEB} (deleted)", True),
    ],
)
def test_a_cgroup_contains_the_processes_in_it_and_below(tree, proc, process, contained):
    tree.add(WEB)
    proc.add(7, cgroup=process)
    with Cgroup(WEB, tree.root) as cgroup:
        assert cgroup.contains(7, proc.root) is contained


def test_the_root_contains_every_process(tree, proc):
    proc.add(7, cgroup=WEB)
    with Cgroup("/", tree.root) as cgroup:
        assert cgroup.contains(7, proc.root)


def test_a_process_that_ended_is_contained_nowhere(tree, proc):
    tree.add(WEB)
    with Cgroup(WEB, tree.root) as cgroup:
        assert not cgroup.contains(7, proc.root)


def test_a_removed_cgroup_contains_nothing_even_if_its_path_is_used_again(tree, proc):
    tree.add(WEB)
    proc.add(7, cgroup=WEB)
    with Cgroup(WEB, tree.root) as cgroup:
        tree.remove(WEB)
        tree.add(WEB)
        assert not cgroup.contains(7, proc.root)


# --- what is held open -------------------------------------------------------------------------


def open_descriptors():
    return sorted(os.listdir("/proc/self/fd"))


def test_no_descriptor_is_left_open(tree):
    tree.add(WEB, {name: content for name, content in FILES.items() if name != "memory.peak"}, pids=[1])
    before = open_descriptors()
    with Cgroup(WEB, tree.root) as cgroup:
        cgroup.read(EVERYTHING)
        cgroup.pids()
        tree.remove("/system.slice")
        with pytest.raises(CgroupGoneError):
            cgroup.read(EVERYTHING)
    assert open_descriptors() == before


def counted(monkeypatch):
    """The names of files that are opened from now on."""
    opened = []
    plain = Cgroup.open_file
    monkeypatch.setattr(Cgroup, "open_file", lambda self, name: opened.append(name) or plain(self, name))
    return opened


def test_only_what_is_asked_for_is_read_of_a_cgroup(tree, monkeypatch):
    tree.add(WEB, FILES)
    opened = counted(monkeypatch)
    with Cgroup(WEB, tree.root) as cgroup:
        cgroup.read(Request(("memory.peak",)))
    assert opened == ["memory.peak", "memory.current"]


def test_files_stay_open_until_their_cgroup_is_closed(tree, monkeypatch):
    tree.add(WEB, FILES)
    before, kept = open_descriptors(), OpenFiles(100)
    with Cgroup(WEB, tree.root, kept) as cgroup:
        cgroup.read(EVERYTHING)
        opened = counted(monkeypatch)
        tree.add(WEB, FILES | {"memory.current": 77, "memory.stat": "anon 55"})
        reading = cgroup.read(EVERYTHING)
        assert (reading.current, reading.stat, opened) == (77, {"anon": 55}, [])
        assert kept.count == len(FILES)
    assert (kept.count, kept.is_short, open_descriptors()) == (0, False, before)


def test_past_their_limit_files_are_opened_anew_each_time(tree, monkeypatch):
    tree.add(WEB, FILES)
    before, kept = open_descriptors(), OpenFiles(1)
    with Cgroup(WEB, tree.root, kept) as cgroup:
        readings = [cgroup.read(EVERYTHING)]
        opened = counted(monkeypatch)
        readings.append(cgroup.read(EVERYTHING))
        assert readings[0] == readings[1]
        assert (kept.is_short, len(open_descriptors())) == (True, len(before) + 2)
        assert set(FILES) - set(opened) == {"memory.peak"}
    assert open_descriptors() == before


@pytest.mark.parametrize("is_removed", [True, False], ids=["removed", "its controller is turned off and on"])
def test_a_kept_file_that_is_no_more_is_opened_anew_or_gone_with_its_cgroup(tree, monkeypatch, is_removed):
    tree.add(WEB, FILES)
    with Cgroup(WEB, tree.root, OpenFiles(100)) as cgroup:
        cgroup.read(EVERYTHING)
        pread, stale = os.pread, set(map(int, open_descriptors()))

        def read_live(descriptor, *arguments):
            if descriptor in stale:
                stale.discard(descriptor)  # its number is free now
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
            return pread(descriptor, *arguments)

        monkeypatch.setattr(os, "pread", read_live)
        if is_removed:
            tree.remove(WEB)
            with pytest.raises(CgroupGoneError):
                cgroup.read(EVERYTHING)
        else:
            tree.add(WEB, FILES | {"memory.current": 77})
            assert cgroup.read(EVERYTHING).current == 77


def test_an_ancestor_stays_open_as_long_as_it_is_used_and_is_the_same(tree):
    tree.add("/a.slice", {"memory.max": 5000})
    tree.add("/a.slice/b.service")
    before, kept = open_descriptors(), OpenFiles(100)
    ancestors = Ancestors(tree.root, kept)
    assert [level.max for level in ancestors.levels("/a.slice/b.service")] == [5000]
    held = kept.count
    tree.remove("/a.slice")
    tree.add("/x.slice")  # takes the inode that may have become free
    tree.add("/a.slice", {"memory.max": 7000})
    tree.add("/a.slice/b.service")
    ancestors.begin()
    assert [level.max for level in ancestors.levels("/a.slice/b.service")] == [7000]
    assert kept.count == held > 0
    ancestors.begin()
    ancestors.begin()
    assert (kept.count, open_descriptors()) == (0, before)


def test_watching_events_leaves_no_descriptor_open_whether_a_file_can_be_polled_or_not(tree):
    pollable = "/proc/self/mountinfo"  # reports changes as memory.events does
    for name, target in {"polled": pollable, "plain": "/dev/null", "removed": pollable}.items():
        tree.add(f"/{name}.service")
        (tree.root / f"{name}.service/memory.events").symlink_to(target)
    tree.add("/without.service")
    names = ("polled", "plain", "removed", "without")
    cgroups = [Cgroup(f"/{name}.service", tree.root) for name in names]
    before = open_descriptors()
    events = MemoryEvents()
    for cgroup in (*cgroups, *cgroups):
        events.add(cgroup)
    events.remove(cgroups[2])
    events.remove(cgroups[2])
    events.acknowledge()
    assert (
        len(open_descriptors()) == len(before) + 2
    )  # the epoll, and what can be polled and is still watched
    events.close()
    assert open_descriptors() == before
    for cgroup in cgroups:
        cgroup.close()
