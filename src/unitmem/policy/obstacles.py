"""What is in the way of an action that is due, within one tick: cooldowns, protection, refusals and budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from unitmem.measure.sample import UnitSample
from unitmem.policy.action import Action
from unitmem.policy.decision import Decision, Obstacle, Refusal
from unitmem.policy.model import Budget, Mode, Policy
from unitmem.policy.state import LadderKey, Refused, State, actions_spent, budget_left, cools_until
from unitmem.text import format_span
from unitmem.unit import Invocation


class Obstacles:
    """The obstacles at one tick, which what is decided in it adds to."""

    def __init__(self, state: State, budget: Budget | None, now: float) -> None:
        self.now = now
        self.budget = budget
        self.cooling = {key: until for key, until in state.cooling.items() if until > now}
        self.spent = dict(state.spent)
        self.spent_in_all = dict(state.spent_in_all)
        self.refused: dict[tuple[Invocation, str], Refused] = dict(state.refused)

    def is_news(self, decision: Decision, reported: Obstacle | None) -> bool:
        """Return whether a withheld `decision` is to be told, given the obstacle that was last told of its step."""
        obstacle = None if decision.refusal is None else decision.refusal.obstacle
        if obstacle is not Obstacle.REFUSED_BY_MANAGER:
            return reported is not obstacle
        key, step = (decision.invocation, str(decision.action)), (decision.policy, decision.step)
        refused = self.refused[key]
        self.refused[key] = replace(refused, reported=refused.reported | {step})
        return step not in refused.reported

    def refusal(self, policy: Policy, action: Action, unit: UnitSample) -> Refusal | None:
        """Return the obstacle to `action` on `unit`; a cooldown, which withholds whole episodes, comes first."""
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
        if unit.invocation is not None and (refused := self.refused.get((unit.invocation, str(action)))):
            return Refusal(Obstacle.REFUSED_BY_MANAGER, refused.reason)
        if policy.budget is not None:
            times = actions_spent(self.spent, policy, unit.name)
            kept = policy.kept_from(action)
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

    def spend(self, key: LadderKey, mode: Mode) -> None:
        """Count an action of that policy and unit."""
        self.spent[key] = (*self.spent.get(key, ()), self.now)
        self.spent_in_all[mode] = (*self.spent_in_all.get(mode, ()), self.now)

    def cool(self, key: LadderKey, cooldown: float) -> None:
        """Begin a cooldown of that policy and unit; a longer one goes on."""
        if cooldown > 0:
            self.cooling[key] = max(self.now + cooldown, self.cooling.get(key, self.now))
