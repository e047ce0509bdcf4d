"""The socket of the real service, in its sandbox: anybody asks, root resets, and what was spent is there again."""

from __future__ import annotations

import json

import pytest

POLICY = """
interval: 1s
policies:
  - name: spent
    units: ["e2e-reset.service"]
    budget: {actions: 1, per: 1d}
    steps:
      - {when: "anon > 16M", do: {signal: SIGUSR1, to: main}, repeat: 1s}
"""
AS_USER = "runuser -u vagrant -- "


@pytest.fixture
def spent(host, unit, policy, journal, eventually):
    """The name of a watch whose budget for a unit is spent, and what that unit and others have said about it."""
    unit("leak", "--start", "32M", "--rate", "1M/s", "--max", "33M", name="e2e-reset.service")
    since = journal.now()
    watch = policy(POLICY)
    instance = watch.name.removeprefix("unitmem@").removesuffix(".service")

    def messages():
        return journal.messages("e2e-reset.service", since)

    eventually(lambda: any("its budget of 1 action per 1d is spent" in m for m in messages()), "it is spent")
    return instance, messages


def received(messages):
    return sum(message.startswith("got SIGUSR1") for message in messages())


@pytest.mark.suites("bookworm")  # the next one resets in the other
def test_a_reset_is_roots_and_the_unit_is_acted_on_again(host, spent, eventually):
    instance, messages = spent
    eventually(lambda: received(messages) == 1, "it was signalled once")
    for words in (f"status {instance}", "status"):
        assert "budget: 0 of 1 actions per 1d left" in host.check_output(f"{AS_USER}unitmem {words}")
    refused = host.run(f"{AS_USER}unitmem reset {instance}")
    assert (refused.rc, refused.stdout) == (1, "")
    assert "only root may reset this watch, not uid " in refused.stderr

    told = host.check_output("unitmem reset %s e2e-reset", instance)
    assert told == "e2e-reset.service: gave 1 action back to its budget in policy spent"
    eventually(lambda: received(messages) == 2, "it is signalled again, and once")
    line = "e2e-reset.service: reset by uid 0: gave 1 action back to its budget in policy spent"
    assert messages().count(line) == 1
    assert "reset by uid 0: gave 1 action back" in host.check_output("unitmem explain e2e-reset")

    assert host.run("unitmem reset %s ssh.service", instance).rc == 4
    assert host.run("unitmem reset e2e-none").rc == 1


@pytest.mark.suites("trixie")  # systemd 252 has no varlinkctl
def test_the_socket_speaks_varlink(host, spent, eventually):
    instance, messages = spent
    socket = f"/run/unitmem/{instance}/io.unitmem"
    assert "io.unitmem" in host.check_output(f"{AS_USER}varlinkctl info {socket}")
    described = host.check_output(f"{AS_USER}varlinkctl introspect {socket} io.unitmem")
    assert "method Reset(" in described

    call = f"varlinkctl call --json=short {socket} io.unitmem."
    status = json.loads(host.check_output(f"{AS_USER}{call}Status {{}}"))["status"]
    assert (status["instance"], [each["unit"] for each in status["units"]]) == (
        instance,
        ["e2e-reset.service"],
    )
    refused = host.run(f"{AS_USER}{call}Reset {{}}")
    assert refused.rc != 0
    assert "io.unitmem.PermissionDenied" in refused.stderr
    (budget,) = json.loads(host.check_output(f"{call}Reset {{}}"))["budgets"]
    assert (budget["unit"], budget["actions"]) == ("e2e-reset.service", 1)
    eventually(lambda: received(messages) == 2, "it is signalled again")
