"""The cookbook's translations of other tools: each does what its original does, to the same unit, but gently.

Each runs in one guest, since each takes a while. Thresholds are brought to where the guest is: nothing else of a recipe
is changed, but for the pattern of its units.
"""

from __future__ import annotations

import re

import pytest
from documents import CHECKOUT

SLICE = "e2eothers.slice"
HOG, CALM = "e2e-others-hog.service", "e2e-others-calm.service"


@pytest.fixture
def recipe(host, policy):
    """recipe(name, **changed): start a watch with an example that acts; each text in it that is a key becomes its value."""

    def start(name, changed):
        text = (CHECKOUT / f"examples/{name}.yaml").read_text()
        text = re.sub(r"^ *mode: observe\n", "", text, flags=re.MULTILINE)
        text = re.sub(r'units: \["\*\.service".*\]', 'units: ["e2e-others-*.service"]', text)
        for old, new in changed.items():
            assert old in text, f"{name}.yaml: {old}"
            text = text.replace(old, new)
        host.check_output("printf %%s %s >/run/e2e-others.yaml", text)
        host.check_output("unitmem check /run/e2e-others.yaml")
        return policy(text)

    return start


@pytest.fixture
def available(host):
    """available(): how much of the machine's memory is available, in percent."""

    def percent():
        meminfo = dict(re.findall(r"^(\w+): +(\d+)", host.check_output("cat /proc/meminfo"), re.MULTILINE))
        return 100 * int(meminfo["MemAvailable"]) // int(meminfo["MemTotal"])

    return percent


@pytest.fixture
def throttled(host):
    """throttled(): bring the slice to stand still once more is asked for than it has; undone after the test."""
    yield lambda: host.check_output(
        "systemctl set-property --runtime %s MemoryHigh=64M MemorySwapMax=0", SLICE
    )
    host.run("systemctl revert %s; systemctl stop %s", SLICE, SLICE)


@pytest.mark.suites("bookworm")
def test_as_earlyoom(host, unit, recipe, journal, eventually, available):
    calm = unit("steady", "--size", "24M", name=CALM)
    share = available() - 8
    watch = recipe("as-earlyoom", {"10% of host.total": f"{share}% of host.total"})
    hog = unit("leak", "--start", "32M", "--rate", "16M", "--max", "300M", name=HOG)
    eventually(lambda: not hog.is_active(), "its largest process is asked to end")
    assert any(
        HOG in message and "SIGTERM" in message and "picked" in message
        for message in journal.messages(watch.name)
    )
    assert hog.get("Result") == "success", "SIGTERM was enough"
    assert calm.is_active()
    assert not any(message.startswith(CALM) for message in journal.messages(watch.name)), (
        "nothing is said of it"
    )


@pytest.mark.suites("trixie")
def test_as_nohang(host, unit, recipe, journal, eventually, available):
    calm = unit("steady", "--size", "24M", name=CALM)
    was = calm.get("InvocationID")
    share = available() - 8
    watch = recipe("as-nohang", {"< 5% of host.total": f"< {share}% of host.total"})
    hog = unit("leak", "--start", "32M", "--rate", "16M", "--max", "300M", name=HOG)
    first = hog.get("InvocationID")
    eventually(
        lambda: any(HOG in message and "restarted" in message for message in journal.messages(watch.name)),
        "it is restarted",
    )
    assert hog.get("InvocationID") != first
    assert calm.get("InvocationID") == was


@pytest.mark.suites("trixie")
def test_as_systemd_oomd(host, unit, recipe, journal, eventually, throttled):
    calm = unit("steady", "--size", "8M", name=CALM, Slice=SLICE)
    throttled()
    watch = recipe("as-systemd-oomd", {"> 60%": "> 20%", "for: 30s": "for: 3s"})
    hog = unit("leak", "--start", "32M", "--rate", "16M", "--max", "160M", name=HOG, Slice=SLICE)
    eventually(lambda: not hog.is_active(), "it is stopped")
    eventually(
        lambda: any(HOG in message and "stopped" in message for message in journal.messages(watch.name)),
        "that is told",
    )
    assert calm.is_active()


@pytest.mark.suites("bookworm")
def test_as_oomd(host, unit, recipe, journal, eventually, throttled):
    # the larger one of the two doesn't grow
    calm = unit("steady", "--size", "40M", name=CALM, Slice=SLICE)
    throttled()
    watch = recipe(
        "as-oomd",
        {"> 60%": "> 20%", "for: 30s": "for: 3s", "interval: 5s": "interval: 1s", ", 1min)": ", 10s)"},
    )
    hog = unit("leak", "--start", "8M", "--rate", "2M", "--max", "160M", name=HOG, Slice=SLICE)
    eventually(lambda: not hog.is_active(), "what grows is stopped")
    eventually(
        lambda: any(HOG in message and "stopped" in message for message in journal.messages(watch.name)),
        "that is told",
    )
    assert calm.is_active()
