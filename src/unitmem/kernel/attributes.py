"""What systemd has noted at a cgroup in extended attributes."""

from __future__ import annotations

import os

from unitmem.kernel.cgroup import Cgroup

INVOCATION_ID = "user.invocation_id"
"""The run of the unit whose cgroup it is, as 32 hex digits; older versions of systemd don't set it."""


def read_attribute(cgroup: Cgroup, name: str) -> str | None:
    """Return an attribute of `cgroup` in the user's name space; None if it isn't set, or not to be trusted.

    Whoever owns the cgroup may set it, so only those of root's and our own count.
    """
    directory = f"/proc/self/fd/{cgroup.fileno()}"
    try:
        if os.stat(directory).st_uid not in (0, os.geteuid()):
            return None
        return os.getxattr(directory, name).decode(errors="replace")
    except OSError:  # unset, or not known to this kernel
        return None
