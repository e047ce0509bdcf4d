"""What does a ProcessGuard cost, beside psutil: a reading of PSS, and the watch over a process that does nothing?

Most of what a reading of PSS takes is the kernel's, the more so the larger the process is.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import psutil

from bench import machine
from bench.table import Answer, Cell, Table
from unitmem import ProcessGuard
from unitmem.kernel.pidfd import open_child, pin
from unitmem.kernel.process_tree import ProcessTree

READINGS = 300
WATCHED = 3.0
"""Seconds that an idle process is watched for."""
INTERVAL = 0.01
TARGETS = {"sleep": ["sleep", "600"], "64 MiB": [sys.executable, "-SEc", "held = b'x' * (64 << 20); input()"]}


def ask(is_quick: bool) -> Answer:
    rows: list[list[Cell]] = []
    for name, command in TARGETS.items():
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            time.sleep(1)
            readings = compare_readings(process, READINGS // 10 if is_quick else READINGS)
            looks = {
                "unitmem": cpu_of_looks(partial(guarded, process)),
                "psutil": cpu_of_looks(partial(polled, process)),
            }
            for what, taken in (("PSS, read once", readings), ("a look at an idle process", looks)):
                ours, theirs = (taken[tool] * 1e6 for tool in ("unitmem", "psutil"))
                rows.append([f"{what} ({name})", ours, theirs, ours / theirs])
            process.kill()
    return Answer(
        [Table("A guarded process, µs of CPU", ("", "unitmem", "psutil", "unitmem / psutil"), rows)]
    )


def compare_readings(process: subprocess.Popen[bytes], count: int) -> dict[str, float]:
    """CPU seconds of all that a guard does to look at PSS, its check that it is the same process included."""
    tree = ProcessTree(pin(open_child(process)), whole=False)
    other = psutil.Process(process.pid)
    return machine.median_of_turns(
        {
            "unitmem": lambda: machine.cpu_of_call(lambda: tree.measure_pss(tree.look())[0].pss),
            "psutil": lambda: machine.cpu_of_call(lambda: other.memory_full_info().pss),
        },
        count,
    )


def cpu_of_looks(watch: Callable[[threading.Event], int]) -> float:
    """CPU seconds that one look takes; `watch` looks until the event is set, and returns how often it did."""
    stop = threading.Event()
    threading.Timer(WATCHED, stop.set).start()
    before = time.process_time()
    looks = watch(stop)
    return (time.process_time() - before) / looks


def guarded(process: subprocess.Popen[bytes], stop: threading.Event) -> int:
    with ProcessGuard(process, interval=INTERVAL, stats_every=None) as guard:
        guard.limit(1 << 40)
        stop.wait()
        return guard._looks  # noqa: SLF001 - nothing else says how often it looked


def polled(process: subprocess.Popen[bytes], stop: threading.Event) -> int:
    other = psutil.Process(process.pid)
    looks = 0
    while not stop.wait(INTERVAL):
        other.memory_full_info()
        looks += 1
    return looks
