"""The loop when something around it fails: the bus, the kernel's files, journald; and what that costs."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_systemd1 import FakeSystemd1, running_bus

from unitmem.act.task import Pending
from unitmem.daemon.loop import Loop
from unitmem.daemon.pace import REST_PER_TICK, Pace
from unitmem.daemon.saved_state import SavedState
from unitmem.daemon.watch import Watch
from unitmem.daemon.world import World
from unitmem.errors import BusError, BusLostError
from unitmem.kernel.host import read_host
from unitmem.manager.systemd import Manager
from unitmem.manager.tracker import Tracker
from unitmem.policy.actions import Stop
from unitmem.policy.decision import Decision
from unitmem.policy.state import State
from unitmem.policyfile import reader as config
from unitmem.record.recorder import Recorder
from unitmem.record.state_file import FILE_NAME as STATE_FILE
from unitmem.record.state_file import Remembered, Store
from unitmem.tell.journal import Journal
from unitmem.tell.reporter import Reporter
from unitmem.unit import Invocation, ManagerKind

NAME = "web.service"
PATH = f"/system.slice/{NAME}"
RUN = "ab" * 16
POLICY = """
interval: 500ms
policies:
  - name: p
    units: ["*.service"]
    steps: [{when: "current > 1K", do: %s}]
"""
ANOTHER = object()
"""A connection of its own."""
BUDGET = "    budget: {actions: 3, per: 1h}\n"


class Machine:
    """What /proc says of the machine, unless it can't be read."""

    is_readable = True

    def read(self):
        return read_host() if self.is_readable else too_many_open_files()


@pytest.fixture
def machine():
    return Machine()


@pytest.fixture
def start(systemd, cgroups, tmp_path, machine):
    """start(action, …): a watch over the fake manager's units that has not ticked yet, in a world of that kind."""
    watches = []

    def start(action="log", address=systemd.address, manager=ANOTHER, **world):
        path, state = tmp_path / "web.yaml", tmp_path / "state"
        path.write_text(POLICY % action + ("" if action == "log" else BUDGET))
        state.mkdir(exist_ok=True)
        world = {
            "state_directory": state,
            "read_host": machine.read,
            "cgroup_root": cgroups.root,
            "connect": lambda kind: Manager(kind, systemd.address),
        } | world
        manager = Manager(address=address) if manager is ANOTHER else manager
        watch = Watch(path, config.load(path), manager, World(**world))
        watches.append(watch)
        return watch

    yield start
    for watch in watches:
        watch.__exit__()


@pytest.fixture
def web(systemd, cgroups):
    """A unit that breaches."""
    systemd.add(NAME, control_group=PATH, directory=cgroups.make(PATH), invocation_id=RUN)


def ticks(watch, count=1):
    for _ in range(count):
        watch.tick(time.monotonic())


def again_with_the_manager(watch):
    watch.connection.retry_at = 0.0
    ticks(watch)
    assert watch.connection.manager is not None


# --- the bus ---


def test_a_bus_that_dies_costs_no_more_than_the_connection(start, tmp_path):
    with running_bus(tmp_path) as (address, process):
        fake = FakeSystemd1(address)
        try:
            watch = start(address=address)
            ticks(watch)
            process.kill()
            process.wait()
            ticks(watch, 3)
            assert watch.connection.manager is None
        finally:
            fake.close()
    again_with_the_manager(watch)


def test_a_manager_that_hangs_costs_one_timeout_however_much_is_under_way(start, systemd, monkeypatch):
    monkeypatch.setenv("SYSTEMD_BUS_TIMEOUT", "200ms")
    watch = start("stop")
    ticks(watch)
    now = time.monotonic()
    for number in range(10):
        decision = Decision(now, "p", 0, Stop(90.0), Invocation(f"u{number}.service", RUN, number), 0, 0, ())
        watch.pending.append(
            Pending(
                decision, SimpleNamespace(path="/", exists=lambda: True, is_empty=lambda: False), now + 90
            )
        )
    systemd.hang("GetUnit", "Ping")
    ticks(watch)
    assert len(systemd.calls("GetUnit", "Ping")) == 1
    assert len(watch.pending) == 10
    ticks(watch)
    assert len(systemd.calls("GetUnit", "Ping")) == 2
    assert watch.connection.manager is None


