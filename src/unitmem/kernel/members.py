"""The pids of a cgroup and of all cgroups below it."""

from __future__ import annotations

import errno
import os
from itertools import islice
from pathlib import Path

# How far the listing of a subtree goes. It takes some 100 µs a cgroup; a machine with a thousand containers has fewer.
_DEEPEST = 64
_MOST_CGROUPS = 5_000
_REMOVED = (errno.ENOENT, errno.ENODEV)


class Listing:
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
            directory = os.open(
                name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=parent
            )
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
            pids = list(map(int, _text(directory, "cgroup.procs").split()))
        except OSError as error:
            if depth and error.errno in _REMOVED:
                return
            if error.errno != errno.EOPNOTSUPP:
                raise
            # a threaded cgroup: its processes are listed at the domain above it, which is within
            # the subtree unless the unit itself is threaded
            self._is_threaded = self._is_threaded or depth == 0
            threads = _text(directory, "cgroup.threads").split() if self._is_threaded else []
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


def _text(directory: int, name: str) -> str:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        chunks = []
        while chunk := os.read(descriptor, 65536):
            chunks.append(chunk)
    finally:
        os.close(descriptor)
    return b"".join(chunks).decode(errors="replace")
