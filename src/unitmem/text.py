"""Text that is safe to print."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with what would break a line or a terminal written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
