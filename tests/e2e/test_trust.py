"""What an operator has to be able to trust: ladders, budgets, verified outcomes, crashes, and the reason for everything."""

from __future__ import annotations

import json
from collections import Counter

DECISION, OUTCOME = "d1ecd066ddcc4fde918b1e2af62bf70f", "0764b90c0b544cf4a7569e666628681b"
LEAK = ("--start", "8M", "--rate", "5M/s", "--max", "160M")


def told(journal, unit, kind=DECISION):
    """The entries about decisions (or outcomes) on a unit, oldest first."""
    return [
        entry
        for entry in journal.entries(unit.name, unit.since)
        if entry.get("MESSAGE_ID") == kind and entry.get("UNITMEM_UNIT") == unit.name
    ]


def actions(entries):
    return [entry["UNITMEM_ACTION"] for entry in entries]


def events(host, python, watch):
    """The history of a watch."""
    instance = watch.name.removeprefix("unitmem@").removesuffix(".service")
    return json.loads(
        host.check_output(
            "%s -c 'import json, sys; from pathlib import Path; "
            "from unitmem.record.history import History; "
            'print(json.dumps([[e.kind, e.action, e.result, e.obstacle, len(e.detail.get("processes", []))]'
            " for e in History(Path(sys.argv[1])).events()]))' %s",
            python,
            f"/var/lib/unitmem/{instance}/history.sqlite",
        )
    )


def test_a_ladder_is_climbed_until_the_budget_ends_the_loop(host, python, unit, policy, journal, eventually):
    """The daemon is killed in the middle: nothing is done twice to one run, and nothing is left set."""
    watch = policy("""
        interval: 1s
        policies:
          - name: loop
            units: ["e2e-loop-*.service"]
            budget: {actions: 12, per: 1h}
            steps:
              - {when: "unreclaimable > 24M", do: log}
              - {when: "unreclaimable > 36M", do: {reclaim: 1M}}
              - {when: "unreclaimable > 48M", do: {set: {MemoryHigh: 192M}}}
              - {when: "unreclaimable > 60M", do: {signal: SIGUSR1, to: main}}
              - {when: "unreclaimable > 72M", for: 1s, do: {restart: {timeout: 60s, else: kill}}}
    """)
    leak = unit("leak", *LEAK, name="e2e-loop-leak.service", MemoryMax="256M")
    # it is in force for seconds only, until the restart, so it is looked for first
    eventually(lambda: leak.get("MemoryHigh") == str(192 * 2**20), "a property is in force")
    eventually(lambda: "set" in actions(told(journal, leak)), "and told")
    host.check_output("systemctl kill --signal=KILL %s", watch.name)
    eventually(
        lambda: any(entry.get("UNITMEM_OBSTACLE") == "out of budget" for entry in told(journal, leak)),
        "the budget ends the loop",
        ceiling=420,
    )
    done = [entry for entry in told(journal, leak) if "UNITMEM_OBSTACLE" not in entry]
    assert actions(done).count("restart") == 3
    by_run = Counter((entry["OBJECT_SYSTEMD_INVOCATION_ID"], entry["UNITMEM_ACTION"]) for entry in done)
    assert [key for key, count in by_run.items() if count > 1] == []
    for run in {run for run, _ in by_run}:
        climbed = [entry["UNITMEM_ACTION"] for entry in done if entry["OBJECT_SYSTEMD_INVOCATION_ID"] == run]
        assert climbed == ["log", "reclaim", "set", "SIGUSR1", "restart"][: len(climbed)]
    results = Counter((e["UNITMEM_ACTION"], e["UNITMEM_RESULT"]) for e in told(journal, leak, OUTCOME))
    assert results["restart", "verified"] == 3
    assert leak.is_active()
    assert leak.get("MemoryHigh") == "infinity"
    spent = [entry for entry in told(journal, leak) if entry.get("UNITMEM_OBSTACLE") == "out of budget"]
    assert "its budget of 12 actions per 1h is spent" in spent[0]["MESSAGE"]
    story = host.check_output("unitmem explain %s", leak.name)
    for words in (
        "unreclaimable, ",  # the picture's title
        "step 5: 72.0M",
        "setting MemoryHigh=192.0M",
        "restarting it (SIGKILL to the old run after 1min)",
        "the new run was up",
        "set back to MemoryHigh=infinity, as the episode is over",
        "its budget of 12 actions per 1h is spent",
        "ended by unitmem: restart",
    ):
        assert words in story
    decided = [event for event in events(host, python, watch) if event[0] == "decision"]
    assert [event[1] for event in decided if event[3] is None] == actions(done)
    # what was killed may have decided and not come to look at the processes
    assert [event[1] for event in decided if not event[4]] in ([], ["set"], ["SIGUSR1"])


