"""Who may change what a path leads to, judged as sudo and cron judge their files."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path

_MOST_LINKS = 40  # as the kernel has it


def trusted_owners() -> frozenset[int]:
    """Return the IDs of root and of the user that this program runs as.

    The ID that stands for everybody whom a user namespace doesn't know is none of them.
    """
    return frozenset({0, os.geteuid()}) - {unmapped_owner()}


def unmapped_owner() -> int | None:
    """Return the ID that stands for all users from outside of this user namespace; None where each has its own.

    See user_namespaces(7). An ID that somebody within has as well is nobody's from outside, as far as can be told.
    """
    try:
        number = int(Path("/proc/sys/kernel/overflowuid").read_text())
        ranges = parse_id_map(Path("/proc/self/uid_map").read_text())
    except (OSError, ValueError):
        return None
    return None if any(number in within for within in ranges) else number


def parse_id_map(text: str) -> list[range]:
    """Return the IDs within a user namespace by its uid_map.

    Raises:
        ValueError: it has other lines than those of three numbers.
    """
    lines = [tuple(map(int, line.split())) for line in text.splitlines()]
    return [range(first, first + count) for first, _, count in lines]


def distrust(path: Path, owners: Collection[int]) -> str | None:
    """Return why others than `owners` may change what `path` leads to, with the way out; None if they may not.

    Every part of the path has to be owned by one of them, links and what they lead to included, and may be written by
    nobody else; a directory may be if it is sticky, as there only its owner renames or removes a part. A group that a user
    has for itself is nobody else: where each user has one, it may write what the user makes. Where there is nothing at
    `path`, the directories on the way to it are judged.

    In a user namespace, `/` and other directories may belong to somebody outside, most often to the real root. They are
    taken for trusted if nobody else may write them: whoever has them can take a file away, but not make one that
    belongs to `owners`. Of a file or a link from outside, nobody can tell whose it is.

    Args:
        path: of a file or directory.
        owners: user IDs.
    """
    names = list(reversed(path.absolute().parts[1:]))
    at, links, unmapped = Path("/"), 0, unmapped_owner()
    try:
        while links <= _MOST_LINKS:
            status = at.lstat()
            if (why := _fault(at, status, owners, unmapped)) is not None:
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


def _fault(part: Path, status: os.stat_result, owners: Collection[int], unmapped: int | None) -> str | None:
    is_from_outside = status.st_uid == unmapped
    if is_from_outside and not stat.S_ISDIR(status.st_mode):
        return (
            f"{part} belongs to a user from outside of this user namespace, who may be anybody: choose another place, "
            "or run unitmem outside of the namespace"
        )
    if status.st_uid not in owners and not is_from_outside:
        whom = "root" if set(owners) == {0} else "you or root"
        return f"{part} belongs to user {status.st_uid}, and not to {whom}: chown it, or choose another place"
    mode = status.st_mode
    is_shared = stat.S_ISDIR(mode) and mode & stat.S_ISVTX
    is_private = not is_from_outside and mode & stat.S_IWGRP and _is_private(status.st_gid, status.st_uid)
    by_others = mode & stat.S_IWOTH or (mode & stat.S_IWGRP and not is_private)
    if by_others and not is_shared and not stat.S_ISLNK(mode):
        return f"others may write {part} (mode {stat.S_IMODE(mode):04o}): run `chmod go-w {part}`"
    return None


def _is_private(group: int, user: int) -> bool:
    """Return whether `group` is the one of the same name that `user`, who isn't root, has for itself."""
    if user == 0:
        return False
    import grp  # noqa: PLC0415 - next to nobody's files are asked about
    import pwd  # noqa: PLC0415

    try:
        owner, entry = pwd.getpwuid(user), grp.getgrgid(group)
    except KeyError:
        return False
    is_own = owner.pw_gid == group and entry.gr_name == owner.pw_name
    return is_own and set(entry.gr_mem) <= {owner.pw_name}
