"""What the loop hands on, without a guest: ticks of the real one over a fake manager's units."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from asking import answered

from unitmem.act.perform import perform
from unitmem.daemon.main import main, metrics_targets
from unitmem.daemon.watch import Watch
from unitmem.daemon.world import World
from unitmem.errors import BusError, BusLostError, PolicyFileError, UsageError
from unitmem.kernel.cgroup import Cgroup
from unitmem.manager.systemd import Manager
from unitmem.measure.collect import measure_largest
from unitmem.policyfile import reader as config
from unitmem.record.event import FILE_NAME
from unitmem.record.event import FILE_NAME as HISTORY
from unitmem.record.history import History, read_samples
from unitmem.simulate.replay import Replayed, decisions
from unitmem.tell.exporter import Exporter
from unitmem.tell.journal import Journal
from unitmem.tell.openmetrics import ACTIONS, FILE_LOADED, MANAGER_REACHABLE, MISSED, OUTCOMES, TICKS, UNITS

POLICY = """
policies:
  - name: p
    units: ["*.service"]
    steps: [{when: "anon > 1G", do: log}]
"""


@pytest.fixture
def exporter(tmp_path):
    return Exporter("web", tmp_path / "web.prom")


@pytest.fixture
def watch(manager, exporter, tmp_path):
    path = tmp_path / "web.yaml"
    path.write_text(POLICY)
    with Watch(path, config.load(path), manager, World(), exporter) as watch:
        watch.tick(time.monotonic())
        yield watch


def value(exporter, family):
    return sum(point.value for point in exporter.current()[family])


def test_a_tick_is_told_to_prometheus_and_an_end_takes_that_back(manager, exporter, tmp_path):
    path = tmp_path / "web.yaml"
    path.write_text(POLICY)
    with Watch(path, config.load(path), manager, World(), exporter) as watch:
        watch.tick(time.monotonic())
        assert 'unitmem_watch_ticks_total{watch="web"} 1\n' in (tmp_path / "web.prom").read_text()
        watch.tick(time.monotonic())
        assert value(exporter, TICKS) == 2
        assert value(exporter, UNITS) == 0
        assert value(exporter, MANAGER_REACHABLE) == 1
    assert not (tmp_path / "web.prom").exists()


def test_missed_ticks_are_counted(watch, exporter):
    for missed in (0, 3, 2, 0):
        watch.report_missed(missed)
    watch.tick(time.monotonic())
    assert value(exporter, MISSED) == 5


def test_a_delay_is_logged_once_and_so_is_its_end(manager, tmp_path):
    """Twenty minutes in which every other tick is late, and then a quiet one."""
    path, stream = tmp_path / "web.yaml", io.StringIO()
    path.write_text(POLICY)
    now = 0.0
    world = World(open_journal=lambda: Journal(stream=stream), monotonic=lambda: now)
    with Watch(path, config.load(path), manager, world) as watch:
        for missed in (0, 1, 2, *(0, 1) * 300, *(0,) * 40):
            now += 2
            watch.report_missed(missed)
    late, caught_up = stream.getvalue().splitlines()
    assert "late by 1 tick (interval 2s): choose a longer `interval`" in late
    assert late.endswith("further delays are not logged until it has caught up")
    assert caught_up == "caught up: no longer late; 303 ticks missed since the start"


def test_files_of_cgroups_that_can_not_be_kept_open_are_told_of_once(manager, systemd, cgroups, tmp_path):
    for name in ("a.service", "b.service"):
        systemd.add(name, control_group=f"/{name}", directory=cgroups.make(f"/{name}"))
    path, stream = tmp_path / "web.yaml", io.StringIO()
    path.write_text(POLICY)
    journal = lambda: Journal(stream=stream)  # noqa: E731
    world = World(cgroup_root=cgroups.root, open_journal=journal, most_open_files=1)
    with Watch(path, config.load(path), manager, world) as watch:
        for _ in range(3):
            watch.tick(time.monotonic())
    said = "no more than 1 files of cgroups are kept open: the others are opened at each tick"
    assert stream.getvalue().splitlines().count(said) == 1


def test_a_manager_that_comes_and_goes_is_not_told_of_each_time(manager, systemd, tmp_path):
    path, stream = tmp_path / "web.yaml", io.StringIO()
    path.write_text(POLICY)
    now = 0.0
    world = World(
        open_journal=lambda: Journal(stream=stream),
        monotonic=lambda: now,
        connect=lambda kind: Manager(kind, systemd.address),
    )
    with Watch(path, config.load(path), manager, world) as watch:
        for _ in range(20):
            now += 2
            watch.connection.lose(BusLostError("it hangs"), now)
            watch.connection.renew(now)
            watch.catch_up(now)
        now += 100
        watch.catch_up(now)
    lost, back = "it hangs; continuing with the known units and reconnecting", "the system manager is back"
    assert stream.getvalue().splitlines() == [lost, back] * 2


@pytest.mark.parametrize(
    ("names", "summary"),
    [
        ([], "1 policy over 0 running units"),
        (["a.service"], "1 policy over 1 running unit"),
        (["a.service", "b.service"], "1 policy over 2 running units"),
    ],
)
def test_the_summary_of_a_watch(manager, systemd, cgroups, tmp_path, names, summary):
    for name in names:
        control_group = f"/system.slice/{name}"
        systemd.add(name, control_group=control_group, directory=cgroups.make(control_group))
    path, said = tmp_path / "web.yaml", []
    path.write_text(POLICY)
    world = World(cgroup_root=cgroups.root, notify=lambda **fields: said.append(fields.get("status")))
    with Watch(path, config.load(path), manager, world) as watch:
        watch.tick(time.monotonic())
    assert [status for status in said if status] == [summary]


def test_a_broken_file_is_seen_until_it_is_mended(watch, exporter):
    for text, loaded in (("policies: 3", 0), (POLICY, 1)):
        watch.path.write_text(text)
        watch.reload()
        watch.tick(time.monotonic())
        assert value(exporter, FILE_LOADED) == loaded


def test_a_manager_that_is_away_is_seen(watch, exporter):
    watch.connection.lose(BusLostError("it hangs"), time.monotonic())
    watch.tick(time.monotonic())
    assert value(exporter, MANAGER_REACHABLE) == 0


def test_what_is_decided_and_what_becomes_of_it_is_counted(manager, systemd, cgroups, exporter, tmp_path):
    path, control_group = tmp_path / "web.yaml", "/system.slice/a.service"
    path.write_text(POLICY.replace("anon > 1G", "current > 1K"))
    systemd.add("a.service", control_group=control_group, directory=cgroups.make(control_group))
    with Watch(path, config.load(path), manager, World(cgroup_root=cgroups.root), exporter) as watch:
        watch.tick(time.monotonic())
        assert (value(exporter, ACTIONS), value(exporter, OUTCOMES)) == (1, 1)


def test_a_watch_that_nobody_asks_for_metrics_ticks_as_well(manager, tmp_path):
    path = tmp_path / "web.yaml"
    path.write_text(POLICY)
    with Watch(path, config.load(path), manager, World()) as watch:
        watch.tick(time.monotonic())
        watch.report_missed(1)


@pytest.mark.parametrize(
    ("options", "environment", "asked"),
    [
        ((None, None), {}, None),
        ((None, None), {"UNITMEM_TEXTFILE": "", "UNITMEM_LISTEN": ""}, None),
        (("a.prom", None), {}, (Path("a.prom"), None)),
        ((None, "1"), {}, (None, "1")),
        ((None, None), {"UNITMEM_TEXTFILE": "b.prom", "UNITMEM_LISTEN": "2"}, (Path("b.prom"), "2")),
        (("a.prom", "1"), {"UNITMEM_TEXTFILE": "b.prom", "UNITMEM_LISTEN": "2"}, (Path("a.prom"), "1")),
        ((None, None), {"UNITMEM_LISTEN": "off"}, (None, "off")),
        ((None, "off"), {}, UsageError),
    ],
)
def test_metrics_are_asked_for_by_options_or_by_the_environment(options, environment, asked):
    if asked is UsageError:
        with pytest.raises(UsageError):
            metrics_targets(*options, environment)
    else:
        assert metrics_targets(*options, environment) == asked


SMALL = """
policies:
  - name: large
    units: ["web.service"]
    mode: observe
    steps: [{when: "pss > 1K", do: stop}]
  - name: small
    units: ["web.service"]
    steps: [{when: "pss < 1K", do: stop}, {when: "process.uss < 1K", do: stop}]
