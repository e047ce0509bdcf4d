"""`reclaim`: a write to memory.reclaim, which blocks until the kernel is done."""

from __future__ import annotations

import _thread
import signal
from dataclasses import dataclass

from unitmem.act.task import Pending, Task
from unitmem.errors import reason_of
from unitmem.kernel.cgroup import Cgroup, CgroupGoneError
from unitmem.policy.actions import Reclaim
from unitmem.policy.decision import Outcome, Result
from unitmem.text import format_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Reclaiming(Pending):
    """A reclaim that is under way."""

    work: _Work


def perform(task: Task[Reclaim]) -> Outcome | Pending:
    return Reclaiming(
        task.decision,
        task.cgroup,
        task.now + task.action.timeout,
        work=_Work(task.cgroup, task.action.size),
    )


def verify(task: Task[Reclaim], pending: Reclaiming) -> Outcome | Pending:
    task.check_cgroup()
    work, asked = pending.work, format_size(task.action.size)
    if work.is_gone:
        raise CgroupGoneError(task.cgroup.path)
    if not work.is_done:
        if task.now < pending.deadline:
            return pending
        detail = f"the kernel is still reclaiming {task.waited} after it was asked for {asked}"
        return task.outcome(Result.FAILED, detail)
    after = _usage(task.cgroup)
    change = ""
    if work.before is not None and after is not None:
        change = f"; memory.current went from {format_size(work.before)} to {format_size(after)}"
    if work.error is None:
        return task.outcome(Result.VERIFIED, f"{asked} reclaimed{change}")
    if isinstance(work.error, BlockingIOError):
        detail = f"the kernel could reclaim less than {asked}{change}"
    elif isinstance(work.error, FileNotFoundError):
        detail = "there is no memory.reclaim: it needs Linux 5.19 and MemoryAccounting=yes"
    else:
        detail = f"memory.reclaim: {reason_of(work.error)}"
    return task.outcome(Result.FAILED, detail)


class _Work:
    """One write to memory.reclaim, in a thread of its own, since it blocks until the kernel is done.

    The thread takes no lock and touches nothing else; if it never returns, it ends with the process.

    Raises:
        OSError: no thread can be started.
    """

    def __init__(self, cgroup: Cgroup, size: int) -> None:
        self.error: OSError | None = None
        self.is_gone = False
        self.before = _usage(cgroup)
        self.is_done = False
        try:
            # without threading, which would take a hundredth of the daemon's memory for this alone
            _thread.start_new_thread(self._run, (cgroup, size))
        except RuntimeError:
            raise OSError("no thread can be started for it") from None

    def _run(self, cgroup: Cgroup, size: int) -> None:
        # interrupted, the kernel would forget what it has reclaimed, and be asked for all of it again
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            cgroup.reclaim(size)
        except CgroupGoneError:
            self.is_gone = True
        except OSError as error:
            self.error = error
        finally:
            self.is_done = True


def _usage(cgroup: Cgroup) -> int | None:
    try:
        return cgroup.limit("memory.current")
    except OSError:
        return None
