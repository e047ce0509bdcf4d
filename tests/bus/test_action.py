"""`unitmem.act.perform` with the real bus client, and with real processes in the place of a unit's."""

from __future__ import annotations

import _thread
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from signal import Signals
from typing import Any
from unittest.mock import Mock

import pytest
from cgroup_tree import CgroupTree
from fake_systemd1 import FakeSystemd1, FakeUnit

from unitmem.act import ending
from unitmem.act import signal as signalling
from unitmem.act.overrides import prepare, undo
from unitmem.act.perform import DEEDS, follow_up, perform
from unitmem.act.task import Pending
from unitmem.errors import BusError
from unitmem.kernel.cgroup import Cgroup, own_cgroup
from unitmem.kernel.process import Process, read_process
from unitmem.manager.systemd import Manager
from unitmem.policy import actions
from unitmem.policy.action import Action
from unitmem.policy.actions import (
    END_WAIT,
    Freeze,
    Kill,
    LastResort,
    Log,
    Reclaim,
    Restart,
    Run,
    SetProperties,
    Signal,
    Stop,
    Target,
    Thaw,
)
from unitmem.policy.condition import Comparison, Finding
from unitmem.policy.decision import Decision, Obstacle, Outcome, Override, Refusal, Result
from unitmem.unit import Invocation

NAME = "a.service"
DENIED = "org.freedesktop.DBus.Error.AccessDenied"
NO_REPLY = "org.freedesktop.DBus.Error.NoReply"

# the children of this test are in its own cgroup, and that's what the kernel says of them
OWN_CGROUP = own_cgroup()
with_processes = pytest.mark.skipif(OWN_CGROUP is None, reason="needs a cgroup v2 hierarchy to be in")

ACTIONS: dict[str, Action] = {
    "stop": Stop(30),
    "restart": Restart(30),
    "kill": Kill(),
    "reclaim": Reclaim(2**20),
    "set": SetProperties((("MemoryHigh", 2**20),)),
    "freeze": Freeze(),
    "thaw": Thaw(),
    "run": Run(("/bin/true",)),
    "signal main": Signal(Signals.SIGUSR1, Target.MAIN),
    "signal control": Signal(Signals.SIGUSR1, Target.CONTROL),
    "signal all": Signal(Signals.SIGUSR1, Target.ALL),
    "signal largest": Signal(Signals.SIGUSR1, Target.LARGEST),
}
BY_THE_MANAGER = {
    name: action for name, action in ACTIONS.items() if name not in ("signal largest", "reclaim")
}
TO_A_RUN = {name: action for name, action in BY_THE_MANAGER.items() if name != "run"}
FORMER = Override("p", NAME, {"MemoryHigh": None})


def test_every_action_that_does_something_can_be_performed_and_is_tried_here():
    acting = {action for action in actions.ACTIONS.values() if action.acts}
    assert DEEDS.keys() == acting
    assert {type(action) for action in ACTIONS.values()} == acting


class Running:
    """A unit that runs, as the fake manager and a tree of cgroups see it."""

    def __init__(self, systemd: FakeSystemd1, cgroups: CgroupTree, path: str, *pids: int, **values: object):
        self.path = path
        directory = cgroups.make(path, *pids)
        self.unit: FakeUnit = systemd.add(NAME, control_group=path, directory=directory, **values)
        self.cgroup = Cgroup(path, cgroups.root)

    def decision(self, action: Action, **values: object) -> Decision:
        invocation = Invocation(NAME, self.unit.invocation_id or None, self.cgroup.inode)
        decision = Decision(
            at=0, policy="p", step=0, action=action, invocation=invocation, held=0, hold=0, findings=()
        )
        return replace(decision, **values)


@pytest.fixture
def start(systemd: FakeSystemd1, cgroups: CgroupTree) -> Iterator[Callable[..., Running]]:
    """Have the unit run: `start(pid…, path=…, property=…)`."""
    started: list[Running] = []

    def start(*pids: int, path: str = "/system.slice/a.service", **values: object) -> Running:
        started.append(Running(systemd, cgroups, path, *pids, **values))
        return started[-1]

    yield start
    for running in started:
        running.cgroup.close()


class Child:
    """A process that tells which signals it hears, and holds as much memory as it's told to."""

    PROGRAM = """if True:
        import signal, sys
        told = {signal.SIGUSR1, signal.SIGUSR2}
        signal.pthread_sigmask(signal.SIG_BLOCK, told)
        if sys.argv[2] == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        held = bytearray(b"x") * int(sys.argv[1])
        print("ready", flush=True)
        while True:
            print(signal.sigwait(told).name, flush=True)
    """

    def __init__(self, mebibytes: int = 0, nature: str = "mild") -> None:
        arguments = [str(mebibytes * 2**20), nature]
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", self.PROGRAM, *arguments], stdout=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid
        assert self._line() == "ready"

    def heard(self) -> list[str]:
        """The signals so far. One more is sent as the end mark: it has the highest number, so it comes last."""
        os.kill(self.pid, signal.SIGUSR2)
        lines = []
        while (line := self._line()) != "SIGUSR2":
            lines.append(line)
        return lines

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture
def child() -> Iterator[Callable[..., Child]]:
    children: list[Child] = []

    def child(mebibytes: int = 0, nature: str = "mild") -> Child:
        children.append(Child(mebibytes, nature))
        return children[-1]

    yield child
    for each in children:
        each.end()


def acts(systemd: FakeSystemd1) -> list[str]:
    """What the manager was asked to do."""
    asked = ("Stop", "Restart", "Kill", "Freeze", "Thaw")
    by_name = [f"{method}Unit" for method in asked]
    others = ("SetProperties", "SetUnitProperties", "StartTransientUnit")
    return [method for method, _ in systemd.calls(*asked, *by_name, *others)]


def done(result: Outcome | Pending) -> Outcome:
    assert isinstance(result, Outcome)
    return result


def under_way(result: Outcome | Pending) -> Pending:
    assert isinstance(result, Pending)
    return result


# --- what is not performed ---

PROTECTED = Refusal(Obstacle.PROTECTED, "the machine can't be run without it")


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
@pytest.mark.parametrize(
    "values, result",
    [
        ({"refusal": PROTECTED}, Result.REFUSED),
        ({"observe": True}, Result.OBSERVED),
        ({"refusal": PROTECTED, "observe": True}, Result.REFUSED),
    ],
)
def test_refused_and_observed(
    systemd: FakeSystemd1,
    manager: Manager,
    start: Callable[..., Running],
    action: Action,
    values: dict[str, object],
    result: Result,
):
    """Neither touches anything, whatever the action; a refusal says why."""
    running = start(os.getpid(), main_pid=os.getpid())
    outcome = perform(running.decision(action, **values), running.cgroup, manager, 5, FORMER)
    assert outcome.result is result
    assert outcome.at == 5
    assert (outcome.detail == PROTECTED.reason) == (result is Result.REFUSED)
    assert systemd.calls() == []


def test_log(start: Callable[..., Running]):
    """Logging needs no manager and always works."""
    running = start()
    assert perform(running.decision(Log()), running.cgroup, None, 5).result is Result.VERIFIED


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
def test_a_unit_that_is_gone(
    systemd: FakeSystemd1,
    manager: Manager,
    cgroups: CgroupTree,
    start: Callable[..., Running],
    action: Action,
):
    """Its cgroup is removed: nothing is left to act on, and nobody is asked."""
    running = start(os.getpid(), main_pid=os.getpid())
    cgroups.remove(running.path)
    assert perform(running.decision(action), running.cgroup, manager, 5, FORMER).result is Result.GONE
    assert systemd.calls() == []


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
def test_a_unit_that_was_restarted(
    systemd: FakeSystemd1,
    manager: Manager,
    cgroups: CgroupTree,
    start: Callable[..., Running],
    action: Action,
):
    """Another cgroup is at its path: the new run is left alone, though it has the same name."""
    running = start(os.getpid(), main_pid=os.getpid())
    cgroups.remake(running.path, os.getpid())
    systemd.restart(NAME)
    assert perform(running.decision(action), running.cgroup, manager, 5, FORMER).result is Result.GONE
    assert acts(systemd) == []
    assert manager.describe(NAME).active_state == "active"


@pytest.mark.parametrize("action", TO_A_RUN.values(), ids=TO_A_RUN)
def test_a_unit_that_was_restarted_in_the_same_cgroup(
    systemd: FakeSystemd1,
    manager: Manager,
    cgroups: CgroupTree,
    start: Callable[..., Running],
    action: Action,
):
    """The cgroup doesn't tell, so the manager does: it knows which run is meant."""
    running = start(os.getpid(), main_pid=os.getpid(), control_pid=os.getpid())
    killing = cgroups.add_file(running.path, "cgroup.kill")
    systemd.restart(NAME)
    before = systemd.unit(NAME)
    assert perform(running.decision(action), running.cgroup, manager, 5, FORMER).result is Result.GONE
    assert (systemd.unit(NAME), killing.read_text()) == (before, "")


@pytest.mark.parametrize("action", TO_A_RUN.values(), ids=TO_A_RUN)
def test_a_unit_that_is_unloaded(
    systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running], action: Action
):
    """The manager doesn't know the unit any more."""
    running = start(os.getpid(), main_pid=os.getpid())
    systemd.remove(NAME)
    assert perform(running.decision(action), running.cgroup, manager, 5, FORMER).result is Result.GONE


