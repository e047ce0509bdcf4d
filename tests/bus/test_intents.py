"""What an action became isn't lost with the watch: one that is killed at any instant, and the next one in its place."""

from __future__ import annotations

import importlib
import io
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest
from asking import answered

from unitmem.daemon.policy_file import load_checked
from unitmem.daemon.watch import Watch
from unitmem.daemon.world import World
from unitmem.errors import BusLostError
from unitmem.manager.systemd import Manager
from unitmem.record.event import FILE_NAME as HISTORY
from unitmem.record.event import EventKind
from unitmem.record.history import History
from unitmem.record.recorder import Recorder
from unitmem.record.state_file import Store
from unitmem.tell.journal import Journal

NAME = "web.service"
PATH = f"/system.slice/{NAME}"
REQUESTS = ("Stop", "Kill", "KillUnit", "Restart", "SetProperties", "Freeze", "StartTransientUnit")
POLICY = """
policies:
  - name: p
    units: ["web.service"]
    steps: [{when: "current > 1K", do: %s}]
"""
BUDGET = POLICY.replace("    steps", "    budget: {actions: 3, per: 1h}\n    steps")
SLOW_STOP = "{stop: {timeout: 30s}}"
STOP_ELSE_KILL = "{stop: {timeout: 30s, else: kill}}"


class Killed(BaseException):
    """The end of a watch by SIGKILL: nothing that it would do afterwards is done."""


class Killer:
    """Kills a watch right before or after its nth call of what it works with."""

    CALLS = (
        "unitmem.daemon.watch.perform",
        "unitmem.daemon.watch.follow_up",
        "unitmem.daemon.watch.measure_largest",
        (Journal, "write"),
        (Recorder, "event"),
        (Store, "save"),
        (Store, "note"),
    )

    def __init__(self, patch, instant):
        self.instant = instant
        self.where = ""
        self.count = 0
        for call in self.CALLS:
            target = call if isinstance(call, tuple) else tuple(call.rsplit(".", 1))
            module = target[0]
            if isinstance(module, str):
                module = importlib.import_module(module)
            patch.setattr(module, target[1], self.deadly(getattr(module, target[1]), target[1]))

    def deadly(self, function, name):
        def called(*arguments, **keywords):
            self.at(f"before {name}")
            result = function(*arguments, **keywords)
            self.at(f"after {name}")
            return result

        return called

    def at(self, where):
        if self.count == self.instant:
            self.where = where
            raise Killed
        self.count += 1


@pytest.fixture
def site(systemd, cgroups, tmp_path):
    """Where watches come and go: directories, a unit that breaches, and what was logged."""
    stream = io.StringIO()
    watches = []

    def directories(name):
        made = tmp_path / f"dirs-{name}"
        for part in ("state", "run"):
            (made / part).mkdir(parents=True)
        return made

    def add(**values):
        return systemd.add(NAME, control_group=PATH, directory=cgroups.make(PATH), **values)

    def start(action, made, policy=POLICY, **options):
        path = made / "web.yaml"
        path.write_text(policy % action if "%s" in policy else policy)
        world = World(
            state_directory=made / "state",
            runtime_directory=made / "run",
            cgroup_root=cgroups.root,
            connect=lambda kind: Manager(kind, systemd.address),
            open_journal=lambda: Journal(stream=stream),
        )
        manager = Manager(address=systemd.address)
        watch = Watch(path, load_checked(path, observe=False), manager, world, **options)
        watches.append(watch)
        return watch

    def events(made):
        with History(made / "state" / HISTORY) as history:
            return history.events(NAME)

    def requested():
        return len(systemd.calls(*REQUESTS))

    yield SimpleNamespace(**locals())
    for watch in watches:
        watch.__exit__()


def ticks(watch, count=3, *, later=0.0):
    for _ in range(count):
        watch.tick(time.monotonic() + later)


def of_kind(events, kind):
    return [event for event in events if event.kind is kind]


