"""The engine's state from one tick to the next, and its changes between ticks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeVar

from unitmem.measure.sample import NO_HOST, HostSample, UnitSample
from unitmem.policy.decision import Decision, Obstacle, Outcome, Refusal, Result
from unitmem.policy.fingerprint import Fingerprint, fingerprint
from unitmem.policy.groups import Groups, concluded, released, retried, unlooked
from unitmem.policy.model import Budget, Mode, Policy, PolicyFile
from unitmem.policy.trends import NO_LEVELS, LevelTrends, Trend
from unitmem.unit import Invocation

_T = TypeVar("_T")

RETRY_AFTER = 10.0
"""Seconds until a step whose action failed may fire again."""
RETRY_UNTRIED_AFTER = 300.0
"""Seconds until a step whose action could not be attempted may fire again."""


class Phase(StrEnum):
    """The phase of a step; see `engine`."""

    IDLE = "idle"
    HOLDING = "holding"
    FIRED = "fired"


@dataclass(frozen=True, slots=True)
class StepState:
    """The state of one step of one ladder."""

    phase: Phase = Phase.IDLE
    held: float | None = None
    """Seconds credited to its condition, which has held at every look; None while it doesn't hold."""
    looked_at: float | None = None
    """The time of the last look at which it held; None while it doesn't hold."""
    fired_at: float | None = None
    """The time when it last fired in this episode."""
    not_before: float | None = None
    """The time before which it doesn't fire again, after its action failed."""
    withheld: Refusal | None = None
    """The obstacle, while it is due and doesn't fire."""
    reported: Obstacle | None = None
    """The obstacle that was last told while it is withheld; nothing is told while another unit ranks before it."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """The unknown measures because of which its condition can't be judged, with the reasons."""


IDLE = StepState()
"""The state of a step that has nothing to remember: the same object, so that a tick without news makes none."""


_NOTHING = (None,) * 4


@dataclass(frozen=True, slots=True)
class Ladder:
    """One policy's steps for one invocation of one unit."""

    invocation: Invocation
    steps: tuple[StepState, ...]
    episode_since: float | None = None
    """The time when the open episode began; None between episodes."""

    @property
    def is_idle(self) -> bool:
        """Whether no episode is open, and nothing is kept of any step: its condition is known not to hold."""
        return self.episode_since is None and all(step == IDLE for step in self.steps)

    @property
    def rests(self) -> bool:
        """Whether the same verdicts again would change nothing; a step whose condition is unknown may be one of its steps."""
        return self.episode_since is None and all(
            step is IDLE
            or (
                step.phase is Phase.IDLE
                and (step.held, step.fired_at, step.not_before, step.withheld) == _NOTHING
            )
            for step in self.steps
        )


@dataclass(frozen=True, slots=True)
class Refused:
    """An action that the manager refuses for good, to one invocation."""

    reason: str
    """What it said, a clause that follows `since`."""
    reported: frozenset[tuple[str, int]] = frozenset()
    """The policies and steps of which there was a decision that this withholds them."""


LadderKey = tuple[str, str]
"""The names of a policy and a unit."""


@dataclass(frozen=True, slots=True)
class Rest:
    """A unit that need not be judged anew: its ladders stay as they are while all of this stays the same."""

    sample: UnitSample
    ladders: tuple[tuple[LadderKey, Ladder], ...]
    """Of all policies that govern it; no step holds, has fired, or waits."""
    measures: frozenset[str]
    """Its measures that conditions are about."""
    of_host: frozenset[str]
    """Those of the machine."""
    until: float
    """The time from which a condition may have another truth, though the sample is the same."""


@dataclass(frozen=True, slots=True)
class Resting:
    """The units that need not be judged anew, by name, under those policies and on that machine."""

    units: Mapping[str, Rest] = field(default_factory=dict)
    policies: tuple[Policy, ...] = ()
    host: HostSample = NO_HOST
    ladders: Mapping[LadderKey, Ladder] = field(default_factory=dict)
    """All ladders of the state that this belongs to, unless that was changed since."""


EVERY_UNIT = "*"
"""Stands for a unit's name where it isn't known which unit a cooldown is about."""


