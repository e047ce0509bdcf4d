"""The messages of a guard."""

from __future__ import annotations

import logging
import math
import time
from contextlib import suppress
from typing import Any

from unitmem.guard.outcome import GuardEnd, GuardOutcome

_REPEATED = 60.0
"""Seconds after which the same failure is logged again."""
_LEVELS = {
    GuardEnd.KILLED: logging.WARNING,
    GuardEnd.EXITED: logging.INFO,
    GuardEnd.FAILED: logging.ERROR,
    GuardEnd.CANCELLED: logging.INFO,
}


class GuardLog:
    """The messages of one guard, each with the label of its process.

    What the logger raises is ignored: it must not end the guard.
    """

    def __init__(self, log: logging.Logger | logging.LoggerAdapter[Any], label: str) -> None:
        self._log = log
        self._label = label
        self._reported: dict[str, float] = {}

    def write(self, level: int, text: str) -> None:
        with suppress(Exception):
            self._log.log(level, "%s: %s", self._label, text)

    def write_outcome(self, outcome: GuardOutcome) -> None:
        self.write(_LEVELS[outcome.kind], str(outcome))

    def report(self, failure: str, key: str | None = None) -> None:
        """Log a lasting failure once a minute at most; failures with the same key count as the same."""
        key = key or failure
        now = time.monotonic()
        if now - self._reported.get(key, -math.inf) >= _REPEATED:
            self._reported = {key: now}
            self.write(logging.ERROR, failure)
