"""What an action became isn't lost with the daemon: killed right as a unit that takes long is stopping."""

from __future__ import annotations

import json

import pytest

POLICY = """
interval: 1s
policies:
  - name: intents
    units: ["e2e-intents-*.service"]
    steps: [{when: "anon > 24M", do: {stop: {timeout: 2min}}}]
"""


@pytest.mark.suites("bookworm")
def test_a_stop_has_its_outcome_though_the_daemon_was_killed_meanwhile(host, unit, policy, eventually):
    guard = policy(POLICY)
    pid = guard.get("MainPID")
    slow = unit(
        "leak",
        *("--start", "4M", "--rate", "20M/s", "--max", "48M", "--on-term", "ignore"),
        name="e2e-intents-slow.service",
        TimeoutStopSec="10s",
    )
    # in the guest, as a login takes longer than the daemon needs
    host.check_output(
        'until [ "$(systemctl show --property ActiveState --value %s)" = deactivating ]; do sleep 0.1; done; '
        "kill -KILL %s",
        slow.name,
        pid,
    )
    eventually(lambda: guard.is_active() and guard.get("MainPID") not in ("0", pid), "systemd restarts it")

    def events():
        explained = json.loads(host.check_output("unitmem explain %s --json", slow.name))
        return [
            event
            for event in explained["events"]
            if event["kind"] in ("decision", "outcome") and event["at"] * 1e6 >= slow.since
        ]

    eventually(lambda: len(events()) > 1, "the outcome is reported")
    decision, outcome = events()
    assert (decision["kind"], decision["action"]) == ("decision", "stop")
    assert (outcome["kind"], outcome["result"]) == ("outcome", "verified")
    assert abs(outcome["decided"] - decision["at"]) < 0.001
    assert "seen after a restart of unitmem" in outcome["message"]
    assert decision["invocation_id"] == outcome["invocation_id"]
    # nor was it asked for twice
    asked = host.check_output(
        "journalctl --output=cat _PID=1 INVOCATION_ID=%s MESSAGE_ID=de5b426a63be47a7b6ac3eaac82e2f6f",
        decision["invocation_id"],
    )
    assert len(asked.splitlines()) == 1
