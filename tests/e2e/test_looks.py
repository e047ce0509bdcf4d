"""`top`, `plan` and `check` on a real machine: what they show is what systemd and the kernel say."""

from __future__ import annotations

import json

import pytest

POLICY = """
    interval: 1s
    policies:
      - name: looked-at
        units: ["e2e-looked-*.service", "systemd-journald.service"]
        steps:
          - {when: "anon > 4M", do: log}
          - {when: "anon > 800G", for: 10s, do: stop}
          - {when: "zswap > 1G", for: 10s, do: stop}
"""


def test_top_shows_units_and_the_phases_of_a_watch(host, unit, policy, eventually):
    unit("steady", "--size", "32M", name="e2e-looked-at.service", MemoryMax="64M")
    watch = policy(POLICY)
    eventually(lambda: host.run("unitmem status %s", watch.name[8:-8]).rc == 0, "the watch tells its status")

    page = host.check_output("unitmem top 'e2e-looked-*'")
    (row,) = [line for line in page.splitlines() if line.startswith("e2e-looked-at.service")]
    assert "64.0M" in row
    assert "fired" in row

    live = host.check_output(
        "TERM=xterm script -qec 'stty cols 80 rows 24; unitmem top --iterations 2' /dev/null"
    )
    assert "e2e-looked-at.service" in live
    assert "\x1b[?1049h" in live
    assert "\x1b[?1049l" in live.rpartition("e2e-looked-at.service")[2]


def test_plan_knows_what_a_stop_takes_along(host, unit):
    unit("steady", "--size", "8M", name="e2e-looked-at.service", MemoryMax="64M")
    unit("steady", "--size", "8M", name="e2e-follower.service", BindsTo="e2e-looked-at.service")
    host.check_output("printf %%s %s >/run/e2e-plan.yaml", POLICY)
    (plan,) = json.loads(host.check_output("unitmem plan --json /run/e2e-plan.yaml"))["policies"]
    units = {entry["unit"]: entry for entry in plan["units"]}
    assert [gone["unit"] for gone in units["e2e-looked-at.service"]["stopped_with"]] == [
        "e2e-follower.service"
    ]
    assert [step["holds"] for step in units["e2e-looked-at.service"]["steps"]][:2] == [True, False]
    assert units["systemd-journald.service"]["protected"] is not None
    assert 2 in {idle["step"] for idle in plan["idle"]}
    page = host.check_output("unitmem plan /run/e2e-plan.yaml")
    assert "e2e-looked-at.service <- e2e-follower.service (BindsTo)" in page


def test_check_warns_of_what_this_machine_can_not_mean(host, unit):
    unit("steady", "--size", "8M", name="e2e-looked-at.service", MemoryMax="64M")
    text = POLICY.replace("zswap > 1G", "anon > 1G").replace('"anon > 4M", do: log', '"anon > 4M", do: stop')
    host.check_output("printf %%s %s >/run/e2e-check.yaml", text)
    done = host.run("unitmem check --json /run/e2e-check.yaml")
    assert done.rc == 0
    codes = {problem["code"] for problem in json.loads(done.stdout)["problems"]}
    assert {"no-hold", "core-unit", "above-limit"} <= codes
    assert host.run("unitmem check --strict /run/e2e-check.yaml").rc == 1


QUICK = """
    interval: 10min
    policies:
      - name: quick
        units: ["e2e-quick-*.service"]
        steps:
          - {when: "%s > 100M", do: {signal: SIGTERM, to: all}}
"""


@pytest.mark.suites("trixie")
@pytest.mark.parametrize("measure", ["current", "unreclaimable"])
def test_a_unit_that_crosses_its_threshold_is_signalled_long_before_the_next_tick(
    host, unit, policy, eventually, measure
):
    """And one that stays below it is not."""
    unit("steady", "--size", "32M", name="e2e-quick-calm.service", MemoryMax="400M")
    leak = unit("leak", "--rate", "16M/s", name="e2e-quick-leak.service", MemoryMax="400M")
    policy(QUICK % measure)
    eventually(
        lambda: host.run("systemctl is-active %s", leak.name).stdout.strip() != "active", "it has ended"
    )
    assert host.check_output("systemctl is-active e2e-quick-calm.service") == "active"


@pytest.mark.suites("bookworm")
def test_a_limit_that_is_lowered_is_seen_although_its_unit_is_not_read_otherwise(
    host, unit, policy, eventually
):
    unit("steady", "--size", "32M", name="e2e-quick-calm.service", MemoryMax="4G")
    watch = policy(QUICK.replace("10min", "1s").replace("%s > 100M", "anon > 50% of limit"))
    name = watch.name[8:-8]
    eventually(lambda: host.run("unitmem status %s", name).rc == 0, "the watch tells its status")
    host.check_output("sleep 5; systemctl is-active e2e-quick-calm.service")
    host.check_output("systemctl set-property --runtime e2e-quick-calm.service MemoryMax=48M")
    eventually(
        lambda: host.run("systemctl is-active e2e-quick-calm.service").stdout.strip() != "active",
        "it was signalled",
    )
