"""The actions as data: keys, severity, kinds of unit, and wording.

How an action is performed and verified is in its module in `act`.
"""

from __future__ import annotations

import math
import shlex
import signal
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Self

from unitmem.policy.action import Action
from unitmem.policy.keys import MORE_THAN_NONE, Choice, Key, Size, Span, Syntax
from unitmem.text import format_size, format_span, printable, spell_size
from unitmem.unit import CGROUP_KINDS

DEFAULT_STOP_TIMEOUT = 90.0  # systemd's own DefaultTimeoutStopSec=
DEFAULT_END_TIMEOUT = 10.0  # for what needs no more than the kernel, or a handler that ends the program
DEFAULT_RECLAIM_TIMEOUT = 30.0
DEFAULT_RUN_TIMEOUT = 60.0
END_WAIT = 10.0
"""Seconds within which killed processes are expected to be gone, and writes to cgroupfs to take effect."""

# After these a process is expected to end; what handles them takes some time for it
ENDING_SIGNALS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGABRT})


class Target(StrEnum):
    """The processes of a unit that a signal is sent to."""

    MAIN = "main"
    """The main process of a service."""
    CONTROL = "control"
    """The process of ExecStartPre=, ExecReload= and the like, if one runs."""
    ALL = "all"
    """Every process of the unit."""
    LARGEST = "largest"
    """The largest process by the measure that breached; by PSS where that is not a measure of processes."""


class LastResort(StrEnum):
    """What to do when an action has not had its effect in time."""

    KILL = "kill"


_TIMEOUT = Span(MORE_THAN_NONE, refusal="a timeout must be greater than 0: write one such as 30s")
_Timeout = Annotated[float, Key("timeout", _TIMEOUT, "How long it may take until it counts as failed.")]
_LastResort = Annotated[
    LastResort | None,
    Key("else", Choice(LastResort), "What to do then; without it, the failure is only logged."),
]

# --- from mild to harsh --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Log(Action):
    """Log the decision, and do nothing."""

    keyword = "log"
    severity = 0
    acts = False
    is_repeatable = True
    verb, gerund = "log", "logging"


@dataclass(frozen=True, slots=True)
class Thaw(Action):
    """Thaw a frozen unit."""

    timeout: _Timeout = DEFAULT_END_TIMEOUT

    keyword = "thaw"
    severity = 1
    example = "{thaw: {timeout: 5s}}"
    verb, gerund = "thaw", "thawing"


@dataclass(frozen=True, slots=True)
class Reclaim(Action):
    """Have the kernel reclaim memory of the unit, by memory.reclaim of cgroup v2."""

    size: Annotated[
        int,
        Key(
            "size",
            Size(1, "the size must be greater than 0: write one such as 64M"),
            "How much the kernel should reclaim.",
        ),
    ]
    """Bytes."""
    timeout: _Timeout = DEFAULT_RECLAIM_TIMEOUT

    keyword = "reclaim"
    severity = 2
    is_repeatable = True
    example = "{reclaim: {size: 64M, timeout: 10s}}"
    question = "how much? write {reclaim: 64M}"
    verb, gerund = "reclaim", "reclaiming"

    def __str__(self) -> str:
        return f"reclaim {spell_size(self.size)}"

    @property
    def object(self) -> str:
        return f"{format_size(self.size)} of its memory"

    @property
    def asks_manager(self) -> bool:
        return False


def _settable(name: str, *, may_be_none: bool = True) -> Key:
    refusal = f"{name}=0 kills whatever it is set for: write a size greater than 0"
    value = Size(0 if may_be_none else 1, refusal, or_infinity=True)
    return Key(name, value, f"{name}= of systemd.resource-control(5).")