def test_a_last_resort_costs_no_more_than_one_timeout_of_the_others(start, systemd, cgroups, monkeypatch):
    """All of them are past their deadline when the manager is found to hang."""
    monkeypatch.setenv("SYSTEMD_BUS_TIMEOUT", "200ms")
    names, files = [f"web{number}.service" for number in range(5)], []
    for name in names:
        path = f"/system.slice/{name}"
        systemd.add(name, control_group=path, directory=cgroups.make(path), stops=False)
        files.append(cgroups.add_file(path, "cgroup.kill"))
        cgroups.add_file(path, "cgroup.events", "populated 1\nfrozen 0\n")
    watch = start("{stop: {timeout: 10s, else: kill}}")
    watch.path.write_text(watch.path.read_text().replace(BUDGET, ""))
    watch.reload()
    now = time.monotonic()
    watch.tick(now)
    watch.catch_up(now + 1)  # what the manager signals of these stops is read
    assert len(watch.pending) == 5
    before = len(systemd.calls())
    systemd.hang("GetUnit", "Ping")
    watch.catch_up(now + 11)
    assert len(systemd.calls()) == before + 1
    assert [file.read_text() for file in files] == ["1"] * 5


@pytest.mark.parametrize("action", ["stop", "{set: {MemoryHigh: 512M}}", "{signal: SIGUSR1, to: all}"])
def test_what_was_never_asked_of_the_manager_costs_no_budget(start, web, cgroups, action):
    watch = start(action)
    current = cgroups.add_file(PATH, "memory.current", "0\n")
    now = time.monotonic()
    watch.tick(now)
    watch.connection.lose(BusLostError("it hangs"), now)
    current.write_text("4096\n")
    for count in range(5):
        watch.connection.retry_at = float("inf")
        watch.tick(now + 400 * count)
    assert watch.state.spent == {}


def test_nothing_is_decided_until_every_unit_is_known(start, systemd, web, cgroups):
    """A watch that starts as the bus hangs sees no unit: the episodes that it remembers go on all the same."""
    first = start("{signal: SIGUSR1, to: all}")
    ticks(first, 2)
    assert len(systemd.calls("Kill")) == 1
    watch = start("{signal: SIGUSR1, to: all}")
    systemd.refuse("GetUnit", "org.freedesktop.DBus.Error.NoReply")
    ticks(watch, 2)
    assert watch.state.ladders
    systemd.allow("GetUnit")
    again_with_the_manager(watch)
    ticks(watch)
    assert len(watch.state.ladders) == 1
    assert len(systemd.calls("Kill")) == 1, "and nothing is done twice"


@pytest.mark.parametrize("why", ["refused", "unopened"])
def test_an_episode_goes_on_while_its_unit_can_not_be_seen(start, systemd, web, why):
    first = start("{signal: SIGUSR1, to: all}")
    ticks(first, 2)
    watch = start("{signal: SIGUSR1, to: all}")
    with pytest.MonkeyPatch.context() as patch:
        systemd.refuse("GetUnit" if why == "refused" else "none", "org.freedesktop.DBus.Error.LimitsExceeded")
        if why == "unopened":
            patch.setattr("unitmem.manager.tracker.Cgroup", too_many_open_files)
        ticks(watch, 2)
        assert list(watch.state.ladders) == [("p", NAME)]
    systemd.allow("GetUnit" if why == "refused" else "none")
    ticks(watch, 2)
    assert len(systemd.calls("Kill")) == 1


def test_a_listing_that_is_refused_is_told(start, systemd, capsys):
    watch = start()
    systemd.refuse("ListUnits", "org.freedesktop.DBus.Error.AccessDenied")
    ticks(watch, 3)
    assert capsys.readouterr().err.count("the units can't be listed") == 1
    assert not watch.has_looked
    systemd.allow("ListUnits")
    ticks(watch, 2)
    assert watch.has_looked
    assert capsys.readouterr().err.count("the units can be listed again\n") == 1


def test_a_manager_that_answers_now_and_then_is_tried_with_growing_pauses(
    start, systemd, capsys, monkeypatch
):
    monkeypatch.setenv("SYSTEMD_BUS_TIMEOUT", "100ms")
    watch = start()
    systemd.hang("ListUnits")
    pauses = []
    for _ in range(4):
        now = watch.connection.retry_at
        watch.tick(now)
        pauses.append(watch.connection.retry_at - now)
    assert pauses[0] < pauses[1] < pauses[2] < pauses[3]
    told = capsys.readouterr().err
    assert (told.count("is lost"), told.count("is back")) == (1, 0)


