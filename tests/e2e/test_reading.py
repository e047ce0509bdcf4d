"""`list` and `show` agree with `systemctl show` and with the kernel's files, for every unit of the guest."""

from __future__ import annotations

import json

import pytest

from unitmem.text import parse_size

KINDS = "service,scope,slice,mount,socket,swap"
AS_USER = "sudo -u vagrant XDG_RUNTIME_DIR=/run/user/$(id -u vagrant)"
USER = f"{AS_USER} systemctl --user"


def unitmem(host, *arguments):
    """What `unitmem … --json` says."""
    return json.loads(
        host.check_output("unitmem " + " ".join(["%s"] * len(arguments)) + " --json", *arguments)
    )


def properties(host, *names, ask="systemctl"):
    """`systemctl show` of each unit: a dict a unit."""
    wanted = "Id,ActiveState,SubState,ControlGroup,InvocationID,MainPID,MemoryAccounting,MemoryCurrent"
    shown = host.check_output(f"{ask} show --property={wanted} -- " + " ".join(["%s"] * len(names)), *names)
    blocks = (block for block in shown.split("\n\n") if block.strip())
    return [dict(line.split("=", 1) for line in block.strip().splitlines()) for block in blocks]


def loaded(host, ask="systemctl"):
    lines = host.check_output(f"{ask} list-units --all --plain --no-legend --type={KINDS}").splitlines()
    return [line.split()[0] for line in lines]


@pytest.fixture(scope="module")
def odd_units(host, lasting_unit):
    """Units of every shape: nested slices with tighter limits, a scope, threads, no accounting, a user service."""
    host.check_output("loginctl enable-linger vagrant && systemctl start user@$(id -u vagrant).service")
    host.check_output(
        "systemctl set-property --runtime e2eouter.slice MemoryMax=200M MemoryHigh=180M && "
        "systemctl set-property --runtime e2eouter-inner.slice MemoryMax=120M"
    )
    nested = lasting_unit(
        "steady", "--size", "24M", name="e2e-nested.service", Slice="e2eouter-inner.slice", MemoryMax="150M"
    )
    lasting_unit("steady", "--size", "24M", "--threads", "5", name="e2e-threads.service")
    lasting_unit("workers", "--count", "3", name="e2e-forked.service")
    lasting_unit("steady", "--size", "8M", name="e2e-noaccounting.service", MemoryAccounting="no")
    host.check_output(
        "systemd-run --quiet --scope --unit=e2e-scope.scope sh -c "
        "'setsid /usr/local/lib/unitmem-workloads/steady --size 16M </dev/null >/dev/null 2>&1 &'"
    )
    host.check_output(
        f"{AS_USER} systemd-run --quiet --user --unit=e2e-user.service "
        "/usr/local/lib/unitmem-workloads/steady --size 16M"
    )
    yield nested
    host.run("systemctl stop e2e-scope.scope; " + USER + " stop e2e-user.service")
    host.run("systemctl revert e2eouter.slice e2eouter-inner.slice")


def test_every_unit_agrees_with_systemctl(host, odd_units):
    """State, identity and cgroup exactly; memory within what a moment changes."""
    units = {row["unit"]: row for row in unitmem(host, "list", "--all")["units"]}
    compared = 0
    for theirs in properties(host, *loaded(host)):
        ours = units.get(theirs["Id"])
        if ours is None:
            assert theirs["ActiveState"] != "active", theirs
            continue
        assert ours["active_state"] == theirs["ActiveState"], theirs
        assert (ours["control_group"] or "") == theirs.get("ControlGroup", ""), theirs
        assert (ours["invocation_id"] or "") == theirs.get("InvocationID", ""), theirs
        assert str(ours["main_pid"] or 0) == theirs.get("MainPID", "0"), theirs
        compared += 1
        if theirs["Id"].startswith(("session-", "user-")) or theirs["Id"] == "user.slice":
            continue  # this very test runs in there, a different program at each look
        current = theirs.get("MemoryCurrent", "[not set]")
        if current == "[not set]" or int(current) >= 2**63:
            # without accounting systemd doesn't look; the kernel counts all the same beside units with it
            assert ours["measures"]["current"] is None or theirs["MemoryAccounting"] == "no", theirs
        else:
            assert ours["measures"]["current"] == pytest.approx(int(current), rel=0.25, abs=16 * 2**20), (
                theirs
            )
    assert compared > 20
    assert {"e2e-nested.service", "e2e-scope.scope", "e2eouter-inner.slice", "-.slice"} <= units.keys()


