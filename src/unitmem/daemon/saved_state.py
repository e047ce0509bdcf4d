"""The state of a watch, kept for the next one of its name."""

from __future__ import annotations

from collections.abc import Sequence

from unitmem.policy.model import Budget, Policy
from unitmem.record.clock import Instant
from unitmem.record.state_file import DamagedStateError, Remembered, Store
from unitmem.tell.journal import Priority
from unitmem.tell.reporter import Teller


class SavedState:
    """The store of one watch; where it fails, that is told, and guarding goes on."""

    def __init__(self, store: Store, teller: Teller) -> None:
        self._store = store
        self._teller = teller

    def load(self, policies: Sequence[Policy], budget: Budget | None = None) -> Remembered:
        """Return what the last watch of this name left; a new state where nothing is kept."""
        try:
            remembered = self._store.load(policies, Instant.now(), budget)
        except DamagedStateError as error:
            self._teller.say(Priority.ERROR, str(error))
        except OSError as error:
            self._teller.say(Priority.ERROR, f"the saved state can't be read: {error}")
        else:
            if remembered.trouble is not None:
                self._teller.say(Priority.WARNING, remembered.trouble)
            return remembered
        return Remembered()

    def save(
        self, remembered: Remembered, policies: Sequence[Policy], now: float, *, ahead: bool = False
    ) -> None:
        """Keep `remembered`.

        `ahead` of an action it has to outlive this process only, and so waits for no disk.
        """
        try:
            self._store.save(remembered, policies, Instant.now(now), ahead=ahead)
        except OSError as error:
            trouble = f"the state can't be saved, so cooldowns, budgets and open episodes end with this watch: {error}"
            self._teller.once("state", trouble, priority=Priority.ERROR, by_words=False)
        else:
            if not ahead:  # that file alone doesn't outlive the machine
                self._teller.once("state", None, "the state is saved again")
