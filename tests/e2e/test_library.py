"""The library in units of a real systemd: limits and room are those of the slices above, in a container's view too.

And `unitmem guard`, where a process has none of its own.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

MIB = 2**20
PAGE = (Path(__file__).parents[2] / "docs/library.md").read_text()
EXAMPLES = re.findall(r"^<!-- in a guest -->\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
POLICY = """\
interval: 1s
policies:
  - name: web
    units: ["web@*.service"]
    steps: [{when: "anon > 16M", do: stop}]
"""
READ = "import dataclasses, json, unitmem; print(json.dumps(dataclasses.asdict(unitmem.read_memory_info())))"


@pytest.fixture(scope="module")
def narrow_slice(host, lasting_unit):
    """A slice with a limit of 120 MiB, in one of 200 MiB, and 24 MiB of it used by another unit."""
    host.check_output(
        "systemctl set-property --runtime e2elib.slice MemoryMax=200M && "
        "systemctl set-property --runtime e2elib-inner.slice MemoryMax=120M"
    )
    lasting_unit("steady", "--size", "24M", name="e2e-neighbour.service", Slice="e2elib-inner.slice")
    yield "e2elib-inner.slice"
    host.run("systemctl revert e2elib.slice e2elib-inner.slice")


@pytest.fixture
def info_in(host, python):
    """info_in(*command, **properties): a MemoryInfo as JSON, read in a transient service with these properties."""

    def read(*command, **properties):
        words = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect"]
        words += [f"--property={prop}={value}" for prop, value in properties.items()]
        words += ["--", *(command or (python, "-c", READ))]
        return json.loads(host.check_output(" ".join(["%s"] * len(words)), *words))

    return read


def test_the_limit_and_the_headroom_are_those_of_the_tighter_slice(info_in, narrow_slice):
    info = info_in(MemoryMax="150M", Slice=narrow_slice)
    assert info["unknown"] == {}
    assert info["cgroup_limit"] == 120 * MIB
    # the neighbour's memory is gone from it, which the unit's own counter doesn't tell
    assert 0 < info["headroom"] <= (120 - 24) * MIB
    assert info["cgroup_current"] < 120 * MIB


def test_the_units_own_limit_counts_where_it_is_the_tighter_one(info_in, narrow_slice):
    info = info_in(MemoryMax="60M", Slice=narrow_slice)
    assert info["cgroup_limit"] == 60 * MIB
    assert 0 < info["headroom"] < 60 * MIB


def test_what_neighbours_use_of_the_slice_is_no_room(info_in, unit, narrow_slice):
    """The least headroom is not where the least limit is."""
    unit("steady", "--size", "40M", Slice=narrow_slice)
    info = info_in(MemoryMax="100M", Slice=narrow_slice)
    assert info["cgroup_limit"] == 100 * MIB
    # of which the two neighbours leave it much less
    assert 0 < info["headroom"] <= (120 - 24 - 40) * MIB


def test_without_a_limit_the_room_is_the_machines(info_in):
    info = info_in()
    assert (info["cgroup_limit"], info["unknown"]) == (None, {})
    assert info["headroom"] == info["system_available"]


def test_every_number_is_the_kernels(info_in, python, narrow_slice):
    """The process looks at the kernel's files itself, right after the library did."""
    script = (
        "import dataclasses, json, re, unitmem\n"
        "held = bytearray(b'x') * (16 * 2**20)\n"
        "info = dataclasses.asdict(unitmem.read_memory_info())\n"
        "directory = '/sys/fs/cgroup' + open('/proc/self/cgroup').read().split('::')[1].strip()\n"
        "read = lambda path: open(path).read()\n"
        "kb = lambda key, text: int(re.search(rf'^{key}:\\s+(\\d+) kB', text, re.M)[1]) * 1024\n"
        "print(json.dumps([info, {\n"
        "    'cgroup_current': int(read(directory + '/memory.current')),\n"
        "    'process_rss': kb('VmRSS', read('/proc/self/status')),\n"
        "    'process_pss': kb('Pss', read('/proc/self/smaps_rollup')),\n"
        "    'swap': int(read(directory + '/memory.swap.current')),\n"
        "}]))\n"
    )
    info, kernels = info_in(python, "-c", script, Slice=narrow_slice)
    for name, value in kernels.items():
        assert info[name] == pytest.approx(value, abs=4 * MIB), name
    assert info["process_pss"] > 16 * MIB
    assert 0 < info["runtime_total"] < info["process_rss"]


