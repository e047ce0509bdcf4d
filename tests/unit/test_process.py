"""Processes by what /proc says of them: odd names, zombies, pids that are used again; real ones where it counts."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitmem.kernel.process import (
    PinnedProcess,
    Process,
    ProcessGoneError,
    Stat,
    is_alive,
    parse_cmdline,
    parse_stat,
    parse_statm,
    read_process,
    send_signal,
    with_command,
    with_pss,
)
from unitmem.kernel.smaps import WANTED, parse_smaps_rollup, parse_wanted
from unitmem.text import printable

PAGE = os.sysconf("SC_PAGE_SIZE")
ODD_NAMES = ["", ") Z ", ") Z 1 2 3", "(", ")", "a b", "new\nline", "((x))", "Z", ") S 1 (", "\x1b[31m"]


def stat_line(name, state="S", start_time=4711, parent=1, threads=1):
    return f"42 ({name}) {state} {parent} {'0 ' * 15}{threads} 0 {start_time} 0 0\n"


# --- parsers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD_NAMES)
def test_no_name_hides_the_state_and_start_time_behind_it(name):
    assert parse_stat(stat_line(name)) == Stat(name, "S", 4711, parent=1, threads=1)


@given(
    name=st.text(),
    state=st.sampled_from("RSDZTtXI"),
    start_time=st.integers(0, 2**63),
    parent=st.integers(0, 2**22),
    threads=st.integers(0, 2**22),
)
def test_stat_is_read_whatever_the_name(name, state, start_time, parent, threads):
    line = stat_line(name, state, start_time, parent, threads)
    assert parse_stat(line) == Stat(name, state, start_time, parent, threads)


@pytest.mark.parametrize(
    ("state", "threads", "ended"),
    [("S", 1, False), ("R", 5, False), ("T", 1, False), ("Z", 1, True), ("Z", 2, False), ("X", 0, True)],
)
def test_a_zombie_has_ended_unless_threads_are_left(state, threads, ended):
    assert parse_stat(stat_line("a", state, threads=threads)).has_ended is ended


@pytest.mark.parametrize(
    "text",
    ["", "42", "42 (a)", "42 (a) S 1 2 3", "42 a S" + " 0" * 30, ")(" + " 0" * 30, stat_line("a", "S", "x")],
)
def test_a_bad_stat_is_refused(text):
    with pytest.raises(ValueError):
        parse_stat(text)


def test_the_resident_size_is_the_second_field_of_statm_in_pages():
    assert parse_statm("900 25 10 1 0 30 0\n") == 25 * PAGE


@pytest.mark.parametrize("text", ["", "900\n", "900 many\n"])
def test_a_bad_statm_is_refused(text):
    with pytest.raises(ValueError):
        parse_statm(text)


ROLLUP = """\
55a0-7ffd ---p 00000000 00:00 0                          [rollup]
Rss:                1024 kB
Pss:                 512 kB
Pss_Anon:            500 kB
Private_Clean:         8 kB
Private_Dirty:       100 kB
Private_Hugetlb:    2048 kB
SwapPss:               4 kB
"""


def test_smaps_rollup_is_bytes_by_key():
    assert parse_smaps_rollup(ROLLUP) == {
        "Rss": 1024 * 1024,
        "Pss": 512 * 1024,
        "Pss_Anon": 500 * 1024,
        "Private_Clean": 8 * 1024,
        "Private_Dirty": 100 * 1024,
        "Private_Hugetlb": 2048 * 1024,
        "SwapPss": 4 * 1024,
    }


@given(
    sizes=st.lists(st.integers(0, 2**60), min_size=len(WANTED), max_size=len(WANTED)),
    lacks=st.sets(st.sampled_from(WANTED)),
)
def test_what_is_wanted_is_found_as_if_every_line_were_read(sizes, lacks):
    """Also where a kernel lacks some of it, or says what can't be true."""
    lines = [
        f"{key}: {size} kB\nOther_{key}: 7 kB"
        for key, size in zip(WANTED, sizes, strict=True)
        if key not in lacks
    ]
    rollup = "\n".join(["00-ff ---p 00000000 00:00 0 [rollup]", "Rss: 9 kB", *lines, "Locked: 0 kB", ""])
    try:
        whole = parse_smaps_rollup(rollup)
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error))):
            parse_wanted(rollup)
    else:
        found = parse_wanted(rollup)
        assert {key: found.get(key) for key in WANTED} == {key: whole.get(key) for key in WANTED}


