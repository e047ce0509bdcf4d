"""Writing to journald without ever waiting for it: its native protocol over its socket.

See JOURNAL_NATIVE_PROTOCOL of systemd. sd_journal_sendv(3) waits where journald doesn't read, as it may not while
memory is short; a guard has to act just then.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

JOURNALD_SOCKET = Path("/run/systemd/journal/socket")
MAX_KEPT = 1000
"""Entries that wait for a journald that doesn't read; the oldest go first."""

_LONGEST = 48 << 10
"""Characters of a value that are kept: what journald takes of a line."""
_NO_ROOM = (errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED)


class Journald:
    """The socket at `path`. What can't be sent now is sent later; where there is no journald, it is lost."""

    def __init__(self, path: Path = JOURNALD_SOCKET) -> None:
        self._path = str(path)
        self._kept: deque[bytes] = deque(maxlen=MAX_KEPT)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        with suppress(OSError):
            # as libsystemd does: the largest entry is what fits into it
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)

    def send(self, fields: Mapping[str, str | int]) -> None:
        """Write one entry."""
        self._kept.append(b"".join(encode(name, str(value)[:_LONGEST]) for name, value in fields.items()))
        self.flush()

    def flush(self) -> None:
        """Write what is kept, oldest first, as far as journald takes it."""
        while self._kept:
            try:
                self._socket.sendto(self._kept[0], self._path)
            except OSError as error:
                if error.errno in _NO_ROOM:
                    return
            self._kept.popleft()

    def close(self) -> None:
        self.flush()
        self._socket.close()


def encode(name: str, value: str) -> bytes:
    """One field, as the protocol has it."""
    data = value.encode(errors="surrogateescape")
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
