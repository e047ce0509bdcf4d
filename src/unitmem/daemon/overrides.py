"""Properties that a watch has set and must set back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from unitmem.act.overrides import prepare, undo
from unitmem.errors import BusError, BusLostError
from unitmem.manager.systemd import Manager
from unitmem.policy.actions import SetProperties, spell_property
from unitmem.policy.decision import Decision, Hold
from unitmem.policy.model import Policy
from unitmem.policy.state import RETRY_AFTER, State, is_open, lapse
from unitmem.tell.journal import Priority
from unitmem.tell.reporter import Teller

_LAST_RETRY = 600.0
"""Seconds between tries to set back what the manager refuses; doubled from the first on, up to this."""


class Overrides:
    """The property overrides in force, those that the last watch left included."""

    def __init__(self, holds: Sequence[Hold], teller: Teller) -> None:
        self._teller = teller
        self._holds = list(holds)
        self._stuck: dict[tuple[str, str], _Stuck] = {}

    @property
    def holds(self) -> tuple[Hold, ...]:
        """What is to be undone, in the order in which it was done."""
        return tuple(self._holds)

    def prepare(self, decision: Decision, manager: Manager | None) -> Hold | None:
        """Return what `decision` will have to set back, to be saved before it is performed."""
        hold = prepare(decision, manager)
        if hold is None:
            return None
        former = dict(hold.former)
        for held in self._holds:
            if held.unit == hold.unit:  # what we have set ourselves is not what it was
                former |= {name: size for name, size in held.former.items() if name in former}
        hold = replace(hold, former=former)
        # one that is tried again owes no more than before
        self._holds = [held for held in self._holds if held != hold] + [hold]
        return hold

    def undo_ended(self, state: State, manager: Manager | None, now: float) -> None:
        """Undo what was set in episodes that are over; what the manager refused is tried again with growing pauses."""
        due = [
            hold
            for hold in self._holds
            if not is_open(state, (hold.policy, hold.unit))
            and ((stuck := self._stuck.get((hold.policy, hold.unit))) is None or now >= stuck.until)
        ]
        self._undo(due, manager, now)

    def undo_all(self, manager: Manager | None, now: float) -> None:
        """Undo everything, since nobody will when the episodes end."""
        self._undo(self._holds, manager, now)

    def lapsed(self, state: State, policies: Sequence[Policy]) -> State:
        """Return `state` as it is once everything is undone: the steps that have set something may fire again."""
        for hold in self._holds:
            for policy in policies:
                if policy.name == hold.policy:
                    sets = [
                        i for i, step in enumerate(policy.steps) if isinstance(step.action, SetProperties)
                    ]
                    state = lapse(state, (hold.policy, hold.unit), sets)
        return state

    def spelled(self) -> list[str]:
        """Return `web.service: MemoryHigh=infinity`: what is to be set back, and to what."""
        return [
            f"{hold.unit}: {spell_property(name, size)}"
            for hold in self._holds
            for name, size in hold.former.items()
        ]

    def _undo(self, holds: Sequence[Hold], manager: Manager | None, now: float) -> None:
        """Set `holds` back; one that can't be now stays due."""
        for hold in list(holds):
            others = [held for held in self._holds if held is not hold and held.unit == hold.unit]
            still = {name for held in others for name in held.former}
            due = replace(
                hold, former={name: size for name, size in hold.former.items() if name not in still}
            )
            if due.former:
                if manager is None:
                    continue
                try:
                    self._teller.set_back(hold, undo(due, manager), now)
                except BusLostError:
                    return  # nor would it answer for the others; once it is back, it is asked again
                except BusError as error:
                    key = hold.policy, hold.unit
                    if key not in self._stuck:
                        self._teller.say(Priority.ERROR, f"{hold.unit}: not set back yet: {error}")
                    pause = (
                        min(2 * self._stuck[key].pause, _LAST_RETRY) if key in self._stuck else RETRY_AFTER
                    )
                    self._stuck[key] = _Stuck(now + pause, pause)
                    continue
            self._stuck.pop((hold.policy, hold.unit), None)
            self._holds.remove(hold)


class _Stuck(NamedTuple):
    """What the manager has refused to set back."""

    until: float
    """When it is to be asked again."""
    pause: float
