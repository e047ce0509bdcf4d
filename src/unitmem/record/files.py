"""Replacing files as a whole."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, text: str, *, durable: bool, mode: int = 0o600) -> None:
    """Write `path` so that a reader, or a crash, leaves the old text or the new one, never a part of it.

    Args:
        path: the file.
        text: the whole new content.
        durable: whether this has to survive a crash of the machine as well, which waits for the disk.
        mode: the permissions of the file.
    """
    temporary = path.with_name(f".{path.name}.new")
    # a crash may have left one; or someone else made it a link, through which root would write elsewhere
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        data = text.encode()
        while data:
            data = data[os.write(descriptor, data) :]
        os.fchmod(descriptor, mode)
        if durable:
            os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