def test_what_had_to_wait_for_the_manager_is_done_as_soon_as_it_is_back(start, systemd, web, cgroups):
    watch = start("stop")
    current = cgroups.add_file(PATH, "memory.current", "0\n")
    now = time.monotonic()
    watch.tick(now)
    watch.connection.lose(BusLostError("it hangs"), now)
    current.write_text("4096\n")
    for second in range(1, 60):
        watch.connection.retry_at = float("inf")
        watch.tick(now + second)
    watch.connection.retry_at = 0.0
    watch.tick(now + 60)
    assert len(systemd.calls("Stop")) == 1


def test_what_the_manager_refuses_for_good_is_tried_and_told_once(start, systemd, web, capsys):
    systemd.change(NAME, refuses_manual_stop=True)
    watch = start("stop")
    now = time.monotonic()
    for second in range(0, 600, 20):
        watch.tick(now + second)
    assert len(systemd.calls("Stop")) == 1
    assert watch.state.spent == {}
    assert watch.state.ending == frozenset()
    told = capsys.readouterr().err
    assert told.count(f"unit {NAME} may be requested by dependency only") == 1


@pytest.mark.parametrize("reloads", [False, True])
def test_what_the_manager_refuses_is_tried_in_a_later_episode_only_if_it_has_reloaded_its_units(
    start, systemd, web, cgroups, capsys, reloads
):
    systemd.change(NAME, refuses_manual_stop=True)
    current = cgroups.add_file(PATH, "memory.current", "4096\n")
    watch = start("stop")
    now = time.monotonic()
    for second in range(0, 600, 20):
        current.write_text("4096\n" if second % 40 == 0 else "0\n")
        if reloads and second == 500:
            systemd.reloading()
        watch.tick(now + second)
    assert len(systemd.calls("Stop")) == 1 + reloads
    told = capsys.readouterr().err
    assert told.count("not stopping it, since the manager refuses it as the unit is configured") == 1


def test_a_freeze_that_takes_long_keeps_no_other_action_waiting(start, systemd, web, monkeypatch):
    monkeypatch.setenv("SYSTEMD_BUS_TIMEOUT", "200ms")
    watch = start('freeze}, {when: "current > 2K", do: stop')
    systemd.hang("Freeze")
    ticks(watch)
    assert len(systemd.calls("Stop")) == 1
    assert watch.connection.manager is not None


def test_what_was_set_is_set_back_at_the_end_also_by_a_manager_that_was_just_lost(start, systemd, web):
    watch = start("{set: {MemoryHigh: 512M}}")
    ticks(watch)
    watch.connection.lose(BusLostError("it hangs"), time.monotonic())
    watch.leave(time.monotonic())
    assert watch.overrides.spelled() == []
    assert len(systemd.calls("SetUnitProperties")) == 1


def test_a_slice_is_not_seen_before_the_core_units_in_it(systemd, manager, cgroups):
    for name in ("dbus.service", "web1.service", "ssh.service"):
        systemd.add(name, control_group=f"/web.slice/{name}", directory=cgroups.make(f"/web.slice/{name}"))
    systemd.add("web.slice", control_group="/web.slice", directory=str(cgroups.root / "web.slice"))
    manager.follow()
    described = []
    describe = manager.describe
    manager.describe = lambda name: described.append(name) or describe(name)
    tracker = Tracker(lambda name: name.startswith("web"), "/unitmem.slice/unitmem@web.service", cgroups.root)
    tracker.update(manager)
    assert set(described[:2]) == {"dbus.service", "ssh.service"}
    tracker.close()


# --- the start, and a reload ---


@pytest.fixture
def said():
    return []