@pytest.mark.parametrize("action", BY_THE_MANAGER.values(), ids=BY_THE_MANAGER)
@pytest.mark.parametrize("trouble", [DENIED, NO_REPLY, "no manager"])
def test_a_manager_that_does_not_do_it(
    systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running], action: Action, trouble: str
):
    """Refused, lost or away: it failed, the reason is told, and it may be tried again; but what may have been done twice.

    While it is away nothing is asked of it, which costs no budget.
    """
    running = start(main_pid=1, control_pid=1)
    for method in (
        *("Stop", "Restart", "Kill", "Freeze", "Thaw"),
        *("SetProperties", "StartTransientUnit", "Id", "Ping"),
    ):
        systemd.refuse(method, trouble, "not today")
    reachable = None if trouble == "no manager" else manager
    outcome = perform(running.decision(action), running.cgroup, reachable, 5, FORMER)
    assert outcome.result is Result.FAILED
    may_have_been_done = trouble == NO_REPLY and (
        isinstance(action, Run) or (isinstance(action, Signal) and action.to is Target.ALL)
    )
    assert outcome.again is not may_have_been_done
    assert outcome.untried is (reachable is None)
    assert ("out of reach" if reachable is None else "not today") in outcome.detail


# --- stopping ---


@pytest.mark.parametrize("invocation", ["known", "unknown"])
def test_a_stop(systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running], invocation: str):
    """A stop is under way until its effect is seen, and verified then."""
    running = start(**({} if invocation == "known" else {"invocation_id": ""}))
    pending = perform(running.decision(Stop(30)), running.cgroup, manager, 5)
    assert isinstance(pending, Pending)
    assert pending.deadline == 35
    assert acts(systemd) == (["Stop"] if invocation == "known" else ["StopUnit"])
    outcome = follow_up(pending, manager, 7)
    assert isinstance(outcome, Outcome)
    assert (outcome.result, outcome.detail) == (Result.VERIFIED, "stopped; gone 7s after the decision")


def stuck(running: Running, stop: Stop, manager: Manager) -> Pending:
    pending = perform(running.decision(stop), running.cgroup, manager, 0)
    assert isinstance(pending, Pending)
    return pending


def test_a_stop_that_takes_its_time(
    systemd: FakeSystemd1, manager: Manager, cgroups: CgroupTree, start: Callable[..., Running]
):
    """Until the deadline it's under way, and nothing more is asked of the manager; then the cgroup goes."""
    running = start(stops=False)
    pending = stuck(running, Stop(30, LastResort.KILL), manager)
    systemd.change(NAME, active_state="deactivating")
    for now in (1, 15, 29.9):
        assert follow_up(pending, manager, now) == pending
    cgroups.remove(running.path)
    outcome = follow_up(pending, manager, 29.9)
    assert isinstance(outcome, Outcome)
    assert outcome.result is Result.VERIFIED
    assert acts(systemd) == ["Stop"]


@pytest.mark.parametrize(
    "ended",
    [
        {"active_state": "inactive"},
        {"active_state": "failed"},
        {"invocation_id": "f" * 32},
    ],
)
def test_a_stop_that_only_the_manager_sees(
    systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running], ended: dict[str, str]
):
    """The cgroup may outlive the run, as with processes left over: what the manager says counts as well."""
    running = start(stops=False)
    pending = stuck(running, Stop(30), manager)
    systemd.change(NAME, **ended)
    outcome = follow_up(pending, manager, 1)
    assert isinstance(outcome, Outcome)
    assert outcome.result is Result.VERIFIED


def test_a_unit_that_is_unloaded_as_it_stops(
    systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running]
):
    """A transient unit is forgotten by its manager as it ends."""
    running = start(stops=False)
    pending = stuck(running, Stop(30), manager)
    systemd.remove(NAME)
    outcome = follow_up(pending, manager, 1)
    assert isinstance(outcome, Outcome)
    assert outcome.result is Result.VERIFIED


def test_a_stop_that_fails(systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running]):
    """With no last resort, the deadline is the end of it; it is worth another try."""
    running = start(stops=False)
    outcome = follow_up(stuck(running, Stop(30), manager), manager, 30)
    assert isinstance(outcome, Outcome)
    assert (outcome.result, outcome.again) == (Result.FAILED, True)
    assert "still there 30s after" in outcome.detail
    assert acts(systemd) == ["Stop"]


def test_the_last_resort(systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running]):
    """Past the deadline every process of that run is killed, which is verified in its turn."""
    running = start(stops=False)
    pending = stuck(running, Stop(30, LastResort.KILL), manager)
    killed = follow_up(pending, manager, 30)
    assert isinstance(killed, Pending)
    assert killed.killed
    assert killed.deadline == 30 + END_WAIT
    assert systemd.calls("Kill", "KillUnit") == [("Kill", ["all", signal.SIGKILL])]
    outcome = follow_up(killed, manager, 31)
    assert isinstance(outcome, Outcome)
    assert outcome.result is Result.VERIFIED
    assert outcome.detail == "killed, as it had not stopped within 30s; gone 31s after the decision"


def test_the_last_resort_fails(systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running]):
    """What not even SIGKILL ends (uninterruptible sleep) is a failure, and is killed once only."""
    running = start(stops=False, dies=False)
    pending = stuck(running, Stop(30, LastResort.KILL), manager)
    killed = follow_up(pending, manager, 30)
    assert isinstance(killed, Pending)
    assert follow_up(killed, manager, 30 + END_WAIT - 0.1) == killed
    outcome = follow_up(killed, manager, 30 + END_WAIT)
    assert isinstance(outcome, Outcome)
    assert (outcome.result, outcome.again) == (Result.FAILED, True)
    assert "SIGKILL" in outcome.detail
    assert acts(systemd) == ["Stop", "Kill"]


def test_the_last_resort_meets_a_new_run(
    systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running]
):
    """The unit is started anew in the very moment before it's killed: the new run lives."""
    running = start(stops=False)
    pending = stuck(running, Stop(30, LastResort.KILL), manager)
    systemd.interlude("Kill", {"do": "restart", "name": NAME})
    assert follow_up(pending, manager, 30) == pending
    outcome = follow_up(pending, manager, 31)
    assert isinstance(outcome, Outcome)
    assert (outcome.result, outcome.detail) == (Result.VERIFIED, "stopped; gone 31s after the decision")
    assert manager.describe(NAME).active_state == "active"


def test_the_last_resort_by_the_kernel(
    systemd: FakeSystemd1, manager: Manager, cgroups: CgroupTree, start: Callable[..., Running]
):
    """Where the kernel kills a whole cgroup at once, it does, and the manager is not asked to."""
    running = start(stops=False)
    pending = stuck(running, Stop(30, LastResort.KILL), manager)
    file = cgroups.add_file(running.path, "cgroup.kill")
    killed = follow_up(pending, manager, 30)
    assert isinstance(killed, Pending)
    assert (killed.killed, file.read_text()) == (True, "1")
    assert acts(systemd) == ["Stop"]


@pytest.mark.parametrize("trouble", [DENIED, NO_REPLY, "no manager"])
def test_a_last_resort_that_cannot_be_taken(
    systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running], trouble: str
):
    """The stop failed and the kill was refused, or the manager is lost: both are told."""
    running = start(stops=False)
    pending = stuck(running, Stop(30, LastResort.KILL), manager)
    systemd.refuse("Kill", trouble, "not today")
    outcome = follow_up(pending, None if trouble == "no manager" else manager, 30)
    assert isinstance(outcome, Outcome)
    assert (outcome.result, outcome.again) == (Result.FAILED, True)
    assert "did not stop" in outcome.detail


def test_a_stop_without_its_manager(manager: Manager, cgroups: CgroupTree, start: Callable[..., Running]):
    """The manager goes away during a stop: it's still under way, and the cgroup still tells of its end."""
    running = start(stops=False)
    pending = stuck(running, Stop(30), manager)
    assert follow_up(pending, None, 1) == pending
    manager.close()
    assert follow_up(pending, manager, 1) == pending
    cgroups.remove(running.path)
    outcome = follow_up(pending, None, 2)
    assert isinstance(outcome, Outcome)
    assert outcome.result is Result.VERIFIED


# --- what needs no manager ---


@with_processes
@pytest.mark.parametrize("manager_is", ["away", "hanging"])
def test_processes_are_killed_one_by_one_where_neither_kernel_nor_manager_does_it(
    systemd: FakeSystemd1,
    manager: Manager,
    start: Callable[..., Running],
    child: Callable[..., Child],
    manager_is: str,
):
    """What ends them is told from what a SIGTERM would: they ignore that."""
    children = [child(nature="stubborn") for _ in range(3)]
    running = start(*(each.pid for each in children), path=OWN_CGROUP or "")
    systemd.refuse("GetUnit", NO_REPLY)
    reachable = None if manager_is == "away" else manager
    under_way(perform(running.decision(Kill()), running.cgroup, reachable, 0))
    assert [each.process.wait(60) for each in children] == [-signal.SIGKILL] * 3
    assert len(systemd.calls()) <= 1, "one timeout, and no further call"


