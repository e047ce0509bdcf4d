"""What a guard costs, side by side with psutil: a reading of PSS, and the watch over a process that does nothing.

Prints each figure with the ratio of ours to psutil's. Most of what a reading of PSS takes is the kernel's, the more
so the larger the process is. Status 1 if it takes us longer than psutil, by more than chance.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import psutil

from unitmem import ProcessGuard
from unitmem.kernel.pidfd import open_child, pin
from unitmem.kernel.process_tree import ProcessTree

READINGS = 300
WATCHED = 3.0
"""Seconds that an idle process is watched for."""
INTERVAL = 0.01
CHANCE = 1.05
"""A ratio that two runs of the same thing may have."""
TARGETS = {"sleep": ["sleep", "600"], "64 MiB": [sys.executable, "-SEc", "held = b'x' * (64 << 20); input()"]}


def seconds_each(*functions: Callable[[], object]) -> list[float]:
    """The median of what a call of each takes; they take turns, so that what else the machine does hits all."""
    taken: list[list[float]] = [[] for _ in functions]
    for _ in range(READINGS):
        for times, function in zip(taken, functions, strict=True):
            started = time.perf_counter()
            function()
            times.append(time.perf_counter() - started)
    return [statistics.median(times) for times in taken]


def cpu_of(watch: Callable[[threading.Event], int]) -> float:
    """CPU seconds that one look takes; `watch` looks until the event is set, and gives how often it did."""
    stop = threading.Event()
    threading.Timer(WATCHED, stop.set).start()
    before = time.process_time()
    looks = watch(stop)
    return (time.process_time() - before) / looks


def compare(what: str, ours: float, theirs: float) -> float:
    ratio = ours / theirs
    print(f"{what:<34}{ours * 1e6:>10.1f} µs{theirs * 1e6:>10.1f} µs{ratio:>8.2f}")
    return ratio


def main() -> int:
    print(f"{'':<34}{'unitmem':>13}{'psutil':>13}{'ratio':>8}")
    worst = 0.0
    for name, command in TARGETS.items():
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            time.sleep(0.5)
            pidfd = open_child(process)
            tree = ProcessTree(pin(pidfd), whole=False)
            other = psutil.Process(process.pid)
            # all that a guard does to look at PSS, its check that it is the same process included
            ours, theirs = seconds_each(
                lambda tree=tree: tree.measure_pss(tree.look())[0].pss,
                lambda other=other: other.memory_full_info().pss,
            )
            worst = max(worst, compare(f"PSS, read once ({name})", ours, theirs))

            def guarded(stop: threading.Event, process: subprocess.Popen[bytes] = process) -> int:
                with ProcessGuard(process, interval=INTERVAL, stats_every=None) as guard:
                    guard.limit(1 << 40)
                    stop.wait()
                    return guard._looks

            def polled(stop: threading.Event, other: psutil.Process = other) -> int:
                looks = 0
                while not stop.wait(INTERVAL):
                    other.memory_full_info()
                    looks += 1
                return looks

            ours, theirs = cpu_of(guarded), cpu_of(polled)
            compare(f"CPU, one look, idle ({name})", ours, theirs)
            print(f"  at the default interval of 1s: {ours:.4%} of a CPU, with psutil {theirs:.4%}")
            process.kill()
    return int(worst > CHANCE)


if __name__ == "__main__":
    sys.exit(main())
