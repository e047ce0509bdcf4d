"""The saved state of a watch, for the next watch of its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unitmem.policy.model import Budget, Policy
from unitmem.record.clock import Instant
from unitmem.record.state_file import DamagedStateError, Remembered, Store, decode
from unitmem.tell.journal import Priority
from unitmem.tell.reporter import Reporter


class SavedState:
    """The state store of one watch; its errors are logged, and the watch goes on."""

    def __init__(self, store: Store, reporter: Reporter) -> None:
        self._store = store
        self._reporter = reporter

    def load(self, policies: Sequence[Policy], budget: Budget | None = None) -> Remembered:
        """Return the state that the previous watch of this name saved; a new one where there is none."""
        try:
            remembered = self._store.load(policies, Instant.now(), budget)
        except DamagedStateError as error:
            self._reporter.say(Priority.ERROR, str(error))
        except OSError as error:
            self._reporter.say(Priority.ERROR, f"the saved state can't be read: {error}")
        else:
            if remembered.trouble is not None:
                self._reporter.say(Priority.WARNING, remembered.trouble)
            return remembered
        # what it would have withheld is unknown: so nothing is done sooner than a cooldown allows
        return decode({}, policies, Instant.now().monotonic, budget=budget)

    def note(self, record: Mapping[str, Any]) -> None:
        """Note a change to what was saved ahead; see `Store.note`."""
        try:
            self._store.note(record)
        except OSError as error:
            self._tell(error)

    def close(self) -> None:
        self._store.close()

    def save(
        self, remembered: Remembered, policies: Sequence[Policy], now: float, *, ahead: bool = False
    ) -> None:
        """Save `remembered`.

        With `ahead`, before an action, it must survive only a crash of this process, so no disk is waited for.
        """
        try:
            self._store.save(remembered, policies, Instant.now(now), ahead=ahead)
        except OSError as error:
            self._tell(error)
        else:
            if not ahead:  # that file alone doesn't outlive the machine
                self._reporter.once("state", None, "the state is saved again")

    def _tell(self, error: OSError) -> None:
        trouble = (
            f"the state can't be saved, so cooldowns, budgets and open episodes end with this watch: {error}"
        )
        self._reporter.once("state", trouble, priority=Priority.ERROR, by_words=False)
