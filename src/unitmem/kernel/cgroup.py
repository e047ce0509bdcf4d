"""Cgroup v2 memory: the files of one cgroup, and the limits of its ancestors.

Reference: Documentation/admin-guide/cgroup-v2.rst. Parsers first, which are pure; reading after.
A directory is kept open for as long as its unit is watched: a path may come to name another cgroup,
an open directory can't.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from unitmem.errors import UnsupportedSystemError
from unitmem.kernel.files import (
    CGROUP_ROOT,
    PROC_ROOT,
    OpenFiles,
    find_keyed,
    impossible,
    parse_counter,
    parse_flat_keyed,
    parse_natural,
    parse_pressure,
    read_open,
    why_unread,
)
from unitmem.kernel.limits import ROOT_LEVEL, USAGE_KEYS, Level, impossible_parts, level_of
from unitmem.kernel.members import Listing

EVENT_KINDS = ("high", "max", "oom", "oom_kill")
_LIMIT_FILES = ("memory.max", "memory.high")
_CURRENT = "memory.current"


class CgroupGoneError(Exception):
    """The cgroup was removed, as its unit stopped; if its path exists again, that is another cgroup."""


def parse_self_cgroup(text: str) -> str | None:
    """Return the path in the v2 hierarchy from /proc/PID/cgroup; None when the process is only in v1 hierarchies."""
    for line in text.splitlines():
        if line.startswith("0::"):
            return line.removeprefix("0::").removesuffix(" (deleted)")
    return None


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be read of a cgroup besides memory.current."""

    counters: tuple[str, ...] = ()
    """Names of one-value files."""
    stat: tuple[str, ...] = ()
    """Keys of memory.stat; without any, that is not read."""
    events: bool = False
    pressure: bool = False
    levels: bool = False
    """Whether to make levels of it and those above; what is known of its own are the files that are read."""


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
        return self.counters.get(_CURRENT)


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

    Args:
        path: below `root`.
        root: where cgroup v2 is mounted.
        kept: the files that are kept open, if those that are read are to be among them until the cgroup is closed.

    Raises:
        CgroupGoneError: the cgroup is removed; from the constructor and every reading.
        OSError: the directory may not be opened.
    """

    def __init__(self, path: str, root: Path = CGROUP_ROOT, kept: OpenFiles | None = None) -> None:
        self.path = path
        self.root = root
        self._kept = kept
        self._files: dict[str, int] = {}
        try:
            self._fd = os.open(
                f"{root}/{path.lstrip('/')}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
            )
        except (FileNotFoundError, NotADirectoryError):
            raise CgroupGoneError(path) from None
        status = os.fstat(self._fd)
        self.inode, self.changed_at = status.st_ino, status.st_ctime

    def fileno(self) -> int:
        """Return the descriptor of its directory, by which nothing can be read but paths below it."""
        return self._fd

    def close(self) -> None:
        for name in tuple(self._files):
            self._close_file(name)
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
            return self._read(name)
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

    def current(self) -> int:
        """Return memory.current in bytes.

        Raises:
            CgroupGoneError: the cgroup is removed.
            OSError, ValueError: it can't be read.
        """
        return parse_natural(self.read_file(_CURRENT).rstrip())

    def is_frozen(self) -> bool:
        """Return whether every process of the subtree is frozen.

        Raises:
            CgroupGoneError: the cgroup is removed.
            OSError: it can't be read.
        """
        return parse_flat_keyed(self.read_file("cgroup.events")).get("frozen") == 1

    def is_empty(self) -> bool:
        """Return whether no process lives in the subtree; its directory may stay for long.

        Raises:
            CgroupGoneError: the cgroup is removed.
            OSError: it can't be read.
        """
        return parse_flat_keyed(self.read_file("cgroup.events")).get("populated") == 0

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

    def read(self, request: Request, above: Sequence[Level] = ()) -> CgroupReading:
        """Read the memory files of this cgroup that `request` asks for.

        Args:
            request: what is read besides memory.current.
            above: the levels above this one, if `request` asks for levels; `Ancestors` reads them.

        Raises:
            CgroupGoneError: the cgroup is removed.
        """
        if self._is_root():
            return self._read_root(request)
        unknown: dict[str, str] = {}
        values = {name: self._counter(name, unknown) for name in request.counters if name != _CURRENT}
        values[_CURRENT], stat = self._usage(request.stat, unknown)
        events = self._keyed("memory.events", EVENT_KINDS, unknown) if request.events else {}
        pressure = self._pressure(unknown) if request.pressure else {}
        levels = (self._level(values, stat, unknown), *above) if request.levels else ()
        return CgroupReading(
            path=self.path,
            inode=self.inode,
            counters={name: value for name, value in values.items() if name not in unknown},
            stat=stat,
            events=events,
            pressure=pressure,
            levels=levels,
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
        listing = Listing(proc)
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

    def _read_root(self, request: Request) -> CgroupReading:
        """Read the root cgroup, which has no counters of its own (cgroup-v2.rst): its values are the machine's."""
        unknown = dict.fromkeys(
            (*request.counters, _CURRENT, "memory.events"), "the root cgroup has no such file"
        )
        return CgroupReading(
            path="/",
            inode=self.inode,
            stat=self._keyed("memory.stat", request.stat, unknown) if request.stat else {},
            pressure=self._pressure(unknown) if request.pressure else {},
            unknown=unknown,
            is_root=True,
        )

    def _is_root(self) -> bool:
        # every other cgroup has this file, the top of a container's namespace too
        return self.path in ("", "/") and not os.access("cgroup.events", os.F_OK, dir_fd=self._fd)

    def _usage(self, keys: tuple[str, ...], unknown: dict[str, str]) -> tuple[int | None, dict[str, int]]:
        """Return memory.current and those lines of memory.stat, without any that can't be true.

        The stat lags, and both move meanwhile: of memory.current before and after it, the lesser counts, so that
        page cache which comes or goes between two reads is never taken for what can't be reclaimed.
        """
        before = self._counter(_CURRENT, unknown)
        if not keys:
            return before, {}
        stat = self._keyed("memory.stat", keys, unknown)
        after = self._counter(_CURRENT, unknown)
        if before is None or after is None:
            return None, stat
        if why := impossible_parts(stat, max(before, after)):
            unknown["memory.stat"] = "; ".join(why.values())
            stat = {key: value for key, value in stat.items() if key not in why}
        return min(before, after), stat

    def _level(self, values: dict[str, int | None], stat: dict[str, int], unknown: dict[str, str]) -> Level:
        blank = [name for name in _LIMIT_FILES if name in unknown]
        # without the memory controller there is no such file, and no limit
        unread = {name: unknown[name] for name in blank if os.access(name, os.F_OK, dir_fd=self._fd)}
        return level_of(self.path, values, stat, unread)

    def read_level(self) -> Level:
        """Return this cgroup as a level; one without any value for the root of all, which has no limit.

        Raises:
            CgroupGoneError: the cgroup is removed.
        """
        if self._is_root():
            return ROOT_LEVEL
        unknown: dict[str, str] = {}
        values = {name: self._counter(name, unknown) for name in _LIMIT_FILES}
        values[_CURRENT], stat = self._usage(USAGE_KEYS, {})
        return self._level(values, stat, unknown)

    def _read(self, name: str) -> str:
        if (descriptor := self._files.get(name)) is not None:
            try:
                return read_open(descriptor)
            except OSError:
                # the cgroup is removed, or its controller was turned off, and perhaps on again
                self._close_file(name)
        descriptor = self.open_file(name)
        if self._kept is not None and self._kept.take():
            self._files[name] = descriptor
            return read_open(descriptor)
        try:
            return read_open(descriptor)
        finally:
            os.close(descriptor)

    def _close_file(self, name: str) -> None:
        os.close(self._files.pop(name))
        if self._kept is not None:
            self._kept.count -= 1

    def _counter(self, name: str, unknown: dict[str, str]) -> int | None:
        try:
            value = parse_counter(self.read_file(name))
            why = impossible({name: value or 0})
        except (OSError, ValueError) as error:
            why = {name: why_unread(name, error)}
        if why:
            unknown.update(why)
            return None
        return value

    def _keyed(self, name: str, keys: tuple[str, ...], unknown: dict[str, str]) -> dict[str, int]:
        try:
            values = find_keyed(self.read_file(name), keys)
        except (OSError, ValueError) as error:
            unknown[name] = why_unread(name, error)
            return {}
        if why := impossible(values):
            unknown[name] = "; ".join(why.values())
            return {key: value for key, value in values.items() if key not in why}
        return values

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


def own_cgroup(proc: Path = PROC_ROOT) -> str | None:
    """Return the cgroup path of this process; None where it has none in the v2 hierarchy."""
    try:
        return parse_self_cgroup((proc / "self/cgroup").read_text())
    except OSError:
        return None
