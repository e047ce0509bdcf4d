"""Options that several commands have, so that they mean the same everywhere."""

from __future__ import annotations

from typing import Annotated

import typer

User = Annotated[bool, typer.Option("--user", help="The calling user's own units, not the machine's.")]
Json = Annotated[bool, typer.Option("--json", help="A JSON document; see unitmem(1).")]