@with_processes
def test_a_process_that_may_not_be_killed_spares_no_other(
    start: Callable[..., Running], child: Callable[..., Child], monkeypatch: pytest.MonkeyPatch
):
    spared, *others = [child(nature="stubborn") for _ in range(3)]
    running = start(spared.pid, *(each.pid for each in others), path=OWN_CGROUP or "")
    send = ending.send_signal

    def send_signal(process: Process, number: Signals, **options: Any) -> None:
        if process.pid == spared.pid:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        send(process, number, **options)

    monkeypatch.setattr(ending, "send_signal", send_signal)
    outcome = done(perform(running.decision(Kill()), running.cgroup, None, 0))
    assert (outcome.result, outcome.again) == (Result.FAILED, True)
    assert "Operation not permitted" in outcome.detail
    assert [each.process.wait(60) for each in others] == [-signal.SIGKILL] * 2


@pytest.mark.parametrize("is_meant", [True, False])
def test_a_kill_asks_the_cgroup_whose_it_is_and_not_a_manager_that_may_hang(
    systemd: FakeSystemd1,
    manager: Manager,
    cgroups: CgroupTree,
    start: Callable[..., Running],
    is_meant: bool,
):
    """What outlives its run keeps its cgroup, and the next run is put into the same one."""
    running = start()
    file = cgroups.add_file(running.path, "cgroup.kill")
    noted = running.unit.invocation_id if is_meant else "cd" * 16
    os.setxattr(file.parent, "user.invocation_id", noted.encode())
    result = perform(running.decision(Kill()), running.cgroup, manager, 0)
    assert systemd.calls() == []
    assert isinstance(result, Pending) is is_meant
    assert file.read_text() == ("1" if is_meant else "")
    if not is_meant:
        assert done(result).result is Result.GONE


ELSE_KILL = {"stop": Stop(30, LastResort.KILL), "restart": Restart(30, LastResort.KILL)}


@pytest.mark.parametrize("action", ELSE_KILL.values(), ids=ELSE_KILL)
@pytest.mark.parametrize("trouble", ["lost", "no manager"])
def test_a_last_resort_is_taken_where_the_manager_could_never_be_asked(
    systemd: FakeSystemd1,
    manager: Manager,
    cgroups: CgroupTree,
    start: Callable[..., Running],
    action: Stop | Restart,
    trouble: str,
):
    """After the time that a stop would have had: SIGTERM is not sent in its place, as Restart= would undo that."""
    running = start()
    file = cgroups.add_file(running.path, "cgroup.kill")
    events = cgroups.add_file(running.path, "cgroup.events", "populated 1\nfrozen 0\n")
    for method in ("GetUnit", "Stop", "Restart"):
        systemd.refuse(method, NO_REPLY, "not today")
    pending = under_way(
        perform(running.decision(action), running.cgroup, manager if trouble == "lost" else None, 0)
    )
    pending = under_way(follow_up(pending, None, 29.9))
    assert file.read_text() == ""
    killed = under_way(follow_up(pending, None, 30))
    assert file.read_text() == "1"
    events.write_text("populated 0\nfrozen 0\n")
    if isinstance(action, Stop):
        outcome = done(follow_up(killed, None, 31))
        assert outcome.result is Result.VERIFIED
        failed, why = {
            "lost": ("did not answer the stop", "not today"),
            "no manager": ("could not be asked to stop it", "the service manager is out of reach"),
        }[trouble]
        assert outcome.detail.startswith(f"killed, as the manager {failed} within 30s (")
        assert why in outcome.detail
        assert outcome.detail.endswith("gone 31s after the decision; its Restart= may start it again")
    else:  # it has to come up as well
        failed = done(follow_up(killed, None, 60))
        assert failed.result is Result.FAILED
        assert failed.detail.startswith("the manager could not be asked to restart it within 1min (")
        assert failed.detail.endswith("it was killed, and its Restart= may start it again")
        for method in ("GetUnit", "Restart"):
            systemd.allow(method)
        manager.ping()
        asked = under_way(follow_up(killed, manager, 32))
        assert acts(systemd)[-1] == "Restart"
        outcome = done(follow_up(asked, manager, 33))
        assert outcome.detail == "restarted, killed first; the new run was up 33s after the decision"


@pytest.mark.parametrize("action", ELSE_KILL.values(), ids=ELSE_KILL)
def test_a_manager_that_is_back_in_time_is_asked_and_has_its_whole_time(
    systemd: FakeSystemd1,
    manager: Manager,
    cgroups: CgroupTree,
    start: Callable[..., Running],
    action: Stop | Restart,
):
    running = start(stops=False, restarts="hangs")
    file = cgroups.add_file(running.path, "cgroup.kill")
    pending = under_way(perform(running.decision(action), running.cgroup, None, 0))
    asked = under_way(follow_up(pending, manager, 20))
    assert asked.deadline == 50
    assert under_way(follow_up(asked, manager, 49)) == asked
    assert acts(systemd) == ["Stop" if isinstance(action, Stop) else "Restart"]
    assert file.read_text() == ""


def test_a_unit_that_somebody_stops_before_the_manager_can_be_asked_is_not_restarted(
    systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running]
):
    running = start(restarts="hangs")
    pending = under_way(perform(running.decision(ELSE_KILL["restart"]), running.cgroup, None, 0))
    systemd.change(NAME, active_state="deactivating")
    assert done(follow_up(pending, manager, 1)).result is Result.GONE
    assert acts(systemd) == []


@pytest.mark.parametrize("is_away_first", [False, True])
def test_a_stop_that_the_manager_did_not_answer_and_did_is_verified(
    systemd: FakeSystemd1,
    manager: Manager,
    cgroups: CgroupTree,
    start: Callable[..., Running],
    is_away_first: bool,
):
    """It is done as soon as the manager goes on, so the unit has not ended by itself."""
    running = start()
    systemd.refuse("Stop", NO_REPLY)
    first = None if is_away_first else manager
    pending = under_way(perform(running.decision(ELSE_KILL["stop"]), running.cgroup, first, 0))
    if is_away_first:
        pending = under_way(follow_up(pending, manager, 1))
    cgroups.remove(running.path)
    outcome = done(follow_up(pending, None, 2))
    assert outcome.result is Result.VERIFIED
    assert outcome.detail == "gone 2s after the decision; the manager had not answered the stop"


def test_a_stop_that_was_not_sent_since_the_manager_hung_before_it_has_stopped_nothing(
    systemd: FakeSystemd1, manager: Manager, cgroups: CgroupTree, start: Callable[..., Running]
):
    running = start()
    systemd.refuse("GetUnit", NO_REPLY)
    with suppress(BusError):
        manager.describe(NAME)
    pending = under_way(perform(running.decision(ELSE_KILL["stop"]), running.cgroup, manager, 0))
    assert acts(systemd) == []
    cgroups.remove(running.path)
    assert done(follow_up(pending, None, 1)).result is Result.GONE


def test_a_restart_that_the_manager_did_not_answer_and_that_hangs_takes_its_last_resort(
    systemd: FakeSystemd1, manager: Manager, cgroups: CgroupTree, start: Callable[..., Running]
):
    """The unit is stopping because of it, and by nobody else."""
    running = start(restarts="hangs")
    file = cgroups.add_file(running.path, "cgroup.kill")
    systemd.refuse("Restart", NO_REPLY)
    pending = under_way(perform(running.decision(ELSE_KILL["restart"]), running.cgroup, manager, 0))
    systemd.allow("Restart")
    systemd.change(NAME, active_state="deactivating")
    manager.ping()
    assert under_way(follow_up(pending, manager, 29.9)) == pending
    killed = under_way(follow_up(pending, manager, 30))
    assert (killed.killed, file.read_text()) == (True, "1")
    assert acts(systemd) == ["Restart"]
    systemd.restart(NAME, active_state="active")
    outcome = done(follow_up(killed, manager, 31))
    assert outcome.detail == "restarted, killed first; the new run was up 31s after the decision"


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_restart_that_the_manager_refuses_once_it_can_be_asked_has_failed_and_kills_nothing_more(
    systemd: FakeSystemd1,
    manager: Manager,
    cgroups: CgroupTree,
    start: Callable[..., Running],
    is_killed: bool,
):
    """A unit that may not be started would stay down."""
    running = start(refuses_manual_start=True)
    file = cgroups.add_file(running.path, "cgroup.kill")
    pending = under_way(perform(running.decision(ELSE_KILL["restart"]), running.cgroup, None, 0))
    if is_killed:
        pending = under_way(follow_up(pending, None, 30))
    outcome = done(follow_up(pending, manager, 31 if is_killed else 1))
    assert (outcome.result, outcome.again, outcome.untried) == (Result.FAILED, False, not is_killed)
    assert REFUSAL in outcome.detail
    assert outcome.detail.startswith("killed; ") is is_killed
    assert file.read_text() == ("1" if is_killed else "")


def test_a_kill_of_a_run_that_nobody_knows_by_its_id_asks_the_manager(
    systemd: FakeSystemd1, manager: Manager, cgroups: CgroupTree, start: Callable[..., Running]
):
    running = start(invocation_id="")
    file = cgroups.add_file(running.path, "cgroup.kill")
    os.setxattr(file.parent, "user.invocation_id", b"ab" * 16)
    under_way(perform(running.decision(Kill()), running.cgroup, manager, 0))
    assert file.read_text() == "1"


