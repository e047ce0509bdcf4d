"""The kernel's files: their places, parsers of their formats, and the reasons for which they can't be read.

Reference: Documentation/admin-guide/cgroup-v2.rst, Documentation/accounting/psi.rst.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

from unitmem.errors import reason_of

CGROUP_ROOT = Path("/sys/fs/cgroup")
PROC_ROOT = Path("/proc")

PRESSURE_KINDS = ("some", "full")
PRESSURE_WINDOWS = ("avg10", "avg60", "avg300")

# A file a machine's cgroup may lack, and what that means there.
_MISSING = {
    "memory.peak": "needs Linux 5.19",
    "memory.zswap.current": "the kernel has no zswap, or is older than 5.19",
    "memory.swap.current": "the kernel does no swap accounting",
    "memory.swap.max": "the kernel does no swap accounting",
    "memory.pressure": "pressure accounting is off (boot with psi=1)",
}


# From here on, a counter is one that fell below zero, in 64 bits.
_BELOW_ZERO = 1 << 63


# --- parsers -----------------------------------------------------------------------------------


def parse_counter(text: str) -> int | None:
    """Return the number in a one-value file such as memory.current; `max` is None, no limit.

    Raises:
        ValueError: it is neither a number nor `max`.
    """
    value = text.strip()
    return None if value == "max" else parse_natural(value)


def parse_flat_keyed(text: str) -> dict[str, int]:
    """Parse `key value` lines, as in memory.stat and memory.events.

    Raises:
        ValueError: a line that has no such form.
    """
    values = {}
    for line in text.splitlines():
        key, separator, value = line.partition(" ")
        if not separator:
            raise ValueError(f"not a `key value` line: {line!r}")
        values[key] = parse_natural(value)
    return values


def parse_pressure(text: str) -> dict[str, float]:
    """Return the percentages of a PSI file, by `some.avg10` … `full.avg300`; Documentation/accounting/psi.rst.

    Raises:
        ValueError: a line that has no such form.
    """
    values = {}
    for line in text.splitlines():
        kind, *pairs = line.split()
        for pair in pairs:
            key, separator, value = pair.partition("=")
            if not separator:
                raise ValueError(f"not a `key=value` pair: {pair!r}")
            if key in PRESSURE_WINDOWS:
                if not value.replace(".", "", 1).isdecimal():  # float() takes nan as well
                    raise ValueError(f"not a percentage: {pair!r}")
                values[f"{kind}.{key}"] = float(value)
    return values


def parse_natural(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"not a number: {text!r}")
    return int(text)


def impossible(values: Mapping[str, int]) -> dict[str, str]:
    """Return the reason by key for those of `values` that can't be true."""
    return {
        key: f"{key} is {value}, which can't be true" for key, value in values.items() if value >= _BELOW_ZERO
    }


def why_unread(name: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return _MISSING.get(name, "the file is missing (MemoryAccounting=no?)")
    if isinstance(error, OSError):
        if error.errno == errno.EOPNOTSUPP and name == "memory.pressure":
            return _MISSING[name]
        return reason_of(error)
    return str(error)
