"""The console that reports are printed to, and what it takes from its surroundings."""

from __future__ import annotations

import os
from typing import TextIO

from rich.console import Console

UNLIMITED = 1 << 16
"""Columns of what is no terminal: a pipe gets whole names, as systemctl does it."""


def console_on(file: TextIO) -> Console:
    """A console on `file`: as wide as its terminal or `$COLUMNS`, coloured on a terminal unless `$NO_COLOR` is set."""
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