@dataclass(frozen=True, slots=True)
class State:
    """The state that `evaluate` takes and returns."""

    ladders: Mapping[LadderKey, Ladder] = field(default_factory=dict)
    cooling: Mapping[LadderKey, float] = field(default_factory=dict)
    """The times until which no episode begins."""
    spent: Mapping[LadderKey, tuple[float, ...]] = field(default_factory=dict)
    """The times when actions were decided, as far as their policy's budget counts them."""
    spent_in_all: Mapping[Mode, tuple[float, ...]] = field(default_factory=dict)
    """The same for the file's budget, by mode: policies that observe don't use up the budget of those that act."""
    trends: Mapping[str, Trend] = field(default_factory=dict)
    """The trend of each unit, by name."""
    ending: frozenset[Invocation] = frozenset()
    """Invocations that an action under way will end."""
    levels: LevelTrends = field(default_factory=lambda: NO_LEVELS)
    """The trends of the levels that units share: slices, and the machine."""
    refused: Mapping[tuple[Invocation, str], Refused] = field(default_factory=dict)
    """What the manager refuses for good, by invocation and action, until the invocation ends or units are reloaded."""
    last_ended: Mapping[LadderKey, tuple[Invocation, float]] = field(default_factory=dict)
    """The last run that each policy decided to end, and until when it was there, for as long as the policy may count OOM
    kills from before."""
    groups: Groups = field(default_factory=dict)
    """The units among which a step picks one at a time."""
    resting: Resting = field(default_factory=Resting, compare=False, repr=False)
    """What follows from the rest, and saves work at the next tick."""


def conclude(state: State, outcome: Outcome, now: float) -> State:
    """Return `state` after `outcome`: what was not attempted costs nothing, and a step may fire again where that may help.

    What was not attempted and won't help again is refused for good. An invocation that was taken for gone, or that an
    action has failed to end, is judged again if it is still in a later sample. Where a step has picked the unit, the
    outcome decides what comes next.
    """
    if (groups := concluded(state.groups, outcome, now)) is not state.groups:
        state = replace(state, groups=groups)
    if not (outcome.again or outcome.untried or outcome.result in (Result.GONE, Result.FAILED)):
        return state
    if outcome.untried and not outcome.again:
        refused = outcome.decision.invocation, str(outcome.decision.action)
        state = replace(state, refused={**state.refused, refused: Refused(outcome.detail)})
    return rearm(state, outcome.decision, now, untried=outcome.untried, again=outcome.again)


def rearm(
    state: State, decision: Decision, now: float, *, untried: bool = False, again: bool = True
) -> State:
    """Return `state` after the action of `decision` has failed: its step may fire `again` after a pause.

    An `untried` action is given back to the budgets; its pause is longer, and `retry_all` ends it.

    While a unit is ending no policy judges it, so conditions have to hold anew afterwards; unless the action failed
    at once, before any tick was missed.
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
            if again and step.phase is Phase.FIRED and step.fired_at == decision.at:
                phase = Phase.IDLE if step.held is None else Phase.HOLDING
                pause = RETRY_UNTRIED_AFTER if untried else RETRY_AFTER
                steps[decision.step] = replace(step, phase=phase, not_before=now + pause)
        ladders[key] = replace(ladder, steps=tuple(steps))
    if untried:
        state = _refunded(state, decision)
    return replace(state, ladders=ladders, ending=state.ending - {invocation} if was_ending else state.ending)


def withdraw(state: State, decision: Decision) -> State:
    """Return `state` after the action of `decision` was never requested: it costs nothing, and its unit isn't picked.

    A step that picks may fire for that unit at once: a pause would have it pick another one.
    """
    state, groups = _refunded(state, decision), state.groups
    state = replace(state, groups=released(groups, decision))
    return (
        state if state.groups == groups else lapse(state, (decision.policy, decision.unit), [decision.step])
    )


def retry_all(state: State) -> State:
    """Return `state` without refusals and pauses after failed actions, as the manager answers again."""
    return replace(
        forget_refusals(state),
        groups=retried(state.groups),
        ladders={
            key: replace(ladder, steps=tuple(replace(step, not_before=None) for step in ladder.steps))
            for key, ladder in state.ladders.items()
        },
    )


def forget_refusals(state: State) -> State:
    """Return `state` after the manager has reloaded its units, so that it may refuse them no longer."""
    return replace(state, refused={})


@dataclass(frozen=True, slots=True)
class GivenBack:
    """What a reset has given back, by policies and units."""

    cooldowns: Mapping[LadderKey, float]
    """The seconds that were left of each cooldown."""
    actions: Mapping[LadderKey, int]
    """The actions that the budget of a policy no longer counts for a unit."""
    retries: tuple[LadderKey, ...]
    """Those with steps that were waiting to fire again after an action failed."""
    refusals: tuple[tuple[str, str], ...]
    """The units and actions of which it is forgotten that the manager refuses them."""
    file_actions: int = 0
    """The actions that the file's budget no longer counts."""

    @property
    def is_nothing(self) -> bool:
        return not (self.cooldowns or self.actions or self.retries or self.refusals or self.file_actions)


