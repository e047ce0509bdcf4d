"""Numbers and texts in JSON: what can be one, and what only looks like it."""

from __future__ import annotations

import json
import sys
from typing import Any

INFINITY = 2**64 - 1
"""What systemd writes for no limit."""
_MOST_DIGITS = 24  # those of 64 bits, and more


def load(document: bytes | str) -> Any:
    """Return the value of a JSON document; an integer that no machine has is a float, infinite if need be.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is nested too deeply.
    """
    return json.loads(document, parse_int=_integer)


def finite(value: object) -> float:
    """Return `value` if it is a number.

    Raises:
        ValueError: it is none by its type, NaN, infinite, or more than a float can hold (1e999).
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return value
    raise ValueError(f"{value!r:.40} is not a number")


def count(value: object) -> int:
    """Return `value` if it is a whole number that 64 bits can hold.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
        raise ValueError(f"{value!r:.40} is not a count")
    return value


def text(value: object) -> str:
    """Return `value` if it is a text.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not a text")
    return value


def _integer(digits: str) -> float:
    # Python refuses thousands of digits with an error of its own, and takes long for hundreds
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)
