"""The memory that this program uses and can still allocate: its own, its cgroup's and the machine's.

Reference: proc_pid_statm(5), proc_pid_smaps(5), proc_pid_mountinfo(5), cgroups(7), cgroup_namespaces(7),
Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst. Parsers first, which are pure; reading after.

A library runs on machines that the commands don't support: so cgroup v1 is read as well, a container's
view of either, and on other systems than Linux only what Python itself knows.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from unitmem.errors import UnsupportedSystemError, reason_of
from unitmem.kernel.cgroup import parse_self_cgroup
from unitmem.kernel.files import PROC_ROOT, parse_counter, parse_flat_keyed
from unitmem.kernel.host import Host, read_host
from unitmem.kernel.limits import Level, headroom
from unitmem.kernel.process import parse_smaps_rollup, parse_statm


@dataclass(frozen=True, slots=True)
class MemoryInfo:
    """This program's memory at one instant: bytes, and None for what could not be read.

    Why a field is None stands in `unknown`, under its name. `cgroup_limit` alone may be None for another
    reason, which is that nothing limits it: then `unknown` doesn't name it.
    """

    at: float
    """When the reading began, in seconds of `time.monotonic()`, which goes on whatever is done to the clock."""
    system_available: int | None = None
    """Memory that the machine can still give without swapping: MemAvailable of /proc/meminfo."""
    process_rss: int | None = None
    """Memory of this process that is in RAM, what it shares with others counted in full."""
    process_pss: int | None = None
    """The same with what it shares divided among those that share it: the fairest number of one process."""
    runtime_total: int | None = None
    """Memory that CPython's own allocator (pymalloc) has taken from the system for small objects, in use or not.

    Those are objects of up to 512 bytes. Larger ones come from the C library, and are in `process_rss`
    only; so is what extension modules allocate.
    """
    cgroup_current: int | None = None
    """Everything charged to this program's cgroup, page cache and its neighbours in there included."""
    cgroup_limit: int | None = None
    """The tightest limit of the cgroup and of all its ancestors that can be seen; 0 is a limit too."""
    swap: int | None = None
    """Swap used by the cgroup."""
    headroom: int | None = None
    """Memory that can still be allocated before a limit of the cgroup, of an ancestor, or of the machine is met.

    The least of `limit − (usage there − inactive page cache there)` at each level that has a limit, and
    of `system_available`: the tightest limit need not be the nearest one, where a neighbour uses most of
    a wider one.
    """
    unknown: Mapping[str, str] = field(default_factory=dict)
    """The reason why a field is None, by its name."""


@dataclass(frozen=True, slots=True)
class CgroupMount:
    """The mount point of a hierarchy that may account for memory, and the cgroup that is its top there."""

    version: int
    """1 or 2."""
    root: str
    """The path of the mount's top, as /proc/self/cgroup counts paths: from the top of the cgroup namespace."""
    point: Path


# --- parsers -----------------------------------------------------------------------------------


def parse_memory_cgroup(text: str) -> tuple[int, str]:
    """Return (version, path) of the cgroup that accounts for a process's memory, from /proc/PID/cgroup.

    A controller is in one hierarchy at a time: if a v1 hierarchy has it, v2 (`0::`) doesn't count memory.

    Raises:
        ValueError: the process is in neither kind.
    """
    for line in text.splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if "memory" in controllers.split(","):
            return 1, path.removesuffix(" (deleted)")
    path_in_v2 = parse_self_cgroup(text)
    if path_in_v2 is None:
        raise ValueError("no cgroup accounts for its memory")
    return 2, path_in_v2


def parse_cgroup_mounts(text: str) -> list[CgroupMount]:
    """Return the mounts of cgroup v2, and of the v1 hierarchy that has the memory controller, of /proc/PID/mountinfo.

    Raises:
        ValueError: a line that has no such form.
    """
    mounts = []
    for line in text.splitlines():
        mount, separator, filesystem = line.partition(" - ")
        kind, *_, options = (*filesystem.split(" "), "")[:3]
        if kind == "cgroup2":
            version = 2
        elif kind == "cgroup" and "memory" in options.split(","):
            version = 1
        else:
            continue
        fields = mount.split(" ")
        if len(fields) < 5 or not separator:
            raise ValueError(f"not a line of mountinfo: {line[:80]!r}")
        mounts.append(CgroupMount(version, _unescape(fields[3]), Path(_unescape(fields[4]))))
    return mounts


