"""Waiting for memory.events of many cgroups at once."""

from __future__ import annotations

import errno
import os
import select

from unitmem.kernel.cgroup import Cgroup


class MemoryEvents:
    """A file descriptor that becomes readable when memory.events of one of many cgroups changes.

    The kernel reports a change (a limit was reached, an OOM kill) as POLLPRI on the file; an epoll of those files
    is itself pollable. So spikes that are shorter than the interval are noticed.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._files: dict[int, int] = {}

    def close(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()
        self._epoll.close()

    def fileno(self) -> int:
        return self._epoll.fileno()

    def add(self, cgroup: Cgroup) -> None:
        """Watch `cgroup`, unless it has no such file: the root, or a unit without accounting.

        Raises:
            OSError: too many files are open.
        """
        try:
            descriptor = cgroup.open_file("memory.events")
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            return
        try:
            os.read(descriptor, 4096)  # events are reported from the last read on
            self._epoll.register(descriptor, select.EPOLLPRI)
        except OSError:  # removed meanwhile, or a file that can't be polled (a test's plain file)
            os.close(descriptor)
            return
        self.remove(cgroup)
        self._files[cgroup.inode] = descriptor

    def remove(self, cgroup: Cgroup) -> None:
        """Stop watching `cgroup`."""
        descriptor = self._files.pop(cgroup.inode, None)
        if descriptor is not None:
            os.close(descriptor)  # which takes it out of the epoll as well

    def acknowledge(self) -> frozenset[int]:
        """Acknowledge the changes so far, so that only later ones wake again; return the inodes of their cgroups."""
        changed = {descriptor for descriptor, _ in self._epoll.poll(0)}
        for descriptor in changed:
            try:
                os.pread(descriptor, 4096, 0)
            except OSError:  # the cgroup is removed: nothing more comes from it
                self._epoll.unregister(descriptor)
        return frozenset(inode for inode, descriptor in self._files.items() if descriptor in changed)