def test_the_mappings_of_a_whole_smaps_are_added_up():
    smaps = "00-01 r--p 0 00:00 0 /a\nPss: 3 kB\nVmFlags: rd mr\n01-02 r--p 0 00:00 0 /b: 9 kB\nPss: 4 kB\n"
    assert parse_smaps_rollup(smaps)["Pss"] == 7 * 1024


@pytest.mark.parametrize("text", ["", "Rss: 1 kB\n", "Pss: x kB\n", "Pss: 5\n"])
def test_a_rollup_without_pss_is_refused(text):
    with pytest.raises(ValueError):
        parse_smaps_rollup(text)


@pytest.mark.parametrize(
    ("data", "command"),
    [
        (b"", ""),
        (b"/bin/sh\0-c\0exit 0\0", "/bin/sh -c exit 0"),
        (b"nginx: master process\0\0\0", "nginx: master process"),
        (b"a\0\0b\0", "a  b"),
        (b"evil\n\x1b[31m\0", "evil\\n\\x1b[31m"),
        (b"\xff\0", "\ufffd"),
        ("größe\0".encode(), "größe"),
    ],
)
def test_a_command_line_is_one_printable_line(data, command):
    assert parse_cmdline(data) == command


@given(text=st.text())
def test_what_is_made_printable_fits_one_line_of_a_terminal(text):
    assert printable(text).isprintable()
    assert printable(text) == text or not text.isprintable()


@pytest.mark.parametrize(
    ("name", "label"), [("sh", "pid 7 (sh)"), ("", "pid 7 (?)"), ("a\nb", "pid 7 (a\\nb)")]
)
def test_a_label_names_the_process_on_one_line(name, label):
    assert Process(7, 1, name).label == label


@given(text=st.text() | st.text("0123456789 ()kBPss:\n"))
@pytest.mark.parametrize("parse", [parse_stat, parse_statm, parse_smaps_rollup])
def test_a_parser_raises_nothing_but_value_error(parse, text):
    try:
        parse(text)
    except ValueError:
        return


# --- reading what a test has built -------------------------------------------------------------


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_process_is_read_whatever_its_name(proc, name):
    proc.add(42, name, rss=3 * PAGE, command=b"/bin/x\0-v\0")
    process = read_process(42, proc.root)
    assert process == Process(42, 100, name, rss=3 * PAGE)
    assert with_command(process, proc.root) == replace(process, command="/bin/x -v")


@pytest.mark.parametrize("state", ["Z", "X"])
def test_a_process_that_has_ended_but_for_its_parent_is_gone(proc, state):
    proc.add(42, state=state, rollup={"Pss": 1024})
    with pytest.raises(ProcessGoneError):
        read_process(42, proc.root)
    with pytest.raises(ProcessGoneError):
        with_pss(Process(42, 100, "worker"), proc.root)


def test_of_a_long_command_line_the_start_is_read_and_no_more(proc):
    proc.add(42, "java", command=b"/bin/java\0-cp\0" + b"x" * 1_000_000)
    process = with_command(read_process(42, proc.root), proc.root)
    assert process.command.startswith("/bin/java -cp xxx")
    assert len(process.command) <= 4096


def test_a_command_line_is_that_of_the_same_process_or_none(proc):
    proc.add(42, "a", command=b"/bin/a")
    process = read_process(42, proc.root)
    proc.add(42, "b", start_time=200, command=b"/bin/b")
    assert with_command(process, proc.root) == process
    proc.remove(42)
    assert with_command(process, proc.root) == process


@pytest.mark.parametrize("file", ["stat", "statm"])
def test_a_process_that_ends_while_it_is_read_is_gone(proc, file):
    proc.add(42)
    (proc.root / "42" / file).unlink()
    with pytest.raises(ProcessGoneError):
        read_process(42, proc.root)


def test_pss_uss_and_swap_come_from_the_rollup(proc):
    proc.add(42, rss=8 * PAGE)
    (proc.root / "42/smaps_rollup").write_text(ROLLUP)
    process = with_pss(read_process(42, proc.root), proc.root)
    assert (process.pss, process.uss, process.swap_pss) == (512 * 1024, (8 + 100 + 2048) * 1024, 4 * 1024)
    assert (process.rss, process.unknown) == (8 * PAGE, None)


