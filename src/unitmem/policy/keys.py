"""The keys of the policy language as data: the value that each takes, and its meaning.

The reader of policy files and their JSON Schema both use these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Any

MORE_THAN_NONE = math.ulp(0.0)
"""The least value of a span or size that can't be zero."""


@dataclass(frozen=True, slots=True)
class Span:
    """A span of time, in seconds."""

    least: float = 0.0
    most: float = math.inf
    refusal: str = ""
    """The message for a value that is less or more; `{value}` stands for what was written."""


@dataclass(frozen=True, slots=True)
class Size:
    """A size, in bytes."""

    least: int = 0
    refusal: str = ""
    """The message for a value that is less."""
    or_infinity: bool = False
    """Whether `infinity` may be written as well."""


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number, from 1."""

    most: int


@dataclass(frozen=True, slots=True)
class Choice:
    """One word of an enumeration."""

    of: type[StrEnum]


class Syntax(Enum):
    """Text with a syntax of its own."""

    POLICY_NAME = auto()
    UNIT_PATTERN = auto()
    """The name of a unit, or a glob."""
    UNIT_NAME = auto()
    CONDITION = auto()
    SIGNAL = auto()
    """A signal's name, in any case, with SIG or without."""
    COMMAND = auto()
    """A program by its absolute path; alone, or in a list with its arguments."""
    RANK = auto()
    """What units are ranked by: a measure, or a function of one."""


class Part(Enum):
    """A part of a policy file that has keys of its own."""

    POLICY = auto()
    STEP = auto()
    ACTION = auto()
    BUDGET = auto()
    PICK = auto()


@dataclass(frozen=True, slots=True)
class Items:
    """A list of one item or more."""

    of: Syntax | Part
    item: str = ""
    """The description of an item, for an editor."""


Value = Span | Size | Count | Choice | Syntax | Part | Items


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a mapping."""

    name: str
    value: Value
    meaning: str
    """The description, for an editor."""
    default: Any = None
    """The value if the key is missing; None where that can't be written."""
    is_required: bool = False
    examples: tuple[str, ...] = ()
    field: str = ""
    """The field of the action, where its name differs from the key."""


def names(keys: Sequence[Key]) -> tuple[str, ...]:
    return tuple(key.name for key in keys)


def required(keys: Sequence[Key]) -> tuple[str, ...]:
    return tuple(key.name for key in keys if key.is_required)
