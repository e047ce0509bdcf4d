"""How fast is a recorded history judged by a policy?"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench import machine
from bench.days import INTERVAL, WANTED, day
from bench.table import Answer, Cell, Table, Target
from unitmem.record.recorder import Recorder

UNITS = 100
TICKS = round(86400 / INTERVAL)
POLICIES = {
    "a threshold": "unreclaimable > 85% of limit",
    "a threshold and a slope": "unreclaimable > 85% of limit and growth(unreclaimable, 5min) > 1M/s",
}


def ask(is_quick: bool) -> Answer:
    hours = 0.1 if is_quick else 0.5
    ticks = round(hours * 3600 / INTERVAL)
    start = machine.cpu_of_command("unitmem", "check", policy_file("unreclaimable > 1M"))
    rows: list[list[Cell]] = []
    a_day = []
    with tempfile.TemporaryDirectory() as directory:
        recorder = Recorder(Path(directory), "boot")
        for sample in day("quiet", UNITS, hours * 3600):
            recorder.tick(sample, sample.at + 1e9, WANTED)
        recorder.close()
        history = next(Path(directory).glob("*.sqlite"))
        for name, condition in POLICIES.items():
            file = policy_file(condition)
            seconds = machine.cpu_of_command("unitmem", "replay", file, "--history", history) - start
            a_day.append(seconds / ticks * TICKS)
            rows.append([name, ticks / seconds, seconds / ticks * TICKS])
    table = Table(
        f"Replay of {UNITS} units, CPU", ("condition", "samples a second", "seconds for a day"), rows,
        f"From {hours:g} hours of a quiet day. A sample is of all units.",
    )  # fmt: skip
    return Answer([table], [Target("a day of 100 units by replay, in the guest", max(a_day), 60, unit=" s")])


def policy_file(condition: str) -> Path:
    file = Path("/run/bench-replay.yaml")
    file.write_text(
        "policies:\n"
        "  - name: replayed\n"
        '    units: ["*.service"]\n'
        f'    steps:\n      - {{when: "{condition}", for: 10s, do: log}}\n'
    )
    return file
