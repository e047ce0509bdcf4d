"""The memory that this program uses and can still allocate: its own, its cgroup's and the machine's.

Reference: proc_pid_statm(5), proc_pid_smaps(5); for cgroups see `own_cgroup`.

A library runs on machines that the commands don't support: so cgroup v1 is read as well, a container's
view of either, and on other systems than Linux only what Python itself knows.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from unitmem.errors import UnsupportedSystemError, reason_of
from unitmem.guard.own_cgroup import known, own_cgroup, read_file
from unitmem.kernel.files import PROC_ROOT
from unitmem.kernel.host import Host, read_host
from unitmem.kernel.process import parse_statm
from unitmem.kernel.smaps import parse_smaps_rollup
from unitmem.text import format_size

_SHOWN = {
    "pss": "process_pss",
    "rss": "process_rss",
    "runtime": "runtime_total",
    "headroom": "headroom",
    "limit": "cgroup_limit",
    "current": "cgroup_current",
    "swap": "swap",
    "available": "system_available",
}
"""How `repr` calls the fields, in its order."""


@dataclass(frozen=True, slots=True, repr=False)
class MemoryInfo:
    """This program's memory at one instant: bytes, and None for what could not be read.

    Why a field is None stands in `unknown`, under its name. `cgroup_limit` alone may be None for another
    reason, which is that nothing limits it: then `unknown` doesn't name it.

    One made by hand, as tests do it, has a `headroom` of its other fields where none is given.
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

    Where it is None and `unknown` gives no reason for that, it is computed from the other fields: the
    lesser of `cgroup_limit − cgroup_current` and `system_available`, at least 0. It stays None if neither
    is given, or if the limit is given and the usage isn't, or if `unknown` names one of them.
    """
    unknown: Mapping[str, str] = field(default_factory=dict)
    """The reason why a field is None, by its name."""

    def __post_init__(self) -> None:
        if self.headroom is None and "headroom" not in self.unknown:
            object.__setattr__(self, "headroom", self._own_headroom())

    def _own_headroom(self) -> int | None:
        if not {"cgroup_limit", "system_available"}.isdisjoint(self.unknown):
            return None
        room = [] if self.system_available is None else [self.system_available]
        if self.cgroup_limit is not None:
            if self.cgroup_current is None:
                return None
            room.append(self.cgroup_limit - self.cgroup_current)
        return max(0, min(room)) if room else None

    def __repr__(self) -> str:
        sizes = {name: format_size(getattr(self, item), "") for name, item in _SHOWN.items()}
        if self.cgroup_limit is None and "cgroup_limit" not in self.unknown:
            sizes["limit"] = "none"
        return " ".join(["<MemoryInfo", *(f"{name}={size}" for name, size in sizes.items() if size)]) + ">"


# --- parsers -----------------------------------------------------------------------------------


def parse_arenas(text: str) -> int:
    """Return the bytes of pymalloc's arenas, from what `sys._debugmallocstats` prints.

    Raises:
        ValueError: there is no such line, as with another allocator.
    """
    found = re.search(r"^(\d+) arenas \* (\d+) bytes/arena\b", text, re.MULTILINE)
    if found is None:
        raise ValueError("Python runs with another allocator than pymalloc")
    return int(found[1]) * int(found[2])


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
        return known(host().available, host().why_unknown("MemAvailable"))

    def process_pss() -> int:
        if not pss:
            raise ValueError("not asked for")
        return parse_smaps_rollup(read_file(own / "smaps_rollup"))["Pss"]

    reading.put("system_available", system_available)
    reading.put("process_rss", lambda: parse_statm(read_file(own / "statm")))
    reading.put("process_pss", process_pss)
    try:
        cgroup = own_cgroup(proc)
    except (OSError, ValueError) as error:
        reading.put_rest(_reason(error))
        return
    reading.put("cgroup_current", lambda: cgroup.current(host))
    reading.put("cgroup_limit", cgroup.limit)
    reading.put("swap", lambda: cgroup.swap(host))
    reading.put("headroom", lambda: cgroup.headroom(host()))


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


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return f"{reason_of(error)}{where}"
    return str(error)
