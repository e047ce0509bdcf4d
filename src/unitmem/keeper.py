"""What a watch owes: properties that it has set and must set back, and a state that must outlive it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from unitmem.engine import Decision, State, is_open, lapse
from unitmem.errors import BusError
from unitmem.hold import Hold, prepare, undo
from unitmem.journal import Priority
from unitmem.policy import Policy, SetProperties, spell_property
from unitmem.store import DamagedStateError, Instant, Remembered, Store
from unitmem.systemd import Manager
from unitmem.telling import Teller


class Keeper:
    """The holds of one watch, and its store."""

    def __init__(self, store: Store, teller: Teller) -> None:
        self._store = store
        self._teller = teller
        self._holds: list[Hold] = []
        self._stuck: set[tuple[str, str]] = set()
        self._is_saving = True

    def recall(self, policies: Sequence[Policy]) -> State:
        """The state from where the last watch of this name ended; a new one where nothing is kept."""
        try:
            remembered = self._store.load(policies, Instant.now())
        except DamagedStateError as error:
            self._teller.say(Priority.ERROR, str(error))
        except OSError as error:
            self._teller.say(Priority.ERROR, f"what the last watch left can't be read: {error}")
        else:
            self._holds = list(remembered.holds)
            return remembered.state
        return State()

    def save(self, state: State, policies: Sequence[Policy], now: float) -> None:
        """Keep `state` and the holds; where they can't be written, that is told, and guarding goes on."""
        try:
            self._store.save(Remembered(state, tuple(self._holds)), policies, Instant.now(now))
        except OSError as error:
            if self._is_saving:
                self._teller.say(
                    Priority.ERROR,
                    f"cooldowns, budgets and open episodes can't be saved, and end with this watch: {error}",
                )
            self._is_saving = False
        else:
            self._is_saving = True

    def hold(self, decision: Decision, manager: Manager | None) -> Hold | None:
        """What `decision` will have to set back, to be saved before it is performed."""
        hold = prepare(decision, manager)
        if hold is None:
            return None
        former = dict(hold.former)
        for held in self._holds:
            if held.unit == hold.unit:  # what we have set ourselves is not what it was
                former |= {name: size for name, size in held.former.items() if name in former}
        hold = replace(hold, former=former)
        self._holds.append(hold)
        return hold

    def set_back(self, state: State, manager: Manager | None, now: float) -> None:
        """Undo what was set in episodes that are over."""
        self._undo(
            [hold for hold in self._holds if not is_open(state, (hold.policy, hold.unit))], manager, now
        )

    def leave(self, state: State, policies: Sequence[Policy], manager: Manager | None, now: float) -> None:
        """Undo everything, since nobody will when the episodes end, and save."""
        for hold in self._holds:
            for policy in policies:
                if policy.name == hold.policy:
                    sets = [
                        i for i, step in enumerate(policy.steps) if isinstance(step.action, SetProperties)
                    ]
                    state = lapse(state, (hold.policy, hold.unit), sets)
        self._undo(self._holds, manager, now)
        self.save(state, policies, now)

    def spelled(self) -> list[str]:
        """`web.service: MemoryHigh=infinity`: what is to be set back, and to what."""
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
                except BusError as error:
                    if (hold.policy, hold.unit) not in self._stuck:
                        self._teller.say(Priority.ERROR, f"{hold.unit}: not set back yet: {error}")
                    self._stuck.add((hold.policy, hold.unit))
                    continue
            self._stuck.discard((hold.policy, hold.unit))
            self._holds.remove(hold)
