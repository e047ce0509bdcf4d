"""The guests are what the other tests take them for: run this first when those fail strangely."""

import pytest


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("cat /sys/fs/cgroup/cgroup.controllers", ["memory"]),
        ("cat /proc/pressure/memory", ["some", "full"]),
        ("cat /proc/swaps", []),
        ("python3 -c 'import pystemd, yaml; print(pystemd.__name__)'", ["pystemd"]),
        ("systemctl show --property DefaultMemoryAccounting", ["DefaultMemoryAccounting=yes"]),
        (
            "loginctl enable-linger vagrant && systemctl --user --machine vagrant@ is-system-running --wait",
            ["running"],
        ),
    ],
)
def test_guest_has_what_a_target_machine_has(host, command, words):
    output = host.check_output(command)
    assert [word for word in words if word not in output.split()] == []


def test_guest_has_the_library(host, python):
    assert host.check_output("%s -c 'import unitmem; print(unitmem.__name__)'", python) == "unitmem"


def test_guest_has_one_systemd_per_suite(host, suite):
    """Two generations: before and after systemd 253 and Linux 6.6."""
    generation = {
        "bookworm": ("systemd 252", "6.1."),
        "trixie": ("systemd 257", "6.12."),
        "el10": ("systemd 257", "6.12."),
    }[suite]
    assert host.check_output("systemctl --version").startswith(generation[0])
    assert host.check_output("uname -r").startswith(generation[1])


def test_swap_can_be_switched_on_and_off(host):
    host.check_output("systemctl start swapfile.swap")
    assert "/swapfile" in host.file("/proc/swaps").content_string
    host.check_output("systemctl stop swapfile.swap")
    assert "/swapfile" not in host.file("/proc/swaps").content_string


def test_leak_grows_to_its_maximum_and_answers_signals(host, unit, journal, eventually):
    leak = unit("leak", "--start", "16M", "--rate", "16M/s", "--max", "48M", "--on-term", "ignore")
    eventually(lambda: int(leak.read("memory.current")) > 48 * 2**20, "the leak has grown")
    host.check_output("systemctl kill --signal=SIGUSR1 %s", leak.name)
    host.check_output("systemctl kill --signal=SIGTERM %s", leak.name)
    eventually(
        lambda: {"got SIGUSR1 at 50331648 bytes", "ignored SIGTERM"} <= set(journal.messages(leak.name)),
        "both signals are logged",
    )
    assert leak.is_active()


def test_steady_holds_its_size(host, unit):
    steady = unit("steady", "--size", "32M", "--threads", "3")
    assert int(steady.read("memory.current")) > 32 * 2**20
    assert steady.get("TasksCurrent") == "4"


def test_reader_fills_its_limit_with_cache_and_lives(unit, eventually):
    reader = unit("reader", "--files", "2", "--size", "24M", MemoryMax="32M")
    stat = dict(line.split() for line in reader.read("memory.stat").splitlines())
    assert int(stat["file"]) > 16 * 2**20
    eventually(lambda: "max 0" not in reader.read("memory.events").splitlines(), "the limit was met")
    assert "oom_kill 0" in reader.read("memory.events").splitlines()
    assert reader.is_active()


def test_workers_master_survives_its_runaway(host, unit, journal, eventually):
    workers = unit("workers", "--count", "3", "--grow-index", "1", "--rate", "16M/s")
    pids = dict(line.split()[1:] for line in journal.messages(workers.name) if line.startswith("worker "))
    assert sorted(pids) == ["0", "1", "2"]
    host.check_output("kill -KILL %s", pids["1"])
    eventually(
        lambda: f"worker 1 {pids['1']} ended: SIGKILL" in journal.messages(workers.name), "the master noticed"
    )
    assert workers.is_active()