def test_huge_pages_are_counted_beside_pss(proc):
    """The kernel counts those of hugetlbfs in neither Pss nor Rss."""
    pages = {"Private_Hugetlb": 4 << 20, "Shared_Hugetlb": 2 << 20}
    proc.add(42, rollup={"Pss": 1 << 20, "Private_Clean": 0, "Private_Dirty": 1 << 20, **pages})
    process = with_pss(read_process(42, proc.root), proc.root)
    assert (process.pss, process.uss, process.hugetlb) == (1 << 20, 5 << 20, 6 << 20)
    assert process.held == 7 << 20


@pytest.mark.parametrize(
    ("sizes", "held"),
    [({}, None), ({"rss": 9}, 9), ({"rss": 9, "pss": 5}, 5), ({"rss": 9, "pss": 5, "hugetlb": 70}, 75)],
)
def test_what_a_process_holds_is_rss_until_pss_is_known(sizes, held):
    assert Process(7, 1, "p", **sizes).held == held


def test_a_kernel_without_swap_pss_leaves_only_that_unknown(proc):
    proc.add(42, rollup={"Pss": 2048, "Private_Clean": 0, "Private_Dirty": 1024, "Private_Hugetlb": 0})
    process = with_pss(read_process(42, proc.root), proc.root)
    assert (process.pss, process.uss, process.swap_pss, process.unknown) == (2048, 1024, None, None)


@pytest.mark.parametrize("missing", ["Private_Clean", "Private_Dirty", "Private_Hugetlb"])
def test_without_one_of_its_parts_uss_is_unknown(proc, missing):
    rollup = {"Pss": 2048, "Private_Clean": 1024, "Private_Dirty": 1024, "Private_Hugetlb": 1024}
    proc.add(42, rollup={key: size for key, size in rollup.items() if key != missing})
    assert with_pss(read_process(42, proc.root), proc.root).uss is None


@pytest.mark.parametrize(
    ("rollup", "reason"),
    [
        ({"Rss": 1024}, "no Pss in it"),
        ({}, "no Pss in it"),
        (None, "no such file or directory"),
        ({"Pss": 2**64 - 4096}, "Pss is 18446744073709547520, which can't be true"),
    ],
)
def test_a_live_process_without_a_readable_rollup_is_unknown_with_the_reason(proc, rollup, reason):
    proc.add(42, rss=PAGE, rollup=rollup)
    process = with_pss(read_process(42, proc.root), proc.root)
    assert (process.pss, process.uss, process.unknown) == (None, None, reason)
    assert process.rss == PAGE


def test_a_pss_that_can_not_be_true_is_refused(proc):
    """A guard that reads nothing else would kill for it."""
    proc.add(42, rollup={"Pss": 2**64 - 4096})
    with PinnedProcess(42, proc.root) as pinned, pytest.raises(ValueError):
        pinned.read_pss()


@pytest.mark.parametrize("rollup", [{"Pss": 1024}, {}, None])
def test_the_next_owner_of_a_pid_is_never_measured_for_the_last(proc, rollup):
    proc.add(42, start_time=100)
    process = read_process(42, proc.root)
    proc.add(42, start_time=101, rollup=rollup)
    assert not is_alive(process, proc.root)
    with pytest.raises(ProcessGoneError):
        with_pss(process, proc.root)


@pytest.mark.parametrize(
    ("pss", "rss", "least"),
    [(5, 100, 5), (None, 100, 100), (None, None, None), (0, 100, 0)],
)
def test_pss_is_bounded_by_itself_or_else_by_rss_with_room_for_what_statm_lags(pss, rss, least):
    bound = Process(1, 1, "a", rss=rss, pss=pss).pss_at_most
    if pss is not None or rss is None:
        assert bound == least
    else:
        assert bound > least


# --- real processes ----------------------------------------------------------------------------


@pytest.fixture
def child():
    """A process that ends with status 0 once its input is closed."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        yield process
        process.kill()


@pytest.fixture
def zombie():
    """The pid and start time of a process that has ended, and whose parent has not asked for its status yet."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        alive = read_process(process.pid)
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        yield alive


def ends_unharmed(child):
    """Whether no signal has reached `child`: it lives on to its own, orderly end."""
    child.stdin.close()
    return child.wait() == 0


def test_this_process_has_the_name_and_start_time_that_the_kernel_gives_it():
    process = read_process(os.getpid())
    assert process.name == Path("/proc/self/comm").read_text().removesuffix("\n")
    assert is_alive(process)
    assert process.rss > 0


