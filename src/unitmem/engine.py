"""When a policy fires: `evaluate(policies, sample, state, now) -> (state, decisions)`, pure and total.

Each unit that a policy governs has a ladder of its own, for one invocation. On every tick each step
is in one of three phases:

    IDLE      its condition does not hold, or is not known to
    HOLDING   it has held at every tick since `since`, and the step has not fired in this episode
    FIRED     its decision was made in this episode

    IDLE -- holds --> HOLDING -- for its `for` --> FIRED -- episode ends --> IDLE
                         |                           |
                         +-- no longer --> IDLE      +-- `repeat` later, still holding: fires again

The episode begins with the first step that fires. It ends when `clear` holds (without one: when no
step's condition holds), or with the invocation: another run of the unit starts from nothing. One that can't
be seen, as its manager doesn't tell or its cgroup can't be opened, may run on, and so does its episode. What is
unknown neither fires a step, nor ends an episode, nor counts as held. While `clear` holds, no step does.

A step that is due may be withheld, and then stays as it is, which is told once for each reason:

    cooling down    no episode begins within `cooldown` of the last one's end
    out of budget   `actions` were decided within `per`: the policy's for this unit, or the file's for all

Cooldowns and budgets belong to the unit's name, and outlive its runs. A step that would touch a
protected unit fires with a refusal instead of an action. Logging is no action: it costs no budget and
protection does not forbid it.

Once an action is decided that ends the unit, nothing more is judged or decided for that invocation. If
an action turns out to have failed, `rearm` puts its step back to where it can fire, a little later.

No clock, no files, no bus: time is an argument, and performing a decision is another module's job.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeVar

from unitmem.condition import Derivation, Finding, Verdict, comparisons, judge
from unitmem.policy import Action, Budget, Log, Mode, Policy, Signal, Step, Target, ends_the_unit
from unitmem.process import Process
from unitmem.quantity import format_span
from unitmem.sample import COSTLY_MEASURES, MEASURES, Sample, Scope, UnitSample
from unitmem.trail import Trail, UnitFacts, extend
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


class Result(StrEnum):
    """What became of a decision."""

    VERIFIED = "verified"
    """Performed, and seen to have had its effect."""
    FAILED = "failed"
    """Not performed, or without its effect."""
    GONE = "gone"
    """The invocation or process that it was meant for had ended by then; nothing was done."""
    OBSERVED = "observed"
    """It would have been performed, but the policy only observes."""
    REFUSED = "refused"
    """Performing it is not allowed: see its refusal."""


class Obstacle(StrEnum):
    """Why what is due is not done."""

    PROTECTED = "protected"
    COOLING_DOWN = "cooling down"
    OUT_OF_BUDGET = "out of budget"
    """The policy's budget for this unit is spent."""
    OUT_OF_FILE_BUDGET = "out of the file's budget"
    """The budget for all policies and units together is spent."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An obstacle in the way of one decision, with what makes it one."""

    obstacle: Obstacle
    reason: str
    """To follow `since`."""
    until: float | None = None
    """When it passes at the earliest, by the clock of the sample; None if it doesn't."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Do this to that invocation, because of these findings. A value: performing it comes later."""

    at: float
    """When, by the monotonic clock of the sample."""
    policy: str
    step: int
    """The step's place in its policy, from 0."""
    action: Action
    invocation: Invocation
    held: float
    """Seconds for which the condition has held."""
    hold: float
    """Seconds that the step asks for."""
    findings: tuple[Finding, ...]
    """The comparisons that made the condition true, with their numbers."""
    observe: bool = False
    refusal: Refusal | None = None
    """Why it must not be performed; None if it may be."""
    victim: Process | None = None
    """The process that was measured to be the largest, where the findings speak of one."""

    @property
    def unit(self) -> str:
        return self.invocation.unit

    @property
    def acts(self) -> bool:
        """Whether performing it does anything to the unit."""
        return self.refusal is None and not self.observe and not isinstance(self.action, Log)


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


Key = tuple[str, str]
"""A policy's name and a unit's."""


@dataclass(frozen=True, slots=True)
class State:
    """All that `evaluate` remembers from one tick to the next."""

    ladders: Mapping[Key, Ladder] = field(default_factory=dict)
    cooling: Mapping[Key, float] = field(default_factory=dict)
    """Until when no episode begins."""
    spent: Mapping[Key, tuple[float, ...]] = field(default_factory=dict)
    """When actions were decided, within their policy's budget."""
    spent_in_all: Mapping[Mode, tuple[float, ...]] = field(default_factory=dict)
    """The same for the file's budget; what only observes must not take from what acts."""
    trails: Mapping[str, Trail] = field(default_factory=dict)
    """By unit."""
    ending: frozenset[Invocation] = frozenset()
    """Invocations that an action under way is to end."""


