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
gap longer than each of `for`, a minute and two intervals, the credit starts over. Without `for` one look suffices,
unless the condition holds by no more than what memory.stat may lag behind memory.current: then the next has to agree.

The episode begins with the first step that fires. It ends when `clear` holds (without one: when no
step's condition holds), or with the invocation: another run of the unit has a new ladder. An invocation that is
unseen, as the manager doesn't answer or its cgroup can't be opened, may go on, and so does its episode. What is
unknown neither fires a step, nor ends an episode, nor counts as held. While `clear` holds, no step does.

A step that has a `pick` fires for one of the units for which it is due at a time: the one that ranks first among those
that may be acted on. They are those that share a level, the slice or machine that the condition is about; if it is about
nothing else, they share the credit for `for` as well. What comes of the action decides what follows: see `groups`.

A step that is due may be withheld by an obstacle: its phase stays, and a decision with a refusal is made once
for each obstacle:

    cooling down    no episode begins within `cooldown` of the last one's end
    refused by the manager
                    the manager refuses that action for good to this invocation; a decision is made once for each step
    out of budget   `actions` were decided within `per`: the policy's for this unit, or the file's for all; the policy's
                    for all its units if a step of it picks. Of two or more, a policy keeps its last one for its
                    harshest step
    not picked      another unit was picked. That is no decision of its own; as under the other obstacles where a step
                    picks, it is made only about the unit that ranks first

Cooldowns and budgets belong to the unit's name, and outlive its runs. A step that would touch a
protected unit fires with a refusal instead of an action. Logging is no action: it costs no budget and
protection does not forbid it.

Once an action is decided that ends the unit, nothing more is judged or decided for that invocation. If an
action fails, `conclude` puts its step back to a phase from which it can fire again after a pause, unless the manager
refuses that action for good: then that withholds it from every step for this invocation.

For the runs after one that a policy has decided to end, it doesn't count the OOM kills of earlier runs any longer: one
kill must not end one run after another.

A unit about which all is as it was, and of which no step holds, has fired or waits, is at rest: it isn't judged again
before the truth of a condition can change, see `rest`.

No clock, no files, no bus: time is an argument, and performing a decision is another module's job.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from unitmem.kernel.process import Process
from unitmem.measure.catalogue import OPERANDS, Scope
from unitmem.measure.sample import HostSample, Sample, UnitSample
from unitmem.policy.action import Action
from unitmem.policy.actions import Signal, Target
from unitmem.policy.condition import Verdict, truth_of
from unitmem.policy.decision import Decision, Obstacle, Refusal
from unitmem.policy.groups import Group, GroupKey, level_of
from unitmem.policy.model import DEFAULT_INTERVAL, Budget, Mode, Pick, Policy, PolicyFile
from unitmem.policy.obstacles import Obstacles
from unitmem.policy.picking import Candidate, StepGroups, chosen, not_picked
from unitmem.policy.rest import at_rest, rest_of
from unitmem.policy.state import (
    IDLE,
    Ladder,
    LadderKey,
    Phase,
    Rest,
    Resting,
    State,
    StepState,
    counted,
    unjudged,
)
from unitmem.policy.timers import advance
from unitmem.policy.trends import UnitFacts, extend, extend_levels, without_answered
from unitmem.policy.verdicts import is_close, rank_of, verdict_on
from unitmem.unit import Invocation


def evaluate(
    policies: PolicyFile | Sequence[Policy],
    sample: Sample,
    state: State,
    now: float,
    budget: Budget | None = None,
    interval: float | None = None,
    judged: MutableMapping[LadderKey, Sequence[Verdict]] | None = None,
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
        judged: the verdicts on the steps of each policy for each unit are added to it; not those of units that were at
            rest, which are the same as at the last tick.
    """
    if isinstance(policies, PolicyFile):
        budget = policies.budget if budget is None else budget
        interval = policies.interval if interval is None else interval
        policies = policies.policies
    tick = _Tick(policies, sample, state, now, budget, DEFAULT_INTERVAL if interval is None else interval)
    for policy in policies:
        tick.advance_ladders(policy)
    tick.end_missing()
    if judged is not None:
        judged.update(tick.judged)
    return tick.state(), tuple(tick.decisions)


def facts_about(
    unit: UnitSample, policy: Policy, watched: State | _Tick, now: float, host: HostSample
) -> UnitFacts:
    """Return the facts by which the conditions of `policy` are judged of `unit`, given what was watched so far."""
    relevant = without_answered(unit, watched.last_ended.get((policy.name, unit.name)))
    return UnitFacts(relevant, watched.trends.get(unit.name), now, host, watched.levels)


@dataclass(slots=True)
class _Judged:
    """One policy's ladder for one invocation, judged at this tick, as its steps are advanced."""

    key: LadderKey
    invocation: Invocation
    unit: UnitSample
    facts: UnitFacts
    verdicts: Sequence[Verdict]
    states: list[StepState]
    since: float | None


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
        self.judged: dict[LadderKey, Sequence[Verdict]] = {}
        self.ending = frozenset(filter(self._may_run, state.ending))
        self.obstacles = Obstacles(state, budget, now)
        self.resting = at_rest(state, policies, sample, now)
        self.ladders = {key: ladder for rest in self.resting.values() for key, ladder in rest.ladders}
        self.groups: dict[GroupKey, Group] = {}
        self.picked: set[tuple[str, int]] = set()
        """The steps that pick whose `groups` are those after this tick."""
        # until it is gone: a kill while it is being ended is no reason to end the next run
        self.last_ended = {
            key: (run, now if run in state.ending else at) for key, (run, at) in state.last_ended.items()
        }
        self.policies = policies
        self.budgets = {policy.name: policy.budget for policy in policies}
        self.cooldowns = {policy.name: policy.cooldown for policy in policies}
        self.trends = {name: trend for name in self.resting if (trend := state.trends.get(name)) is not None}
        self.governing: dict[str, list[Policy]] = {}
        self.governed: dict[str, list[UnitSample]] = {policy.name: [] for policy in policies}
        wanted = {}
        for name, unit in sample.units.items():
            if name in self.resting:
                continue
            governing = self.governing[name] = [policy for policy in policies if policy.governs(unit.unit)]
            for policy in governing:
                self.governed[policy.name].append(unit)
            if name in sample.unread:  # no condition about it is over a span of time
                continue
            wanted[name] = [term for policy in governing for term in policy.over_a_span]
            if (trend := extend(state.trends.get(name), unit, wanted[name], now)) is not None:
                self.trends[name] = trend
        self.levels = extend_levels(state.levels, sample, wanted, now)

    @cached_property
    def present(self) -> frozenset[Invocation]:
        units = self.sample.units.values()
        return frozenset(unit.invocation for unit in units if unit.invocation is not None)

    def state(self) -> State:
        spent = {
            key: counted(self.budgets.get(key[0]), times, self.now)
            for key, times in self.obstacles.spent.items()
        }
        in_all = {
            mode: counted(self.budget, times, self.now) for mode, times in self.obstacles.spent_in_all.items()
        }
        spans = {policy.name: policy.kill_span for policy in self.policies} if self.last_ended else {}
        last_ended = {
            key: (run, at)
            for key, (run, at) in self.last_ended.items()
            if at > self.now - spans.get(key[0], 0.0)
        }
        return State(
            self.ladders,
            self.obstacles.cooling,
            {key: times for key, times in spent.items() if times},
            {mode: times for mode, times in in_all.items() if times},
            self.trends,
            self.ending,
            self.levels,
            refused={
                key: refused for key, refused in self.obstacles.refused.items() if self._may_run(key[0])
            },
            last_ended=last_ended,
            groups=self.groups,
            resting=Resting(
                self.resting | self._come_to_rest(), tuple(self.policies), self.sample.host, self.ladders
            ),
        )

    def _come_to_rest(self) -> dict[str, Rest]:
        """Return the units that were judged at this tick and need not be at the next one, if they are the same."""
        found = {}
        for name, governing in self.governing.items():
            unit = self.sample.units[name]
            keys = [(policy.name, name) for policy in governing]
            verdicts = [self.judged.get(key) for key in keys]
            is_idle = not any(each is None or any(one.truth for one in each) for each in verdicts)
            if is_idle and unit.invocation not in (None, *self.ending):
                ladders = tuple((key, self.ladders[key]) for key in keys if key not in self.last_ended)
                rest = rest_of(unit, governing, ladders, self.trends.get(name), self.now)
                if rest is not None:
                    found[name] = rest
        return found

    def advance_ladders(self, policy: Policy) -> None:
        """Advance the ladders of all units that `policy` governs: phases, and the decisions of steps that are due."""
        judged = [
            each
            for unit in self.governed[policy.name]
            if unit.invocation is not None
            if (each := self._judge(policy, unit, unit.invocation)) is not None
        ]
        if policy.picks:  # step by step, as such a step looks at all units
            for index, step in enumerate(policy.steps):
                if step.pick is not None:
                    self._advance_picking(policy, index, step.pick, judged)
                    continue
                for each in judged:
                    self._advance(policy, index, each)
        else:
            for each in judged:
                for index in range(len(policy.steps)):
                    self._advance(policy, index, each)
        for each in judged:
            self.ladders[each.key] = Ladder(each.invocation, tuple(each.states), each.since)

    def end_missing(self) -> None:
        """End the episodes of units that are missing in the sample; keep those of unseen units, with timers reset."""
        for key in sorted(self.before.ladders.keys() - self.ladders.keys()):
            ladder = self.before.ladders[key]
            if self.sample.is_unseen(key[1]):
                self.ladders[key] = replace(ladder, steps=tuple(map(unjudged, ladder.steps)))
            else:
                self._end_episode(key, ladder)

    def _judge(self, policy: Policy, unit: UnitSample, invocation: Invocation) -> _Judged | None:
        """Return the ladder of one invocation, judged; None if no step can fire: it is being ended, or `clear` holds."""
        key = policy.name, invocation.unit
        ladder = self.before.ladders.get(key)
        if ladder is None or ladder.invocation != invocation:
            if ladder is not None:
                self._end_episode(key, ladder)
            ladder = _idle(policy, invocation)
        # one that another policy ends in this very tick is still judged: that may fail at once
        if invocation in self.before.ending or unit.name in self.sample.unread:
            self.ladders[key] = ladder
            return None
        facts = facts_about(unit, policy, self, self.now, self.sample.host)
        verdicts = self.judged[key] = [
            verdict_on(step, before, facts) for step, before in zip(policy.steps, ladder.steps, strict=True)
        ]
        if policy.clear is None:
            is_clear = all(verdict.truth is False for verdict in verdicts)
        else:
            is_clear = truth_of(policy.clear, facts) is True
        if is_clear:
            self._end_episode(key, ladder)
            is_idle = ladder.episode_since is None and all(step is IDLE for step in ladder.steps)
            self.ladders[key] = ladder if is_idle else _idle(policy, invocation)
            return None
        return _Judged(key, invocation, unit, facts, verdicts, list(ladder.steps), ladder.episode_since)

    def _advance(self, policy: Policy, index: int, each: _Judged) -> None:
        """Advance a step of one ladder, and fire it if it is due."""
        before = each.states[index]
        after, is_due = advance(policy.steps[index], before, each.verdicts[index], self.now, self.interval)
        each.states[index] = after
        if not is_due or each.invocation in self.ending:
            return
        refusal = self.obstacles.refusal(policy, policy.steps[index].action, each.unit)
        decision = self._decide(policy, index, each, refusal)
        if refusal is None or refusal.obstacle is Obstacle.PROTECTED:
            self._fire(each, decision)
        else:
            self._withhold(each, decision, before.reported)

    def _advance_picking(self, policy: Policy, index: int, pick: Pick, judged: Sequence[_Judged]) -> None:
        """Advance a step of all ladders, and fire it for one of those of each group for which it is due."""
        step = policy.steps[index]
        before = {
            key[2]: group for key, group in self.before.groups.items() if key[:2] == (policy.name, index)
        }
        elsewhere = {
            key: group
            for key, group in self.before.groups.items()
            if key[:2] not in self.picked and key[:2] != (policy.name, index)
        }
        groups = StepGroups(step, before, elsewhere | self.groups, self.present, self.now)
        reported = [each.states[index].reported for each in judged]
        candidates = []
        for position, each in enumerate(judged):
            verdict, state = each.verdicts[index], each.states[index]
            level = level_of(verdict, each.unit) if verdict.truth else None
            if level is not None:
                state = groups.before(state, level)
                if verdict.is_close != is_close(step, state, each.facts):  # a look before doesn't count
                    verdict = replace(verdict, is_close=not verdict.is_close)
            after, is_due = advance(step, state, verdict, self.now, self.interval)
            each.states[index] = after
            if level is None:
                continue
            groups.look(level, after)
            if (settling := groups.settling(level)) is not None:
                if after.phase is Phase.FIRED:
                    continue
                withheld = not_picked(settling, settles=True)
                each.states[index] = replace(after, withheld=withheld, reported=reported[position])
            elif is_due and each.invocation not in self.ending:
                rank, unknown = rank_of(pick, each.facts)
                if rank is None:
                    each.states[index] = replace(after, unknown=unknown)
                else:
                    candidates.append(Candidate(each.unit, level, rank, position))
        holding = [each.unit for each in judged if each.verdicts[index].truth]
        holding += [self.sample.units[run.unit] for run in self.ending & self.present]
        for choice in chosen(
            pick, candidates, holding, groups, partial(self.obstacles.refusal, policy, step.action)
        ):
            each = judged[choice.candidate.position]
            decision = replace(self._decide(policy, index, each, choice.refusal), ranking=choice.ranking)
            if choice.refusal is None:
                groups.take(choice.candidate.level, decision, pick.settle)
                self._fire(each, decision)
            else:
                self._withhold(each, decision, reported[choice.candidate.position], is_first=choice.is_first)
        self.groups |= groups.after(policy.name, index)
        self.picked.add((policy.name, index))

    def _decide(self, policy: Policy, index: int, each: _Judged, refusal: Refusal | None) -> Decision:
        step, verdict = policy.steps[index], each.verdicts[index]
        return Decision(
            at=self.now,
            policy=policy.name,
            step=index,
            action=step.action,
            invocation=each.invocation,
            held=each.states[index].held or 0.0,
            hold=step.hold,
            findings=verdict.findings,
            observe=policy.mode is Mode.OBSERVE,
            refusal=refusal,
            victim=_victim(step.action, each.unit, verdict),
            content=each.unit.unit.content,
        )

    def _fire(self, each: _Judged, decision: Decision) -> None:
        each.since = self.now if each.since is None else each.since
        state = each.states[decision.step]
        each.states[decision.step] = StepState(Phase.FIRED, state.held, state.looked_at, self.now)
        self.decisions.append(decision)
        if decision.refusal is not None or not decision.action.acts:
            return
        self.obstacles.spend(each.key, Mode.OBSERVE if decision.observe else Mode.ACT)
        if decision.action.ends_the_unit:
            self.last_ended[each.key] = (decision.invocation, self.now)
            if decision.acts:
                self.ending |= {decision.invocation}

    def _withhold(
        self, each: _Judged, decision: Decision, reported: Obstacle | None, *, is_first: bool = True
    ) -> None:
        if is_first and self.obstacles.is_news(decision, reported):
            self.decisions.append(decision)
        if is_first and decision.refusal is not None:
            reported = decision.refusal.obstacle
        state = each.states[decision.step]
        each.states[decision.step] = replace(state, withheld=decision.refusal, reported=reported)

    def _end_episode(self, key: LadderKey, ladder: Ladder) -> None:
        if ladder.episode_since is not None:
            self.obstacles.cool(key, self.cooldowns.get(key[0], 0.0))

    def _may_run(self, invocation: Invocation) -> bool:
        return invocation in self.present or self.sample.is_unseen(invocation.unit)


def _idle(policy: Policy, invocation: Invocation) -> Ladder:
    return Ladder(invocation, (IDLE,) * len(policy.steps))


def _victim(action: Action, unit: UnitSample, verdict: Verdict) -> Process | None:
    """Return the largest process by the measure that breached, for a `signal` to the largest; None otherwise."""
    if not isinstance(action, Signal) or action.to is not Target.LARGEST:
        return None
    for finding in verdict.findings:
        name = finding.comparison.measure
        # without its value not all of them are known
        if name in unit.values and OPERANDS[name].scope in (Scope.LARGEST, Scope.PROCESSES):
            return unit.largest(name.removeprefix("process."))
    return None
