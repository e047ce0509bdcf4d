"""One process: its identity, RSS from statm, and PSS, USS and SwapPss from smaps_rollup.

Reference: proc_pid_statm(5), proc_pid_smaps(5), Documentation/filesystems/proc.rst. Reading
smaps_rollup walks the target's page tables under its mmap_lock: some 15 ms a GiB, during which the
target waits as well. So RSS, which costs microseconds and is never less than PSS, is read first,
and PSS only where it can decide something.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from unitmem.errors import reason_of
from unitmem.kernel.files import PROC_ROOT
from unitmem.kernel.smaps import WANTED, find_pss, parse_wanted
from unitmem.text import printable

# no sysconf on Windows, where the library can be imported, and has no process to read
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096

# statm may lag: the kernel adds up three counters (file, anon, shmem) in batches for each CPU
# (percpu_counter_batch; 64 pages a thread before Linux 6.2)
_CPUS = os.cpu_count() or 1
_STATM_LAG = 3 * _CPUS * max(64, 2 * _CPUS) * PAGE_SIZE

_ENOUGH = 1 << 13  # bytes of a file that is read at once: all of most
_COMMAND_SHOWN = 1 << 12  # bytes of a command line, which may be megabytes, and dear to read


class ProcessGoneError(Exception):
    """The process ended, or is a zombie, whose memory is already freed."""


class ProcessHiddenError(Exception):
    """The process runs, but /proc hides it from this user (mount option hidepid)."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process at one instant; sizes in bytes, None where they were not or could not be read."""

    pid: int
    start_time: int
    """The start time in clock ticks since boot; with the pid, it identifies the process."""
    name: str
    """`comm`: at most 15 bytes, of any value, chosen by the process."""
    command: str = ""
    """The command line, with spaces between the arguments; empty if it has none, and until `with_command` reads it."""
    rss: int | None = None
    pss: int | None = None
    uss: int | None = None
    swap_pss: int | None = None
    unknown: str | None = None
    """The reason for which sizes from smaps_rollup are missing although they were asked for."""
    hugetlb: int | None = None
    """Huge pages of hugetlbfs, shared ones in full: the kernel counts them in neither PSS nor RSS, and private ones in USS."""

    @property
    def label(self) -> str:
        """`pid 123 (name)`, with the name escaped so that it is printable on one line."""
        return f"pid {self.pid} ({printable(self.name) or '?'})"

    @property
    def held(self) -> int | None:
        """PSS and huge pages: all it has in memory; RSS where PSS is unknown."""
        return self.rss if self.pss is None else self.pss + (self.hugetlb or 0)

    @property
    def pss_at_most(self) -> int | None:
        """An upper bound of PSS from RSS, with a margin for pages that statm has not counted yet."""
        if self.pss is not None:
            return self.pss
        if self.rss is None:
            return None
        return self.rss + _STATM_LAG


# --- parsers -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that unitmem needs."""

    name: str
    state: str
    start_time: int
    """Clock ticks since boot."""
    parent: int = 0
    """The parent's pid; 0 if it has none in this pid namespace."""
    threads: int = 0
    """The number of threads that have not ended; the main thread always counts."""

    @property
    def has_ended(self) -> bool:
        """Whether it is a zombie: only an exit status for its parent.

        A main thread that ends before the others is shown as a zombie too, while the process lives.
        """
        return self.state in "ZX" and self.threads <= 1


def parse_stat(text: str) -> Stat:
    """Parse /proc/PID/stat.

    The name is in parentheses and may itself contain parentheses, spaces and newlines, so it ends at the
    *last* closing one.

    Raises:
        ValueError: not of that form.
    """
    start, end = text.find("("), text.rfind(")")
    fields = text[end + 1 :].split()
    if start < 0 or end < start or len(fields) < 20:
        raise ValueError(f"not the stat of a process: {text[:80]!r}")
    return Stat(
        name=text[start + 1 : end],
        state=fields[0],
        start_time=int(fields[19]),
        parent=int(fields[1]),
        threads=int(fields[17]),
    )


def parse_statm(text: str) -> int:
    """Return the resident bytes in /proc/PID/statm.

    Raises:
        ValueError: not of that form.
    """
    fields = text.split()
    if len(fields) < 2:
        raise ValueError(f"not the statm of a process: {text!r}")
    return int(fields[1]) * PAGE_SIZE


