"""Overrides as JSON: the former values of properties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unitmem.policy.actions import SetProperties
from unitmem.policy.decision import Override
from unitmem.record.numbers import INFINITY, finite
from unitmem.unit import is_unit_name

_SETTABLE = frozenset(key.name for key in SetProperties.own_keys())


def override_document(override: Override) -> dict[str, Any]:
    """Return `override` as a JSON document; `parse_override` is the inverse."""
    return {"policy": override.policy, "unit": override.unit, "former": dict(override.former)}


def parse_override(document: Mapping[str, Any]) -> Override:
    """Return the override in `document`.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is none, or no unit can have such a property.
    """
    former = {
        str(name): None if size is None else int(finite(size)) for name, size in document["former"].items()
    }
    sizes = [size for size in former.values() if size is not None]
    if not (
        is_unit_name(document["unit"])
        and former.keys() <= _SETTABLE
        and all(0 <= size < INFINITY for size in sizes)
    ):
        raise ValueError("no unit has such a property")
    return Override(str(document["policy"]), document["unit"], former)
