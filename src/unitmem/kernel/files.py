"""The kernel's files: their places, parsers of their formats, and the reasons for which they can't be read.

Reference: Documentation/admin-guide/cgroup-v2.rst, Documentation/accounting/psi.rst.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
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


_ENOUGH = 4096
"""The bytes that one read asks for: the kernel writes none of a cgroup's files about memory longer than a page."""
# From here on, a counter is one that fell below zero, in 64 bits.
_BELOW_ZERO = 1 << 63


class OpenFiles:
    """A count of the files that are kept open between two readings.

    The kernel holds 4.6 KiB for each. Those past `most` are opened anew each time, which takes twice as long.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = 0
        self.is_short = False
        """Whether there was no room for a file."""

    def take(self) -> bool:
        """Return whether one more file may be kept open, and count it."""
        if self.count < self.most:
            self.count += 1
            return True
        self.is_short = True
        return False


def read_open(descriptor: int) -> str:
    """Return the text of an open file of cgroupfs as it is now.

    Raises:
        OSError: it can't be read; ENODEV where its cgroup is removed.
    """
    data = chunk = os.pread(descriptor, _ENOUGH, 0)
    while len(chunk) == _ENOUGH:
        chunk = os.pread(descriptor, _ENOUGH, len(data))
        data += chunk
    return data.decode(errors="replace")


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


def find_keyed(text: str, keys: Iterable[str]) -> dict[str, int]:
    """Return the values of those of `keys` that `key value` lines have; no other line is looked at.

    Of some 50 lines of memory.stat a handful is asked for: finding these takes a tenth of parsing all.

    Raises:
        ValueError: a value of them that is not a number.
    """
    text = f"\n{text}"
    values = {}
    for key in keys:
        if (start := text.find(f"\n{key} ")) >= 0:
            start += len(key) + 2
            end = text.find("\n", start)
            values[key] = parse_natural(text[start:] if end < 0 else text[start:end])
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
