"""Picking one of the units for which a step is due: the order of the candidates, and what each group waits for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from unitmem.kernel.oom_preference import OomPreference
from unitmem.measure.sample import UnitSample
from unitmem.policy.decision import Decision, Obstacle, Ranking, Refusal
from unitmem.policy.groups import Group, GroupKey, is_about_levels, overdue, overlap, taken
from unitmem.policy.model import Pick, Step
from unitmem.policy.state import StepState
from unitmem.unit import Invocation, matches

_MOST_RANKED = 10
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
        holding: the units for which its condition holds, or which are being ended: one around these is not picked.
        groups: the groups of the step; the caller takes one for each unit that is picked, before it goes on.
        refusal_of: the obstacle to the step's action on a unit.
    """
    outer = {path for unit in holding for path in _paths_around(unit)}

    def obstacle(unit: UnitSample) -> Refusal | None:
        if _path(unit) in outer:
            return _AROUND
        return _OMITTED if unit.oom_preference is OomPreference.OMIT else refusal_of(unit)

    places = sorted(ranked(pick, candidates), key=groups.has_failed)
    seen: list[str] = []
    for place, candidate in enumerate(places):
        level, refusal, busy = candidate.level, obstacle(candidate.unit), groups.busy(candidate.level)
        if refusal is None and busy in (None, candidate.unit.invocation):
            others = [
                each for each in places[place:] if overlap(each.level, level) and obstacle(each.unit) is None
            ]
            yield Chosen(candidate, None, ranking=_ranking(pick, others))
            continue
        # a budget that it has spent is in nobody's way
        if busy is not None and (refusal is None or refusal.obstacle in _BUDGETS):
            refusal = not_picked(busy)
        is_first = busy is None and refusal is not _AROUND and not any(overlap(level, at) for at in seen)
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


def _ranking(pick: Pick, candidates: Sequence[Candidate]) -> Ranking:
    first = tuple((each.unit.name, each.value) for each in candidates[:_MOST_RANKED])
    return Ranking(pick.by.subject, pick.by.dimension, len(candidates), first)


def _paths_around(unit: UnitSample) -> Iterator[str]:
    """Yield the path of each cgroup around that of `unit`."""
    parts = [part for part in (_path(unit) or "").split("/") if part]
    for count in range(len(parts)):
        yield "/" + "/".join(parts[:count])


def _path(unit: UnitSample) -> str | None:
    return unit.levels[0].path if unit.levels else unit.unit.control_group


class StepGroups:
    """The groups of one step during one tick, by level.

    Args:
        step: a step that picks.
        groups: its groups after the last tick.
        elsewhere: the groups of all other steps that pick: no unit is picked at a level where one of them waits for an
            outcome.
        present: the invocations in the sample.
        now: the time of the sample.
    """

    def __init__(
        self,
        step: Step,
        groups: Mapping[str, Group],
        elsewhere: Mapping[GroupKey, Group],
        present: Collection[Invocation],
        now: float,
    ) -> None:
        self._now = now
        self._before = {level: overdue(group, present, now) for level, group in groups.items()}
        self._is_shared = is_about_levels(step.when)
        self._looks: dict[str, StepState] = {}
        """By level, that of the unit for which the condition has held longest."""
        self._after = {
            level: replace(group, held=None, looked_at=None) for level, group in self._before.items()
        }
        levels = [*self._after.items(), *((key[2], group) for key, group in elsewhere.items())]
        self._busy = [(level, run) for level, group in levels if (run := group.awaited)]

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
        if last is None or (last.held or 0.0) < (state.held or 0.0):
            self._looks[level] = state

    def settling(self, level: str) -> Invocation | None:
        """Return the invocation that was picked before, whose effect settles; None if the step may fire at `level`."""
        for group in self._overlapping(self._after, level):
            if group.picked is not None and group.awaited is None and self._settles(group):
                return group.picked.invocation
        return None

    def busy(self, level: str) -> Invocation | None:
        """Return the invocation that is picked at `level`, if its outcome isn't known or it was in this tick."""
        return next((run for other, run in self._busy if overlap(level, other)), None)

    def take(self, level: str, decision: Decision, settle: float) -> None:
        """Note that the unit of `decision` is picked."""
        self._busy.append((level, decision.invocation))
        self._after[level] = taken(self._after.get(level, Group()), decision, settle)

    def has_failed(self, candidate: Candidate) -> bool:
        """Return whether the action on `candidate` has failed since the last one that worked."""
        groups = self._overlapping(self._after, candidate.level)
        return any(candidate.unit.invocation in group.failed for group in groups)

    def after(self, policy: str, step: int) -> dict[GroupKey, Group]:
        """Return the groups for the next tick."""
        groups = {
            level: group
            for level, group in self._after.items()
            if group.awaited is not None or self._settles(group) or (group.failed and level in self._looks)
        }
        for level, state in self._looks.items() if self._is_shared else ():
            groups[level] = replace(groups.get(level, Group()), held=state.held, looked_at=state.looked_at)
        return {(policy, step, level): group for level, group in groups.items()}

    def _settles(self, group: Group) -> bool:
        return group.counts_from is not None and group.counts_from > self._now

    @staticmethod
    def _overlapping(groups: Mapping[str, Group], level: str) -> list[Group]:
        return [group for other, group in groups.items() if overlap(level, other)]
