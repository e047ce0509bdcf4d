"""The cgroups above those that are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unitmem.kernel.cgroup import Cgroup
from unitmem.kernel.files import CGROUP_ROOT, OpenFiles
from unitmem.kernel.limits import ROOT_LEVEL, Level


class Ancestors:
    """The cgroups above those that are read: at one instant each is read once; they may stay open until the next.

    Hundreds of units share one slice, whose memory.stat is slow to read.

    Args:
        root: where cgroup v2 is mounted.
        kept: the files that are kept open; None: none are, nor the cgroups.
    """

    def __init__(self, root: Path = CGROUP_ROOT, kept: OpenFiles | None = None) -> None:
        self._root = root
        self._kept = kept
        self._open: dict[str, Cgroup] = {}
        self._levels: dict[str, Level] = {}
        self._paths: dict[str, tuple[Level, ...]] = {}
        self._limits: dict[str, tuple[object, ...]] = {}
        self._used: set[str] = set()

    def begin(self) -> None:
        """Begin another instant, and close those that were not used at the last one."""
        for path in self._open.keys() - self._used:
            self._open.pop(path).close()
        self._levels.clear()
        self._paths.clear()
        self._limits.clear()
        self._used.clear()

    def close(self) -> None:
        self._used.clear()
        self.begin()

    def levels(self, path: str) -> tuple[Level, ...]:
        """Return the levels above the cgroup `path`, the nearest first; the root of all cgroups is none.

        Raises:
            CgroupGoneError: one of them is removed, so that the cgroup `path` is, too.
        """
        if path in ("", "/"):
            return ()
        parent = path.rpartition("/")[0]
        if parent not in self._paths:
            parts = [part for part in path.split("/") if part]
            paths = ("/" + "/".join(parts[:count]) for count in range(len(parts) - 1, -1, -1))
            levels = (self._level(each) for each in paths)
            self._paths[parent] = tuple(level for level in levels if level != ROOT_LEVEL)
        return self._paths[parent]

    def limits(self, path: str) -> tuple[object, ...]:
        """Return what is known of the limits above the cgroup `path`, to be compared with those of another instant.

        Raises:
            CgroupGoneError: as `levels`.
        """
        parent = path.rpartition("/")[0]
        if parent not in self._limits:
            levels = self.levels(path)
            self._limits[parent] = tuple((level.max, level.high, level.unknown) for level in levels)
        return self._limits[parent]

    def _level(self, path: str) -> Level:
        if path not in self._levels:
            with self.opened(path) as cgroup:
                self._levels[path] = cgroup.read_level()
        return self._levels[path]

    @contextmanager
    def opened(self, path: str) -> Iterator[Cgroup]:
        """Open the cgroup at `path`; where files are kept open, it stays so until an instant at which it is not used.

        Raises:
            CgroupGoneError: there is no such cgroup.
            OSError: it may not be opened.
        """
        if self._kept is None:
            with Cgroup(path, self._root) as cgroup:
                yield cgroup
            return
        if path not in self._used:
            self._used.add(path)
            if path in self._open and not self._open[path].exists():  # made again under the same path
                self._open.pop(path).close()
        if path not in self._open:
            self._open[path] = Cgroup(path, self._root, self._kept)
        yield self._open[path]
