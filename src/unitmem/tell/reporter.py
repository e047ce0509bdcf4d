"""Reporting what a watch does: to the journal as messages, to the history with all inputs, to the metrics as counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from unitmem.kernel.process import Process
from unitmem.measure.sample import UnitSample
from unitmem.policy.decision import Decision, Obstacle, Outcome, Override
from unitmem.policy.journal_fields import POLICY_FIELD, SET_BACK_MESSAGE_ID, STEP_FIELD, UNKNOWN_MESSAGE_ID
from unitmem.policy.model import step_number
from unitmem.policy.state import State
from unitmem.policy.trends import NOT_YET_WATCHED
from unitmem.record.event import Event, EventKind
from unitmem.record.recorder import Recorder, decision_event, described, outcome_event
from unitmem.tell.journal import Entry, Journal, Priority
from unitmem.tell.once import LONGEST_QUIET, Once
from unitmem.tell.reset import messages_by_unit, reset_entry
from unitmem.tell.wording import decision_entry, outcome_entry, unit_fields
from unitmem.text import format_span
from unitmem.unit import Invocation, ManagerKind, titled

if TYPE_CHECKING:
    from unitmem.tell.exporter import Exporter


class _Blind(NamedTuple):
    """A step that can't be judged for one run of a unit."""

    policy: str
    step: int
    invocation: Invocation

    @property
    def of_unit(self) -> tuple[str, int, str]:
        """The step and the unit, whichever run."""
        return self.policy, self.step, self.invocation.unit