@pytest.mark.parametrize("trouble", ["no bus", "Subscribe", "ListUnits"])
def test_a_watch_without_its_manager_waits_with_growing_pauses_and_is_ready_once_it_guards(
    start, systemd, web, said, capsys, monkeypatch, trouble
):
    monkeypatch.setenv("SYSTEMD_BUS_TIMEOUT", "100ms")
    has_bus = trouble != "no bus"

    def connect(kind):
        if not has_bus:
            raise BusError("the system bus can't be reached: connection refused")
        return Manager(kind, systemd.address)

    systemd.hang(trouble)
    watch = start(manager=None, connect=connect, notify=lambda **fields: said.append(fields))
    pauses, now = [], time.monotonic()
    for _ in range(4):
        now = max(now, watch.connection.retry_at)
        watch.tick(now)
        watch.announce()
        pauses.append(watch.connection.retry_at - now)
    assert pauses == sorted(set(pauses)), "they grow"
    assert all("ready" not in fields for fields in said)
    assert any("extend_timeout_usec" in fields for fields in said)
    told = capsys.readouterr().err
    assert (told.count("and reconnecting\n"), told.count("watching with")) == (1, 0)

    systemd.hang()
    has_bus = True
    for _ in range(2):
        now = max(now, watch.connection.retry_at) + 1
        watch.tick(now)
        watch.announce()
    assert said.count({"ready": 1}) == 1
    assert list(watch.state.ladders) == [("p", NAME)]
    told = capsys.readouterr().err
    assert (told.count("is back\n"), told.count("watching with")) == (1, 1)


EXEC_RELOAD = re.search(
    r"^ExecReload=/bin/sh -ec '(.*)'$",
    (Path(__file__).parents[2] / "units/unitmem@.service").read_text(),
    re.MULTILINE,
)


def reload_by_the_service(directory, pid):
    """Run ExecReload= as systemd does; its status."""
    assert EXEC_RELOAD is not None
    script = EXEC_RELOAD[1].replace("$$", "$")
    environment = {**os.environ, "RUNTIME_DIRECTORY": str(directory), "MAINPID": str(pid)}
    return subprocess.run(
        ["/bin/sh", "-ec", script], env=environment, stderr=subprocess.DEVNULL, timeout=60, check=False
    ).returncode


def test_a_reload_of_the_service_is_judged_by_the_daemon_itself(start, tmp_path):
    """`systemctl reload` fails where the file is refused, without an interpreter that may be slow to start."""
    directory = tmp_path / "run"
    directory.mkdir()
    watch = start(runtime_directory=directory)
    before = signal.signal(signal.SIGHUP, lambda *_: watch.reload())
    try:
        for text, is_taken in (("policies: 3\n", False), (POLICY % "stop", True), (POLICY % "halt", False)):
            watch.path.write_text(text)
            assert (reload_by_the_service(directory, os.getpid()) == 0) is is_taken
    finally:
        signal.signal(signal.SIGHUP, before)
    assert isinstance(watch.file.policies[0].steps[0].action, Stop)


def test_a_reload_of_a_service_that_ends_meanwhile_does_not_wait_for_it(tmp_path):
    """Until it ends, systemd starts no other one."""
    daemon = subprocess.Popen(["sleep", "600"])  # SIGHUP ends it
    reaper = threading.Thread(target=daemon.wait)
    reaper.start()
    assert reload_by_the_service(tmp_path, daemon.pid) != 0
    reaper.join()


# --- the kernel's files ---


def too_many_open_files(*_):
    raise OSError(24, "Too many open files")


def test_a_unit_whose_cgroup_can_not_be_opened_is_told_and_tried_again(start, web, capsys):
    watch = start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unitmem.manager.tracker.Cgroup", too_many_open_files)
        ticks(watch, 2)
    assert capsys.readouterr().err.count("not watched, as its cgroup can't be opened") == 1
    ticks(watch)
    assert [tracked.unit.name for tracked, _ in watch.tracker.present()] == [NAME]
    ticks(watch)
    assert capsys.readouterr().err.count(f"{NAME}: its cgroup can be opened again\n") == 1


