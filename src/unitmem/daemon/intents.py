"""The decisions of a watch until their outcomes are reported, noted on file before anything is done about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unitmem.act.resume import progress_of
from unitmem.act.task import Pending
from unitmem.daemon.saved_state import SavedState
from unitmem.policy.decision import Decision, DecisionKey, Intent, Outcome, Override
from unitmem.record.event import FILE_NAME, EventKind
from unitmem.record.intents import changes_document
from unitmem.record.overrides import override_document

_MOMENT = 0.001
"""Seconds within which two times of a decision are the same."""


class Intents:
    """The intents of one watch, `left` ones of the previous watch among them."""

    def __init__(self, left: Sequence[Intent], saved_state: SavedState) -> None:
        self.left = list(left)
        """Those of the previous watch that are not resumed yet."""
        self._by_key: dict[DecisionKey, Intent] = {intent.decision.key: intent for intent in left}
        self._saved_state = saved_state

    @property
    def all(self) -> tuple[Intent, ...]:
        """Every intent, in the order of the decisions."""
        return tuple(self._by_key.values())

    def add(self, decisions: Sequence[Decision], realtime: float) -> None:
        """Add the decisions of a tick; the state that is saved next has them."""
        for decision in decisions:
            self._by_key[decision.key] = Intent(decision, realtime)

    def about(self, decision: Decision) -> Intent:
        """Return the intent of a decision whose outcome is not reported yet."""
        return self._by_key[decision.key]

    def begin(self, decision: Decision, override: Override | None) -> None:
        """Note that the action is about to be requested, and what it overrides, which is stored nowhere else."""
        if override is not None:
            self._saved_state.note({"override": override_document(override)})
        self._note(decision, begun=True)

    def follow(self, decision: Decision, result: Outcome | Pending) -> None:
        """Note what the action has come to."""
        if isinstance(result, Outcome):
            self._note(decision, outcome=result)
        elif result.unasked is None or result.killed:
            self._note(decision, progress=progress_of(result))

    def logged(self, decision: Decision) -> None:
        """Note that the journal has the decision."""
        self._note(decision, logged=True)

    def forget(self, decision: Decision) -> None:
        """Forget a decision whose outcome is reported; the state that is saved next doesn't have it."""
        del self._by_key[decision.key]

    def _note(self, decision: Decision, **changes: Any) -> None:
        intent = replace(self._by_key[decision.key], **changes)
        self._by_key[decision.key] = intent
        self._saved_state.note({"intent": list(decision.key), "changes": changes_document(changes)})


def recorded(intent: Intent, directory: Path | None) -> set[EventKind]:
    """Return which events of `intent` the history in `directory` has: it may be ahead of what was noted last."""
    if directory is None:
        return set()
    from unitmem.record.history import History, HistoryError  # noqa: PLC0415 - a watch seldom reads what it records

    decision = intent.decision
    try:
        with History(directory / FILE_NAME) as history:
            events = history.events(decision.unit, since=intent.realtime - _MOMENT)
    except HistoryError:
        return set()
    return {
        event.kind
        for event in events
        if (event.policy, event.step) == (decision.policy, decision.step_number)
        and abs(event.detail.get("decided", event.at) - intent.realtime) < _MOMENT
    }
