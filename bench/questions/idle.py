"""How much CPU does each guard take: while nothing happens, with ten units near their thresholds, on a busy machine?"""

from __future__ import annotations

import time
from dataclasses import dataclass

from bench import machine
from bench.machine import GUARDS, LOOPS, NOHANG, QUIET, UNITMEM
from bench.table import Answer, Cell, Table, Target, ratio

SETTLE = 20.0
SPAN = 60.0
NEAR = 10
NEAR_POLICY = (
    QUIET
    + f"""\
  - name: near
    units: [{", ".join(f'"bench@{number}.service"' for number in range(1, NEAR + 1))}]
    steps:
      - {{when: "unreclaimable > 200M", do: log}}
"""
)
POLL = "bench-poll.service"
CHURN = "bench-churn.service"
INTERVAL = 2.0
"""unitmem's own, at which the loop in C polls."""


@dataclass(frozen=True)
class Case:
    units: int
    policy: str = QUIET
    is_busy: bool = False

    @property
    def name(self) -> str:
        if self.is_busy:
            return f"{self.units} units, and one that allocates and frees"
        return f"{self.units} units" + (f", {NEAR} of them near" if self.policy is NEAR_POLICY else "")


def ask(is_quick: bool) -> Answer:
    cases = [Case(10), Case(100), Case(100, NEAR_POLICY)]
    cases += [Case(100, is_busy=True)] if is_quick else [Case(1000), Case(1000, is_busy=True)]
    taken = {case: measure(case, SPAN / 3 if is_quick else SPAN) for case in cases}
    columns = (*GUARDS, POLL)
    rows: list[list[Cell]] = [
        [
            case.name,
            *(taken[case][unit] * 60e3 for unit in columns),
            ratio(taken[case][UNITMEM], taken[case][NOHANG]),
        ]
        for case in cases
    ]
    table = Table(
        "CPU of a daemon, ms a minute",
        ("", *map(machine.name_of, columns), "unitmem / nohang"),
        rows,
        f"{machine.name_of(POLL)} is a loop in C that reads memory.current of each unit every {INTERVAL:g} s. "
        f"A near unit is within 256 MiB of its threshold, the others are more than 4 GiB away.",
    )
    return Answer([table], targets(taken))


def measure(case: Case, span: float) -> dict[str, float]:
    """The share of a CPU that each guard takes, and the loop in C."""
    cgroups = [machine.cgroup(unit) for unit in (machine.rest_units(case.units))]
    with (
        machine.guards(case.policy),
        machine.transient(POLL, LOOPS, "poll", str(INTERVAL), *cgroups, LimitNOFILE="65536"),
    ):
        if case.is_busy:
            with machine.transient(CHURN, LOOPS, "churn", "64"):
                return settled(SETTLE / 4, span / 3)  # each second of it takes one of a core, emulated many
        return settled(SETTLE, span)


def settled(settle: float, span: float) -> dict[str, float]:
    time.sleep(settle)
    return machine.cpu_of((*GUARDS, POLL), span)


def targets(taken: dict[Case, dict[str, float]]) -> list[Target]:
    def share(case: Case, unit: str = UNITMEM) -> float | None:
        return taken[case][unit] if case in taken else None

    few, near, many = Case(100), Case(100, NEAR_POLICY), Case(1000)
    busy = Case(1000, is_busy=True)
    of_core = share(busy)
    return [
        Target("CPU over 100 units / nohang's", ratio(share(few), share(few, NOHANG)), 5),
        Target("CPU over 1,000 units / over 100", ratio(share(many), share(few)), 3),
        Target("CPU over 100 units, 10 of them near / nohang's", ratio(share(near), share(near, NOHANG)), 20),
        Target("CPU over 1,000 units on a busy machine / C", ratio(of_core, share(busy, POLL)), 3),
        Target("CPU over 1,000 units on a busy machine, of a core", of_core and of_core * 100, 2, unit=" %"),
    ]
