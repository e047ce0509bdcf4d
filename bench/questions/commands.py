"""How long does a command take, beside systemctl and a Python that does nothing?"""

from __future__ import annotations

import os
import subprocess
import time
from functools import partial

from bench import machine
from bench.table import Answer, Cell, Table, Target, ratio

ROUNDS = 5
PYTHON = "python3 -c ''"
SYSTEMCTL = "systemctl list-units"
COMMANDS = {
    PYTHON: ["/usr/bin/python3", "-c", ""],
    SYSTEMCTL: ["systemctl", "list-units", "--all", "--no-pager"],
    "unitmem list": ["unitmem", "list"],
    "unitmem show bench@1": ["unitmem", "show", "bench@1"],
    "unitmem --version": ["unitmem", "--version"],
    "unitmem --help": ["unitmem", "--help"],
    "unitmem TAB": ["unitmem"],
    "unitmem show b TAB": ["unitmem"],
    "unitmem check": ["unitmem", "check", "/usr/share/doc/unitmem/examples/first-look.yaml"],
}
TYPED = {"unitmem TAB": ("unitmem\n", "1"), "unitmem show b TAB": ("unitmem\nshow\nb", "2")}
"""What stands before the cursor, a word a line, and the number of the word that it is in."""


def ask(is_quick: bool) -> Answer:
    units = 100 if is_quick else 500
    machine.rest_units(units)
    ways = {name: partial(wall, name) for name in COMMANDS}
    for way in ways.values():
        way()  # what is read and compiled the first time
    taken = machine.median_of_turns(ways, ROUNDS)
    bare = taken[PYTHON]
    rows: list[list[Cell]] = [[name, seconds * 1e3, ratio(seconds, bare)] for name, seconds in taken.items()]
    title = f"Commands on a machine of {units} units, wall time in ms, the median of {ROUNDS}"
    return Answer(
        [Table(title, ("", "ms", "bare Pythons"), rows)],
        [
            Target(
                "`unitmem list` / (`systemctl list-units` + bare Python)",
                taken["unitmem list"] / (taken[SYSTEMCTL] + bare),
                3,
            ),
            Target("`unitmem --version` / bare Python", taken["unitmem --version"] / bare, 2),
            Target("a TAB / bare Python", taken["unitmem TAB"] / bare, 2),
        ],
    )


def wall(name: str) -> float:
    environment = dict(os.environ)
    if name in TYPED:
        words, number = TYPED[name]
        environment |= {"_UNITMEM_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": number}
    began = time.monotonic()
    subprocess.run(
        COMMANDS[name], check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.monotonic() - began
