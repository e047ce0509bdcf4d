"""What policies do to real units under a real systemd: the right unit, the right step, and the reason told."""

from __future__ import annotations

from pathlib import Path

import pytest

DECISION, OUTCOME = "d1ecd066ddcc4fde918b1e2af62bf70f", "0764b90c0b544cf4a7569e666628681b"


def decisions(journal, unit):
    """(action, result) of every decision about a unit, oldest first."""
    return [
        (entry["UNITMEM_ACTION"], entry.get("UNITMEM_RESULT"))
        for entry in journal.entries(unit.name, unit.since)
        if entry.get("MESSAGE_ID") == DECISION and entry["UNITMEM_UNIT"] == unit.name
    ]


def outcomes(journal, unit):
    """(action, result) of every outcome told about a unit, oldest first."""
    return [
        (entry["UNITMEM_ACTION"], entry["UNITMEM_RESULT"])
        for entry in journal.entries(unit.name, unit.since)
        if entry.get("MESSAGE_ID") == OUTCOME
    ]


def test_a_leak_climbs_the_ladder_and_its_neighbours_live(unit, policy, journal, eventually):
    """Logged at the first threshold, SIGUSR1 at the second, stopped at the third; the healthy are untouched."""
    steady = unit("steady", "--size", "64M", name="e2e-ladder-steady.service", MemoryMax="256M")
    reader = unit(
        "reader", "--files", "3", "--size", "32M", name="e2e-ladder-reader.service", MemoryMax="64M"
    )
    policy("""
        interval: 1s
        policies:
          - name: ladder
            units: ["e2e-ladder-*.service"]
            steps:
              - {when: "unreclaimable > 40% of limit", for: 2s, do: log}
              - {when: "unreclaimable > 60% of limit", for: 2s, do: {signal: SIGUSR1, to: main}}
              - when: "unreclaimable > 80% of limit or pressure.full.avg10 > 99%"
                for: 2s
                do: {stop: {timeout: 60s, else: kill}}
    """)
    leak = unit(
        "leak",
        *("--start", "64M", "--rate", "6M/s", "--max", "240M"),
        name="e2e-ladder-leak.service",
        MemoryMax="256M",
    )
    eventually(lambda: not leak.is_active(), "the leak is stopped")
    eventually(lambda: ("stop", "verified") in outcomes(journal, leak), "the stop is verified")

    assert decisions(journal, leak) == [("log", "verified"), ("SIGUSR1", None), ("stop", None)]
    assert outcomes(journal, leak) == [("SIGUSR1", "verified"), ("stop", "verified")]
    assert any(message.startswith("got SIGUSR1") for message in journal.messages(leak.name, leak.since))
    assert leak.get("Result") == "success"
    told = [entry for entry in journal.entries(leak.name, leak.since) if entry.get("MESSAGE_ID") == DECISION]
    for entry, share in zip(told, (40, 60, 80), strict=True):
        assert int(entry["UNITMEM_HELD_USEC"]) >= 2_000_000
        assert int(entry["UNITMEM_VALUE"]) > int(entry["UNITMEM_THRESHOLD"])
        assert int(entry["UNITMEM_THRESHOLD"]) == 256 * 2**20 * share // 100
        assert f"({share}% of limit) for " in entry["MESSAGE"]
        assert "e2e-ladder-leak.service: unreclaimable " in entry["MESSAGE"]

    cache = int(reader.read("memory.current")) / (64 * 2**20)
    assert cache > 0.9, "the reader was meant to fill its limit with page cache"
    for neighbour in (steady, reader):
        assert neighbour.is_active()
        assert decisions(journal, neighbour) == []


def test_whoever_closes_a_delegated_cgroup_hides_no_process(host, unit, policy, journal, eventually):
    """It belongs to its user, and root without all of its rights is anybody."""
    victim = unit("steady", "--size", "32M", name="e2e-closed.service", Delegate="yes")
    host.check_output(
        "cd /sys/fs/cgroup%s && mkdir closed && echo %s >closed/cgroup.procs && chown -R nobody closed && chmod 700 closed",
        victim.get("ControlGroup"),
        victim.get("MainPID"),
    )
    policy("""
        interval: 1s
        policies:
          - name: closed
            units: [e2e-closed.service]
            steps: [{when: "pss > 24M", do: {signal: SIGTERM, to: largest}}]
    """)
    eventually(
        lambda: ("SIGTERM", "verified") in outcomes(journal, victim), "its process is seen, and signalled"
    )