@dataclass(frozen=True, slots=True)
class SetProperties(Action):
    """Set properties of the unit at run time; they are set back when the episode ends."""

    properties: tuple[tuple[str, int | None], ...]
    """(name, bytes) pairs, such as MemoryHigh and its value; None is `infinity`."""

    keyword = "set"
    severity = 3
    meaning = "Set at run time, and set back when the episode ends."
    example = "{set: {MemoryHigh: 512M}}"
    question = "which property? write {set: {MemoryHigh: 512M}}"
    verb, gerund = "set", "setting"

    def __str__(self) -> str:
        return f"set {self.object}"

    @property
    def object(self) -> str:
        return ", ".join(spell_property(name, value) for name, value in self.properties)

    @property
    def terms(self) -> str:
        return " (until the episode ends)"

    @property
    def noun(self) -> str:
        return "change of " + ", ".join(name for name, _ in self.properties)

    @classmethod
    def own_keys(cls) -> tuple[Key, ...]:
        """Return the properties that may be set: sizes that the kernel enforces and systemd can set back."""
        return (
            _settable("MemoryMin"),
            _settable("MemoryLow"),
            _settable("MemoryHigh", may_be_none=False),
            _settable("MemoryMax", may_be_none=False),
            _settable("MemorySwapMax"),
            _settable("MemoryZSwapMax"),
        )

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        return cls(tuple((name, None if size == math.inf else size) for name, size in given.items()))

    def mistakes(self, given: Container[str]) -> Iterator[tuple[str, str]]:
        if not given:
            yield "", f"nothing is set: write {self.example}"


@dataclass(frozen=True, slots=True)
class Signal(Action):
    """Send a signal to one process of the unit, or to all."""

    number: Annotated[signal.Signals, Key("signal", Syntax.SIGNAL, "The signal's name.")]
    to: Annotated[Target, Key("to", Choice(Target), "Which of the unit's processes.")] = Target.MAIN
    timeout: Annotated[float, Key("timeout", _TIMEOUT, "How long a process may take to end.")] = (
        DEFAULT_END_TIMEOUT
    )
    """Seconds until the signal counts as failed if a process that it should end still runs."""
    otherwise: Annotated[
        LastResort | None, Key("else", Choice(LastResort), "What to do then, to the same process.")
    ] = None
    """What to do then to the same processes."""

    keyword = "signal"
    severity = 4
    is_repeatable = True
    example = "{signal: SIGTERM, to: main}"
    question = "which signal, and to whom? write {signal: SIGTERM, to: main}"
    is_flat = True
    verb, gerund = "send", "sending"

    def __str__(self) -> str:
        return self.object + (f", else {self.otherwise}" if self.otherwise else "")

    @property
    def name(self) -> str:
        return self.number.name

    @property
    def object(self) -> str:
        whom = {Target.ALL: "all its processes", Target.LARGEST: "its largest process"}
        return f"{self.number.name} to {whom.get(self.to, f'its {self.to} process')}"

    @property
    def terms(self) -> str:
        return f" (SIGKILL after {format_span(self.timeout)})" if self.otherwise else ""

    @property
    def kinds(self) -> tuple[frozenset[str], str]:
        match self.to:
            case Target.MAIN:
                kinds = frozenset({"service"})
                return kinds, "only services have a main process: write `to: all` or `to: largest`"
            case Target.CONTROL:
                kinds = frozenset({"service", "socket", "mount", "swap"})
                return kinds, "a control process is one that ExecStartPre=, ExecReload= or the like starts"
            case Target.ALL | Target.LARGEST:
                return CGROUP_KINDS, ""

    @property
    def asks_manager(self) -> bool:
        return self.to is not Target.LARGEST

    @property
    def is_harmless_twice(self) -> bool:
        return self.to is not Target.ALL

    def mistakes(self, given: Container[str]) -> Iterator[tuple[str, str]]:
        for key in ("timeout", "else"):
            if key in given and self.number not in ENDING_SIGNALS:
                message = "is not expected to end a process, so there is nothing to wait for: leave"
                yield key, f"{self.number.name} {message} `{key}` out"
        if self.otherwise is not None and self.number is signal.SIGKILL:
            yield "else", "there is nothing harsher than SIGKILL: leave `else` out"
        if self.otherwise is not None and self.to is Target.ALL:
            yield "else", "for all processes together there is an action: write {stop: {else: kill}}"


