"""The console that reports are printed to."""

from __future__ import annotations

import os
from typing import TextIO

from unitmem.report.styled import Text

UNLIMITED = 1 << 16
"""The width where there is no terminal: a pipe gets whole names, as with systemctl."""
_USUAL = 80


class Console:
    """Where lines are printed to: a terminal, a pipe or a file.

    Args:
        file: what is written to.
        width: its columns; None is as many as it has at the moment.
        has_styles: whether it shows them.
    """

    def __init__(self, file: TextIO, width: int | None = None, *, has_styles: bool = False) -> None:
        self.is_terminal = file.isatty()
        self._file = file
        self._width = width
        self._has_styles = has_styles

    @property
    def width(self) -> int:
        """Its columns now: $COLUMNS, or those of the terminal."""
        if self._width is not None:
            return self._width
        columns = os.environ.get("COLUMNS", "")
        if columns.isdecimal() and int(columns):
            return int(columns)
        if not self.is_terminal:
            return UNLIMITED
        try:
            return os.get_terminal_size(self._file.fileno()).columns or _USUAL
        except (OSError, ValueError):
            return _USUAL

    def render(self, line: Text | str) -> str:
        """Return `line` as it is printed here."""
        if isinstance(line, str):
            return line
        return line.rendered() if self._has_styles else line.plain

    def print(self, line: Text | str = "") -> None:
        """Print `line` as it is: neither wrapped nor cropped."""
        self._file.write(f"{self.render(line)}\n")


def console_on(file: TextIO) -> Console:
    """Return a console on `file`: as wide as the terminal or $COLUMNS; in colour on a terminal without $NO_COLOR."""
    is_plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") in ("dumb", "unknown")
    return Console(file, has_styles=file.isatty() and not is_plain)