def test_a_unit_that_ends_before_the_manager_can_be_asked_was_not_stopped(
    cgroups: CgroupTree, start: Callable[..., Running]
):
    running = start()
    pending = under_way(perform(running.decision(Stop(30, LastResort.KILL)), running.cgroup, None, 0))
    cgroups.remove(running.path)
    assert done(follow_up(pending, None, 1)).result is Result.GONE


# --- what the manager refuses for good ---

REFUSAL = f"unit {NAME} may be requested by dependency only (it is configured to refuse manual start/stop)."


@pytest.mark.parametrize("action", [Stop(30), Restart(30)], ids=str)
def test_what_is_refused_for_good_is_told_in_the_managers_words_and_costs_nothing(
    systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running], action: Action
):
    running = start(refuses_manual_stop=True)
    outcome = done(perform(running.decision(action), running.cgroup, manager, 5))
    assert (outcome.result, outcome.again, outcome.untried) == (Result.FAILED, False, True)
    assert REFUSAL in outcome.detail
    assert manager.describe(NAME).active_state == "active"


def test_a_stop_that_is_refused_for_good_takes_its_last_resort_at_once(
    systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running]
):
    running = start(refuses_manual_stop=True)
    pending = under_way(perform(running.decision(Stop(30, LastResort.KILL)), running.cgroup, manager, 5))
    assert (pending.killed, pending.deadline) == (True, 5 + END_WAIT)
    assert systemd.calls("Kill", "KillUnit") == [("Kill", ["all", signal.SIGKILL])]
    outcome = done(follow_up(pending, manager, 6))
    assert outcome.result is Result.VERIFIED
    assert outcome.detail.startswith("killed, as the manager refuses to stop it (Operation refused, ")
    assert outcome.detail.endswith("; gone 6s after the decision")


@pytest.mark.parametrize("comes_up", [True, False])
def test_a_restart_that_is_refused_for_good_takes_its_last_resort_at_once(
    systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running], comes_up: bool
):
    """Whether a run follows is for the unit's Restart= to say; without one, nothing is waited for."""
    running = start(refuses_manual_stop=True)
    pending = under_way(perform(running.decision(Restart(30, LastResort.KILL)), running.cgroup, manager, 5))
    assert (pending.killed, pending.deadline) == (True, 35)
    if comes_up:
        systemd.restart(NAME, active_state="active")
    outcome = done(follow_up(pending, manager, 6))
    assert outcome.result is (Result.VERIFIED if comes_up else Result.FAILED)
    assert f"as the manager refuses to restart it (Operation refused, {REFUSAL})" in outcome.detail


@pytest.mark.parametrize("otherwise", [None, LastResort.KILL])
@pytest.mark.parametrize(
    "values, words",
    [
        ({"load_state": "not-found"}, f"Unit {NAME} not found."),
        ({"load_state": "bad-setting"}, f"Unit {NAME} has a bad unit file setting."),
        ({"load_state": "masked"}, f"Unit {NAME} is masked."),
        ({"refuses_manual_start": True}, REFUSAL),
        ({"refuses_manual_start": True, "refuses_manual_stop": True}, REFUSAL),
        ({"load_state": "bad-setting", "refuses_manual_stop": True}, REFUSAL),
    ],
    ids=str,
)
def test_a_unit_that_may_not_be_started_is_not_killed_by_a_restart(
    systemd: FakeSystemd1,
    manager: Manager,
    start: Callable[..., Running],
    values: dict[str, object],
    words: str,
    otherwise: LastResort | None,
):
    """It would stay down, where the policy asks for a unit that runs."""
    running = start(**values)
    outcome = done(perform(running.decision(Restart(30, otherwise)), running.cgroup, manager, 5))
    assert (outcome.result, outcome.again, outcome.untried) == (Result.FAILED, False, True)
    assert words in outcome.detail
    assert systemd.calls("Kill", "KillUnit") == []
    assert manager.describe(NAME).active_state == "active"


def test_a_unit_that_is_restarted_just_before_its_file_is_missed_is_gone(
    systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running]
):
    """Another run is no reason to take the one that is meant for alive."""
    running = start()
    systemd.refuse("Restart", "org.freedesktop.systemd1.NoSuchUnit")
    systemd.interlude("Restart", {"do": "restart", "name": NAME})
    outcome = done(perform(running.decision(Restart(30)), running.cgroup, manager, 5))
    assert outcome.result is Result.GONE


def test_a_restart_that_hits_the_start_limit_is_told_at_once_with_the_way_out(
    systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running]
):
    running = start(restarts="start-limit-hit", start_limit=(2, 600_000_000))
    pending = under_way(perform(running.decision(Restart(90)), running.cgroup, manager, 0))
    outcome = done(follow_up(pending, manager, 1))
    assert (outcome.result, outcome.again) == (Result.FAILED, False)
    for words in (
        "start-limit-hit (StartLimitBurst=2 in StartLimitIntervalSec=600s)",
        f"`systemctl reset-failed {NAME}`",
        f"`systemctl start {NAME}`",
    ):
        assert words in outcome.detail


# --- signals to one process ---


@with_processes
@pytest.mark.parametrize("to", [Target.MAIN, Target.CONTROL, Target.LARGEST])
def test_a_signal_to_one_process(
    manager: Manager, start: Callable[..., Running], child: Callable[..., Child], to: Target
):
    """It reaches that process and no other, and the outcome names which."""
    one, other = child(32 if to is Target.LARGEST else 0), child()
    properties = {Target.MAIN: "main_pid", Target.CONTROL: "control_pid"}
    values = {properties[to]: one.pid} if to in properties else {}
    running = start(other.pid, one.pid, path=OWN_CGROUP, **values)
    outcome = perform(running.decision(Signal(Signals.SIGUSR1, to)), running.cgroup, manager, 1)
    assert isinstance(outcome, Outcome)
    assert outcome.result is Result.VERIFIED
    assert outcome.process is not None
    assert outcome.process.pid == one.pid
    assert f"SIGUSR1 delivered to pid {one.pid}" in outcome.detail
    assert (one.heard(), other.heard()) == (["SIGUSR1"], [])


@with_processes
def test_the_largest_needs_no_manager(start: Callable[..., Running], child: Callable[..., Child]):
    """A process is signalled without the manager, so that it works while the bus is away."""
    one = child()
    running = start(one.pid, path=OWN_CGROUP)
    decision = running.decision(Signal(Signals.SIGUSR1, Target.LARGEST))
    outcome = perform(decision, running.cgroup, None, 1)
    assert isinstance(outcome, Outcome)
    assert outcome.result is Result.VERIFIED
    assert one.heard() == ["SIGUSR1"]


@with_processes
def test_the_largest_is_the_one_with_the_most_huge_pages(
    start: Callable[..., Running], child: Callable[..., Child], monkeypatch: pytest.MonkeyPatch
):
    """The kernel counts those of hugetlbfs in neither PSS nor RSS."""
    large, huge = child(), child()
    sizes = {large.pid: {"pss": 3 << 20, "hugetlb": 0}, huge.pid: {"pss": 1 << 20, "hugetlb": 64 << 20}}
    monkeypatch.setattr(signalling, "with_pss", lambda process: replace(process, **sizes[process.pid]))
    running = start(large.pid, huge.pid, path=OWN_CGROUP)
    outcome = perform(running.decision(Signal(Signals.SIGUSR1, Target.LARGEST)), running.cgroup, None, 1)
    assert isinstance(outcome, Outcome)
    assert outcome.process is not None
    assert outcome.process.pid == huge.pid
    assert (large.heard(), huge.heard()) == ([], ["SIGUSR1"])


@pytest.mark.parametrize("how", ["hidden", "unreadable"])
def test_no_process_is_taken_for_the_largest_of_a_list_that_lacks_some(
    start: Callable[..., Running], child: Callable[..., Child], monkeypatch: pytest.MonkeyPatch, how: str
):
    one = child()
    running = start(one.pid, path=OWN_CGROUP or "/system.slice/a.service")
    hidden = Process(one.pid + 1, start_time=0, name="", unknown="hidden from this user")
    if how == "hidden":
        monkeypatch.setattr(signalling, "read_processes", lambda cgroup: [read_process(one.pid), hidden])
    else:
        procs = running.cgroup.root / running.path.lstrip("/") / "cgroup.procs"
        procs.unlink()
        procs.mkdir()
    decision = running.decision(Signal(Signals.SIGUSR1, Target.LARGEST))
    outcome = perform(decision, running.cgroup, None, 1)
    assert isinstance(outcome, Outcome)
    assert outcome.result is Result.FAILED
    if how == "hidden":
        assert outcome.detail == (
            f"which process is the largest is unknown ({hidden.label}: hidden from this user): "
            "nothing was signalled"
        )
    assert one.heard() == []


@with_processes
def test_the_victim_that_was_measured(start: Callable[..., Running], child: Callable[..., Child]):
    """Who breached is signalled, though another one is the largest by now."""
    small, large = child(), child(32)
    running = start(small.pid, large.pid, path=OWN_CGROUP)
    decision = running.decision(Signal(Signals.SIGUSR1, Target.LARGEST), victim=read_process(small.pid))
    outcome = perform(decision, running.cgroup, None, 1)
    assert isinstance(outcome, Outcome)
    assert outcome.result is Result.VERIFIED
    assert (small.heard(), large.heard()) == (["SIGUSR1"], [])


