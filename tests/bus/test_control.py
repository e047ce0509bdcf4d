"""A real watch that is asked for its status, and reset, over its socket."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import pytest
from asking import answered

from unitmem.cli.watches import ask
from unitmem.daemon.loop import Loop
from unitmem.daemon.watch import Watch
from unitmem.daemon.world import World
from unitmem.errors import NoSuchUnitError
from unitmem.manager.systemd import Manager
from unitmem.policyfile import reader as config
from unitmem.record.event import FILE_NAME as HISTORY
from unitmem.record.history import History
from unitmem.record.state_file import FILE_NAME as STATE
from unitmem.tell.journal import Journal

NAME = "web.service"
PATH = f"/system.slice/{NAME}"
POLICY = """
interval: 100ms
budget: {actions: 9, per: 1h}
policies:
  - name: hungry
    units: ["web*.service"]
    budget: {actions: 2, per: 1h}
    cooldown: 1h
    steps: [{when: "current > 1K", do: {signal: SIGUSR1, to: all}, repeat: 100ms}]
  - name: calm
    units: ["db.service"]
    steps: [{when: "current > 1T", do: log}]
"""


@pytest.fixture
def start(systemd, cgroups, tmp_path):
    """start(policy): a watch named web that has not ticked yet, over a unit that breaches; its clock is `start.now`."""
    watches = []
    run, state = tmp_path / "run/web", tmp_path / "state"
    for directory in (run, state):
        directory.mkdir(parents=True)
    systemd.add(NAME, control_group=PATH, directory=cgroups.make(PATH), invocation_id="ab" * 16)

    def start(policy=POLICY, **world):
        path = tmp_path / "web.yaml"
        path.write_text(policy)
        world = {
            "state_directory": state,
            "runtime_directory": run,
            "cgroup_root": cgroups.root,
            "connect": lambda kind: Manager(kind, systemd.address),
        } | world
        watch = Watch(path, config.load(path), Manager(address=systemd.address), World(**world))
        watches.append(watch)
        return watch

    yield start
    for watch in watches:
        watch.__exit__()


@pytest.fixture
def call(tmp_path):
    """call(watch, "Reset", unit="web.service"): the answer of a watch whose loop doesn't run."""

    def call(watch, method, **parameters):
        return answered(watch, tmp_path / "run", "web", method, **parameters)

    return call


def signals(systemd):
    return len(systemd.calls("Kill"))


def looped(watch, asking):
    """Run the loop of `watch` until `asking`, in a thread, is done."""
    done = []

    def run():
        try:
            done.append(asking())
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    while not watch.has_looked:
        watch.tick(time.monotonic())
    thread = threading.Thread(target=run)
    thread.start()
    Loop(watch).run()
    thread.join()
    return done[0]


def test_a_running_watch_tells_its_status(start, tmp_path):
    def asking():
        (answer,) = ask(tmp_path / "run", None, "Status", timeout=60)
        return answer.status

    status = looped(start(), asking)
    assert (status["instance"], status["pid"], status["interval"]) == ("web", os.getpid(), 0.1)
    (unit,) = status["units"]
    assert (unit["unit"], unit["values"], unit["budget"]["per"]) == (NAME, {"current": 4096}, 3600)
    assert time.time() - 60 < status["at"] <= time.time()


def ask_often(directory, count):
    """Ask for the status again and again; return the times of the ticks that it is of."""
    ticks = []
    for _ in range(count):
        (answer,) = ask(directory, "web", "Status", timeout=60)
        assert answer.error is None, answer.error
        ticks.append(answer.status["at"])
    return ticks


def test_clients_that_ask_without_end_delay_no_tick(start, tmp_path):
    ticks = looped(start(), lambda: ask_often(tmp_path / "run", 200))
    assert len(set(ticks)) > 3


def test_clients_cause_no_ticks_and_no_work_for_the_manager(start, tmp_path):
    """Nor does the manager get a word of the watchdog for each."""
    told = []
    watch = start(POLICY.replace("100ms\nb", "1h\nb"), notify=lambda **fields: told.append(fields))
    ticks = looped(watch, lambda: ask_often(tmp_path / "run", 100))
    assert len(set(ticks)) == 1
    assert sum("watchdog" in fields for fields in told) < 20


def test_nothing_is_written_and_nothing_rendered_where_nobody_asks(start, tmp_path, monkeypatch):
    monkeypatch.setattr("unitmem.daemon.watch.status_document", lambda *_: pytest.fail("nobody has asked"))
    watch = start()
    for _ in range(3):
        watch.tick(time.monotonic())
    assert {path.name for path in (tmp_path / "run/web").iterdir()} == {"ahead.jsonl", "io.unitmem"}


def test_status_is_of_the_last_tick(start, call, systemd, cgroups):
    watch = start(POLICY.replace("budget: {actions: 2, per: 1h}", ""))
    watch.tick(time.monotonic())
    first = call(watch, "Status")
    cgroups.add_file(PATH, "memory.current", "8192\n")
    assert call(watch, "Status") == first
    watch.tick(time.monotonic())
    assert call(watch, "Status")["status"]["units"][0]["values"] == {"current": 8192}


