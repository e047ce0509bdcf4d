"""What does the history of a hundred units cost: bytes written and kept a day, CPU and memory?"""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from pathlib import Path

from bench import machine
from bench.days import INTERVAL, MOVING, WANTED, day
from bench.machine import QUIET, UNITMEM
from bench.table import Answer, Cell, Table, Target
from unitmem.record.recorder import Recorder

UNITS = 100
ROOM = 64 << 20
SETTLE = 60.0
SPAN = 120.0
DAY = 86400.0


def ask(is_quick: bool) -> Answer:
    hours = 0.5 if is_quick else 2.0
    made = {kind: recorded(kind, hours) for kind in MOVING}
    live = written_live(SPAN / 4 if is_quick else SPAN)
    columns = ("", "µs of CPU a tick", "MB written a day", "MB kept a day", "days in 64 MiB")
    rows: list[list[Cell]] = [[f"a {kind} day", *figures] for kind, figures in made.items()]
    days_table = Table(
        f"The history of {UNITS} units, from {hours:g} hours at an interval of {INTERVAL:g} s",
        columns,
        rows,
        f"While all units change it takes {memory():.3g} KiB of memory for each, with the interpreter's bookkeeping.",
    )
    live_table = Table(
        "Bytes that a watch writes, MB a day", ("", "MB"), [["over 100 units that do nothing", live]]
    )
    return Answer(
        [days_table, live_table],
        [
            Target("days of history in 64 MiB, still", made["still"][3], 7, at_least=True),
            Target("MB of history written a day, still", made["still"][1], 20),
            Target("MB that a watch writes a day while nothing happens", live, 20),
        ],
    )


def recorded(kind: str, hours: float) -> tuple[float, float, float, float]:
    """µs of CPU a tick, MB written a day, MB kept a day, days in 64 MiB."""
    ticks, spent = 0, 0.0
    with tempfile.TemporaryDirectory() as directory:
        recorder = Recorder(Path(directory), "boot")
        before = written("self")
        for sample in day(kind, UNITS, hours * 3600):
            began = time.process_time()
            recorder.tick(sample, sample.at + 1e9, WANTED)
            spent += time.process_time() - began
            ticks += 1
        recorder.close()
        kept = sum(path.stat().st_size for path in Path(directory).iterdir())
        bytes_written = written("self") - before
    a_day = 24 / hours / 1e6
    return spent / ticks * 1e6, bytes_written * a_day, kept * a_day, ROOM / (kept * 24 / hours)


def written(pid: int | str) -> int:
    """What a process has written with write(2) and its like: SQLite's log and pages, and its messages too."""
    return int(Path(f"/proc/{pid}/io").read_text().split("wchar:")[1].split()[0])


def written_live(span: float) -> float:
    """MB a day that a watch writes while nothing happens, by what it writes in that many seconds."""
    machine.rest_units(UNITS)
    with machine.watch(QUIET):
        pid = int(machine.show(UNITMEM, "MainPID"))
        time.sleep(SETTLE)
        before = written(pid)
        time.sleep(span)
        return (written(pid) - before) * DAY / span / 1e6


def memory() -> float:
    """KiB for each unit while all of them change, with the interpreter's own bookkeeping."""
    samples = list(day("busy", UNITS, 130 * INTERVAL))
    with tempfile.TemporaryDirectory() as directory:
        tracemalloc.start()
        recorder = Recorder(Path(directory), "boot")
        for sample in samples:
            recorder.tick(sample, sample.at, WANTED)
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        recorder.close()
    return used / UNITS / 1024
