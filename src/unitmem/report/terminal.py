"""The console that reports are printed to."""

from __future__ import annotations

import os
from typing import TextIO

from rich.console import Console

UNLIMITED = 1 << 16
"""The width where there is no terminal: a pipe gets whole names, as with systemctl."""


def console_on(file: TextIO) -> Console:
    """Return a console on `file`: as wide as the terminal or $COLUMNS; in colour on a terminal without $NO_COLOR."""
    is_terminal = file.isatty()
    is_plain = not is_terminal or bool(os.environ.get("NO_COLOR"))
    return Console(
        file=file,
        # rich would take $FORCE_COLOR and the like for a terminal
        force_terminal=is_terminal,
        color_system=None if is_plain else "auto",
        width=None if is_terminal or os.environ.get("COLUMNS") else UNLIMITED,
        highlight=False,
        markup=False,
        emoji=False,
    )
