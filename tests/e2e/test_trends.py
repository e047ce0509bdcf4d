"""What is counted over the restarts of a real unit by a real systemd."""

from __future__ import annotations

import json

DECISION = "d1ecd066ddcc4fde918b1e2af62bf70f"


def test_oom_kills_of_one_run_after_another_are_counted_once_each(host, unit, policy, journal, eventually):
    """systemd restarts it at once, and each run's own counter is gone with its cgroup; replay counts the same."""
    watch = policy("""
        interval: 1s
        policies:
          - name: oom-loop
            units: ["e2e-oom-loop.service"]
            steps: [{when: "events.oom_kill > 1 in 10min and age < 10min", do: log}]
            cooldown: 1h
    """)
    loop = unit(
        *("/bin/sh", "-c", "sleep 5; exec tail /dev/zero"),
        name="e2e-oom-loop.service",
        MemoryMax="24M",
        MemorySwapMax="0",
        Restart="on-failure",
        StartLimitIntervalSec="0",
    )

    def told():
        return [e for e in journal.entries(loop.name, loop.since) if e.get("MESSAGE_ID") == DECISION]

    first = eventually(told, "two OOM kills are told")[0]
    assert (first["UNITMEM_MEASURE"], first["UNITMEM_VALUE"]) == ("events.oom_kill", "2")
    assert int(loop.get("NRestarts")) >= 1
    instance = watch.name.removeprefix("unitmem@").removesuffix(".service")
    host.check_output("systemctl stop %s", watch.name)
    replayed = json.loads(
        host.check_output(
            "unitmem replay /etc/unitmem/%s.yaml --history /var/lib/unitmem/%s/history.sqlite --json",
            instance,
            instance,
        )
    )
    assert replayed["decisions"][0]["message"] == first["MESSAGE"]
