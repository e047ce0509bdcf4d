"""unitmem guard"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated

import typer

from unitmem.cli.command import BLOCKED, ENDING, Command, blocking, end_by, stop_as
from unitmem.cli.options import is_bare_zero, span
from unitmem.errors import UnitmemError, UsageError
from unitmem.guard.outcome import GuardEnd
from unitmem.guard.process_guard import ProcessGuard
from unitmem.report.failure import say
from unitmem.text import QuantityError, format_size, parse_size, signal_name

_SHOWN_EVERY = 1.0
"""Seconds between two progress lines."""
_NEAR = (50, 75, 90)
"""Percentages of the limit that are reported, once each, where the progress line can't be overwritten."""
_LEAST = (0.001, "1ms")
"""The shortest span, in seconds and as text."""


def guard_process(
    # required, but not by Typer: behind the command it is not missing, but misplaced
    pss: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="The highest PSS allowed, such as 512M.  [required]"),
    ] = None,
    grace: Annotated[
        str | None, typer.Option(metavar="SPAN", help="Send SIGTERM first, and SIGKILL after this time.")
    ] = None,
    interval: Annotated[
        str, typer.Option(metavar="SPAN", help="How often to look, such as 100ms or 5s.")
    ] = "1s",
    tree: Annotated[
        bool, typer.Option("--tree", help="Include all its descendants: the limit is on their sum.")
    ] = False,
    pid: Annotated[int | None, typer.Option(metavar="N", help="The PID of a running process.")] = None,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND...]", help="A command to run.")
    ] = None,
) -> None:
    """End a command or a process as soon as its PSS is above a limit.

    The command is run, or a running process is taken with --pid. Signals are passed on to
    the command, and its exit status from it: 128 + N if signal N ended it. If that signal was passed
    on, guard ends by it too. A process that was taken lives on when this command is ended before it.
    What happens is told on stderr.
    """
    if pss is None:
        raise _missing_pss(command or [])
    limit, seconds = _size("--pss", pss), span("--interval", interval, *_LEAST)
    grace_seconds = None if grace is None else span("--grace", grace, *_LEAST)
    if (pid is None) is (not command):
        raise UsageError(
            "there is nothing to guard" if pid is None else "--pid and a command can't be combined",
            hint="give either --pid N, or a command after --",
        )
    if command and not command[0]:
        raise UsageError(
            "the command is empty", hint="give one after --; a variable that should name it may be unset"
        )
    progress = Progress(limit, overwrites=command is None or not os.isatty(1))

    def guard(process: int | Command) -> ProcessGuard:
        guard = ProcessGuard(process, tree=tree, interval=seconds, stats_every=None, log=progress.log)
        progress.begin(guard)
        guard.limit(limit, grace_seconds)
        wake = threading.Thread(target=_wake_after, args=(guard, threading.get_ident()), daemon=True)
        wake.start()
        return guard

    # whoever reads our stderr may go away, and Python writes what is left as it ends
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    raise typer.Exit(_run(command, guard, progress) if command else _take(pid or 0, guard, progress))


def _missing_pss(command: list[str]) -> UsageError:
    place = next((place for place, word in enumerate(command) if word.partition("=")[0] == "--pss"), None)
    if place is None:
        return UsageError("missing option '--pss'", hint="see `unitmem guard --help`")
    own, words = command[place:], command[:place]
    if not words or own == ["--pss"]:
        own, words = ["--pss", "SIZE"], ["COMMAND"]
    return UsageError(
        "options of guard come before the command",
        hint=f"write `unitmem guard {shlex.join(own)} -- {shlex.join(words)}`",
    )


def _size(option: str, text: str) -> int:
    try:
        size = 0 if is_bare_zero(text) else parse_size(text)
    except QuantityError as error:
        raise UsageError(f"{option}: {error}") from None
    if size == 0:
        raise UsageError(f"{option} must be greater than 0", hint="write it like 512M")
    return size


def _run(words: list[str], start: Callable[[Command], ProcessGuard], progress: Progress) -> int:
    """Run a command under a guard; return its exit status, or end by the signal that was passed on and ended it."""
    with blocking(BLOCKED) as mask:
        # the command alone would have been ended by these
        while (early := signal.sigtimedwait(ENDING - mask, 0)) is not None:
            if signal.getsignal(early.si_signo) is not signal.SIG_IGN:
                end_by(early.si_signo)
                return 128 + early.si_signo
        command = Command(words, mask)
        try:
            guard = start(command)
        except BaseException:
            command.kill()  # it must not run unguarded
            raise
        # the tree that is killed with it may take a moment more
        while command.returncode is None or (guard.sent is not None and guard.outcome is None):
            info = progress.wait(BLOCKED, guard)
            if info is None:
                continue
            if stopped := command.handle(info):
                progress.clear()
                stop_as(stopped)
            elif command.returncode is not None and info.si_signo in ENDING:
                break
        guard.cancel_wait()
        progress.end(guard, command)
        number = command.ended_by
        # not by the signal that was sent because of the limit: that is no clean end
        if number == signal.SIGINT or (number and number != guard.sent and command.has_received(number)):
            end_by(number)
        outcome, status = guard.outcome, command.returncode or 0
        if outcome is not None and outcome.kind is GuardEnd.KILLED and outcome.signal and not status:
            return 128 + outcome.signal  # it came to an end of its own, having been told to
        return status


