"""The manager's signals: which units have changed, and how."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pystemd.dbusexc import DBusBaseError
from pystemd.dbuslib import path_decode

from unitmem.manager.bus import MANAGER, MANAGER_PATH, PROPERTIES, SERVICE, UNIT_PATH, ManagerBus
from unitmem.manager.dbus import describe, text_of
from unitmem.unit import ManagerKind

# process() answers empty for libsystemd's own housekeeping too: one such answer is not yet the end
_QUIET_ANSWERS = 3
# whoever floods the bus must not keep `changes` from returning; what is left over is for the next call
_MOST_AT_ONCE = 10_000
# of a signal's body: the job's number, its path, its unit and its result; of the longest name, each byte escaped
_MOST_PARTS, _LONGEST_PART = 4, 1024


class Change(StrEnum):
    """The changes that the manager's signals report."""

    APPEARED = "UnitNew"
    VANISHED = "UnitRemoved"
    JOB_QUEUED = "JobNew"
    JOB_DONE = "JobRemoved"
    RELOADED = "Reloading"
    """The manager has reloaded its unit files; all that was known about units may be stale."""
    RESULT = "PropertiesChanged"
    """Result= of a unit, which is told only where `UnitSignals.follow_results` asks for it."""


@dataclass(frozen=True, slots=True)
class UnitChange:
    """One signal of the manager: the change, and its unit (None for RELOADED)."""

    change: Change
    unit: str | None
    result: str | None = None
    """Result= for RESULT: `success`, `oom-kill`, …"""


class UnitSignals(ManagerBus):
    """A connection over which the manager's signals arrive."""

    def __init__(self, kind: ManagerKind = ManagerKind.SYSTEM, address: str | None = None) -> None:
        super().__init__(kind, address)
        self.follows_results = False
        """Whether `follow_results` was called."""
        self._signals: deque[tuple[bytes, bytes, Any]] = deque()
        self._owner: bytes | None = None
        self._reloading = False
        self._callbacks: list[Callable[..., None]] = []

    def follow(self) -> None:
        """Subscribe to the manager's signals; `changes()` returns them from here on.

        Raises:
            BusLostError: the connection is dead, or the manager doesn't answer.
            BusError: refused.
        """

        def receive(message: Any, error: Any = None, userdata: Any = None) -> None:  # noqa: ARG001
            # an exception in here would surface as SystemError from somewhere else. Who sent it is judged by `changes`,
            # as the manager may have a new name; until then nothing large is kept, as anyone may send it
            with suppress(Exception):
                message.process_reply(False)
                if _is_terse(message.body):
                    self._signals.append((message.get_sender(), message.get_member(), message.body))

        self._callbacks.append(receive)  # libsystemd keeps no reference
        for change in (each for each in Change if each is not Change.RESULT):
            with self._asking(f"following {change}") as bus:
                bus.match_signal(SERVICE, MANAGER_PATH, MANAGER, change.value.encode(), receive)
        self._owner = self._name_owner()
        self._call(MANAGER_PATH, MANAGER, "Subscribe")

    def follow_results(self, is_wanted: Callable[[str], bool]) -> None:
        """Have `changes()` return Result= as well, at each change of a unit's state, of units that `is_wanted` accepts.

        A unit that is restarted has its former result for a moment only, so reading it later is too late.

        Raises:
            BusLostError: the connection is dead.
            BusError: refused.
        """

        def receive(message: Any, error: Any = None, userdata: Any = None) -> None:  # noqa: ARG001
            if message.get_sender() != self._owner:
                return  # not even parsed: what pystemd parses of it is freed late
            path = message.get_path()
            name = text_of(path_decode(path, UNIT_PATH)) if path.startswith(UNIT_PATH) else ""
            if name and is_wanted(name):
                message.process_reply(False)
                self._signals.append((message.get_sender(), message.get_member(), (name, message.body)))

        self._callbacks.append(receive)
        with self._asking(f"following {Change.RESULT}") as bus:
            bus.match_signal(SERVICE, None, PROPERTIES, Change.RESULT.value.encode(), receive)
        self.follows_results = True

    def fileno(self) -> int:
        """Return the descriptor that is readable when a signal has arrived; call `changes()` before each wait as well.

        Raises:
            BusLostError: the connection is closed.
        """
        descriptor = int(self._connection().get_fd())
        if descriptor < 0:
            raise self._lost(os.strerror(-descriptor))
        return descriptor

    def changes(self) -> list[UnitChange]:
        """Return the changes since the last call, in order, including those that arrived during other calls.

        Raises:
            BusLostError: the connection is dead.
        """
        bus = self._connection()
        quiet = 0
        try:
            for _ in range(_MOST_AT_ONCE):
                quiet = quiet + 1 if bus.process().is_empty() else 0
                if quiet == _QUIET_ANSWERS:
                    break
        except (DBusBaseError, SystemError) as error:
            raise self._lost(describe(error)) from None
        if any(sender != self._owner for sender, _, _ in self._signals):
            # the manager has a new name after `daemon-reexec`. Anyone else may send us such signals
            # too, straight to our address, and libsystemd can't tell: a false UnitRemoved would
            # make a unit vanish from sight
            known = {self._owner, self._name_owner()}
        else:
            known = {self._owner}
        happened: list[UnitChange] = []
        while self._signals:
            sender, member, body = self._signals.popleft()
            if sender in known:
                self._owner = sender
                happened += self._understand(Change(text_of(member)), body)
        return happened

    def _understand(self, change: Change, body: Any) -> Iterator[UnitChange]:
        """Yield the change that a signal reports, if any.

        During a reload the manager signals that every unit is removed and that it is new, which isn't so; and it
        answers no call until it has signalled the end of the reload.
        """
        if change is Change.RELOADED:
            self._reloading = bool(body)
            if self._reloading:
                return
        elif self._reloading and change in (Change.APPEARED, Change.VANISHED):
            return
        if change is Change.RESULT:
            name, (_, properties, _) = body
            if "Result" in (changed := {text_of(key): properties[key] for key in properties}):
                yield UnitChange(change, name, text_of(changed["Result"]))
            return
        yield UnitChange(change, _unit_of(change, body))


def _unit_of(change: Change, body: Any) -> str | None:
    # UnitNew, UnitRemoved: (id, path); JobNew: (id, job, unit); JobRemoved: (id, job, unit, result)
    match change:
        case Change.APPEARED | Change.VANISHED:
            return text_of(body[0])
        case Change.JOB_QUEUED | Change.JOB_DONE:
            return text_of(body[2])
        case Change.RELOADED | Change.RESULT:
            return None


def _is_terse(body: Any) -> bool:
    """Return whether `body` has no more than a signal of the manager: a few numbers, and names and paths of units."""
    parts = body if isinstance(body, list | tuple) else [body]
    return len(parts) <= _MOST_PARTS and all(
        isinstance(part, int) or (isinstance(part, bytes | str) and len(part) <= _LONGEST_PART)
        for part in parts
    )
