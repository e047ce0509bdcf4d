"""What does a sample of a unit that must be read cost, beside a loop in C over the same files?"""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial

from bench import machine
from bench.table import Answer, Table, Target
from unitmem.kernel.cgroup import Cgroup
from unitmem.kernel.files import CGROUP_ROOT, OpenFiles
from unitmem.kernel.host import read_host
from unitmem.measure.collect import Surroundings, collect
from unitmem.unit import Unit

UNITS = 100
ROUNDS = 21
REPEATS = 20
"""Samples of all units in a round."""


def ask(is_quick: bool) -> Answer:
    names = machine.rest_units(UNITS)
    paths = [f"/{machine.cgroup(name).relative_to(CGROUP_ROOT)}" for name in names]
    units = [Unit(name, control_group=path) for name, path in zip(names, paths, strict=True)]
    host = read_host()
    kept = OpenFiles(8 * UNITS)
    around = Surroundings(CGROUP_ROOT, kept)
    with ExitStack() as stack:
        cgroups = [stack.enter_context(Cgroup(path, CGROUP_ROOT, kept)) for path in paths]

        def all_units(wanted: frozenset[str]) -> None:
            for _ in range(REPEATS):
                around.begin()
                for unit, cgroup in zip(units, cgroups, strict=True):
                    collect(unit, cgroup, host, wanted, around=around, at=time.monotonic())

        def ours(*wanted: str) -> float:
            return machine.cpu_of_call(partial(all_units, frozenset(wanted))) / REPEATS / UNITS

        taken = machine.median_of_turns(
            {
                "C": lambda: machine.loop("sample", REPEATS, *(f"{CGROUP_ROOT}{path}" for path in paths)),
                "unitmem, unreclaimable": lambda: ours("unreclaimable"),
                "unitmem, unreclaimable and limit": lambda: ours("unreclaimable", "limit"),
            },
            ROUNDS // 4 if is_quick else ROUNDS,
        )
    c = taken["C"]
    table = Table(
        "A sample of a unit, µs of CPU",
        ("", "µs", "/ C"),
        [[name, seconds * 1e6, seconds / c] for name, seconds in taken.items()],
        "C reads memory.current, memory.stat, memory.current over kept descriptors, and finds three keys. "
        "The limits of the units and of their slices are read in addition for the last.",
    )
    return Answer(
        [table], [Target("a sample / C over the same files", taken["unitmem, unreclaimable"] / c, 1.5)]
    )
