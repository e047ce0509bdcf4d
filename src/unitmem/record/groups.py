"""The groups of steps that pick as JSON: what each has picked, and what it waits for."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from unitmem.policy.groups import Group, GroupKey, Picked
from unitmem.record.invocations import invocation_document, parse_invocation
from unitmem.record.numbers import finite


def group_document(key: GroupKey, picked: Picked, group: Group) -> dict[str, Any]:
    """Return `group`, which has `picked`, as a JSON document; `parse_group` is the inverse, but for the time held."""
    policy, step, level = key
    return {
        "policy": policy,
        "step": step,
        "level": level,
        **invocation_document(picked.invocation),
        "at": picked.at,
        "settle": picked.settle,
        "due_by": None if picked.due_by == inf else picked.due_by,
        "counts_from": group.counts_from,
        "failed": sorted([run.unit, run.invocation_id or "", run.cgroup_inode] for run in group.failed),
    }


def parse_group(document: Mapping[str, Any], shift: float) -> tuple[GroupKey, Group]:
    """Return the key and the group in `document`.

    Args:
        document: as `group_document` has made it.
        shift: seconds to add to every time in it to convert it to the clock in use.

    Raises:
        ValueError, KeyError, TypeError: it is none, or it can't be true.
    """

    def moved(at: float | None) -> float | None:
        return None if at is None else finite(at) + shift

    picked = Picked(
        parse_invocation(document),
        finite(document["at"]) + shift,
        finite(document["settle"]),
        moved(document["due_by"]),
    )
    key = str(document["policy"]), int(finite(document["step"])), str(document["level"])
    failed = frozenset(
        parse_invocation({"unit": unit, "invocation_id": run or None, "inode": inode})
        for unit, run, inode in document["failed"]
    )
    return key, Group(picked=picked, counts_from=moved(document["counts_from"]), failed=failed)
