"""What does it cost to read PSS of many processes, beside a loop in C, psutil and smem?"""

from __future__ import annotations

import psutil

from bench import machine
from bench.table import Answer, Table, Target
from unitmem.kernel.processes import Pins

PROCESSES = 200
ROUNDS = 21
UNIT = "bench-processes.service"
SLEEPERS = f"for _ in $(seq {PROCESSES}); do sleep 9999 & done; wait"
"""Programs with a libc, as most are: what a small static one maps is hardly worth reading."""


def ask(is_quick: bool) -> Answer:
    with machine.transient(UNIT, "/bin/sh", "-c", SLEEPERS, TasksMax="infinity"), Pins() as pins:
        pids = machine.pids(UNIT)
        while len(pids) <= PROCESSES:
            pids = machine.pids(UNIT)
        processes = [pins.read(pid) for pid in pids]  # their pins are kept from when RSS was read
        others = [psutil.Process(pid) for pid in pids]
        taken = machine.median_of_turns(
            {
                "C": lambda: machine.loop("pss", 1, *pids),
                "unitmem": lambda: (
                    machine.cpu_of_call(lambda: [pins.with_pss(each) for each in processes]) / len(pids)
                ),
                "psutil": lambda: (
                    machine.cpu_of_call(lambda: [each.memory_full_info() for each in others]) / len(pids)
                ),
            },
            ROUNDS // 4 if is_quick else ROUNDS,
        )
        everything = sum(1 for _ in psutil.process_iter())
        taken["smem"] = machine.cpu_of_command("smem", "--columns=pss", "--no-header") / everything
    ours = taken["unitmem"]
    table = Table(
        f"PSS of {PROCESSES} processes, µs of CPU each",
        ("", "µs", "/ C", "/ unitmem"),
        [[name, seconds * 1e6, seconds / taken["C"], seconds / ours] for name, seconds in taken.items()],
        "smem lists all processes of the machine, and its start counts.",
    )
    return Answer(
        [table],
        [
            Target(f"PSS of {PROCESSES} processes / C", ours / taken["C"], 1.3),
            Target(
                f"PSS of {PROCESSES} processes, psutil / unitmem", taken["psutil"] / ours, 1.2, at_least=True
            ),
        ],
    )