def test_in_a_cgroup_namespace_of_its_own_the_top_has_the_units_limit(info_in, python, narrow_slice):
    """As in a container: the path is `/`, and what is mounted begins at the unit; the slices can't be seen."""
    inside = f'umount --lazy /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec {python} -c "$0"'
    # the shell that enters the namespace sits in the cgroup that becomes its top
    info = info_in(
        "/usr/bin/unshare",
        "--cgroup",
        "--mount",
        "sh",
        "-c",
        inside,
        READ,
        MemoryMax="150M",
        Slice=narrow_slice,
    )
    assert info["cgroup_limit"] == 150 * MIB
    assert 0 < info["headroom"] < 150 * MIB
    assert info["unknown"] == {}


def test_a_service_hardened_as_ours_is_reads_its_memory(info_in, narrow_slice):
    info = info_in(
        MemoryMax="150M",
        Slice=narrow_slice,
        DynamicUser="yes",
        ProtectSystem="strict",
        ProtectControlGroups="yes",
        ProtectProc="invisible",
        PrivateMounts="yes",
        MemoryDenyWriteExecute="yes",
        NoNewPrivileges="yes",
    )
    assert info["cgroup_limit"] == 120 * MIB
    assert {"cgroup_limit", "headroom", "process_rss", "process_pss"}.isdisjoint(info["unknown"])


def test_watch_in_a_unit_sees_its_memory_grow_and_stops(info_in, python, narrow_slice):
    script = (
        "import json, threading, unitmem\n"
        "held, seen, stop = [], [], threading.Event()\n"
        "def grow(info):\n"
        "    seen.append([info.process_pss, info.headroom])\n"
        "    held.append(bytearray(b'x') * (8 * 2**20))\n"
        "    if len(seen) == 4: stop.set()\n"
        "unitmem.watch(0.05, grow, immediate=True, stop=stop)\n"
        "print(json.dumps(seen))\n"
    )
    seen = info_in(python, "-c", script, Slice=narrow_slice)
    assert len(seen) == 4
    assert seen[-1][0] - seen[0][0] > 20 * MIB
    assert seen[0][1] - seen[-1][1] > 16 * MIB


@pytest.fixture(scope="module")
def webs(host, lasting_unit):
    """web@1.service of 32 MiB and web@2.service of 8 MiB, and a policy that nobody runs."""
    host.check_output("printf %%s %s >/etc/unitmem/web.yaml", POLICY)
    first = lasting_unit("steady", "--size", "32M", name="web@1.service", MemoryMax="200M")
    second = lasting_unit("steady", "--size", "8M", name="web@2.service", MemoryMax="200M")
    yield first, second
    host.run("rm -f /etc/unitmem/web.yaml")


def test_the_examples_of_the_library_run_against_real_units(host, python, webs):
    """All in one interpreter: a start of it takes seconds here."""
    script = "\n".join(f"print('# {number}')\n{example}" for number, example in enumerate(EXAMPLES))
    printed = host.check_output("%s -W error -c %s", python, script)
    listed, one, followed, decided = re.split(r"^# \d\n", printed, flags=re.MULTILINE)[1:]
    assert re.search(
        r"^web@1\.service \d+ 209715200 \d+\nweb@2\.service \d+ 209715200 \d+$", listed, re.MULTILINE
    )
    assert "steady" in one
    assert re.search(r"^web@1\.service: \d+% of its limit$", followed, re.MULTILINE)
    assert re.search(r"^web@1\.service: anon [\d.]+M > 16\.0M: stop .*\(policy web\)$", decided, re.MULTILINE)
    assert "web@2.service: anon" not in decided
    assert all(web.is_active() for web in webs), "nothing is done by evaluate"


SNAPSHOT = """
import json, unitmem
with unitmem.System() as system:
    web = system.unit("web@1.service")
    follow = system.follow("web@*.service", interval=3600, measures={"current"})
    names = [sorted(next(follow).units)]
    system.manager.stop_unit("web@3.service", None)
    names.append(sorted(next(follow).units))
print(json.dumps([web.current, web.max, web.limit, web.pss, web.rss, web.unknown, names,
    [[p.pid, p.pss, p.uss, p.rss, p.swap_pss, p.command] for p in web.processes], [l.path for l in web.levels]]))
"""