@pytest.mark.parametrize(
    "action",
    [
        "log",
        "stop",
        SLOW_STOP,
        "kill",
        "restart",
        "freeze",
        "{signal: SIGUSR1, to: all}",
        "{set: {MemoryHigh: 512M}}",
        "{reclaim: 1M}",
        '{run: ["/bin/true"]}',
    ],
)
def test_at_whatever_instant_a_watch_is_killed_there_is_one_decision_and_one_outcome(
    site, systemd, cgroups, action
):
    """And no second action; each is in the journal once as well, but where the watch ended right after it had sent it."""
    for instant in range(100):
        made, before = site.directories(instant), site.requested()
        site.stream.seek(0)
        site.stream.truncate()
        site.add(stops=action != SLOW_STOP)
        with pytest.MonkeyPatch.context() as patch:
            killer = Killer(patch, instant)
            with suppress(Killed):
                ticks(site.start(action, made))
        if action == SLOW_STOP and site.requested() > before:
            systemd.change(NAME, active_state="deactivating")
        second = site.start(action, made)
        ticks(second)
        if action == SLOW_STOP:
            systemd.change(NAME, active_state="inactive")
            cgroups.remove(PATH)
            ticks(second, 2)
        if action.startswith("{run"):
            for name in {body[0] for _, body in systemd.calls("StartTransientUnit")}:
                with suppress(RuntimeError):
                    systemd.release(name)
                    systemd.end_command(name)
            ticks(second, 2)
        # the effect of a `set` has some time to be seen
        if action.startswith("{set") and not of_kind(site.events(made), EventKind.OUTCOME):
            ticks(second, later=11.0)
        # a thread writes it, which a busy machine may start late
        while action.startswith("{reclaim") and second.pending:
            ticks(second)
        events = site.events(made)
        decisions, outcomes = of_kind(events, EventKind.DECISION), of_kind(events, EventKind.OUTCOME)
        if action == "restart" and len(decisions) == 2:
            # the second one is about the new run, which breaches as well
            assert len({decision.run for decision in decisions}) == 2
            decisions, outcomes = decisions[:1], outcomes[:1]
        assert len(decisions) == 1, killer.where
        assert len(outcomes) == (action != "log"), killer.where
        assert action == "restart" or site.requested() - before <= 1, killer.where
        logged = site.stream.getvalue().splitlines()
        for event in decisions + outcomes:
            assert (
                1
                <= sum(line.startswith(event.message) for line in logged)
                <= 1 + (killer.where in ("after write", "before event", "before note"))
            ), (killer.where, event.message, logged)
        systemd.remove(NAME)
        with suppress(FileNotFoundError):
            cgroups.remove(PATH)
        if not killer.where:
            break
    assert 5 < instant < 99


# --- what is left of an action, and what becomes of it ---


@pytest.fixture
def stopping(site, systemd):
    """A unit that takes long to stop, and the directories of a watch that has asked for that and was killed."""

    def stopping(action):
        site.add(stops=False)
        made = site.directories("stopping")
        ticks(site.start(action, made))
        assert len(systemd.calls("Stop")) == 1
        systemd.change(NAME, active_state="deactivating")
        return made

    return stopping


def results(site, made):
    return [event.result for event in of_kind(site.events(made), EventKind.OUTCOME)]


def test_a_stop_goes_on_with_what_is_left_of_its_timeout_and_takes_its_last_resort(site, systemd, stopping):
    made = stopping(STOP_ELSE_KILL)
    watch = site.start(STOP_ELSE_KILL, made)
    ticks(watch, later=20.0)
    (step,) = answered(watch, made, "run", "Status")["status"]["units"][0]["steps"]
    assert step["under_way"] == "stop within 30s, else kill"
    assert (site.requested(), results(site, made)) == (1, [])
    ticks(watch, later=31.0)
    assert [method for method, _ in systemd.calls(*REQUESTS)] == ["Stop", "Kill"]
    (outcome,) = of_kind(site.events(made), EventKind.OUTCOME)
    assert outcome.result == "verified"
    assert "killed, as it had not stopped within 30s; gone 31s after" in outcome.message
    assert "; seen after a restart of unitmem" in outcome.message


def test_a_watch_that_only_observes_takes_no_last_resort_either(site, systemd, stopping):
    made = stopping(STOP_ELSE_KILL)
    watch = site.start(STOP_ELSE_KILL, made, observe=True)
    ticks(watch)
    ticks(watch, later=31.0)
    assert (results(site, made), site.requested()) == (["failed"], 1)


def test_a_stop_that_still_has_not_ended_the_unit_has_failed_and_may_be_tried_again(site, stopping):
    made = stopping(SLOW_STOP)
    watch = site.start(SLOW_STOP, made)
    ticks(watch, later=29.0)
    assert results(site, made) == []
    ticks(watch, later=31.0)
    assert (results(site, made), site.requested()) == (["failed"], 1)
    ticks(watch, later=45.0)
    assert site.requested() == 2


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_an_action_outlives_any_number_of_watches(site, systemd, cgroups, stopping, how):
    made = stopping(SLOW_STOP)
    for _ in range(3):
        watch = site.start(SLOW_STOP, made)
        ticks(watch, 2)
        if how == "stopped":
            watch.leave(time.monotonic())
    systemd.change(NAME, active_state="inactive")
    cgroups.remove(PATH)
    ticks(site.start(SLOW_STOP, made))
    assert (results(site, made), site.requested()) == (["verified"], 1)
    assert [event.kind for event in site.events(made)] == [EventKind.DECISION, EventKind.OUTCOME]


