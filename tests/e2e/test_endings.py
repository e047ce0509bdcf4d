"""Who ended a unit, told from the real journal: what systemd and the kernel really write is read as it is meant."""

from __future__ import annotations

import json

import pytest

TELL = """
import dataclasses, json, sys
from unitmem.explain.attribution import attribute
from unitmem.explain.journalctl import read_entries

since, *units = sys.argv[1:]
told = {
    unit: [
        dataclasses.asdict(ending)
        for ending in attribute(read_entries(unit, float(since)))
        if ending.unit == unit
    ]
    for unit in units
}
print(json.dumps(told))
"""

OOMD = "/usr/lib/systemd/systemd-oomd"


@pytest.fixture(scope="module")
def endings(host, python, journal):
    """endings(unit, …): how the runs of each ended, by name, since the tests began."""
    since = journal.now() / 1e6

    def tell(*units):
        # what is logged is not in the files yet
        names = [unit.name for unit in units]
        command = "journalctl --sync; %s -c %s %s" + " %s" * len(names)
        return json.loads(host.check_output(command, python, TELL, f"{since:.6f}", *names))

    return tell


@pytest.fixture(scope="module")
def the_ends(endings, eventually):
    """the_ends(unit, …): the one ending of each, as soon as they are all told of."""

    def wait(*units):
        told = {}

        def all_ended():
            told.update(endings(*units))
            return all(any(ending["ended"] for ending in told[unit.name]) for unit in units)

        eventually(all_ended, f"the ends of {', '.join(unit.name for unit in units)} are told")
        ends = []
        for unit in units:
            (ending,) = told[unit.name]
            assert ending["invocation_id"]
            assert ending["evidence"]
            ends.append(ending)
        return ends

    return wait


def causes(told):
    return [(ending["cause"], ending["ended"]) for ending in told]


def oom_killed(unit, policy):
    return unit(
        "leak", "--start", "8M", "--rate", "16M/s", MemoryMax="32M", MemorySwapMax="0", OOMPolicy=policy
    )


def ended_by_hand(unit, *command):
    steady = unit("steady", "--size", "8M")
    steady.host.check_output("systemctl " + " ".join(["%s"] * len(command)) + " %s", *command, steady.name)
    return steady


# `$$` is `$` to systemd
WAYS_TO_END = {
    "oom-stop": lambda unit: oom_killed(unit, "stop"),
    "oom-kill": lambda unit: oom_killed(unit, "kill"),
    "oom-continue": lambda unit: oom_killed(unit, "continue"),
    "stop": lambda unit: ended_by_hand(unit, "stop"),
    "restart": lambda unit: ended_by_hand(unit, "restart"),
    "KILL": lambda unit: ended_by_hand(unit, "kill", "--signal=KILL"),
    "TERM": lambda unit: ended_by_hand(unit, "kill", "--signal=TERM"),
    "success": lambda unit: unit("/bin/sh", "-c", "sleep 1; exit 0"),
    "status": lambda unit: unit("/bin/sh", "-c", "sleep 1; exit 3"),
    "crash": lambda unit: unit("/bin/sh", "-c", "sleep 1; kill -SEGV $$$$"),
    "timeout": lambda unit: unit("/bin/sleep", "infinity", RuntimeMaxSec="1s"),
}


@pytest.fixture(scope="module")
def ended(lasting_unit, the_ends):
    """A unit and its ending, by the way in which it was made to end."""
    units = {way: end(lasting_unit) for way, end in WAYS_TO_END.items()}
    return dict(zip(units, zip(units.values(), the_ends(*units.values()), strict=True), strict=True))


@pytest.mark.parametrize("policy", ["stop", "kill", "continue"])
def test_a_leak_past_its_limit_is_the_oom_killers(ended, policy):
    leak, ending = ended[f"oom-{policy}"]
    assert leak.get("Result") == ("signal" if policy == "continue" else "oom-kill")
    assert ending["cause"] == "oom-killer", ending
    assert ending["detail"].startswith("its own limit (memory.max) was reached; killed pid "), ending
    assert "of anonymous memory" in ending["detail"]


