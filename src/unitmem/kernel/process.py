"""One process's memory: RSS from statm, PSS, USS and SwapPss from smaps_rollup, and who it is.

Reference: proc_pid_statm(5), proc_pid_smaps(5), Documentation/filesystems/proc.rst. Reading
smaps_rollup walks the target's page tables under its mmap_lock: some 15 ms a GiB, during which the
target waits as well. So RSS, which costs microseconds and is never less than PSS, is read first,
and PSS only where it can decide something.
"""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from unitmem.errors import reason_of
from unitmem.kernel.files import PROC_ROOT
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
    """The process ended, or is a zombie, whose memory is already given back."""


class ProcessHiddenError(Exception):
    """The process runs, and /proc doesn't show it to this user (mount option hidepid)."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process at one instant; bytes, and None for what was not or could not be read."""

    pid: int
    start_time: int
    """Clock ticks since boot at which it started: with the pid, its identity."""
    name: str
    """`comm`: at most 15 bytes, and any bytes the process likes."""
    command: str = ""
    """The command line, with spaces between the arguments; empty for what has none, and until `with_command` reads it."""
    rss: int | None = None
    pss: int | None = None
    uss: int | None = None
    swap_pss: int | None = None
    unknown: str | None = None
    """Why the sizes from smaps_rollup are missing although they were asked for."""

    @property
    def label(self) -> str:
        """`pid 123 (name)`, fit for one line of a log whatever the process calls itself."""
        return f"pid {self.pid} ({printable(self.name) or '?'})"

    @property
    def pss_at_most(self) -> int | None:
        """An upper bound of PSS from RSS alone, with room for the pages statm has not counted yet."""
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
    """The parent's pid; 0 if that is none that shows here."""
    threads: int = 0
    """How many threads have not ended, and the main thread in any case."""

    @property
    def has_ended(self) -> bool:
        """Whether it is no more than an entry for its parent to ask after.

        A main thread that ends before the others shows as a zombie too, while the process lives.
        """
        return self.state in "ZX" and self.threads <= 1


def parse_stat(text: str) -> Stat:
    """What unitmem needs of /proc/PID/stat.

    The name stands in parentheses and may itself hold parentheses, spaces and newlines, so it ends
    at the *last* closing one.

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
    """Resident bytes of /proc/PID/statm.

    Raises:
        ValueError: not of that form.
    """
    fields = text.split()
    if len(fields) < 2:
        raise ValueError(f"not the statm of a process: {text!r}")
    return int(fields[1]) * PAGE_SIZE


_SIZE_LINE = re.compile(r"^(\w+): +(\d{1,18}) kB$", re.MULTILINE | re.ASCII)


_PSS_LINE = re.compile(rb"^Pss: +(\d{1,18}) kB$", re.MULTILINE)


def parse_smaps_rollup(text: str) -> dict[str, int]:
    """Bytes by key (`Rss`, `Pss`, `Private_Dirty`, …) of smaps_rollup, or the sums of a whole smaps.

    Raises:
        ValueError: no Pss in it that is a number of kB, as in a zombie's.
    """
    sizes: dict[str, int] = {}
    for key, size in _SIZE_LINE.findall(text):
        sizes[key] = sizes.get(key, 0) + int(size) * 1024
    if "Pss" not in sizes:
        raise ValueError("no Pss in it")
    return sizes


def parse_cmdline(data: bytes) -> str:
    """The arguments of /proc/PID/cmdline with spaces between them, safe to print on one line."""
    return printable(data.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace"))


# --- reading -----------------------------------------------------------------------------------


class PinnedProcess:
    """A process held by its directory in /proc: whatever becomes of its pid, nobody else is read or signalled.

    An open directory of /proc stays that of the process it was opened for. Once that has been waited
    for, all that is in it is gone, also when the pid is in use again. The kernel takes it as a pidfd
    too (pidfd_send_signal(2)).

    Raises:
        ProcessGoneError: there is none of that pid, or it is hidden as if it were not there (hidepid=2).
        ProcessHiddenError: it may not be looked at (hidepid=1).
    """

    def __init__(self, pid: int, proc: Path = PROC_ROOT) -> None:
        self.pid = pid
        """As /proc has it, which may have been mounted for another pid namespace than this program's."""
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
        """The same process in a descriptor of its own."""
        twin = object.__new__(PinnedProcess)
        twin.pid, twin._directory = self.pid, os.dup(self._directory)
        return twin

    def read_stat(self) -> Stat:
        """Who it is, and whether it lives.

        Raises:
            ProcessGoneError: it has ended, and was waited for; a zombie still has a `Stat`.
            OSError: it can't be read.
        """
        try:
            return parse_stat(self._read("stat"))
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessGoneError(self.pid) from None

    def read_command(self) -> str:
        """Its command line, or the start of a long one.

        Raises:
            OSError: what the kernel says, ESRCH or ENOENT if it has ended.
        """
        file = os.open("cmdline", os.O_RDONLY, dir_fd=self._directory)
        try:
            return parse_cmdline(os.read(file, _COMMAND_SHOWN))
        finally:
            os.close(file)

    def read_rss(self) -> int:
        """Its RSS in bytes; 0 of a zombie.

        Raises:
            ProcessGoneError, OSError: what the kernel says; either if it has ended.
        """
        return parse_statm(self._read("statm")) or parse_statm(self._read(self._living_thread() + "statm"))

    def read_pss(self) -> int:
        """Its PSS in bytes, and nothing else of smaps_rollup.

        Raises:
            ProcessGoneError, OSError, ValueError: as `read_sizes`.
        """
        found = _PSS_LINE.search(self._read_bytes("smaps_rollup"))
        return int(found[1]) * 1024 if found else self.read_sizes()["Pss"]

    def read_sizes(self) -> dict[str, int]:
        """What smaps_rollup says, in bytes.

        Raises:
            ProcessGoneError: it has ended, and was waited for.
            OSError: what the kernel says: ESRCH if it has ended or is just in exec, EACCES if it takes
                more rights.
            ValueError: not of that form.
        """
        try:
            text = self._read("smaps_rollup")
        except ProcessLookupError:
            if not (thread := self._living_thread()):
                raise
            text = self._read(thread + "smaps_rollup")
        return parse_smaps_rollup(text)

    def list_children(self) -> list[int]:
        """The pids of its children, of those too that were handed to it as the reaper of orphans.

        Raises:
            OSError: what the kernel says; ENOENT also if it lacks CONFIG_PROC_CHILDREN.
        """
        children: list[int] = []
        for thread in self._threads():
            # one that ends meanwhile leaves its children to another thread
            with suppress(ProcessLookupError):
                children += map(int, self._read(f"task/{thread}/children").split())
        return children

    def send_signal(self, number: int) -> None:
        """Signal it; a zombie takes any signal, and nothing comes of it.

        Raises:
            ProcessGoneError: it has ended, and was waited for.
            OSError: it may not be signalled.
        """
        try:
            signal.pidfd_send_signal(self._directory, number)
        except ProcessLookupError:
            raise ProcessGoneError(self.pid) from None

    def _living_thread(self) -> str:
        """Where the memory shows if the main thread has ended before others: at the first of these; else nowhere."""
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
            while more := os.read(file, _ENOUGH):
                data += more
            return data
        finally:
            os.close(file)


