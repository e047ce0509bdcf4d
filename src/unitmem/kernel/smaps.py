"""The sizes in smaps_rollup: proc_pid_smaps(5), Documentation/filesystems/proc.rst."""

from __future__ import annotations

import re

from unitmem.kernel.files import impossible

WANTED = ("Pss", "Private_Clean", "Private_Dirty", "Shared_Hugetlb", "Private_Hugetlb", "SwapPss")
"""The keys of what a process has, in the kernel's order."""

_SIZE_LINE = re.compile(r"^(\w+): +(\d{1,18}) kB$", re.MULTILINE | re.ASCII)
# 2^63 bytes have 16 digits in kB
_PSS_LINE = re.compile(rb"^Pss: +(\d{1,15}) kB$", re.MULTILINE)
_WANTED_LINES = re.compile(
    r"(?:.*\n)*?".join(rf"^{key}: +(\d{{1,15}}) kB\n" for key in WANTED), re.MULTILINE | re.ASCII
)


def parse_smaps_rollup(text: str) -> dict[str, int]:
    """Return bytes by key (`Rss`, `Pss`, `Private_Dirty`, …) of smaps_rollup, or their sums over a whole smaps.

    Raises:
        ValueError: it has no Pss in kB, as that of a zombie, or a size that can't be true.
    """
    sizes: dict[str, int] = {}
    for key, size in _SIZE_LINE.findall(text):
        sizes[key] = sizes.get(key, 0) + int(size) * 1024
    if "Pss" not in sizes:
        raise ValueError("no Pss in it")
    if why := impossible(sizes):
        raise ValueError("; ".join(why.values()))
    return sizes


def parse_wanted(rollup: str) -> dict[str, int]:
    """Return what `parse_smaps_rollup` does of smaps_rollup, and where it has all of `WANTED` no more than these.

    Raises:
        ValueError: as `parse_smaps_rollup`.
    """
    found = _WANTED_LINES.search(rollup)
    if found is None:
        return parse_smaps_rollup(rollup)
    return {key: int(size) * 1024 for key, size in zip(WANTED, found.groups(), strict=True)}


def find_pss(rollup: bytes) -> int | None:
    """Return PSS in bytes; None where it isn't in smaps_rollup in the usual form."""
    found = _PSS_LINE.search(rollup)
    return None if found is None else int(found[1]) * 1024
