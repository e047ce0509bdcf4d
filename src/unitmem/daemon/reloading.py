"""The answer to ExecReload= of the service: whether the policy file was loaded, by which `systemctl reload` succeeds."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

FILE_NAME = "reload"
"""The FIFO in the runtime directory that ExecReload= reads from."""


def answer_reload(directory: Path | None, *, is_loaded: bool) -> None:
    """Write `loaded` or `refused` to the FIFO in `directory` if somebody reads it; nobody is waited for."""
    if directory is None:
        return
    # there is none, or nobody reads it, where the file is read again because of a signal alone
    with suppress(OSError):
        fifo = os.open(directory / FILE_NAME, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if stat.S_ISFIFO(os.fstat(fifo).st_mode):
                os.write(fifo, b"loaded\n" if is_loaded else b"refused\n")
        finally:
            os.close(fifo)