def test_a_value_that_swings_around_its_threshold_fires_once(host, unit, policy, journal, eventually):
    swinging = unit("swing", "--low", "16M", "--high", "48M", "--period", "3s", name="e2e-swing.service")
    policy("""
        interval: 1s
        policies:
          - name: swing
            units: ["e2e-swing.service"]
            steps: [{when: "anon > 40M", do: {signal: SIGUSR1, to: main}}]
            clear: "anon < 8M"
    """)
    eventually(lambda: told(journal, swinging), "it fires")
    swings = lambda: sum("swung" in message for message in journal.messages(swinging.name, swinging.since))  # noqa: E731
    before = swings()
    eventually(lambda: swings() >= before + 4, "it swings on")
    assert len(told(journal, swinging)) == 1


STEADY = ("steady", "--size", "32M")
READER = ("reader", "--files", "2", "--size", "16M")


ACTIONS = {
    "kill": (STEADY, "{kill: {timeout: 20s}}", lambda unit: not unit.is_active()),
    "freeze": (STEADY, "freeze", lambda unit: unit.get("FreezerState") == "frozen"),
    "reclaim": (READER, "{reclaim: 1M}", lambda unit: unit.is_active()),
    "run": (
        STEADY,
        '{run: {command: ["/bin/sh", "-c", "echo $UNITMEM_UNIT $UNITMEM_MEASURE >/run/e2e-run"]}}',
        lambda unit: unit.host.run("cat /run/e2e-run").stdout.split() == [unit.name, "workingset"],
    ),
    "set": (STEADY, "{set: {MemoryMax: 128M}}", lambda unit: unit.read("memory.max") == str(128 * 2**20)),
}
"""By name: on what, the action, and whether it has been done to a unit."""


def test_each_action_works_in_the_services_own_sandbox(unit, policy, journal, eventually):
    """One watch does them all, since a start takes longer than any of them."""
    targets = {name: unit(*workload, MemoryMax="256M") for name, (workload, _, _) in ACTIONS.items()}
    policies = [
        f'  - {{name: {name}, units: ["{target.name}"], steps: [{{when: "workingset > 4M", do: {ACTIONS[name][1]}}}]}}'
        for name, target in targets.items()
    ]
    policy("\n".join(["interval: 1s", "policies:", *policies]))
    for name, target in targets.items():
        entries = eventually(
            lambda target=target: told(journal, target, OUTCOME), f"the outcome of {name} is told"
        )
        assert [entry["UNITMEM_RESULT"] for entry in entries] == ["verified"], entries[0]["MESSAGE"]
        assert ACTIONS[name][2](target), name


def test_what_is_set_is_set_back_when_the_daemon_stops(host, unit, policy, eventually):
    target = unit("steady", "--size", "32M", name="e2e-held.service", MemoryMax="256M")
    watch = policy("""
        interval: 1s
        policies:
          - name: hold
            units: ["e2e-held.service"]
            steps: [{when: "anon > 16M", do: {set: {MemoryHigh: 200M, MemoryMax: 220M}}}]
    """)
    eventually(lambda: target.read("memory.high") == str(200 * 2**20), "it is set")
    host.check_output("systemctl stop %s", watch.name)
    assert target.get("MemoryHigh") == "infinity"
    assert target.get("MemoryMax") == str(256 * 2**20)
    host.check_output("systemctl start %s", watch.name)
    eventually(lambda: target.read("memory.max") == str(220 * 2**20), "and set again, as it still breaches")