def evaluate(
    policies: Sequence[Policy],
    sample: Sample,
    state: State,
    now: float,
    budget: Budget | None = None,
    is_unseen: Callable[[str], bool] = lambda _: False,
) -> tuple[State, tuple[Decision, ...]]:
    """What to do about `sample`, and the state for the next tick.

    Args:
        policies: in the order of their file, which is the order of their decisions.
        sample: every governed unit that has a cgroup; a unit that is not in it has ended, unless it `is_unseen`.
        state: what the last call returned; `State()` at first.
        now: seconds of a monotonic clock, never less than at the last call.
        budget: for all policies and units together.
        is_unseen: whether a unit that is not in the sample may run all the same: its episode goes on.
    """
    tick = _Tick(policies, sample, state, now, budget, is_unseen)
    for policy in policies:
        for name, unit in sample.units.items():
            if unit.invocation is not None and policy.governs(name):
                tick.climb(policy, unit, unit.invocation)
    tick.let_go_of_the_gone()
    return tick.state(), tuple(tick.decisions)


def rearm(state: State, decision: Decision, now: float, *, untried: bool = False) -> State:
    """`state` after the action of `decision` has failed: it may be decided again, a little later.

    What was `untried` is given back to the budgets, and waits for longer, or for `retry_all`.

    While a unit is ending no policy judges it, so what held before then has to hold anew. That is spared
    to an action that failed at once, before any tick was missed.
    """
    invocation = decision.invocation
    was_ending = ends_the_unit(decision.action) and invocation in state.ending
    was_unjudged = was_ending and now > decision.at
    ladders = dict(state.ladders)
    for key, ladder in state.ladders.items():
        if ladder.invocation != invocation:
            continue
        steps = [_unjudged(step) if was_unjudged else step for step in ladder.steps]
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


def lapse(state: State, key: Key, steps: Collection[int]) -> State:
    """`state` as if those steps had not fired in this episode: what they did has been undone."""
    ladder = state.ladders.get(key)
    if ladder is None:
        return state
    kept = tuple(StepState() if index in steps else step for index, step in enumerate(ladder.steps))
    return replace(state, ladders={**state.ladders, key: replace(ladder, steps=kept)})


def is_open(state: State, key: Key) -> bool:
    """Whether that policy has an open episode for that unit."""
    ladder = state.ladders.get(key)
    return ladder is not None and ladder.episode_since is not None


def carry_over(state: State, old: Sequence[Policy], new: Sequence[Policy], now: float) -> State:
    """`state` under a reloaded file: policies that read as before go on, changed ones start anew.

    Cooldowns and budgets stay with the policy's name: to edit a file must not refill them, and an
    episode that an edit cuts short has a cooldown like any other. What was only observed counts for
    nothing once the policy acts.
    """
    before = {policy.name: policy for policy in old}
    after = {policy.name: policy for policy in new}
    kept = {policy.name for policy in old if policy in new}
    same_mode = {
        name for name, policy in after.items() if name in before and before[name].mode is policy.mode
    }
    cut_short = {
        key: now + after[key[0]].cooldown
        for key, ladder in state.ladders.items()
        if ladder.episode_since is not None and key[0] in same_mode - kept and after[key[0]].cooldown > 0
    }
    return replace(
        state,
        ladders={key: ladder for key, ladder in state.ladders.items() if key[0] in kept},
        cooling={key: until for key, until in state.cooling.items() if key[0] in same_mode} | cut_short,
        spent={key: times for key, times in state.spent.items() if key[0] in same_mode},
    )


def is_undecided(policies: Sequence[Policy], unit: UnitSample, state: State, now: float) -> bool:
    """Whether reading what is costly (PSS and its like) would decide a condition that bounds leave open."""
    facts = UnitFacts(unit, state.trails.get(unit.unit.name), now)
    for policy in policies:
        if not policy.governs(unit.unit.name):
            continue
        for condition in policy.conditions:
            if any(
                comparison.derivation is Derivation.GROWTH and comparison.measure in COSTLY_MEASURES
                for comparison in comparisons(condition)
            ):
                return True  # a slope needs every point
            verdict = judge(condition, facts)
            if verdict.truth is None and any(
                name in COSTLY_MEASURES for finding in verdict.findings for name in finding.unknown
            ):
                return True
    return False


def budget_left(budget: Budget, spent: Sequence[float], now: float) -> int:
    """How many actions may still be decided, after those at the times `spent`."""
    return max(0, budget.actions - sum(1 for at in spent if at > now - budget.per))


# --- one tick ----------------------------------------------------------------------------------


