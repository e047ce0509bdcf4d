"""The cgroup that accounts for this process's memory, under cgroup v2 or v1: which it is, and its numbers.

Reference: cgroups(7), cgroup_namespaces(7), proc_pid_mountinfo(5), Documentation/admin-guide/cgroup-v2.rst,
cgroup-v1/memory.rst. Parsers first, which are pure; reading after.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from unitmem.kernel.cgroup import parse_self_cgroup
from unitmem.kernel.files import impossible, parse_counter, parse_flat_keyed
from unitmem.kernel.host import Host
from unitmem.kernel.limits import Level, headroom


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


def _unescape(text: str) -> str:
    # mountinfo writes space, tab, newline and backslash as three octal digits
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


# --- reading -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CgroupV2:
    """The cgroup of this process, in a mount of cgroup v2."""

    top: Path
    """The directory of the topmost cgroup that can be seen: the root, or the namespace's own."""
    names: tuple[str, ...]
    """The names that lead from there down to it."""

    def current(self, host: Callable[[], Host]) -> int:
        if self._is_root():
            # it has no counter; systemd gives this for -.slice, and so do the measures of a unit
            reason = host().why_unknown("MemAvailable")
            return known(host().total, reason) - known(host().available, reason)
        return self._counter("memory.current")

    def swap(self, host: Callable[[], Host]) -> int:
        if self._is_root():
            reason = host().why_unknown("SwapTotal or SwapFree")
            return known(host().swap_total, reason) - known(host().swap_free, reason)
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
            value = _size(self.top.joinpath(*self.names, name))
        except FileNotFoundError:
            raise ValueError(f"its cgroup has no {name}: that isn't counted there") from None
        return known(value, f"{name} is not a number")


@dataclass(frozen=True, slots=True)
class CgroupV1:
    """The cgroup of this process, in a mount of the memory hierarchy of cgroup v1."""

    top: Path
    names: tuple[str, ...]

    def current(self, _host: Callable[[], Host]) -> int:
        usage = _size(self._directory / "memory.usage_in_bytes")
        return known(usage, "memory.usage_in_bytes is not a number")

    def swap(self, _host: Callable[[], Host]) -> int:
        stat = self._stat()
        return known(stat.get("total_swap", stat.get("swap")), "the kernel does no swap accounting")

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
        return parse_flat_keyed(read_file(self._directory / "memory.stat"))

    def _hierarchical_limit(self) -> int | None:
        """Return the kernel's own limit over all ancestors, those too that a container can't see."""
        limit = self._stat().get("hierarchical_memory_limit")
        return None if limit is None else parse_v1_limit(str(limit))

    def _levels(self) -> Iterator[Level]:
        for directory in _upwards(self.top, self.names):
            if directory != self._directory and not _counts_its_children(directory):
                return
            limit = _limit(directory, "memory.limit_in_bytes", parse_v1_limit)
            yield _level(directory, limit, "memory.usage_in_bytes", "total_inactive_file")


def own_cgroup(proc: Path) -> CgroupV1 | CgroupV2:
    """Return the cgroup that accounts for this process's memory; looked up anew each time, as it may be moved.

    Raises:
        OSError: /proc can't be read.
        ValueError: it has none, or none that is visible in a mount.
    """
    version, path = parse_memory_cgroup(read_file(proc / "self/cgroup"))
    mounts = parse_cgroup_mounts(read_file(proc / "self/mountinfo"))
    mounts = [mount for mount in mounts if mount.version == version]
    kind = CgroupV1 if version == 1 else CgroupV2
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
            if str(os.getpid()) in read_file(top / "cgroup.procs").split():
                return kind(top, ())
    raise ValueError(f"its cgroup, {path}, is not visible in any mount of cgroup v{version}")


def _upwards(top: Path, names: tuple[str, ...]) -> Iterator[Path]:
    for count in range(len(names), -1, -1):
        yield top.joinpath(*names[:count])


def _limit(directory: Path, name: str, parse: Callable[[str], int | None]) -> int | None:
    try:
        return _size(directory / name, parse)
    except FileNotFoundError:
        # the root has no such file, nor has a cgroup without the controller: nothing is limited there
        if not (directory / "cgroup.procs").exists():
            raise
        return None


def _size(file: Path, parse: Callable[[str], int | None] = parse_counter) -> int | None:
    """Return the bytes in a counter's or a limit's file; None if it says that there is no limit.

    Raises:
        OSError: it can't be read.
        ValueError: not a number, or one that can't be true.
    """
    size = parse(read_file(file))
    if why := impossible({file.name: size or 0}):
        raise ValueError(why[file.name])
    return size


def _level(directory: Path, limit: int | None, current: str, inactive: str) -> Level:
    """Return `directory` with its usage if it has a limit: memory.stat is slow to read, and not needed without."""
    if limit is None:
        return Level(str(directory))
    usage = inactive_file = None
    with suppress(OSError, ValueError):
        usage = _size(directory / current)
        inactive_file = parse_flat_keyed(read_file(directory / "memory.stat")).get(inactive)
    return Level(str(directory), max=limit, current=usage, inactive_file=inactive_file)


def _counts_its_children(directory: Path) -> bool:
    """Return whether a v1 cgroup's limit holds for those below it as well, as it does always since Linux 5.11."""
    with suppress(OSError):
        return read_file(directory / "memory.use_hierarchy").strip() != "0"
    return True


def _tightest(levels: Iterator[Level] | list[Level]) -> int | None:
    return min((level.max for level in levels if level.max is not None), default=None)


def _headroom(levels: list[Level], host: Host) -> int:
    blind = [level.path for level in levels if level.max is not None and level.workingset is None]
    reason = f"what is used in {blind[0]} can't be read" if blind else host.why_unknown("MemAvailable")
    return known(headroom(levels, host), reason)


def known(value: int | None, reason: str) -> int:
    """Return `value`.

    Raises:
        ValueError: it is None, for this reason.
    """
    if value is None:
        raise ValueError(reason)
    return value


def read_file(path: Path) -> str:
    """Return the text of `path`, as os.fsdecode reads it.

    Raises:
        OSError: it can't be read.
    """
    # paths are bytes to the kernel
    return os.fsdecode(path.read_bytes())
