"""The machine's own memory, from /proc/meminfo and /proc/pressure/memory.

Reference: proc_meminfo(5); for huge pages Documentation/admin-guide/cgroup-v2.rst, memory_hugetlb_accounting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from unitmem.errors import UnsupportedSystemError
from unitmem.kernel.files import PROC_ROOT, impossible, parse_natural, parse_pressure, why_unread


def parse_meminfo(text: str) -> dict[str, int]:
    """Return the bytes by key of /proc/meminfo, whose `kB` is 1024 bytes; lines without a unit are left out."""
    values = {}
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        number, _, unit = rest.strip().partition(" ")
        if unit == "kB":
            values[key] = parse_natural(number) * 1024
    return values


_PARTS = (
    ("MemFree", "MemTotal"),
    ("MemAvailable", "MemTotal"),
    ("Hugetlb", "MemTotal"),
    ("SwapFree", "SwapTotal"),
)
_FREE_AND_RECLAIMABLE = ("MemFree", "Active(file)", "Inactive(file)", "SReclaimable")


def impossible_meminfo(meminfo: Mapping[str, int]) -> dict[str, str]:
    """Return the reason by key for what can't be true; both a part and its whole where the part is the greater one.

    A container's /proc shows such numbers for seconds, all zeroes among them.
    """
    if meminfo.get("MemTotal") == 0:
        return dict.fromkeys(meminfo, "MemTotal is 0, which can't be true")
    reasons = impossible(meminfo)
    for part, whole in _PARTS:
        known = meminfo.keys() - reasons.keys()
        if {part, whole} <= known and meminfo[part] > meminfo[whole]:
            numbers = f"{part} is {meminfo[part] // 1024} kB, more than {whole} ({meminfo[whole] // 1024} kB)"
            reasons |= dict.fromkeys((part, whole), f"{numbers}, which can't be true")
    return reasons


# --- what was read -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Host:
    """The machine's own memory, in bytes and percent, from /proc/meminfo and /proc/pressure/memory."""

    total: int | None
    available: int | None = None
    swap_total: int | None = None
    swap_free: int | None = None
    pressure: Mapping[str, float] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Why a value is missing, by file."""
    unreclaimable: int | None = None
    """`limit − MemFree − Active(file) − Inactive(file) − SReclaimable`: what the root cgroup can't give back."""
    hugetlb: int = 0
    """Set aside for huge pages of hugetlbfs, where no cgroup is charged for them."""

    @property
    def limit(self) -> int | None:
        """What all cgroups together can be charged for."""
        return None if self.total is None else self.total - self.hugetlb

    def why_unknown(self, key: str) -> str:
        """Return the reason for which what `key` of /proc/meminfo gives is unknown."""
        return self.unknown.get("/proc/meminfo", f"no {key} in /proc/meminfo")


def read_host(proc: Path = PROC_ROOT) -> Host:
    """Read the machine's memory.

    Raises:
        UnsupportedSystemError: /proc/meminfo has no MemTotal, on which every limit depends.
    """
    unknown: dict[str, str] = {}
    try:
        meminfo = parse_meminfo((proc / "meminfo").read_text())
        meminfo["MemTotal"]
    except (OSError, ValueError, KeyError) as error:
        raise UnsupportedSystemError(f"{proc}/meminfo can't be read ({error})", "mount /proc") from None
    if why := impossible_meminfo(meminfo):
        unknown["/proc/meminfo"] = "; ".join(dict.fromkeys(why.values()))
        meminfo = {key: value for key, value in meminfo.items() if key not in why}
    total = meminfo.get("MemTotal")
    hugetlb = meminfo.get("Hugetlb", 0)
    if hugetlb and _charges_hugetlb(proc):
        hugetlb = 0
    unreclaimable = None
    if total is not None and meminfo.keys() >= set(_FREE_AND_RECLAIMABLE):
        unreclaimable = max(0, total - hugetlb - sum(meminfo[key] for key in _FREE_AND_RECLAIMABLE))
    try:
        pressure = parse_pressure((proc / "pressure/memory").read_text())
    except (OSError, ValueError) as error:
        pressure = {}
        unknown["/proc/pressure/memory"] = why_unread("memory.pressure", error)
    return Host(
        total=total,
        available=meminfo.get("MemAvailable"),
        swap_total=meminfo.get("SwapTotal"),
        swap_free=meminfo.get("SwapFree"),
        pressure=pressure,
        unknown=unknown,
        unreclaimable=unreclaimable,
        hugetlb=hugetlb,
    )


def _charges_hugetlb(proc: Path) -> bool:
    """Return whether cgroups are charged for huge pages: the option of the mount is that of the whole machine."""
    try:
        # bytes: users who may mount name their mounts, and of line breaks the kernel escapes \n alone
        mounts = [line.split(b" ") for line in (proc / "self/mounts").read_bytes().split(b"\n")]
    except OSError:
        return True  # rather a limit too wide than a healthy unit above it
    return any(
        fields[2:3] == [b"cgroup2"] and b"memory_hugetlb_accounting" in fields[3].split(b",")
        for fields in mounts
        if len(fields) > 3
    )
