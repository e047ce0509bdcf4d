"""Journal entries, their priorities, and writing them.

Each entry carries a MESSAGE_ID, and the unit's name in OBJECT_SYSTEMD_UNIT=, by which
`journalctl -u UNIT` shows it among the unit's own messages. See systemd.journal-fields(7).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TextIO

from unitmem.tell.journald import JOURNALD_SOCKET, Journald
from unitmem.unit import ManagerKind

DECISION_MESSAGE_ID = "d1ecd066ddcc4fde918b1e2af62bf70f"
OUTCOME_MESSAGE_ID = "0764b90c0b544cf4a7569e666628681b"
UNKNOWN_MESSAGE_ID = "03f96251d69c40ff990e76adeab0ef43"
SET_BACK_MESSAGE_ID = "11bb2b14a3934feaae646ddbac4c7893"

# With those of `policy.decision`, all that `explain` reads back
ACTION_FIELD = "UNITMEM_ACTION"
RESULT_FIELD = "UNITMEM_RESULT"
INVOCATION_FIELD = "OBJECT_SYSTEMD_INVOCATION_ID"
OBJECT_FIELDS = {
    ManagerKind.SYSTEM: "OBJECT_SYSTEMD_UNIT",
    ManagerKind.USER: "OBJECT_SYSTEMD_USER_UNIT",
}
"""The field with the unit that an entry is about, by manager."""


class Priority(IntEnum):
    """The log levels of syslog; see sd-daemon(3)."""

    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6


@dataclass(frozen=True, slots=True)
class Entry:
    """One journal entry."""

    priority: Priority
    message: str
    fields: Mapping[str, str | int] = field(default_factory=dict)


class Journal:
    """Writes entries to journald, and their messages to `stream` unless that is connected to journald."""

    def __init__(self, stream: TextIO | None = None, socket: Path = JOURNALD_SOCKET) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._echoes = not _is_journal(self._stream)
        self._journald = Journald(socket)

    def write(self, entry: Entry) -> None:
        self._journald.send(
            {
                "MESSAGE": entry.message,
                "PRIORITY": int(entry.priority),
                "SYSLOG_IDENTIFIER": "unitmem",
                **entry.fields,
            }
        )
        if self._echoes:
            print(entry.message, file=self._stream, flush=True)

    def say(self, priority: Priority, message: str) -> None:
        """Write an entry about the daemon itself."""
        self.write(Entry(priority, message))

    def flush(self) -> None:
        """Send the entries that journald had no room for; keep those that it still has none for."""
        self._journald.flush()

    def close(self) -> None:
        self._journald.close()


def _is_journal(stream: TextIO) -> bool:
    """Return whether `stream` is connected to journald; see JOURNAL_STREAM in systemd.exec(5)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
