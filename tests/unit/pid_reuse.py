"""What becomes of guards whose process has ended and whose pid is another's: to be run in a pid namespace of its own.

Each story has what the guard says, and whether the pid's next owner lives on; those that go otherwise are printed.
Status 1 if there are any, 77 if the next pid can't be chosen here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import unitmem
from unitmem.kernel.process import PinnedProcess, ProcessGoneError
from unitmem.kernel.process_tree import ProcessTree

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
TAKEN = "it ended, and its pid now belongs to another process"
EXPECTED = {
    "pss that was not read in time": (None, True),
    "a guard by pid that gets its limit later": (f"exited: {TAKEN}", True),
    "a guard by pid that was about to kill": (f"exited: {TAKEN}", True),
    "a child that was waited for elsewhere": (
        "exited: it had ended before, and its pid now belongs to another process",
        True,
    ),
    "what was pinned": (("gone", "gone", "gone", "gone"), True),
    "a member of a tree": (1, True),
}
TICK = 0.02
"""Seconds, and more than a tick of the clock that start times are counted in."""


def child():
    return subprocess.Popen(["sleep", "600"])


def replaced(process):
    """End `process`, and let a stranger, no child of ours, have its pid; that it has been settled."""
    os.kill(process.pid, signal.SIGKILL)
    os.waitpid(process.pid, 0)
    time.sleep(TICK)
    take(process.pid)


def take(pid):
    # the shell writes itself, and its next child gets the pid; it ends, and leaves that one alone
    script = f"exec 3>{LAST_PID}; trap '' HUP; printf {pid - 1} >&3; sleep 600 >/dev/null 2>&1 & echo $!"
    for _ in range(20):
        got = int(subprocess.check_output(["sh", "-c", script], text=True))
        if got == pid:
            return
        os.kill(got, signal.SIGKILL)
    sys.exit(77)


def lives(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "SRD"


def answer(call):
    try:
        return str(call())
    except (ProcessGoneError, ProcessLookupError):
        return "gone"


def main():
    try:
        LAST_PID.write_text("500")
    except OSError:
        sys.exit(77)
    stories = {}

    process = child()
    guard = unitmem.ProcessGuard(process.pid)
    replaced(process)
    stories["pss that was not read in time"] = guard.pss, lives(process.pid)
    guard.limit(1)
    stories["a guard by pid that gets its limit later"] = str(guard.wait(60)), lives(process.pid)

    process = child()
    guard = unitmem.ProcessGuard(process.pid)
    measure_pss = ProcessTree.measure_pss

    def measure_and_replace(self, processes):
        measured = measure_pss(self, processes)  # above the limit
        replaced(process)
        return measured

    ProcessTree.measure_pss = measure_and_replace
    guard.limit(1)
    stories["a guard by pid that was about to kill"] = str(guard.wait(60)), lives(process.pid)
    ProcessTree.measure_pss = measure_pss

    process = child()
    replaced(process)
    guard = unitmem.ProcessGuard(process)
    guard.limit(1)
    stories["a child that was waited for elsewhere"] = str(guard.wait(60)), lives(process.pid)

    process = child()
    with PinnedProcess(process.pid) as pinned:
        replaced(process)
        calls = (
            pinned.read_stat,
            pinned.read_rss,
            pinned.read_sizes,
            lambda: pinned.send_signal(signal.SIGKILL),
        )
        stories["what was pinned"] = tuple(map(answer, calls)), lives(process.pid)

    # its root is a shell that waits for the member, so that the pid is free
    root = subprocess.Popen(
        ["sh", "-c", "sleep 600 & echo $!; wait; read forever"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    member = int(root.stdout.readline())
    with PinnedProcess(root.pid) as pinned:
        tree = ProcessTree(pinned, whole=True)
        while len(tree.look()) < 2:
            time.sleep(0.01)
        os.kill(member, signal.SIGKILL)
        while Path(f"/proc/{member}").exists():
            time.sleep(0.01)
        time.sleep(TICK)
        take(member)
        delivery = tree.kill()
    root.wait()
    stories["a member of a tree"] = len(delivery.reached), lives(member)

    wrong = {story: answers for story, answers in stories.items() if answers != EXPECTED[story]}
    if wrong or stories.keys() != EXPECTED.keys():
        sys.exit(f"not as expected: {wrong}, or not told: {EXPECTED.keys() - stories.keys()}")


if __name__ == "__main__":
    main()
