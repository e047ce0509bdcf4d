"""Policies: a ladder of steps over a set of units, each step a condition, a span and an action."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property, lru_cache

from unitmem.measure.catalogue import EVENT_NAMES, OOM_KILLS, OPERANDS, Scope
from unitmem.policy.action import Action
from unitmem.policy.condition import FILL, Comparison, Condition, Derivation, comparisons, measures_of
from unitmem.text import format_span, plural
from unitmem.unit import Unit, is_glob, matches

DEFAULT_INTERVAL = 2.0
DEFAULT_SETTLE = 30.0


class Mode(StrEnum):
    """The mode of a policy: its actions are performed, or only logged."""

    ACT = "act"
    OBSERVE = "observe"


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on the number of actions within a span; `log` doesn't count."""

    actions: int
    per: float
    """Seconds."""

    def __str__(self) -> str:
        return f"{plural(self.actions, 'action')} per {format_span(self.per)}"


@dataclass(frozen=True, slots=True)
class Pick:
    """How a step picks one of all the units for which it is due: the one with the greatest value first."""

    by: Comparison
    """What they are ranked by: the left side of this comparison, which is with 0."""
    avoid: tuple[str, ...] = ()
    """Units that match one of these patterns come last."""
    settle: float = DEFAULT_SETTLE
    """Seconds after an action was verified until its `for` starts over for the others."""

    def __str__(self) -> str:
        return self.by.subject


@dataclass(frozen=True, slots=True)
class Step:
    """A condition, how long it has to hold, and the action; it fires once an episode, or repeatedly."""

    when: Condition
    action: Action
    hold: float = 0.0
    """Seconds for which the condition has to hold at every tick: the step's `for`."""
    repeat: float | None = None
    """Seconds after which it fires again in the same episode while the condition holds; None is never."""
    line: int | None = field(default=None, compare=False)
    """Its line in the file, from 1; not compared, since a step that was moved is still the same."""
    pick: Pick | None = None
    """How it picks one unit of all for which it is due; None: it fires for each of them."""


def step_number(index: int) -> int:
    """Return the number of the step at `index` as users see it: from 1."""
    return index + 1


@dataclass(frozen=True)
class Policy:
    """A named ladder of steps over the units that match."""

    name: str
    units: tuple[str, ...]
    steps: tuple[Step, ...]
    excluded: tuple[str, ...] = ()
    unprotect: frozenset[str] = frozenset()
    mode: Mode = Mode.ACT
    clear: Condition | None = None
    """The condition that ends an episode; None: it ends when no step's condition holds."""
    cooldown: float = 0.0
    """Seconds after an episode in which no new one begins."""
    budget: Budget | None = None
    """The budget of each unit; of all together if a step picks."""
    line: int | None = field(default=None, compare=False)
    """Its line in the file, from 1; not compared, since a policy that was moved is still the same."""

    def governs(self, unit: Unit) -> bool:
        """Whether `unit` is one of this policy's, by its name or by an alias."""
        return _is_among(unit.names, self.units, self.excluded)

    def unprotects(self, unit: Unit) -> bool:
        """Whether this policy may touch `unit` although it is protected."""
        return not self.unprotect.isdisjoint(unit.names)

    @property
    def reserved_for(self) -> Action | None:
        """The action that the last one of its budget is kept for: its harshest, unless no step is milder."""
        acting = [step.action for step in self.steps if step.action.acts]
        if self.budget is None or self.budget.actions < 2 or not acting:
            return None
        harshest = max(acting, key=lambda action: action.severity)
        return harshest if any(action.severity < harshest.severity for action in acting) else None

    def kept_from(self, action: Action) -> Action | None:
        """Return the harsher action that the last one of its budget is kept for; None if `action` may have that too."""
        reserved = self.reserved_for
        return None if reserved is None or action.severity >= reserved.severity else reserved

    @property
    def picks(self) -> bool:
        """Whether a step picks one of the units for which it is due."""
        return any(step.pick is not None for step in self.steps)

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        """Its conditions: those of the steps, then `clear`, then what its steps rank units by."""
        steps = tuple(step.when for step in self.steps)
        ranks = tuple(step.pick.by for step in self.steps if step.pick is not None)
        return (*steps, *ranks) if self.clear is None else (*steps, self.clear, *ranks)

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The comparisons in its conditions."""
        return tuple(term for condition in self.conditions for term in comparisons(condition))

    @cached_property
    def named(self) -> frozenset[str]:
        """The measures that its conditions are about."""
        return frozenset(name for condition in self.conditions for name in measures_of(condition))

    @cached_property
    def over_a_span(self) -> tuple[Comparison, ...]:
        """Those that look at more than one instant."""
        return tuple(term for term in self.comparisons if term.span is not None)

    @cached_property
    def kill_span(self) -> float:
        """The longest span within which a condition counts OOM kills; 0 if none does."""
        return max((term.span or 0.0 for term in self.comparisons if term.measure == OOM_KILLS), default=0.0)

    @cached_property
    def of_host(self) -> frozenset[str]:
        """The measures of the machine that its comparisons are about."""
        return frozenset(name for name in wanted_measures([self]) if OPERANDS[name].scope is Scope.HOST)

    @cached_property
    def of_units(self) -> frozenset[str]:
        """The measures of units that its comparisons are about; the counts of all events where an increase is asked for."""
        counts = any(term.derivation is Derivation.INCREASE for term in self.comparisons)
        return wanted_measures([self]) - self.of_host | frozenset(EVENT_NAMES if counts else ())


@lru_cache(4096)
def _is_among(names: tuple[str, ...], patterns: tuple[str, ...], excluded: tuple[str, ...]) -> bool:
    """Return whether a unit of those names matches `patterns` and none of `excluded`; asked at each tick anew."""
    is_meant = any(matches(name, patterns) for name in names)
    return is_meant and not any(matches(name, excluded) for name in names)


@dataclass(frozen=True)
class PolicyFile:
    """The content of one policy file."""

    policies: tuple[Policy, ...]
    interval: float = DEFAULT_INTERVAL
    """Seconds between two ticks."""
    budget: Budget | None = None
    """The budget of all policies and units together."""

    @cached_property
    def acting(self) -> frozenset[str]:
        """The names of its policies that act, and don't only observe."""
        return frozenset(policy.name for policy in self.policies if policy.mode is Mode.ACT)

    @cached_property
    def names(self) -> frozenset[str]:
        """The units that are named exactly, which may be aliases."""
        return frozenset(
            pattern for policy in self.policies for pattern in policy.units if not is_glob(pattern)
        )

    @cached_property
    def measures(self) -> frozenset[str]:
        """The measures that its conditions need."""
        return wanted_measures(self.policies)

    @cached_property
    def followed(self) -> frozenset[str]:
        """The measures of which its conditions take slopes."""
        terms = (term for policy in self.policies for term in policy.comparisons)
        return frozenset(term.followed for term in terms if term.function is not None)


def observing(file: PolicyFile) -> PolicyFile:
    """Return `file` with all policies in observe mode."""
    return replace(file, policies=tuple(replace(policy, mode=Mode.OBSERVE) for policy in file.policies))


def wanted_measures(policies: Iterable[Policy]) -> frozenset[str]:
    """Return every measure that some condition of `policies` needs."""
    names = frozenset(name for policy in policies for name in policy.named)
    return names | {"limit"} if FILL in names else names  # a share of which is what memory.stat may lag by
