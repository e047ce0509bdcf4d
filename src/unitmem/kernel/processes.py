"""The processes of a cgroup."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unitmem.kernel.cgroup import Cgroup
from unitmem.kernel.files import PROC_ROOT
from unitmem.kernel.process import (
    Process,
    ProcessGoneError,
    ProcessHiddenError,
    read_process,
)


def read_processes(
    cgroup: Cgroup, proc: Path = PROC_ROOT, pids: Sequence[int] | None = None
) -> list[Process]:
    """Return every process of `cgroup` with its RSS; one that /proc hides is included, with the reason in `unknown`.

    Args:
        cgroup: the cgroup, open.
        proc: where /proc is.
        pids: what `cgroup.pids()` has just returned, if that was called already.

    Raises:
        CgroupGoneError: the unit stopped, or was started again.
        OSError: not all of them can be listed.
    """
    processes = []
    missing = set()
    for pid in cgroup.pids(proc) if pids is None else pids:
        try:
            processes.append(read_process(pid, proc))
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