def names_below(path: str, root: str) -> tuple[str, ...] | None:
    """Return the names that lead from the cgroup `root` down to `path`; None when `path` isn't at or below it.

    Both may begin with `/..`: that is how a cgroup above the top of the reader's namespace shows. What lies
    between it and that top has no name here.
    """
    parts = [part for part in path.split("/") if part]
    top = [part for part in root.split("/") if part]
    below = parts[len(top) :]
    return tuple(below) if parts[: len(top)] == top and ".." not in below else None


def parse_v1_limit(text: str) -> int | None:
    """Return the bytes of memory.limit_in_bytes; None for the huge number that means no limit there.

    Raises:
        ValueError: not a number.
    """
    limit = parse_counter(text)
    # 2^63 less one, rounded down to pages, of whatever size those are; 2^64 less one in old kernels
    return None if limit is None or limit >= 1 << 62 else limit


def parse_arenas(text: str) -> int:
    """Return the bytes of pymalloc's arenas, from what `sys._debugmallocstats` prints.

    Raises:
        ValueError: there is no such line, as with another allocator.
    """
    found = re.search(r"^(\d+) arenas \* (\d+) bytes/arena\b", text, re.MULTILINE)
    if found is None:
        raise ValueError("Python runs with another allocator than pymalloc")
    return int(found[1]) * int(found[2])


def _unescape(text: str) -> str:
    # mountinfo writes space, tab, newline and backslash as three octal digits
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


# --- reading -----------------------------------------------------------------------------------


def read_memory_info(*, pss: bool = True, proc: Path = PROC_ROOT) -> MemoryInfo:
    """Return this program's memory now. What can't be read is no error: it is None, and `unknown` says why.

    Safe to call from any thread. The files are read one after the other: it is no snapshot of an instant.

    Args:
        pss: whether to read `process_pss`, for which the kernel looks at every page of the process: some
            15 ms a GiB, during which threads of the program wait that need new memory.
        proc: where /proc is.
    """
    reading = _Reading(time.monotonic())
    reading.put("runtime_total", _runtime_total)
    if sys.platform in ("linux", "android"):
        _read_linux(reading, pss, proc)
    else:
        reading.put_rest(f"available on Linux only, and this is {sys.platform}")
    return reading.info()


class _Reading:
    """The fields of a `MemoryInfo` that were read so far, and the reasons for those that could not be."""

    def __init__(self, at: float) -> None:
        self._at = at
        self._values: dict[str, int | None] = {}
        self._unknown: dict[str, str] = {}

    def put(self, name: str, read: Callable[[], int | None]) -> None:
        try:
            self._values[name] = read()
        except (OSError, ValueError, UnsupportedSystemError) as error:
            self._unknown[name] = _reason(error)

    def put_rest(self, reason: str) -> None:
        """Mark all remaining fields as unknown, for this reason."""
        done = {"at", "unknown", *self._values, *self._unknown}
        self._unknown |= {item.name: reason for item in fields(MemoryInfo) if item.name not in done}

    def info(self) -> MemoryInfo:
        return MemoryInfo(at=self._at, unknown=self._unknown, **self._values)


def _read_linux(reading: _Reading, pss: bool, proc: Path) -> None:
    own = proc / "self"

    @cache
    def host() -> Host:
        return read_host(proc)

    def system_available() -> int:
        return _known(host().available, "no MemAvailable in /proc/meminfo")

    def process_pss() -> int:
        if not pss:
            raise ValueError("not asked for")
        return parse_smaps_rollup(_read(own / "smaps_rollup"))["Pss"]

    reading.put("system_available", system_available)
    reading.put("process_rss", lambda: parse_statm(_read(own / "statm")))
    reading.put("process_pss", process_pss)
    try:
        cgroup = _own_cgroup(proc)
    except (OSError, ValueError) as error:
        reading.put_rest(_reason(error))
        return
    reading.put("cgroup_current", lambda: cgroup.current(host))
    reading.put("cgroup_limit", cgroup.limit)
    reading.put("swap", lambda: cgroup.swap(host))
    reading.put("headroom", lambda: cgroup.headroom(host()))