class _Tick:
    """One call of `evaluate`: the state that it was given, and the one that grows."""

    def __init__(
        self,
        policies: Sequence[Policy],
        sample: Sample,
        state: State,
        now: float,
        budget: Budget | None,
        is_unseen: Callable[[str], bool],
    ) -> None:
        self.now = now
        self.is_unseen = is_unseen
        self.budget = budget
        self.before = state
        self.decisions: list[Decision] = []
        present = {unit.invocation for unit in sample.units.values() if unit.invocation is not None}
        self.ending = frozenset(run for run in state.ending if run in present or self.is_unseen(run.unit))
        self.ladders: dict[Key, Ladder] = {}
        self.cooling = {key: until for key, until in state.cooling.items() if until > now}
        self.spent = dict(state.spent)
        self.spent_in_all = dict(state.spent_in_all)
        self.budgets = {policy.name: policy.budget for policy in policies}
        self.cooldowns = {policy.name: policy.cooldown for policy in policies}
        self.trails = {}
        for name, unit in sample.units.items():
            wanted = [
                comparison
                for policy in policies
                if policy.governs(name)
                for condition in policy.conditions
                for comparison in comparisons(condition)
            ]
            if (trail := extend(state.trails.get(name), unit, wanted, now)) is not None:
                self.trails[name] = trail

    def state(self) -> State:
        spent = {key: self._within(self.budgets.get(key[0]), times) for key, times in self.spent.items()}
        in_all = {mode: self._within(self.budget, times) for mode, times in self.spent_in_all.items()}
        return State(
            self.ladders,
            self.cooling,
            {key: times for key, times in spent.items() if times},
            {mode: times for mode, times in in_all.items() if times},
            self.trails,
            self.ending,
        )

    def climb(self, policy: Policy, unit: UnitSample, invocation: Invocation) -> None:
        """The new phases of one ladder, and the decisions of the steps that fire now."""
        key = policy.name, invocation.unit
        ladder = self.before.ladders.get(key)
        if ladder is None or ladder.invocation != invocation:
            if ladder is not None:
                self._end_episode(key, ladder)
            ladder = Ladder(invocation, (StepState(),) * len(policy.steps))
        # one that another policy ends in this very tick is still judged: that may fail at once
        if invocation not in self.before.ending:
            ladder = self._judge(policy, key, ladder, unit)
        self.ladders[key] = ladder

    def let_go_of_the_gone(self) -> None:
        """End the episodes of what is gone; of what can't be seen now, nothing is known to hold."""
        for key, ladder in self.before.ladders.items():
            if key in self.ladders:
                continue
            if self.is_unseen(key[1]):
                self.ladders[key] = replace(ladder, steps=tuple(map(_unjudged, ladder.steps)))
            else:
                self._end_episode(key, ladder)

    def _judge(self, policy: Policy, key: Key, ladder: Ladder, unit: UnitSample) -> Ladder:
        facts = UnitFacts(unit, self.trails.get(unit.unit.name), self.now)
        verdicts = [judge(step.when, facts) for step in policy.steps]
        if policy.clear is None:
            is_clear = all(verdict.truth is False for verdict in verdicts)
        else:
            is_clear = judge(policy.clear, facts).truth is True
        if is_clear:
            self._end_episode(key, ladder)
            return Ladder(ladder.invocation, (StepState(),) * len(policy.steps))
        states = []
        since = ladder.episode_since
        for index, (step, before, verdict) in enumerate(
            zip(policy.steps, ladder.steps, verdicts, strict=True)
        ):
            after, is_due = _advance(step, before, verdict, self.now)
            if is_due and ladder.invocation not in self.ending:
                decision = self._decide(policy, index, unit, ladder.invocation, after, verdict)
                obstacle = None if decision.refusal is None else decision.refusal.obstacle
                if obstacle in (None, Obstacle.PROTECTED):
                    since = self.now if since is None else since
                    after = StepState(Phase.FIRED, after.since, self.now)
                    self._fire(key, decision)
                else:
                    if before.withheld is None or before.withheld.obstacle is not obstacle:
                        self.decisions.append(decision)
                    after = replace(after, withheld=decision.refusal)
            states.append(after)
        return Ladder(ladder.invocation, tuple(states), since)

    def _decide(
        self,
        policy: Policy,
        index: int,
        unit: UnitSample,
        invocation: Invocation,
        state: StepState,
        verdict: Verdict,
    ) -> Decision:
        step = policy.steps[index]
        return Decision(
            at=self.now,
            policy=policy.name,
            step=index,
            action=step.action,
            invocation=invocation,
            held=self.now - (self.now if state.since is None else state.since),
            hold=step.hold,
            findings=verdict.findings,
            observe=policy.mode is Mode.OBSERVE,
            refusal=self._refusal(policy, step.action, unit),
            victim=_victim(step.action, unit, verdict),
        )

    def _refusal(self, policy: Policy, action: Action, unit: UnitSample) -> Refusal | None:
        """What is in the way of `action` now, what withholds whole episodes first."""
        key = policy.name, unit.unit.name
        logs = isinstance(action, Log)
        # before protection: a refusal fires, and so would begin an episode within the cooldown.
        # What is left of a cooldown can't concern an open episode: it ended the one before
        if (until := self.cooling.get(key)) is not None:
            left = format_span(until - self.now)
            return Refusal(Obstacle.COOLING_DOWN, f"it is cooling down for another {left}", until)
        if not logs and unit.protected is not None and unit.unit.name not in policy.unprotect:
            return Refusal(Obstacle.PROTECTED, unit.protected)
        if logs:
            return None
        if policy.budget is not None:
            times = self.spent.get(key, ())
            if budget_left(policy.budget, times, self.now) == 0:
                return self._spent(Obstacle.OUT_OF_BUDGET, policy.budget, times, "its budget")
        if self.budget is not None:
            times = self.spent_in_all.get(policy.mode, ())
            if budget_left(self.budget, times, self.now) == 0:
                return self._spent(Obstacle.OUT_OF_FILE_BUDGET, self.budget, times, "the file's budget")
        return None

    def _spent(self, obstacle: Obstacle, budget: Budget, times: Sequence[float], whose: str) -> Refusal:
        until = sorted(times)[-budget.actions] + budget.per
        left = format_span(until - self.now)
        return Refusal(obstacle, f"{whose} of {budget} is spent for another {left}", until)

    def _fire(self, key: Key, decision: Decision) -> None:
        self.decisions.append(decision)
        if decision.refusal is not None or isinstance(decision.action, Log):
            return
        mode = Mode.OBSERVE if decision.observe else Mode.ACT
        self.spent[key] = (*self.spent.get(key, ()), self.now)
        self.spent_in_all[mode] = (*self.spent_in_all.get(mode, ()), self.now)
        if decision.acts and ends_the_unit(decision.action):
            self.ending |= {decision.invocation}

    def _end_episode(self, key: Key, ladder: Ladder) -> None:
        cooldown = self.cooldowns.get(key[0], 0.0)
        if ladder.episode_since is not None and cooldown > 0:
            self.cooling[key] = self.now + cooldown

    def _within(self, budget: Budget | None, times: tuple[float, ...]) -> tuple[float, ...]:
        return () if budget is None else tuple(at for at in times if at > self.now - budget.per)


