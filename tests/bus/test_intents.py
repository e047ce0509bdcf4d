"""What an action became isn't lost with the watch: one that is killed at any instant, and the next one in its place."""

from __future__ import annotations

import importlib
import io
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest

from unitmem.daemon.watch import Watch
from unitmem.daemon.world import World
from unitmem.manager.systemd import Manager
from unitmem.policyfile import reader as config
from unitmem.record.history import FILE_NAME as HISTORY
from unitmem.record.history import EventKind, History
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

    def start(action, made):
        path = made / "web.yaml"
        path.write_text(POLICY % action)
        world = World(
            state_directory=made / "state",
            runtime_directory=made / "run",
            cgroup_root=cgroups.root,
            connect=lambda kind: Manager(kind, systemd.address),
            open_journal=lambda: Journal(stream=stream),
        )
        watch = Watch(path, config.load(path), Manager(address=systemd.address), world)
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
