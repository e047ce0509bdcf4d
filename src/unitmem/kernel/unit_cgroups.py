"""Where the cgroups of a manager's units are, by the names of directories alone.

A manager puts each unit's cgroup into that of its slice, and gives it the unit's name: see systemd.slice(5). What is
below a unit that isn't a slice is the unit's own, and may have any name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from unitmem.kernel.files import CGROUP_ROOT
from unitmem.unit import CGROUP_KINDS, ROOT_SLICE, parent_slice, unit_kind


@dataclass(frozen=True, slots=True)
class Place:
    """The path of a unit's cgroup, and the slice that it is in; None for the slice at which the search began."""

    path: str
    slice: str | None


def find_unit_cgroups(
    top: str, root: Path = CGROUP_ROOT, top_slice: str = ROOT_SLICE
) -> dict[str, Place | None]:
    """Return the place of each unit in a slice and in the slices below it, and of that slice, by the unit's name.

    None stands for a name that is in several slices: which of them is the unit's isn't known here.

    Args:
        top: the path of the cgroup of `top_slice`.
        root: where cgroup v2 is mounted.
        top_slice: the slice to begin at; all units are below the root slice.

    Raises:
        OSError: a directory can't be listed.
    """
    found: dict[str, Place | None] = {top_slice: Place("/" + top.strip("/"), None)}
    for name, place in _below(top.rstrip("/"), top_slice, root):
        found[name] = None if name in found else place
    return found


def _below(path: str, slice_name: str, root: Path) -> Iterator[tuple[str, Place]]:
    try:
        directories = os.listdir(root / path.lstrip("/"))
    except FileNotFoundError:  # removed meanwhile
        return
    for directory in directories:
        # systemd puts an underscore before a name that could be one of the kernel's files
        name = directory.removeprefix("_")
        kind = unit_kind(name)
        # a slice elsewhere than its name says isn't the manager's
        if kind not in CGROUP_KINDS or (kind == "slice" and parent_slice(name) != slice_name):
            continue
        place = Place(f"{path}/{directory}", slice_name)
        yield name, place
        if kind == "slice":
            yield from _below(place.path, name, root)