def test_explain_says_when_it_was_not_us(host, unit, eventually):
    def causes(target):
        host.check_output("journalctl --sync")
        told = json.loads(host.check_output("unitmem explain %s --json", target.name))
        return [
            (ending["cause"], ending["invocation_id"])
            for ending in told["endings"]
            if ending["at"] * 1e6 >= target.since
        ]

    killed = unit("leak", "--start", "8M", "--rate", "16M/s", MemoryMax="32M", MemorySwapMax="0")
    stopped = unit("steady", "--size", "8M")
    run = stopped.get("InvocationID")
    host.check_output("systemctl stop %s", stopped.name)
    eventually(lambda: causes(killed), "the kernel's kill is told")
    assert [cause for cause, _ in causes(killed)] == ["oom-killer"]
    assert causes(stopped) == [("request", run)]
    assert "ended by the kernel's OOM killer, not by unitmem" in host.check_output(
        "unitmem explain %s", killed.name
    )


def test_status_shows_where_each_step_stands(host, unit, policy, eventually):
    unit("steady", "--size", "32M", name="e2e-status.service", MemoryMax="256M")
    watch = policy("""
        interval: 1s
        policies:
          - name: seen
            units: ["e2e-status.service"]
            steps:
              - {when: "anon > 16M", do: log}
              - {when: "anon > 16M", for: 1h, do: stop}
              - {when: "zswap > 1G or anon > 100% of high", do: stop}
            budget: {actions: 3, per: 1h}
    """)
    instance = watch.name.removeprefix("unitmem@").removesuffix(".service")

    def steps():
        shown = json.loads(host.check_output("unitmem status %s --json", instance))
        return [step for document in shown["watches"] for unit in document["units"] for step in unit["steps"]]

    first, second, third = eventually(steps, "the unit is seen")
    assert (first["phase"], second["phase"], third["phase"]) == ("fired", "holding", "idle")
    assert 0 < second["left"] <= 3600
    assert "high" in third["unknown"]
    page = host.check_output("unitmem status %s", instance)
    assert "3 of 3 actions per 1h left" in page
    assert "high is unknown" in page


def test_the_same_samples_give_the_same_decisions_in_replay(host, unit, policy, journal, eventually):
    text = """
        interval: 1s
        policies:
          - name: again
            mode: observe
            units: ["e2e-again.service"]
            steps:
              - {when: "unreclaimable > 24M", for: 2s, do: log}
              - {when: "unreclaimable > 40M", for: 3s, do: {stop: {timeout: 5s}}}
              - {when: "growth(unreclaimable, 4s) > 30M/min", do: restart}
            cooldown: 5s
    """
    watch = policy(text)
    leak = unit("leak", *LEAK, name="e2e-again.service", MemoryMax="256M")
    eventually(lambda: {"log", "stop", "restart"} <= set(actions(told(journal, leak))), "all have fired")
    instance = watch.name.removeprefix("unitmem@").removesuffix(".service")
    host.check_output("systemctl stop %s", watch.name)
    watched = [(int(e["UNITMEM_STEP"]), e["UNITMEM_HELD_USEC"], e["MESSAGE"]) for e in told(journal, leak)]
    replayed = json.loads(
        host.check_output(
            "unitmem replay /etc/unitmem/%s.yaml --history /var/lib/unitmem/%s/history.sqlite --json",
            instance,
            instance,
        )
    )
    assert [
        (made["step"], str(int(made["held"] * 1_000_000)), made["message"]) for made in replayed["decisions"]
    ] == watched
