"""The machine's own memory, from /proc/meminfo and /proc/pressure/memory.

Reference: proc_meminfo(5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from unitmem.errors import UnsupportedSystemError
from unitmem.kernel.files import PROC_ROOT, parse_natural, parse_pressure, why_unread


def parse_meminfo(text: str) -> dict[str, int]:
    """Return the bytes by key of /proc/meminfo, whose `kB` is 1024 bytes; lines without a unit are left out."""
    values = {}
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        number, _, unit = rest.strip().partition(" ")
        if unit == "kB":
            values[key] = parse_natural(number) * 1024
    return values


# --- what was read -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Host:
    """The machine's own memory, in bytes and percent, from /proc/meminfo and /proc/pressure/memory."""

    total: int
    available: int | None = None
    swap_total: int | None = None
    swap_free: int | None = None
    pressure: Mapping[str, float] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Why a value is missing, by file name."""


def read_host(proc: Path = PROC_ROOT) -> Host:
    """Read the machine's memory.

    Raises:
        UnsupportedSystemError: /proc/meminfo has no MemTotal, on which every limit depends.
    """
    unknown = {}
    try:
        meminfo = parse_meminfo((proc / "meminfo").read_text())
        total = meminfo["MemTotal"]
    except (OSError, ValueError, KeyError) as error:
        raise UnsupportedSystemError(f"{proc}/meminfo can't be read ({error})", "mount /proc") from None
    try:
        pressure = parse_pressure((proc / "pressure/memory").read_text())
    except (OSError, ValueError) as error:
        pressure = {}
        unknown["memory.pressure"] = why_unread("memory.pressure", error)
    return Host(
        total=total,
        available=meminfo.get("MemAvailable"),
        swap_total=meminfo.get("SwapTotal"),
        swap_free=meminfo.get("SwapFree"),
        pressure=pressure,
        unknown=unknown,
    )