def test_a_watch_may_open_as_many_files_as_its_user_may():
    program = (
        "import resource as r; soft, hard = r.getrlimit(r.RLIMIT_NOFILE); r.setrlimit(r.RLIMIT_NOFILE, (64, hard));"
        "from unitmem.daemon.main import raise_file_limit; raise_file_limit(); assert r.getrlimit(r.RLIMIT_NOFILE) == (hard, hard)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_host_that_can_not_be_read_decides_nothing_and_ends_nothing(start, systemd, web, machine, capsys):
    watch = start("{signal: SIGUSR1, to: all}")
    ticks(watch)
    machine.is_readable = False
    ticks(watch, 3)
    assert not watch.has_looked
    machine.is_readable = True
    ticks(watch, 2)
    assert len(systemd.calls("Kill")) == 1, "its episode goes on"
    told = capsys.readouterr().err
    assert told.count("nothing is decided, as the machine can't be read") == 1
    assert told.count("the machine can be read again\n") == 1


def test_a_unit_that_stops_unseen_is_looked_at_no_more(start, systemd, web, capsys):
    watch = start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unitmem.manager.tracker.Cgroup", too_many_open_files)
        ticks(watch)
    systemd.change(NAME, active_state="inactive", control_group="")
    ticks(watch)
    asked = len(systemd.calls("GetUnit"))
    ticks(watch, 3)
    assert len(systemd.calls("GetUnit")) == asked
    assert watch.tracker.unopened == {}
    assert "again" not in capsys.readouterr().err


def test_what_nobody_has_looked_at_did_not_hold(start, systemd, web, machine):
    """`for` means at every tick of it."""
    watch = start("{signal: SIGUSR1, to: all}, for: 30s")
    now = time.monotonic()
    watch.tick(now)
    machine.is_readable = False
    for second in range(1, 40):
        watch.tick(now + second)
    machine.is_readable = True
    for second in range(40, 70):
        watch.tick(now + second)
    assert systemd.calls("Kill") == []
    watch.tick(now + 71)
    assert len(systemd.calls("Kill")) == 1


def test_what_held_before_a_suspend_has_to_hold_anew(start, systemd, web):
    """The monotonic clock stands still meanwhile."""
    suspended = [100.0]
    watch = start("{signal: SIGUSR1, to: all}, for: 5s", suspended=lambda: suspended[0])
    now = time.monotonic()
    for second in range(10):
        if second == 4:
            suspended[0] += 3600
        watch.tick(now + second)
        assert len(systemd.calls("Kill")) == (second == 9)


def test_a_socket_that_could_not_be_opened_is_opened_again(start, tmp_path, capsys):
    """And one that somebody has removed."""
    socket = tmp_path / "run/io.unitmem"
    watch = start(runtime_directory=socket.parent)
    ticks(watch, 2)
    socket.parent.mkdir()
    ticks(watch, 2)
    assert socket.is_socket()
    told = capsys.readouterr().err
    assert told.count("can't ask this watch, as its socket can't be opened: no such file or directory\n") == 1
    assert told.count("the socket for `unitmem status` and `reset` is open again\n") == 1
    socket.unlink()
    ticks(watch)
    assert socket.is_socket()


def test_a_state_that_can_not_be_saved_is_told_once_and_that_it_can_again(start, web, tmp_path, capsys):
    """Before an action it goes into another file, whose error reads differently."""
    watch = start("{signal: SIGUSR1, to: all}")
    (tmp_path / "state").rename(tmp_path / "away")
    ticks(watch, 3)
    (tmp_path / "away").rename(tmp_path / "state")
    ticks(watch, 2)
    told = capsys.readouterr().err
    assert told.count("cooldowns, budgets and open episodes end with this watch") == 1
    assert told.count("the state is saved again\n") == 1


def test_a_removed_state_directory_is_told_for_the_history_too(start, web, tmp_path, capsys):
    """SQLite goes on writing into a file that has no name any more."""
    watch, now = start(), time.monotonic()
    watch.tick(now)
    (tmp_path / "state").rename(tmp_path / "away")
    for minute in range(1, 6):
        watch.tick(now + 61 * minute)
    gone = f"the history can't be written: {tmp_path}/state/history.sqlite was removed\n"
    told = capsys.readouterr().err
    assert told.count(gone) == 1
    assert "written again" not in told
    (tmp_path / "away").rename(tmp_path / "state")
    for minute in range(6, 12):
        watch.tick(now + 61 * minute)
    assert capsys.readouterr().err.count("the history is written again\n") == 1


def test_a_history_that_is_damaged_is_told_once_and_that_another_one_is_written(start, web, tmp_path, capsys):
    start().tick(time.monotonic())
    for part in (tmp_path / "state").glob("history.sqlite*"):
        part.unlink()
    (tmp_path / "state/history.sqlite").write_bytes(b"x" * 10_000)
    watch = start()
    ticks(watch, 3)
    told = capsys.readouterr().err
    assert told.count("it is set aside as") == 1
    assert told.count("the history is written again\n") == 1


@pytest.mark.parametrize("name", [STATE_FILE, f".{STATE_FILE}.new", "ahead.jsonl"])
@pytest.mark.parametrize("when", ["at the start", "later"])
def test_a_directory_in_place_of_the_state_is_told_once_and_that_it_is_gone(
    start, web, tmp_path, capsys, when, name
):
    state = tmp_path / "state" / name
    if when == "at the start":
        state.mkdir(parents=True)
    watch = start("{signal: SIGUSR1, to: all}")
    if when == "later":
        state.mkdir()
    ticks(watch, 3)
    assert capsys.readouterr().err.count("the state can't be saved") == 1
    state.rmdir()
    ticks(watch, 3)
    assert capsys.readouterr().err.count("the state is saved again\n") == 1
    assert (state.parent / STATE_FILE).is_file()
    assert not list(state.parent.glob(".*"))


def test_a_state_that_is_kept_before_an_action_alone_is_not_saved(tmp_path, monkeypatch, capsys):
    def replace_file(path, text, *, durable):
        if durable:
            raise OSError(28, "No space left on device")

    reporter = Reporter(Journal(), Recorder(None, ""), ManagerKind.SYSTEM)
    saved_state = SavedState(Store(tmp_path), reporter)
    monkeypatch.setattr("unitmem.record.state_file.replace_file", replace_file)
    for ahead in (False, True, False, True):
        saved_state.save(Remembered(), (), time.monotonic(), ahead=ahead)
    reporter.close()
    told = capsys.readouterr().err
    assert told.count("can't be saved") == 1
    assert "saved again" not in told


def test_a_file_that_others_may_write_is_not_loaded_and_the_policies_stay(
    start, systemd, web, tmp_path, capsys
):
    """Whoever may write it could have commands run as root."""
    watch = start()
    before = watch.file
    watch.path.write_text(POLICY % "stop")
    watch.path.chmod(0o666)
    watch.reload()
    assert watch.file is before
    told = capsys.readouterr().err
    assert f"{watch.path} is not obeyed: others may write {watch.path} (mode 0666): run `chmod go-w" in told
    assert "the previous policies stay in force" in told
    watch.path.chmod(0o644)
    watch.reload()
    assert watch.file != before


def test_a_file_that_no_process_can_be_started_for_is_not_loaded_and_the_policies_stay(
    start, systemd, web, monkeypatch, capsys
):
    """Where memory is short, say: then a watch that ended would be worse than one with its policies of before."""
    watch = start()
    before = watch.file
    watch.path.write_text(POLICY % "stop")
    with monkeypatch.context() as short:
        short.setattr(os, "fork", too_many_open_files)
        watch.reload()
    assert watch.file is before
    told = capsys.readouterr().err
    assert "no process can be started to read it: too many open files" in told
    assert "the previous policies stay in force" in told
    watch.reload()
    assert watch.file != before


# --- what it costs ---


@pytest.mark.parametrize("number", [signal.SIGHUP, None])
def test_the_loop_sleeps_also_after_a_signal(start, number):
    """Rounds without a tick in the time of two intervals: a few, and not as many as the processor can do."""
    rounds = threading.Semaphore(0)
    count = itertools.count()

    def watchdog_interval():  # asked for before each sleep
        next(count)
        rounds.release()

    loop = Loop(start(watchdog_interval=watchdog_interval))

    def disturb():
        for _ in range(2):
            rounds.acquire(timeout=60)
        if number is not None:
            os.kill(os.getpid(), number)
        for _ in range(4):
            rounds.acquire(timeout=60)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=disturb)
    thread.start()
    loop.run()
    thread.join()
    assert next(count) < 50


