"""How much memory does each guard take, while nothing happens on a machine of a hundred units?"""

from __future__ import annotations

import sys
import time

from bench import machine
from bench.machine import BARE, GUARDS, NOHANG, QUIET, UNITMEM
from bench.table import Answer, Cell, Table, Target, ratio

UNITS = 100
SETTLE = 30.0
"""Seconds until a daemon has looked several times, and has what it needs."""


def ask(is_quick: bool) -> Answer:
    machine.rest_units(UNITS)
    with (
        machine.guards(QUIET),
        machine.transient(BARE, sys.executable, "-c", "import time; time.sleep(9999)"),
    ):
        time.sleep(SETTLE / 3 if is_quick else SETTLE)
        taken = {unit: machine.memory(unit) for unit in (*GUARDS, BARE)}
    least = taken[NOHANG].pss
    rows: list[list[Cell]] = [
        [machine.name_of(unit), memory.rss, memory.pss, memory.private, ratio(memory.pss, least)]
        for unit, memory in sorted(taken.items(), key=lambda item: item[1].pss)
    ]
    return Answer(
        [
            Table(
                f"Memory of a daemon over {UNITS} units, KiB",
                ("", "RSS", "PSS", "private", "PSS / nohang's"),
                rows,
            )
        ],
        [Target("PSS over 100 units / nohang's", ratio(taken[UNITMEM].pss, least), 1.0)],
    )