def test_only_the_largest_worker_is_signalled(unit, policy, journal, eventually):
    policy("""
        interval: 1s
        policies:
          - name: runaway
            units: ["e2e-workers-*.service"]
            steps:
              - {when: "process.pss > 60M", for: 2s, do: {signal: SIGTERM, to: largest}}
    """)
    workers = unit(
        "workers",
        *("--count", "4", "--grow-index", "2", "--rate", "6M/s", "--max", "100M"),
        name="e2e-workers-pool.service",
    )
    pids = dict(
        line.split()[1:]
        for line in journal.messages(workers.name, workers.since)
        if line.startswith("worker ")
    )
    eventually(
        lambda: any(
            m.startswith(f"worker 2 {pids['2']} ended") for m in journal.messages(workers.name, workers.since)
        ),
        "the growing worker ended",
    )
    eventually(lambda: outcomes(journal, workers) == [("SIGTERM", "verified")], "and that was verified")
    ended = [
        m for m in journal.messages(workers.name, workers.since) if m.startswith("worker ") and " ended" in m
    ]
    assert [line.split()[1] for line in ended] == ["2"]
    assert workers.is_active()
    told = [
        entry for entry in journal.entries(workers.name, workers.since) if entry.get("MESSAGE_ID") == OUTCOME
    ]
    assert f"pid {pids['2']} " in told[0]["MESSAGE"]


def test_a_unit_restarted_between_breach_and_action_is_left_alone(host, python, unit):
    """The real engine decides, the unit is restarted, and the real systemd is asked to act: for every action."""
    leak = unit("leak", "--start", "32M", "--rate", "1M", "--max", "32M")
    script = Path(__file__).with_name("restart_between.py").read_text()
    shown = host.run("printf %%s %s | %s - %s", script, python, leak.name)
    assert shown.rc == 0, shown.stderr
    assert shown.stdout.splitlines() == [
        "stop gone",
        "signal-all gone",
        "signal-main gone",
        "signal-largest gone",
    ]
    assert leak.is_active()


def test_a_unit_that_starts_after_the_watch_is_governed(unit, policy, journal, eventually):
    policy("""
        interval: 1s
        policies:
          - name: late
            units: ["e2e-late-*.service", "e2e-late-*.scope"]
            steps:
              - {when: "anon > 40M", do: stop}
    """)
    late = unit("leak", "--start", "4M", "--rate", "6M/s", "--max", "80M", name="e2e-late-comer.service")
    eventually(lambda: not late.is_active(), "the late unit is stopped")
    eventually(lambda: outcomes(journal, late) == [("stop", "verified")], "which is verified")


def test_a_unit_in_a_long_start_is_governed(host, policy, journal, eventually):
    """A unit has its cgroup long before its start job is done, and may leak in there."""
    policy("""
        interval: 1s
        policies:
          - name: oneshot
            units: ["e2e-oneshot.service"]
            steps:
              - {when: "anon > 16M", do: {signal: SIGKILL, to: main}}
    """)
    host.check_output(
        "systemd-run --quiet --no-block --unit=e2e-oneshot.service --property=Type=oneshot "
        "/usr/local/lib/unitmem-workloads/steady --size 32M"
    )
    try:
        eventually(
            lambda: host.run("systemctl is-failed e2e-oneshot.service").rc == 0, "it is killed as it starts"
        )
    finally:
        host.run("systemctl stop e2e-oneshot.service; systemctl reset-failed e2e-oneshot.service")


def test_a_stop_that_hangs_is_killed_and_holds_up_nobody(unit, policy, journal, eventually):
    policy("""
        interval: 1s
        policies:
          - name: stubborn
            units: ["e2e-stubborn-*.service"]
            steps:
              - {when: "anon > 40M", do: {stop: {timeout: 20s, else: kill}}}
          - name: other
            units: ["e2e-other-*.service"]
            steps:
              - {when: "anon > 40M", do: stop}
    """)
    stubborn = unit(
        "leak",
        *("--start", "4M", "--rate", "6M/s", "--max", "80M", "--on-term", "ignore"),
        name="e2e-stubborn-a.service",
        TimeoutStopSec="10min",
    )
    eventually(lambda: ("stop", None) in decisions(journal, stubborn), "the stubborn unit is asked to stop")
    other = unit("leak", "--start", "4M", "--rate", "6M/s", "--max", "80M", name="e2e-other-b.service")
    eventually(lambda: not other.is_active(), "the other is stopped meanwhile")
    eventually(lambda: outcomes(journal, stubborn) == [("stop", "verified")], "the stubborn one is gone")
    assert any(
        "killed, as it had not stopped within 20s" in m
        for m in journal.messages(stubborn.name, stubborn.since)
    )