@dataclass(frozen=True, slots=True)
class Run(Action):
    """Run a command in a transient unit of its own, with the decision in its environment."""

    command: Annotated[
        tuple[str, ...],
        Key(
            "command",
            Syntax.COMMAND,
            "A program by its absolute path, and its arguments; there is no shell.",
        ),
    ]
    """The absolute path of the program, and its arguments."""
    timeout: Annotated[float, Key("timeout", _TIMEOUT, "When it is killed.")] = DEFAULT_RUN_TIMEOUT
    """Seconds until it is killed."""

    keyword = "run"
    severity = 4
    is_repeatable = True
    example = '{run: {command: ["/usr/local/bin/dump"], timeout: 1min}}'
    question = 'which command? write {run: ["/usr/local/bin/dump", "--all"]}'
    verb, gerund = "run", "running"

    def __str__(self) -> str:
        return f"run {' '.join(self.command)}"

    @property
    def object(self) -> str:
        return printable(shlex.join(self.command))

    @property
    def terms(self) -> str:
        return f" (for at most {format_span(self.timeout)})"

    @property
    def noun(self) -> str:
        return f"run of {printable(self.command[0])}"

    @property
    def is_harmless_twice(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Freeze(Action):
    """Freeze every process of the unit."""

    timeout: _Timeout = DEFAULT_END_TIMEOUT

    keyword = "freeze"
    severity = 5
    example = "{freeze: {timeout: 5s}}"
    verb, gerund = "freeze", "freezing"


@dataclass(frozen=True, slots=True)
class _EndingJob(Action):
    """A job of the manager that ends the run of the unit."""

    timeout: _Timeout = DEFAULT_STOP_TIMEOUT
    """Seconds until it counts as failed."""
    otherwise: _LastResort = None
    """What to do then to what is left of the run; None leaves it to systemd's own timeout."""

    severity = 6
    ends_the_unit = True
    last_resort = "SIGKILL"

    def __str__(self) -> str:
        last = f", else {self.otherwise}" if self.otherwise else ""
        return f"{self.keyword} within {format_span(self.timeout)}{last}"

    @property
    def terms(self) -> str:
        after = format_span(self.timeout)
        return f" ({self.last_resort} after {after})" if self.otherwise else f" within {after}"


@dataclass(frozen=True, slots=True)
class Restart(_EndingJob):
    """Restart the unit through its manager, and verify that a new run is active."""

    keyword = "restart"
    example = "{restart: {timeout: 30s, else: kill}}"
    verb, gerund = "restart", "restarting"
    last_resort = "SIGKILL to the old run"

    @property
    def kinds(self) -> tuple[frozenset[str], str]:
        return CGROUP_KINDS - {"scope"}, "a scope can't be restarted, only stopped: write `stop`"


@dataclass(frozen=True, slots=True)
class Stop(_EndingJob):
    """Stop the unit through its manager, and verify that it has stopped."""

    keyword = "stop"
    example = "{stop: {timeout: 30s, else: kill}}"
    verb, gerund = "stop", "stopping"


@dataclass(frozen=True, slots=True)
class Kill(Action):
    """Send SIGKILL to every process of the unit at once, and verify that they are gone."""

    timeout: _Timeout = DEFAULT_END_TIMEOUT

    keyword = "kill"
    severity = 7
    ends_the_unit = True
    sends = signal.SIGKILL
    example = "{kill: {timeout: 5s}}"
    verb, gerund = "kill", "killing"

    @property
    def object(self) -> str:
        return "all its processes"

    @property
    def asks_manager(self) -> bool:
        return False


ACTIONS: Mapping[str, type[Action]] = MappingProxyType(
    {
        action.keyword: action
        for action in (Log, Thaw, Reclaim, SetProperties, Signal, Run, Freeze, Restart, Stop, Kill)
    }
)
"""Every action by keyword, from mild to harsh."""


def spell_property(name: str, value: int | None) -> str:
    """Return a property as in a unit file: `MemoryHigh=512M`."""
    return f"{name}={'infinity' if value is None else spell_size(value)}"