class Reporter:
    """The reports of one watch; what has been reported is not repeated."""

    def __init__(
        self,
        journal: Journal,
        recorder: Recorder,
        kind: ManagerKind,
        exporter: Exporter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._recorder = recorder
        self._kind = kind
        self._exporter = exporter
        self._clock = clock
        self._reported_unknown: set[_Blind] = set()
        self._withheld: dict[tuple[str, int, str, Obstacle], float] = {}
        """Until when it isn't reported again that a step is withheld."""
        self._blind: set[tuple[str, int, str]] = set()
        self._once = Once()

    def say(self, priority: Priority, message: str) -> None:
        """Write a journal entry about the watch itself."""
        self._journal.say(priority, message)

    def once(
        self,
        key: Hashable,
        trouble: str | None,
        well: str | None = None,
        priority: Priority = Priority.WARNING,
        *,
        by_words: bool = True,
        quiet: float = 0.0,
    ) -> None:
        """Report a problem of the watch itself once while it lasts, and its end; see `Once.news`."""
        entry = self._once.news(
            key, trouble, well, priority, by_words=by_words, now=self._clock(), quiet=quiet
        )
        if entry is not None:
            self._journal.write(entry)

    def decided(self, decision: Decision, late: float | None = None) -> None:
        """Log a decision; one of the previous watch with how many seconds `late` that is."""
        if not self._is_withheld_as_reported(decision):
            entry = decision_entry(decision, self._kind)
            if late is not None:
                ago = f"decided {format_span(late)} ago, before unitmem was restarted"
                entry = replace(entry, message=f"{entry.message}; {ago}")
            self._journal.write(entry)
        if self._exporter is not None:
            self._exporter.decided(decision)

    def record(self, decision: Decision, realtime: float, processes: Sequence[Process] = ()) -> None:
        """Add a decision to the history, with its time and the unit's largest processes then."""
        message = decision_entry(decision, self._kind).message
        self._recorder.event(decision_event(decision, message, realtime, processes), decision.at)

    def concluded(self, outcome: Outcome, decided: float) -> None:
        """Report an outcome, unless the decision's own entry has its result; `decided` is when, by the wall clock."""
        entry = outcome_entry(outcome, self._kind)
        if entry is not None:
            self._journal.write(entry)
            event = outcome_event(outcome, entry.message, time.time())
            self._recorder.event(replace(event, detail={**event.detail, "decided": decided}), outcome.at)
        if self._exporter is not None:
            self._exporter.concluded(outcome)

    def set_back(self, override: Override, what: str, now: float) -> None:
        """Report that properties are set back; `what` follows the unit's name."""
        message = f"{override.unit}: {what} (policy {override.policy})"
        fields = {
            "MESSAGE_ID": SET_BACK_MESSAGE_ID,
            **unit_fields(override.unit, self._kind),
            POLICY_FIELD: override.policy,
        }
        self._journal.write(Entry(Priority.NOTICE, message, fields))
        event = Event(time.time(), EventKind.SET_BACK, override.unit, message, policy=override.policy)
        self._recorder.event(event, now)

    def reset(self, document: Mapping[str, Any], uid: int, now: float) -> None:
        """Report a reset: in the journal once, in the history for each unit; see `reset_document`."""
        self._journal.write(reset_entry(document, uid, self._kind))
        for unit, message in messages_by_unit(document, uid).items():
            event = Event(time.time(), EventKind.RESET, unit, message, detail={"uid": uid})
            self._recorder.event(event, now)

    def unknown(self, state: State, now: float, units: Mapping[str, UnitSample] = {}) -> None:
        """Report steps that can't be judged since a measure is unknown, once for each run of a unit.

        Of a unit that is restarted again and again, further runs are in the history only. `units` are those of the
        sample, by name.
        """
        found = self._blind_steps(state)
        steps = {blind.of_unit for blind in found}
        for gone in self._blind - steps:
            self._once.news(gone, None, now=now)
        self._blind = steps
        for blind, why in self._news(state, found):
            name = blind.invocation.unit
            content = units[name].unit.content if name in units else ""
            message = f"{titled(name, content)}: policy {blind.policy}, step {blind.step} can't fire: {why}"
            fields = {
                "MESSAGE_ID": UNKNOWN_MESSAGE_ID,
                **unit_fields(name, self._kind, content),
                POLICY_FIELD: blind.policy,
                STEP_FIELD: blind.step,
            }
            if self._once.news(blind.of_unit, why, now=now) is not None:
                self._journal.write(Entry(Priority.WARNING, message, fields))
            event = Event(
                time.time(),
                EventKind.UNKNOWN,
                name,
                message,
                run=blind.invocation.invocation_id,
                policy=blind.policy,
                step=blind.step,
                detail=described(content),
            )
            self._recorder.event(event, now)

    def trouble(self) -> None:
        """Report an error of the history once, and its end."""
        self.once("history", self._recorder.trouble, "the history is written again")
        self._recorder.trouble_reported()

    def flush(self) -> None:
        """Report the problems that have been away for long enough, and send what journald had no room for."""
        for entry in self._once.ends(self._clock()):
            self._journal.write(entry)
        self._journal.flush()

    def close(self) -> None:
        self._journal.close()

    def _is_withheld_as_reported(self, decision: Decision) -> bool:
        """Return whether it was reported that the step is withheld, and why: around a threshold it is again and again.

        A cooldown and a budget are reported once while they last, other obstacles once in a quarter of an hour.
        """
        refusal = decision.refusal
        if refusal is None:
            return False
        self._withheld = {key: until for key, until in self._withheld.items() if until > decision.at}
        key = decision.policy, decision.step, decision.unit, refusal.obstacle
        reported = self._withheld.get(key)
        until = refusal.until
        if until is None:
            until = decision.at + LONGEST_QUIET if reported is None else reported
        self._withheld[key] = until
        return reported == until

    @staticmethod
    def _blind_steps(state: State) -> dict[_Blind, str]:
        """Return the steps that can't be judged, with the reasons."""
        blind: dict[_Blind, str] = {}
        for (policy, _), ladder in state.ladders.items():
            for index, step in enumerate(ladder.steps):
                reasons = [
                    f"{name} is unknown ({why})"
                    for name, why in step.unknown.items()
                    if why != NOT_YET_WATCHED
                ]
                if reasons:
                    blind[_Blind(policy, step_number(index), ladder.invocation)] = "; ".join(reasons)
        return blind

    def _news(self, state: State, blind: Mapping[_Blind, str]) -> Iterable[tuple[_Blind, str]]:
        news = [(key, why) for key, why in blind.items() if key not in self._reported_unknown]
        # told once a run, even if it comes and goes
        running = {ladder.invocation for ladder in state.ladders.values()}
        self._reported_unknown = {
            key for key in self._reported_unknown | blind.keys() if key.invocation in running
        }
        return news
