"""Bring up a guest with the peers, ask the questions there, print tables, and keep them: python -m bench [QUESTION...].

An answer is a ratio of figures of one run on one machine: absolute times are of an emulated guest, and say nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.questions import NAMES
from bench.table import Answer, Target, render, targets_table

HERE = Path(__file__).parent
CHECKOUT = HERE.parent
GUEST = CHECKOUT / "vagrant/guest"
RESULTS = HERE / "results"
SUITE = "bench"
MEMORY = "4096"
"""MiB of the guest, for thousands of units and a leak that earlyoom ends at a tenth of it."""
PLACE = "/usr/local/lib/unitmem-bench"
PACKAGES = (
    "unitmem", "earlyoom", "nohang", "systemd-oomd", "monit", "supervisor", "smem", "python3-psutil", "python3", "systemd",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer units, rates and rounds")
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FILE",
        help="where the result is kept (all questions, not quick: bench/results/DATE.json)",
    )
    parser.add_argument("--no-install", action="store_true", help="take what is installed in the guest")
    parser.add_argument(
        "questions", nargs="*", metavar="QUESTION", help=f"one of {', '.join(NAMES)}; default: all"
    )
    options = parser.parse_args()
    if unknown := set(options.questions) - set(NAMES):
        parser.error(f"{', '.join(sorted(unknown))}: must be among {', '.join(NAMES)}")

    os.environ.setdefault("UNITMEM_ICOUNT", "1")
    os.environ.setdefault("UNITMEM_MEMORY", MEMORY)
    subprocess.run([GUEST, "up", SUITE], check=True)
    if not options.no_install:
        subprocess.run([GUEST, "install", SUITE], check=True)
    carry()

    document: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "quick": options.quick,
        "machine": versions(),
        "answers": {},
    }
    file = options.keep
    if file is None and not (options.quick or options.questions):
        file = RESULTS / time.strftime("%Y-%m-%d.json")
    targets: list[Target] = []
    failed = []
    for question in [name for name in NAMES if name in (options.questions or NAMES)]:
        began = time.monotonic()
        try:
            answered = json.loads(ask(question, *(["--quick"] if options.quick else [])))
        except subprocess.CalledProcessError:
            failed.append(question)
            continue
        answer = Answer.from_document(answered)
        for table in answer.tables:
            print(f"\n{render(table)}", flush=True)
        print(f"\n  ({question}: {time.monotonic() - began:.0f} s)", flush=True)
        targets += answer.targets
        document["answers"][question] = answered
        file.write_text(
            json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        )  # what comes later may fail
    print(f"\n{render(targets_table(targets))}\n\nkept in {file}")
    if failed:
        print(f"without an answer: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def in_guest(command: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([GUEST, "ssh", SUITE, command], check=True, **options)


def carry() -> None:
    """Compile the loops, and bring this package into the guest."""
    loops = HERE / "loops"
    subprocess.run(["gcc", "-O2", "-static", "-o", loops, HERE / "loops.c"], check=True)
    archive = subprocess.run(
        ["tar", "c", "--exclude=results", "--exclude=__pycache__", "-C", CHECKOUT, "bench"],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    in_guest(f"sudo sh -c 'rm -rf {PLACE} && mkdir {PLACE} && tar xmof - -C {PLACE}'", input=archive)


def ask(question: str, *options: str) -> bytes:
    """What `bench.inside` prints."""
    command = f"cd {PLACE} && sudo python3 -m bench.inside {' '.join(options)} {question}"
    return in_guest(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout


def versions() -> dict[str, str]:
    """The guest's kernel and packages, and how it runs."""
    shown = in_guest(
        f"uname -r; dpkg-query --show --showformat='${{Package}} ${{Version}}\\n' {' '.join(PACKAGES)}",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ).stdout.decode()
    kernel, *packages = shown.splitlines()
    is_counted = os.environ["UNITMEM_ICOUNT"] == "1"
    return {
        "linux": kernel,
        **dict(line.split(" ", 1) for line in packages),
        "checkout": subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            check=False,
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
        ).stdout.strip(),
        "guest": f"{os.environ['UNITMEM_MEMORY']} MiB, 1 CPU"
        + (", clock by instructions where emulated" if is_counted else ""),
    }


if __name__ == "__main__":
    sys.exit(main())
