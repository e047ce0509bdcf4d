"""How many D-Bus messages does a watch exchange while nothing happens?"""

from __future__ import annotations

import json
import subprocess
import time

from bench import machine
from bench.machine import QUIET, UNITMEM
from bench.table import Answer, Table, Target

UNITS = 100
SETTLE = 20.0
SPAN = 60.0


def ask(is_quick: bool) -> Answer:
    machine.rest_units(UNITS)
    span = SPAN / 3 if is_quick else SPAN
    with machine.watch(QUIET):
        time.sleep(SETTLE)
        names = names_on_bus(int(machine.show(UNITMEM, "MainPID")))
        with subprocess.Popen(
            ["busctl", "monitor", "--json=short"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as monitor:
            time.sleep(span)
            monitor.terminate()
            traced, _ = monitor.communicate()
    messages = [json.loads(line) for line in traced.splitlines()]
    own = [each for each in messages if names & {each.get("sender"), each.get("destination")}]
    table = Table(
        f"D-Bus messages in {span:g} s in which nothing changes, over {UNITS} units",
        ("", "messages"),
        [["from and to unitmem", float(len(own))], ["by all", float(len(messages))]],
        f"unitmem has {len(names)} connection(s) to the bus.",
    )
    return Answer([table], [Target("D-Bus messages in still ticks", float(len(own)), 0)])


def names_on_bus(pid: int) -> set[str]:
    """The unique names that a process has on the bus."""
    connections = json.loads(machine.run("busctl", "list", "--unique", "--json=short"))
    return {each["name"] for each in connections if each["pid"] == pid}
