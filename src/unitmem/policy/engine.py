"""When a policy fires: `evaluate(policies, sample, state, now) -> (state, decisions)`, pure and total.

Each unit that a policy governs has a ladder of its own, for one invocation. On every tick each step
is in one of three phases:

    IDLE      its condition does not hold, or is not known to
    HOLDING   it has held at every look, and the step has not fired in this episode
    FIRED     its decision was made in this episode

    IDLE -- holds --> HOLDING -- for its `for` --> FIRED -- episode ends --> IDLE
                         |                           |
                         +-- no longer --> IDLE      +-- `repeat` later, still holding: fires again

Only time in which somebody looked counts for `for`: a look credits the time since the last one, at most two intervals.
So a watch that is late fires late, and two looks never suffice for a `for` that is longer than the interval. After a
gap longer than each of `for`, a minute and two intervals, the credit starts over.

The episode begins with the first step that fires. It ends when `clear` holds (without one: when no
step's condition holds), or with the invocation: another run of the unit has a new ladder. An invocation that is
unseen, as the manager doesn't answer or its cgroup can't be opened, may go on, and so does its episode. What is
unknown neither fires a step, nor ends an episode, nor counts as held. While `clear` holds, no step does.

A step that is due may be withheld by an obstacle: its phase stays, and a decision with a refusal is made once
for each obstacle:

    cooling down    no episode begins within `cooldown` of the last one's end
    refused by the manager
                    the manager refuses that action for good to this invocation; a decision is made once for each step
    out of budget   `actions` were decided within `per`: the policy's for this unit, or the file's for all. Of two or
                    more, a policy keeps its last one for its harshest step

Cooldowns and budgets belong to the unit's name, and outlive its runs. A step that would touch a
protected unit fires with a refusal instead of an action. Logging is no action: it costs no budget and
protection does not forbid it.

Once an action is decided that ends the unit, nothing more is judged or decided for that invocation. If an
action fails, `conclude` puts its step back to a phase from which it can fire again after a pause, unless the manager
refuses that action for good: then that withholds it from every step for this invocation.

For the runs after one that a policy has decided to end, it doesn't count the OOM kills of earlier runs any longer: one
kill must not end one run after another.

No clock, no files, no bus: time is an argument, and performing a decision is another module's job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from unitmem.kernel.process import Process
from unitmem.measure.catalogue import COSTLY_NAMES, OOM_KILLS, OPERANDS, Scope
from unitmem.measure.sample import NO_HOST, HostSample, Sample, UnitSample
from unitmem.policy.action import Action
from unitmem.policy.actions import Signal, Target
from unitmem.policy.condition import Verdict, comparisons, judge
from unitmem.policy.decision import Decision, Obstacle, Refusal
from unitmem.policy.model import DEFAULT_INTERVAL, Budget, Mode, Policy, PolicyFile, Step
from unitmem.policy.state import (
    Ladder,
    LadderKey,
    Phase,
    State,
    StepState,
    budget_left,
    cools_until,
    counted,
    unjudged,
)
from unitmem.policy.trends import UnitFacts, extend, extend_levels
from unitmem.text import format_span
from unitmem.unit import Invocation

_LONGEST_GAP = 60.0
"""Seconds without a look after which the credit of a shorter `for` starts over."""

INTERVALS_CREDITED = 2
"""The most intervals with which one look credits a `for`."""


def evaluate(
    policies: PolicyFile | Sequence[Policy],
    sample: Sample,
    state: State,
    now: float,
    budget: Budget | None = None,
    interval: float | None = None,
) -> tuple[State, tuple[Decision, ...]]:
    """Return the state for the next tick, and the decisions about `sample`.

    Args:
        policies: in the order of their file, which is the order of their decisions. The budget of a `PolicyFile`
            is used unless `budget` is given.
        sample: every governed unit that has a cgroup; the episode of one that is missing ends, unless it is
            unseen. One that is unread keeps its ladders.
        state: what the last call returned; `State()` at first.
        now: seconds of a monotonic clock, never less than at the last call.
        budget: for all policies and units together.
        interval: seconds between two looks: one credits a step's `for` with at most two intervals. Unless given, that
            of a `PolicyFile`, or else the default of policy files (2 s).
    """
    if isinstance(policies, PolicyFile):
        budget = policies.budget if budget is None else budget
        interval = policies.interval if interval is None else interval
        policies = policies.policies
    tick = _Tick(policies, sample, state, now, budget, DEFAULT_INTERVAL if interval is None else interval)
    for policy in policies:
        for unit in sample.units.values():
            if unit.invocation is not None and policy.governs(unit.unit):
                tick.advance_ladder(policy, unit, unit.invocation)
    tick.end_missing()
    return tick.state(), tuple(tick.decisions)


def is_undecided(
    policies: Sequence[Policy], unit: UnitSample, state: State, now: float, host: HostSample = NO_HOST
) -> bool:
    """Return whether a condition that bounds leave open depends on a costly measure (PSS, USS, SwapPss)."""
    for policy in policies:
        if not policy.governs(unit.unit):
            continue
        facts = facts_about(unit, policy, state, now, host)
        for condition in policy.conditions:
            if any(
                comparison.function is not None and comparison.followed in COSTLY_NAMES
                for comparison in comparisons(condition)
            ):
                return True  # a slope needs every point
            verdict = judge(condition, facts)
            if verdict.truth is None and any(
                name in COSTLY_NAMES for finding in verdict.findings for name in finding.unknown
            ):
                return True
    return False


def facts_about(
    unit: UnitSample, policy: Policy, watched: State | _Tick, now: float, host: HostSample
) -> UnitFacts:
    """Return the facts by which the conditions of `policy` are judged of `unit`, given what was watched so far."""
    relevant = _without_answered(policy, unit, watched.last_ended)
    return UnitFacts(relevant, watched.trends.get(unit.name), now, host, watched.levels)


# --- one tick ----------------------------------------------------------------------------------


class _Tick:
    """One call of `evaluate`: the state before it, and the state that it builds."""

    def __init__(
        self,
        policies: Sequence[Policy],
        sample: Sample,
        state: State,
        now: float,
        budget: Budget | None,
        interval: float,
    ) -> None:
        self.now = now
        self.interval = interval
        self.sample = sample
        self.budget = budget
        self.before = state
        self.decisions: list[Decision] = []
        present = {unit.invocation for unit in sample.units.values() if unit.invocation is not None}
        self.ending = frozenset(
            run for run in state.ending if run in present or self.sample.is_unseen(run.unit)
        )
        self.refused = {
            key: refused
            for key, refused in state.refused.items()
            if key[0] in present or self.sample.is_unseen(key[0].unit)
        }
        self.ladders: dict[LadderKey, Ladder] = {}
        self.cooling = {key: until for key, until in state.cooling.items() if until > now}
        self.spent = dict(state.spent)
        self.spent_in_all = dict(state.spent_in_all)
        # until it is gone: a kill while it is being ended is no reason to end the next run
        self.last_ended = {
            key: (run, now if run in state.ending else at) for key, (run, at) in state.last_ended.items()
        }
        self.policies = policies
        self.budgets = {policy.name: policy.budget for policy in policies}
        self.cooldowns = {policy.name: policy.cooldown for policy in policies}
        self.trends = {}
        wanted = {}
        for name, unit in sample.units.items():
            if name in sample.unread:  # no condition about it is over a span of time
                continue
            wanted[name] = [
                comparison
                for policy in policies
                if policy.governs(unit.unit)
                for condition in policy.conditions
                for comparison in comparisons(condition)
            ]
            if (trend := extend(state.trends.get(name), unit, wanted[name], now)) is not None:
                self.trends[name] = trend
        self.levels = extend_levels(state.levels, sample, wanted, now)

    def state(self) -> State:
        spent = {key: counted(self.budgets.get(key[0]), times, self.now) for key, times in self.spent.items()}
        in_all = {mode: counted(self.budget, times, self.now) for mode, times in self.spent_in_all.items()}
        spans = {policy.name: _kill_span(policy) for policy in self.policies} if self.last_ended else {}
        last_ended = {
            key: (run, at)
            for key, (run, at) in self.last_ended.items()
            if at > self.now - spans.get(key[0], 0.0)
        }
        return State(
            self.ladders,
            self.cooling,
            {key: times for key, times in spent.items() if times},
            {mode: times for mode, times in in_all.items() if times},
            self.trends,
            self.ending,
            self.levels,
            refused=self.refused,
            last_ended=last_ended,
        )

    def advance_ladder(self, policy: Policy, unit: UnitSample, invocation: Invocation) -> None:
        """Advance one policy's ladder for one invocation: its phases, and the decisions of steps that are due."""
        key = policy.name, invocation.unit
        ladder = self.before.ladders.get(key)
        if ladder is None or ladder.invocation != invocation:
            if ladder is not None:
                self._end_episode(key, ladder)
            ladder = Ladder(invocation, (StepState(),) * len(policy.steps))
        # one that another policy ends in this very tick is still judged: that may fail at once
        if invocation not in self.before.ending and unit.name not in self.sample.unread:
            ladder = self._judge(policy, key, ladder, unit)
        self.ladders[key] = ladder

    def end_missing(self) -> None:
        """End the episodes of units that are missing in the sample; keep those of unseen units, with timers reset."""
        for key, ladder in self.before.ladders.items():
            if key in self.ladders:
                continue
            if self.sample.is_unseen(key[1]):
                self.ladders[key] = replace(ladder, steps=tuple(map(unjudged, ladder.steps)))
            else:
                self._end_episode(key, ladder)

    def _judge(self, policy: Policy, key: LadderKey, ladder: Ladder, unit: UnitSample) -> Ladder:
        facts = facts_about(unit, policy, self, self.now, self.sample.host)
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
            after, is_due = _advance(step, before, verdict, self.now, self.interval)
            if is_due and ladder.invocation not in self.ending:
                decision = self._decide(policy, index, unit, ladder.invocation, after, verdict)
                obstacle = None if decision.refusal is None else decision.refusal.obstacle
                if obstacle in (None, Obstacle.PROTECTED):
                    since = self.now if since is None else since
                    after = StepState(Phase.FIRED, after.held, after.looked_at, self.now)
                    self._fire(key, decision)
                else:
                    if self._is_news(decision, obstacle, before.withheld):
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
            held=state.held or 0.0,
            hold=step.hold,
            findings=verdict.findings,
            observe=policy.mode is Mode.OBSERVE,
            refusal=self._refusal(policy, step.action, unit, invocation),
            victim=_victim(step.action, unit, verdict),
        )

    def _is_news(self, decision: Decision, obstacle: Obstacle, withheld: Refusal | None) -> bool:
        if obstacle is not Obstacle.REFUSED_BY_MANAGER:
            return withheld is None or withheld.obstacle is not obstacle
        key, step = (decision.invocation, str(decision.action)), (decision.policy, decision.step)
        refused = self.refused[key]
        self.refused[key] = replace(refused, reported=refused.reported | {step})
        return step not in refused.reported

    def _refusal(
        self, policy: Policy, action: Action, unit: UnitSample, invocation: Invocation
    ) -> Refusal | None:
        """Return the obstacle to `action`, if there is one; a cooldown, which withholds whole episodes, comes first."""
        key = policy.name, unit.unit.name
        logs = not action.acts
        # before protection: a refusal fires, and so would begin an episode within the cooldown.
        # What is left of a cooldown can't concern an open episode: it ended the one before
        if (until := cools_until(self.cooling, key)) is not None:
            left = format_span(until - self.now)
            return Refusal(Obstacle.COOLING_DOWN, f"it is cooling down for another {left}", until)
        if not logs and unit.protected is not None and not policy.unprotects(unit.unit):
            return Refusal(Obstacle.PROTECTED, unit.protected)
        if logs:
            return None
        if (refused := self.refused.get((invocation, str(action)))) is not None:
            return Refusal(Obstacle.REFUSED_BY_MANAGER, refused.reason)
        if policy.budget is not None:
            times, kept = self.spent.get(key, ()), policy.kept_from(action)
            if budget_left(policy.budget, times, self.now) <= (kept is not None):
                return self._spent(Obstacle.OUT_OF_BUDGET, policy.budget, times, "its budget", kept)
        if self.budget is not None:
            times = self.spent_in_all.get(policy.mode, ())
            if budget_left(self.budget, times, self.now) == 0:
                return self._spent(Obstacle.OUT_OF_FILE_BUDGET, self.budget, times, "the file's budget")
        return None

    def _spent(
        self,
        obstacle: Obstacle,
        budget: Budget,
        times: Sequence[float],
        whose: str,
        kept: Action | None = None,
    ) -> Refusal:
        until = sorted(times)[-budget.actions + (kept is not None)] + budget.per
        left = format_span(until - self.now)
        but = "" if kept is None else f", except the last action, which is kept for `{kept.name}`"
        return Refusal(obstacle, f"{whose} of {budget} is spent for another {left}{but}", until)

    def _fire(self, key: LadderKey, decision: Decision) -> None:
        self.decisions.append(decision)
        if decision.refusal is not None or not decision.action.acts:
            return
        mode = Mode.OBSERVE if decision.observe else Mode.ACT
        self.spent[key] = (*self.spent.get(key, ()), self.now)
        self.spent_in_all[mode] = (*self.spent_in_all.get(mode, ()), self.now)
        if decision.action.ends_the_unit:
            self.last_ended[key] = (decision.invocation, self.now)
            if decision.acts:
                self.ending |= {decision.invocation}

    def _end_episode(self, key: LadderKey, ladder: Ladder) -> None:
        cooldown = self.cooldowns.get(key[0], 0.0)
        if ladder.episode_since is not None and cooldown > 0:
            self.cooling[key] = max(self.now + cooldown, self.cooling.get(key, self.now))