def has_kept(state: State, unit: str) -> bool:
    """Return whether `state` has a cooldown or a spent budget of `unit`."""
    return any(key[1] == unit for key in (*state.cooling, *state.spent))


def reset(state: State, unit: str | None, now: float) -> tuple[State, GivenBack]:
    """Return `state` without cooldowns, spent budgets, refusals and pauses after failed actions, and what they were.

    With `unit` only those of that unit are meant, and not the file's budget. Episodes, and what has fired in them, stay.
    """

    def is_meant(name: str) -> bool:
        return unit in (None, name)

    def is_waiting(step: StepState) -> bool:
        return step.not_before is not None and step.not_before > now

    cooldowns = {key: until - now for key, until in state.cooling.items() if is_meant(key[1]) and until > now}
    spent = {key: times for key, times in state.spent.items() if is_meant(key[1]) and times}
    refused = [key for key in state.refused if is_meant(key[0].unit)]
    waiting = {
        key: ladder
        for key, ladder in state.ladders.items()
        if is_meant(key[1]) and any(map(is_waiting, ladder.steps))
    }
    ready = {
        key: replace(ladder, steps=tuple(replace(step, not_before=None) for step in ladder.steps))
        for key, ladder in waiting.items()
    }
    given_back = GivenBack(
        cooldowns=cooldowns,
        actions={key: len(times) for key, times in spent.items()},
        retries=tuple(waiting),
        refusals=tuple((run.unit, action) for run, action in refused),
        file_actions=sum(map(len, state.spent_in_all.values())) if unit is None else 0,
    )
    state = replace(
        state,
        cooling={key: until for key, until in state.cooling.items() if key not in cooldowns},
        spent={key: times for key, times in state.spent.items() if key not in spent},
        spent_in_all={} if unit is None else state.spent_in_all,
        refused={key: each for key, each in state.refused.items() if key not in refused},
        ladders={**state.ladders, **ready},
    )
    return state, given_back


def restart_timers(state: State) -> State:
    """Return `state` after a time in which nobody looked: what has fired stays fired, and conditions have to hold anew."""
    return replace(
        state,
        ladders={
            key: replace(ladder, steps=tuple(map(unjudged, ladder.steps)))
            for key, ladder in state.ladders.items()
        },
        groups=unlooked(state.groups),
    )


def lapse(state: State, key: LadderKey, steps: Collection[int]) -> State:
    """Return `state` as if those steps had not fired in this episode, since their effect was undone."""
    ladder = state.ladders.get(key)
    if ladder is None:
        return state
    kept = tuple(StepState() if index in steps else step for index, step in enumerate(ladder.steps))
    return replace(state, ladders={**state.ladders, key: replace(ladder, steps=kept)})


def step_state(ladder: Ladder | None, index: int) -> StepState:
    """Return the state of the step at `index`; idle where the ladder has none."""
    return StepState() if ladder is None or index >= len(ladder.steps) else ladder.steps[index]


def is_open(state: State, key: LadderKey) -> bool:
    """Return whether that policy has an open episode for that unit."""
    ladder = state.ladders.get(key)
    return ladder is not None and ladder.episode_since is not None


def cools_until(cooling: Mapping[LadderKey, float], key: LadderKey) -> float | None:
    """Return the time until which no episode of `key` begins; None if it has no cooldown."""
    return max((cooling[each] for each in (key, (key[0], EVERY_UNIT)) if each in cooling), default=None)


