"""Journal entries, their priorities, and writing them.

Each entry carries a MESSAGE_ID, and the unit's name in OBJECT_SYSTEMD_UNIT=, by which
`journalctl -u UNIT` shows it among the unit's own messages. See systemd.journal-fields(7).
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TextIO

from unitmem.tell.journald import JOURNALD_SOCKET, Journald


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
    """Writes entries to journald, and their messages to `stream` unless that is connected to journald.

    Nobody is waited for: a message that a full pipe or a stopped terminal has no room for is in the journal alone.
    """

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
        if self._echoes and _has_room(self._stream):
            with suppress(OSError, ValueError):  # nobody reads it any longer, which is no reason to end
                print(entry.message, file=self._stream, flush=True)

    def say(self, priority: Priority, message: str) -> None:
        """Write an entry about the daemon itself."""
        self.write(Entry(priority, message))

    def flush(self) -> None:
        """Send the entries that journald had no room for; keep those that it still has none for."""
        self._journald.flush()

    def close(self) -> None:
        self._journald.close()


def _has_room(stream: TextIO) -> bool:
    """Return whether `stream` takes a line at once, which what has no descriptor does."""
    try:
        return bool(select.select([], [stream], [], 0)[1])
    except (OSError, ValueError):
        return True


def _is_journal(stream: TextIO) -> bool:
    """Return whether `stream` is connected to journald; see JOURNAL_STREAM in systemd.exec(5)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
