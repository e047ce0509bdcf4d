"""The shipped template in its own sandbox: it works, it reloads, and it survives what machines do to daemons."""

from __future__ import annotations

import pytest

POLICY = """
interval: 1s
policies:
  - name: service
    units: ["e2e-governed-*.service"]
    steps:
      - {when: "anon > 24M", for: 1s, do: stop}
"""


@pytest.fixture(scope="module")
def guard(lasting_policy):
    """A watch that several tests try, which leave it as it was, and the last of them stops; it ticks as fast as it may."""
    return lasting_policy(POLICY.replace("interval: 1s", "interval: 100ms"))


def is_governed(unit, eventually):
    """Whether a unit over the threshold is still stopped."""
    victim = unit("steady", "--size", "40M", name="e2e-governed-victim.service")
    eventually(lambda: not victim.is_active(), "the guard still stops what it governs")
    return True


def test_the_units_are_verified_with_no_word_of_complaint(host):
    done = host.run("systemd-analyze verify --man=no unitmem@web.service unitmem.slice")
    assert (done.rc, done.stderr) == (0, "")


def test_the_sandbox_is_tight(host):
    """Tighter than systemd-oomd's own 1.8; --threshold is in tenths."""
    host.check_output("systemd-analyze security --no-pager --threshold=16 unitmem@web.service")


def test_every_action_works_from_within_the_sandbox(unit, policy, journal, eventually):
    """The daemons of the field break in their own sandbox at the moment they act."""
    policy("""
        interval: 1s
        policies:
          - name: main
            units: ["e2e-act-main.service"]
            steps: [{when: "anon > 32M", do: {signal: SIGUSR1, to: main}}]
          - name: largest
            units: ["e2e-act-largest.service"]
            steps: [{when: "process.uss > 32M", do: {signal: SIGTERM, to: largest}}]
          - name: all
            units: ["e2e-act-all.service"]
            steps: [{when: "pss > 32M", do: {signal: SIGKILL, to: all}}]
          - name: stop
            units: ["e2e-act-stop.service"]
            steps: [{when: "rss > 32M", do: {stop: {timeout: 60s, else: kill}}}]
    """)
    targets = [
        unit("leak", *("--start", "4M", "--rate", "8M/s", "--max", "60M"), name=f"e2e-act-{action}.service")
        for action in ("main", "largest", "all", "stop")
    ]
    for target in targets:
        eventually(
            lambda target=target: any(
                entry.get("UNITMEM_RESULT") == "verified" for entry in journal.entries(target.name)
            ),
            f"the action on {target.name} is verified",
        )


def test_reload_takes_a_good_file_and_refuses_a_broken_one(host, unit, policy, journal, eventually):
    guard = policy(POLICY)
    name = guard.name.removeprefix("unitmem@").removesuffix(".service")
    pid = guard.get("MainPID")
    host.check_output(
        "printf 'policies:\\n  - name: x\\n    units: [*.service]\\n' >/etc/unitmem/%s.yaml", name
    )
    assert host.run("systemctl reload %s", guard.name).rc != 0
    host.check_output("systemctl kill --signal=SIGHUP %s", guard.name)
    eventually(
        lambda: any("the previous policies stay in force" in m for m in journal.messages(guard.name)),
        "the broken file is told",
    )
    assert any(f"/etc/unitmem/{name}.yaml:3:13: " in m for m in journal.messages(guard.name))
    assert is_governed(unit, eventually)

    host.check_output("printf %%s %s >/etc/unitmem/%s.yaml", POLICY.replace("governed", "renamed"), name)
    host.check_output("systemctl reload %s", guard.name)
    victim = unit("steady", "--size", "40M", name="e2e-renamed-victim.service")
    eventually(lambda: not victim.is_active(), "the new policy is in force")
    assert guard.get("MainPID") == pid

    def used():
        clocks = "cat /proc/uptime /sys/fs/cgroup%s/cpu.stat"
        words = host.check_output(clocks, guard.get("ControlGroup")).split()
        return float(words[0]), int(words[words.index("usage_usec") + 1]) / 1e6

    began, before = used()
    now, after = eventually(lambda: (last := used())[0] > began + 10 and last, "it is idle for a while")
    assert after - before < 0.7 * (now - began), "it sleeps between its ticks"