def test_a_reset_refills_a_budget_and_the_step_fires_again(start, call, systemd, tmp_path, capsys):
    now = time.monotonic()
    watch = start()
    for second in range(5):
        watch.tick(now + second)
    assert signals(systemd) == 2
    before = call(watch, "Status")["status"]["units"][0]
    assert (before["budget"]["left"], before["steps"][0]["withheld"][:13]) == (0, "its budget of")
    capsys.readouterr()

    document = call(watch, "Reset", unit=NAME)
    assert document["budgets"] == [{"policy": "hungry", "unit": NAME, "actions": 2}]
    assert call(watch, "Status")["status"]["units"][0]["budget"]["left"] == 2
    for second in range(5, 10):
        watch.tick(now + second)
    assert signals(systemd) == 4

    message = f"{NAME}: reset by uid {os.getuid()}: gave 2 actions back to its budget in policy hungry"
    assert capsys.readouterr().err.splitlines()[0] == message
    with History(tmp_path / "state" / HISTORY) as history:
        assert [event.message for event in history.events(NAME) if event.kind == "reset"] == [message]


def test_a_reset_ends_a_cooldown_and_a_new_episode_begins(start, call, systemd, cgroups):
    now = time.monotonic()
    watch = start(POLICY.replace("actions: 2", "actions: 8").replace(", repeat: 100ms", ""))
    for second, current in enumerate(("8192", "512", "8192", "8192")):
        cgroups.add_file(PATH, "memory.current", current)
        watch.tick(now + second)
    assert signals(systemd) == 1
    assert call(watch, "Status")["status"]["units"][0]["cooldown_left"] > 3500
    (cooldown,) = call(watch, "Reset")["cooldowns"]
    assert (cooldown["policy"], cooldown["unit"]) == ("hungry", NAME)
    watch.tick(now + 4)
    assert signals(systemd) == 2


def test_the_file_budget_is_given_back_by_a_reset_of_all_alone(start, call, systemd):
    now = time.monotonic()
    watch = start(
        POLICY.replace("actions: 9", "actions: 2").replace(
            "actions: 2, per: 1h}\n    c", "actions: 8, per: 1h}\n    c"
        )
    )
    for second in range(4):
        watch.tick(now + second)
    assert signals(systemd) == 2
    assert call(watch, "Reset", unit=NAME)["file_budget"] == 0
    watch.tick(now + 4)
    assert signals(systemd) == 2
    assert call(watch, "Reset")["file_budget"] == 2
    watch.tick(now + 5)
    assert signals(systemd) == 3


def test_a_reset_is_saved_at_once(start, call, tmp_path):
    now = time.monotonic()
    watch = start()
    for second in range(3):
        watch.tick(now + second)
    spent = json.loads((tmp_path / "state" / STATE).read_text())
    call(watch, "Reset")
    assert json.loads((tmp_path / "state" / STATE).read_text()) != spent
    again = start()  # as after a crash
    again.tick(now + 3)
    assert call(again, "Status")["status"]["units"][0]["budget"]["left"] == 1


@pytest.mark.parametrize("unit", ["other.service", "db.timer"])
def test_a_unit_that_no_policy_governs_is_not_reset(start, call, unit):
    watch = start()
    watch.tick(time.monotonic())
    with pytest.raises(NoSuchUnitError, match=f"governs {unit}, and nothing is kept about it"):
        call(watch, "Reset", unit=unit)


def test_a_unit_is_known_by_its_aliases_too(start, call, systemd, cgroups):
    path = "/system.slice/mariadb.service"
    systemd.add(
        "mariadb.service", control_group=path, directory=cgroups.make(path), aliases=["mysql.service"]
    )
    watch = start(POLICY.replace('["web*.service"]', "[mysql.service]"))
    watch.tick(time.monotonic())
    for unit in ("mysql.service", "mariadb.service"):
        assert call(watch, "Reset", unit=unit)["unit"] == "mariadb.service"


@pytest.mark.parametrize("unit", ["db.service", "webby.service"])
def test_where_there_is_nothing_to_reset_nothing_is_told(start, call, capsys, unit):
    watch = start()
    watch.tick(time.monotonic())
    capsys.readouterr()
    document = call(watch, "Reset", unit=unit)
    assert document.pop("unit") == unit
    assert not any(document.values())
    assert capsys.readouterr().err == ""


def test_a_reset_of_many_units_is_one_entry_and_an_event_for_each(
    start, call, systemd, cgroups, tmp_path, capsys
):
    units = [f"web{number}.service" for number in range(7)]
    for unit in units:
        path = f"/system.slice/{unit}"
        systemd.add(unit, control_group=path, directory=cgroups.make(path), invocation_id="cd" * 16)
    watch = start(POLICY.replace("actions: 9", "actions: 99"), open_journal=Journal)
    watch.tick(time.monotonic())
    capsys.readouterr()
    assert len(call(watch, "Reset")["budgets"]) == 8
    (entry,) = capsys.readouterr().err.splitlines()
    assert entry.startswith(
        f"reset by uid {os.getuid()}: gave 8 actions back to the file's budget; web.service: gave 1 action"
    )
    assert entry.endswith(" and 3 more")
    with History(tmp_path / "state" / HISTORY) as history:
        assert {event.unit for event in history.events() if event.kind == "reset"} == {NAME, *units}
