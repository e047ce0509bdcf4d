"""What the services that are no root may see, and what they can't do."""

from __future__ import annotations

import json
import shlex

import pytest

NAME = "e2e-observe"
OBSERVER = f"unitmem-observe@{NAME}.service"
SEES_PSS = "CapabilityBoundingSet=CAP_SYS_PTRACE\nAmbientCapabilities=CAP_SYS_PTRACE"
"""What its manual says to add where policies need PSS."""
AS_USER = "sudo -u vagrant XDG_RUNTIME_DIR=/run/user/$(id -u vagrant)"
POLICY = """
interval: 1s
policies:
  - name: what-if
    units: ["e2e-observed.service"]
    steps:
      - {when: "unreclaimable > 24M", do: log}
      - {when: "pss > 24M", do: {stop: {timeout: 20s, else: kill}}}
"""


@pytest.fixture
def observer(host):
    """observer(text): write a drop-in of the observing service; all is as before after the test."""
    place = f"/run/systemd/system/{OBSERVER}.d"

    def edit(text):
        host.check_output(
            "mkdir -p %s && printf '[Service]\\n%%s\\n' %s >%s/e2e.conf && systemctl daemon-reload",
            place,
            text,
            place,
        )

    host.check_output("printf %%s %s >/etc/unitmem/%s.yaml", POLICY, NAME)
    yield edit
    host.run(
        f"systemctl stop {OBSERVER} unitmem@{NAME}.service; systemctl reset-failed {OBSERVER};"
        f" rm -rf {place} /etc/unitmem/{NAME}.yaml /var/lib/unitmem/{NAME} /var/lib/unitmem-observe/{NAME}"
        f" /var/lib/private/unitmem-observe/{NAME}; systemctl daemon-reload"
    )


def test_the_observer_tells_what_it_would_do_and_is_replaced_by_who_does_it(host, unit, observer, eventually):
    done = host.run(f"systemd-analyze verify --man=no {OBSERVER}")
    assert (done.rc, done.stderr) == (0, "")
    observer(SEES_PSS)
    host.check_output(f"systemd-analyze security --no-pager --threshold=15 {OBSERVER}")
    host.check_output(f"systemctl start {OBSERVER}")
    steady = unit("steady", "--size", "40M", name="e2e-observed.service")

    def observed():
        events = json.loads(host.check_output("unitmem explain e2e-observed.service --json"))["events"]
        return {event["action"]: event["result"] for event in events if event["at"] * 1e6 >= steady.since}

    eventually(lambda: observed() == {"log": "observed", "stop": "observed"}, "both steps are observed")
    told = host.check_output(f"journalctl --output=cat --unit {OBSERVER}")
    assert "would stop it (SIGKILL after 20s), but the policy only observes" in told
    (watch,) = json.loads(host.check_output(f"unitmem status {NAME} --json"))["watches"]
    assert watch["instance"] == NAME
    assert host.check_output("stat --format=%%U /run/unitmem/%s", NAME) == "unitmem-observe"
    assert steady.is_active()
    # one that may act takes its place
    host.check_output(f"systemctl start unitmem@{NAME}.service")
    assert host.run(f"systemctl is-active {OBSERVER}").stdout.strip() == "inactive"
    eventually(lambda: not steady.is_active(), "what was observed is done")


@pytest.mark.suites("trixie")
def test_who_only_observes_can_do_nothing_to_a_unit(host, unit, observer, eventually):
    """All is attempted from inside, with the capability too that a policy over PSS takes."""
    victim = unit("steady", "--size", "8M", name="e2e-observed.service")
    pid, cgroup = victim.get("MainPID"), victim.get("ControlGroup")
    attempt = shlex.join(["/usr/local/lib/unitmem-workloads/attempt", victim.name, pid, cgroup])
    observer(
        f"{SEES_PSS}\nType=oneshot\nWatchdogSec=0\nExecReload=\nRestart=no\nExecStart=\nExecStart={attempt}"
    )
    host.check_output(f"systemctl start {OBSERVER}")
    printed = host.check_output(
        f"journalctl --output=cat --identifier=attempt --unit {OBSERVER}"
    ).splitlines()
    assert json.loads(printed[-1]) == {"tried": 20, "done": []}
    assert (victim.get("MainPID"), victim.get("MemoryHigh")) == (pid, "infinity")
    # each would have worked otherwise: as root, all but what needs the victim's own memory is done
    done = json.loads(host.check_output(attempt).splitlines()[-1])["done"]
    assert {
        "kill",
        "tgkill",
        "pidfd_send_signal",
        "ptrace",
        "private",
        "SetUnitProperties",
        "KillUnit",
    } <= set(done)


@pytest.mark.suites("bookworm")
def test_a_users_own_service_ends_a_users_unit(host, eventually):
    host.check_output("loginctl enable-linger vagrant && systemctl start user@$(id -u vagrant).service")
    try:
        host.check_output(
            f"printf %%s %s | {AS_USER} sh -c 'mkdir -p ~/.config/unitmem && cat >~/.config/unitmem/{NAME}.yaml'",
            POLICY,
        )
        host.check_output(f"{AS_USER} systemctl --user start unitmem@{NAME}.service")
        host.check_output(
            f"{AS_USER} systemd-run --user --quiet --unit=e2e-observed.service"
            " /usr/local/lib/unitmem-workloads/steady --size 40M"
        )
        active = f"{AS_USER} systemctl --user is-active e2e-observed.service"
        eventually(lambda: host.run(active).stdout.strip() != "active", "it is stopped")
        (watch,) = json.loads(host.check_output(f"{AS_USER} unitmem status --user --json"))["watches"]
        assert watch["instance"] == NAME
        assert "stopping it" in host.check_output(f"{AS_USER} unitmem explain --user e2e-observed.service")
    finally:
        host.run(f"{AS_USER} systemctl --user stop unitmem@{NAME}.service e2e-observed.service")
        host.run("cd /home/vagrant && rm -rf .config/unitmem .local/state/unitmem")