@pytest.mark.parametrize("is_new", [False, True], ids=["that was there", "that has just started"])
def test_a_unit_that_crosses_its_threshold_between_two_ticks_causes_one(
    systemd, manager, cgroups, tmp_path, is_new
):
    path = tmp_path / "web.yaml"
    path.write_text(
        "interval: 70s\npolicies: [{name: p, units: ['*.service'], steps: [{when: current > 1M, do: stop}]}]"
    )

    def run():
        systemd.add(NAME, control_group=PATH, directory=cgroups.make(PATH), invocation_id=RUN)

    def leak():
        if is_new:
            run()
        cgroups.add_file(PATH, "memory.current", f"{2 << 20}\n")
        deadline = time.monotonic() + 60
        while not systemd.calls("Stop") and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    if not is_new:
        run()
    thread = threading.Thread(target=leak)
    ready = lambda **state: thread.start() if "ready" in state else None  # noqa: E731
    world = World(cgroup_root=cgroups.root, notify=ready)
    with Watch(path, config.load(path), manager, world) as watch:
        Loop(watch).run()
    thread.join()
    assert len(systemd.calls("Stop")) == 1


@pytest.mark.parametrize(("took", "rest"), [(0.0, 1.0), (0.05, 1.0), (2.0, 2.0 * (1 + REST_PER_TICK))])
def test_events_wait_as_long_as_the_ticks_that_they_cause_are_dear(took, rest):
    pace = Pace(100.0, 10.0)
    pace.ticked(100.0, 100.0 + took)
    assert pace.events_from == pytest.approx(100.0 + rest)


