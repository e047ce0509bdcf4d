"""What the engine remembers from one tick to the next, and how that changes between ticks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeVar

from unitmem.policy.decision import Decision, Refusal
from unitmem.policy.fingerprint import Fingerprint, fingerprint
from unitmem.policy.model import Budget, Mode, Policy, PolicyFile
from unitmem.policy.trends import Trail
from unitmem.unit import Invocation

_T = TypeVar("_T")

RETRY_AFTER = 10.0
"""Seconds before a decision whose action failed is made again, while its condition still holds."""
RETRY_UNTRIED_AFTER = 300.0
"""The same where there was nobody to ask for the action."""


class Phase(StrEnum):
    """Where a step stands; see the module's docstring."""

    IDLE = "idle"
    HOLDING = "holding"
    FIRED = "fired"


@dataclass(frozen=True, slots=True)
class StepState:
    """Where one step of one ladder stands."""

    phase: Phase = Phase.IDLE
    since: float | None = None
    """From when its condition has held without a break; None while it doesn't."""
    fired_at: float | None = None
    """When it last fired in this episode."""
    not_before: float | None = None
    """A failed action is not tried again before this time."""
    withheld: Refusal | None = None
    """Why it doesn't fire although it is due."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Measures without which its condition can't be judged, with the reasons."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """One policy's steps for one invocation of one unit."""

    invocation: Invocation
    steps: tuple[StepState, ...]
    episode_since: float | None = None
    """When the open episode began; None between episodes."""


LadderKey = tuple[str, str]
"""A policy's name and a unit's."""
EVERY_UNIT = "*"
"""In place of a unit's name: where it isn't known which one a cooldown is for."""


@dataclass(frozen=True, slots=True)
class State:
    """All that `evaluate` remembers from one tick to the next."""

    ladders: Mapping[LadderKey, Ladder] = field(default_factory=dict)
    cooling: Mapping[LadderKey, float] = field(default_factory=dict)
    """Until when no episode begins."""
    spent: Mapping[LadderKey, tuple[float, ...]] = field(default_factory=dict)
    """When actions were decided, within their policy's budget."""
    spent_in_all: Mapping[Mode, tuple[float, ...]] = field(default_factory=dict)
    """The same for the file's budget; what only observes must not take from what acts."""
    trails: Mapping[str, Trail] = field(default_factory=dict)
    """By unit."""
    ending: frozenset[Invocation] = frozenset()
    """Invocations that an action under way is to end."""


def rearm(state: State, decision: Decision, now: float, *, untried: bool = False) -> State:
    """`state` after the action of `decision` has failed: it may be decided again, a little later.

    What was `untried` is given back to the budgets, and waits for longer, or for `retry_all`.

    While a unit is ending no policy judges it, so what held before then has to hold anew. That is spared
    to an action that failed at once, before any tick was missed.
    """
    invocation = decision.invocation
    was_ending = decision.action.ends_the_unit and invocation in state.ending
    was_unjudged = was_ending and now > decision.at
    ladders = dict(state.ladders)
    for key, ladder in state.ladders.items():
        if ladder.invocation != invocation:
            continue
        steps = [unjudged(step) if was_unjudged else step for step in ladder.steps]
        if key[0] == decision.policy and decision.step < len(steps):
            step = steps[decision.step]
            # where it has fired again since, that is what counts
            if step.phase is Phase.FIRED and step.fired_at == decision.at:
                phase = Phase.IDLE if step.since is None else Phase.HOLDING
                pause = RETRY_UNTRIED_AFTER if untried else RETRY_AFTER
                steps[decision.step] = replace(step, phase=phase, not_before=now + pause)
        ladders[key] = replace(ladder, steps=tuple(steps))
    if untried:
        key, mode = (decision.policy, decision.unit), Mode.OBSERVE if decision.observe else Mode.ACT
        state = replace(
            state,
            spent=_given_back(state.spent, key, decision.at),
            spent_in_all=_given_back(state.spent_in_all, mode, decision.at),
        )
    return replace(state, ladders=ladders, ending=state.ending - {invocation} if was_ending else state.ending)


def retry_all(state: State) -> State:
    """`state` where what has failed may be decided again at once: what was in the way of it is gone."""
    return replace(
        state,
        ladders={
            key: replace(ladder, steps=tuple(replace(step, not_before=None) for step in ladder.steps))
            for key, ladder in state.ladders.items()
        },
    )


def lapse(state: State, key: LadderKey, steps: Collection[int]) -> State:
    """`state` as if those steps had not fired in this episode: what they did has been undone."""
    ladder = state.ladders.get(key)
    if ladder is None:
        return state
    kept = tuple(StepState() if index in steps else step for index, step in enumerate(ladder.steps))
    return replace(state, ladders={**state.ladders, key: replace(ladder, steps=kept)})


