"""The status document: what a running watch saw at its last tick, as `unitmem status` shows it.

It is made when somebody asks for it. Spans are in seconds before or after the time of the document, `at`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy.model import Budget, Policy, PolicyFile, Step, step_number
from unitmem.policy.state import (
    Ladder,
    Phase,
    State,
    cooldown_left,
    cooling_absent,
    file_budget_left,
    step_state,
    unit_budget_left,
)


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """The status of the watch itself, besides the engine's state."""

    instance: str
    path: str
    interval: float
    is_manager_reachable: bool
    under_way: Mapping[tuple[str, str, int], str]
    """Actions whose outcome is not seen yet, by policy, unit and step."""
    overrides: Sequence[str]
    """Properties that are to be set back."""
    nearest: tuple[str, float] | None = None
    """The unit that is nearest to a threshold, and the seconds between two looks at it; None if none is near to one."""


def status_document(
    file: PolicyFile, sample: Sample, state: State, status: WatchStatus, realtime: float
) -> dict[str, Any]:
    """Return the status document.

    Args:
        file: the policies in force.
        sample: what was read at this tick; its time is the `now` of all spans.
        state: the engine's state.
        status: the watch itself.
        realtime: the wall clock at that tick, in seconds.
    """
    now = sample.at
    return {
        "version": 1,
        "instance": status.instance,
        "file": status.path,
        "pid": os.getpid(),
        "at": realtime,
        "interval": status.interval,
        "manager_reachable": status.is_manager_reachable,
        "budget": _budget(file.budget, file_budget_left(file, state, now)),
        "to_set_back": list(status.overrides),
        "nearest": None
        if status.nearest is None
        else dict(zip(("unit", "every"), status.nearest, strict=True)),
        "unread": len(sample.unread),
        "policies": [{"policy": policy.name, "mode": policy.mode} for policy in file.policies],
        "units": [
            _unit(policy, sample, unit, state, status)
            for policy in file.policies
            for unit in sample.units.values()
            if policy.governs(unit.unit)
        ],
        "cooling": [
            {"policy": policy, "unit": unit, "left": left}
            for (policy, unit), left in cooling_absent(state, sample.units, now)
        ],
    }


def _unit(
    policy: Policy, sample: Sample, unit: UnitSample, state: State, status: WatchStatus
) -> dict[str, Any]:
    name, now = unit.name, sample.at
    key = policy.name, name
    ladder = state.ladders.get(key)
    wanted = sorted(policy.named)
    return {
        "unit": name,
        "policy": policy.name,
        "mode": policy.mode,
        "invocation_id": unit.unit.invocation_id,
        "protected": unit.protected,
        "unprotected": policy.unprotects(unit.unit),
        "values": {measure: sample.value(unit, measure) for measure in wanted},
        "at_most": {measure: unit.at_most[measure] for measure in wanted if measure in unit.at_most},
        "fill_set_by": sample.fill_set_by(unit),
        "unknown": {
            measure: reason for measure in wanted if (reason := sample.why_unknown(unit, measure)) is not None
        },
        "episode_since": None
        if ladder is None or ladder.episode_since is None
        else now - ladder.episode_since,
        "clear": None if policy.clear is None else str(policy.clear),
        "cooldown_left": cooldown_left(state, key, now),
        "budget": _budget(policy.budget, unit_budget_left(policy, state, name, now)),
        "reserved_for": None if policy.reserved_for is None else policy.reserved_for.name,
        "steps": [
            _step(index, step, ladder, now) | {"under_way": status.under_way.get((*key, index))}
            for index, step in enumerate(policy.steps)
        ],
    }


def _step(index: int, step: Step, ladder: Ladder | None, now: float) -> dict[str, Any]:
    state = step_state(ladder, index)
    held = state.held
    timers = [] if held is None else [step.hold - held]
    if state.not_before is not None:
        timers.append(state.not_before - now)
    if state.phase is Phase.FIRED:
        timers = []
        if step.repeat is not None and held is not None and state.fired_at is not None:
            timers = [step.repeat - (now - state.fired_at), step.hold - held]
    return {
        "step": step_number(index),
        "when": str(step.when),
        "for": step.hold,
        "action": str(step.action),
        "pick": None if step.pick is None else str(step.pick),
        "phase": state.phase,
        "held": held,
        "left": max(0.0, *timers) if timers else None,
        "fired_ago": None if state.fired_at is None else now - state.fired_at,
        "withheld": None if state.withheld is None else state.withheld.reason,
        "unknown": dict(state.unknown),
    }


def _budget(budget: Budget | None, left: int | None) -> dict[str, Any] | None:
    return None if budget is None else {"actions": budget.actions, "per": budget.per, "left": left}