def test_a_broken_file_ends_the_service_for_good(host, policy):
    """Status 78, told with file, line and column, and no restart."""
    host.check_output("printf 'policies: 3\\n' >/etc/unitmem/e2e-broken.yaml")
    try:
        assert host.run("systemctl start unitmem@e2e-broken.service").rc != 0
        shown = host.check_output(
            "systemctl show --property ExecMainStatus,NRestarts,ActiveState unitmem@e2e-broken.service"
        )
        assert set(shown.split()) == {"ExecMainStatus=78", "NRestarts=0", "ActiveState=failed"}
        log = host.check_output("journalctl --output=cat --unit unitmem@e2e-broken.service")
        assert "/etc/unitmem/e2e-broken.yaml:1:11: " in log
        assert "Traceback" not in log
    finally:
        host.run("systemctl reset-failed unitmem@e2e-broken.service; rm /etc/unitmem/e2e-broken.yaml")


def test_a_stopped_guard_is_restarted_by_the_watchdog(host, unit, policy, eventually):
    host.check_output(
        "mkdir -p /run/systemd/system/unitmem@.service.d && "
        "printf '[Service]\\nWatchdogSec=8s\\nTimeoutAbortSec=3s\\n' "
        ">/run/systemd/system/unitmem@.service.d/e2e.conf && systemctl daemon-reload"
    )
    try:
        guard = policy(POLICY)
        pid = guard.get("MainPID")
        host.check_output("kill -STOP %s", pid)
        eventually(
            lambda: guard.is_active() and guard.get("MainPID") not in ("0", pid), "systemd restarts it", 300
        )
        assert int(guard.get("NRestarts")) >= 1
    finally:
        host.check_output("rm -r /run/systemd/system/unitmem@.service.d && systemctl daemon-reload")
    assert is_governed(unit, eventually)


def test_a_daemon_reload_changes_nothing(host, unit, guard, eventually):
    pid = guard.get("MainPID")
    host.check_output("systemctl daemon-reload")
    assert is_governed(unit, eventually)
    assert guard.get("MainPID") == pid


def test_units_that_vanish_at_any_time_do_no_harm(host, unit, guard, eventually):
    """Thirty short lives while the guard ticks as fast as it may."""
    pid = guard.get("MainPID")
    host.check_output(
        "for i in $(seq 30); do systemd-run --quiet --collect --unit=e2e-governed-$i.service sleep 0.$((i % 10)); done"
    )
    assert is_governed(unit, eventually)
    assert guard.get("MainPID") == pid
    assert guard.get("NRestarts") == "0"


def test_the_bus_may_go_away_and_come_back(host, unit, guard, journal, eventually):
    pid, since = guard.get("MainPID"), journal.now()
    host.check_output("systemctl stop dbus.service dbus.socket")
    try:
        eventually(
            lambda: any("is lost" in m for m in journal.messages(guard.name, since)), "the loss is told"
        )
    finally:
        # logind doesn't survive a bus that restarts: it is not what is tested here
        host.check_output(
            "systemctl start dbus.socket dbus.service && systemctl restart systemd-logind.service"
        )
    eventually(lambda: any("manager is back" in m for m in journal.messages(guard.name, since)), "it is back")
    assert is_governed(unit, eventually)
    assert guard.get("MainPID") == pid


def test_it_says_what_it_watches_is_the_last_to_be_killed_and_ends_cleanly_at_sigterm(
    host, guard, eventually
):
    """The last of those that share a guard, since it stops it."""
    for what in ("systemctl status %s", "systemctl show --property StatusText %s"):
        eventually(
            lambda what=what: "1 policy over 0 running units" in host.run(what, guard.name).stdout,
            "what the others have started is gone",
        )

    pid = guard.get("MainPID")
    assert int(host.check_output("cat /proc/%s/oom_score_adj", pid)) == -900
    assert int(guard.read("memory.min")) == 48 * 2**20
    assert int(host.check_output("cat /sys/fs/cgroup/unitmem.slice/memory.min")) >= 48 * 2**20
    assert int(guard.read("memory.swap.max")) == 0
    assert int(guard.read("memory.current")) < 48 * 2**20, "it needs more than what is protected"

    host.check_output("systemctl stop %s", guard.name)
    assert guard.get("Result") == "success"
    assert guard.get("ExecMainStatus") == "0"