def _take(pid: int, start: Callable[[int], ProcessGuard], progress: Progress) -> int:
    """Guard a running process until it ends or this command is ended; return the exit status."""
    with blocking(ENDING | {signal.SIGCHLD}):
        try:
            guard = start(pid)
        except ValueError as error:
            raise UsageError(f"--pid: {error}") from None
        except OSError as error:
            raise UnitmemError(error.strerror or str(error)) from None
        ended_by = None
        while guard.outcome is None and ended_by is None:
            info = progress.wait(ENDING | {signal.SIGCHLD}, guard)
            if info is not None and info.si_signo in ENDING:
                ended_by = info.si_signo
        guard.cancel_wait()
        progress.end(guard)
    outcome = guard.outcome
    if outcome is None or outcome.kind is GuardEnd.FAILED:
        return 1
    if outcome.kind is GuardEnd.KILLED and outcome.signal is not None:
        return 128 + outcome.signal
    return 0 if ended_by is None else 128 + ended_by


def _wake_after(guard: ProcessGuard, thread: int) -> None:
    """Send SIGCHLD to the thread that waits for signals, once there is an outcome."""
    guard.wait()
    signal.pthread_kill(thread, signal.SIGCHLD)


class Progress(logging.Handler):
    """Messages on stderr: events, and on a terminal a line with PSS and limit.

    Args:
        limit: bytes.
        overwrites: whether nothing else writes to the terminal, so that one line can be overwritten.
    """

    def __init__(self, limit: int, *, overwrites: bool) -> None:
        super().__init__(logging.WARNING)
        self.log = logging.Logger("unitmem.guard")  # noqa: LOG001 - not shared
        self.log.addHandler(self)
        self._limit = limit
        self._is_terminal = os.isatty(2) and os.environ.get("TERM") != "dumb"
        self._overwrites = overwrites
        self._is_shown = False
        self._percent = 0

    def emit(self, record: logging.LogRecord) -> None:
        self._print(record.getMessage())

    def begin(self, guard: ProcessGuard) -> None:
        if self._is_terminal:
            self._print(f"{guard.label}: guarded, PSS limit {format_size(self._limit)}")

    def wait(self, numbers: frozenset[int], guard: ProcessGuard) -> signal.struct_siginfo | None:
        """Return the next of these signals; on a terminal, show progress and return None once in a while."""
        if not self._is_terminal:
            return signal.sigwaitinfo(numbers)
        info = signal.sigtimedwait(numbers, _SHOWN_EVERY)
        if info is None:
            self._show(guard)
        return info

    def end(self, guard: ProcessGuard, command: Command | None = None) -> None:
        """Report how the process ended, unless the guard has, or the exit status says it."""
        outcome = guard.outcome
        self.clear()
        if outcome is None or outcome.kind in (GuardEnd.KILLED, GuardEnd.FAILED):
            return
        if command is None:
            self._print(f"{guard.label}: {outcome}")
            return
        if outcome.kind is GuardEnd.CANCELLED:
            self._print(f"{guard.label}: ended; what it left running is no longer guarded")
        status = command.returncode or 0
        if command.ended_by is not None:
            self._print(f"{guard.label}: ended by {signal_name(command.ended_by)}, not by its limit")
        elif self._is_terminal:
            self._print(f"{guard.label}: exited with status {status}")

    def clear(self) -> None:
        if self._is_shown:
            self._is_shown = False
            self._write("\r\x1b[K")

    def _show(self, guard: ProcessGuard) -> None:
        reading = guard.reading
        size, what = (None, "") if reading is None else (reading.pss, "PSS")
        if reading is not None and size is None:
            size, what = reading.rss, "RSS"  # which PSS is no more than
        if size is None or guard.sent is not None:
            return
        percent = 100 * size / self._limit
        text = f"{guard.label}: {what} {format_size(size)}, {percent:.0f}% of {format_size(self._limit)}"
        if self._overwrites and _is_in_foreground():
            self._is_shown = True
            self._write(f"\r{f'unitmem: {text}'[: shutil.get_terminal_size().columns - 1]}\x1b[K")
        elif not self._overwrites and any(self._percent < near <= percent for near in _NEAR):
            self._percent = int(percent)
            self._print(text)

    def _print(self, text: str) -> None:
        self.clear()
        say(f"unitmem: {text}")

    def _write(self, text: str) -> None:
        with suppress(OSError):
            os.write(2, text.encode(errors="replace"))


def _is_in_foreground() -> bool:
    with suppress(OSError):
        return os.tcgetpgrp(2) == os.getpgrp()
    return False