def test_observing_decides_the_same_and_does_nothing(unit, policy, journal, eventually):
    steady = unit("steady", "--size", "32M", name="e2e-observed.service")
    policy("""
        interval: 1s
        policies:
          - name: careful
            mode: observe
            units: ["e2e-observed.service"]
            steps:
              - {when: "anon > 16M", for: 1s, do: {stop: {timeout: 5s, else: kill}}}
    """)
    eventually(lambda: decisions(journal, steady) == [("stop", "observed")], "the decision is told")
    assert any("would stop it" in message for message in journal.messages(steady.name, steady.since))
    assert steady.is_active()


@pytest.mark.parametrize("unprotect", [False, True], ids=["protected", "unprotected"])
def test_journald_is_touched_only_where_it_is_unprotected(host, policy, journal, eventually, unprotect):
    """SIGUSR1 makes journald flush to disk: harmless, and seen in its own log."""
    line = 'unprotect: ["systemd-journald.service"]' if unprotect else "mode: act"
    since = journal.now()
    policy(f"""
        interval: 1s
        policies:
          - name: core
            units: ["systemd-journald.service"]
            {line}
            steps:
              - {{when: "current > 1K", do: {{signal: SIGUSR1, to: main}}}}
    """)

    def told():
        return [
            entry
            for entry in journal.entries("systemd-journald.service", since)
            if entry.get("MESSAGE_ID") in (DECISION, OUTCOME)
        ]

    if unprotect:
        eventually(lambda: any(e.get("UNITMEM_RESULT") == "verified" for e in told()), "it is signalled")
        return
    entry = eventually(told, "the refusal is told")[0]
    assert entry["UNITMEM_RESULT"] == "refused"
    assert "the machine can't be run or reached without it" in entry["MESSAGE"]
    assert "unprotect:" in entry["MESSAGE"]
    assert len(told()) == 1


def test_the_slice_around_the_guard_itself_is_protected(policy, journal, eventually):
    since = journal.now()
    policy("""
        interval: 1s
        policies:
          - name: saw
            units: ["unitmem.slice", "system.slice"]
            steps:
              - {when: "current > 1K", do: stop}
    """)
    for name in ("unitmem.slice", "system.slice"):
        entries = eventually(
            # journalctl --unit of a slice shows what its services say, about other units too
            lambda name=name: [e for e in journal.entries(name, since) if e.get("UNITMEM_UNIT") == name],
            f"the refusal to stop {name} is told",
        )
        assert [entry["UNITMEM_RESULT"] for entry in entries] == ["refused"]


UNIT_DIRECTORY = "/run/systemd/system"


def test_a_policy_that_names_an_alias_governs_the_unit(host, policy, journal, eventually):
    """As mysql.service is one of mariadb.service; it is loaded only after the watch has begun."""
    name, alias = "e2e-real.service", "e2e-nick.service"
    text = "[Service]\\nExecStart=/usr/local/lib/unitmem-workloads/leak --start 24M --rate 0 --max 24M\\n"
    host.check_output(f"printf '{text}' >{UNIT_DIRECTORY}/{name} && ln -s {name} {UNIT_DIRECTORY}/{alias}")
    host.check_output("systemctl daemon-reload")
    since = journal.now()
    try:
        watch = policy("""
            interval: 1s
            policies:
              - name: alias
                units: ["e2e-nick.service"]
                steps: [{when: "anon > 16M", for: 2s, do: {signal: SIGUSR1, to: main}}]
        """)
        host.check_output("systemctl start %s", name)
        eventually(
            lambda: any("SIGUSR1 delivered" in message for message in journal.messages(name, since)),
            "the unit is signalled under its own name",
        )
        path = f"/etc/unitmem/{watch.name.removeprefix('unitmem@').removesuffix('.service')}.yaml"
        checked = host.run("unitmem check %s", path)
        assert f"{alias} is an alias of {name}" in checked.stderr
        assert f"{name} (alias {alias})" in host.check_output("unitmem plan %s", path)
    finally:
        host.run(
            f"systemctl stop {name}; rm -f {UNIT_DIRECTORY}/{name} {UNIT_DIRECTORY}/{alias}; systemctl daemon-reload"
        )