@with_processes
def test_a_victim_whose_pid_is_another_process(start: Callable[..., Running], child: Callable[..., Child]):
    """The pid has a new owner: that one is left alone."""
    one = child()
    running = start(one.pid, path=OWN_CGROUP)
    process = read_process(one.pid)
    victim = replace(process, start_time=process.start_time - 1)
    decision = running.decision(Signal(Signals.SIGUSR1, Target.LARGEST), victim=victim)
    outcome = perform(decision, running.cgroup, None, 1)
    assert isinstance(outcome, Outcome)
    assert outcome.result is Result.GONE
    assert one.heard() == []


@with_processes
@pytest.mark.parametrize("to", [Target.MAIN, Target.LARGEST])
def test_a_process_that_left_the_unit(
    manager: Manager, start: Callable[..., Running], child: Callable[..., Child], to: Target
):
    """A process that isn't in the unit's cgroup, or not any more, is not signalled whoever names it."""
    one = child()
    running = start(one.pid, path="/elsewhere.slice/a.service", main_pid=one.pid)
    decision = running.decision(Signal(Signals.SIGUSR1, to), victim=read_process(one.pid))
    outcome = perform(decision, running.cgroup, manager, 1)
    assert isinstance(outcome, Outcome)
    assert outcome.result is (Result.FAILED if to is Target.MAIN else Result.GONE)
    assert one.heard() == []


@with_processes
def test_a_process_that_just_ended(
    manager: Manager, start: Callable[..., Running], child: Callable[..., Child]
):
    """A zombie has given its memory back: there is nobody to signal."""
    one = child()
    running = start(one.pid, path=OWN_CGROUP, main_pid=one.pid)
    os.kill(one.pid, signal.SIGKILL)
    os.waitid(os.P_PID, one.pid, os.WEXITED | os.WNOWAIT)
    outcome = perform(running.decision(Signal(Signals.SIGUSR1)), running.cgroup, manager, 1)
    assert isinstance(outcome, Outcome)
    assert outcome.result is Result.GONE


@pytest.mark.parametrize(
    "to, said",
    [
        (Target.MAIN, "no main process"),
        (Target.CONTROL, "no control process"),
        (Target.LARGEST, "no process"),
    ],
)
def test_no_such_process(manager: Manager, start: Callable[..., Running], to: Target, said: str):
    """A unit without the process that is meant: failed, with the reason."""
    running = start()
    outcome = perform(running.decision(Signal(Signals.SIGUSR1, to)), running.cgroup, manager, 1)
    assert isinstance(outcome, Outcome)
    assert outcome.result is Result.FAILED
    assert said in outcome.detail


@with_processes
def test_a_signal_that_ends_a_process(
    manager: Manager, start: Callable[..., Running], child: Callable[..., Child]
):
    """SIGTERM is verified when the process is seen to have ended, not when it was sent."""
    one = child()
    running = start(one.pid, path=OWN_CGROUP, main_pid=one.pid)
    pending = perform(running.decision(Signal(Signals.SIGTERM)), running.cgroup, manager, 1)
    assert isinstance(pending, Pending)
    assert pending.deadline == 1 + END_WAIT
    assert one.process.wait() == -signal.SIGTERM
    outcome = follow_up(pending, manager, 2)
    assert isinstance(outcome, Outcome)
    assert outcome.result is Result.VERIFIED
    assert outcome.process is not None
    assert outcome.process.pid == one.pid


@with_processes
def test_a_signal_that_does_not_end_a_process(
    manager: Manager, start: Callable[..., Running], child: Callable[..., Child]
):
    """Who ignores SIGTERM is waited for as long as it may take, and named as still running then."""
    one = child(nature="stubborn")
    running = start(one.pid, path=OWN_CGROUP, main_pid=one.pid)
    pending = perform(running.decision(Signal(Signals.SIGTERM)), running.cgroup, manager, 0)
    assert isinstance(pending, Pending)
    assert follow_up(pending, manager, END_WAIT - 0.1) == pending
    outcome = follow_up(pending, manager, END_WAIT)
    assert isinstance(outcome, Outcome)
    assert outcome.result is Result.FAILED
    assert f"pid {one.pid}" in outcome.detail


# --- signals to all ---


def test_a_signal_to_all(systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running]):
    """It goes through the manager, which knows every process of the unit, to the run that is meant."""
    running = start(os.getpid())
    decision = running.decision(Signal(Signals.SIGUSR1, Target.ALL))
    outcome = perform(decision, running.cgroup, manager, 1)
    assert isinstance(outcome, Outcome)
    assert outcome.result is Result.VERIFIED
    assert systemd.calls("Kill", "KillUnit") == [("Kill", ["all", signal.SIGUSR1])]


def test_a_signal_that_ends_all(
    systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running], child: Callable[..., Child]
):
    """Verified when the last of the processes has ended."""
    one, other = child(), child()
    running = start(one.pid, other.pid)
    decision = running.decision(Signal(Signals.SIGTERM, Target.ALL))
    pending = perform(decision, running.cgroup, manager, 1)
    assert isinstance(pending, Pending)
    assert systemd.calls("Kill") == [("Kill", ["all", signal.SIGTERM])]
    one.process.kill()
    one.process.wait()
    assert follow_up(pending, manager, 2) == pending
    other.process.kill()
    other.process.wait()
    outcome = follow_up(pending, manager, 3)
    assert isinstance(outcome, Outcome)
    assert outcome.result is Result.VERIFIED
    assert "2 processes" in outcome.detail


# --- signals with a last resort ---

INSISTING = Signal(Signals.SIGTERM, timeout=5, otherwise=LastResort.KILL)


@with_processes
def test_a_signal_to_all_of_which_not_all_can_be_found_is_sent_and_not_called_verified(
    systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
):
    """A part of its cgroups may be closed, or there are too many open files: that spares nobody."""
    running = start()
    monkeypatch.setattr(Cgroup, "pids", Mock(side_effect=PermissionError(13, "Permission denied")))
    outcome = done(perform(running.decision(Signal(signal.SIGTERM, Target.ALL)), running.cgroup, manager, 0))
    assert len(acts(systemd)) == 1
    assert outcome.result is Result.FAILED
    assert "whether they end can't be seen: [Errno 13] Permission denied" in outcome.detail


def test_a_signal_that_suffices(manager: Manager, start: Callable[..., Running], child: Callable[..., Child]):
    """Who ends by SIGTERM is not killed, and it's told so."""
    one = child()
    running = start(one.pid, path=OWN_CGROUP, main_pid=one.pid)
    pending = under_way(perform(running.decision(INSISTING), running.cgroup, manager, 0))
    assert one.process.wait() == -signal.SIGTERM
    outcome = done(follow_up(pending, manager, 5))
    assert outcome.result is Result.VERIFIED
    assert outcome.detail.startswith(f"SIGTERM ended pid {one.pid}")


@with_processes
def test_a_signal_that_does_not_suffice(
    manager: Manager, start: Callable[..., Running], child: Callable[..., Child]
):
    """Who ignores SIGTERM has its time, and is killed then: that process, and no other."""
    one, other = child(nature="stubborn"), child()
    running = start(one.pid, other.pid, path=OWN_CGROUP, main_pid=one.pid)
    pending = under_way(perform(running.decision(INSISTING), running.cgroup, manager, 0))
    assert follow_up(pending, manager, 4.9) == pending
    killed = under_way(follow_up(pending, None, 5))
    assert (killed.killed, killed.deadline) == (True, 5 + END_WAIT)
    assert one.process.wait() == -signal.SIGKILL
    outcome = done(follow_up(killed, None, 6))
    assert outcome.result is Result.VERIFIED
    assert outcome.detail.startswith(f"SIGKILL ended pid {one.pid}")
    assert outcome.detail.endswith("after SIGTERM had not")
    assert other.heard() == []


@with_processes
def test_a_last_resort_that_may_not_kill_one_process_spares_no_other(
    manager: Manager,
    start: Callable[..., Running],
    child: Callable[..., Child],
    monkeypatch: pytest.MonkeyPatch,
):
    spared, *others = [child(nature="stubborn") for _ in range(3)]
    running = start(spared.pid, *(each.pid for each in others), path=OWN_CGROUP)
    insisting = replace(INSISTING, to=Target.ALL)
    pending = under_way(perform(running.decision(insisting), running.cgroup, manager, 0))
    send = signalling.send_signal

    def send_signal(process: Process, number: Signals, **options: Any) -> None:
        if process.pid == spared.pid:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        send(process, number, **options)

    monkeypatch.setattr(signalling, "send_signal", send_signal)
    outcome = done(follow_up(pending, None, 5))
    assert (outcome.result, outcome.again) == (Result.FAILED, True)
    assert [each.process.wait(60) for each in others] == [-signal.SIGKILL] * 2


def test_a_last_resort_to_a_process_that_left_the_unit(
    manager: Manager, start: Callable[..., Running], child: Callable[..., Child]
):
    """It was signalled as one of all, and is somewhere else by now: there it's left alone."""
    one = child()
    running = start(one.pid, path="/elsewhere.slice/a.service")
    decision = running.decision(replace(INSISTING, to=Target.ALL))
    pending = under_way(perform(decision, running.cgroup, manager, 0))
    killed = under_way(follow_up(pending, manager, 5))
    assert one.heard() == []
    outcome = done(follow_up(killed, manager, 5 + END_WAIT))
    assert outcome.result is Result.FAILED
    assert f"pid {one.pid}" in outcome.detail


