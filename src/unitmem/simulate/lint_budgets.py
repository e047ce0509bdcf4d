"""Warnings about budgets that a ladder spends too early, and about restarts that exceed a unit's start limit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from enum import StrEnum

from unitmem.errors import Problem
from unitmem.measure.catalogue import OOM_KILLS
from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy.actions import Restart
from unitmem.policy.condition import Comparison, comparisons
from unitmem.policy.model import Budget, Policy, Step
from unitmem.policyfile.reader import Checked
from unitmem.simulate.thresholds import without_not
from unitmem.text import plural
from unitmem.unit import StartLimit


class BudgetCode(StrEnum):
    """The code of a warning that is found here."""

    SMALL_BUDGET = "small-budget"
    """A budget of one action for several steps that act."""
    START_LIMIT = "start-limit"
    """More restarts than a unit's start limit allows."""


def doubts_about_budgets(
    checked: Checked, machine: Sample | None, start_limits: Mapping[str, StartLimit]
) -> Iterator[Problem]:
    """Yield the warnings about a policy file, with the arguments of `lint.review`."""
    for index, policy in enumerate(checked.file.policies):
        yield from _small_budgets(checked, policy, index)
        limits = {
            name: limit
            for name, limit in start_limits.items()
            if machine is not None and name in machine.units and _may_restart(policy, machine.units[name])
        }
        for number, step in enumerate(policy.steps):
            if isinstance(step.action, Restart):
                place = checked.place("policies", index, "steps", number, "do")
                yield from _exceeded_limits(policy, step, checked.file.budget, limits, place)


def _may_restart(policy: Policy, sample: UnitSample) -> bool:
    return policy.governs(sample.unit) and (sample.protected is None or policy.unprotects(sample.unit))


def repeating_kills(policy: Policy, step: Step, of_file: Budget | None) -> Iterator[Comparison]:
    """Yield each count of OOM kills for which `step` restarts the runs that begin after them, as often as they come."""
    if not isinstance(step.action, Restart) or policy.budget is not None or of_file is not None:
        return
    for term in comparisons(without_not(step.when)):
        if (
            term.measure == OOM_KILLS
            and term.operator.startswith(">")
            and (term.span or 0.0) > policy.cooldown
        ):
            yield term


def _small_budgets(checked: Checked, policy: Policy, index: int) -> Iterator[Problem]:
    """Yield a warning for each budget of one action, from which nothing can be kept for the harshest step."""
    acting = sum(step.action.acts for step in policy.steps)
    for whose, budget, keys in (
        ("the budget", policy.budget, ("policies", index, "budget")),
        ("the file's budget", checked.file.budget, ("budget",)),
    ):
        if budget is not None and budget.actions == 1 and acting > 1:
            line, column = checked.place(*keys)
            yield Problem(
                line,
                column,
                f"the first step of {policy.name} that acts spends {whose} of {budget}, which leaves none for the "
                "others: allow 2 actions or more; a policy keeps its last one for its harshest step",
                BudgetCode.SMALL_BUDGET,
            )


def _exceeded_limits(
    policy: Policy,
    step: Step,
    of_file: Budget | None,
    limits: Mapping[str, StartLimit],
    place: tuple[int, int],
) -> Iterator[Problem]:
    """Yield a warning about the first unit that `step` may restart more often than its start limit allows."""
    for name, limit in sorted(limits.items()):
        pause = policy.cooldown + step.hold + (0.0 if step.pick is None else step.pick.settle)
        most = [
            *([int(limit.interval // pause)] if pause else []),
            *(
                budget.actions * math.ceil(limit.interval / budget.per)
                for budget in (policy.budget, of_file)
                if budget is not None
            ),
        ]
        # as many restarts are one start more than the limit, with that of the run that is restarted first
        if most and min(most) >= limit.burst:
            yield Problem(
                *place,
                f"{plural(min(most), 'restart')} of {name} may exceed its start limit ({limit}), and then it stays "
                "down until `systemctl reset-failed`: give the policy a longer `cooldown`, or raise the limit",
                BudgetCode.START_LIMIT,
            )
            return