def test_an_action_is_followed_though_no_policy_governs_its_unit_any_more(site, systemd, cgroups, stopping):
    made = stopping(SLOW_STOP)
    ticks(site.start("log", made))
    assert results(site, made) == []
    systemd.change(NAME, active_state="inactive")
    cgroups.remove(PATH)
    ticks(site.start("log", made))
    assert results(site, made) == ["verified"]


def test_what_was_never_requested_costs_no_budget_and_is_tried_again(site, monkeypatch):
    site.add()
    made = site.directories("untried")
    with monkeypatch.context() as patch:
        patch.setattr("unitmem.daemon.watch.list_few", dies)
        patch.setattr(Store, "note", dies)
        with suppress(Killed):
            ticks(site.start("stop", made, BUDGET))
    watch = site.start("stop", made, BUDGET)
    ticks(watch)
    decision, outcome = site.events(made)
    assert outcome.message.startswith(f"{NAME}: stop failed: unitmem ended before it was requested")
    assert abs(outcome.detail["decided"] - decision.at) < 0.001
    assert (site.requested(), watch.state.spent) == (0, {})
    logged = [line for line in site.stream.getvalue().splitlines() if "current" in line]
    assert len(logged) == 1
    assert logged[0].endswith(" ago, before unitmem was restarted")
    ticks(watch, later=12.0)
    assert site.requested() == 1


def dies(*arguments, **keywords):
    raise Killed


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("stop", "whether it was requested is unknown, and the unit still runs"),
        ("{signal: SIGUSR1, to: all}", "whether it was sent is unknown"),
    ],
)
def test_what_may_have_been_requested_is_not_requested_again_at_once(site, monkeypatch, action, said):
    site.add()
    made = site.directories("unknown")
    with monkeypatch.context() as patch:
        patch.setattr("unitmem.daemon.watch.perform", dies)
        with suppress(Killed):
            ticks(site.start(action, made, BUDGET))
    watch = site.start(action, made, BUDGET)
    ticks(watch)
    (outcome,) = of_kind(site.events(made), EventKind.OUTCOME)
    assert outcome.result == "failed"
    assert said in outcome.message
    assert site.requested() == 0
    assert len(watch.state.spent) == 1


def test_what_a_set_was_about_to_override_is_set_back_by_the_next_watch(site, systemd, monkeypatch):
    """The former value is noted before, and is the only trace of it."""
    site.add()
    systemd.change(NAME, sizes={"MemoryHigh": 1 << 30})
    made, action = site.directories("set"), "{set: {MemoryHigh: 512M}}"
    with monkeypatch.context() as patch:
        patch.setattr("unitmem.daemon.watch.measure_largest", dies)
        with suppress(Killed):
            ticks(site.start(action, made))
    assert systemd.unit(NAME).sizes == {"MemoryHigh": 512 << 20}
    watch = site.start(action, made)
    ticks(watch)
    assert watch.overrides.spelled() == [f"{NAME}: MemoryHigh=1.0G"]
    watch.leave(time.monotonic())
    assert systemd.unit(NAME).sizes == {"MemoryHigh": 1 << 30}


def test_a_tick_saves_its_state_once_ahead_of_all_that_it_does(site, systemd, monkeypatch):
    site.add()
    saved, save = [], Store.save
    monkeypatch.setattr(Store, "save", lambda *of, ahead=False: saved.append(ahead) or save(*of, ahead=ahead))
    action = "{set: {MemoryHigh: 512M}}}, {when: current > 2K, do: {set: {MemoryMax: 1G}}"
    ticks(site.start(action, site.directories("once")), 1)
    assert len(systemd.calls("SetProperties")) == 2
    assert saved == [True, False]


OOM = """
policies:
  - name: p
    units: ["web.service"]
    steps: [{when: "events.oom_kill > 0 in 10min", do: {stop: {timeout: 30s}}}]
"""


def test_a_kill_while_a_run_is_being_ended_ends_no_other_one_after_a_restart(site, systemd, cgroups):
    made = site.directories("oom")
    site.add(stops=False)
    cgroups.add_file(PATH, "memory.events", "oom_kill 0\n")
    first = site.start(SLOW_STOP, made)
    (made / "web.yaml").write_text(OOM)
    first.reload()
    ticks(first)
    cgroups.add_file(PATH, "memory.events", "oom_kill 1\n")
    ticks(first, 2)
    assert site.requested() == 1
    systemd.change(NAME, active_state="deactivating")
    path = made / "web.yaml"
    second = site.start(SLOW_STOP, made, policy=OOM)
    assert path.read_text() == OOM
    ticks(second)
    systemd.end(NAME, "oom-kill")
    cgroups.remake(PATH)
    cgroups.add_file(PATH, "memory.events", "oom_kill 0\n")
    systemd.restart(NAME, active_state="active", active_enter=int(time.monotonic() * 1e6))
    systemd.end(NAME, "success")
    second.connection.manager.ping()
    ticks(second, later=1.0)
    ticks(second, later=3.0)
    assert results(site, made) == ["verified"]
    assert site.requested() == 1


