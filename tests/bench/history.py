"""What the history costs: µs a tick, bytes written and kept a day, memory; of made days, quiet and busy.

    PYTHONPATH=src python tests/bench/history.py [UNITS [HOURS]]

On a still day no unit moves, on a quiet one one in twenty does at each tick, by a few pages; on a busy one each does, by
some percent. What the machine has available moves always. Bytes written
are those of write(2) and its like (wchar of /proc/self/io), the log of SQLite and its pages included.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

from unitmem.measure.catalogue import Trait, with_trait
from unitmem.measure.sample import HostSample, Sample, UnitSample
from unitmem.record.recorder import Recorder
from unitmem.unit import Invocation, Unit

M = 2**20
DAY = 86400.0
INTERVAL = 2.0
WANTED = frozenset({"unreclaimable", "limit", "host.available", "host.total", "events.oom_kill", "fill"})
NAMES = [*with_trait(Trait.RECORDED), "events.oom_kill"]


def day(units: int, seconds: float, moving: float, *, is_busy: bool) -> Iterator[Sample]:
    dice = random.Random(1)
    runs = {
        name: (Unit(name, invocation_id=f"{number:032x}"), Invocation(name, f"{number:032x}", number))
        for number in range(units)
        for name in (f"service-{number}.service",)
    }
    values = {name: values_of(dice.randrange(20 * M, 900 * M)) for name in runs}
    read = {name: UnitSample(*run, values=values[name]) for name, run in runs.items()}
    at = 1000.0
    while at < 1000.0 + seconds:
        for name, run in runs.items():
            if is_busy or dice.random() < moving:
                size = int(values[name]["current"] * dice.uniform(0.95, 1.0526)) if is_busy else 0
                step = (size - values[name]["current"]) if is_busy else 4096 * dice.randrange(-64, 65)
                values[name] = values_of(
                    max(M, int(values[name]["current"]) + step), dice.random() if is_busy else 0
                )
                read[name] = UnitSample(*run, values=values[name])
        available = 8 * 2**30 + 4096 * dice.randrange(2000)
        host = HostSample({"host.available": available, "host.total": 16 * 2**30})
        yield Sample(at, dict(read), host)
        at += INTERVAL + dice.uniform(-0.001, 0.001)


def values_of(current: int, stall: float = 0.0) -> dict[str, float]:
    known = {
        "current": current,
        "swap": 0,
        "workingset": current - current // 5 // 4096 * 4096,
        "anon": current // 2 // 4096 * 4096,
        "unreclaimable": current // 3 // 4096 * 4096,
        "footprint": current // 3 // 4096 * 4096,
        "limit": 16 * 2**30,
        "fill": 100 * (current // 3) / (16 * 2**30),
        "pressure.some.avg10": round(stall, 2),
        "pressure.full.avg10": round(stall / 2, 2),
        "events.oom_kill": 0,
    }
    return {name: known[name] for name in NAMES if name in known}


def written() -> int:
    return int(Path("/proc/self/io").read_text().split("wchar:")[1].split()[0])


def measure(units: int, hours: float, moving: float, *, is_busy: bool) -> dict[str, float]:
    ticks, spent = 0, 0.0
    with tempfile.TemporaryDirectory() as directory:
        recorder = Recorder(Path(directory), "boot")
        before = written()
        for sample in day(units, hours * 3600, moving, is_busy=is_busy):
            began = time.process_time()
            recorder.tick(sample, sample.at + 1e9, WANTED)
            spent += time.process_time() - began
            ticks += 1
        recorder.close()
        kept = sum(path.stat().st_size for path in Path(directory).iterdir())
        bytes_written = written() - before
    return {
        "units": units,
        "µs of CPU a tick": round(spent / ticks * 1e6),
        "MB written a day": round(bytes_written * 24 / hours / 1e6, 1),
        "MB kept a day": round(kept * 24 / hours / 1e6, 1),
        "days in 64 MiB": round((64 << 20) / (kept * 24 / hours), 1),
    }


def memory(units: int) -> float:
    """KiB for each unit while all of them change, with the interpreter's own bookkeeping."""
    samples = list(day(units, 130 * INTERVAL, 1.0, is_busy=True))
    with tempfile.TemporaryDirectory() as directory:
        tracemalloc.start()
        recorder = Recorder(Path(directory), "boot")
        for sample in samples:
            recorder.tick(sample, sample.at, WANTED)
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        recorder.close()
    return round(used / units / 1024, 1)


if __name__ == "__main__":
    units = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    hours = float(sys.argv[2]) if len(sys.argv) > 2 else 2.0
    for name, moving, is_busy in (("still", 0.0, False), ("quiet", 0.05, False), ("busy", 1.0, True)):
        print(name, json.dumps(measure(units, hours, moving, is_busy=is_busy), ensure_ascii=False))
    print("KiB a unit while all change:", memory(units))
