"""What the administrator prefers of a unit when memory is short: ManagedOOMPreference= of systemd.resource-control(5)."""

from __future__ import annotations

import os
from enum import Enum

from unitmem.kernel.cgroup import Cgroup


class OomPreference(Enum):
    """Whether a unit should be picked."""

    NONE = "none"
    AVOID = "avoid"
    """Only when there is no other."""
    OMIT = "omit"
    """Never."""


def read_oom_preference(cgroup: Cgroup) -> OomPreference:
    """Return what systemd has noted at `cgroup` in extended attributes, as systemd-oomd reads it.

    They are in the user's name space, so that whoever owns the cgroup may set them. That counts only for root's and our
    own: nobody else may exempt a unit.
    """
    directory = f"/proc/self/fd/{cgroup.fileno()}"
    try:
        if os.stat(directory).st_uid not in (0, os.geteuid()):
            return OomPreference.NONE
    except OSError:
        return OomPreference.NONE
    for preference in (OomPreference.OMIT, OomPreference.AVOID):
        try:
            if os.getxattr(directory, f"user.oomd_{preference.value}") in _TRUE:
                return preference
        except OSError:  # unset, or not known to this kernel
            continue
    return OomPreference.NONE


_TRUE = (b"1", b"yes", b"y", b"true", b"t", b"on")