"""


@pytest.mark.parametrize("how", ["nested", "unreadable", "listed"])
def test_a_unit_whose_processes_can_not_be_listed_is_not_taken_for_small(
    systemd, manager, cgroups, tmp_path, how
):
    """Users build the cgroups below their own units; none may be made to look small that way."""
    directory = cgroups.make("/system.slice/web.service", os.getpid())
    systemd.add("web.service", control_group="/system.slice/web.service", directory=directory)
    if how == "nested":  # deeper than a path can tell
        within = os.open(directory, os.O_RDONLY)
        for _ in range(80):
            os.mkdir("x" * 250, dir_fd=within)
            parent, within = within, os.open("x" * 250, os.O_RDONLY, dir_fd=within)
            os.close(parent)
        os.close(within)
    elif how == "unreadable":
        (Path(directory) / "cgroup.procs").unlink()
        (Path(directory) / "cgroup.procs").mkdir()
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    world = World(cgroup_root=cgroups.root)
    with Watch(path, config.load(path), manager, world) as watch:
        for _ in range(3):
            watch.tick(time.monotonic())
        host = world.read_host()
        sample = watch.sampling.take(
            watch.tracker, host, watch.file.policies, watch.state, time.monotonic(), lambda: None
        )
    sample = sample.units["web.service"]
    assert systemd.calls("StopUnit", "KillUnit") == []
    if how == "listed":
        assert sample.values["pss"] > 1 << 10
    else:
        assert "pss" not in sample.values
        assert sample.unknown["pss"].startswith("not every process of it can be found: ")


SLICE = """
policies:
  - name: p
    units: ["*.service"]
    steps: [{when: "slice.current > 1M", do: {signal: SIGUSR1, to: all}}]
