"""Opening a pidfd of the process that is meant: by its pid, as a child, or from another pidfd.

Reference: pidfd_open(2), proc_pid_fdinfo(5), waitid(2). A pid may be
reused by another process; a pidfd always refers to the same one.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from unitmem.errors import UnsupportedSystemError
from unitmem.kernel.files import PROC_ROOT
from unitmem.kernel.process import PinnedProcess, ProcessGoneError, ProcessHiddenError


class Child(Protocol):
    """The attributes that `subprocess.Popen` and asyncio's `Process` have in common."""

    pid: int
    returncode: Any


def open_process(process: int | Child | None, pidfd: int | None) -> int:
    """Return a pidfd of the process that the caller names: by pid, as a child, or by a pidfd of the caller's.

    Raises:
        TypeError: the argument is none of these.
        ProcessGoneError, ProcessLookupError, ValueError, OSError: as the functions below.
    """
    if pidfd is not None:
        return duplicate(_number(pidfd, "a pidfd"))
    if process is None or isinstance(process, int) or not hasattr(process, "returncode"):
        return open_pid(_number(process, "a process is a subprocess.Popen or a pid, which"))
    return open_child(process)


def _number(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    return value


def open_pid(pid: int) -> int:
    """Return a pidfd of the process that has `pid` now.

    Raises:
        ValueError: it is not a possible pid, it is a thread's, or it is PID 1, which can't be ended.
        ProcessLookupError: no process has it.
        OSError: there are too many open files.
    """
    if pid <= 0:
        raise ValueError(f"a pid is above 0, not {pid}")
    try:
        return _not_init(os.pidfd_open(pid))
    except (ProcessLookupError, OverflowError):
        hint = f"; if it is a pidfd, write pidfd={pid}" if _is_pidfd(pid) else ""
        raise ProcessLookupError(errno.ESRCH, f"no process has the pid {pid}{hint}") from None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            raise ValueError(f"{pid} is a thread, not a process") from None
        raise


def open_child(child: Child) -> int:
    """Return a pidfd of a child of this program.

    Its pid is its own until the child is waited for; after that, another process may have it, so it isn't opened.

    Raises:
        ProcessGoneError: it has ended, and was waited for.
        OSError: there are too many open files.
    """
    if child.returncode is not None:
        raise ProcessGoneError(child.pid)
    try:
        pidfd = os.pidfd_open(child.pid)
    except ProcessLookupError:
        raise ProcessGoneError(child.pid) from None
    with _closed_by_errors(pidfd):
        if not _is_child(pidfd):
            raise ProcessGoneError(child.pid)
    return pidfd


def duplicate(pidfd: int) -> int:
    """Return a pidfd of the same process as `pidfd`.

    Raises:
        ValueError: it is not a pidfd, or it is that of PID 1.
        OSError: it isn't open, or there are too many open files.
    """
    twin = os.dup(pidfd)
    with _closed_by_errors(twin):
        if not _is_pidfd(twin):
            raise ValueError(f"file descriptor {pidfd} is not a pidfd")
    return _not_init(twin)


def has_ended(pidfd: int) -> bool:
    """Return whether all threads of the process have ended; a zombie has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def pin(pidfd: int, proc: Path = PROC_ROOT) -> PinnedProcess:
    """Return the process of a pidfd, opened in /proc.

    Raises:
        ProcessGoneError: it has ended, and was waited for.
        PermissionError: it is hidden from this user (hidepid), or in a pid namespace that /proc doesn't show.
        UnsupportedSystemError: there is no /proc.
        OSError: there are too many open files.
    """
    pid = _pid_of(pidfd)
    if pid is None:
        raise ProcessGoneError(pid)
    hidden = PermissionError(
        errno.EACCES, f"the process is hidden from this user, or from {proc} as it is mounted"
    )
    if pid == 0:
        raise hidden
    try:
        pinned = PinnedProcess(pid, proc)
    except (ProcessGoneError, ProcessHiddenError):
        if _pid_of(pidfd) is None:
            raise ProcessGoneError(pid) from None
        raise hidden from None
    try:
        # while it is not waited for the pid is its own, and so is the directory that was opened in between
        if _pid_of(pidfd) == pid:
            return pinned
    except BaseException:
        pinned.close()
        raise
    pinned.close()
    raise ProcessGoneError(pid)


def _is_child(pidfd: int) -> bool:
    """Return whether the process of a pidfd is a child of this program that wasn't waited for yet."""
    try:
        # it asks, and leaves the answer for the one who waits
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _pid_of(pidfd: int) -> int | None:
    """Return the process's pid in /proc; None once it was waited for, 0 if /proc shows another pid namespace."""
    text = _fdinfo(pidfd)
    if text is None:
        raise UnsupportedSystemError("/proc is not mounted")
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == "Pid":
            return None if int(value) < 0 else int(value)
    raise ValueError(f"file descriptor {pidfd} is not a pidfd")


def _is_pidfd(descriptor: int) -> bool:
    return "\nPid:" in (_fdinfo(descriptor) or "")


def _fdinfo(descriptor: int) -> str | None:
    # not self: a thread may have descriptors of its own
    with suppress(FileNotFoundError):
        return Path(f"/proc/thread-self/fdinfo/{descriptor}").read_bytes().decode()
    return None


def _not_init(pidfd: int) -> int:
    with _closed_by_errors(pidfd):
        if _pid_of(pidfd) == 1:
            raise ValueError("PID 1 can't be ended: the whole system would go down with it")
    return pidfd


@contextmanager
def _closed_by_errors(descriptor: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(descriptor)
        raise