def carry_over(state: State, old: Sequence[Policy], new: Sequence[Policy], now: float) -> State:
    """Return `state` under a reloaded file: `resume` with the fingerprints of the old policies."""
    return resume(state, {policy.name: fingerprint(policy) for policy in old}, new, now)


def resume(
    state: State, former: Mapping[str, Fingerprint | None], policies: Sequence[Policy], now: float
) -> State:
    """Return `state` under `policies`, after a reload or a restart: unchanged policies go on, changed ones start anew.

    Cooldowns and budgets stay with the policy's name: editing a file must not refill them, and an episode that an
    edit ends has a cooldown like any other. They are dropped where the policy's mode has changed.

    Args:
        state: the state before; of the ladders of changed policies, only open episodes matter.
        former: the fingerprint of each policy that `state` was made under; where it is missing or None, the policy
            counts as changed, with an unchanged mode.
        policies: those in force from now on.
        now: seconds of the clock of `state`.
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
        last_ended={key: last for key, last in state.last_ended.items() if key[0] in same_mode},
        groups={key: group for key, group in state.groups.items() if key[0] in kept},
    )


def cooldown_left(state: State, key: LadderKey, now: float) -> float | None:
    """Return the seconds for which no episode begins yet; None where one may begin."""
    until = cools_until(state.cooling, key)
    return None if until is None or until <= now else until - now


def cooling_absent(state: State, present: Collection[str], now: float) -> list[tuple[LadderKey, float]]:
    """Return (key, seconds left) of the cooldowns of units that are not `present`."""
    left = [(key, cooldown_left(state, key, now)) for key in sorted(state.cooling) if key[1] not in present]
    return [(key, seconds) for key, seconds in left if seconds is not None]


def counted(budget: Budget | None, spent: Sequence[float], now: float) -> tuple[float, ...]:
    """Return those of the times `spent` that `budget` still counts."""
    return () if budget is None else tuple(at for at in spent if at > now - budget.per)


def _mode(said: Fingerprint | None) -> Mode | None:
    """Return the mode in a fingerprint; None where it is unknown."""
    mode = None if said is None else said.get("mode", Mode.ACT)
    return Mode(mode) if mode in list(Mode) else None


def budget_left(budget: Budget, spent: Sequence[float], now: float) -> int:
    """Return how many actions may still be decided after those at the times `spent`."""
    return max(0, budget.actions - len(counted(budget, spent, now)))


def actions_spent(
    spent: Mapping[LadderKey, tuple[float, ...]], policy: Policy, unit: str
) -> tuple[float, ...]:
    """Return the times of the actions that the budget of `policy` counts for `unit`: those on all units if it picks."""
    if not policy.picks:
        return spent.get((policy.name, unit), ())
    return tuple(sorted(at for key, times in spent.items() if key[0] == policy.name for at in times))


def unit_budget_left(policy: Policy, state: State, unit: str, now: float) -> int | None:
    """Return how many actions the budget of `policy` leaves for `unit`; None without a budget."""
    spent = actions_spent(state.spent, policy, unit)
    return None if policy.budget is None else budget_left(policy.budget, spent, now)


def file_budget_left(file: PolicyFile, state: State, now: float) -> int | None:
    """Return how many actions the file's budget leaves for policies that act; None without a budget."""
    spent = state.spent_in_all.get(Mode.ACT, ())
    return None if file.budget is None else budget_left(file.budget, spent, now)


def _refunded(state: State, decision: Decision) -> State:
    key, mode = (decision.policy, decision.unit), Mode.OBSERVE if decision.observe else Mode.ACT
    return replace(
        state,
        spent=_given_back(state.spent, key, decision.at),
        spent_in_all=_given_back(state.spent_in_all, mode, decision.at),
    )


def _given_back(spent: Mapping[_T, tuple[float, ...]], key: _T, at: float) -> Mapping[_T, tuple[float, ...]]:
    times = list(spent.get(key, ()))
    if at in times:
        times.remove(at)
    return {**spent, key: tuple(times)} if times else {other: spent[other] for other in spent if other != key}


def unjudged(step: StepState) -> StepState:
    """Return `step` after a time in which it wasn't judged: it is still fired if it was, and its timer starts anew."""
    phase = Phase.FIRED if step.phase is Phase.FIRED else Phase.IDLE
    return replace(step, phase=phase, held=None, looked_at=None, withheld=None, reported=None, unknown={})
