"""The processes of a cgroup."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from unitmem.kernel.cgroup import Cgroup
from unitmem.kernel.files import PROC_ROOT
from unitmem.kernel.process import (
    PinnedProcess,
    Process,
    ProcessGoneError,
    ProcessHiddenError,
    describe,
    measure_pss,
    read_process,
    with_pss,
)

MOST_PINS = 256
"""The most descriptors for the processes of a unit; of 1,024 that a program may have open by default."""


class Pins:
    """The processes of a unit, pinned from the first read to the second, which then needs no check whose pid it is.

    Those for which it has no descriptor are opened anew.
    """

    def __init__(self) -> None:
        self._pinned: dict[int, PinnedProcess] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def read(self, pid: int, proc: Path = PROC_ROOT) -> Process:
        """Return what `read_process` does."""
        if len(self._pinned) >= MOST_PINS:
            return read_process(pid, proc)
        pinned = self._pinned[pid] = self._open.enter_context(PinnedProcess(pid, proc))
        return describe(pinned)

    def with_pss(self, process: Process, proc: Path = PROC_ROOT) -> Process:
        """Return what `with_pss` does."""
        pinned = self._pinned.get(process.pid)
        return with_pss(process, proc) if pinned is None else measure_pss(pinned, process)


def read_processes(
    cgroup: Cgroup, proc: Path = PROC_ROOT, pids: Sequence[int] | None = None, pins: Pins | None = None
) -> list[Process]:
    """Return every process of `cgroup` with its RSS; one that /proc hides is included, with the reason in `unknown`.

    Args:
        cgroup: the cgroup, open.
        proc: where /proc is.
        pids: what `cgroup.pids()` has just returned, if that was called already.
        pins: what keeps them pinned.

    Raises:
        CgroupGoneError: the unit stopped, or was started again.
        OSError: not all of them can be listed.
    """
    processes = []
    missing = set()
    for pid in cgroup.pids(proc) if pids is None else pids:
        try:
            processes.append(read_process(pid, proc) if pins is None else pins.read(pid, proc))
        except ProcessGoneError:
            missing.add(pid)
        except ProcessHiddenError:
            processes.append(_hidden(pid))
    if missing:
        # what ended has left the cgroup as well, as a zombie has; what has not is only hidden
        processes += [_hidden(pid) for pid in cgroup.pids(proc) if pid in missing]
    return processes


def _hidden(pid: int) -> Process:
    return Process(
        pid, start_time=0, name="", unknown="hidden from this user (/proc is mounted with hidepid)"
    )
