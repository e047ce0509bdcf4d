"""How do CPU and memory of a watch grow with the number of units, and of processes?"""

from __future__ import annotations

import time

from bench import machine
from bench.machine import LOOPS, QUIET, UNITMEM
from bench.table import Answer, Cell, Table

UNITS = (100, 500, 1000, 2000)
PROCESSES = (500, 5000)
SETTLE = 30.0
SPAN = 60.0
MANY = "bench-many.service"
PSS = f"""\
policies:
  - name: many
    units: ["{MANY}"]
    steps:
      - {{when: "pss > 8G", do: log}}
"""


def ask(is_quick: bool) -> Answer:
    span = SPAN / 3 if is_quick else SPAN
    by_units: list[list[Cell]] = []
    for count in UNITS[:1] if is_quick else UNITS:
        machine.rest_units(count)
        by_units.append([f"{count:,} units", *cost(QUIET, span)])
    machine.stop_rest_units()  # their memory is wanted
    by_processes: list[list[Cell]] = []
    for count in PROCESSES[:1] if is_quick else PROCESSES:
        with machine.transient(MANY, LOOPS, "fork", str(count), TasksMax="infinity"):
            while len(machine.pids(MANY)) <= count:
                time.sleep(1)
            by_processes.append(
                [f"{count:,} processes of a unit, with a condition over PSS", *cost(PSS, span)]
            )
    columns = ("", "PSS, KiB", "CPU, ms a minute")
    return Answer(
        [Table("A watch, by the number of units and processes", columns, [*by_units, *by_processes])]
    )


def cost(policy: str, span: float) -> tuple[float, float]:
    """PSS in KiB, and CPU in ms a minute."""
    with machine.watch(policy):
        time.sleep(SETTLE)
        share = machine.cpu_of([UNITMEM], span)[UNITMEM]
        return machine.memory(UNITMEM).pss, share * 60e3
