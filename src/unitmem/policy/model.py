"""What a policy is: a ladder of steps over a set of units, each step a condition, a span and an action."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from unitmem.policy.action import Action
from unitmem.policy.condition import Condition, measures_of
from unitmem.text import format_span, plural
from unitmem.unit import Unit, is_glob, matches

DEFAULT_INTERVAL = 2.0


class Mode(StrEnum):
    """Whether a policy's actions are performed, or only told."""

    ACT = "act"
    OBSERVE = "observe"


@dataclass(frozen=True, slots=True)
class Budget:
    """At most so many actions in a span; logging is no action."""

    actions: int
    per: float
    """Seconds."""

    def __str__(self) -> str:
        return f"{plural(self.actions, 'action')} per {format_span(self.per)}"


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


def step_number(index: int) -> int:
    """How people, journal fields and labels count the step at `index` of its policy: from 1."""
    return index + 1


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

    def governs(self, unit: Unit) -> bool:
        """Whether `unit` is one of this policy's, by its name or by an alias."""
        is_meant = any(matches(name, self.units) for name in unit.names)
        return is_meant and not any(matches(name, self.excluded) for name in unit.names)

    def unprotects(self, unit: Unit) -> bool:
        """Whether this policy may touch `unit` although it is protected."""
        return not self.unprotect.isdisjoint(unit.names)

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

    @property
    def names(self) -> frozenset[str]:
        """The units that are named exactly, which may be aliases."""
        return frozenset(
            pattern for policy in self.policies for pattern in policy.units if not is_glob(pattern)
        )

    @property
    def measures(self) -> frozenset[str]:
        """The measures that its conditions need."""
        return wanted_measures(self.policies)


def observing(file: PolicyFile) -> PolicyFile:
    """`file` with nothing performed, whatever its policies' modes say."""
    return replace(file, policies=tuple(replace(policy, mode=Mode.OBSERVE) for policy in file.policies))


def wanted_measures(policies: Iterable[Policy]) -> frozenset[str]:
    """Every measure that some condition of `policies` needs."""
    return frozenset(
        name for policy in policies for condition in policy.conditions for name in measures_of(condition)
    )
