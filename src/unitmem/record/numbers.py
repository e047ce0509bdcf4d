"""Numbers in JSON: what can be one, and what only looks like it."""

from __future__ import annotations

import json
import sys
from typing import Any

INFINITY = 2**64 - 1
"""What systemd writes for no limit."""
_MOST_DIGITS = 24  # those of 64 bits, and more


def load(text: bytes | str) -> Any:
    """Return the value of a JSON text; an integer that no machine has is a float, infinite if need be.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, parse_int=_integer)


def finite(value: object) -> float:
    """Return `value` if it is a number.

    Raises:
        ValueError: it is none by its type, NaN, infinite, or more than a float can hold (1e999).
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return value
    raise ValueError(f"{value!r:.40} is not a number")


def _integer(text: str) -> float:
    # Python refuses thousands of digits with an error of its own, and takes long for hundreds
    return int(text) if len(text) <= _MOST_DIGITS else float(text)
