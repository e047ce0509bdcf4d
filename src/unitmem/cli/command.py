"""Running a command as if it had been started directly: signals are passed on to it, and its status back."""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from unitmem.errors import CommandNotExecutableError, CommandNotFoundError, UnitmemError, reason_of

# those that can't be waited for, and those that are about the very program they are sent to
_OWN = {
    *(signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGXCPU, signal.SIGTRAP),
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGSYS),
    *(signal.SIGPROF, signal.SIGVTALRM),
}
BLOCKED = frozenset(signal.valid_signals() - _OWN)
"""Signals that are blocked and waited for while a command runs: all that can be passed on, and SIGCHLD."""
ENDING = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})
_STOPPING = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
"""Signals with which a terminal, or the shell that owns it, stops all processes of a job."""
_EXEC_POLL = 50
"""Milliseconds between two checks for signals while the command has not been executed yet."""


@contextmanager
def blocking(numbers: frozenset[int]) -> Iterator[set[int]]:
    """Block these signals, so that `signal.sigwaitinfo` receives them; yield the mask that was set before.

    Threads that are started within the block inherit the mask.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    # a child of a program that ignores this leaves no status
    child = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield set(before)
    finally:
        signal.signal(signal.SIGCHLD, child)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Command:
    """A child of this program, in its session and process group, with its terminal and descriptors.

    It must be created and used within `blocking(BLOCKED)`, by the main thread, while there is no other thread,
    since it forks. Signals are handled from then on, even before the command is executed.

    Args:
        words: the command, looked up in $PATH, and its arguments.
        mask: the signals it is to block.

    Raises:
        CommandNotFoundError, CommandNotExecutableError: with the exit status that shells use.
        UnitmemError: no further process can be started.
    """

    returncode: int | None = None
    """The exit status, 128 + n if signal n ended it; None while it runs."""
    ended_by: int | None = None
    """The signal that ended it, if one did."""

    def __init__(self, words: list[str], mask: set[int]) -> None:
        self._received: set[int] = set()
        reader, writer = os.pipe()  # exec closes the child's end, or the error number comes through it
        try:
            try:
                self.pid = _fork(words, mask, writer)
            finally:
                os.close(writer)
            # the child did not get what was sent before it was there, whoever sent it
            while (info := signal.sigtimedwait(BLOCKED - {signal.SIGCHLD}, 0)) is not None:
                self._received.add(info.si_signo)
                self._send(info.si_signo)
            self._wait_for_exec(reader)
        except OSError as error:
            raise _start_error(words[0], error) from None
        finally:
            os.close(reader)

    def handle(self, info: signal.struct_siginfo) -> signal.Signals | None:
        """Pass a signal on, or update the state on SIGCHLD; return the signal that stopped the job, if one did."""
        if info.si_signo == signal.SIGCHLD:
            return self._update()
        self._received.add(info.si_signo)
        # what the kernel sends on behalf of a terminal goes to the whole process group, the command included
        if info.si_code <= 0:
            self._send(info.si_signo)
        return None

    def has_received(self, number: int) -> bool:
        """Return whether this program received the signal too: it passed it on, or a terminal sent it to both."""
        return number in self._received | signal.sigpending()

    def kill(self) -> None:
        """Send SIGKILL to the command, and wait for its end."""
        self._send(signal.SIGKILL)
        while self.returncode is None:
            signal.sigwaitinfo({signal.SIGCHLD})
            self._update()

    def _wait_for_exec(self, pipe: int) -> None:
        """Wait until the command is executed or has ended; raise the error of exec.

        The child may be stopped before that, by Ctrl-Z or SIGSTOP, for any time. So signals are handled meanwhile.
        """
        waiting = select.poll()
        waiting.register(pipe, select.POLLIN)
        while not waiting.poll(_EXEC_POLL):
            while (info := signal.sigtimedwait(BLOCKED, 0)) is not None:
                if stopped := self.handle(info):
                    stop_as(stopped)
        if number := os.read(pipe, 16):
            self.kill()
            raise OSError(int(number), os.strerror(int(number)))

    def _send(self, number: int) -> None:
        # nobody else waits for it: until we have, the pid is its own
        if self.returncode is None:
            os.kill(self.pid, number)

    def _update(self) -> signal.Signals | None:
        """Update the command's state; return the signal that stopped its job, if one did.

        One SIGCHLD may stand for several changes.
        """
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
    """Stop this program by a signal that stops a job; return when it is continued.

    The kernel doesn't stop it where no shell could continue it (an orphaned process group): this returns at once.
    """
    os.kill(os.getpid(), number)  # if it is pending already, the two become one
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_by(number: int) -> None:
    """End this program by the signal that ended the command, or would have ended it.

    A status of 128 + n is not the same: systemd counts the end of a service by SIGTERM as clean, and a shell ends
    its script if a command died of SIGINT. This returns only where the signal has no effect, as for PID 1 of a
    container.
    """
    # the command's core dump is of use, our own is not; see core(5)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})


def _fork(words: list[str], mask: set[int], pipe: int) -> int:
    """Start a child that executes the command, or writes the error number into the pipe; return its pid.

    posix_spawn(3) and subprocess return only when the child has executed the command. A child that is stopped right
    before that would block this program, which could then neither pass on signals nor be ended but by SIGKILL.
    """
    if (pid := os.fork()) != 0:
        return pid
    try:
        # what Python has set for itself: SIGINT must end the child, not be noted for a handler that never runs
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execvp(words[0], words)  # noqa: S606 - a shell is not wanted
    except OSError as error:
        os.write(pipe, str(error.errno).encode())
    finally:
        os._exit(127)


def _start_error(name: str, error: OSError) -> UnitmemError:
    if error.errno == errno.ENOENT:
        return CommandNotFoundError(f"{name}: command not found")
    text = f"{name}: {reason_of(error)}"
    if error.errno in (errno.EAGAIN, errno.ENOMEM):
        return UnitmemError(text)
    return CommandNotExecutableError(text)