def test_a_units_numbers_are_the_kernels_and_a_stop_is_seen_at_once(host, python, unit, webs):
    web, _ = webs
    unit("steady", "--size", "8M", name="web@3.service")
    current, most, limit, pss, rss, unknown, names, processes, levels = json.loads(
        host.check_output("%s -c %s", python, SNAPSHOT)
    )
    assert current == pytest.approx(int(web.read("memory.current")), abs=2 * MIB)
    assert (most, limit) == (200 * MIB, 200 * MIB)
    assert {"swap_max"} <= unknown.keys() <= {"swap_max", "high", "zswap"}
    (process,) = processes
    pid, of_it, private, resident, _, command = process
    assert str(pid) == web.get("MainPID")
    kernels = host.check_output("cat /proc/%s/smaps_rollup", str(pid))
    kib = int(re.search(r"^Pss: +(\d+) kB", kernels, re.MULTILINE)[1])
    # what it shares with the interpreter that has looked is its own again once that has ended
    assert of_it == pss == pytest.approx(kib * 1024, abs=4 * MIB)
    assert private <= pss <= resident == rss
    assert "steady" in command
    assert levels == [
        "/system.slice/system-web.slice/web@1.service",
        "/system.slice/system-web.slice",
        "/system.slice",
    ]
    assert names == [["web@1.service", "web@2.service", "web@3.service"], ["web@1.service", "web@2.service"]]


def test_a_user_sees_what_the_kernel_lets_users_see(host, python, webs):
    script = (
        "import unitmem\n"
        "with unitmem.System() as system:\n"
        "    web = system.unit('web@1.service')\n"
        "    print(web.current > 32 * 2**20, web.pss, '|', web.unknown['pss'])\n"
        "    try:\n"
        "        system.unit('missing.service')\n"
        "    except unitmem.NoSuchUnitError as error:\n"
        "        print(error)\n"
    )
    told = host.check_output("runuser -u vagrant -- %s -c %s", python, script)
    assert told.splitlines() == [
        "True None | 1 of 1 processes: permission denied (it needs root or CAP_SYS_PTRACE)",
        "no unit missing.service is loaded",
    ]


def test_a_guard_as_root_and_as_a_user(host, unit):
    """In units, where a command of one's own is killed and another user's is not even watched."""
    steady = unit("steady", "--size", "8M")
    leak = "/usr/local/lib/unitmem-workloads/leak --start 24M --rate 1M"
    script = (
        f"unitmem guard --pss 20M --interval 100ms --grace 1h --tree -- {leak}; echo status $?; "
        f"unitmem guard --pss 1G --pid {steady.get('MainPID')}; echo status $?; "
    )
    words = "systemd-run --quiet --pipe --wait --collect %s sh -c %s 2>&1"
    told = host.check_output(words, "--property=DynamicUser=yes", script)
    killed, refused = re.findall(r"unitmem: (?s:.*?)status \d+", told)
    # what has caught SIGTERM, and ended well, has not
    assert re.search(r"SIGTERM sent, SIGKILL follows in 1h(?s:.*)killed: PSS(?s:.*)status 143$", killed)
    assert re.search(r"failed: its PSS can't be read: permission denied(?s:.*)status 1$", refused)
    assert steady.is_active()

    told = host.check_output(words, "--property=User=root", script.replace("--pss 1G", "--pss 1M"))
    assert re.search(r"killed: PSS(?s:.*)status 143\n(?s:.*)killed: PSS(?s:.*)status 137$", told)
    assert not steady.is_active()


@pytest.mark.parametrize(
    ("command", "code", "status"),
    [
        pytest.param(("sh", "-c", "echo ready; exec sleep infinity"), "2", "15", id="by the signal"),
        pytest.param(
            ("/usr/local/lib/unitmem-workloads/leak", "--max", "16M"), "1", "0", id="by its handler"
        ),
    ],
)
def test_a_unit_that_is_guarded_stops_as_it_would_by_itself(
    host, unit, journal, eventually, command, code, status
):
    """The manager's signal is passed on, and so is what comes of it: CLD_KILLED is 2, CLD_EXITED is 1."""
    unitmem = host.check_output("command -v unitmem")
    # a unit that has ended well would be unloaded, and its result be lost, but for RemainAfterExit=
    guarded = unit(unitmem, "guard", "--pss", "1G", "--", *command, RemainAfterExit="yes")
    eventually(lambda: "ready" in journal.messages(guarded.name, guarded.since), "the command runs")
    host.check_output("systemctl kill --kill-whom=main %s", guarded.name)
    eventually(lambda: guarded.get("SubState") in ("exited", "failed"), "it has ended")
    assert guarded.get("Result") == "success"
    assert (guarded.get("ExecMainCode"), guarded.get("ExecMainStatus")) == (code, status)


def test_a_pid_that_is_used_again_is_never_taken_for_the_one_before(host, python):
    """By this kernel's pidfds, in a namespace where the next pid can be chosen."""
    script = (Path(__file__).parents[1] / "unit/pid_reuse.py").read_text()
    host.check_output("printf %%s %s >/run/pid_reuse.py", script)
    host.check_output(
        'unshare --pid --mount-proc --fork --kill-child bash -c "%s /run/pid_reuse.py; exit"', python
    )