def step_state(ladder: Ladder | None, index: int) -> StepState:
    """Where the step at `index` stands; idle where nothing is remembered of it."""
    return StepState() if ladder is None or index >= len(ladder.steps) else ladder.steps[index]


def is_open(state: State, key: LadderKey) -> bool:
    """Whether that policy has an open episode for that unit."""
    ladder = state.ladders.get(key)
    return ladder is not None and ladder.episode_since is not None


def cools_until(cooling: Mapping[LadderKey, float], key: LadderKey) -> float | None:
    """Until when no episode of `key` begins; None if one may begin now."""
    return max((cooling[each] for each in (key, (key[0], EVERY_UNIT)) if each in cooling), default=None)


def carry_over(state: State, old: Sequence[Policy], new: Sequence[Policy], now: float) -> State:
    """`state` under a reloaded file: `resume`, where the policies that it was made under are at hand."""
    return resume(state, {policy.name: fingerprint(policy) for policy in old}, new, now)


def resume(
    state: State, former: Mapping[str, Fingerprint | None], policies: Sequence[Policy], now: float
) -> State:
    """`state` under `policies`, after a reload as after a restart: those that read as before go on, changed ones start anew.

    Cooldowns and budgets stay with the policy's name: to edit a file must not refill them, and an
    episode that an edit cuts short has a cooldown like any other. What was only observed counts for
    nothing once the policy acts.

    Args:
        state: of the ladders of changed policies, only that they are open counts.
        former: what each policy said that `state` was made under; None, or none at all, where that isn't known: then
            it counts as changed, but for its mode.
        policies: those in force from now on.
        now: by the clock of `state`.
    """
    after = {policy.name: policy for policy in policies}
    kept = {name for name, policy in after.items() if former.get(name) == fingerprint(policy)}
    same_mode = {name for name, policy in after.items() if _mode(former.get(name)) in (None, policy.mode)}
    cooling = {key: until for key, until in state.cooling.items() if key[0] in same_mode}
    for key, ladder in state.ladders.items():
        if ladder.episode_since is not None and key[0] in same_mode - kept and after[key[0]].cooldown > 0:
            cooling[key] = max(now + after[key[0]].cooldown, cooling.get(key, now))
    return replace(
        state,
        ladders={key: ladder for key, ladder in state.ladders.items() if key[0] in kept},
        cooling=cooling,
        spent={key: times for key, times in state.spent.items() if key[0] in same_mode},
    )


def cooldown_left(state: State, key: LadderKey, now: float) -> float | None:
    """Seconds for which no episode begins yet; None where one may begin."""
    until = cools_until(state.cooling, key)
    return None if until is None or until <= now else until - now


def cooling_absent(state: State, present: Collection[str], now: float) -> list[tuple[LadderKey, float]]:
    """The cooldowns, by `cooldown_left`, of units that are not `present`."""
    left = [(key, cooldown_left(state, key, now)) for key in sorted(state.cooling) if key[1] not in present]
    return [(key, seconds) for key, seconds in left if seconds is not None]


def counted(budget: Budget | None, spent: Sequence[float], now: float) -> tuple[float, ...]:
    """Those of the times `spent` that count against `budget` still."""
    return () if budget is None else tuple(at for at in spent if at > now - budget.per)


def _mode(said: Fingerprint | None) -> Mode | None:
    """The mode of a policy that said so; None where it isn't one that is known."""
    mode = None if said is None else said.get("mode", Mode.ACT)
    return Mode(mode) if mode in list(Mode) else None


def budget_left(budget: Budget, spent: Sequence[float], now: float) -> int:
    """How many actions may still be decided, after those at the times `spent`."""
    return max(0, budget.actions - len(counted(budget, spent, now)))


def unit_budget_left(policy: Policy, state: State, unit: str, now: float) -> int | None:
    """What is left of the budget of `policy` for `unit`; None where it has none."""
    spent = state.spent.get((policy.name, unit), ())
    return None if policy.budget is None else budget_left(policy.budget, spent, now)


def file_budget_left(file: PolicyFile, state: State, now: float) -> int | None:
    """What is left of the file's budget for policies that act; None where it has none."""
    spent = state.spent_in_all.get(Mode.ACT, ())
    return None if file.budget is None else budget_left(file.budget, spent, now)


def _given_back(spent: Mapping[_T, tuple[float, ...]], key: _T, at: float) -> Mapping[_T, tuple[float, ...]]:
    times = list(spent.get(key, ()))
    if at in times:
        times.remove(at)
    return {**spent, key: tuple(times)} if times else {other: spent[other] for other in spent if other != key}


def unjudged(step: StepState) -> StepState:
    """`step` after a time in which nobody looked: it has fired if it had, and nothing is known to hold."""
    phase = Phase.FIRED if step.phase is Phase.FIRED else Phase.IDLE
    return replace(step, phase=phase, since=None, withheld=None, unknown={})
