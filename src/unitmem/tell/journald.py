"""Writing to journald's socket in its native protocol, without ever waiting.

See JOURNAL_NATIVE_PROTOCOL of systemd. sd_journal_sendv(3) waits if journald doesn't read, which may be so while
memory is short, and just then the watch has to act.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from unitmem.text import plural

JOURNALD_SOCKET = Path("/run/systemd/journal/socket")
MAX_KEPT = 1000
"""The most entries that are kept while journald doesn't read; the oldest are dropped first, and counted."""

_LONGEST = 48 << 10
"""The length to which values are cut, in characters: journald's limit of a line."""
_NO_ROOM = (errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED)


class Journald:
    """A writer to the socket at `path`: entries that can't be sent now are kept, or dropped without a journald."""

    def __init__(self, path: Path = JOURNALD_SOCKET) -> None:
        self._path = str(path)
        self._kept: deque[bytes] = deque()
        self._dropped = 0
        """How many entries were dropped since journald last read one."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        with suppress(OSError):
            # as libsystemd does: the largest entry is what fits into it
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)

    def send(self, fields: Mapping[str, str | int]) -> None:
        """Write one entry."""
        self._kept.append(_entry(fields))
        self.flush()
        if len(self._kept) > MAX_KEPT:
            self._kept.popleft()
            self._dropped += 1

    def flush(self) -> None:
        """Send the kept entries, oldest first, as far as journald accepts them; before them, how many were dropped."""
        if self._dropped and self._is_taken(_entry(_loss(self._dropped))):
            self._dropped = 0
        while self._kept and not self._dropped and self._is_taken(self._kept[0]):
            self._kept.popleft()

    def _is_taken(self, entry: bytes) -> bool:
        """Return whether nothing more is to be done about `entry`: it is sent, or can't be sent ever."""
        try:
            self._socket.sendto(entry, self._path)
        except OSError as error:
            return error.errno not in _NO_ROOM
        return True

    def close(self) -> None:
        self.flush()
        self._socket.close()


def _entry(fields: Mapping[str, str | int]) -> bytes:
    return b"".join(encode(name, str(value)[:_LONGEST]) for name, value in fields.items())


def _loss(count: int) -> dict[str, str | int]:
    return {
        "MESSAGE": f"{plural(count, 'entry', 'entries')} of unitmem lost before this one, as journald did not read for "
        "a while; decisions and outcomes are in the history",
        "PRIORITY": 4,
        "SYSLOG_IDENTIFIER": "unitmem",
    }


def encode(name: str, value: str) -> bytes:
    """Return one field in the protocol's encoding."""
    data = value.encode(errors="surrogateescape")
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