def _advance(
    step: Step, before: StepState, verdict: Verdict, now: float, interval: float
) -> tuple[StepState, bool]:
    """Return the step's state after `verdict`, and whether it is due to fire."""
    if verdict.truth is not True:
        # a fired step stays fired to the episode's end; its own clock starts over
        phase = Phase.FIRED if before.phase is Phase.FIRED else Phase.IDLE
        unknown = {name: why for finding in verdict.findings for name, why in finding.unknown.items()}
        unknown = unknown if verdict.truth is None else {}
        after = StepState(phase, fired_at=before.fired_at, not_before=before.not_before, unknown=unknown)
        return after, False
    held = _credited(step, before, now, interval)
    # two looks, however far apart, may have met a spike each: it takes a third one, unless `for` asks for two
    is_proven = step.hold <= interval or bool(before.held)
    is_due = held >= step.hold and is_proven and (before.not_before is None or now >= before.not_before)
    if before.phase is Phase.FIRED:
        is_again = step.repeat is not None and (
            before.fired_at is None or now - before.fired_at >= step.repeat
        )
        return replace(before, held=held, looked_at=now, withheld=None, unknown={}), is_due and is_again
    return StepState(Phase.HOLDING, held, now, before.fired_at, before.not_before), is_due


def _credited(step: Step, before: StepState, now: float, interval: float) -> float:
    """Return the seconds credited to a condition that holds now: only time in which somebody looked counts."""
    if before.held is None or before.looked_at is None:
        return 0.0
    most = INTERVALS_CREDITED * interval
    gap = now - before.looked_at
    return 0.0 if gap > max(step.hold, _LONGEST_GAP, most) else before.held + min(gap, most)