"""


def test_what_is_compared_of_a_slice_is_read_once_a_tick_for_all_units_in_it(
    systemd, manager, cgroups, tmp_path, monkeypatch
):
    cgroups.make("/web.slice")
    cgroups.add_file("/web.slice", "memory.current", f"{2 << 20}\n")
    for name in ("a.service", "b.service"):
        path = f"/web.slice/{name}"
        systemd.add(name, control_group=path, directory=cgroups.make(path))
    opened = []
    monkeypatch.setattr(
        "unitmem.kernel.ancestors.Cgroup", lambda path, root: opened.append(path) or Cgroup(path, root)
    )
    path = tmp_path / "p.yaml"
    path.write_text(SLICE)
    with Watch(path, config.load(path), manager, World(cgroup_root=cgroups.root)) as watch:
        watch.tick(time.monotonic())
    assert len(systemd.calls("Kill", "KillUnit")) == 2
    assert opened == ["/web.slice"]


ALIAS = """
policies:
  - name: p
    units: ["nick.service"]
    steps: [{when: "current > 1K", do: {signal: SIGUSR1, to: all}}]
"""


@pytest.mark.parametrize("is_late", [False, True], ids=["loaded", "loaded later"])
def test_a_policy_that_names_an_alias_governs_the_unit(systemd, manager, cgroups, tmp_path, is_late):
    def load():
        path = "/system.slice/real.service"
        systemd.add(
            "real.service", control_group=path, directory=cgroups.make(path), aliases=("nick.service",)
        )

    path = tmp_path / "p.yaml"
    path.write_text(ALIAS)
    if not is_late:
        load()
    with Watch(path, config.load(path), manager, World(cgroup_root=cgroups.root)) as watch:
        watch.tick(time.monotonic())
        if is_late:
            assert systemd.calls("Kill", "KillUnit") == []
            load()
            manager.ping()  # an answered call is proof that the signal has arrived
            watch.tick(time.monotonic())
        assert len(systemd.calls("Kill", "KillUnit")) == 1
        asked = len(systemd.calls())
        watch.tick(time.monotonic())
        assert len(systemd.calls()) == asked, "a tick in which nothing changes asks nothing"


MILD_AND_HARSH = """
policies:
  - name: mild
    units: ["*.service"]
    steps: [{when: "current > 1K", do: log}, {when: "current > 1K", do: {set: {MemoryHigh: 512M}}}]
  - name: harsh
    units: ["hog.service"]
    steps: [{when: "current > 1K", do: stop}]
"""


def test_a_tick_acts_before_it_describes_and_the_gravest_comes_first(
    systemd, manager, cgroups, tmp_path, monkeypatch
):
    """Neither a process of the unit is made to wait before that, nor is what another unit's `set` overrides asked for."""
    acts = ("Stop", "SetProperties", "MemoryHigh")
    for name in ("apt.service", "hog.service"):
        path = f"/system.slice/{name}"
        systemd.add(name, control_group=path, directory=cgroups.make(path))
    described, measure = [], measure_largest
    monkeypatch.setattr(
        "unitmem.daemon.watch.measure_largest",
        lambda *of: described.append(len(systemd.calls(*acts))) or measure(*of),
    )
    path, stream = tmp_path / "p.yaml", io.StringIO()
    path.write_text(MILD_AND_HARSH)
    world = World(cgroup_root=cgroups.root, open_journal=lambda: Journal(stream=stream))
    with Watch(path, config.load(path), manager, world) as watch:
        watch.tick(time.monotonic())
    done = ["MemoryHigh", "SetProperties", "Stop", "MemoryHigh", "SetProperties"]
    assert [method for method, _ in systemd.calls(*acts)][: len(done)] == done
    assert described == [len(done)] * 5
    told = [line for line in stream.getvalue().splitlines() if "current " in line]
    assert ["hog" in line for line in told] == [True, True, True, False, False]


