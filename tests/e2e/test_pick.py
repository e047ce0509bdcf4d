"""A slice that is short of memory: of all units in it, the greatest is stopped, and the others live."""

from __future__ import annotations

import json

import pytest

SLICE = "e2epick.slice"
SPARED, HOG, SMALL, CALM = (f"e2e-pick-{name}.service" for name in ("spared", "hog", "small", "calm"))
POLICY = """
    interval: 1s
    policies:
      - name: short
        units: ["e2e-pick-*.service"]
        steps:
          - when: "slice.unreclaimable > 100M"
            for: 2s
            pick: {by: footprint, avoid: ["e2e-pick-calm.*"], settle: 1h}
            do: {stop: {timeout: 1min, else: kill}}
"""


@pytest.mark.suites("bookworm")
def test_the_hog_is_stopped_and_the_others_live(host, python, unit, policy, journal, eventually):
    # with all of them it is above the threshold, and without the hog still
    spared = unit("steady", "--size", "80M", name=SPARED, Slice=SLICE, ManagedOOMPreference="omit")
    small = unit("steady", "--size", "16M", name=SMALL, Slice=SLICE)
    calm = unit("steady", "--size", "40M", name=CALM, Slice=SLICE)
    hog = unit("steady", "--size", "32M", name=HOG, Slice=SLICE)
    attribute = f"os.getxattr('/sys/fs/cgroup{spared.get('ControlGroup')}', 'user.oomd_omit')"
    assert host.check_output("%s -c %s", python, f"import os; print({attribute})") == "b'1'"

    watch = policy(POLICY)
    eventually(lambda: not hog.is_active(), "the hog is stopped")
    stopping = eventually(
        lambda: [line for line in journal.messages(HOG, hog.since) if "picked by footprint" in line],
        "the journal says why it was picked",
    )
    # the calm one is larger, and to be avoided
    assert "of 3 candidates, next e2e-pick-small.service" in stopping[0]

    instance = watch.name.removeprefix("unitmem@").removesuffix(".service")

    def withheld():
        (document,) = json.loads(host.check_output("unitmem status %s --json", instance))["watches"]
        return {entry["unit"]: entry["steps"][0]["withheld"] for entry in document["units"]}

    settling = f"it is not picked: {HOG} was, and the effect settles first"
    eventually(lambda: withheld() == dict.fromkeys((SPARED, SMALL, CALM), settling), "the others wait")
    assert "not picked" in host.check_output("unitmem status %s", instance)
    assert all(each.is_active() for each in (spared, small, calm))
    told = [line for line in journal.messages(watch.name) if "not stopping it" in line]
    assert [line.partition(":")[0] for line in told] == [SPARED]
    assert told[0].endswith("its ManagedOOMPreference= is omit")