def test_the_effective_limit_is_the_tightest_of_the_slices(host, odd_units):
    shown = unitmem(host, "show", odd_units.name)
    assert shown["measures"]["limit"] == 120 * 2**20
    assert shown["measures"]["high"] == 180 * 2**20
    assert shown["measures"]["headroom"] < 120 * 2**20 - 20 * 2**20
    limits = {level["path"]: level["max"] for level in shown["levels"]}
    assert limits == {
        "/e2eouter.slice/e2eouter-inner.slice/e2e-nested.service": 150 * 2**20,
        "/e2eouter.slice/e2eouter-inner.slice": 120 * 2**20,
        "/e2eouter.slice": 200 * 2**20,
    }


def test_measures_are_the_kernels_own_numbers(host, odd_units):
    """A unit that sleeps: its files don't change between two readings."""
    path = odd_units.get("ControlGroup")
    shown = unitmem(host, "show", odd_units.name)["measures"]
    stat = dict(line.split() for line in odd_units.read("memory.stat").splitlines())
    for measure in ("anon", "file", "shmem", "sock"):
        assert shown[measure] == pytest.approx(int(stat[measure]), abs=2**20), measure
    assert shown["workingset"] == pytest.approx(
        int(odd_units.read("memory.current")) - int(stat["inactive_file"]), abs=2**20
    )
    if host.file(f"/sys/fs/cgroup{path}/memory.peak").exists:
        assert shown["peak"] == pytest.approx(int(odd_units.read("memory.peak")), abs=2**20)
    else:
        assert shown["peak"] is None


@pytest.mark.parametrize("name", ["e2e-forked.service", "e2e-threads.service", "e2e-scope.scope"])
def test_pss_agrees_with_the_kernels_own_sums(host, odd_units, name):
    """Against every mapping of smaps, added up by awk, for each process of the cgroup."""
    path = properties(host, name)[0]["ControlGroup"]
    shown = unitmem(host, "show", name)
    pids = sorted(map(int, host.check_output("cat /sys/fs/cgroup%s/cgroup.procs", path).split()))
    assert sorted(process["pid"] for process in shown["processes"]) == pids
    for process in shown["processes"]:
        total = host.check_output(
            "awk '/^Pss:/ {sum += $2} END {print sum}' /proc/%s/smaps", str(process["pid"])
        )
        # what the reader itself shares with it (libc, say) is divided by one more while it looks
        assert process["pss"] == pytest.approx(int(total) * 1024, rel=0.02, abs=512 * 1024)
    assert shown["measures"]["pss"] == sum(process["pss"] for process in shown["processes"])
    assert shown["measures"]["process.pss"] == max(process["pss"] for process in shown["processes"])


def test_a_threaded_subtree_is_counted(host):
    """A delegated unit with a threaded cgroup, whose cgroup.procs can't be read."""
    host.check_output(
        "systemd-run --quiet --unit=e2e-delegated.service --property=Delegate=yes "
        "/usr/local/lib/unitmem-workloads/steady --size 16M --threads 3"
    )
    try:
        # a domain with a process can't get controllers on: move it to a leaf, and make a threaded child there
        host.check_output(
            "cd /sys/fs/cgroup/system.slice/e2e-delegated.service && mkdir main main/pool && "
            "cat cgroup.procs >main/cgroup.procs && echo threaded >main/pool/cgroup.type"
        )
        pid = host.check_output("systemctl show --property MainPID --value e2e-delegated.service")
        assert (
            host.run("cat /sys/fs/cgroup/system.slice/e2e-delegated.service/main/pool/cgroup.procs").rc != 0
        )
        shown = unitmem(host, "show", "e2e-delegated.service")
        assert [process["pid"] for process in shown["processes"]] == [int(pid)]
        assert shown["measures"]["process.pss"] > 16 * 2**20
    finally:
        host.run("systemctl kill --signal=SIGKILL e2e-delegated.service; systemctl reset-failed")


NEST = """
import os, sys
cgroup, pid, depth, length = sys.argv[1:]
os.chdir(cgroup)
for level in range(int(depth)):
    os.mkdir(str(level).zfill(int(length)))
    os.chdir(str(level).zfill(int(length)))
with open("cgroup.procs", "w") as procs:
    procs.write(pid)
"""


