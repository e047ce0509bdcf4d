"""The errors that a person can act on, each with an exit status and a hint.

Nothing in the library prints or exits: it raises one of these, and the command line prints it.
"""

from __future__ import annotations

from dataclasses import dataclass


class UnitmemError(Exception):
    """An error that a person can act on. `str()` is one sentence; `hint` says what to do about it."""

    exit_status = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(UnitmemError):
    """A wrong argument or option."""

    exit_status = 2


class NoSuchUnitError(UnitmemError):
    """No unit of that name is loaded; systemctl uses status 4 as well."""

    exit_status = 4


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake, or one doubt, at its place in the file; line and column count from 1."""

    line: int
    column: int
    message: str
    code: str | None = None
    """What a warning is called, to be silenced by; a mistake can't be silenced, and has none."""

    def at(self, path: str) -> str:
        """`file:line:col: message`, as editors and compilers have it."""
        return f"{path}:{self.line}:{self.column}: {self.message}"


class PolicyFileError(UnitmemError):
    """A policy file that can't be read, or has mistakes; 78 is EX_CONFIG, on which the service isn't restarted."""

    exit_status = 78
    problems: tuple[Problem, ...] = ()
    """Its mistakes, in their order; none where it can't be read at all."""


class CommandNotFoundError(UnitmemError):
    """The command to run doesn't exist; shells use status 127 as well."""

    exit_status = 127


class CommandNotExecutableError(UnitmemError):
    """The command to run exists and can't be executed; shells use status 126 as well."""

    exit_status = 126


class UnsupportedSystemError(UnitmemError):
    """The machine lacks systemd, cgroup v2, or its memory controller."""


class BusError(UnitmemError):
    """The service manager could not be reached, or refused a call."""

    def __init__(self, message: str, hint: str | None = None, name: str | None = None) -> None:
        super().__init__(message, hint)
        self.name = name
        """The D-Bus error's name, such as `org.freedesktop.DBus.Error.AccessDenied`; None if it has none."""


class RefusedError(BusError):
    """The manager refuses the call for good, as the unit is configured; `str()` is what it says."""


class BusLostError(BusError):
    """The connection to the service manager is dead, or timed out: only a new connection may work."""


class OutOfReachError(BusError):
    """There is no connection to the service manager now; no call was made."""


class InvocationGoneError(UnitmemError):
    """The invocation that was meant is over; the unit may be running again, and was left alone."""


def reason_of(error: OSError) -> str:
    """Return what went wrong, to be put in the middle of a sentence: `no such file or directory`."""
    return error.strerror.lower() if error.strerror else str(error)