def test_the_processes_of_what_an_action_ends_are_recorded(systemd, manager, cgroups, tmp_path, monkeypatch):
    child = subprocess.Popen(["sleep", "600"])

    def end(*arguments):
        child.kill()
        child.wait()
        return perform(*arguments)

    monkeypatch.setattr("unitmem.daemon.watch.perform", end)
    group = "/system.slice/hog.service"
    systemd.add("hog.service", control_group=group, directory=cgroups.make(group, child.pid))
    path = tmp_path / "p.yaml"
    path.write_text(POLICY.replace("anon > 1G", "current > 1K").replace("log", "stop"))
    world = World(cgroup_root=cgroups.root, state_directory=tmp_path)
    with Watch(path, config.load(path), manager, world) as watch:
        watch.tick(time.monotonic())
    with History(tmp_path / HISTORY) as history:
        (decision, *_) = history.events("hog.service")
    ((process),) = decision.detail["processes"]
    assert (process["pid"], process["name"]) == (child.pid, "sleep")
    assert process["rss"] > 0


def test_what_runs_in_a_unit_with_a_made_up_name_is_told(systemd, manager, cgroups, tmp_path):
    name, group = "run-u12.service", "/system.slice/run-u12.service"
    systemd.add(name, description="/usr/bin/back\tup", control_group=group, directory=cgroups.make(group))
    path, stream = tmp_path / "p.yaml", io.StringIO()
    path.write_text(POLICY.replace("anon > 1G", "current > 1K").replace("log", "stop"))
    journal = Journal(stream=stream)
    world = World(cgroup_root=cgroups.root, state_directory=tmp_path, open_journal=lambda: journal)
    with Watch(path, config.load(path), manager, world) as watch:
        watch.tick(time.monotonic())
    told = [line for line in stream.getvalue().splitlines() if line.startswith("run-u12")]
    assert told
    assert {line.partition(": ")[0] for line in told} == {r"run-u12.service (/usr/bin/back\tup)"}
    with History(tmp_path / HISTORY) as history:
        assert history.events(name)[0].detail["description"] == r"/usr/bin/back\tup"
    assert len(systemd.calls("Description")) == 1  # with the rest of the unit, and not for the message


OOM_LOOP = """
policies:
  - name: p
    units: ["a.service"]
    steps: [{when: "events.oom_kill > 2 in 10min", do: log}]
    clear: "age > 1h"
"""


def test_runs_that_are_oom_killed_one_after_another_are_counted_for_their_unit(
    systemd, manager, cgroups, tmp_path
):
    """Each kill but the last is in no counter any more: those died with their cgroups. Replay sees the same."""
    path, control_group, stream = tmp_path / "p.yaml", "/system.slice/a.service", io.StringIO()
    path.write_text(OOM_LOOP)
    now = time.monotonic()
    directory = cgroups.make(control_group)
    cgroups.add_file(control_group, "memory.events", "oom_kill 0\n")
    systemd.add("a.service", control_group=control_group, directory=directory, active_enter=int(now * 1e6))
    world = World(
        cgroup_root=cgroups.root, state_directory=tmp_path, open_journal=lambda: Journal(stream=stream)
    )
    logged = []
    with Watch(path, config.load(path), manager, world) as watch:
        for run in range(1, 5):
            watch.tick(now + 10 * run)
            systemd.end("a.service", "oom-kill")
            if run == 2:  # this one is seen while its counter is still there
                cgroups.add_file(control_group, "memory.events", "oom_kill 1\n")
                manager.ping()
                watch.tick(now + 10 * run + 1)
            cgroups.remake(control_group)
            cgroups.add_file(control_group, "memory.events", "oom_kill 0\n")
            systemd.restart("a.service", active_enter=int((now + 10 * run) * 1e6))
            systemd.end("a.service", "success")
            manager.ping()
            logged.append("events.oom_kill" in stream.getvalue())
        watch.tick(now + 50)
    assert logged == [False, False, False, True]
    found = ["events.oom_kill 3 > 2 in 10min", "events.oom_kill 4 > 2 in 10min"]
    assert [stream.getvalue().count(each) for each in found] == [1, 1]
    told = list(decisions(config.load(path).file, read_samples(tmp_path / FILE_NAME), Replayed()))
    assert [str(decision.findings[0]) for decision in told] == found


