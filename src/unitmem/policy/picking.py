"""Picking one of the units for which a step is due: the order of the candidates, and what each group waits for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from unitmem.kernel.oom_preference import OomPreference
from unitmem.measure.sample import UnitSample
from unitmem.policy.decision import Decision, Obstacle, Ranking, Refusal
from unitmem.policy.groups import Group, GroupKey, group_after, is_about_levels, overdue, overlap
from unitmem.policy.model import Pick, Step
from unitmem.policy.state import StepState
from unitmem.unit import Invocation, is_within, matches

_BUDGETS = (Obstacle.OUT_OF_BUDGET, Obstacle.OUT_OF_FILE_BUDGET)
_OMITTED = Refusal(Obstacle.NOT_PICKED, "it is not picked: its ManagedOOMPreference= is omit")
_AROUND = Refusal(Obstacle.NOT_PICKED, "it is not picked: the condition holds for a unit within it, too")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A unit for which a step is due that picks one."""

    unit: UnitSample
    level: str
    value: float
    """That of the measure by which the step ranks units."""
    position: int
    """The place of the unit in the sample, among those that the policy governs."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is to become of one candidate."""

    candidate: Candidate
    refusal: Refusal | None
    """Why it is not picked; None if it is."""
    is_first: bool = False
    """Whether it comes first in its group, so that it is told why it is not picked."""
    ranking: Ranking | None = None
    """The candidates of its group, if it is picked."""


def chosen(
    pick: Pick,
    candidates: Iterable[Candidate],
    holding: Sequence[UnitSample],
    groups: StepGroups,
    refusal_of: Callable[[UnitSample], Refusal | None],
) -> Iterator[Chosen]:
    """Yield what is to become of each candidate, in the order in which they are picked.

    Args:
        pick: the step's.
        candidates: the units for which it is due.
        holding: the units for which its condition holds, or which are being ended: of nested ones, the innermost is picked.
        groups: the groups of the step; the caller takes one for each unit that is picked, before it goes on.
        refusal_of: the obstacle to the step's action on a unit.
    """

    def obstacle(unit: UnitSample) -> Refusal | None:
        if _is_around(unit, holding):
            return _AROUND
        return _OMITTED if unit.oom_preference is OomPreference.OMIT else refusal_of(unit)

    places = ranked(pick, candidates)
    seen: list[str] = []
    for place, candidate in enumerate(places):
        level, refusal, taken = candidate.level, obstacle(candidate.unit), groups.taken(candidate.level)
        if refusal is None and taken in (None, candidate.unit.invocation):
            others = [
                each for each in places[place:] if overlap(each.level, level) and obstacle(each.unit) is None
            ]
            yield Chosen(candidate, None, ranking=_ranking(pick, others))
            continue
        # a budget that it has spent is in nobody's way
        if taken is not None and (refusal is None or refusal.obstacle in _BUDGETS):
            refusal = not_picked(taken)
        is_first = taken is None and refusal is not _AROUND and not any(overlap(level, at) for at in seen)
        if is_first:
            seen.append(level)
        yield Chosen(candidate, refusal, is_first)


def ranked(pick: Pick, candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return `candidates` in the order in which they are picked; of equal ones as they were given."""

    def is_avoided(unit: UnitSample) -> bool:
        by_pattern = any(matches(name, pick.avoid) for name in unit.unit.names)
        return by_pattern or unit.oom_preference is OomPreference.AVOID

    return sorted(candidates, key=lambda each: (is_avoided(each.unit), -each.value))


def not_picked(other: Invocation, *, settles: bool = False) -> Refusal:
    """Return the obstacle to all others while `other` is picked, or what was done to it settles."""
    was = "was, and the effect settles first" if settles else "is"
    return Refusal(Obstacle.NOT_PICKED, f"it is not picked: {other.unit} {was}")


def _ranking(pick: Pick, candidates: Iterable[Candidate]) -> Ranking:
    values = tuple((each.unit.name, each.value) for each in candidates)
    return Ranking(pick.by.subject, pick.by.dimension, values)


def _is_around(unit: UnitSample, others: Iterable[UnitSample]) -> bool:
    own = _path(unit)
    paths = (_path(other) for other in others)
    return own is not None and any(path != own and is_within(path, own) for path in paths if path)


def _path(unit: UnitSample) -> str | None:
    return unit.levels[0].path if unit.levels else unit.unit.control_group


class StepGroups:
    """The groups of one step during one tick, by level."""

    def __init__(
        self, step: Step, groups: Mapping[str, Group], present: Collection[Invocation], now: float
    ) -> None:
        self._now = now
        self._before = {level: overdue(group, present, now) for level, group in groups.items()}
        self._is_shared = is_about_levels(step.when)
        self._looks: dict[str, StepState] = {}
        self._after = {
            level: replace(group, held=None, looked_at=None)
            for level, group in self._before.items()
            if group.awaited is not None or (group.counts_from or -inf) > now
        }
        self._taken = {level: run for level, group in self._after.items() if (run := group.awaited)}

    def before(self, state: StepState, level: str) -> StepState:
        """Return the state of a unit's step before this look: with the time that counts for its group."""
        own = self._before.get(level, Group())
        if own.held is not None and own.held >= (state.held or 0.0):
            state = replace(state, held=own.held, looked_at=own.looked_at)
        since = [group.counts_from for group in self._overlapping(self._before, level)]
        if any(at is not None and (state.looked_at or 0.0) <= at for at in since):
            return replace(state, held=None, looked_at=None)
        return state

    def look(self, level: str, state: StepState) -> None:
        """Note that the condition holds for a unit at `level`, whose step has this state now."""
        last = self._looks.get(level)
        if self._is_shared and (last is None or (last.held or 0.0) < (state.held or 0.0)):
            self._looks[level] = state

    def settling(self, level: str) -> Invocation | None:
        """Return the invocation that was picked before, whose effect settles; None if the step may fire at `level`."""
        for group in self._overlapping(self._after, level):
            if group.picked is not None and group.awaited is None:
                return group.picked.invocation
        return None

    def taken(self, level: str) -> Invocation | None:
        """Return the invocation that is picked at `level`, if its outcome isn't known or it was in this tick."""
        return next((run for other, run in self._taken.items() if overlap(level, other)), None)

    def take(self, level: str, decision: Decision, settle: float) -> None:
        """Note that the unit of `decision` is picked."""
        self._taken[level] = decision.invocation
        self._after[level] = group_after(decision, settle)

    def after(self, policy: str, step: int) -> dict[GroupKey, Group]:
        """Return the groups for the next tick."""
        groups = dict(self._after)
        for level, state in self._looks.items():
            groups[level] = replace(groups.get(level, Group()), held=state.held, looked_at=state.looked_at)
        return {(policy, step, level): group for level, group in groups.items()}

    @staticmethod
    def _overlapping(groups: Mapping[str, Group], level: str) -> list[Group]:
        return [group for other, group in groups.items() if overlap(level, other)]
