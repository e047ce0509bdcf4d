"""A limit that units share: the one that leaks fills it, and the policy sees it in all of them."""

from __future__ import annotations

import json

import pytest

SLICE = "e2ecrowd.slice"
CALM, LEAK = "e2e-crowd-calm.service", "e2e-crowd-leak.service"
POLICY = """
    interval: 1s
    policies:
      - name: crowd
        units: ["e2e-crowd-*.service"]
        steps:
          - {when: "eta(limit, 10s) < 10min", do: log}
          - {when: "fill > 80%", do: log}
          - {when: "slice.unreclaimable > 80% of slice.max", do: log}
"""


@pytest.fixture
def limited(host):
    """limited(): give the slice a limit, once it runs; taken away after the test."""
    yield lambda: host.check_output("systemctl set-property --runtime %s MemoryMax=128M", SLICE)
    host.run("systemctl revert %s; systemctl stop %s", SLICE, SLICE)


@pytest.mark.suites("bookworm")
def test_a_full_slice_shows_in_every_unit_in_it(host, unit, policy, journal, eventually, limited):
    unit("steady", "--size", "8M", name=CALM, Slice=SLICE)
    limited()
    watch = policy(POLICY)
    unit("leak", "--start", "16M", "--rate", "2M", "--max", "96M", name=LEAK, Slice=SLICE)

    def told():
        """(unit, what was compared) of each line of the watch about a unit."""
        split = (message.partition(": ") for message in journal.messages(watch.name))
        return {(name, what.partition(" ")[0]) for name, _, what in split}

    measures = ("eta(limit,", "fill", "slice.unreclaimable")
    eventually(
        lambda: {(name, measure) for name in (CALM, LEAK) for measure in measures} <= told(),
        "all of it is told of both",
    )

    assert any(
        message.startswith(f"{CALM}: fill ") and f" at /{SLICE} > 80%" in message
        for message in journal.messages(watch.name)
    )

    instance = watch.name.removeprefix("unitmem@").removesuffix(".service")
    (document,) = json.loads(host.check_output("unitmem status %s --json", instance))["watches"]
    assert {entry["unit"]: entry["fill_set_by"] for entry in document["units"]} == {
        CALM: f"/{SLICE}",
        LEAK: f"/{SLICE}",
    }
    assert f"at /{SLICE}" in host.check_output("unitmem status %s", instance)
    shown = json.loads(host.check_output("unitmem show %s --json", CALM))
    assert shown["fill_set_by"] == f"/{SLICE}"
    assert shown["measures"]["fill"] > 80 > 100 * shown["measures"]["unreclaimable"] / (128 << 20)

    # by itself the calm one is nowhere near its limit: a share of it says nothing of the slice, and check says so
    share = POLICY.replace('fill > 80%"', 'unreclaimable > 80% of limit"')
    host.check_output("printf %%s %s >/run/e2e-levels.yaml", share)
    done = host.run("unitmem check --json /run/e2e-levels.yaml")
    assert [problem["code"] for problem in json.loads(done.stdout)["problems"]] == ["shared-limit"]
