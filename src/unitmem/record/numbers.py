"""JSON that only has numbers that can be: finite, and within 64 bits."""

from __future__ import annotations

import json
import sys
from typing import Any

INFINITY = 2**64 - 1
"""What systemd writes for no limit, and the largest number that is taken."""
_MOST_DIGITS = 24  # those of a float, or of 64 bits


def load(text: bytes | str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is no JSON, or has a number that is infinite, none at all, or beyond 64 bits.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, parse_constant=_number, parse_int=_number, parse_float=_number)


def finite(value: object) -> float:
    """Return `value` if it is a number.

    Raises:
        ValueError: it is none by its type, NaN, infinite, or more than a float can hold (1e999).
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return value
    raise ValueError(f"{value!r:.40} is not a number")


def _number(text: str) -> float:
    number = int(text[:_MOST_DIGITS]) if text.lstrip("-").isdigit() else float(text)
    if len(text) > _MOST_DIGITS or not -INFINITY <= number <= INFINITY:
        raise ValueError(f"{text:.40} is not a number that was written here")
    return number