# --- killing ---


@pytest.mark.parametrize("manager_is", ["there", "refusing", "away"])
def test_a_kill_by_the_kernel(
    systemd: FakeSystemd1,
    manager: Manager,
    cgroups: CgroupTree,
    start: Callable[..., Running],
    manager_is: str,
):
    """The sampled cgroup is killed whatever becomes of the manager, and verified by its end."""
    running = start()
    file = cgroups.add_file(running.path, "cgroup.kill")
    if manager_is == "refusing":
        systemd.refuse("GetUnit", NO_REPLY)
    reachable = None if manager_is == "away" else manager
    pending = under_way(perform(running.decision(Kill()), running.cgroup, reachable, 0))
    assert file.read_text() == "1"
    assert acts(systemd) == []
    assert follow_up(pending, reachable, 1) == pending
    cgroups.remove(running.path)
    outcome = done(follow_up(pending, reachable, 2))
    assert (outcome.result, outcome.detail) == (Result.VERIFIED, "killed; gone 2s after the decision")


@pytest.mark.parametrize("manager_is", ["reachable", "refusing", "away"])
def test_a_killed_unit_is_gone_with_its_processes_and_not_with_its_cgroup(
    systemd: FakeSystemd1,
    manager: Manager,
    cgroups: CgroupTree,
    start: Callable[..., Running],
    manager_is: str,
):
    """A cgroup stays as long as it has others in it, or nobody removes it."""
    running = start()
    cgroups.add_file(running.path, "cgroup.kill")
    cgroups.add_file(running.path, "cgroup.events", "populated 1\nfrozen 0\n")
    if manager_is == "refusing":
        systemd.refuse("GetUnit", NO_REPLY)
    reachable = None if manager_is == "away" else manager
    pending = under_way(perform(running.decision(Kill()), running.cgroup, reachable, 0))
    assert follow_up(pending, reachable, 1) == pending
    cgroups.add_file(running.path, "cgroup.events", "populated 0\nfrozen 0\n")
    outcome = done(follow_up(pending, reachable, 2))
    assert (outcome.result, outcome.detail) == (Result.VERIFIED, "killed; gone 2s after the decision")


@pytest.mark.parametrize(("is_reachable", "result"), [(True, Result.FAILED), (False, Result.VERIFIED)])
def test_a_stop_has_the_managers_word_if_there_is_one(
    manager: Manager, cgroups: CgroupTree, start: Callable[..., Running], is_reachable: bool, result: Result
):
    """Between two commands of a stop there is no process either."""
    running = start(stops=False)
    pending = stuck(running, Stop(30), manager)
    cgroups.add_file(running.path, "cgroup.events", "populated 0\nfrozen 0\n")
    assert done(follow_up(pending, manager if is_reachable else None, 30)).result is result


@pytest.mark.parametrize("file", ["missing", "unwritable"])
def test_a_kill_by_the_manager(
    systemd: FakeSystemd1, manager: Manager, cgroups: CgroupTree, start: Callable[..., Running], file: str
):
    """A kernel that is older than cgroup.kill, or a sandbox that forbids it: the manager can do it too."""
    running = start()
    if file == "unwritable":
        (cgroups.root / running.path[1:] / "cgroup.kill").mkdir()
    pending = under_way(perform(running.decision(Kill()), running.cgroup, manager, 0))
    assert systemd.calls("Kill") == [("Kill", ["all", signal.SIGKILL])]
    assert done(follow_up(pending, manager, 1)).result is Result.VERIFIED


def test_a_kill_that_fails(systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running]):
    """Uninterruptible sleep outlasts SIGKILL: that is told in time, and it's asked for once."""
    running = start(dies=False)
    pending = under_way(perform(running.decision(Kill(10)), running.cgroup, manager, 0))
    assert follow_up(pending, manager, 9.9) == pending
    outcome = done(follow_up(pending, manager, 10))
    assert (outcome.result, outcome.again) == (Result.FAILED, True)
    assert outcome.detail == "still there 10s after SIGKILL to all its processes"
    assert acts(systemd) == ["Kill"]


# --- restarting ---


def restarting(running: Running, restart: Restart, manager: Manager) -> Pending:
    return under_way(perform(running.decision(restart), running.cgroup, manager, 0))


@pytest.mark.parametrize("invocation", ["known", "unknown"])
def test_a_restart(systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running], invocation: str):
    """Verified when another run is seen to be up; without invocation IDs its cgroup tells that it's another."""
    is_known = invocation == "known"
    running = start(**({} if is_known else {"invocation_id": ""}))
    pending = restarting(running, Restart(30), manager)
    assert acts(systemd) == (["Restart"] if is_known else ["RestartUnit"])
    if not is_known:
        systemd.change(NAME, invocation_id="")
    outcome = done(follow_up(pending, manager, 3))
    assert outcome.result is Result.VERIFIED
    assert outcome.detail == "restarted; the new run was up 3s after the decision"


@pytest.mark.parametrize("invocation_id", [None, ""])
def test_a_restart_that_takes_its_time(
    systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running], invocation_id: str | None
):
    """The old run is still up, then ends, then the new one starts: none of that is a restart yet."""
    running = start(restarts="hangs", **({} if invocation_id is None else {"invocation_id": invocation_id}))
    pending = restarting(running, Restart(30), manager)
    for state in ("active", "deactivating", "inactive"):
        systemd.change(NAME, active_state=state)
        assert follow_up(pending, manager, 1) == pending
    systemd.restart(NAME, active_state="activating")
    assert follow_up(pending, manager, 29.9) == pending
    systemd.change(NAME, active_state="active")
    assert done(follow_up(pending, manager, 31)).result is Result.VERIFIED
    assert len(acts(systemd)) == 1


@pytest.mark.parametrize(
    "unit, said, again",
    [
        ({"restarts": "down"}, "the unit is failed (failed)", False),
        ({"restarts": "hangs"}, "the unit is active (running)", True),
        ({"restarts": "hangs", "transient": True}, "the unit is not loaded", False),
    ],
)
def test_a_restart_that_fails(
    systemd: FakeSystemd1,
    manager: Manager,
    start: Callable[..., Running],
    unit: dict[str, object],
    said: str,
    again: bool,
):
    """At the deadline it's told how the unit is; it's worth another try only where the old run goes on."""
    running = start(**unit)
    pending = restarting(running, Restart(30), manager)
    if "transient" in unit:
        systemd.remove(NAME)
    assert follow_up(pending, manager, 29.9) == pending
    outcome = done(follow_up(pending, manager, 30))
    assert (outcome.result, outcome.again) == (Result.FAILED, again)
    assert outcome.detail == f"30s after it was asked for, {said}"


def test_a_restart_of_what_is_being_stopped(
    systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running]
):
    """Somebody stops the unit, which takes its time: a restart would replace that job and start it again."""
    running = start(active_state="deactivating")
    outcome = done(perform(running.decision(Restart(30)), running.cgroup, manager, 0))
    assert (outcome.result, outcome.detail) == (Result.GONE, "it is stopping already")
    assert acts(systemd) == []


@pytest.mark.parametrize("by", ["the kernel", "the manager"])
def test_the_last_resort_of_a_restart(
    systemd: FakeSystemd1, manager: Manager, cgroups: CgroupTree, start: Callable[..., Running], by: str
):
    """A run that doesn't end is killed, upon which the restart goes on, and has its time anew."""
    running = start(restarts="hangs")
    if by == "the kernel":
        cgroups.add_file(running.path, "cgroup.kill")
    pending = restarting(running, Restart(30, LastResort.KILL), manager)
    killed = under_way(follow_up(pending, manager, 30))
    assert (killed.killed, killed.deadline) == (True, 60)
    if by == "the kernel":
        assert acts(systemd) == ["Restart"]
        cgroups.remake(running.path)
        systemd.restart(NAME)
    outcome = done(follow_up(killed, manager, 31))
    assert outcome.result is Result.VERIFIED
    assert outcome.detail == "restarted, killed first; the new run was up 31s after the decision"


def test_the_last_resort_of_a_restart_fails(manager: Manager, start: Callable[..., Running]):
    """It's killed once only."""
    running = start(restarts="hangs", dies=False)
    pending = restarting(running, Restart(30, LastResort.KILL), manager)
    killed = under_way(follow_up(pending, manager, 30))
    assert follow_up(killed, manager, 59.9) == killed
    outcome = done(follow_up(killed, manager, 60))
    assert (outcome.result, outcome.again) == (Result.FAILED, True)


def test_a_restart_whose_old_run_has_ended_and_nothing_comes(
    systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running]
):
    """The run is over, and its processes linger in the cgroup: there is nothing to kill, nor to wait for for ever."""
    running = start(restarts="hangs")
    pending = restarting(running, Restart(30, LastResort.KILL), manager)
    systemd.change(NAME, active_state="inactive", sub_state="dead")
    assert follow_up(pending, manager, 29.9) == pending
    assert done(follow_up(pending, manager, 30)).result is Result.FAILED


