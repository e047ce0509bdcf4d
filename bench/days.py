"""Made days of a machine, as a watch samples it: each a stream of samples that is always the same."""

from __future__ import annotations

import random
from collections.abc import Iterator

from unitmem.measure.catalogue import Trait, with_trait
from unitmem.measure.sample import HostSample, Sample, UnitSample
from unitmem.unit import Invocation, Unit

M = 2**20
INTERVAL = 2.0
WANTED = frozenset({"unreclaimable", "limit", "host.available", "host.total", "events.oom_kill", "fill"})
NAMES = [*with_trait(Trait.RECORDED), "events.oom_kill"]


MOVING = {"still": 0.0, "quiet": 0.05, "busy": 1.0}
"""The share of the units that change at a tick, by a few pages; on a busy day each by some percent. What the machine
has available changes always."""


def day(kind: str, units: int, seconds: float) -> Iterator[Sample]:
    """Samples of that many units on a day that is `still`, `quiet` or `busy`."""
    moving, is_busy = MOVING[kind], kind == "busy"
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
            if dice.random() < moving:
                current = int(values[name]["current"])
                step = current * dice.uniform(-0.05, 0.0526) if is_busy else 4096 * dice.randrange(-64, 65)
                values[name] = values_of(max(M, current + int(step)), dice.random() if is_busy else 0)
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
