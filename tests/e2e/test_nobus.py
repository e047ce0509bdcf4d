"""A bus that hangs, and rights that belong to others: the guard does what needs neither."""

from __future__ import annotations

POLICY = """
interval: 1s
policies:
  - name: nobus
    units: ["e2e-nobus-*.service"]
    steps: [{when: "anon > 32M", do: {stop: {timeout: 5s, else: kill}}}]
"""


def test_a_unit_is_killed_while_the_bus_hangs_and_a_start_waits_until_it_does_not(
    host, unit, policy, journal, eventually
):
    victim = unit(
        "leak", *("--start", "4M", "--rate", "1M/s", "--max", "60M"), name="e2e-nobus-victim.service"
    )
    guard = policy(POLICY)
    bus = host.check_output("systemctl show --value --property MainPID dbus.service")
    host.check_output("kill -STOP %s", bus)
    try:
        eventually(lambda: not victim.is_active(), "it is killed")
        eventually(
            lambda: any("could not be asked to stop it" in m for m in journal.messages(victim.name)),
            "and the outcome says why",
        )
        host.check_output("systemctl restart --no-block %s", guard.name)
        eventually(
            lambda: any("and reconnecting" in m for m in journal.messages(guard.name)), "the loss is told"
        )
        eventually(lambda: guard.get("ActiveState") == "activating", "it isn't ready")
    finally:
        host.check_output("kill -CONT %s", bus)
    eventually(guard.is_active, "it is ready")


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
