"""What can go wrong, each with the exit status it ends a command with and a hint on what to do.

Nothing in the library prints or exits: it raises one of these, and the command line renders it.
"""

from __future__ import annotations

from dataclasses import dataclass


class UnitmemError(Exception):
    """Something a person can act on. `str()` is one sentence; `hint` says what to do about it."""

    exit_status = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(UnitmemError):
    """The call itself is off: an argument that means nothing."""

    exit_status = 2


class NoSuchUnitError(UnitmemError):
    """No unit of that name is loaded; 4 is what systemctl says too."""

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
    """A policy file that must not run: EX_CONFIG of sysexits.h, which the service doesn't restart on."""

    exit_status = 78
    problems: tuple[Problem, ...] = ()
    """Its mistakes, in their order; none where it can't be read at all."""


class CommandNotFoundError(UnitmemError):
    """A command that is to be run isn't there; 127 is what shells say too."""

    exit_status = 127


class CommandNotExecutableError(UnitmemError):
    """A command that is to be run is there, and can't be run; 126 is what shells say too."""

    exit_status = 126


class UnsupportedSystemError(UnitmemError):
    """This machine lacks what unitmem reads: systemd, cgroup v2, or its memory controller."""


class BusError(UnitmemError):
    """The service manager could not be reached, or refused a call."""

    def __init__(self, message: str, hint: str | None = None, name: str | None = None) -> None:
        super().__init__(message, hint)
        self.name = name
        """The D-Bus error name, such as `org.freedesktop.DBus.Error.AccessDenied`, if there is one."""


class BusLostError(BusError):
    """The connection to the service manager is dead, or was too slow: only a new one may help."""


class OutOfReachError(BusError):
    """There is no connection to the service manager now: nothing was asked of it."""


class InvocationGoneError(UnitmemError):
    """The run of a unit that was meant is over; the unit may be running anew, and was left alone."""


def reason_of(error: OSError) -> str:
    """What went wrong, in the middle of a sentence: `no such file or directory`."""
    return error.strerror.lower() if error.strerror else str(error)
