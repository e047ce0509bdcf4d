"""A policy's content as a JSON document: equal for policies that mean the same, in every version that knows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from enum import Enum, StrEnum
from functools import lru_cache
from typing import Any

from unitmem.policy.action import Action
from unitmem.policy.condition import Condition
from unitmem.policy.model import Budget, Pick, Policy, Step

Fingerprint = Mapping[str, Any]


@lru_cache(maxsize=256)
def fingerprint(policy: Policy) -> Fingerprint:
    """Return all fields of `policy` that are not the default, except for its place in the file.

    So a field that a later version adds changes nothing unless it is used. Names of fields and actions are stored
    on disk: where one is renamed in the code, its name in the fingerprint must stay.
    """
    return _differences(policy)


def _differences(value: Policy | Step | Budget | Pick | Action) -> dict[str, Any]:
    return {
        field.name: _plain(found)
        for field in fields(value)  # type: ignore[arg-type] # every action is a dataclass
        if field.compare and (found := getattr(value, field.name)) != field.default
    }


def _plain(value: Any) -> Any:
    match value:
        case StrEnum():
            return value.value
        case Enum():
            return value.name
        case None | str() | int() | float():
            return value
        case tuple():
            return [_plain(each) for each in value]
        case frozenset():
            return sorted(value)
        case Step() | Budget() | Pick():
            return _differences(value)
        case _ if isinstance(value, Condition):
            return str(value)
        case _:
            return {"name": value.name, **_differences(value)}