@pytest.mark.parametrize(
    ("depth", "length", "is_found"),
    [
        pytest.param(5, 1, True, id="several levels"),
        pytest.param(18, 240, True, id="longer than a path may be"),
        pytest.param(70, 1, False, id="deeper than is looked"),
    ],
)
def test_processes_in_cgroups_of_the_units_own_user(host, unit, eventually, python, depth, length, is_found):
    """The user of a delegated unit nests cgroups as he likes; he can't make its processes look like none."""
    nested = unit("steady", "--size", "24M", name="e2e-deep.service", Delegate="yes", User="vagrant")
    path, pid = f"/sys/fs/cgroup{nested.get('ControlGroup')}", nested.get("MainPID")
    try:
        host.check_output(
            "sudo -u vagrant %s -c %s %s %s %s %s", python, NEST, path, pid, str(depth), str(length)
        )
        assert nested.read("cgroup.procs") == ""
        shown = unitmem(host, "show", nested.name)
        assert shown["measures"]["current"] > 24 * 2**20
        if is_found:
            assert [process["pid"] for process in shown["processes"]] == [int(pid)]
            assert shown["measures"]["pss"] > 24 * 2**20
        else:
            assert shown["measures"]["pss"] is None
            assert "nested deeper than 64 levels" in shown["unknown"]["pss"]
    finally:
        # systemd can't remove what no path leads to
        host.run("systemctl kill --signal=SIGKILL %s; kill -KILL %s", nested.name, pid)
        eventually(
            lambda: host.run("find %s -depth -type d -delete; test ! -d %s", path, path).rc == 0,
            f"{path} is removed",
        )


def test_a_unit_without_accounting_is_unknown_with_the_reason(host, odd_units):
    shown = unitmem(host, "show", "e2e-noaccounting.service")
    if shown["measures"]["current"] is None:
        assert "memory.current" in shown["unknown"]["current"]
    assert shown["measures"]["limit"] is not None


def test_a_unit_without_a_cgroup_is_shown_as_such(host):
    host.check_output("systemctl start systemd-remount-fs.service || true")
    shown = unitmem(host, "show", "systemd-remount-fs.service")
    assert shown["control_group"] is None
    assert all(value is None for value in shown["measures"].values())


def test_units_of_the_users_own_manager(host, odd_units):
    """As the user, over the user's bus: its services, with PSS, since its processes are its own."""
    rows = json.loads(host.check_output(f"{AS_USER} unitmem list --user --all --json"))["units"]
    ours = {row["unit"]: row for row in rows}
    names = loaded(host, USER)
    for theirs in properties(host, *names, ask=USER):
        if theirs["ActiveState"] == "active" and theirs["Id"] in ours:
            assert (ours[theirs["Id"]]["control_group"] or "") == theirs.get("ControlGroup", "")
    assert ours["e2e-user.service"]["measures"]["anon"] > 16 * 2**20
    shown = json.loads(host.check_output(f"{AS_USER} unitmem show --user e2e-user.service --json"))
    assert shown["measures"]["pss"] > 16 * 2**20


def test_without_root_what_may_not_be_read_is_marked(host, odd_units):
    done = host.run("sudo -u vagrant unitmem show e2e-nested.service")
    assert done.rc == 0
    assert "permission denied" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(
        host.check_output("sudo -u vagrant unitmem show e2e-nested.service --json 2>/dev/null")
    )["measures"]["current"]


def test_exit_statuses(host):
    statuses = {
        "show e2e-no-such.service": 4,
        "list e2e-no-such.service": 4,
        "show": 2,
        "list --sort nonsense": 2,
        "check /nonexistent.yaml": 78,
    }
    done = host.run("; ".join(f"unitmem {arguments}; echo $?" for arguments in statuses))
    assert [int(line) for line in done.stdout.split()] == list(statuses.values()), done.stderr
    assert "Traceback" not in done.stderr


def test_sizes_mean_what_systemd_means(host):
    """systemd itself is the oracle: what it makes of MemoryMax= is what we make of the text."""
    sizes = ["512M", "1.5G", "1G 512M", "10K", "1T", "4096B", "2.25M"]
    theirs = host.check_output(
        "for size in "
        + " ".join(["%s"] * len(sizes))
        + '; do systemctl set-property --runtime e2esize.slice MemoryMax="$size";'
        " systemctl show --property MemoryMax --value e2esize.slice; done; systemctl revert e2esize.slice",
        *sizes,
    )
    assert theirs.split() == [str(parse_size(size)) for size in sizes]
