"""A process, alone or with all its descendants: their memory, and signals to all of them.

Reference: proc_tid_children(5), pid_namespaces(7). A descendant that was seen stays in the
tree, even when its parent ends and another process adopts it. A process that is started and orphaned
between two looks is not seen.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from unitmem.errors import reason_of
from unitmem.kernel.files import PROC_ROOT
from unitmem.kernel.process import (
    PinnedProcess,
    Process,
    ProcessGoneError,
    ProcessHiddenError,
    Stat,
    measure_pss,
    parse_stat,
    send_signal,
    with_pss,
)

_FREEZING = 0.1  # seconds within which what was stopped is expected to stand still


@dataclass(frozen=True, slots=True)
class Delivery:
    """The processes that a signal reached, and those that it didn't."""

    reached: tuple[Process, ...]
    refused: tuple[tuple[Process, OSError], ...]
    """The living processes that could not be signalled, with the errors."""


class ProcessTree:
    """The process `root`, and with `whole` all its descendants.

    For one thread; `is_over` may be called by any.

    Raises:
        ProcessGoneError: it has ended, and was waited for.
        OSError: it can't be read.
    """

    def __init__(self, root: PinnedProcess, *, whole: bool, proc: Path = PROC_ROOT) -> None:
        stat = root.read_stat()
        self.root = Process(root.pid, stat.start_time, stat.name)
        self._pinned = root
        self._whole = whole
        self._proc = proc
        self._known: tuple[Process, ...] = (self.root,)
        # CONFIG_PROC_CHILDREN; a kernel without it makes us look at every process of the machine
        self._lists_children = os.path.exists(f"{proc}/{root.pid}/task/{root.pid}/children")  # noqa: PTH110

    def look(self) -> list[Process]:
        """Return the living processes, the root first, with RSS, or None where it can't be read.

        Without `whole`, the root is returned in any case: its pidfd shows whether it lives.
        """
        if self._whole:
            return [process for process, _ in self._walk()]
        try:
            return [replace(self.root, rss=self._pinned.read_rss())]
        except (OSError, ValueError, ProcessGoneError):
            return [self.root]

    def measure_pss(self, processes: Sequence[Process]) -> list[Process]:
        """Return those of `processes` that still live, with PSS, or with the reason in `unknown`."""
        measured = []
        for process in processes:
            try:
                measured.append(self._measure_pss(process))
            except ProcessGoneError:
                continue
            except OSError as error:
                measured.append(replace(process, unknown=reason_of(error)))
        return measured

    def _measure_pss(self, process: Process) -> Process:
        if not self._is_root(process):
            return with_pss(process, self._proc)
        # which is the most common case, and should cost the least
        with suppress(OSError, ValueError):
            return replace(process, pss=self._pinned.read_pss())
        return measure_pss(self._pinned, process)

    def is_over(self) -> bool:
        """Return whether all processes that were seen so far have ended; for any thread."""
        return not any(self._lives(process) for process in self._known)

    def send_signal(self, number: signal.Signals) -> Delivery:
        """Send a signal to each process once; this program, if it is one of them, is the last."""
        return self._send(self.look(), number)

    def kill(self) -> Delivery:
        """Send SIGKILL to each process; all are stopped first, since children of a killed parent could escape."""
        if self._whole:
            self._freeze()
        return self._send(self.look(), signal.SIGKILL)

    # --- who belongs to it -------------------------------------------------------------------------

    def _walk(self) -> list[tuple[Process, Stat | None]]:
        """Return the living processes, each with its stat, or None where it can't be read.

        If not all children of a process can be read, its `unknown` says so; they are missing from the list.
        """
        family = None if self._lists_children else _children_by_parent(self._proc)
        found: dict[int, tuple[Process, Stat | None]] = {}
        queue = deque(self._known)
        while queue:
            process = queue.popleft()
            if process.pid in found:
                continue
            try:
                with self._pin(process) as pinned:
                    stat = pinned.read_stat()
                    if stat.start_time != process.start_time or stat.has_ended:
                        continue
                    alive = replace(process, name=stat.name, rss=pinned.read_rss(), unknown=None)
                    found[process.pid] = alive, stat
                    for pid in pinned.list_children() if family is None else family.get(process.pid, ()):
                        try:
                            if child := self._child(pid, pinned):
                                queue.append(child)
                        except (OSError, ValueError, ProcessHiddenError) as error:
                            found[process.pid] = _with_unknown_children(alive, error), stat
            except ProcessGoneError:
                found.pop(process.pid, None)
            except (OSError, ValueError, ProcessHiddenError) as error:
                read, stat_or_none = found.get(process.pid, (replace(process, rss=None), None))
                found[process.pid] = _with_unknown_children(read, error), stat_or_none
        self._known = tuple(process for process, _ in found.values())
        return list(found.values())

    def _child(self, pid: int, parent: PinnedProcess) -> Process | None:
        """Return the child `pid` of `parent`; None if it has ended, or has another parent by now.

        Raises:
            OSError, ValueError, ProcessHiddenError: it can't be read.
        """
        try:
            with PinnedProcess(pid, self._proc) as pinned:
                stat = pinned.read_stat()
                if stat.has_ended or stat.parent != parent.pid:
                    return None
                parent.read_stat()  # while it is not waited for, its pid is its own
                return Process(pid, stat.start_time, stat.name)
        except ProcessGoneError:
            return None

    def _lives(self, process: Process) -> bool:
        """Return whether `process` lives; True where that can't be read."""
        try:
            with self._pin(process) as pinned:
                stat = pinned.read_stat()
        except ProcessGoneError:
            return False
        except (OSError, ValueError, ProcessHiddenError):
            return True
        return stat.start_time == process.start_time and not stat.has_ended

    def _pin(self, process: Process) -> AbstractContextManager[PinnedProcess]:
        return nullcontext(self._pinned) if self._is_root(process) else PinnedProcess(process.pid, self._proc)

    def _is_root(self, process: Process) -> bool:
        return (process.pid, process.start_time) == (self.root.pid, self.root.start_time)

    # --- signals -----------------------------------------------------------------------------------

    def _freeze(self) -> None:
        """Send SIGSTOP to all of them until no new one appears and each is stopped, at most for `_FREEZING` seconds."""
        deadline = time.monotonic() + _FREEZING
        stopped: set[tuple[int, int]] = set()
        while True:
            others = [(process, stat) for process, stat in self._walk() if process.pid != self._own_pid()]
            new = [process for process, _ in others if (process.pid, process.start_time) not in stopped]
            for process in new:
                with suppress(OSError, ProcessGoneError, ProcessHiddenError):
                    self._send_to(process, signal.SIGSTOP)
                stopped.add((process.pid, process.start_time))
            still = all(stat is None or stat.state in "Tt" for _, stat in others)
            if (not new and still) or time.monotonic() >= deadline:
                return
            time.sleep(0.001)

    def _send(self, processes: Sequence[Process], number: signal.Signals) -> Delivery:
        reached: list[Process] = []
        refused: list[tuple[Process, OSError]] = []
        own = self._own_pid()
        for process in sorted(processes, key=lambda process: process.pid == own):
            try:
                self._send_to(process, number)
            except ProcessGoneError:
                continue
            except ProcessHiddenError:
                refused.append((process, PermissionError(1, "it is hidden from this user")))
            except OSError as error:
                refused.append((process, error))
            else:
                reached.append(process)
        return Delivery(tuple(reached), tuple(refused))

    def _send_to(self, process: Process, number: signal.Signals) -> None:
        if self._is_root(process):
            self._pinned.send_signal(number)
        else:
            send_signal(process, number, still_meant=lambda: True)

    def _own_pid(self) -> int:
        # as /proc has it, like the others
        return int(os.readlink(f"{self._proc}/self"))  # noqa: PTH115


def _children_by_parent(proc: Path) -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for entry in os.listdir(proc):
        if entry.isdecimal():
            with suppress(OSError, ValueError):
                text = (proc / entry / "stat").read_bytes().decode(errors="replace")
                children.setdefault(parse_stat(text).parent, []).append(int(entry))
    return children


def _with_unknown_children(process: Process, error: Exception) -> Process:
    why = reason_of(error) if isinstance(error, OSError) else str(error)
    if isinstance(error, ProcessHiddenError):
        why = "hidden from this user (/proc is mounted with hidepid)"
    return replace(process, unknown=f"not all its children can be read: {why}")