def test_the_last_resort_spares_the_new_run(
    systemd: FakeSystemd1, manager: Manager, cgroups: CgroupTree, start: Callable[..., Running]
):
    """Processes that were left over keep the cgroup, and the new run, which is slow to start, is in it too."""
    running = start(restarts="hangs")
    file = cgroups.add_file(running.path, "cgroup.kill")
    pending = restarting(running, Restart(30, LastResort.KILL), manager)
    systemd.restart(NAME, active_state="activating", sub_state="start")
    outcome = done(follow_up(pending, manager, 30))
    assert (outcome.result, outcome.again) == (Result.FAILED, False)
    assert outcome.detail.endswith("the unit is activating (start)")
    assert file.read_text() == ""


def test_a_restart_without_its_manager(manager: Manager, start: Callable[..., Running]):
    """Nobody can tell whether the new run is up: it's waited for, and unknown at the end."""
    running = start(restarts="hangs")
    pending = restarting(running, Restart(30), manager)
    manager.close()
    for away in (None, manager):
        assert follow_up(pending, away, 29.9) == pending
        outcome = done(follow_up(pending, away, 30))
        assert outcome.result is Result.FAILED
        assert "unknown, as the manager can't be asked" in outcome.detail


# --- setting properties ---

PAGE = os.sysconf("SC_PAGE_SIZE")


def set_now(running: Running, action: SetProperties, manager: Manager) -> Outcome | Pending:
    decision = running.decision(action)
    return perform(decision, running.cgroup, manager, 0, prepare(decision, manager))


@pytest.mark.parametrize(
    "properties, files, said",
    [
        ((("MemoryHigh", 512 * 2**20),), {"memory.high": 512 * 2**20}, "MemoryHigh=512.0M"),
        ((("MemoryHigh", 10 * PAGE + 1),), {"memory.high": 10 * PAGE}, f"MemoryHigh={PAGE // 1024 * 10}K 1B"),
        ((("MemoryMax", None),), {"memory.max": "max"}, "MemoryMax=infinity"),
        (
            (("MemorySwapMax", 0), ("MemoryLow", 2**30)),
            {"memory.swap.max": 0, "memory.low": 2**30},
            "MemorySwapMax=0B, MemoryLow=1.0G",
        ),
    ],
)
def test_a_set(
    systemd: FakeSystemd1,
    manager: Manager,
    cgroups: CgroupTree,
    start: Callable[..., Running],
    properties: tuple[tuple[str, int | None], ...],
    files: dict[str, object],
    said: str,
):
    """Verified by the kernel's files, which know whole pages only."""
    running = start()
    outcome = done(set_now(running, SetProperties(properties), manager))
    assert (outcome.result, outcome.detail) == (Result.VERIFIED, f"{said} is in force")
    for name, text in files.items():
        assert (cgroups.root / running.path[1:] / name).read_text() == f"{text}\n"
    assert acts(systemd) == ["SetProperties"]


def test_what_a_set_has_to_set_back(systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running]):
    """The values of before are read before anything is set."""
    running = start(sizes={"MemoryHigh": 7 * 2**20})
    decision = running.decision(SetProperties((("MemoryHigh", 2**20), ("MemoryMax", 2**21))))
    override = prepare(decision, manager)
    assert override == Override("p", NAME, {"MemoryHigh": 7 * 2**20, "MemoryMax": None})
    assert acts(systemd) == []
    perform(decision, running.cgroup, manager, 0, override)
    assert (
        undo(override, manager) == "set back to MemoryHigh=7.0M, MemoryMax=infinity, as the episode is over"
    )
    unit = systemd.unit(NAME)
    assert unit is not None
    assert unit.sizes == {"MemoryHigh": 7 * 2**20, "MemoryMax": 2**64 - 1}


@pytest.mark.parametrize(
    "action, values",
    [
        (SetProperties((("MemoryHigh", 2**20),)), {"observe": True}),
        (SetProperties((("MemoryHigh", 2**20),)), {"refusal": PROTECTED}),
        *((action, {}) for name, action in ACTIONS.items() if name != "set"),
        (Log(), {}),
    ],
)
def test_what_has_nothing_to_set_back(
    systemd: FakeSystemd1,
    manager: Manager,
    start: Callable[..., Running],
    action: Action,
    values: dict[str, object],
):
    """Only a `set` that is performed has: for all others nobody is asked."""
    assert prepare(start().decision(action, **values), manager) is None
    assert systemd.calls() == []


@pytest.mark.parametrize("trouble", [DENIED, NO_REPLY, "org.freedesktop.DBus.Error.UnknownProperty", "away"])
def test_a_set_that_could_not_be_undone(
    systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running], trouble: str
):
    """Where it can't be read what is set now, nothing is."""
    running = start()
    if trouble == "away":
        systemd.leave()
    else:
        systemd.refuse("MemoryHigh", trouble)
    outcome = done(set_now(running, SetProperties((("MemoryHigh", 2**20),)), manager))
    assert (outcome.result, outcome.again) == (Result.FAILED, True)
    assert "nothing was set" in outcome.detail
    assert acts(systemd) == []


def test_a_set_that_is_refused(systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running]):
    """A value that the manager doesn't take is no sign that the unit is gone."""
    outcome = done(set_now(start(), SetProperties((("MemoryMax", 0),)), manager))
    assert outcome.result is Result.FAILED
    assert "out of range" in outcome.detail


def test_a_set_that_takes_its_time(
    systemd: FakeSystemd1, manager: Manager, cgroups: CgroupTree, start: Callable[..., Running]
):
    """The manager answers before it writes; one that never writes has failed."""
    running = start(applies=False)
    cgroups.add_file(running.path, "memory.high", "max\n")
    pending = under_way(set_now(running, SetProperties((("MemoryHigh", 2**20),)), manager))
    assert follow_up(pending, None, END_WAIT - 0.1) == pending
    outcome = done(follow_up(pending, None, END_WAIT))
    assert outcome.result is Result.FAILED
    assert outcome.detail == "the manager accepted it, but memory.high is max"
    cgroups.add_file(running.path, "memory.high", f"{2**20}\n")
    assert done(follow_up(pending, None, END_WAIT)).result is Result.VERIFIED


def test_a_set_without_its_file(manager: Manager, start: Callable[..., Running]):
    """A unit whose memory isn't accounted for has no such file: the property alone limits nothing."""
    running = start(applies=False)
    pending = under_way(set_now(running, SetProperties((("MemoryHigh", 2**20),)), manager))
    outcome = done(follow_up(pending, manager, END_WAIT))
    assert outcome.result is Result.FAILED
    assert outcome.detail == "the manager accepted it, but memory.high: no such file or directory"


def test_an_undo_after_a_restart(systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running]):
    """What is set at run time outlives the run: it's set back by the unit's name, whatever runs there."""
    start(sizes={"MemoryHigh": 2**20})
    systemd.restart(NAME)
    undo(FORMER, manager)
    unit = systemd.unit(NAME)
    assert unit is not None
    assert unit.sizes == {"MemoryHigh": 2**64 - 1}


def test_an_undo_of_a_unit_that_is_gone(manager: Manager):
    """Nothing is left that the values could be set for."""
    assert undo(FORMER, manager) == "the unit ended, so nothing is set back to MemoryHigh=infinity"


def test_an_undo_that_fails(systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running]):
    """It's still due then: the error is the caller's."""
    start()
    systemd.refuse("SetUnitProperties", DENIED, "not today")
    with pytest.raises(BusError, match="not today"):
        undo(FORMER, manager)


# --- freezing ---


@pytest.mark.parametrize("action, state", [(Freeze(), "frozen"), (Thaw(), "thawed")])
@pytest.mark.parametrize("invocation", ["known", "unknown"])
def test_freezing_and_thawing(
    systemd: FakeSystemd1,
    manager: Manager,
    start: Callable[..., Running],
    action: Action,
    state: str,
    invocation: str,
):
    """Verified by what the kernel says of the cgroup."""
    is_known = invocation == "known"
    running = start(**({} if is_known else {"invocation_id": ""}))
    outcome = done(perform(running.decision(action), running.cgroup, manager, 0))
    assert (outcome.result, outcome.detail) == (Result.VERIFIED, f"all its processes are {state}")
    method = type(action).__name__
    assert acts(systemd) == [method if is_known else f"{method}Unit"]


@pytest.mark.parametrize("action, frozen", [(Freeze(10), 1), (Thaw(10), 0)])
def test_freezing_that_takes_its_time(
    manager: Manager, cgroups: CgroupTree, start: Callable[..., Running], action: Action, frozen: int
):
    """A process in the middle of something is frozen later, or never."""
    running = start(freezes=False)
    cgroups.add_file(running.path, "cgroup.events", f"populated 1\nfrozen {1 - frozen}\n")
    pending = under_way(perform(running.decision(action), running.cgroup, manager, 0))
    assert follow_up(pending, None, 9.9) == pending
    outcome = done(follow_up(pending, None, 10))
    assert outcome.result is Result.FAILED
    assert outcome.detail.startswith("it is not ")
    cgroups.add_file(running.path, "cgroup.events", f"populated 1\nfrozen {frozen}\n")
    assert done(follow_up(pending, None, 11)).result is Result.VERIFIED


def test_freezing_that_cannot_be_seen(manager: Manager, start: Callable[..., Running]):
    """What can't be read is not claimed."""
    running = start(freezes=False)
    outcome = done(perform(running.decision(Freeze()), running.cgroup, manager, 0))
    assert outcome.result is Result.FAILED
    assert "unknown (cgroup.events: no such file or directory)" in outcome.detail


# --- reclaiming ---

RECLAIM = Reclaim(2**20, timeout=30)


