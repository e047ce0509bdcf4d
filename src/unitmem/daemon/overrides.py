"""The property overrides of a watch: kept, saved, and set back when their episodes end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from unitmem.act.overrides import prepare, undo
from unitmem.errors import BusError, BusLostError
from unitmem.manager.systemd import Manager
from unitmem.policy.actions import SetProperties, spell_property
from unitmem.policy.decision import Decision, Override
from unitmem.policy.model import Policy
from unitmem.policy.state import RETRY_AFTER, State, is_open, lapse
from unitmem.tell.journal import Priority
from unitmem.tell.reporter import Reporter

_LAST_RETRY = 600.0
"""Seconds between two tries to set back what the manager refuses: doubled each time, up to this."""


class Overrides:
    """The property overrides in force, including those of the previous watch of this name."""

    def __init__(self, overrides: Sequence[Override], reporter: Reporter) -> None:
        self._reporter = reporter
        self._overrides = list(overrides)
        self._stuck: dict[tuple[str, str], _Stuck] = {}

    @property
    def in_force(self) -> tuple[Override, ...]:
        """The overrides to undo, in the order in which they were made."""
        return tuple(self._overrides)

    def prepare(self, decision: Decision, manager: Manager | None) -> Override | None:
        """Return the values that a `set` is about to override, to be saved before it is performed; None if there are none."""
        override = prepare(decision, manager)
        if override is None:
            return None
        former = dict(override.former)
        for other in self._overrides:
            if other.unit == override.unit:  # what we have set ourselves is not what it was
                former |= {name: size for name, size in other.former.items() if name in former}
        override = replace(override, former=former)
        # one that is tried again owes no more than before
        self._overrides = [other for other in self._overrides if other != override] + [override]
        return override

    def undo_ended(self, state: State, manager: Manager | None, now: float) -> None:
        """Undo the overrides of episodes that are over; what the manager refuses is retried with growing pauses."""
        due = [
            override
            for override in self._overrides
            if not is_open(state, (override.policy, override.unit))
            and ((stuck := self._stuck.get((override.policy, override.unit))) is None or now >= stuck.until)
        ]
        self._undo(due, manager, now)

    def undo_all(self, manager: Manager | None, now: float) -> None:
        """Undo every override, since the watch ends before their episodes do."""
        self._undo(self._overrides, manager, now)

    def lapsed(self, state: State, policies: Sequence[Policy]) -> State:
        """Return `state` in which the steps that have set something may fire again, as after `undo_all`."""
        for override in self._overrides:
            for policy in policies:
                if policy.name == override.policy:
                    sets = [
                        i for i, step in enumerate(policy.steps) if isinstance(step.action, SetProperties)
                    ]
                    state = lapse(state, (override.policy, override.unit), sets)
        return state

    def spelled(self) -> list[str]:
        """Return each value to set back as text: `web.service: MemoryHigh=infinity`."""
        return [
            f"{override.unit}: {spell_property(name, size)}"
            for override in self._overrides
            for name, size in override.former.items()
        ]

    def _undo(self, overrides: Sequence[Override], manager: Manager | None, now: float) -> None:
        """Set `overrides` back; keep those that can't be set back now."""
        for override in list(overrides):
            others = [
                other for other in self._overrides if other is not override and other.unit == override.unit
            ]
            still = {name for other in others for name in other.former}
            due = replace(
                override, former={name: size for name, size in override.former.items() if name not in still}
            )
            if due.former:
                if manager is None:
                    continue
                try:
                    self._reporter.set_back(override, undo(due, manager), now)
                except BusLostError:
                    return  # nor would it answer for the others; once it is back, it is asked again
                except BusError as error:
                    key = override.policy, override.unit
                    if key not in self._stuck:
                        self._reporter.say(Priority.ERROR, f"{override.unit}: not set back yet: {error}")
                    pause = (
                        min(2 * self._stuck[key].pause, _LAST_RETRY) if key in self._stuck else RETRY_AFTER
                    )
                    self._stuck[key] = _Stuck(now + pause, pause)
                    continue
            self._stuck.pop((override.policy, override.unit), None)
            self._overrides.remove(override)


class _Stuck(NamedTuple):
    """An override that the manager has refused to set back."""

    until: float
    """When to try again."""
    pause: float
