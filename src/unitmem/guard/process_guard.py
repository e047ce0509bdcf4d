"""One process under a limit on its PSS: `ProcessGuard`, which watches and ends it from a thread of its own.

A pidfd settles at the start which process is meant. Its files and signals go through descriptors of that very process.
"""

from __future__ import annotations

import logging
import math
import operator
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from unitmem.errors import UnsupportedSystemError, reason_of
from unitmem.guard.guard_log import GuardLog
from unitmem.guard.outcome import Breach, GuardEnd, GuardOutcome, GuardReading, is_within
from unitmem.kernel.pidfd import Child, has_ended, open_process, pin
from unitmem.kernel.process import ProcessGoneError
from unitmem.kernel.process_tree import ProcessTree
from unitmem.text import format_size, format_span, printable, seconds

_AGAIN = (0.05, 1.0)
"""The least and the most seconds until a signal is retried, and until a tree whose root has ended is checked again."""
_SLOW = 10.0
"""Seconds after SIGKILL until a process that is still alive is reported."""
_SOON = 1.0
"""Seconds that a process is given to finish exec, or to end after SIGKILL."""
_LONGEST = (1 << 31) - 1
"""Milliseconds that poll(2) can wait."""


class ProcessGuard:
    """Ends a process that has more memory than it may, by PSS, watched from a thread of this program.

    Nothing happens before `limit`. From then on it looks every `interval` seconds: at RSS, which costs
    microseconds, and at PSS only where RSS, which is never less, doesn't tell that all is well. So the
    `pss` read last may be some time old while the process is far from its limit.

    Which process is meant is settled here and now. Neither one that has its pid later nor anyone else
    is ever read or signalled. `outcome` says that it was killed, and `killed` is set, only when it has
    been seen to end.

    All methods may be called from any thread and from a signal handler. The thread doesn't keep the
    program alive, and isn't there in a process that is forked off. A guard has three file descriptors,
    which are closed once there is an outcome, and when nobody refers any more to one that has no limit.

    Args:
        process: a pid, or a `subprocess.Popen` (or asyncio's `Process`) of this very program. A number is
            always a pid. It may be another process's before it gets here; that of a child which nobody
            has waited for can't be.
        pidfd: instead of it, a pidfd. It is duplicated, and stays the caller's.
        tree: guard it together with all its descendants: the limit is for their sum, they are ended
            together, and the guard's work ends with the last of them. What one of them starts and lets
            go of between two looks escapes.
        interval: seconds from one look to the next. After a reading of PSS at least as long passes as
            that took, since the process may have to wait for it.
        name: what to call it in messages, besides its pid; its own name unless given.
        stats_every: seconds from one message with numbers to the next, at level INFO, for which PSS
            is read in any case. None is never.
        log: where messages go; the logger `unitmem.guard` unless given. A limit that is passed is a
            WARNING, what fails is an ERROR.

    Raises:
        TypeError, ValueError: an argument that means nothing; PID 1, which can't be ended.
        ProcessLookupError: no process has that pid. A child that has ended is no error, but an outcome.
        PermissionError: it is hidden from this user (/proc is mounted with hidepid).
        OSError: there are too many open files.
        UnsupportedSystemError: this isn't Linux, or there is no /proc.
    """

    killed: threading.Event
    """Set when the process has ended because of the limit, and after `outcome` was set."""

    def __init__(
        self,
        process: int | Child | None = None,
        *,
        pidfd: int | None = None,
        tree: bool = False,
        interval: float = 1.0,
        name: str | None = None,
        stats_every: float | None = 60.0,
        log: logging.Logger | logging.LoggerAdapter[Any] | None = None,
    ) -> None:
        self._thread: threading.Thread | None = None
        self._closers: list[Callable[[], None]] = []  # of open descriptors
        self._interval = seconds(interval)
        self._stats_every = math.inf if stats_every is None else seconds(stats_every, "stats_every")
        self._whole = tree
        # one that a signal handler may take while its own thread has it
        self._lock = threading.Condition(threading.RLock())
        self._limit = 0
        self._grace: float | None = None
        self._pss: int | None = None
        self._reading: GuardReading | None = None
        self._breach: Breach | None = None
        self._looks = self._pss_looks = 0
        self._blind_since = math.inf
        self._outcome: GuardOutcome | None = None
        self._give_up_at = math.inf
        self.killed = threading.Event()
        if not hasattr(signal, "pidfd_send_signal") or not hasattr(os, "eventfd"):
            raise UnsupportedSystemError("a process can be guarded on Linux only")
        self._label = ""
        try:
            self._settle(process, pidfd, name)
        except BaseException:
            self._close()
            raise
        self._log = GuardLog(logging.getLogger("unitmem.guard") if log is None else log, self._label)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.cancel_wait()

    def __del__(self) -> None:
        # a thread refers to it for as long as it runs, and leaves nothing open
        if self._thread is None:
            self._close()

    def __repr__(self) -> str:
        return f"<ProcessGuard of {self._label}: {self._outcome or 'no outcome yet'}>"

    # --- for the caller ----------------------------------------------------------------------------

    def limit(self, bytes: int, grace: float | None = None) -> None:  # noqa: A002 - it is the unit
        """Guard it from now on: look at once, and end it as soon as its PSS is above `bytes`.

        Called again, it changes the limit and the grace, and looks at once; what was sent already is
        seen through. If the process has ended, nothing happens: `outcome` tells.

        Args:
            bytes: what its PSS may be at most.
            grace: seconds from SIGTERM, which comes first then, to SIGKILL, which comes if it still lives,
                whatever its memory is by then. None is SIGKILL at once.

        Raises:
            TypeError, ValueError: `bytes` is no whole number above 0, or `grace` no finite one above 0.
            RuntimeError: the guard was cancelled, or the system gives no further thread.
        """
        if isinstance(bytes, bool) or not hasattr(bytes, "__index__"):
            raise TypeError(f"a limit must be a whole number of bytes, not {bytes!r}")
        size = operator.index(bytes)
        if size <= 0:
            raise ValueError(f"a limit must be above 0, not {size}")
        span = None if grace is None else seconds(grace, "grace")
        with self._lock:
            if self._give_up_at < math.inf or (self._outcome and self._outcome.kind is GuardEnd.CANCELLED):
                raise RuntimeError("this guard was cancelled: make another one")
            if self._outcome is not None:
                return
            self._limit, self._grace = size, span
            if self._thread is not None:
                os.eventfd_write(self._bell, 1)
                return
            # it is known before it runs: a signal handler may call in between
            self._thread = threading.Thread(target=self._run, name=f"guard of {self._label}", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:
                self._thread = None
                raise

    @property
    def pss(self) -> int | None:
        """The PSS that was read last, in bytes, of all its processes; a fresh one if there is none yet.

        Once it was killed, this is what was above the limit. None if it can't be read.
        """
        if self._pss is not None:
            return self._pss
        with suppress(OSError, ProcessGoneError):
            with self._lock:
                # in a descriptor of its own: the thread may close the other
                pinned = self._pinned.duplicate() if self._closers else None
            if pinned is not None:
                with pinned:
                    tree = ProcessTree(pinned, whole=self._whole)
                    return GuardReading.of(tree.measure_pss(tree.look()), time.monotonic()).pss
        return self._pss

    @property
    def label(self) -> str:
        """The name of the process in messages: `pid 123 (name)`."""
        return self._label

    @property
    def sent(self) -> signal.Signals | None:
        """The signal that was sent last because of the limit; None as long as none was."""
        with self._lock:  # it may be about to be sent, and to have its effect before that is noted
            return self._breach.sent if self._breach is not None else None

    @property
    def reading(self) -> GuardReading | None:
        """The last reading; None before the first."""
        return self._reading

    @property
    def outcome(self) -> GuardOutcome | None:
        """The outcome; None while the process is guarded, or no limit is set yet."""
        return self._outcome

    def wait(self, timeout: float | None = None) -> GuardOutcome | None:
        """Return the outcome, once there is one or `timeout` seconds have passed; at once, if there is no limit.

        It doesn't wait either in the guard's own thread, nor in a signal handler that interrupts
        another method of the guard, which could not go on.
        """
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and not self._has_lock():
            thread.join(timeout)
        return self._outcome

    def cancel(self) -> None:
        """Stop guarding: nothing is sent to the process from here on. Further calls do nothing.

        If it has ended meanwhile, that is the outcome. One that SIGKILL was sent to is given a second to end
        before the outcome is that it was cancelled.
        """
        with self._lock:
            if self._outcome is None:
                self._outcome = self._ended()
            if self._outcome is None and self._dies():
                self._give_up_at = min(self._give_up_at, time.monotonic() + _SOON)
            elif self._outcome is None:
                self._outcome = self._cancelled()
            if self._thread is None:
                self._close()
            elif self._closers:
                os.eventfd_write(self._bell, 1)

    def cancel_wait(self) -> None:
        """Call `cancel`, and return when the thread and all file descriptors are gone."""
        self.cancel()
        self.wait()

    # --- who it is ---------------------------------------------------------------------------------

    def _settle(self, process: int | Child | None, pidfd: int | None, name: str | None) -> None:
        """Open the process that is meant, or set the outcome if it has ended."""
        if (process is None) is (pidfd is None):
            raise TypeError("give a process, or the pidfd of one")
        self._label = _label(name, process if isinstance(process, int) else getattr(process, "pid", None))
        try:
            self._pidfd = held = open_process(process, pidfd)
            self._closers.append(lambda: os.close(held))
            self._pinned = pin(held)
            self._closers.append(self._pinned.close)
            self._tree = ProcessTree(self._pinned, whole=self._whole)
        except ProcessGoneError as error:
            self._outcome = GuardOutcome(GuardEnd.EXITED, f"it had ended before{_successor(error.args[0])}")
            self._close()
            return
        self._label = _label(name or self._tree.root.name, self._tree.root.pid)
        self._bell = bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closers.append(lambda: os.close(bell))

    def _close(self) -> None:
        while self._closers:
            self._closers.pop()()

    def _has_lock(self) -> bool:
        """Return whether this thread is already within a method of this guard."""
        try:
            self._lock.notify()
        except RuntimeError:  # it doesn't own it
            return False
        return True

    def _ended(self) -> GuardOutcome | None:
        """Return the outcome if all have ended."""
        if not has_ended(self._pidfd) or (self._whole and not self._tree.is_over()):
            return None
        breach = self._breach
        if breach is None or breach.sent is None:
            return GuardOutcome(GuardEnd.EXITED, self._how_it_ended())
        return breach.killed(breach.sent)

    def _dies(self) -> bool:
        """Return whether SIGKILL was sent, and the thread waits for the end."""
        return self.sent is signal.SIGKILL and self._thread is not None and self._thread.is_alive()

    def _cancelled(self) -> GuardOutcome:
        breach, reason = self._breach, "it is no longer guarded"
        if breach is None or breach.sent is None:
            return GuardOutcome(GuardEnd.CANCELLED, reason)
        reason += f"; {breach}, and {breach.sent.name} was sent"
        return GuardOutcome(GuardEnd.CANCELLED, reason, breach.sent)

    def _how_it_ended(self) -> str:
        try:
            self._pinned.read_stat()
        except ProcessGoneError:
            return f"it ended{_successor(self._pinned.pid)}"
        except OSError:
            return "it ended"
        return "it ended, and is a zombie until its parent waits for it"

    # --- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            outcome = self._guard()
        except Exception as error:  # noqa: BLE001 - nobody else would report it
            outcome = GuardOutcome(GuardEnd.FAILED, f"unexpected {type(error).__name__}: {error}")
        with self._lock:
            if self._outcome is None:
                self._outcome = outcome
            self._close()
        if self._outcome.kind is GuardEnd.KILLED:
            self.killed.set()
        self._log.write_outcome(self._outcome)

    def _guard(self) -> GuardOutcome:
        waiting = select.poll()
        waiting.register(self._bell, select.POLLIN)
        waiting.register(self._pidfd, select.POLLIN)
        statistics_at = time.monotonic() + self._stats_every
        while True:
            started = time.monotonic()
            # cancel() sets the first
            if (outcome := self._outcome or self._ended()) is not None:
                return outcome
            if started >= self._give_up_at:
                return self._cancelled()
            if self._breach is None:
                if (outcome := self._look(with_pss=started >= statistics_at)) is not None:
                    return outcome
                ended = time.monotonic()
                pause = max(started + self._interval - ended, ended - started)
                if started >= statistics_at:
                    self._log.write(logging.INFO, self._statistics())
                    statistics_at = started + self._stats_every
            if self._breach is not None:
                pause = self._pursue(self._breach)
            if self._whole and has_ended(self._pidfd):
                # its pidfd stays readable, and the others are not polled: look again after a while
                with suppress(KeyError):
                    waiting.unregister(self._pidfd)
                pause = min(pause, self._again())
            pause = min(pause, self._give_up_at - time.monotonic())
            waiting.poll(min(max(0, math.ceil(pause * 1000)), _LONGEST))
            with suppress(BlockingIOError):
                os.eventfd_read(self._bell)

    def _look(self, *, with_pss: bool) -> GuardOutcome | None:
        """Read its memory and compare it with the limit; return an outcome if it can't be guarded.

        PSS is read if it is wanted, or was never read, or if RSS can't decide.
        """
        at = time.monotonic()
        with self._lock:
            limit, grace = self._limit, self._grace
        processes = self._tree.look()
        if with_pss or self._pss is None or not is_within(limit, processes):
            processes = self._tree.measure_pss(processes)
            self._pss_looks += 1
        self._looks += 1
        reading = self._reading = GuardReading.of(processes, at)
        if reading.unknown is None:
            self._blind_since = math.inf
        elif self._pss is None and reading.pss is None and "permission denied" in reading.unknown:
            return GuardOutcome(GuardEnd.FAILED, f"its PSS can't be read: {reading.unknown}")
        else:
            # one that is in exec, or about to end, has none for a moment
            self._blind_since = min(self._blind_since, at)
            if at - self._blind_since >= _SOON:
                self._log.report(f"PSS can't be read: {reading.unknown}")
        if reading.pss is not None:
            self._pss = reading.pss
            if reading.pss > limit:
                self._breach = Breach(reading.pss, limit, grace, due=at)
        return None

    def _pursue(self, breach: Breach) -> float:
        """Send the signal that is due, if one is; return the seconds until the next step.

        If it reaches no process, their memory is checked again before a retry.
        """
        now = time.monotonic()
        if now < breach.due:
            return breach.due - now
        with self._lock:
            # cancel() can't come in between
            if self._outcome is not None or self._give_up_at < math.inf or self._ended() is not None:
                return self._again()
            if breach.sent is None and breach.pss <= self._limit:  # as it is by now
                self._breach = None
                return 0.0
            number = breach.next_signal()
            delivery = self._tree.kill() if number is signal.SIGKILL else self._tree.send_signal(number)
            is_first = bool(delivery.reached) and breach.sent is not number
            if is_first:
                breach.sent, breach.sent_at = number, now
        follows = ""
        breach.due = now + self._again()
        if is_first and number is signal.SIGTERM and breach.grace is not None:
            follows = f", SIGKILL follows in {format_span(breach.grace)}"
            breach.due = now + breach.grace
        if is_first:
            self._log.write(logging.WARNING, f"{breach}: {number.name} sent{follows}")
        elif breach.sent is signal.SIGKILL and now - breach.sent_at >= _SLOW:
            self._log.report("SIGKILL was sent, and it has not ended since")
        for process, error in delivery.refused[:1]:
            more = f" (and {len(delivery.refused) - 1} more)" if len(delivery.refused) > 1 else ""
            failure = (
                f"{number.name} could not be sent to {process.label}{more}: {reason_of(error)}; trying again"
            )
            self._log.report(f"{breach}, but {failure}", failure)
        if breach.sent is None:
            self._breach = None
        return breach.due - now

    def _again(self) -> float:
        """Return the seconds until the next check for a signal's effect."""
        return min(max(self._interval, _AGAIN[0]), _AGAIN[1])

    def _statistics(self) -> str:
        numbers = [
            f"limit {format_size(self._limit)}",
            f"{self._looks} looks, {self._pss_looks} of them at PSS",
        ]
        if (reading := self._reading) is not None:
            numbers = [f"PSS {format_size(reading.pss)}", f"RSS {format_size(reading.rss)}", *numbers]
            if self._whole:
                numbers.append(f"{reading.processes} processes")
        return ", ".join(numbers)


def _label(name: str | None, pid: object) -> str:
    number = f"pid {pid}" if isinstance(pid, int) else "a process"
    return f"{number} ({printable(name)})" if name else number


def _successor(pid: int | None) -> str:
    """Return a note if the pid of a process that has ended belongs to another by now."""
    taken = pid is not None and os.path.exists(f"/proc/{pid}")  # noqa: PTH110
    return ", and its pid now belongs to another process" if taken else ""