def settled(pending: Pending, now: float) -> Outcome:
    """What comes of it, however long the thread takes to be run."""
    for _ in range(1000):
        result = follow_up(pending, None, now)
        if isinstance(result, Outcome):
            return result
        time.sleep(0.01)
    raise AssertionError(pending)


@pytest.fixture
def kernel_says(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Have writing of RECLAIM's size fail with an error number."""
    write = os.write

    def say(number: int) -> None:
        def refuse(descriptor: int, data: bytes) -> int:
            if data == b"1048576":
                raise OSError(number, os.strerror(number))
            return write(descriptor, data)

        monkeypatch.setattr(os, "write", refuse)

    return say


def test_a_reclaim(cgroups: CgroupTree, start: Callable[..., Running]):
    """The bytes are asked for, no manager is needed, and it's told what memory.current made of it."""
    running = start()
    file = cgroups.add_file(running.path, "memory.reclaim")
    cgroups.add_file(running.path, "memory.current", f"{5 * 2**20}\n")
    pending = under_way(perform(running.decision(RECLAIM), running.cgroup, None, 0))
    cgroups.add_file(running.path, "memory.current", f"{4 * 2**20}\n")
    outcome = settled(pending, 1)
    assert outcome.result is Result.VERIFIED
    assert outcome.detail == "1.0M reclaimed; memory.current went from 5.0M to 4.0M"
    assert file.read_text() == "1048576"


@pytest.mark.parametrize(
    "number, said",
    [
        (errno.EAGAIN, "the kernel could reclaim less than 1.0M; memory.current went from 4.0K to 4.0K"),
        (errno.EACCES, "memory.reclaim: permission denied"),
        (errno.EINVAL, "memory.reclaim: invalid argument"),
    ],
)
def test_a_reclaim_that_fails(
    cgroups: CgroupTree,
    start: Callable[..., Running],
    kernel_says: Callable[[int], None],
    number: int,
    said: str,
):
    """The kernel's error is told, and that it found less than was asked for in words."""
    running = start()
    cgroups.add_file(running.path, "memory.reclaim")
    kernel_says(number)
    outcome = settled(under_way(perform(running.decision(RECLAIM), running.cgroup, None, 0)), 1)
    assert (outcome.result, outcome.detail) == (Result.FAILED, said)


@pytest.mark.parametrize("lacks", [["memory.reclaim"], ["memory.reclaim", "memory.current"]])
def test_a_reclaim_where_the_kernel_has_none(
    cgroups: CgroupTree, start: Callable[..., Running], lacks: list[str]
):
    """It's told what it would take."""
    running = start()
    for name in lacks:
        (cgroups.root / running.path[1:] / name).unlink(missing_ok=True)
    outcome = settled(under_way(perform(running.decision(RECLAIM), running.cgroup, None, 0)), 1)
    assert outcome.result is Result.FAILED
    assert "Linux 5.19" in outcome.detail


@pytest.fixture
def stalled(cgroups: CgroupTree, start: Callable[..., Running]) -> Iterator[Running]:
    """A unit whose memory.reclaim doesn't return before the test is over: a pipe that is full."""
    running = start(stops=False)
    fifo = cgroups.root / "stalled"
    os.mkfifo(fifo)
    (cgroups.root / running.path[1:] / "memory.reclaim").symlink_to(fifo)
    pipe = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, bytes(PAGE))
    yield running
    os.close(pipe)


def test_a_reclaim_that_takes_too_long(manager: Manager, stalled: Running):
    """The kernel may be at it for minutes: nobody waits for it, and other actions are seen through."""
    pending = under_way(perform(stalled.decision(RECLAIM), stalled.cgroup, manager, 0))
    assert follow_up(pending, manager, 29.9) == pending
    stop = stuck(stalled, Stop(10), manager)
    assert done(follow_up(stop, manager, 10)).result is Result.FAILED
    outcome = done(follow_up(pending, manager, 30))
    assert (outcome.result, outcome.again) == (Result.FAILED, False)
    assert outcome.detail == "the kernel is still reclaiming 30s after it was asked for 1.0M"


def test_a_reclaim_without_room_for_a_thread(start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch):
    """A machine that is short of memory or tasks has none: it failed, and may be tried again."""

    def refuse(function: object, arguments: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    running = start()
    outcome = done(perform(running.decision(RECLAIM), running.cgroup, None, 0))
    assert (outcome.result, outcome.again) == (Result.FAILED, True)
    assert outcome.detail == "it can't be done: no thread can be started for it"


def test_a_unit_that_ends_meanwhile(manager: Manager, cgroups: CgroupTree, stalled: Running):
    """What is under way is over with the unit, whose cgroup is let go of."""
    pending = [
        under_way(perform(stalled.decision(RECLAIM), stalled.cgroup, manager, 0)),
        *(Pending(stalled.decision(ACTIONS[name]), stalled.cgroup, 30) for name in ("set", "freeze", "thaw")),
    ]
    cgroups.remove(stalled.path)
    stalled.cgroup.close()
    for each in pending:
        assert done(follow_up(each, manager, 1)).result is Result.GONE


# --- commands ---

COMMAND = Run(("/usr/bin/notify", "a b"), timeout=60)


def command_of(systemd: FakeSystemd1) -> str:
    ((_, (name, *_)),) = systemd.calls("StartTransientUnit")
    return str(name)


def test_a_command(systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running]):
    """Verified when it has ended with success; until then it's under way."""
    running = start()
    pending = under_way(perform(running.decision(COMMAND), running.cgroup, manager, 0))
    name = command_of(systemd)
    assert follow_up(pending, manager, 1) == pending
    systemd.end_command(name)
    outcome = done(follow_up(pending, manager, 2))
    assert (outcome.result, outcome.detail) == (Result.VERIFIED, f"the command succeeded within 2s ({name})")
    assert systemd.unit(name) is None


@pytest.mark.parametrize("result", ["exit-code", "timeout", "signal"])
def test_a_command_that_fails(
    systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running], result: str
):
    """The manager's word for it is told, and where its own words are."""
    running = start()
    pending = under_way(perform(running.decision(COMMAND), running.cgroup, manager, 0))
    name = command_of(systemd)
    systemd.end_command(name, result)
    outcome = done(follow_up(pending, manager, 2))
    assert outcome.result is Result.FAILED
    assert outcome.detail == f"its result is {result}; see `journalctl -u {name}`"
    assert systemd.unit(name) is None


def test_a_command_that_is_forgotten(systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running]):
    """The connection was another one: what became of the command is not known, and not guessed."""
    running = start()
    pending = under_way(perform(running.decision(COMMAND), running.cgroup, manager, 0))
    name = command_of(systemd)
    systemd.release(name)
    systemd.end_command(name)
    outcome = done(follow_up(pending, manager, 2))
    assert outcome.result is Result.FAILED
    assert outcome.detail == f"{name} is gone, and its result with it"


@pytest.mark.parametrize("trouble", ["still running", "not begun", "no manager", "no answer"])
def test_a_command_whose_end_is_not_seen(
    systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running], trouble: str
):
    """It's waited for a little longer than the manager lets it run."""
    if trouble == "not begun":
        systemd.hold_jobs()
    running = start()
    pending = under_way(perform(running.decision(COMMAND), running.cgroup, manager, 0))
    if trouble == "no answer":
        systemd.refuse("ActiveState", NO_REPLY)
    reachable = None if trouble == "no manager" else manager
    assert follow_up(pending, reachable, 60 + END_WAIT - 0.1) == pending
    outcome = done(follow_up(pending, reachable, 60 + END_WAIT))
    assert outcome.result is Result.FAILED
    assert outcome.detail.startswith("how it ended is unknown after 1min 10s")


def test_what_a_command_is_told(systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running]):
    """The decision is in its environment, numbers as bytes and microseconds."""
    running = start()
    comparison = Comparison("anon", ">", 80, of="limit")
    finding = Finding(comparison, True, 900.0, 800.0, {})
    decision = running.decision(COMMAND, step=1, held=1.5, findings=(finding,))
    perform(decision, running.cgroup, manager, 0)
    ((_, (_, _, properties, _)),) = systemd.calls("StartTransientUnit")
    given = dict(properties)
    assert given["ExecStart"] == [["/usr/bin/notify", ["/usr/bin/notify", "a b"], False]]
    assert dict(line.split("=", 1) for line in given["Environment"]) == {
        "UNITMEM_UNIT": NAME,
        "UNITMEM_POLICY": "p",
        "UNITMEM_STEP": "2",
        "UNITMEM_HELD_USEC": "1500000",
        "UNITMEM_INVOCATION_ID": running.unit.invocation_id,
        "UNITMEM_MEASURE": "anon",
        "UNITMEM_CONDITION": "anon > 80% of limit",
        "UNITMEM_VALUE": "900",
        "UNITMEM_THRESHOLD": "800",
    }


def test_commands_for_units_at_once(systemd: FakeSystemd1, manager: Manager, start: Callable[..., Running]):
    """Two units breach in the same tick, and each has a command of its own."""
    for path in ("/system.slice/a.service", "/system.slice/b.service"):
        running = start(path=path)
        under_way(perform(running.decision(COMMAND), running.cgroup, manager, 0))
    names = [body[0] for _, body in systemd.calls("StartTransientUnit")]
    assert len(set(names)) == 2
