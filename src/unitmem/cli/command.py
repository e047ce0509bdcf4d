"""A command that runs as if it had been started directly: signals reach it, and its status is passed on."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from unitmem.errors import CommandNotExecutableError, CommandNotFoundError, UnitmemError, reason_of

# what a program can't wait for, or what is about the very program it is sent to
_OWN = {
    *(signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGXCPU, signal.SIGTRAP),
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGSYS),
    *(signal.SIGPROF, signal.SIGVTALRM),
}
HEARD = frozenset(signal.valid_signals() - _OWN)
"""Every signal that can be passed on, and SIGCHLD."""
ENDING = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})
_STOPPING = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
"""What a terminal, or the shell that owns it, stops all processes of a job with."""


@contextmanager
def hearing(numbers: frozenset[int]) -> Iterator[set[int]]:
    """Let these signals wait until they are asked for, by `signal.sigwaitinfo`; gives the mask that was before.

    Threads that are started within don't get them either.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    # a child of a program that ignores this leaves no status
    child = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pipe = signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # who reads what we tell may go away
    try:
        yield set(before)
    finally:
        signal.signal(signal.SIGPIPE, pipe)
        signal.signal(signal.SIGCHLD, child)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Command:
    """A child of this program, in its session and process group, with its terminal and descriptors.

    To be started and used within `hearing(HEARD)`, by the main thread.

    Args:
        words: the command, looked up in $PATH, and its arguments.
        mask: the signals it is to block.

    Raises:
        CommandNotFoundError, CommandNotExecutableError: as shells have it.
        UnitmemError: the machine has no room for a further process.
    """

    returncode: int | None = None
    """128 + n if signal n ended it; None while it runs."""
    ended_by: int | None = None
    """The signal that ended it."""

    def __init__(self, words: list[str], mask: set[int]) -> None:
        try:
            self.pid = os.posix_spawnp(
                words[0],
                words,
                os.environ,
                setsigmask=mask,
                # which Python ignores for itself
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        except FileNotFoundError:
            raise CommandNotFoundError(f"{words[0]}: command not found") from None
        except ValueError as error:  # a null byte
            raise CommandNotExecutableError(f"{words[0]!r}: {error}") from None
        except OSError as error:
            text = f"{words[0]}: {reason_of(error)}"
            if error.errno in (errno.EAGAIN, errno.ENOMEM):
                raise UnitmemError(text) from None
            raise CommandNotExecutableError(text) from None
        # what came before it was there it can't have got from anyone else
        while (info := signal.sigtimedwait(HEARD - {signal.SIGCHLD}, 0)) is not None:
            self._send(info.si_signo)

    def handle(self, info: signal.struct_siginfo) -> signal.Signals | None:
        """Do what a signal asks for; the signal by which the command was stopped with its job, if that is the news."""
        if info.si_signo == signal.SIGCHLD:
            return self._look()
        # what the kernel sends on behalf of a terminal goes to the whole process group, the command included
        if info.si_code <= 0:
            self._send(info.si_signo)
        return None

    def kill(self) -> None:
        """End it, and wait for it."""
        self._send(signal.SIGKILL)
        while self.returncode is None:
            signal.sigwaitinfo({signal.SIGCHLD})
            self._look()

    def _send(self, number: int) -> None:
        # nobody else waits for it: until we have, the pid is its own
        if self.returncode is None:
            os.kill(self.pid, number)

    def _look(self) -> signal.Signals | None:
        """What has become of it: one SIGCHLD may stand for several changes."""
        stopped = None
        while self.returncode is None:
            change = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WSTOPPED | os.WNOHANG)
            if change is None:
                break
            if change.si_code == os.CLD_EXITED:
                self.returncode = change.si_status
            elif change.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
                self.ended_by = change.si_status
                self.returncode = 128 + change.si_status
            elif change.si_status in _STOPPING:
                stopped = signal.Signals(change.si_status)
        return stopped


def stop_as(number: signal.Signals) -> None:
    """Stop this program as `number` does; it returns when it is continued.

    Where no shell could continue it, the kernel doesn't stop it, and this returns at once.
    """
    os.kill(os.getpid(), number)  # which one that is waiting already becomes one with
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_interrupted() -> None:
    """End this program by SIGINT, as what it ran was ended by it.

    A shell that runs a script ends it on Ctrl-C only if that has ended what it was waiting for; a status of
    130 is no reason for it.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
