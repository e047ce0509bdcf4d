"""Cgroup v2 memory: the files of one cgroup, and the limits of its ancestors.

Reference: Documentation/admin-guide/cgroup-v2.rst. Parsers first, which are pure; reading after.
A directory is kept open for as long as its unit is watched: a path may come to name another cgroup,
an open directory can't.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Self

from unitmem.errors import UnsupportedSystemError
from unitmem.kernel.files import (
    CGROUP_ROOT,
    PROC_ROOT,
    impossible,
    parse_counter,
    parse_flat_keyed,
    parse_pressure,
    why_unread,
)
from unitmem.kernel.limits import ROOT_LEVEL, Level, impossible_parts, level_of

# How far the listing of a subtree goes. It takes some 100 µs a cgroup; a machine with a thousand containers has fewer.
_DEEPEST, _MOST_CGROUPS = 64, 5_000
_DIRECTORY = os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_REMOVED = (errno.ENOENT, errno.ENODEV)

EVENT_KINDS = ("high", "max", "oom", "oom_kill")
_LIMIT_FILES = ("memory.max", "memory.high")


class CgroupGoneError(Exception):
    """The cgroup was removed, as its unit stopped; if its path exists again, that is another cgroup."""


def parse_self_cgroup(text: str) -> str | None:
    """Return the path in the v2 hierarchy from /proc/PID/cgroup; None when the process is only in v1 hierarchies."""
    for line in text.splitlines():
        if line.startswith("0::"):
            return line.removeprefix("0::").removesuffix(" (deleted)")
    return None


@dataclass(frozen=True, slots=True)
class CgroupReading:
    """One cgroup's memory at one instant, with every field that could be read; bytes, percent and counts."""

    path: str
    inode: int
    counters: Mapping[str, int | None] = field(default_factory=dict)
    """The values of one-value files, by file name; None is `max`, no limit."""
    stat: Mapping[str, int] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)
    pressure: Mapping[str, float] = field(default_factory=dict)
    levels: tuple[Level, ...] = ()
    """This cgroup first, then each ancestor; the root of all cgroups is none, the top of a container is one."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Why a value is missing, by file name."""
    is_root: bool = False
    """Whether it is the root of all cgroups, whose memory is the machine's."""

    @property
    def current(self) -> int | None:
        return self.counters.get("memory.current")


# --- reading -----------------------------------------------------------------------------------


def require_memory_controller(root: Path = CGROUP_ROOT) -> None:
    """Return if `root` is a cgroup v2 mount whose memory controller is on.

    Raises:
        UnsupportedSystemError: it isn't; the message says what is missing, the hint what to do.
    """
    try:
        controllers = (root / "cgroup.controllers").read_text().split()
    except OSError:
        raise UnsupportedSystemError(
            f"cgroup v2 is not mounted at {root}, and unitmem needs it",
            hint="boot with systemd.unified_cgroup_hierarchy=1; "
            "in a container, run unitmem on the host or mount the host's /sys/fs/cgroup",
        ) from None
    if "memory" not in controllers:
        raise UnsupportedSystemError(
            f"the memory controller of cgroup v2 is off (it is not in {root}/cgroup.controllers)",
            hint="boot without cgroup_disable=memory, and without cgroup v1 claiming the controller",
        )