# --- the cgroup --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _CgroupV2:
    """The cgroup of this process, in a mount of cgroup v2."""

    top: Path
    """The directory of the topmost cgroup that can be seen: the root, or the namespace's own."""
    names: tuple[str, ...]
    """The names that lead from there down to it."""

    def current(self, host: Callable[[], Host]) -> int:
        if self._is_root():
            # it has no counter; systemd gives this for -.slice, and so do the measures of a unit
            return host().total - _known(host().available, "no MemAvailable in /proc/meminfo")
        return self._counter("memory.current")

    def swap(self, host: Callable[[], Host]) -> int:
        if self._is_root():
            reason = "no SwapTotal or SwapFree in /proc/meminfo"
            return _known(host().swap_total, reason) - _known(host().swap_free, reason)
        return self._counter("memory.swap.current")

    def limit(self) -> int | None:
        return _tightest(self._levels())

    def headroom(self, host: Host) -> int:
        return _headroom(list(self._levels()), host)

    def _levels(self) -> Iterator[Level]:
        for directory in _upwards(self.top, self.names):
            limit = _limit(directory, "memory.max", parse_counter)
            yield _level(directory, limit, "memory.current", "inactive_file")

    def _is_root(self) -> bool:
        # every cgroup but the root of all has this file, the top of a namespace too
        return not self.names and not (self.top / "cgroup.events").exists()

    def _counter(self, name: str) -> int:
        try:
            value = parse_counter(_read(self.top.joinpath(*self.names, name)))
        except FileNotFoundError:
            raise ValueError(f"its cgroup has no {name}: that isn't counted there") from None
        return _known(value, f"{name} is no number")


@dataclass(frozen=True, slots=True)
class _CgroupV1:
    """The cgroup of this process, in a mount of the memory hierarchy of cgroup v1."""

    top: Path
    names: tuple[str, ...]

    def current(self, _host: Callable[[], Host]) -> int:
        usage = parse_counter(_read(self._directory / "memory.usage_in_bytes"))
        return _known(usage, "memory.usage_in_bytes is no number")

    def swap(self, _host: Callable[[], Host]) -> int:
        stat = self._stat()
        return _known(stat.get("total_swap", stat.get("swap")), "the kernel does no swap accounting")

    def limit(self) -> int | None:
        seen, hierarchical = _tightest(self._levels()), self._hierarchical_limit()
        return min((limit for limit in (seen, hierarchical) if limit is not None), default=None)

    def headroom(self, host: Host) -> int:
        levels = list(self._levels())
        seen, hierarchical = _tightest(levels), self._hierarchical_limit()
        if hierarchical is not None and (seen is None or hierarchical < seen):
            raise ValueError(
                f"a cgroup above {self.top} is limited to {hierarchical} bytes, and what is used there can't be seen"
            )
        return _headroom(levels, host)

    @property
    def _directory(self) -> Path:
        return self.top.joinpath(*self.names)

    def _stat(self) -> dict[str, int]:
        return parse_flat_keyed(_read(self._directory / "memory.stat"))

    def _hierarchical_limit(self) -> int | None:
        """Return the kernel's own limit over all ancestors, including those that a container can't see."""
        limit = self._stat().get("hierarchical_memory_limit")
        return None if limit is None else parse_v1_limit(str(limit))

    def _levels(self) -> Iterator[Level]:
        for directory in _upwards(self.top, self.names):
            if directory != self._directory and not _counts_its_children(directory):
                return
            limit = _limit(directory, "memory.limit_in_bytes", parse_v1_limit)
            yield _level(directory, limit, "memory.usage_in_bytes", "total_inactive_file")


def _own_cgroup(proc: Path) -> _CgroupV1 | _CgroupV2:
    """Return the cgroup that accounts for this process's memory; looked up anew each time, as it may be moved.

    Raises:
        OSError: /proc can't be read.
        ValueError: it has none, or none that is visible in a mount.
    """
    version, path = parse_memory_cgroup(_read(proc / "self/cgroup"))
    mounts = parse_cgroup_mounts(_read(proc / "self/mountinfo"))
    mounts = [mount for mount in mounts if mount.version == version]
    kind = _CgroupV1 if version == 1 else _CgroupV2
    named = [(mount.point, names_below(path, mount.root)) for mount in mounts]
    # of several mounts the one that shows the most ancestors
    for top, names in sorted(
        ((top, names) for top, names in named if names is not None), key=lambda found: -len(found[1])
    ):
        # it may be hidden below another mount
        if (top.joinpath(*names) / "cgroup.procs").exists():
            return kind(top, names)
    # in a namespace whose top is above or beside what is mounted the path has no meaning; the process
    # may sit right at the top all the same, and the kernel says so
    for top, _ in named:
        with suppress(OSError):
            if str(os.getpid()) in _read(top / "cgroup.procs").split():
                return kind(top, ())
    raise ValueError(f"its cgroup, {path}, is not visible in any mount of cgroup v{version}")


