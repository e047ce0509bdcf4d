"""The units among which a step picks one at a time: those that share a level.

A step that has a `pick` acts on one unit of a group, and its outcome decides what comes next:

    verified, or observed    after `settle`, the `for` of all starts over
    failed                   the next one, at once, and this one after all others; so does an outcome that is overdue
    gone                     the `for` of all starts over
    not tried                none until the manager answers again, then as before: what was in the way is not about it
    not known                none until it is overdue
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import inf

from unitmem.kernel.limits import HOST_LEVEL
from unitmem.measure.catalogue import OPERANDS, Scope
from unitmem.measure.sample import UnitSample
from unitmem.policy.action import Action
from unitmem.policy.actions import END_WAIT, Restart, Stop
from unitmem.policy.condition import (
    FILL,
    UNKNOWN_LEVEL,
    Comparison,
    Condition,
    Derivation,
    Finding,
    Verdict,
    comparisons,
)
from unitmem.policy.decision import Decision, Outcome, Result
from unitmem.unit import Invocation, is_within, slice_path

GRACE = 10.0
"""Seconds after the timeouts of an action until an outcome that hasn't come counts as failed."""


@dataclass(frozen=True, slots=True)
class Picked:
    """The unit of a group that was picked last."""

    invocation: Invocation
    at: float
    """The time of the decision."""
    settle: float
    """Seconds of the step's `settle`."""
    due_by: float | None
    """The time by which its outcome is expected: None once that is known, infinite until the manager answers again."""


@dataclass(frozen=True, slots=True)
class Group:
    """One step's pick among the units that share a level."""

    held: float | None = None
    """Seconds credited to a condition about the level alone, for all of its units; None while it doesn't hold."""
    looked_at: float | None = None
    """The time of the last look at which it held."""
    picked: Picked | None = None
    counts_from: float | None = None
    """Looks up to that time don't count for `for`, and the step doesn't fire before."""
    failed: frozenset[Invocation] = frozenset()
    """Those whose action has failed since the last one that worked: they come last."""

    @property
    def awaited(self) -> Invocation | None:
        """The invocation that was picked, while its outcome isn't known."""
        return None if self.picked is None or self.picked.due_by is None else self.picked.invocation


GroupKey = tuple[str, int, str]
"""The name of a policy, the index of a step, and a level: the path of a cgroup, or `HOST_LEVEL`."""
Groups = Mapping[GroupKey, Group]


def is_about_levels(condition: Condition) -> bool:
    """Return whether `condition` is about levels alone, so that it is true of all units that share one."""
    return all(map(_is_about_level, comparisons(condition)))


def level_of(verdict: Verdict, unit: UnitSample) -> str:
    """Return the outermost level that a true `verdict` is about; that of the machine where it is about the unit alone.

    The machine also stands for a level that isn't known, as more units share that one.
    """
    levels = [
        _level(finding, unit) for finding in verdict.findings if _is_about_level(finding.comparison)
    ] or [HOST_LEVEL]
    return HOST_LEVEL if HOST_LEVEL in levels else min(levels, key=len)


def overlap(level: str, other: str) -> bool:
    """Return whether a unit may be at both levels."""
    return HOST_LEVEL in (level, other) or is_within(level, other) or is_within(other, level)


def taken(group: Group, decision: Decision, settle: float) -> Group:
    """Return `group` after the decision to act on one of it; to observe has its outcome at once."""
    if decision.observe:
        picked = Picked(decision.invocation, decision.at, settle, None)
        return Group(picked=picked, counts_from=decision.at + settle)
    due_by = decision.at + longest(decision.action) + GRACE
    return replace(group, picked=Picked(decision.invocation, decision.at, settle, due_by))


def concluded(groups: Groups, outcome: Outcome, now: float) -> Groups:
    """Return `groups` after `outcome`, if one of them waits for it."""
    decision = outcome.decision
    for key, group in groups.items():
        picked = group.picked
        if key[:2] != (decision.policy, decision.step) or picked is None or picked.due_by is None:
            continue
        if (picked.invocation, picked.at) == (decision.invocation, decision.at):
            return {**groups, key: _after(group, picked, outcome, now)}
    return groups


def released(groups: Groups, decision: Decision) -> Groups:
    """Return `groups` as if the unit of `decision` had not been picked, as nothing was requested."""
    return {
        key: replace(group, picked=None)
        if key[:2] == (decision.policy, decision.step)
        and group.picked is not None
        and (group.picked.invocation, group.picked.at) == (decision.invocation, decision.at)
        else group
        for key, group in groups.items()
    }


def retried(groups: Groups) -> Groups:
    """Return `groups` as the manager answers again: what could not be tried is picked anew."""
    return {
        key: replace(group, picked=None) if group.picked is not None and group.picked.due_by == inf else group
        for key, group in groups.items()
    }


def overdue(group: Group, present: Collection[Invocation], now: float) -> Group:
    """Return `group` without an outcome that has not come in time; what is not `present` any longer counts as gone."""
    picked = group.picked
    if picked is None or picked.due_by is None or now < picked.due_by:
        return group
    known = replace(picked, due_by=None)
    return Group(picked=known, counts_from=now) if picked.invocation not in present else _failed(group, known)


def unlooked(groups: Groups) -> Groups:
    """Return `groups` after a time in which nobody looked: the time held starts over."""
    return {key: replace(group, held=None, looked_at=None) for key, group in groups.items()}


def _after(group: Group, picked: Picked, outcome: Outcome, now: float) -> Group:
    known = replace(picked, due_by=None)
    match outcome.result:
        case Result.VERIFIED | Result.OBSERVED:
            return Group(picked=known, counts_from=now + picked.settle)
        case Result.GONE:
            return Group(picked=known, counts_from=now)
        case _ if outcome.untried and outcome.again:
            return replace(group, picked=replace(picked, due_by=inf))
        case _ if outcome.is_unknown:
            return group
        case _:
            return _failed(group, known)


def _failed(group: Group, picked: Picked) -> Group:
    return replace(group, picked=picked, failed=group.failed | {picked.invocation})


def _is_about_level(term: Comparison) -> bool:
    is_of_levels = term.derivation is Derivation.ETA or term.measure == FILL
    return is_of_levels or OPERANDS[term.measure].scope in (Scope.HOST, Scope.SLICE)


def _level(finding: Finding, unit: UnitSample) -> str:
    match OPERANDS[finding.comparison.measure].scope:
        case Scope.SLICE:
            return slice_path(unit.unit.control_group or "/") or HOST_LEVEL
        case Scope.UNIT if finding.truth and unit.levels:  # of `fill` and `eta`; its own has no name there
            return HOST_LEVEL if finding.level == UNKNOWN_LEVEL else finding.level or unit.levels[0].path
        case _:
            return HOST_LEVEL


def longest(action: Action) -> float:
    """Return the most seconds from the decision to the outcome: those of the timeout, and of the last resort."""
    timeout: float = getattr(action, "timeout", END_WAIT)
    if getattr(action, "otherwise", None) is None:
        return timeout
    if isinstance(action, Stop | Restart):
        # one that could not be asked for is, as late as at the end of its timeout, and has that anew
        return 2 * timeout + (timeout if isinstance(action, Restart) else END_WAIT)
    return timeout + END_WAIT
