"""Invocations as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unitmem.record.numbers import count, text
from unitmem.unit import Invocation


def invocation_document(invocation: Invocation) -> dict[str, Any]:
    """Return the keys by which `invocation` is in a document; `parse_invocation` is the inverse."""
    return {
        "unit": invocation.unit,
        "invocation_id": invocation.invocation_id,
        "inode": invocation.cgroup_inode,
    }


def parse_invocation(document: Mapping[str, Any]) -> Invocation:
    """Return the invocation in `document`.

    Raises:
        ValueError, KeyError, TypeError: there is none, or it can't be true.
    """
    run = document["invocation_id"]
    return Invocation(text(document["unit"]), None if run is None else text(run), count(document["inode"]))
