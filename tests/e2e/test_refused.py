"""What systemd refuses for good is told in its words, at once, and is not tried again."""

from __future__ import annotations

OUTCOME = "0764b90c0b544cf4a7569e666628681b"
REFUSAL = "may be requested by dependency only (it is configured to refuse manual start/stop)."


def outcomes(journal, unit):
    """(result, message) of every outcome told about a unit, oldest first."""
    return [
        (entry["UNITMEM_RESULT"], entry["MESSAGE"])
        for entry in journal.entries(unit.name, unit.since)
        if entry.get("MESSAGE_ID") == OUTCOME
    ]


def test_what_is_refused_for_good_is_told_at_once_and_its_last_resort_taken(
    host, unit, policy, journal, eventually
):
    """Nothing waits for a timeout, each of which is longer than a test."""
    size = ("--size", "32M")
    killed = unit("steady", *size, name="e2e-refused-killed.service", RefuseManualStop="yes")
    kept = unit("steady", *size, name="e2e-refused-kept.service", RefuseManualStop="yes")
    limited = unit(
        "steady", *size, name="e2e-refused-limited.service", StartLimitBurst="1", StartLimitIntervalSec="1h"
    )
    watch = policy("""
        interval: 1s
        policies:
          - name: killed
            units: [e2e-refused-killed.service]
            steps: [{when: "anon > 16M", do: {stop: {timeout: 1h, else: kill}}}]
          - name: kept
            units: [e2e-refused-kept.service]
            steps: [{when: "anon > 16M", do: {stop: {timeout: 1h}}}]
            budget: {actions: 3, per: 1d}
          - name: limited
            units: [e2e-refused-limited.service]
            steps: [{when: "anon > 16M", do: {restart: {timeout: 1h}}}]
    """)
    eventually(
        lambda: all(outcomes(journal, each) for each in (killed, kept, limited)),
        "all three outcomes are told",
    )
    ((result, message),) = outcomes(journal, killed)
    assert (result, killed.is_active()) == ("verified", False)
    assert "killed, as the manager refuses to stop it" in message
    assert REFUSAL in message
    assert killed.get("Result") == "signal"

    ((result, message),) = outcomes(journal, limited)
    assert (result, limited.get("Result")) == ("failed", "start-limit-hit")
    assert "StartLimitBurst=1 in StartLimitIntervalSec=3600s" in message
    assert f"`systemctl reset-failed {limited.name}`" in message

    status = host.check_output("unitmem status %s", watch.name)
    assert "budget: 3 of 3 actions per 1d left" in status
    assert [result for result, _ in outcomes(journal, kept)] == ["failed"]
    assert REFUSAL in outcomes(journal, kept)[0][1]
    assert kept.is_active()
