"""Who may change what a path leads to, judged as sudo and cron judge their files."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path

_WRITABLE = stat.S_IWGRP | stat.S_IWOTH
_MOST_LINKS = 40  # as the kernel has it


def trusted_owners() -> frozenset[int]:
    """Return the IDs of root and of the user that this program runs as."""
    return frozenset({0, os.geteuid()})


def distrust(path: Path, owners: Collection[int]) -> str | None:
    """Return why others than `owners` may change what `path` leads to, with the way out; None if they may not.

    Every part of the path has to be owned by one of them, links and what they lead to included, and may be written by
    nobody else; a directory may be if it is sticky, as there only its owner renames or removes a part. Where there is
    nothing at `path`, the directories on the way to it are judged.

    Args:
        path: of a file or directory.
        owners: user IDs.
    """
    names = list(reversed(path.absolute().parts[1:]))
    at, links = Path("/"), 0
    try:
        while links <= _MOST_LINKS:
            status = at.lstat()
            if (why := _fault(at, status, owners)) is not None:
                return why
            if stat.S_ISLNK(status.st_mode):
                links += 1
                target = at.readlink()
                names += reversed(target.parts[target.is_absolute() :])
                at = Path("/") if target.is_absolute() else at.parent
            elif names:
                name = names.pop()
                at = at.parent if name == ".." else at / name
            else:
                return None
    except OSError:
        pass
    return None  # what can't be looked at can't be opened either


def _fault(part: Path, status: os.stat_result, owners: Collection[int]) -> str | None:
    if status.st_uid not in owners:
        whom = "root" if set(owners) == {0} else "you or root"
        return f"{part} belongs to user {status.st_uid}, and not to {whom}: chown it, or choose another place"
    mode = status.st_mode
    is_shared = stat.S_ISDIR(mode) and mode & stat.S_ISVTX
    if mode & _WRITABLE and not is_shared and not stat.S_ISLNK(mode):
        return f"others may write {part} (mode {stat.S_IMODE(mode):04o}): run `chmod go-w {part}`"
    return None
