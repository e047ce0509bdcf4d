"""Actions as values: what each is called, what it takes, and whether it ends the unit."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import StrEnum

from unitmem.quantity import format_span, spell_size

DEFAULT_STOP_TIMEOUT = 90.0  # systemd's own DefaultTimeoutStopSec=
DEFAULT_END_TIMEOUT = 10.0  # for what needs no more than the kernel, or a handler that ends the program
DEFAULT_RECLAIM_TIMEOUT = 30.0
DEFAULT_RUN_TIMEOUT = 60.0
END_WAIT = 10.0
"""Seconds within which what was killed is expected to be gone, and the kernel to have done as it was told."""

# After these a process is expected to end; what handles them takes some time for it
ENDING_SIGNALS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGABRT})


class Target(StrEnum):
    """Whom of a unit a signal goes to."""

    MAIN = "main"
    """The main process of a service."""
    CONTROL = "control"
    """The process of ExecStartPre=, ExecReload= and the like, while there is one."""
    ALL = "all"
    """Every process of the unit."""
    LARGEST = "largest"
    """The one process that is largest by the measure that breached; by PSS where none was a process's."""


class LastResort(StrEnum):
    """What to do when an action was not enough."""

    KILL = "kill"


@dataclass(frozen=True, slots=True)
class Log:
    """Say so, and do nothing."""

    def __str__(self) -> str:
        return "log"


@dataclass(frozen=True, slots=True)
class Signal:
    """Send a signal to one process of the unit, or to all."""

    number: signal.Signals
    to: Target = Target.MAIN
    timeout: float = DEFAULT_END_TIMEOUT
    """Seconds until a process that the signal should end counts as unimpressed."""
    otherwise: LastResort | None = None
    """What then, to the same processes."""

    def __str__(self) -> str:
        whom = {Target.ALL: "all its processes", Target.LARGEST: "its largest process"}
        last = f", else {self.otherwise}" if self.otherwise else ""
        return f"{self.number.name} to {whom.get(self.to, f'its {self.to} process')}{last}"


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the unit through its manager, and see that it stops."""

    timeout: float = DEFAULT_STOP_TIMEOUT
    """Seconds until it counts as failed."""
    otherwise: LastResort | None = None
    """What then; None leaves the unit to systemd's own timeout."""

    def __str__(self) -> str:
        return f"stop within {_within(self.timeout, self.otherwise)}"


@dataclass(frozen=True, slots=True)
class Restart:
    """Restart the unit through its manager, and see that another run of it is up."""

    timeout: float = DEFAULT_STOP_TIMEOUT
    otherwise: LastResort | None = None
    """What then, to what is left of the old run."""

    def __str__(self) -> str:
        return f"restart within {_within(self.timeout, self.otherwise)}"


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL every process of the unit at once, and see that it is gone."""

    timeout: float = DEFAULT_END_TIMEOUT

    def __str__(self) -> str:
        return "kill"


@dataclass(frozen=True, slots=True)
class Reclaim:
    """Have the kernel take so much memory back from the unit, as memory.reclaim of cgroup v2 does."""

    size: int
    """Bytes."""
    timeout: float = DEFAULT_RECLAIM_TIMEOUT

    def __str__(self) -> str:
        return f"reclaim {spell_size(self.size)}"


@dataclass(frozen=True, slots=True)
class SetProperties:
    """Set properties of the unit at run time, and set them back when the episode ends."""

    properties: tuple[tuple[str, int | None], ...]
    """Each a name, such as MemoryHigh, and bytes; None is `infinity`."""

    def __str__(self) -> str:
        return "set " + ", ".join(spell_property(name, value) for name, value in self.properties)


@dataclass(frozen=True, slots=True)
class Freeze:
    """Stop every process of the unit where it stands."""

    timeout: float = DEFAULT_END_TIMEOUT

    def __str__(self) -> str:
        return "freeze"


@dataclass(frozen=True, slots=True)
class Thaw:
    """Let a frozen unit go on."""

    timeout: float = DEFAULT_END_TIMEOUT

    def __str__(self) -> str:
        return "thaw"


@dataclass(frozen=True, slots=True)
class Run:
    """Run a command in a transient unit of its own, with the decision in its environment."""

    command: tuple[str, ...]
    """The program, by its absolute path, and its arguments."""
    timeout: float = DEFAULT_RUN_TIMEOUT
    """Seconds until it is killed."""

    def __str__(self) -> str:
        return f"run {' '.join(self.command)}"


Action = Log | Signal | Stop | Restart | Kill | Reclaim | SetProperties | Freeze | Thaw | Run

#: What `set` may set: sizes that the kernel enforces and that systemd can put back.
SETTABLE = ("MemoryMin", "MemoryLow", "MemoryHigh", "MemoryMax", "MemorySwapMax", "MemoryZSwapMax")


def spell_property(name: str, value: int | None) -> str:
    """`MemoryHigh=512M`, as a unit file has it."""
    return f"{name}={'infinity' if value is None else spell_size(value)}"


def action_name(action: Action) -> str:
    """One word for `action`, as journal fields and statistics have it; a signal is called by its name."""
    match action:
        case Signal(number):
            return number.name
        case SetProperties():
            return "set"
        case _:
            return type(action).__name__.lower()


def ends_the_unit(action: Action) -> bool:
    """Whether `action` ends the invocation it is done to, so that nothing more is to be done to it."""
    return isinstance(action, Stop | Restart | Kill)


def _within(timeout: float, last: LastResort | None) -> str:
    return format_span(timeout) + (f", else {last}" if last else "")