RESTART_ELSE_KILL = "{restart: {timeout: 30s, else: kill}}"


@pytest.fixture
def killed_without_a_bus(site, systemd, cgroups):
    """The directories of a watch that has ended after it has killed a unit, as the bus was away all the time."""

    def killed_without_a_bus(action):
        site.add()
        current = cgroups.add_file(PATH, "memory.current", "0\n")
        kill = cgroups.add_file(PATH, "cgroup.kill")
        cgroups.add_file(PATH, "cgroup.events", "populated 1\nfrozen 0\n")
        made = site.directories("killed")
        watch = site.start(action, made)
        # what is noted of a time to come is not believed
        ticks(watch, later=-32.0)
        current.write_text("4096\n")
        watch.connection.lose(BusLostError("it hangs"), time.monotonic())
        watch.connection.retry_at = float("inf")
        ticks(watch, 1, later=-31.0)
        ticks(watch, 1)
        assert kill.read_text() == "1"
        systemd.change(NAME, active_state="failed", control_group="")
        cgroups.remove(PATH)
        return made

    return killed_without_a_bus


def test_a_restart_that_was_killed_without_a_bus_is_asked_for_by_the_next_watch(
    site, systemd, killed_without_a_bus
):
    """The unit would stay down."""
    made = killed_without_a_bus(RESTART_ELSE_KILL)
    watch = site.start(RESTART_ELSE_KILL, made)
    ticks(watch, later=1.0)
    assert [method for method, _ in systemd.calls(*REQUESTS)] == ["Restart"]
    ticks(watch, later=2.0)
    (outcome,) = of_kind(site.events(made), EventKind.OUTCOME)
    assert outcome.result == "verified"
    assert "restarted, killed first" in outcome.message
    assert "; seen after a restart of unitmem" in outcome.message


def test_a_watch_that_only_observes_does_not_restart_what_was_killed_without_a_bus(
    site, systemd, killed_without_a_bus
):
    made = killed_without_a_bus(RESTART_ELSE_KILL)
    watch = site.start(RESTART_ELSE_KILL, made, observe=True)
    ticks(watch, later=1.0)
    ticks(watch, later=31.0)
    assert (site.requested(), results(site, made)) == (0, ["failed"])


def test_a_stop_that_was_killed_without_a_bus_is_told_as_that_by_the_next_watch(site, killed_without_a_bus):
    made = killed_without_a_bus(STOP_ELSE_KILL)
    ticks(site.start(STOP_ELSE_KILL, made), later=1.0)
    (outcome,) = of_kind(site.events(made), EventKind.OUTCOME)
    assert "killed, as the manager could not be asked to stop it within 30s" in outcome.message


@pytest.mark.parametrize("edit", ["observe", "gone"])
@pytest.mark.parametrize("action", [STOP_ELSE_KILL, RESTART_ELSE_KILL])
def test_what_could_not_be_asked_for_is_held_back_by_a_reload_with_which_nobody_wants_it(
    site, cgroups, action, edit
):
    site.add()
    current = cgroups.add_file(PATH, "memory.current", "0\n")
    kill = cgroups.add_file(PATH, "cgroup.kill")
    made = site.directories(edit)
    watch = site.start(action, made)
    ticks(watch, 2)
    current.write_text("4096\n")
    watch.connection.lose(BusLostError("it hangs"), time.monotonic())
    watch.connection.retry_at = float("inf")
    ticks(watch, 1)
    assert len(watch.pending) == 1
    edited = {
        "observe": (POLICY % action).replace("units:", "mode: observe\n    units:"),
        "gone": (POLICY % "log").replace("name: p", "name: q"),
    }
    watch.path.write_text(edited[edit])
    watch.reload()
    watch.connection.retry_at = 0.0
    ticks(watch, 2)
    ticks(watch, later=31.0)
    outcome = of_kind(site.events(made), EventKind.OUTCOME)[0]
    assert outcome.result == "failed"
    assert "the policy only observes now, or is gone" in outcome.message
    assert (site.requested(), kill.read_text()) == (0, "")
    assert watch.state.refused == {}
