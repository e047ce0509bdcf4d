"""Journal entries about decisions and outcomes: a message for people, and fields for programs."""

from __future__ import annotations

from unitmem.policy.condition import format_value
from unitmem.policy.decision import Decision, Obstacle, Outcome, Result, environment_of
from unitmem.policy.journal_fields import (
    ACTION_FIELD,
    DECIDED_FIELD,
    DECISION_MESSAGE_ID,
    DESCRIPTION_FIELD,
    INVOCATION_FIELD,
    OBJECT_FIELDS,
    OUTCOME_MESSAGE_ID,
    POLICY_FIELD,
    RESULT_FIELD,
    STEP_FIELD,
    UNIT_FIELD,
)
from unitmem.tell.journal import Entry, Priority
from unitmem.text import format_span, plural
from unitmem.unit import ManagerKind

_PRIORITY_OF_RESULT = {
    Result.VERIFIED: Priority.NOTICE,
    Result.FAILED: Priority.ERROR,
    Result.GONE: Priority.NOTICE,
    Result.OBSERVED: Priority.NOTICE,
    Result.REFUSED: Priority.WARNING,
}


_PRIORITY_OF_OBSTACLE = {
    Obstacle.COOLING_DOWN: Priority.INFO,
    # a loop was cut short, and whatever is wrong goes on: somebody has to know
    Obstacle.OUT_OF_BUDGET: Priority.ERROR,
    Obstacle.OUT_OF_FILE_BUDGET: Priority.ERROR,
    Obstacle.NOT_PICKED: Priority.INFO,
}


def decision_entry(decision: Decision, manager: ManagerKind = ManagerKind.SYSTEM) -> Entry:
    """Return the entry of a decision: what was decided and why, with measure, value, threshold and time held."""
    why = " and ".join(str(finding) for finding in decision.findings)
    held = f" for {format_span(decision.held)}" if decision.hold > 0 else ""
    message = f"{decision.title}: {why}{held} ({_origin(decision)})"
    if (intent := _intent(decision)) is not None:
        message += f": {intent}"
    return Entry(
        _PRIORITY_OF_OBSTACLE.get(decision.refusal.obstacle, Priority.WARNING)
        if decision.refusal is not None
        else Priority.WARNING,
        message,
        {
            "MESSAGE_ID": DECISION_MESSAGE_ID,
            **_fields(decision, manager),
            **environment_of(decision),
        },
    )


def outcome_entry(outcome: Outcome, manager: ManagerKind = ManagerKind.SYSTEM) -> Entry | None:
    """Return the entry of an outcome; None where the decision's own entry has its result."""
    decision = outcome.decision
    if not decision.action.acts or outcome.result in (Result.OBSERVED, Result.REFUSED):
        return None
    what = decision.action.noun
    lead = {Result.FAILED: f"{what} failed: ", Result.GONE: f"no {what}: "}.get(outcome.result, "")
    fields = {"MESSAGE_ID": OUTCOME_MESSAGE_ID, **_fields(decision, manager)}
    fields[RESULT_FIELD] = outcome.result
    if outcome.process is not None:
        fields["OBJECT_PID"] = outcome.process.pid
        fields["UNITMEM_PROCESS"] = outcome.process.label
    return Entry(
        _PRIORITY_OF_RESULT[outcome.result],
        f"{decision.title}: {lead}{outcome.detail} ({_origin(decision)})",
        fields,
    )


def unit_fields(unit: str, manager: ManagerKind, content: str = "") -> dict[str, str | int]:
    """Return the fields by which `journalctl -u UNIT` and `explain` find an entry, and the unit's `content`, if any."""
    described = {DESCRIPTION_FIELD: content} if content else {}
    return {OBJECT_FIELDS[manager]: unit, UNIT_FIELD: unit, **described}


def _fields(decision: Decision, manager: ManagerKind) -> dict[str, str | int]:
    fields: dict[str, str | int] = {
        **unit_fields(decision.unit, manager, decision.content),
        POLICY_FIELD: decision.policy,
        STEP_FIELD: decision.step_number,
        ACTION_FIELD: decision.action.name,
        RESULT_FIELD: _foregone_result(decision),
        DECIDED_FIELD: int(decision.at * 1e6),
    }
    if decision.refusal is not None:
        fields["UNITMEM_OBSTACLE"] = decision.refusal.obstacle
    if decision.invocation.invocation_id is not None:
        fields[INVOCATION_FIELD] = decision.invocation.invocation_id
    return {key: value for key, value in fields.items() if value != ""}


def _foregone_result(decision: Decision) -> str:
    """Return the result if it is certain when the decision is made, else an empty string."""
    if decision.refusal is not None:
        return Result.REFUSED
    if decision.observe:
        return Result.OBSERVED
    return "" if decision.action.acts else Result.VERIFIED


def _intent(decision: Decision) -> str | None:
    """Return the clause on what will be done, or why it won't be; None if an allowed action only logs."""
    action, refusal = decision.action, decision.refusal
    if refusal is None and not action.acts:
        return None
    what = action.object + ("" if decision.victim is None else f", {decision.victim.label}")
    if refusal is None:
        if decision.observe:
            return (
                f"would {action.verb} {what}{action.terms}{_ranking(decision)}, but the policy only observes"
            )
        return f"{action.gerund} {what}{action.terms}{_ranking(decision)}"
    if not action.acts:
        return f"no new episode begins, since {refusal.reason}"
    remedy = (
        "; to act on it, name it under the policy's `unprotect:`"
        if refusal.obstacle is Obstacle.PROTECTED
        else ""
    )
    return f"not {action.gerund} {what}, since {refusal.reason}{remedy}"


def _ranking(decision: Decision) -> str:
    """Return the clause on why this unit was picked, and who is next; empty where the step doesn't pick."""
    if decision.ranking is None:
        return ""
    ranking = decision.ranking
    values = [f"{name} {format_value(value, ranking.dimension)}" for name, value in ranking.first[:2]]
    count = plural(ranking.of, "candidate")
    own = values[0].partition(" ")[2]
    after = f", next {values[1]}" if values[1:] else ""
    return f", picked by {ranking.by} {own} of {count}{after}"


def _origin(decision: Decision) -> str:
    return f"policy {decision.policy}, step {decision.step_number}"