def _upwards(top: Path, names: tuple[str, ...]) -> Iterator[Path]:
    for count in range(len(names), -1, -1):
        yield top.joinpath(*names[:count])


def _limit(directory: Path, name: str, parse: Callable[[str], int | None]) -> int | None:
    try:
        return parse(_read(directory / name))
    except FileNotFoundError:
        # the root has no such file, nor has a cgroup without the controller: nothing is limited there
        if not (directory / "cgroup.procs").exists():
            raise
        return None


def _level(directory: Path, limit: int | None, current: str, inactive: str) -> Level:
    """Return the level of `directory`; its usage is read only if it has a limit, since memory.stat is slow to read."""
    if limit is None:
        return Level(str(directory))
    usage = inactive_file = None
    with suppress(OSError, ValueError):
        usage = parse_counter(_read(directory / current))
        inactive_file = parse_flat_keyed(_read(directory / "memory.stat")).get(inactive)
    return Level(str(directory), max=limit, current=usage, inactive_file=inactive_file)


def _counts_its_children(directory: Path) -> bool:
    """Return whether a v1 cgroup's limit holds for those below it as well, as it does always since Linux 5.11."""
    with suppress(OSError):
        return _read(directory / "memory.use_hierarchy").strip() != "0"
    return True


def _tightest(levels: Iterator[Level] | list[Level]) -> int | None:
    return min((level.max for level in levels if level.max is not None), default=None)


def _headroom(levels: list[Level], host: Host) -> int:
    blind = [level.path for level in levels if level.max is not None and level.workingset is None]
    reason = f"what is used in {blind[0]} can't be read" if blind else "no MemAvailable in /proc/meminfo"
    return _known(headroom(levels, host), reason)


# --- Python's allocator ------------------------------------------------------------------------


def _runtime_total() -> int:
    # The only number CPython gives out is in the text of sys._debugmallocstats, which goes to the stderr of
    # the whole program. The function behind it takes any C stream: here one in memory. It is exported for
    # such uses, and takes some 1 ms a GiB.
    if sys.implementation.name != "cpython":
        raise ValueError(f"{sys.implementation.name} doesn't report what its allocator holds")
    try:
        libc, print_stats = _allocator_stats()
    except (ImportError, AttributeError, TypeError, MemoryError) as error:
        raise ValueError(f"this Python doesn't report what its allocator holds ({error})") from None
    import ctypes  # noqa: PLC0415 - as there

    text, size = ctypes.c_void_p(), ctypes.c_size_t()
    stream = libc.open_memstream(ctypes.byref(text), ctypes.byref(size))
    if not stream:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    try:
        print_stats(stream)
    finally:
        libc.fclose(stream)  # which sets text and size
        printed = ctypes.string_at(text, size.value) if text else b""
        libc.free(text)
    return parse_arenas(printed.decode(errors="replace"))


@cache
def _allocator_stats() -> tuple[Any, Any]:
    """Return (libc, function that prints the allocator's state to a FILE*), with the types of what they take."""
    import ctypes  # noqa: PLC0415 - 1 MiB, for this alone; and some hardened systems refuse it

    libc = ctypes.CDLL(None)
    libc.open_memstream.restype = ctypes.c_void_p
    libc.open_memstream.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    libc.fclose.argtypes = [ctypes.c_void_p]
    libc.free.argtypes = [ctypes.c_void_p]
    # with the GIL held, unlike those: the allocator must stand still
    prototype = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
    return libc, prototype(("_PyObject_DebugMallocStats", ctypes.pythonapi))


def _known(value: int | None, reason: str) -> int:
    if value is None:
        raise ValueError(reason)
    return value


def _read(path: Path) -> str:
    # paths are bytes to the kernel
    return os.fsdecode(path.read_bytes())


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return f"{reason_of(error)}{where}"
    return str(error)