def _kill_span(policy: Policy) -> float:
    """Return the longest span within which a condition of `policy` counts OOM kills; 0 if none does."""
    terms = [term for condition in policy.conditions for term in comparisons(condition)]
    return max((term.span or 0.0 for term in terms if term.measure == OOM_KILLS), default=0.0)


def _without_answered(
    policy: Policy, unit: UnitSample, last_ended: Mapping[LadderKey, tuple[Invocation, float]]
) -> UnitSample:
    """Return `unit` without the OOM kills of earlier runs that `policy` has answered by ending another run since."""
    run, at = last_ended.get((policy.name, unit.name), (unit.invocation, 0.0))
    if run == unit.invocation:  # its action may have failed, and is tried again for the same kills
        return unit
    return replace(unit, oom_ends=tuple(end for end in unit.oom_ends if end > at))


def _victim(action: Action, unit: UnitSample, verdict: Verdict) -> Process | None:
    """Return the largest process by the measure that breached, for a `signal` to the largest; None otherwise."""
    if not isinstance(action, Signal) or action.to is not Target.LARGEST:
        return None
    for finding in verdict.findings:
        name = finding.comparison.measure
        if OPERANDS[name].scope in (Scope.LARGEST, Scope.PROCESSES):
            return unit.largest(name.removeprefix("process."))
    return None