def _advance(step: Step, before: StepState, verdict: Verdict, now: float) -> tuple[StepState, bool]:
    """The step's state after `verdict`, and whether it is due to fire."""
    if verdict.truth is not True:
        # a fired step stays fired to the episode's end; its own clock starts over
        phase = Phase.FIRED if before.phase is Phase.FIRED else Phase.IDLE
        unknown = {name: why for finding in verdict.findings for name, why in finding.unknown.items()}
        unknown = unknown if verdict.truth is None else {}
        after = StepState(phase, fired_at=before.fired_at, not_before=before.not_before, unknown=unknown)
        return after, False
    since = now if before.since is None else before.since
    is_due = now - since >= step.hold and (before.not_before is None or now >= before.not_before)
    if before.phase is Phase.FIRED:
        is_again = step.repeat is not None and (
            before.fired_at is None or now - before.fired_at >= step.repeat
        )
        return replace(before, since=since, withheld=None, unknown={}), is_due and is_again
    return StepState(Phase.HOLDING, since, before.fired_at, before.not_before), is_due


def _given_back(spent: Mapping[_T, tuple[float, ...]], key: _T, at: float) -> Mapping[_T, tuple[float, ...]]:
    times = list(spent.get(key, ()))
    if at in times:
        times.remove(at)
    return {**spent, key: tuple(times)} if times else {other: spent[other] for other in spent if other != key}


def _unjudged(step: StepState) -> StepState:
    """`step` after a time in which nobody looked: it has fired if it had, and nothing is known to hold."""
    phase = Phase.FIRED if step.phase is Phase.FIRED else Phase.IDLE
    return replace(step, phase=phase, since=None, withheld=None, unknown={})


def _victim(action: Action, unit: UnitSample, verdict: Verdict) -> Process | None:
    """The largest process by the measure that breached; None where the action or the findings name none."""
    if not isinstance(action, Signal) or action.to is not Target.LARGEST:
        return None
    for finding in verdict.findings:
        name = finding.comparison.measure
        if MEASURES[name].scope in (Scope.LARGEST, Scope.PROCESSES):
            return unit.largest(name.removeprefix("process."))
    return None