def parse_cmdline(data: bytes) -> str:
    """Return the arguments in /proc/PID/cmdline with spaces between them, printable on one line."""
    return printable(data.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace"))


# --- reading -----------------------------------------------------------------------------------


class PinnedProcess:
    """A process identified by its open directory in /proc: no other process is read or signalled if the pid is reused.

    The directory stays that of the process it was opened for. Once that has been waited for, the files in it
    can't be read any more, even if the pid is in use again. The kernel also accepts it as a pidfd
    (pidfd_send_signal(2)).

    Raises:
        ProcessGoneError: no process has that pid, or it is hidden as if it didn't exist (hidepid=2).
        ProcessHiddenError: it may not be read (hidepid=1).
    """

    def __init__(self, pid: int, proc: Path = PROC_ROOT) -> None:
        self.pid = pid
        """The pid in /proc, which may be mounted for another pid namespace than this program's."""
        try:
            self._directory = os.open(f"{proc}/{pid}", os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessGoneError(pid) from None
        except PermissionError:
            raise ProcessHiddenError(pid) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._directory)

    def duplicate(self) -> PinnedProcess:
        """Return the same process with a descriptor of its own."""
        twin = object.__new__(PinnedProcess)
        twin.pid, twin._directory = self.pid, os.dup(self._directory)
        return twin

    def read_stat(self) -> Stat:
        """Read /proc/PID/stat.

        Raises:
            ProcessGoneError: it has ended, and was waited for; a zombie still has one.
            OSError: it can't be read.
        """
        try:
            return parse_stat(self._read("stat"))
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessGoneError(self.pid) from None

    def read_command(self) -> str:
        """Return the command line, or the beginning of a long one.

        Raises:
            OSError: of the kernel: ESRCH or ENOENT if it has ended.
        """
        file = os.open("cmdline", os.O_RDONLY, dir_fd=self._directory)
        try:
            return parse_cmdline(os.read(file, _COMMAND_SHOWN))
        finally:
            os.close(file)

    def read_rss(self) -> int:
        """Return RSS in bytes; 0 for a zombie.

        Raises:
            ProcessGoneError, OSError: either if it has ended.
        """
        return parse_statm(self._read("statm")) or parse_statm(self._read(self._living_thread() + "statm"))

    def read_pss(self) -> int:
        """Return PSS in bytes, the only field of smaps_rollup that is parsed.

        Raises:
            ProcessGoneError, OSError, ValueError: as `read_sizes`.
        """
        pss = find_pss(self._read_bytes("smaps_rollup"))
        return self.read_sizes()["Pss"] if pss is None else pss

    def read_sizes(self) -> dict[str, int]:
        """Return bytes by key of smaps_rollup, at least by those that are wanted of it.

        Raises:
            ProcessGoneError: it has ended, and was waited for.
            OSError: of the kernel: ESRCH if it has ended or is in exec, EACCES if more rights are needed.
            ValueError: the file has no Pss in kB.
        """
        try:
            text = self._read("smaps_rollup")
        except ProcessLookupError:
            if not (thread := self._living_thread()):
                raise
            text = self._read(thread + "smaps_rollup")
        return parse_wanted(text)

    def list_children(self) -> list[int]:
        """Return the pids of its children, including orphans that it adopted as a subreaper.

        Raises:
            OSError: of the kernel: ENOENT also if it lacks CONFIG_PROC_CHILDREN.
        """
        children: list[int] = []
        for thread in self._threads():
            # one that ends meanwhile leaves its children to another thread
            with suppress(ProcessLookupError):
                children += map(int, self._read(f"task/{thread}/children").split())
        return children

    def send_signal(self, number: int) -> None:
        """Send a signal; a zombie accepts any signal, without effect.

        Raises:
            ProcessGoneError: it has ended, and was waited for.
            OSError: it may not be signalled.
        """
        try:
            signal.pidfd_send_signal(self._directory, number)
        except ProcessLookupError:
            raise ProcessGoneError(self.pid) from None

    def _living_thread(self) -> str:
        """Return `task/TID/` of the first living thread if the main thread has ended, else an empty string."""
        if self.read_stat().state != "Z":
            return ""
        for thread in self._threads():
            with suppress(OSError):
                if parse_stat(self._read(f"task/{thread}/stat")).state not in "ZX":
                    return f"task/{thread}/"
        return ""

    def _threads(self) -> list[str]:
        directory = os.open("task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._directory)
        try:
            return sorted(os.listdir(directory), key=int)
        finally:
            os.close(directory)

    def _read(self, name: str) -> str:
        # names and arguments are bytes to the kernel
        return self._read_bytes(name).decode(errors="replace")

    def _read_bytes(self, name: str) -> bytes:
        # a file object would be most of what this costs
        file = os.open(name, os.O_RDONLY, dir_fd=self._directory)
        try:
            data = os.read(file, _ENOUGH)
            # stat, statm and smaps_rollup come whole, and end in a newline
            while not (data.endswith(b"\n") and len(data) < _ENOUGH) and (more := os.read(file, _ENOUGH)):
                data += more
            return data
        finally:
            os.close(file)


def read_process(pid: int, proc: Path = PROC_ROOT) -> Process:
    """Return the process `pid` with its RSS: all that is cheap to read.

    Raises:
        ProcessGoneError: it ended, or is a zombie; or it is hidden as if it didn't exist (hidepid=2).
        ProcessHiddenError: it may not be read (hidepid=1).
    """
    with PinnedProcess(pid, proc) as pinned:
        return describe(pinned)


def describe(pinned: PinnedProcess) -> Process:
    """Return what `read_process` does, of a process that is pinned already."""
    try:
        stat = pinned.read_stat()
        if stat.has_ended:
            raise ProcessGoneError(pinned.pid)
        return Process(pinned.pid, stat.start_time, stat.name, rss=pinned.read_rss())
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessGoneError(pinned.pid) from None
    except PermissionError:
        raise ProcessHiddenError(pinned.pid) from None


def with_command(process: Process, proc: Path = PROC_ROOT) -> Process:
    """Return `process` with its command line; unchanged where that can't be read, or the pid was reused."""
    try:
        with PinnedProcess(process.pid, proc) as pinned:
            return replace(process, command=pinned.read_command()) if _is(pinned, process) else process
    except (OSError, ProcessGoneError, ProcessHiddenError):
        return process


def with_pss(process: Process, proc: Path = PROC_ROOT) -> Process:
    """Return `process` with PSS, USS and SwapPss; where they can't be read, with the reason in `unknown`.

    Raises:
        ProcessGoneError: it ended, became a zombie, or its pid was reused.
    """
    try:
        pinned = PinnedProcess(process.pid, proc)
    except ProcessHiddenError:
        return replace(process, unknown=_reason(PermissionError(errno.EACCES, "")))
    with pinned:
        measured = measure_pss(pinned, process)
        # what was opened by its pid may be the next owner's
        with suppress(OSError):
            if not _is(pinned, process):
                raise ProcessGoneError(process.pid)
        return measured


def measure_pss(pinned: PinnedProcess, process: Process) -> Process:
    """Return `process`, which is `pinned`, with PSS, USS and SwapPss, or with the reason in `unknown`.

    Raises:
        ProcessGoneError: it ended, or became a zombie.
    """
    try:
        sizes = pinned.read_sizes()
    except (OSError, ValueError) as error:
        # a live process may give ESRCH too (a kernel thread, one that is in exec): look which it is
        with suppress(OSError):
            if not _is(pinned, process):
                raise ProcessGoneError(process.pid) from None
        # a kernel thread has no memory of its own
        if process.rss != 0 or not isinstance(error, ProcessLookupError):
            return replace(process, unknown=_reason(error))
        sizes = dict.fromkeys(WANTED, 0)
    # `replace` would take as long as the rest of this
    return Process(
        process.pid,
        process.start_time,
        process.name,
        process.command,
        process.rss,
        pss=sizes["Pss"],
        uss=_sum(sizes, "Private_Clean", "Private_Dirty", "Private_Hugetlb"),
        swap_pss=sizes.get("SwapPss"),
        hugetlb=_sum(sizes, "Private_Hugetlb", "Shared_Hugetlb"),
    )


def _sum(sizes: Mapping[str, int], *keys: str) -> int | None:
    """Return the sum of these sizes; None where the kernel doesn't show one of them."""
    parts = [sizes.get(key) for key in keys]
    return None if None in parts else sum(filter(None, parts))


def is_alive(process: Process, proc: Path = PROC_ROOT) -> bool:
    """Return whether `process` still runs, is no zombie, and still has its pid.

    It counts as running where that can't be read, so that no end is reported that wasn't seen.
    """
    try:
        with PinnedProcess(process.pid, proc) as pinned:
            return _is(pinned, process)
    except ProcessGoneError:
        return False
    except (OSError, ProcessHiddenError):
        return True


def _is(pinned: PinnedProcess, process: Process) -> bool:
    try:
        stat = pinned.read_stat()
    except (ProcessGoneError, ValueError):
        return False
    return stat.start_time == process.start_time and not stat.has_ended


def send_signal(process: Process, number: signal.Signals, still_meant: Callable[[], bool]) -> None:
    """Send a signal to `process` through a pinned directory, so that it can't reach another process with its pid.

    Args:
        process: the process, by pid and start time.
        number: the signal.
        still_meant: called last, while the process is pinned; False counts as gone.

    Raises:
        ProcessGoneError: it ended, or is no longer meant.
        OSError: it may not be signalled.
    """
    with PinnedProcess(process.pid) as pinned:
        # it may already be the pid's next owner: the start time tells
        if not _is(pinned, process) or not still_meant():
            raise ProcessGoneError(process.pid)
        pinned.send_signal(number)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        if error.errno in (errno.EACCES, errno.EPERM):
            return "permission denied (it needs root or CAP_SYS_PTRACE)"
        return reason_of(error)
    return str(error)