class Cgroup:
    """One cgroup, identified by its open directory: all readings are of the same cgroup.

    Raises:
        CgroupGoneError: the cgroup is removed; from the constructor and every reading.
        OSError: the directory may not be opened.
    """

    def __init__(self, path: str, root: Path = CGROUP_ROOT) -> None:
        self.path = path
        self.root = root
        try:
            self._fd = os.open(root / path.lstrip("/"), os.O_PATH | _DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            raise CgroupGoneError(path) from None
        status = os.fstat(self._fd)
        self.inode, self.changed_at = status.st_ino, status.st_ctime

    def fileno(self) -> int:
        """Return the descriptor of its directory, by which nothing can be read but paths below it."""
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def read_file(self, name: str) -> str:
        """Return the text of one file of this cgroup.

        Raises:
            CgroupGoneError: the cgroup is removed.
            OSError: the kernel has no such file, or it may not be read.
        """
        try:
            return _read(self._fd, name)
        except OSError as error:
            if self._is_removal(error):
                raise CgroupGoneError(self.path) from None
            raise

    def exists(self) -> bool:
        """Return whether the cgroup of this very inode is still at its path."""
        try:
            return os.stat(self.root / self.path.lstrip("/")).st_ino == self.inode
        except OSError:
            return False

    def open_file(self, name: str) -> int:
        """Open one file of this cgroup; the caller closes the descriptor.

        Raises:
            OSError: there is no such file, or the cgroup is removed.
        """
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._fd)

    def limit(self, name: str) -> int | None:
        """Return the limit in a file such as memory.high, in bytes; None is no limit.

        Raises:
            CgroupGoneError: the cgroup is removed.
            OSError: the kernel has no such file, or it may not be read.
        """
        return parse_counter(self.read_file(name))

    def is_frozen(self) -> bool:
        """Return whether every process of the subtree is frozen.

        Raises:
            CgroupGoneError: the cgroup is removed.
            OSError: it can't be read.
        """
        return parse_flat_keyed(self.read_file("cgroup.events")).get("frozen") == 1

    def kill(self) -> None:
        """Write cgroup.kill: SIGKILL to every process of the subtree at once; no fork escapes. Since Linux 5.14.

        Raises:
            CgroupGoneError: the cgroup is removed.
            OSError: the kernel has no such file, or it may not be written.
        """
        self._write_file("cgroup.kill", "1")

    def reclaim(self, size: int) -> None:
        """Write memory.reclaim; blocks until the kernel is done. Since Linux 5.19.

        Raises:
            CgroupGoneError: the cgroup is removed.
            BlockingIOError: less than `size` could be reclaimed.
            OSError: the kernel has no such file, or it may not be written.
        """
        self._write_file("memory.reclaim", str(size))

    def read(
        self, counters: Iterable[str] = (), seen: MutableMapping[str, Level] | None = None
    ) -> CgroupReading:
        """Read the memory files of this cgroup and the limits of its ancestors.

        Args:
            counters: names of one-value files to read besides those of its limits and memory.current.
            seen: ancestors that were already read at this instant, by path, and are not read again; those
                read here are added. Hundreds of units share one slice, whose memory.stat is slow to read.

        Raises:
            CgroupGoneError: the cgroup is removed.
        """
        names = dict.fromkeys((*_LIMIT_FILES, *counters, "memory.current"))
        if self._is_root():
            return self._read_root(names)
        unknown: dict[str, str] = {}
        values = {name: self._counter(name, unknown) for name in names if name != "memory.current"}
        values["memory.current"], stat = self._usage(unknown)
        own = self._level(values, stat, unknown)
        return CgroupReading(
            path=self.path,
            inode=self.inode,
            counters={name: value for name, value in values.items() if name not in unknown},
            stat=stat,
            events=self._keyed("memory.events", unknown),
            pressure=self._pressure(unknown),
            levels=(own, *self._ancestors({} if seen is None else seen)),
            unknown=unknown,
        )

    def pids(self, proc: Path = PROC_ROOT) -> list[int]:
        """Return the pids of the whole subtree, delegated and threaded cgroups included, each once.

        Args:
            proc: where /proc is, which maps the threads of a threaded cgroup to their processes.

        Raises:
            CgroupGoneError: the cgroup is removed.
            OSError: not all of them can be listed.
        """
        listing = _Listing(proc)
        try:
            listing.add(self._fd)
        except OSError:
            if self.exists():
                raise
        if not self.exists():
            raise CgroupGoneError(self.path)
        return list(listing.pids)

    def contains(self, pid: int, proc: Path = PROC_ROOT) -> bool:
        """Return whether the process `pid` is now in this cgroup or below it."""
        try:
            # whoever may make cgroups may call one any bytes
            path = parse_self_cgroup(os.fsdecode((proc / str(pid) / "cgroup").read_bytes()))
        except OSError:
            return False
        own = self.path.rstrip("/")
        return path is not None and (path == own or path.startswith(own + "/")) and self.exists()

    def _read_root(self, counters: Iterable[str]) -> CgroupReading:
        """Read the root cgroup, which has no counters of its own (cgroup-v2.rst): its values are the machine's."""
        unknown = dict.fromkeys((*counters, "memory.events"), "the root cgroup has no such file")
        return CgroupReading(
            path="/",
            inode=self.inode,
            stat=self._keyed("memory.stat", unknown),
            pressure=self._pressure(unknown),
            unknown=unknown,
            is_root=True,
        )

    def _is_root(self) -> bool:
        # every other cgroup has this file, the top of a container's namespace too
        return self.path in ("", "/") and not os.access("cgroup.events", os.F_OK, dir_fd=self._fd)

    def _usage(self, unknown: dict[str, str]) -> tuple[int | None, dict[str, int]]:
        """Return memory.current and memory.stat, without lines that can't be true.

        The stat lags, and both move meanwhile: of memory.current before and after it, the lesser counts.
        """
        before = self._counter("memory.current", unknown)
        stat = self._keyed("memory.stat", unknown)
        after = self._counter("memory.current", unknown)
        if before is None or after is None:
            return None, stat
        if why := impossible_parts(stat, max(before, after)):
            unknown["memory.stat"] = "; ".join(why.values())
        return min(before, after), {key: value for key, value in stat.items() if key not in why}

    def _level(self, values: dict[str, int | None], stat: dict[str, int], unknown: dict[str, str]) -> Level:
        blank = [name for name in _LIMIT_FILES if name in unknown]
        # without the memory controller there is no such file, and no limit
        unread = {name: unknown[name] for name in blank if os.access(name, os.F_OK, dir_fd=self._fd)}
        return level_of(self.path, values, stat, unread)

    def _ancestors(self, seen: MutableMapping[str, Level]) -> Iterator[Level]:
        parts = [part for part in self.path.split("/") if part]
        for count in range(len(parts) - 1, -1, -1):
            path = "/" + "/".join(parts[:count])
            if path not in seen:
                try:
                    with Cgroup(path, self.root) as ancestor:
                        seen[path] = ancestor._read_level()
                except CgroupGoneError:
                    # an ancestor can't go before its child does
                    raise CgroupGoneError(self.path) from None
            if seen[path] != ROOT_LEVEL:
                yield seen[path]

    def _read_level(self) -> Level:
        """Return this cgroup as a level; one without any value for the root of all, which has no limit."""
        if self._is_root():
            return ROOT_LEVEL
        unknown: dict[str, str] = {}
        values = {name: self._counter(name, unknown) for name in _LIMIT_FILES}
        values["memory.current"], stat = self._usage({})
        return self._level(values, stat, unknown)

    def _counter(self, name: str, unknown: dict[str, str]) -> int | None:
        try:
            value = parse_counter(self.read_file(name))
            why = impossible({name: value or 0})
        except (OSError, ValueError) as error:
            why = {name: why_unread(name, error)}
        unknown.update(why)
        return None if why else value

    def _keyed(self, name: str, unknown: dict[str, str]) -> dict[str, int]:
        try:
            values = parse_flat_keyed(self.read_file(name))
        except (OSError, ValueError) as error:
            unknown[name] = why_unread(name, error)
            return {}
        if why := impossible(values):
            unknown[name] = "; ".join(why.values())
        return {key: value for key, value in values.items() if key not in why}

    def _pressure(self, unknown: dict[str, str]) -> dict[str, float]:
        try:
            return parse_pressure(self.read_file("memory.pressure"))
        except (OSError, ValueError) as error:
            unknown["memory.pressure"] = why_unread("memory.pressure", error)
            return {}

    def _write_file(self, name: str, text: str) -> None:
        try:
            descriptor = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._fd)
            try:
                os.write(descriptor, text.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            if self._is_removal(error):
                raise CgroupGoneError(self.path) from None
            raise

    def _is_removal(self, error: OSError) -> bool:
        return error.errno == errno.ENODEV or (error.errno == errno.ENOENT and not self.exists())


class _Listing:
    """The pids of a cgroup and of all cgroups below it; a part that can't be listed is an error.

    Each cgroup is opened relative to its parent: no path gets too long, and nothing outside the subtree is
    read. The walk is bounded, since users build the trees that are delegated to them; it needs one open
    descriptor per level.
    """

    def __init__(self, proc: Path) -> None:
        self.pids: dict[int, None] = {}
        self._proc = proc
        self._cgroups = 0
        self._is_threaded = False

    def add(self, parent: int, name: str = ".", depth: int = 0) -> None:
        """Add the processes in the cgroup `name` of the open directory `parent`, and below it.

        Raises:
            OSError: not all of it can be listed.
        """
        self._cgroups += 1
        if self._cgroups > _MOST_CGROUPS:
            raise OSError(f"there are more than {_MOST_CGROUPS} cgroups in it")
        if depth > _DEEPEST:
            raise OSError(f"cgroups in it are nested deeper than {_DEEPEST} levels")
        try:
            directory = os.open(name, os.O_RDONLY | _DIRECTORY, dir_fd=parent)
            try:
                self._add_processes(directory, depth)
                for child in _children(directory):
                    self.add(directory, child, depth + 1)
            finally:
                os.close(directory)
        except OSError as error:
            # one below that is removed meanwhile has no process
            if not (depth and error.errno in _REMOVED):
                raise

    def _add_processes(self, directory: int, depth: int) -> None:
        try:
            pids = list(map(int, _read(directory, "cgroup.procs").split()))
        except OSError as error:
            if depth and error.errno in _REMOVED:
                return
            if error.errno != errno.EOPNOTSUPP:
                raise
            # a threaded cgroup: its processes are listed at the domain above it, which is within
            # the subtree unless the unit itself is threaded
            self._is_threaded = self._is_threaded or depth == 0
            threads = _read(directory, "cgroup.threads").split() if self._is_threaded else []
            pids = [self._process_of(int(thread)) for thread in threads]
        if 0 in pids:
            raise OSError("some are in a pid namespace that can't be seen from this one")
        self.pids.update(dict.fromkeys(pids))

    def _process_of(self, thread: int) -> int:
        """Return the pid of a thread's process, or the thread's own ID where that can't be read.

        A hidden process must stay in the list, unlike one that has ended.
        """
        try:
            status = (self._proc / str(thread) / "status").read_bytes()
        except OSError:
            return thread
        # not splitlines(): the name may hold a carriage return
        found = (line.split()[1] for line in status.split(b"\n") if line.startswith(b"Tgid:"))
        return int(next(found, thread))


def _children(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        names = (entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        return list(islice(names, _MOST_CGROUPS))


def _read(directory: int, name: str) -> str:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        chunks = []
        while chunk := os.read(descriptor, 65536):
            chunks.append(chunk)
    finally:
        os.close(descriptor)
    return b"".join(chunks).decode(errors="replace")


def own_cgroup(proc: Path = PROC_ROOT) -> str | None:
    """Return the cgroup path of this process; None where it has none in the v2 hierarchy."""
    try:
        return parse_self_cgroup((proc / "self/cgroup").read_text())
    except OSError:
        return None