@pytest.mark.parametrize(
    ("way", "cause", "detail"),
    [
        ("stop", "request", "a stop job"),
        ("restart", "request", "a restart job"),
        ("KILL", "signal-request", "SIGKILL sent by systemctl kill"),
        ("TERM", "signal-request", "SIGTERM sent by systemctl kill"),
        ("success", "exit", "with success; the journal doesn't say whether it was sent a signal"),
        ("status", "crash", "exit status 3"),
        ("crash", "crash", "SIGSEGV"),
        ("timeout", "timeout", "reached runtime time limit"),
    ],
)
def test_what_a_person_did_or_nobody_is_told_apart(ended, way, cause, detail):
    _, ending = ended[way]
    assert ending["cause"] == cause, ending
    assert detail.lower() in ending["detail"].lower(), ending


def test_a_signal_has_no_sender_but_a_guard_whose_service_told_of_it(host, unit, the_ends):
    """`logger` may call itself earlyoom; only journald knows which unit a line is from."""

    def signalled(log):
        steady = unit("steady", "--size", "8M")
        pid = steady.get("MainPID")
        line = f'sending SIGTERM to process {pid} uid 0 "steady": badness 780, VmRSS 8 MiB'
        host.check_output(f"{log} %s && kill -TERM %s", line, pid)
        (ending,) = the_ends(steady)
        assert ending["cause"] == "exit", ending
        return ending["detail"]

    assert "doesn't say whether it was sent a signal" in signalled("logger --tag=earlyoom")
    told = signalled("systemd-run --quiet --wait --unit=earlyoom.service /bin/echo")
    assert "likely by earlyoom, which sent SIGTERM to pid " in told


def test_a_child_that_is_oom_killed_under_oompolicy_continue_ends_nothing(unit, endings, eventually):
    script = "tail /dev/zero || true; exec sleep infinity"
    parent = unit("/bin/sh", "-c", script, MemoryMax="32M", MemorySwapMax="0", OOMPolicy="continue")
    told = eventually(lambda: endings(parent)[parent.name], "the kill is told")
    assert causes(told) == [("oom-killer", False)]
    assert parent.is_active()


def test_what_a_policy_stops_is_unitmems(unit, policy, the_ends):
    policy("""
        interval: 1s
        policies:
          - name: endings
            units: ["e2e-endings-*.service"]
            steps:
              - {when: "anon > 24M", do: stop}
    """)
    leak = unit("leak", "--start", "8M", "--rate", "8M/s", "--max", "64M", name="e2e-endings-leak.service")
    (ending,) = the_ends(leak)
    assert (ending["cause"], ending["detail"]) == ("unitmem", "stop")


def test_what_anyone_logs_is_no_evidence(host, unit, endings):
    steady = unit("steady", "--size", "8M")
    for message_id in ("d9b373ed55a64feb8242e02dbe79a49c", "7ad2d189f7e94e70a38c781354912448"):
        fields = f"MESSAGE=forged\nMESSAGE_ID={message_id}\nUNIT={steady.name}\nUNIT_RESULT=oom-kill"
        host.check_output("printf '%%s\\n' %s | logger --journald", fields)
    assert endings(steady)[steady.name] == []


@pytest.fixture
def swap(host):
    """systemd-oomd kills only where there is something to reclaim, and anonymous memory needs swap for that."""
    host.check_output("systemctl start swapfile.swap")
    yield
    host.check_output("systemctl stop swapfile.swap")


def test_a_unit_under_pressure_is_systemd_oomds(host, unit, the_ends, swap):
    if not host.file(OOMD).exists:
        pytest.skip("systemd-oomd is not installed in this guest")
    host.check_output("systemctl start systemd-oomd.service")
    leak = unit(
        *("leak", "--start", "4M", "--rate", "8M/s", "--max", "400M"),
        MemoryHigh="32M",
        ManagedOOMMemoryPressure="kill",
        ManagedOOMMemoryPressureLimit="1%",
    )
    (ending,) = the_ends(leak)
    assert ending["cause"] == "systemd-oomd", ending
    assert "memory pressure" in ending["detail"], ending
