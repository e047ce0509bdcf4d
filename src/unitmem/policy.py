"""What a policy is: a ladder of steps over a set of units, each step a condition, a span and an action."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from unitmem.condition import Condition, measures_of
from unitmem.quantity import format_span, spell_size
from unitmem.unit import matches

DEFAULT_INTERVAL = 2.0
DEFAULT_STOP_TIMEOUT = 90.0  # systemd's own DefaultTimeoutStopSec=
DEFAULT_END_TIMEOUT = 10.0  # for what needs no more than the kernel, or a handler that ends the program
DEFAULT_RECLAIM_TIMEOUT = 30.0
DEFAULT_RUN_TIMEOUT = 60.0

# After these a process is expected to end; what handles them takes some time for it
ENDING_SIGNALS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGABRT})


class Mode(StrEnum):
    """Whether a policy's actions are performed, or only told."""

    ACT = "act"
    OBSERVE = "observe"


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


@dataclass(frozen=True, slots=True)
class Budget:
    """At most so many actions in a span; logging is no action."""

    actions: int
    per: float
    """Seconds."""

    def __str__(self) -> str:
        return f"{self.actions} {'action' if self.actions == 1 else 'actions'} per {format_span(self.per)}"


@dataclass(frozen=True, slots=True)
class Step:
    """When the condition has held for so long, do that; once an episode, or every so often."""

    when: Condition
    action: Action
    hold: float = 0.0
    """Seconds for which the condition has to hold, at every tick."""
    repeat: float | None = None
    """Seconds after which it fires again in the same episode, while the condition holds; None is never."""
    line: int | None = field(default=None, compare=False)
    """Where in its file it stands, counted from 1; a step that has moved is still the same."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A named ladder over the units that match."""

    name: str
    units: tuple[str, ...]
    steps: tuple[Step, ...]
    excluded: tuple[str, ...] = ()
    unprotect: frozenset[str] = frozenset()
    mode: Mode = Mode.ACT
    clear: Condition | None = None
    """What ends an episode; None means that no step's condition holds."""
    cooldown: float = 0.0
    """Seconds after an episode in which no new one begins."""
    budget: Budget | None = None
    """For each unit on its own."""
    line: int | None = field(default=None, compare=False)
    """Where in its file it stands, counted from 1; one that has only moved is still the same."""

    def governs(self, unit: str) -> bool:
        """Whether the unit of that name is one of this policy's."""
        return matches(unit, self.units) and not matches(unit, self.excluded)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Every condition it judges: those of its steps, then what ends an episode."""
        steps = tuple(step.when for step in self.steps)
        return steps if self.clear is None else (*steps, self.clear)


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """All that one policy file says."""

    policies: tuple[Policy, ...]
    interval: float = DEFAULT_INTERVAL
    """Seconds between two ticks."""
    budget: Budget | None = None
    """For all policies and units together."""


def observing(file: PolicyFile) -> PolicyFile:
    """`file` with nothing performed, whatever its policies' modes say."""
    return replace(file, policies=tuple(replace(policy, mode=Mode.OBSERVE) for policy in file.policies))


def wanted_measures(policies: Iterable[Policy]) -> frozenset[str]:
    """Every measure that some condition of `policies` needs."""
    return frozenset(
        name for policy in policies for condition in policy.conditions for name in measures_of(condition)
    )


def _within(timeout: float, last: LastResort | None) -> str:
    return format_span(timeout) + (f", else {last}" if last else "")
