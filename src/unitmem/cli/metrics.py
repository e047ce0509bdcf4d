"""unitmem metrics"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unitmem.cli.completion import Patterns
from unitmem.cli.machine import Machine
from unitmem.cli.notes import note_refused
from unitmem.cli.options import User
from unitmem.record.files import replace_file
from unitmem.tell.exporter import format_of
from unitmem.tell.openmetrics import Format, measures_page, render


def print_metrics(
    context: typer.Context,
    patterns: Patterns = None,
    textfile: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write into this file, not to stdout.")
    ] = None,
    openmetrics: Annotated[
        bool, typer.Option("--openmetrics", help="OpenMetrics, not Prometheus' older text format.")
    ] = False,
    pss: Annotated[
        bool,
        typer.Option(
            "--pss",
            help="Add PSS, USS, SwapPss and RSS. It walks page tables: about 15 ms per GiB, during which each process waits.",
        ),
    ] = False,
    include_all: Annotated[bool, typer.Option("--all", help="Also slices.")] = False,
    user: User = False,
) -> None:
    """Print the memory of units as metrics for Prometheus, once.

    A running watch tells of the units that its policies govern, and of itself: see the option
    --textfile of `watch`. This is for others, every unit unless patterns choose, and may be run by
    a timer. A file is replaced as a whole; one named *.prom is as node_exporter's textfile
    collector takes it, any other is OpenMetrics.
    """
    sample = Machine.of(context).sample(
        patterns or [], user=user, wanted={"pss"} if pss else (), include_all=include_all
    )
    page = measures_page(sample)
    if textfile is None:
        typer.echo(render(page, Format.OPENMETRICS if openmetrics else Format.TEXT), nl=False)
    else:
        form = Format.OPENMETRICS if openmetrics else format_of(textfile)
        replace_file(textfile, render(page, form), durable=False, mode=0o644)
    note_refused(sample.units.values(), "left out")
