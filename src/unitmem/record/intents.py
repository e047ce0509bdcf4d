"""Intents as JSON: decisions from before they are performed until their outcome is reported.

A document is read as what it says or not at all: what is not a number, can't be true, or is unknown to this version
is refused, so that nothing is done because of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from signal import Signals
from typing import Any

from unitmem.kernel.process import Process
from unitmem.measure.catalogue import OPERANDS, Dimension
from unitmem.policy.action import Action
from unitmem.policy.actions import ACTIONS, END_WAIT, LastResort, Target
from unitmem.policy.condition import Comparison, Derivation, Finding
from unitmem.policy.decision import (
    ActionProgress,
    Decision,
    DecisionKey,
    Intent,
    Obstacle,
    Outcome,
    Ranking,
    Refusal,
    Result,
)
from unitmem.record.invocations import invocation_document, parse_invocation
from unitmem.record.numbers import count, finite, text

_LONGEST = 10 * 365.25 * 86400
"""The longest span, in seconds, that is taken for one."""


def intent_document(intent: Intent) -> dict[str, Any]:
    """Return `intent` as a JSON document; `parse_intent` is the inverse, but for the sizes of processes."""
    decision = intent.decision
    refusal, victim, ranking = decision.refusal, decision.victim, decision.ranking
    return {
        "policy": decision.policy,
        **invocation_document(decision.invocation),
        "description": decision.content,
        "step": decision.step,
        "at": decision.at,
        "realtime": intent.realtime,
        "held": decision.held,
        "hold": decision.hold,
        "observe": decision.observe,
        "action": _action_document(decision.action),
        "findings": [_finding_document(finding) for finding in decision.findings],
        "refusal": None if refusal is None else [refusal.obstacle, refusal.reason, refusal.until],
        "victim": None if victim is None else _process_document(victim),
        "ranking": None if ranking is None else [ranking.by, ranking.dimension, ranking.of, *ranking.first],
        **changes_document(
            {name: getattr(intent, name) for name in ("begun", "logged", "progress", "outcome")}
        ),
    }


def changes_document(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return some fields of an intent, by name, as they are in its document."""
    return {name: _change_document(value) for name, value in changes.items()}


def key_of(document: Mapping[str, Any]) -> DecisionKey:
    """Return the key of an intent by its document.

    Raises:
        ValueError, KeyError, TypeError: it has none.
    """
    return text(document["policy"]), text(document["unit"]), count(document["step"]), _time(document["at"])


def parse_intent(document: Mapping[str, Any], now: float, shift: float = 0.0) -> Intent:
    """Return the intent in `document`.

    Args:
        document: as `intent_document` has made it.
        now: seconds of the monotonic clock.
        shift: seconds to add to every time in it to convert it to that clock.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is none, or it can't be true.
    """
    policy, _, step, at = key_of(document)
    at += shift
    if at > now:
        raise ValueError(f"decided in {at - now:g} seconds")
    refusal, victim, ranking = document["refusal"], document["victim"], document["ranking"]
    decision = Decision(
        at=at,
        policy=policy,
        step=step,
        action=_action(document["action"]),
        invocation=parse_invocation(document),
        held=_span(document["held"]),
        hold=_span(document["hold"]),
        findings=tuple(map(_finding, document["findings"])),
        observe=_flag(document["observe"]),
        refusal=None if refusal is None else _refusal(refusal, shift),
        victim=None if victim is None else _process(victim),
        ranking=None if ranking is None else _ranking(ranking),
        content=text(document.get("description", "")),  # not in those of older versions
    )
    intent = Intent(
        decision,
        _time(document["realtime"]),
        begun=_flag(document["begun"]),
        logged=_flag(document["logged"]),
    )
    if (progress := document["progress"]) is not None:
        intent = replace(intent, progress=_progress(progress, decision.action, now, shift))
    if (outcome := document["outcome"]) is not None:
        intent = replace(intent, outcome=_outcome(outcome, decision, shift))
    return intent


def end_by_reboot(document: Mapping[str, Any]) -> None:
    """Give each intent in a state's `document` from an earlier boot its outcome: its run is over with the machine's."""
    found = document.get("under_way")
    for entry in found if isinstance(found, list) else []:
        if isinstance(entry, dict) and entry.get("outcome") is None:
            why = "the machine was restarted before it was seen to work"
            entry["outcome"] = [Result.GONE, why, entry.get("at"), False, False, None]


# --- its parts as JSON ---


def _change_document(value: Any) -> Any:
    match value:
        case ActionProgress():
            processes = [_process_document(process) for process in value.processes]
            return [value.deadline, value.killed, value.refusal, processes, value.unasked, value.sent]
        case Outcome():
            process = None if value.process is None else _process_document(value.process)
            return [value.result, value.detail, value.at, value.again, value.untried, process]
        case _:
            return value


