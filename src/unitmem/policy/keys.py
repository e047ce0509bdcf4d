"""Keys of the policy language as values: what is written for each, and what it means.

The reader of policy files and their JSON Schema both go by these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Any

MORE_THAN_NONE = math.ulp(0.0)
"""For the least value of what can't be zero."""


@dataclass(frozen=True, slots=True)
class Span:
    """A span of time, in seconds."""

    least: float = 0.0
    most: float = math.inf
    refusal: str = ""
    """What is wrong with less or more; `{value}` stands for what was written."""


@dataclass(frozen=True, slots=True)
class Size:
    """A size, in bytes."""

    least: int = 0
    refusal: str = ""
    """What is wrong with less."""
    or_infinity: bool = False
    """Whether `infinity` may be written, too."""


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number, from 1."""

    most: int


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some words."""

    of: type[StrEnum]


class Syntax(Enum):
    """Text with rules of its own."""

    POLICY_NAME = auto()
    UNIT_PATTERN = auto()
    """The name of a unit, or a glob."""
    UNIT_NAME = auto()
    CONDITION = auto()
    SIGNAL = auto()
    """A signal's name, in any case, with SIG or without."""
    COMMAND = auto()
    """A program by its absolute path; alone, or in a list with its arguments."""


class Part(Enum):
    """What has keys of its own."""

    POLICY = auto()
    STEP = auto()
    ACTION = auto()
    BUDGET = auto()


@dataclass(frozen=True, slots=True)
class Items:
    """A list that isn't empty."""

    of: Syntax | Part
    item: str = ""
    """What each is, for an editor."""


Value = Span | Size | Count | Choice | Syntax | Part | Items


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a mapping."""

    name: str
    value: Value
    meaning: str
    """Sentences that an editor shows."""
    default: Any = None
    """What its absence means; None where that is no value that could be written."""
    is_required: bool = False
    examples: tuple[str, ...] = ()
    field: str = ""
    """What an action calls it, where that is another name."""


def names(keys: Sequence[Key]) -> tuple[str, ...]:
    return tuple(key.name for key in keys)


def required(keys: Sequence[Key]) -> tuple[str, ...]:
    return tuple(key.name for key in keys if key.is_required)
