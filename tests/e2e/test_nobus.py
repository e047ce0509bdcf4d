"""A bus that hangs, and rights that belong to others: the guard does what needs neither."""

from __future__ import annotations

import pytest

POLICY = """
interval: 1s
policies:
  - name: nobus
    units: ["e2e-nobus-*.service"]
    steps: [{when: "anon > 1G", do: {stop: {timeout: 5s, else: kill}}}]
"""


# In one login, since each takes the bus as well; what is decided then follows from a policy that is changed then. Whether
# the stop was still sent depends on what was asked before it.
WHILE_THE_BUS_HANGS = """
bus=$(systemctl show --value --property MainPID dbus.service)
kill -STOP $bus
trap 'kill -CONT $bus' EXIT
sed -i s/1G/32M/ /etc/unitmem/%s.yaml
systemctl kill --signal=SIGHUP %s
timeout 150 sh -c 'while systemctl --quiet is-active e2e-nobus-victim.service; do sleep 1; done' || exit 1
killed='(did not answer the stop|could not be asked to stop it) within 5s'
timeout 60 sh -c "until journalctl --output=cat --unit e2e-nobus-victim.service | grep -qE '$killed'; do sleep 1; done" || exit 3
systemctl restart --no-block %s
told='no unit is watched yet and reconnecting'
timeout 150 sh -c "until journalctl --output=cat --unit %s | grep -q '$told'; do sleep 1; done" || exit 2
systemctl show --value --property ActiveState %s
"""


def test_a_unit_is_killed_while_the_bus_hangs_and_a_start_waits_until_it_does_not(
    host, unit, policy, eventually
):
    victim = unit("steady", "--size", "40M", name="e2e-nobus-victim.service")
    guard = policy(POLICY)
    instance = guard.name.removeprefix("unitmem@").removesuffix(".service")
    assert host.check_output(WHILE_THE_BUS_HANGS, instance, *[guard.name] * 4).strip() == "activating"
    assert not victim.is_active()
    eventually(guard.is_active, "it is ready")


@pytest.mark.suites("trixie")
def test_memory_of_a_delegated_unit_is_reclaimed_from_within_the_sandbox(unit, policy, journal, eventually):
    """Its memory.reclaim belongs to its user, and nobody else may write it."""
    policy("""
        interval: 1s
        policies:
          - name: delegated
            units: ["e2e-nobus-delegated.service"]
            steps: [{when: "current > 1M", do: {reclaim: 64K}}]
    """)
    target = unit(
        "steady", "--size", "8M", name="e2e-nobus-delegated.service", Delegate="yes", User="vagrant"
    )
    outcome = eventually(
        lambda: next((e for e in journal.entries(target.name) if "UNITMEM_RESULT" in e), None),
        "the reclaim has an outcome",
    )
    assert "permission denied" not in outcome["MESSAGE"]
    # how much there is to reclaim is the kernel's affair
    assert outcome["UNITMEM_RESULT"] == "verified" or "could reclaim less" in outcome["MESSAGE"]