def test_pss_is_what_the_mappings_of_this_process_add_up_to():
    def summed():
        text = Path("/proc/self/smaps").read_text()
        return parse_smaps_rollup(text)["Pss"], text.count("\nPss:") * 1024  # each is rounded down to 1 kB

    before, _ = summed()
    process = with_pss(read_process(os.getpid()))
    after, rounding = summed()
    allocated_meanwhile = 1 << 20
    assert min(before, after) - allocated_meanwhile <= process.pss
    assert process.pss <= max(before, after) + rounding + allocated_meanwhile
    assert process.uss <= process.pss <= replace(process, pss=None).pss_at_most


def test_a_zombie_is_gone_to_every_reader(zombie):
    assert Path(f"/proc/{zombie.pid}").exists()
    assert not is_alive(zombie)
    with pytest.raises(ProcessGoneError):
        read_process(zombie.pid)
    with pytest.raises(ProcessGoneError):
        with_pss(zombie)


def test_a_process_that_lost_its_main_thread_is_read_by_another_thread():
    program = (
        "import ctypes, threading, time\n"
        "held = bytearray(b'x') * (32 << 20)\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with subprocess.Popen([sys.executable, "-SEc", program]) as process:
        stat = Path(f"/proc/{process.pid}/stat")
        while " Z " not in stat.read_text():
            time.sleep(0.01)
        read = with_pss(read_process(process.pid))
        assert min(read.rss, read.pss, read.uss) > 32 << 20
        send_signal(read, signal.SIGKILL, still_meant=lambda: True)
        assert process.wait() == -signal.SIGKILL
        assert not is_alive(read)


def test_nobody_is_told_to_have_ended_who_can_not_be_looked_at(child, monkeypatch):
    process = read_process(child.pid)

    def refuse(*arguments, **options):
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        assert is_alive(process)
        with pytest.raises(OSError, match="Too many open files"):
            send_signal(process, signal.SIGKILL, still_meant=lambda: True)
    assert ends_unharmed(child)


def test_a_kernel_thread_has_no_memory_of_its_own():
    comm = Path("/proc/2/comm")
    if os.geteuid() != 0 or not comm.exists() or comm.read_text() != "kthreadd\n":
        pytest.skip("no kernel thread can be seen from here")
    process = with_pss(read_process(2))
    assert (process.rss, process.pss, process.uss, process.unknown) == (0, 0, 0, None)


# --- signals -----------------------------------------------------------------------------------


def test_a_signal_reaches_the_process_that_is_meant(child):
    send_signal(read_process(child.pid), signal.SIGTERM, still_meant=lambda: True)
    assert child.wait() == -signal.SIGTERM


def test_a_process_that_is_no_longer_meant_is_not_signalled(child):
    with pytest.raises(ProcessGoneError):
        send_signal(read_process(child.pid), signal.SIGKILL, still_meant=lambda: False)
    assert ends_unharmed(child)


@pytest.mark.parametrize("other", [-1, 1, 10_000])
def test_the_next_owner_of_a_pid_is_never_signalled(child, other):
    process = read_process(child.pid)
    earlier = replace(process, start_time=process.start_time + other)
    with pytest.raises(ProcessGoneError):
        send_signal(earlier, signal.SIGKILL, still_meant=lambda: True)
    assert ends_unharmed(child)


def test_a_zombie_can_not_be_signalled(zombie):
    with pytest.raises(ProcessGoneError):
        send_signal(zombie, signal.SIGTERM, still_meant=lambda: True)


def test_a_process_that_has_ended_can_not_be_signalled(child):
    process = read_process(child.pid)
    ends_unharmed(child)
    with pytest.raises(ProcessGoneError):
        send_signal(process, signal.SIGTERM, still_meant=lambda: True)


def test_a_process_that_ends_at_the_last_moment_is_gone(child):
    def ends_first():
        return ends_unharmed(child)

    with pytest.raises(ProcessGoneError):
        send_signal(read_process(child.pid), signal.SIGTERM, still_meant=ends_first)


@pytest.mark.parametrize("meant", [True, False])
def test_a_signal_leaves_no_descriptor_open(child, meant):
    process = read_process(child.pid)
    before = sorted(os.listdir("/proc/self/fd"))
    try:
        send_signal(process, signal.SIGCONT, still_meant=lambda: meant)
    except ProcessGoneError:
        assert not meant
    assert sorted(os.listdir("/proc/self/fd")) == before
