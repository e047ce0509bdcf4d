"""What a guard costs, side by side with psutil: a reading of PSS, and the watch over a process that does nothing.

Prints each figure with the ratio of ours to psutil's, and of a watch's reading of many processes also to that of a loop
in C, where there is a compiler. Most of what a reading of PSS takes is the kernel's, the more so the larger the process
is. Status 1 if it takes us longer than psutil, by more than chance.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import psutil

from unitmem import ProcessGuard
from unitmem.kernel.pidfd import open_child, pin
from unitmem.kernel.process_tree import ProcessTree
from unitmem.kernel.processes import Pins

READINGS = 300
MANY = 200
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


# reads PSS of each pid, and prints the seconds of CPU that it took
IN_C = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
int main(int count, char **pids) {
    char path[64], data[8192];
    long long sum = 0;
    struct timespec from, to;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
    for (int i = 1; i < count; i++) {
        snprintf(path, sizeof path, "/proc/%s/smaps_rollup", pids[i]);
        int file = open(path, O_RDONLY);
        ssize_t size = file < 0 ? 0 : read(file, data, sizeof data - 1);
        data[size > 0 ? size : 0] = 0;
        char *pss = strstr(data, "\nPss:");
        sum += pss ? atoll(pss + 5) : 0;
        close(file);
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
    printf("%.9f %lld\n", to.tv_sec - from.tv_sec + (to.tv_nsec - from.tv_nsec) / 1e9, sum);
}
"""


def compare_many() -> float:
    """Compare the PSS of many processes, with their pins kept from when RSS was read; return the ratio to psutil."""
    with ExitStack() as stack:
        pids = []
        for _ in range(MANY):
            process = stack.enter_context(subprocess.Popen(["sleep", "600"]))
            stack.callback(process.kill)
            pids.append(process.pid)
        time.sleep(0.5)
        pins = stack.enter_context(Pins())
        processes = [pins.read(pid) for pid in pids]
        others = [psutil.Process(pid) for pid in pids]
        ways = {
            "unitmem": partial(cpu, lambda: [pins.with_pss(process) for process in processes]),
            "psutil": partial(cpu, lambda: [other.memory_full_info() for other in others]),
        }
        if compiler := shutil.which("cc"):
            program = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "pss"
            subprocess.run(
                [compiler, "-O2", "-x", "c", "-o", program, "-"], input=IN_C, text=True, check=True
            )
            run = partial(subprocess.run, [program, *map(str, pids)], check=True, capture_output=True)
            ways["C"] = lambda: float(run().stdout.split()[0])
        rounds = [{name: way() / MANY for name, way in ways.items()} for _ in range(READINGS // 10)]
        taken = {name: statistics.median(each[name] for each in rounds) for name in ways}
        ratios = {
            name: compare(f"PSS of {MANY} processes, each; {name}", taken["unitmem"], taken[name])
            for name in ways
            if name != "unitmem"
        }
        return ratios["psutil"]


def cpu(function: Callable[[], object]) -> float:
    """Return the CPU seconds of a call."""
    started = time.process_time()
    function()
    return time.process_time() - started


def main() -> int:
    print(f"{'':<34}{'unitmem':>13}{'psutil or C':>13}{'ratio':>8}")
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
    worst = max(worst, compare_many())
    return int(worst > CHANCE)


if __name__ == "__main__":
    sys.exit(main())
