"""What is preferred of a unit when memory is short: ManagedOOMPreference= of systemd.resource-control(5)."""

from __future__ import annotations

from enum import Enum

from unitmem.kernel.attributes import read_attribute
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
    for preference in (OomPreference.OMIT, OomPreference.AVOID):
        if read_attribute(cgroup, f"user.oomd_{preference.value}") in _TRUE:
            return preference
    return OomPreference.NONE


_TRUE = ("1", "yes", "y", "true", "t", "on")