def read_process(pid: int, proc: Path = PROC_ROOT) -> Process:
    """Who `pid` is, and its RSS: what is cheap to read.

    Raises:
        ProcessGoneError: it ended, or is a zombie; or it is hidden as if it were not there (hidepid=2).
        ProcessHiddenError: it may not be looked at (hidepid=1).
    """
    with PinnedProcess(pid, proc) as pinned:
        try:
            stat = pinned.read_stat()
            if stat.has_ended:
                raise ProcessGoneError(pid)
            return Process(pid, stat.start_time, stat.name, rss=pinned.read_rss())
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessGoneError(pid) from None
        except PermissionError:
            raise ProcessHiddenError(pid) from None


def with_command(process: Process, proc: Path = PROC_ROOT) -> Process:
    """`process` with its command line; as it is where that can't be read, or it is another process by now."""
    try:
        with PinnedProcess(process.pid, proc) as pinned:
            return replace(process, command=pinned.read_command()) if _is(pinned, process) else process
    except (OSError, ProcessGoneError, ProcessHiddenError):
        return process


def with_pss(process: Process, proc: Path = PROC_ROOT) -> Process:
    """`process` with PSS, USS and SwapPss; where they can't be read, with the reason in `unknown`.

    Raises:
        ProcessGoneError: it ended, became a zombie, or its pid is another process by now.
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
    """Return `process`, which is the pinned one, with PSS, USS and SwapPss; where they can't be read, with the reason.

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
        if process.rss == 0 and isinstance(error, ProcessLookupError):
            return replace(process, pss=0, uss=0, swap_pss=0)  # a kernel thread has no memory of its own
        return replace(process, unknown=_reason(error))
    private = [sizes.get(key) for key in ("Private_Clean", "Private_Dirty", "Private_Hugetlb")]
    return replace(
        process,
        pss=sizes["Pss"],
        uss=None if None in private else sum(size for size in private if size is not None),
        swap_pss=sizes.get("SwapPss"),
    )


def is_alive(process: Process, proc: Path = PROC_ROOT) -> bool:
    """Whether it still runs, as the same process and not as a zombie or as its pid's next owner.

    It counts as running where that can't be read: nobody is to be told that it ended.
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
    """Signal `process` while it is pinned, so that it can't reach another one that has its pid by now.

    Args:
        process: whom, by pid and start time.
        number: the signal.
        still_meant: asked last, while the process is pinned; a false answer counts as gone.

    Raises:
        ProcessGoneError: it ended, or is no longer the one that was meant.
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
            return "permission denied (it takes root, or CAP_SYS_PTRACE)"
        return reason_of(error)
    return str(error)
