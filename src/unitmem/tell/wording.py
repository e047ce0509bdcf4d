"""What is told about decisions and outcomes: one sentence for people, and fields for machines."""

from __future__ import annotations

import shlex
from dataclasses import replace

from unitmem.policy.actions import (
    Action,
    Freeze,
    Kill,
    LastResort,
    Log,
    Reclaim,
    Restart,
    Run,
    SetProperties,
    Signal,
    Stop,
    Thaw,
    action_name,
    spell_property,
)
from unitmem.policy.decision import (
    POLICY_FIELD,
    STEP_FIELD,
    UNIT_FIELD,
    Decision,
    Obstacle,
    Outcome,
    Result,
    environment_of,
)
from unitmem.quantity import format_size, format_span
from unitmem.tell.journal import (
    ACTION_FIELD,
    DECISION_MESSAGE_ID,
    INVOCATION_FIELD,
    OBJECT_FIELDS,
    OUTCOME_MESSAGE_ID,
    RESULT_FIELD,
    Entry,
    Priority,
)
from unitmem.text import printable
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
}


def decision_entry(decision: Decision, manager: ManagerKind = ManagerKind.SYSTEM) -> Entry:
    """What was decided and why: measure, value, threshold, and for how long it held."""
    why = " and ".join(str(finding) for finding in decision.findings)
    held = f" for {format_span(decision.held)}" if decision.hold > 0 else ""
    message = f"{decision.unit}: {why}{held} ({_origin(decision)})"
    if (intent := _intent(decision)) is not None:
        message += f": {intent}"
    return Entry(
        _PRIORITY_OF_OBSTACLE.get(decision.refusal.obstacle, Priority.WARNING)
        if decision.refusal is not None
        else Priority.WARNING,
        message,
        {"MESSAGE_ID": DECISION_MESSAGE_ID, **_fields(decision, manager), **environment_of(decision)},
    )


def outcome_entry(outcome: Outcome, manager: ManagerKind = ManagerKind.SYSTEM) -> Entry | None:
    """What became of it; None for what the decision's own entry has said already."""
    decision = outcome.decision
    if isinstance(decision.action, Log) or outcome.result in (Result.OBSERVED, Result.REFUSED):
        return None
    what = _noun(decision.action)
    lead = {Result.FAILED: f"{what} failed: ", Result.GONE: f"no {what}: "}.get(outcome.result, "")
    fields = {"MESSAGE_ID": OUTCOME_MESSAGE_ID, **_fields(decision, manager)}
    fields[RESULT_FIELD] = outcome.result
    if outcome.process is not None:
        fields["OBJECT_PID"] = outcome.process.pid
        fields["UNITMEM_PROCESS"] = outcome.process.label
    return Entry(
        _PRIORITY_OF_RESULT[outcome.result],
        f"{decision.unit}: {lead}{outcome.detail} ({_origin(decision)})",
        fields,
    )


def unit_fields(unit: str, manager: ManagerKind) -> dict[str, str | int]:
    """The fields by which `journalctl -u UNIT` shows an entry, and by which it is searched for."""
    return {OBJECT_FIELDS[manager]: unit, UNIT_FIELD: unit}


def _fields(decision: Decision, manager: ManagerKind) -> dict[str, str | int]:
    fields: dict[str, str | int] = {
        **unit_fields(decision.unit, manager),
        POLICY_FIELD: decision.policy,
        STEP_FIELD: decision.step + 1,
        ACTION_FIELD: action_name(decision.action),
        RESULT_FIELD: _foregone_result(decision),
    }
    if decision.refusal is not None:
        fields["UNITMEM_OBSTACLE"] = decision.refusal.obstacle
    if decision.invocation.invocation_id is not None:
        fields[INVOCATION_FIELD] = decision.invocation.invocation_id
    return {key: value for key, value in fields.items() if value != ""}


def _foregone_result(decision: Decision) -> str:
    """The result that is certain as the decision is made, if one is."""
    if decision.refusal is not None:
        return Result.REFUSED
    if decision.observe:
        return Result.OBSERVED
    return Result.VERIFIED if isinstance(decision.action, Log) else ""


def _intent(decision: Decision) -> str | None:
    """What is about to be done, or why it won't be."""
    if isinstance(decision.action, Log) and decision.refusal is None:
        return None
    (doing, verb), rest = _verbs(decision.action), _object(decision)
    terms = _terms(decision.action)
    if decision.refusal is None:
        return (
            f"would {verb}{rest}{terms}, but the policy only observes"
            if decision.observe
            else doing + rest + terms
        )
    if isinstance(decision.action, Log):
        return f"no new episode begins, since {decision.refusal.reason}"
    remedy = (
        "; a policy that has to touch it names it under `unprotect:`"
        if decision.refusal.obstacle is Obstacle.PROTECTED
        else ""
    )
    return f"not {doing}{rest}, since {decision.refusal.reason}{remedy}"


def _verbs(action: Action) -> tuple[str, str]:
    """(`stopping`, `stop`)."""
    match action:
        case Log():
            return "logging", "log"
        case Signal():
            return "sending", "send"
        case Stop():
            return "stopping", "stop"
        case Restart():
            return "restarting", "restart"
        case Kill():
            return "killing", "kill"
        case Reclaim():
            return "reclaiming", "reclaim"
        case SetProperties():
            return "setting", "set"
        case Freeze():
            return "freezing", "freeze"
        case Thaw():
            return "thawing", "thaw"
        case Run():
            return "running", "run"


def _object(decision: Decision) -> str:
    """What follows the verb: ` it`, or what is sent, taken or set."""
    match decision.action:
        case Signal() as action:
            victim = "" if decision.victim is None else f", {decision.victim.label}"
            return f" {replace(action, otherwise=None)}{victim}"
        case Kill():
            return " all its processes"
        case Reclaim(size):
            return f" {format_size(size)} of its memory"
        case SetProperties(properties):
            return " " + ", ".join(spell_property(name, size) for name, size in properties)
        case Run(command):
            return f" {printable(shlex.join(command))}"
        case _:
            return " it"


def _terms(action: Action) -> str:
    """For how long, and what then; nothing where there is nothing to say."""
    match action:
        case Signal(_, _, timeout, LastResort.KILL) | Stop(timeout, LastResort.KILL):
            return f" (SIGKILL after {format_span(timeout)})"
        case Restart(timeout, LastResort.KILL):
            return f" (SIGKILL to the old run after {format_span(timeout)})"
        case Stop(timeout) | Restart(timeout):
            return f" within {format_span(timeout)}"
        case SetProperties():
            return " (until the episode ends)"
        case Run(_, timeout):
            return f" (for at most {format_span(timeout)})"
        case _:
            return ""


def _noun(action: Action) -> str:
    """The action, to follow `no` and to precede `failed`."""
    match action:
        case SetProperties(properties):
            return "change of " + ", ".join(name for name, _ in properties)
        case Run(command):
            return f"run of {printable(command[0])}"
        case _:
            return action_name(action)


def _origin(decision: Decision) -> str:
    return f"policy {decision.policy}, step {decision.step + 1}"
