"""How long from the crossing of a threshold to the signal, how much is leaked meanwhile, and who is ended by whom?

Each guard with its default settings, alone. unitmem's threshold is as far below the unit's limit as earlyoom's is from
the end of the machine's memory.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import machine
from bench.machine import EARLYOOM, LOOPS, NOHANG, UNITMEM
from bench.table import Answer, Cell, Table, Target, ratio

RATES = (1, 10, 100, 500)
ROUNDS = 3
LEAK = "bench-leak.service"
CGROUP = Path("/sys/fs/cgroup/system.slice") / LEAK
OUTPUT = Path("/run/bench-leak.out")
MEMINFO = "/proc/meminfo"
ABOVE = 400
"""MiB, unitmem's threshold."""
TIMEOUT = 240.0
POLICY = f"""\
policies:
  - name: leak
    units: ["{LEAK}"]
    steps:
      - {{when: "unreclaimable > {ABOVE}M", do: {{signal: SIGTERM, to: main}}}}
"""
SIGNAL = re.compile(r"signal after ([0-9.]+) ms and ([0-9.]+) MiB")


@dataclass(frozen=True)
class Round:
    milliseconds: float | None
    mib: float | None
    end: str
    """Who ended what."""


def ask(is_quick: bool) -> Answer:
    rates = RATES[1::2] if is_quick else RATES
    taken = {
        (guard, rate): rounds(guard, rate, 1 if is_quick else ROUNDS)
        for guard in (UNITMEM, EARLYOOM, NOHANG)
        for rate in rates
    }
    rows: list[list[Cell]] = []
    targets = []
    for rate in rates:
        medians = {guard: median(taken[guard, rate]) for guard in (UNITMEM, EARLYOOM, NOHANG)}
        best = min(
            (value for guard, value in medians.items() if guard != UNITMEM and value is not None),
            default=None,
        )
        for guard, value in medians.items():
            ends = taken[guard, rate]
            leaked = [each.mib for each in ends if each.mib is not None]
            told = ", ".join(sorted({each.end for each in ends}))
            mib = statistics.median(leaked) if leaked else None
            rows.append([f"{rate} MiB/s", machine.name_of(guard), value, mib, ratio(value, best), told])
        targets.append(
            Target(f"crossing → signal at {rate} MiB/s / the best peer's", ratio(medians[UNITMEM], best), 1.0)
        )
    columns = ("leak", "guard", "ms", "MiB leaked", "/ best peer's", "ended")
    return Answer([Table("From crossing to signal, medians", columns, rows)], targets)


def median(ends: Sequence[Round]) -> float | None:
    """The median in ms; None if it wasn't always the guard."""
    times = [each.milliseconds for each in ends if each.milliseconds is not None]
    return statistics.median(times) if len(times) == len(ends) else None


def rounds(guard: str, rate: int, count: int) -> list[Round]:
    if guard == UNITMEM:
        with machine.watch(POLICY):
            return [leak(guard, rate) for _ in range(count)]
    with machine.started(guard):
        return [leak(guard, rate) for _ in range(count)]


def leak(guard: str, rate: int) -> Round:
    """Let a unit leak until it ends, and return by whom and when."""
    size = meminfo("MemTotal")
    properties = {"StandardOutput": f"file:{OUTPUT}", "OOMPolicy": "continue"}
    if guard == UNITMEM:
        crossing = ["above", ABOVE, CGROUP / "memory.current"]
        properties["MemoryMax"] = f"{ABOVE + size // 10}M"
    elif guard == EARLYOOM:
        # since 1.8, of what processes may use
        crossing = ["below", (meminfo("MemAvailable") + meminfo("AnonPages")) / 10, MEMINFO, "MemAvailable:"]
    else:
        crossing = ["below", size * soft_threshold() / 100, MEMINFO, "MemAvailable:"]
    OUTPUT.unlink(missing_ok=True)
    with machine.transient(
        LEAK, LOOPS, "leak", str(rate), *map(str, crossing), RemainAfterExit="yes", **properties
    ):
        deadline = time.monotonic() + TIMEOUT
        while CGROUP.exists():  # of its end systemd could tell too, but that takes what a guard needs
            if time.monotonic() > deadline:
                return Round(None, None, "nobody")
            time.sleep(0.5)
        result = machine.show(LEAK, "Result")
        text = OUTPUT.read_text()
    if found := SIGNAL.search(text):
        return Round(float(found[1]), float(found[2]), f"the leak by {machine.name_of(guard)}")
    if "before" in text:
        return Round(0.0, 0.0, f"the leak by {machine.name_of(guard)}, before the crossing")
    by = "the kernel" if result == "oom-kill" else f"SIGKILL of {machine.name_of(guard)}"
    return Round(None, None, f"the leak by {by}")


def meminfo(name: str) -> int:
    """A line of /proc/meminfo, in MiB."""
    found = re.search(rf"^{name}: +(\d+) kB", Path(MEMINFO).read_text(), re.MULTILINE)
    return int(found[1]) // 1024 if found else 0


def soft_threshold() -> float:
    """nohang's, in percent, from its configuration."""
    found = re.search(
        r"^soft_threshold_min_mem *= *([0-9.]+) *%", Path("/etc/nohang/nohang.conf").read_text(), re.MULTILINE
    )
    return float(found[1]) if found else 5.0