PICK = """
policies:
  - name: short
    units: ["*.service"]
    steps: [{when: "slice.current > 1M", pick: current, do: {stop: {timeout: 30s}}}]
"""


def test_one_of_all_is_stopped_and_not_the_one_that_is_to_be_omitted(systemd, manager, cgroups, tmp_path):
    cgroups.make("/web.slice")
    cgroups.add_file("/web.slice", "memory.current", f"{9 << 20}\n")
    for name, size in (("a.service", 1), ("hog.service", 3), ("kept.service", 5)):
        path = f"/web.slice/{name}"
        systemd.add(name, control_group=path, directory=cgroups.make(path))
        cgroups.add_file(path, "memory.current", f"{size << 20}\n")
    try:
        os.setxattr(cgroups.root / "web.slice/kept.service", "user.oomd_omit", b"1")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    path, stream = tmp_path / "p.yaml", io.StringIO()
    path.write_text(PICK)
    world = World(
        tmp_path,
        runtime_directory=tmp_path,
        cgroup_root=cgroups.root,
        open_journal=lambda: Journal(stream=stream),
    )
    with Watch(path, config.load(path), manager, world) as watch:
        for _ in range(3):
            watch.tick(time.monotonic())
        units = answered(watch, tmp_path.parent, tmp_path.name, "Status")["status"]["units"]
    assert len(systemd.calls("Stop", "StopUnit")) == 1
    told = [line for line in stream.getvalue().splitlines() if "current " in line]
    assert [line.split(":")[0] for line in told] == ["hog.service", "kept.service"]
    assert told[1].endswith("not stopping it, since it is not picked: its ManagedOOMPreference= is omit")
    assert told[0].endswith(
        "stopping it within 30s, picked by current 3.0M of 2 candidates, next a.service 1.0M"
    )
    withheld = {unit["unit"]: unit["steps"][0]["withheld"] for unit in units}
    assert withheld["a.service"] == "it is not picked: hog.service was, and the effect settles first"
    with History(tmp_path / HISTORY) as history:
        (picked,) = [event for event in history.events("hog.service") if "pick" in event.detail]
    assert picked.detail["pick"] == {
        "by": "current",
        "of": 2,
        "first": [{"unit": "hog.service", "value": 3 << 20}, {"unit": "a.service", "value": 1 << 20}],
    }


@pytest.mark.parametrize("part", ["file", "directory"])
@pytest.mark.parametrize("options", [{}, {"observe": True}, {"user": True}], ids=str)
def test_a_file_that_others_may_write_is_not_watched(tmp_path, part, options):
    path = tmp_path / "web.yaml"
    path.write_text(POLICY)
    (path if part == "file" else tmp_path).chmod(0o777)
    with pytest.raises(
        PolicyFileError, match=r"web\.yaml is not obeyed: others may write .*: run `chmod go-w"
    ) as caught:
        main(str(path), **options)
    assert caught.value.exit_status == 78


@pytest.mark.parametrize(
    ("environment", "options"), [({}, {}), ({"NOTIFY_SOCKET": "/run/x"}, {"once": True})]
)
def test_who_runs_a_watch_by_hand_is_told_at_once_that_there_is_no_bus(
    tmp_path, monkeypatch, environment, options
):
    with pytest.raises(BusError):
        start_main(tmp_path, monkeypatch, environment, World(connect=no_bus), **options)


def test_a_service_that_finds_no_bus_goes_on_until_it_does(tmp_path, monkeypatch, systemd):
    found = iter([no_bus, no_bus, lambda kind: Manager(kind, systemd.address)])

    def connect(kind):
        return next(found)(kind)

    def notify(**fields):
        if "ready" in fields:
            os.kill(os.getpid(), signal.SIGTERM)

    world = World(connect=connect, notify=notify)
    assert start_main(tmp_path, monkeypatch, {"NOTIFY_SOCKET": "/run/x"}, world) == 0
    assert list(found) == []


def no_bus(kind):
    raise BusError(f"the {kind} bus can't be reached")


def start_main(tmp_path, monkeypatch, environment, world, **options):
    path = tmp_path / "web.yaml"
    path.write_text(POLICY)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(World, "of_service", lambda environment: world)
    monkeypatch.setattr("unitmem.daemon.main.require_memory_controller", lambda: None)
    return main(str(path), **options)
