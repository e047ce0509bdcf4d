"""What a running watch sees, as a JSON document that it writes at each tick and `unitmem status` shows.

The file stands in the daemon's runtime directory, on a tmpfs: to write it costs no disk, and to read it
costs the daemon nothing. Spans are in seconds from the moment of the document, `at`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy.condition import measures_of
from unitmem.policy.model import Budget, Mode, Policy, PolicyFile, Step
from unitmem.policy.state import Ladder, Phase, State, StepState, budget_left, cools_until

FILE_NAME = "status.json"


@dataclass(frozen=True, slots=True)
class Watched:
    """What the daemon knows besides the engine's state."""

    instance: str
    path: str
    interval: float
    is_manager_reachable: bool
    under_way: Mapping[tuple[str, str, int], str]
    """Actions whose outcome is not seen yet, by policy, unit and step."""
    overrides: Sequence[str]
    """Properties that are to be set back."""


def status_document(
    file: PolicyFile, sample: Sample, state: State, watched: Watched, realtime: float
) -> dict[str, Any]:
    """All of it, as JSON takes it.

    Args:
        file: the policies in force.
        sample: what was read at this tick; its time is the `now` of all spans.
        state: what the engine remembers.
        watched: the rest.
        realtime: the wall clock, in seconds.
    """
    now = sample.at
    return {
        "version": 1,
        "instance": watched.instance,
        "file": watched.path,
        "pid": os.getpid(),
        "at": realtime,
        "interval": watched.interval,
        "manager_reachable": watched.is_manager_reachable,
        "budget": _file_budget(file.budget, state, now),
        "to_set_back": list(watched.overrides),
        "policies": [{"policy": policy.name, "mode": policy.mode} for policy in file.policies],
        "units": [
            _unit(policy, unit, state, watched, now)
            for policy in file.policies
            for name, unit in sample.units.items()
            if policy.governs(name)
        ],
        "cooling": [
            {"policy": policy, "unit": unit, "left": until - now}
            for (policy, unit), until in sorted(state.cooling.items())
            if until > now and unit not in sample.units
        ],
    }


def read_statuses(root: Path, instance: str | None = None) -> Iterator[dict[str, Any]]:
    """The document of every watch that runs, or of the one called `instance`, by name.

    One that can't be read says nothing.
    """
    pattern = f"{instance or '*'}/{FILE_NAME}"
    for path in sorted(root.glob(pattern)):
        try:
            document = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue  # it has just ended, or is no file of ours
        if isinstance(document, dict):
            yield document


def _unit(policy: Policy, unit: UnitSample, state: State, watched: Watched, now: float) -> dict[str, Any]:
    name = unit.unit.name
    key = policy.name, name
    ladder = state.ladders.get(key)
    wanted = sorted({measure for condition in policy.conditions for measure in measures_of(condition)})
    until = cools_until(state.cooling, key)
    return {
        "unit": name,
        "policy": policy.name,
        "mode": policy.mode,
        "invocation_id": unit.unit.invocation_id,
        "protected": unit.protected,
        "unprotected": name in policy.unprotect,
        "values": {measure: unit.values.get(measure) for measure in wanted},
        "at_most": {measure: unit.at_most[measure] for measure in wanted if measure in unit.at_most},
        "unknown": {measure: unit.unknown[measure] for measure in wanted if measure in unit.unknown},
        "episode_since": None
        if ladder is None or ladder.episode_since is None
        else now - ladder.episode_since,
        "clear": None if policy.clear is None else str(policy.clear),
        "cooldown_left": None if until is None or until <= now else until - now,
        "budget": None if policy.budget is None else _budget(policy.budget, state.spent.get(key, ()), now),
        "steps": [
            _step(index, step, ladder, now) | {"under_way": watched.under_way.get((*key, index))}
            for index, step in enumerate(policy.steps)
        ],
    }


def _step(index: int, step: Step, ladder: Ladder | None, now: float) -> dict[str, Any]:
    state = StepState() if ladder is None or index >= len(ladder.steps) else ladder.steps[index]
    held = None if state.since is None else now - state.since
    timers = [] if held is None else [step.hold - held]
    if state.not_before is not None:
        timers.append(state.not_before - now)
    if state.phase is Phase.FIRED:
        timers = []
        if step.repeat is not None and held is not None and state.fired_at is not None:
            timers = [step.repeat - (now - state.fired_at), step.hold - held]
    return {
        "step": index + 1,
        "when": str(step.when),
        "for": step.hold,
        "action": str(step.action),
        "phase": state.phase,
        "held": held,
        "left": max(0.0, *timers) if timers else None,
        "fired_ago": None if state.fired_at is None else now - state.fired_at,
        "withheld": None if state.withheld is None else state.withheld.reason,
        "unknown": dict(state.unknown),
    }


def _budget(budget: Budget, spent: Sequence[float], now: float) -> dict[str, Any]:
    return {"actions": budget.actions, "per": budget.per, "left": budget_left(budget, spent, now)}


def _file_budget(budget: Budget | None, state: State, now: float) -> dict[str, Any] | None:
    return None if budget is None else _budget(budget, state.spent_in_all.get(Mode.ACT, ()), now)