def _action_document(action: Action) -> dict[str, Any]:
    plain = {field.name: getattr(action, field.name) for field in fields(action)}  # type: ignore[arg-type] # a dataclass
    return {
        "keyword": action.keyword,
        **{name: value.name if isinstance(value, Signals) else value for name, value in plain.items()},
    }


def _finding_document(finding: Finding) -> dict[str, Any]:
    comparison = finding.comparison
    return {
        **{field.name: getattr(comparison, field.name) for field in fields(comparison)},
        "truth": finding.truth,
        "value": finding.value,
        "against": finding.threshold,
        "unknown": dict(finding.unknown),
        "level": finding.level,
    }


def _process_document(process: Process) -> list[Any]:
    return [process.pid, process.start_time, process.name]


# --- and back ---


def _action(document: Mapping[str, Any]) -> Action:
    kind = ACTIONS[document["keyword"]]
    return kind(**{field.name: _FIELDS[field.name](document[field.name]) for field in fields(kind)})  # type: ignore[arg-type]


def _finding(document: Mapping[str, Any]) -> Finding:
    measure, span, derivation = document["measure"], document["span"], document["derivation"]
    comparison = Comparison(
        text(measure),
        text(document["operator"]),
        finite(document["threshold"]),
        of=_optional(text, document["of"]),
        span=None if span is None else _span(span),
        derivation=None if derivation is None else Derivation(derivation),
    )
    if measure not in OPERANDS or comparison.of not in (None, *OPERANDS):
        raise ValueError(f"there is no measure {measure}")
    return Finding(
        comparison,
        _optional(_flag, document["truth"]),
        _optional(_value, document["value"]),
        _optional(_value, document["against"]),
        {text(name): text(why) for name, why in document["unknown"].items()},
        _optional(text, document["level"]),
    )


def _ranking(document: list[Any]) -> Ranking:
    by, dimension, of, *first = document
    values = tuple((text(unit), finite(value)) for unit, value in first)
    return Ranking(text(by), Dimension(dimension), count(of), values)


def _refusal(document: list[Any], shift: float) -> Refusal:
    obstacle, reason, until = document
    return Refusal(Obstacle(obstacle), text(reason), None if until is None else finite(until) + shift)


def _progress(document: list[Any], action: Action, now: float, shift: float) -> ActionProgress:
    deadline, killed, refusal, processes, *more = document
    unasked, sent = more or (None, False)  # not in those of older versions
    deadline = _time(deadline) + shift
    if deadline > now + getattr(action, "timeout", 0.0) + END_WAIT:
        raise ValueError(f"it has {deadline - now:g} seconds left")
    return ActionProgress(
        deadline,
        _flag(killed),
        _optional(text, refusal),
        tuple(map(_process, processes)),
        _optional(text, unasked),
        _flag(sent),
    )


def _outcome(document: list[Any], decision: Decision, shift: float) -> Outcome:
    result, detail, at, again, untried, process = document
    return Outcome(
        decision,
        Result(result),
        text(detail),
        _time(at) + shift,
        again=_flag(again),
        untried=_flag(untried),
        process=_optional(_process, process),
    )


def _process(document: list[Any]) -> Process:
    pid, start_time, name = document
    if count(pid) == 0:
        raise ValueError("no process has the pid 0")
    return Process(pid, count(start_time), text(name))


def _optional(parse: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else parse(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r:.40} is neither true nor false")
    return value


def _value(value: object) -> float:
    return math.inf if value == math.inf else finite(value)  # an `eta` may be never


def _time(value: object) -> float:
    if (number := finite(value)) < 0:
        raise ValueError(f"{number:g} is not a time")
    return number


def _span(value: object) -> float:
    if not 0 <= (number := finite(value)) <= _LONGEST:
        raise ValueError(f"{number:g} is not a span")
    return number


def _timeout(value: object) -> float:
    if (number := _span(value)) == 0:
        raise ValueError("a timeout is greater than 0")
    return number


def _properties(value: list[Any]) -> tuple[tuple[str, int | None], ...]:
    return tuple((text(name), _optional(count, size)) for name, size in value)


_FIELDS: Mapping[str, Callable[[Any], Any]] = {
    "timeout": _timeout,
    "otherwise": lambda value: None if value is None else LastResort(value),
    "number": lambda value: Signals[value],
    "to": Target,
    "command": lambda value: tuple(map(text, value)),
    "size": count,
    "properties": _properties,
}
"""The fields of actions, by name."""
