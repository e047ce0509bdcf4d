"""Runs in a guest, as root: decide about a unit, restart it, and only then perform the decision.

The window between the two is microseconds in the daemon; here it is held open, for each action.
"""

import signal
import subprocess
import sys
import time

from unitmem.act.perform import perform
from unitmem.kernel.cgroup import Cgroup
from unitmem.kernel.host import read_host
from unitmem.manager.systemd import Manager
from unitmem.measure.collect import collect
from unitmem.measure.sample import Sample
from unitmem.policy.actions import Signal, Stop, Target
from unitmem.policy.engine import evaluate
from unitmem.policy.model import Policy, Step
from unitmem.policy.state import State
from unitmem.policyfile.expression import parse_condition

ACTIONS = {
    "stop": Stop(),
    "signal-all": Signal(signal.SIGKILL, Target.ALL),
    "signal-main": Signal(signal.SIGKILL, Target.MAIN),
    "signal-largest": Signal(signal.SIGKILL, Target.LARGEST),
}

name = sys.argv[1]
manager = Manager()
for label, action in ACTIONS.items():
    unit = manager.describe(name)
    cgroup = Cgroup(unit.control_group)
    condition = parse_condition("anon > 1M and process.rss > 1M")
    policy = Policy("race", (name,), (Step(condition, action),))
    while True:
        now = time.monotonic()
        sample = Sample(now, {name: collect(unit, cgroup, read_host(), {"anon", "process.rss"})})
        _, decisions = evaluate([policy], sample, State(), now)
        if decisions:
            break
        time.sleep(0.2)
    subprocess.run(["systemctl", "restart", name], check=True)
    after = manager.describe(name).invocation_id
    outcome = perform(decisions[0], cgroup, manager, time.monotonic())
    time.sleep(1)
    assert manager.describe(name).invocation_id == after, "the new run was touched"
    print(label, outcome.result)
