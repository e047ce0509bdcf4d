"""The machine that is measured: its units, what they cost, and the daemons that guard it. Needs root and systemd."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

LOOPS = Path(__file__).with_name("loops")
"""What loops.c is compiled to."""
UNITMEM = "unitmem@bench.service"
EARLYOOM = "earlyoom.service"
NOHANG = "nohang.service"
PEERS = (EARLYOOM, NOHANG, "systemd-oomd.service", "monit.service", "supervisor.service")
OOMD_SOCKET = "systemd-oomd.socket"
"""Would start systemd-oomd again, as PID 1 talks to it."""
BARE = "bench-bare-python.service"
"""A Python that does nothing."""
GUARDS = (UNITMEM, *PEERS)

QUIET = """\
policies:
  - name: far
    units: ["bench@*.service"]
    steps:
      - {when: "unreclaimable > 8G", do: log}
"""
"""Over units of less than a MiB, so that the nearest threshold is more than 4 GiB away."""

_POLICY = Path("/etc/unitmem/bench.yaml")
_TEMPLATE = Path("/run/systemd/system/bench@.service")
_CGROUPS = Path("/sys/fs/cgroup")


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def systemctl(*words: str) -> None:
    run("systemctl", "--quiet", *words)


def show(unit: str, name: str) -> str:
    """A property of a unit."""
    return run("systemctl", "show", "--property", name, "--value", unit).strip()


# --- units -------------------------------------------------------------------------------------


def rest_units(count: int) -> list[str]:
    """Return so many services that do nothing; those that don't run yet are started, and left running."""
    if not _TEMPLATE.exists():
        _TEMPLATE.write_text(f"[Unit]\nDefaultDependencies=no\n[Service]\nExecStart={LOOPS} rest\n")
        systemctl("daemon-reload")
    names = [f"bench@{number}.service" for number in range(1, count + 1)]
    systemctl("start", *names)
    return names


def stop_rest_units() -> None:
    systemctl("stop", "bench@*.service")


@contextmanager
def transient(unit: str, *command: str | Path, **properties: str) -> Iterator[None]:
    """A service of that command, for as long as the block takes."""
    options = [f"--property={name}={value}" for name, value in properties.items()]
    run("systemd-run", "--quiet", f"--unit={unit}", *options, "--", *command)
    try:
        yield
    finally:
        subprocess.run(["systemctl", "kill", "--signal=SIGKILL", unit], check=False, capture_output=True)
        subprocess.run(["systemctl", "stop", unit], check=False, capture_output=True)
        subprocess.run(["systemctl", "reset-failed", unit], check=False, capture_output=True)


@contextmanager
def started(*units: str) -> Iterator[None]:
    """Services that run for as long as the block takes."""
    systemctl("start", *units)
    try:
        yield
    finally:
        systemctl("stop", OOMD_SOCKET, *units)


@contextmanager
def watch(policy: str) -> Iterator[None]:
    """The service of unitmem by that policy, with nothing left from the one before."""
    _POLICY.parent.mkdir(exist_ok=True)
    _POLICY.write_text(policy)
    try:
        with started(UNITMEM):
            yield
    finally:
        _POLICY.unlink()
        shutil.rmtree("/var/lib/unitmem/bench", ignore_errors=True)
        shutil.rmtree("/run/unitmem/bench", ignore_errors=True)


@contextmanager
def guards(policy: str, units: Sequence[str] = PEERS) -> Iterator[None]:
    """The service of unitmem by that policy, and its peers."""
    with ExitStack() as stack:
        stack.enter_context(watch(policy))
        stack.enter_context(started(*units))
        yield


def stop_guards() -> None:
    """Stop what Debian's packages start by themselves, and what an earlier question has left."""
    systemctl("stop", OOMD_SOCKET, UNITMEM, *PEERS, "nohang-desktop.service")


# --- what a unit costs -------------------------------------------------------------------------


def cgroup(unit: str) -> Path:
    return _CGROUPS / show(unit, "ControlGroup").removeprefix("/")


def pids(unit: str) -> list[int]:
    return [int(pid) for pid in (cgroup(unit) / "cgroup.procs").read_text().split()]


def cpu_seconds(unit: str) -> float:
    """CPU time that the unit has taken since its start."""
    return int((cgroup(unit) / "cpu.stat").read_text().split()[1]) / 1e6


def cpu_of(units: Sequence[str], seconds: float) -> dict[str, float]:
    """The share of a CPU that each unit takes in a span."""
    before = {unit: cpu_seconds(unit) for unit in units}
    began = time.monotonic()
    time.sleep(seconds)
    span = time.monotonic() - began
    return {unit: (cpu_seconds(unit) - before[unit]) / span for unit in units}


@dataclass(frozen=True)
class Memory:
    """Of all processes of a unit, in KiB."""

    rss: int
    pss: int
    private: int


def memory(unit: str) -> Memory:
    total = {"Rss": 0, "Pss": 0, "Private_Clean": 0, "Private_Dirty": 0}
    for pid in pids(unit):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, value = line.split(":")
            if name in total:
                total[name] += int(value.split()[0])
    return Memory(total["Rss"], total["Pss"], total["Private_Clean"] + total["Private_Dirty"])


def name_of(unit: str) -> str:
    """`unitmem` of `unitmem@bench.service`."""
    return unit.partition(".")[0].partition("@")[0].removeprefix("bench-").replace("-python", " python")


# --- what a call costs -------------------------------------------------------------------------


def cpu_of_call(function: Callable[[], object]) -> float:
    """CPU seconds of a call in this process."""
    started_at = time.process_time()
    function()
    return time.process_time() - started_at


def cpu_of_command(*command: str | Path) -> float:
    """CPU seconds of a command and its children."""
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def median_of_turns(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of each; they take turns, so that what else the machine does hits all."""
    taken = [{name: way() for name, way in ways.items()} for _ in range(rounds)]
    return {name: statistics.median(each[name] for each in taken) for name in ways}


def loop(*words: str | int) -> float:
    """The figure that a loop in C prints."""
    return float(run(LOOPS, *map(str, words)))
