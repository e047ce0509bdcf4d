"""The events in a history, and the file that has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

FILE_NAME = "history.sqlite"
VERSION = 2
"""The version of the tables; those of 0.1 are 1."""


class EventKind(StrEnum):
    """The kinds of events in a history."""

    DECISION = "decision"
    """A decision, which was withheld if it has an obstacle."""
    OUTCOME = "outcome"
    """The outcome of a decision."""
    UNKNOWN = "unknown"
    """A condition can't be judged."""
    SET_BACK = "set back"
    """A property was set back."""
    RESET = "reset"
    """Somebody has given budgets back, and ended cooldowns."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event about a unit."""

    at: float
    """Wall clock, in seconds."""
    kind: EventKind
    unit: str
    message: str
    """The message, as in the journal."""
    run: str | None = None
    """The InvocationID."""
    policy: str | None = None
    step: int | None = None
    """The number of the step, from 1."""
    action: str | None = None
    result: str | None = None
    obstacle: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    """`findings`, `held`, `processes`, and others by kind."""
