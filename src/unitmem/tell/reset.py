"""What a reset has given back: as the document of `unitmem reset --json`, in words, and as a journal entry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unitmem.policy.journal_fields import RESET_MESSAGE_ID, UID_FIELD
from unitmem.policy.state import EVERY_UNIT, GivenBack
from unitmem.tell.journal import Entry, Priority
from unitmem.tell.wording import unit_fields
from unitmem.text import format_span, plural
from unitmem.unit import ManagerKind

_MOST = 6
"""The most lines that the journal entry has; the history has an event for each unit."""


def reset_document(unit: str | None, given_back: GivenBack) -> dict[str, Any]:
    """Return the document of a reset of `unit`, or of all."""
    return {
        "unit": unit,
        "cooldowns": [
            {"policy": policy, "unit": name, "left": left}
            for (policy, name), left in given_back.cooldowns.items()
        ],
        "budgets": [
            {"policy": policy, "unit": name, "actions": actions}
            for (policy, name), actions in given_back.actions.items()
        ],
        "retries": [{"policy": policy, "unit": name} for policy, name in given_back.retries],
        "refusals": [{"unit": name, "action": action} for name, action in given_back.refusals],
        "file_budget": given_back.file_actions,
    }


def clauses_by_unit(document: Mapping[str, Any]) -> dict[str, str]:
    """Return what was given back to each unit, in words; `*` is every unit of the policy."""
    found: dict[str, list[str]] = {}

    def add(unit: str, clause: str) -> None:
        found.setdefault(unit, []).append(clause)

    for each in document["cooldowns"]:
        left = format_span(each["left"])
        add(each["unit"], f"ended the cooldown of policy {each['policy']} ({left} left)")
    for each in document["budgets"]:
        actions = plural(each["actions"], "action")
        add(each["unit"], f"gave {actions} back to its budget in policy {each['policy']}")
    for each in document["retries"]:
        add(each["unit"], f"ended the pause of policy {each['policy']} after a failed action")
    for each in document["refusals"]:
        add(each["unit"], f"forgot that the manager has refused `{each['action']}`")
    return {unit: ", ".join(found[unit]) for unit in sorted(found)}


def lines_of(document: Mapping[str, Any]) -> list[str]:
    """Return what was given back as lines: one for the file's budget, and one for each unit."""
    actions = document["file_budget"]
    of_file = [f"gave {plural(actions, 'action')} back to the file's budget"] if actions else []
    return of_file + [
        f"{'every unit' if unit == EVERY_UNIT else unit}: {clauses}"
        for unit, clauses in clauses_by_unit(document).items()
    ]


def messages_by_unit(document: Mapping[str, Any], uid: int) -> dict[str, str]:
    """Return the message about each unit that something was given back to."""
    return {
        unit: f"{unit}: reset by uid {uid}: {clauses}"
        for unit, clauses in clauses_by_unit(document).items()
        if unit != EVERY_UNIT
    }


def reset_entry(document: Mapping[str, Any], uid: int, manager: ManagerKind) -> Entry:
    """Return the journal entry of a reset that has given something back, for the user `uid`."""
    fields: dict[str, str | int] = {"MESSAGE_ID": RESET_MESSAGE_ID, UID_FIELD: uid}
    lines, messages = lines_of(document), messages_by_unit(document, uid)
    if len(lines) == 1 and messages:
        ((unit, message),) = messages.items()
        return Entry(Priority.NOTICE, message, {**fields, **unit_fields(unit, manager)})
    more = len(lines) - _MOST
    shown = "; ".join(lines[:_MOST]) + (f"; and {more} more" if more > 0 else "")
    return Entry(Priority.NOTICE, f"reset by uid {uid}: {shown}", fields)