def test_ticks_stand_on_a_grid_and_those_that_are_missed_coalesce():
    pace = Pace(100.0, 10.0)
    for began, ended, missed, due in [
        (100.0, 101.0, 0, 110.0),
        (104.0, 104.5, 0, 110.0),  # caused by an event
        (110.5, 119.0, 0, 120.0),
        (120.0, 147.0, 2, 150.0),
        (150.0, 150.1, 0, 160.0),
    ]:
        assert (pace.ticked(began, ended), pace.due) == (missed, due)


def test_what_can_not_be_set_back_is_tried_with_growing_pauses(start, systemd, web):
    watch = start("{set: {MemoryHigh: 512M}}")
    ticks(watch)
    assert len(watch.overrides.spelled()) == 1
    systemd.refuse("SetUnitProperties", "org.freedesktop.systemd1.UnitMasked")
    watch.state = State()  # its episode is over
    now = time.monotonic()
    for second in range(200):
        watch.overrides.undo_ended(watch.state, watch.connection.manager, now + second)
    assert len(systemd.calls("SetUnitProperties")) == 5  # after 0, 10, 30, 70 and 150 s


def test_a_set_that_is_tried_again_owes_no_more_than_before(start, systemd, web):
    watch = start("{set: {MemoryHigh: 512M}}")
    systemd.refuse("SetProperties", "org.freedesktop.DBus.Error.Failed")
    now = time.monotonic()
    for count in range(4):
        watch.tick(now + 60 * count)
    assert len(systemd.calls("SetProperties")) == 3, "as the budget has it"
    assert len(watch.overrides.spelled()) == 1


# --- another watch, another file, another version ---

COOLDOWN = "}]\n    cooldown: 10min  # "  # what follows an action in POLICY is in the comment


@pytest.mark.parametrize("action", ["freeze", "{freeze: {timeout: 9s}}"], ids=["the same", "edited"])
def test_what_was_done_before_a_restart_is_not_done_again(start, systemd, web, action):
    ticks(start("freeze" + COOLDOWN), 2)
    ticks(start(action + COOLDOWN), 2)
    assert len(systemd.calls("Freeze")) == 1


def test_what_a_newer_version_has_left_restrains_and_is_told_once(start, systemd, web, tmp_path, capsys):
    ticks(start())
    path = tmp_path / "state" / STATE_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2, "picked": []}))
    ticks(start("freeze" + COOLDOWN), 2)
    assert systemd.calls("Freeze") == []
    ticks(start("freeze" + COOLDOWN))
    assert systemd.calls("Freeze") == []
    assert capsys.readouterr().err.count("(version 2) can't be read in part (picked)") == 1


@pytest.mark.parametrize(
    "content", ["{", "[" * 100_000, '{"monotonic": NaN}'], ids=["cut", "deep", "no number"]
)
def test_a_damaged_state_makes_it_act_less_and_not_more(start, systemd, web, tmp_path, capsys, content):
    ticks(start())
    (tmp_path / "state" / STATE_FILE).write_text(content)
    ticks(start("freeze" + COOLDOWN), 2)
    assert systemd.calls("Freeze") == []
    assert capsys.readouterr().err.count("it is set aside as") == 1
