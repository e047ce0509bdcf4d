"""`unitmem.manager.systemd` and the real pystemd, against a fake manager on a real bus."""

from __future__ import annotations

import gc
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cgroup_tree import CgroupTree
from fake_systemd1 import PROPERTIES, FakeSystemd1, FakeUnit, running_bus

from unitmem.errors import BusError, BusLostError, InvocationGoneError, NoSuchUnitError, UnitmemError
from unitmem.manager import handshake
from unitmem.manager.dbus import text_of
from unitmem.manager.signals import Change, UnitChange
from unitmem.manager.systemd import Manager
from unitmem.unit import ManagerKind, Unit

ID = "0123456789abcdef0123456789abcdef"
DBUS_ERROR = "org.freedesktop.DBus.Error."
SYSTEMD_ERROR = "org.freedesktop.systemd1."


def appeared(*names: str) -> list[UnitChange]:
    return [UnitChange(Change.APPEARED, name) for name in names]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, systemd: FakeSystemd1) -> Iterator[Manager]:
    """A client that waits a fifth of a second for answers."""
    monkeypatch.setenv("SYSTEMD_BUS_TIMEOUT", "200ms")
    with Manager(address=systemd.address) as manager:
        yield manager


@dataclass
class DoomedBus:
    address: str
    daemon: subprocess.Popen[str]
    systemd: FakeSystemd1

    def kill(self) -> None:
        self.daemon.kill()
        self.daemon.wait()


@pytest.fixture
def doomed() -> Iterator[DoomedBus]:
    """A bus of the test's own, with a manager that knows a.service."""
    with tempfile.TemporaryDirectory() as directory, running_bus(Path(directory)) as (address, daemon):
        fake = FakeSystemd1(address)
        fake.add("a.service", invocation_id=ID)
        yield DoomedBus(address, daemon, fake)
        fake.close()


# --- asking ---


def test_list_of_no_unit(manager: Manager):
    """No unit is an empty list, whatever pystemd makes of an empty array."""
    assert manager.list_units() == []


@pytest.mark.parametrize("count", [1, 2, 500])
def test_list(systemd: FakeSystemd1, manager: Manager, count: int):
    """Every unit is listed, in the manager's order, with its states; a single one is a list too."""
    names = [f"u{number}.service" for number in range(count)]
    for name in names:
        systemd.add(name, announce=False, description=f"Über {name}", active_state="failed", sub_state="dead")
    assert manager.list_units() == [Unit(name, f"Über {name}", "loaded", "failed", "dead") for name in names]


@pytest.mark.parametrize(
    "name, said, differs",
    [
        ("a.service", {"main_pid": 7, "control_pid": 8}, {"main_pid": 7, "control_pid": 8}),
        ("a.service", {"main_pid": 0, "control_pid": 0}, {"main_pid": None, "control_pid": None}),
        ("a.service", {"active_state": "failed"}, {"active_state": "failed"}),
        ("a.service", {"description": "§ ☃ \U0001f40d"}, {"description": "§ ☃ \U0001f40d"}),
        ("a.service", {"control_group": ""}, {"control_group": None}),
        ("a.service", {"invocation_id": ""}, {"invocation_id": None}),
        ("a.service", {"invocation_id": "0" * 32}, {"invocation_id": None}),
        ("a@x\\x2dy.service", {"main_pid": 7}, {"main_pid": 7}),
        ("9.service", {}, {}),
        ("a.scope", {"main_pid": 7, "control_pid": 8}, {}),
        ("user-0.slice", {"main_pid": 7, "control_pid": 8}, {}),
        ("-.slice", {"slice": "", "control_group": "/"}, {"slice": None, "control_group": "/"}),
        ("a.socket", {"main_pid": 7, "control_pid": 8}, {"control_pid": 8}),
        ("home.mount", {"main_pid": 7, "control_pid": 8}, {"control_pid": 8}),
        ("dev-sda1.swap", {"main_pid": 7, "control_pid": 8}, {"control_pid": 8}),
    ],
)
def test_describe(
    systemd: FakeSystemd1, manager: Manager, name: str, said: dict[str, str], differs: dict[str, object]
):
    """Each kind of unit is described by the properties that its kind has, and by no others."""
    systemd.add(name, **{"control_group": "/x", "slice": "x.slice", "invocation_id": ID, **said})
    usual = Unit(name, sub_state="running", control_group="/x", slice="x.slice", invocation_id=ID)
    assert manager.describe(name) == replace(usual, **differs)


@pytest.mark.parametrize(
    "state, up_since",
    [
        ("active", 7.5),
        ("reloading", 7.5),
        ("deactivating", 7.5),
        ("activating", 9.0),  # it was active in another run, or never
        ("inactive", None),
        ("failed", None),
    ],
)
def test_since_when_it_is_up(systemd: FakeSystemd1, manager: Manager, state: str, up_since: float | None):
    systemd.add("a.service", active_state=state, active_enter=7_500_000, inactive_exit=9_000_000)
    assert manager.describe("a.service").up_since == up_since


@pytest.mark.parametrize("name", ["multi-user.target", "a.timer", "a.path", "dev-sda.device", "x.automount"])
def test_describe_of_kinds_without_a_cgroup(systemd: FakeSystemd1, manager: Manager, name: str):
    """A kind of unit that never has a cgroup isn't asked about one."""
    systemd.add(name, invocation_id=ID)
    assert manager.describe(name) == Unit(name, sub_state="running", invocation_id=ID)
    assert "ControlGroup" not in [method for method, _ in systemd.calls()]


def test_describe_by_an_alias(systemd: FakeSystemd1, manager: Manager):
    """An alias leads to the unit under its own name."""
    systemd.add("ssh.service", aliases=("sshd.service",))
    assert manager.describe("sshd.service").name == "ssh.service"


@pytest.mark.parametrize(
    "name",
    [
        "gone.service",
        "",
        "ssh",
        "a b.service",
        "a.service\0",
        "a/b.service",
        "\udcff.service",
        "ü.service",
        ID,
    ],
)
def test_describe_of_no_unit(systemd: FakeSystemd1, manager: Manager, name: str):
    """What is no unit, or no unit's name, is that: exit status 4 and not a bus error."""
    with pytest.raises(NoSuchUnitError) as error:
        manager.describe(name)
    assert error.value.exit_status == 4


def test_a_unit_that_is_not_loaded_is_left_so(systemd: FakeSystemd1, manager: Manager):
    """A property of a unit that isn't loaded makes systemd load and unload it, and tell everybody."""
    with pytest.raises(NoSuchUnitError):
        manager.describe("idle.service")
    assert systemd.calls() == [("GetUnit", ["idle.service"])]


@pytest.mark.parametrize("state, is_one", [("active", True), ("deactivating", True), ("inactive", False)])
def test_a_unit_whose_file_is_gone(systemd: FakeSystemd1, manager: Manager, state: str, is_one: bool):
    """A unit that runs on after its file was deleted is one still; a mere reference to no unit is none."""
    systemd.add("a.service", load_state="not-found", active_state=state)
    if is_one:
        assert manager.describe("a.service").active_state == state
    else:
        with pytest.raises(NoSuchUnitError):
            manager.describe("a.service")


@pytest.mark.parametrize(
    "refusal",
    [
        DBUS_ERROR + "UnknownObject",
        DBUS_ERROR + "InvalidArgs",
        SYSTEMD_ERROR + "NoSuchUnit",
    ],
)
def test_ways_of_saying_no_such_unit(systemd: FakeSystemd1, manager: Manager, refusal: str):
    """Each error that means "no such unit", by manager version and call, is understood as that."""
    systemd.add("a.service")
    systemd.refuse("Id", refusal)
    with pytest.raises(NoSuchUnitError):
        manager.describe("a.service")


def test_describe_introspects_nothing(systemd: FakeSystemd1, manager: Manager):
    """Introspection is what makes pystemd slow and large: eleven single properties are all that is asked."""
    systemd.add("a.service", control_group="/a")
    manager.describe("a.service")
    first, *properties = systemd.calls()
    assert first == ("GetUnit", ["a.service"])
    assert {body[0] for _, body in properties} == {SYSTEMD_ERROR + "Unit", SYSTEMD_ERROR + "Service"}
    assert len(properties) == 11


def test_dependents(systemd: FakeSystemd1, manager: Manager):
    """Each relation that there is, and none that there isn't; names as they are."""
    dependents = {
        "RequiredBy": ["b.service", "a\\x2db@é.service"],
        "BoundBy": ["sys-bus.device"],
        "ConsistsOf": ["c.service"],
        "RequisiteOf": ["d.target"],
        "PropagatesStopTo": ["e.service"],
        "TriggeredBy": ["web.timer", "web.socket"],
        "UpheldBy": ["up.target"],
    }
    systemd.add("web.service", dependents=dependents)
    systemd.add("alone.service")
    assert manager.dependents("web.service") == {
        name: tuple(sorted(units)) for name, units in dependents.items()
    }
    assert manager.dependents("alone.service") == {}


def test_a_unit_that_refuses_stops(systemd: FakeSystemd1, manager: Manager):
    systemd.add("web.service", refuses_manual_stop=True)
    systemd.add("db.service")
    assert manager.refuses_stops("web.service")
    assert not manager.refuses_stops("db.service")
    with pytest.raises(NoSuchUnitError):
        manager.refuses_stops("nginx.service")


@pytest.mark.parametrize("name", ["gone.service", "", "a b.service"])
def test_dependents_of_no_unit(systemd: FakeSystemd1, manager: Manager, name: str):
    """A unit that isn't loaded is left so, and is asked nothing."""
    with pytest.raises(NoSuchUnitError):
        manager.dependents(name)
    assert {method for method, _ in systemd.calls()} <= {"GetUnit"}


@pytest.mark.parametrize(
    "octets, text", [(b"a", "a"), ("é".encode(), "é"), (b"caf\xe9", "caf\ufffd"), ("a", "a"), (b"", "")]
)
def test_text(octets: bytes | str, text: str):
    """Bytes that are no UTF-8 become replacement characters, and not an error."""
    assert text_of(octets) == text


# --- following ---


def test_nothing_has_happened(manager: Manager):
    """With nobody doing anything, nothing has changed, before and after following."""
    assert manager.changes() == []
    manager.follow()
    assert manager.changes() == []


def test_every_kind_of_change(systemd: FakeSystemd1, manager: Manager):
    """Each of the manager's signals becomes one change, in order, with the unit's name from its own place."""
    manager.follow()
    assert systemd.calls("Subscribe") == [("Subscribe", [])]
    systemd.add("a.service")
    systemd.job("JobNew", "b.service")
    systemd.job("JobRemoved", "c.service")
    systemd.remove("a.service")
    systemd.reloading()
    assert settled(manager) == [
        UnitChange(Change.APPEARED, "a.service"),
        UnitChange(Change.JOB_QUEUED, "b.service"),
        UnitChange(Change.JOB_DONE, "c.service"),
        UnitChange(Change.VANISHED, "a.service"),
        UnitChange(Change.RELOADED, None),
    ]
    assert settled(manager) == []


def test_a_reload_is_no_change_of_units(systemd: FakeSystemd1, manager: Manager):
    """As it reloads the manager tells of each unit that it's removed and new: one RELOADED says it all."""
    manager.follow()
    systemd.reloading(active=True)
    systemd.add("a.service")
    systemd.remove("a.service")
    systemd.job("JobRemoved", "b.service")
    assert settled(manager) == [UnitChange(Change.JOB_DONE, "b.service")]
    systemd.add("a.service")
    systemd.reloading(active=False)
    systemd.add("c.service")
    assert settled(manager) == [UnitChange(Change.RELOADED, None), UnitChange(Change.APPEARED, "c.service")]


def test_results_are_told_of_the_units_that_are_asked_for(systemd: FakeSystemd1, manager: Manager):
    """A Result= that is there for a moment only is told as well; other changes of properties are none."""
    for name in ("web@1.service", "web.scope", "db.service"):
        systemd.add(name)
    manager.follow()
    systemd.end("web@1.service", "signal")
    assert settled(manager) == []
    manager.follow_results(lambda name: name.startswith("web"))
    for name in ("web@1.service", "db.service", "web.scope"):
        systemd.end(name, "oom-kill")
    systemd.end("web@1.service", "success")
    assert settled(manager) == [
        UnitChange(Change.RESULT, "web@1.service", "oom-kill"),
        UnitChange(Change.RESULT, "web.scope", "oom-kill"),
        UnitChange(Change.RESULT, "web@1.service", "success"),
    ]


def settled(manager: Manager) -> list[UnitChange]:
    """What has happened so far: an answered call is proof that what was sent before has arrived."""
    manager.list_units()
    return manager.changes()


def test_changes_that_arrive_during_a_call(systemd: FakeSystemd1, manager: Manager):
    """What arrives before an answer is not lost, though the descriptor doesn't tell of it any more."""
    manager.follow()
    names = [f"u{number}.service" for number in range(50)]
    systemd.interlude("ListUnits", {"do": "burst", "names": names})
    manager.list_units()
    assert select.select([manager], [], [], 0)[0] == []
    assert manager.changes() == appeared(*names)


def test_many_changes_at_once(systemd: FakeSystemd1, manager: Manager):
    """Thousands arrive, each once and in order."""
    manager.follow()
    names = [f"u{number}.service" for number in range(5000)]
    systemd.burst(names)
    assert settled(manager) == appeared(*names)


def test_a_flood_of_changes(systemd: FakeSystemd1, manager: Manager, monkeypatch: pytest.MonkeyPatch):
    """A call returns though there is always one more change, and the next calls bring the rest."""
    monkeypatch.setattr("unitmem.manager.signals._MOST_AT_ONCE", 100)
    manager.follow()
    names = [f"u{number}.service" for number in range(450)]
    systemd.burst(names)
    manager.list_units()
    calls = [manager.changes() for _ in range(6)]
    assert max(map(len, calls)) <= 100
    assert [change for happened in calls for change in happened] == appeared(*names)


def test_a_change_wakes(systemd: FakeSystemd1, manager: Manager):
    """The descriptor is readable after a change, and quiet once it was taken."""
    manager.follow()
    manager.changes()
    assert select.select([manager], [], [], 0)[0] == []
    systemd.add("a.service")
    assert select.select([manager], [], [], 10)[0] == [manager]
    assert manager.changes() == appeared("a.service")
    assert select.select([manager], [], [], 0)[0] == []


def test_the_callback_lives_as_long_as_the_connection(systemd: FakeSystemd1, manager: Manager):
    """libsystemd keeps no reference to the callback: it must outlive the collector."""
    manager.follow()
    gc.collect()
    junk = [lambda: None for _ in range(1000)]
    systemd.add("a.service")
    assert settled(manager) == appeared("a.service")
    assert len(junk) == 1000


def test_two_managers(systemd: FakeSystemd1, manager: Manager):
    """Two connections each hear everything, and closing one leaves the other alone."""
    with Manager(ManagerKind.USER, address=systemd.address) as other:
        manager.follow()
        other.follow()
        systemd.add("a.service")
        assert settled(manager) == settled(other) == appeared("a.service")
    systemd.add("b.service")
    assert settled(manager) == appeared("b.service")
    assert other.kind is ManagerKind.USER


def test_forged_changes(systemd: FakeSystemd1, manager: Manager):
    """A signal that anybody sends straight to us is not the manager's: it could hide a unit from us."""
    manager.follow()
    address = manager._bus.get_unique_name().decode()
    systemd.forge(address, "UnitRemoved", "a.service")
    systemd.add("b.service")
    systemd.forge(address, "UnitRemoved", "b.service")
    assert settled(manager) == appeared("b.service")


@pytest.mark.parametrize(
    "forged",
    [
        {"member": "UnitRemoved"},
        {"member": "PropertiesChanged", "interface": PROPERTIES, "signature": "sa{sv}as"},
        {"member": "Nonsense"},
    ],
    ids=lambda forged: forged["member"],
)
def test_forged_signals_take_no_memory(systemd: FakeSystemd1, manager: Manager, forged: dict[str, str]):
    """Anybody may send large ones straight to us: a few of them are in memory at a time."""
    manager.follow()
    manager.follow_results(lambda name: True)
    manager.changes()
    size, times = 1 << 16, 200  # what a socket takes at once, for the sender's sake
    systemd.forge(manager._bus.get_unique_name().decode(), unit="x" * size, times=times, **forged)
    systemd.add("a.service")
    tracemalloc.start()
    try:
        deadline = time.monotonic() + 60
        changes: list[UnitChange] = []
        while not changes and time.monotonic() < deadline:
            changes = manager.changes()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert changes == appeared("a.service")
    assert peak < size * times / 4


def test_following_goes_on_after_a_reexec(systemd: FakeSystemd1, manager: Manager):
    """After `systemctl daemon-reexec` the manager has a new address on the bus, and is still the manager."""
    manager.follow()
    systemd.reexec()
    systemd.add("a.service")
    assert settled(manager) == appeared("a.service")
    systemd.add("b.service")
    assert settled(manager) == appeared("b.service")


# --- acting ---


Act = Callable[[Manager, str, str | None], None]

ACTS: dict[str, Act] = {
    "stop": Manager.stop_unit,
    "restart": Manager.restart_unit,
    "kill": lambda manager, name, invocation: manager.kill_unit(name, invocation, "all", signal.SIGKILL),
    "freeze": Manager.freeze_unit,
    "thaw": Manager.thaw_unit,
    "set": lambda manager, name, invocation: manager.set_size_properties(
        name, {"MemoryHigh": 2**30, "MemorySwapMax": 0, "MemoryMax": None}, invocation
    ),
}
EFFECTS: dict[str, Callable[[FakeUnit, FakeUnit], bool]] = {
    "stop": lambda _, after: after.active_state == "inactive",
    "restart": lambda before, after: after.invocation_id not in ("", before.invocation_id),
    "kill": lambda _, after: after.active_state == "inactive",
    "freeze": lambda _, after: "frozen 1" in Path(str(after.directory), "cgroup.events").read_text(),
    "thaw": lambda _, after: "frozen 0" in Path(str(after.directory), "cgroup.events").read_text(),
    "set": lambda _, after: after.sizes == {"MemoryHigh": 2**30, "MemorySwapMax": 0, "MemoryMax": 2**64 - 1},
}
BY_NAME = ("StopUnit", "RestartUnit", "KillUnit", "FreezeUnit", "ThawUnit", "SetUnitProperties")
each_act = pytest.mark.parametrize("name", ACTS)


def now(systemd: FakeSystemd1) -> FakeUnit:
    unit = systemd.unit("a.service")
    assert unit is not None
    return unit


@each_act
def test_acting_on_a_run(systemd: FakeSystemd1, manager: Manager, cgroups: CgroupTree, name: str):
    """A run that goes on is acted on; one that is over is not, and nor is its successor."""
    first = systemd.add("a.service", directory=cgroups.make("/a.service")).invocation_id
    second = systemd.restart("a.service")
    before = now(systemd)
    with pytest.raises(InvocationGoneError):
        ACTS[name](manager, "a.service", first)
    assert now(systemd) == before
    ACTS[name](manager, "a.service", second)
    assert EFFECTS[name](before, now(systemd))
    assert not systemd.calls(*BY_NAME), "the wrong run could be hit"


@each_act
def test_acting_on_a_unit_without_an_invocation(
    systemd: FakeSystemd1, manager: Manager, cgroups: CgroupTree, name: str
):
    """Where a unit has no invocation ID its name has to do."""
    unit = systemd.add("a.service", directory=cgroups.make("/a.service"), invocation_id="")
    ACTS[name](manager, "a.service", None)
    assert EFFECTS[name](unit, now(systemd))


@pytest.mark.parametrize("invocation", [None, ID], ids=["by name", "by invocation"])
@each_act
def test_acting_on_nothing(manager: Manager, name: str, invocation: str | None):
    """A unit that isn't there any more is as good as gone."""
    with pytest.raises(InvocationGoneError):
        ACTS[name](manager, "gone.service", invocation)


@pytest.mark.parametrize("whom, number", [("main", signal.SIGUSR1), ("control", signal.SIGTERM), ("all", 9)])
@pytest.mark.parametrize("by_name", [True, False])
def test_what_kill_says(systemd: FakeSystemd1, manager: Manager, whom: str, number: int, by_name: bool):
    """Whom and with which signal arrives as it was said."""
    unit = systemd.add("a.service", main_pid=7, control_pid=8, dies=False)
    manager.kill_unit("a.service", None if by_name else unit.invocation_id, whom, number)
    expected = ("KillUnit", ["a.service", whom, number]) if by_name else ("Kill", [whom, number])
    assert systemd.calls("Kill", "KillUnit") == [expected]


@pytest.mark.parametrize("digit", "0123456789abcdef")
def test_every_invocation_id_can_be_addressed(systemd: FakeSystemd1, manager: Manager, digit: str):
    """An ID that starts with a digit is written another way in an object path."""
    systemd.add("a.service", invocation_id=digit + ID[1:])
    manager.stop_unit("a.service", digit + ID[1:])
    assert manager.describe("a.service").active_state == "inactive"


# --- properties ---


@pytest.mark.parametrize("unit", ["a.service", "a.scope", "a.slice", "a.socket", "home.mount", "a.swap"])
def test_sizes(systemd: FakeSystemd1, manager: Manager, unit: str):
    """Each kind has them on an interface of its own; infinity is None, and nothing is nothing."""
    systemd.add(unit, sizes={"MemoryHigh": 2**30, "MemorySwapMax": 0, "MemoryMax": 2**64 - 1})
    sizes = {"MemoryHigh": 2**30, "MemorySwapMax": 0, "MemoryMax": None, "MemoryLow": None}
    assert manager.size_properties(unit, sizes) == sizes


def test_sizes_of_no_unit(manager: Manager):
    """What isn't loaded has none."""
    with pytest.raises(NoSuchUnitError):
        manager.size_properties("gone.service", ["MemoryHigh"])


def test_a_size_that_this_systemd_does_not_know(systemd: FakeSystemd1, manager: Manager):
    """MemoryZSwapMax= came with 253: neither its value is known, nor can it be set."""
    run = systemd.add("a.service").invocation_id
    with pytest.raises(BusError, match="MemoryZSwapMax"):
        manager.size_properties("a.service", ["MemoryHigh", "MemoryZSwapMax"])
    with pytest.raises(BusError, match="MemoryZSwapMax"):
        manager.set_size_properties("a.service", {"MemoryHigh": 4096, "MemoryZSwapMax": 4096}, run)
    assert now(systemd).sizes == {}


@pytest.mark.parametrize("by_name", [True, False])
def test_a_size_out_of_range(systemd: FakeSystemd1, manager: Manager, by_name: bool):
    """It's the value that is refused, and not the unit that is gone."""
    run = systemd.add("a.service").invocation_id
    with pytest.raises(BusError, match="out of range"):
        manager.set_size_properties("a.service", {"MemoryHigh": 0}, None if by_name else run)


# --- commands ---

COMMAND = "unitmem-run-p-1-1.service"


def test_what_a_command_is_started_with(systemd: FakeSystemd1, manager: Manager):
    """The words and variables as they are, whatever they hold, and a limit to its time."""
    command = ["/bin/echo", "", "a b", "§ $HOME %n"]
    manager.start_command(COMMAND, command, {"UNITMEM_UNIT": "a.service", "EMPTY": ""}, 1.5)
    ((_, (name, mode, properties, others)),) = systemd.calls("StartTransientUnit")
    assert (name, mode, others) == (COMMAND, "fail", [])
    given = dict(properties)
    assert "memory policy" in given.pop("Description")
    assert given == {
        "Type": "oneshot",
        "ExecStart": [["/bin/echo", command, False]],
        "Environment": ["UNITMEM_UNIT=a.service", "EMPTY="],
        "TimeoutStartUSec": 1_500_000,
        "TimeoutStopUSec": 5_000_000,
        "AddRef": True,
        "CollectMode": "inactive-or-failed",
    }


@pytest.mark.parametrize("result", ["success", "exit-code", "signal", "timeout", "oom-kill"])
def test_what_became_of_a_command(systemd: FakeSystemd1, manager: Manager, result: str):
    """Nothing is told while it runs; then its result, once, and the manager forgets it."""
    manager.start_command(COMMAND, ["/bin/true"], {}, 60)
    assert manager.command_result(COMMAND) is None
    systemd.end_command(COMMAND, result)
    assert manager.command_result(COMMAND) == result
    assert systemd.unit(COMMAND) is None
    with pytest.raises(NoSuchUnitError):
        manager.command_result(COMMAND)


def test_a_command_that_waits_to_be_started(systemd: FakeSystemd1, manager: Manager):
    """While its job is queued the unit is inactive, and its result is `success`: it is neither yet."""
    systemd.hold_jobs()
    manager.start_command(COMMAND, ["/bin/true"], {}, 60)
    assert manager.command_result(COMMAND) is None
    assert systemd.unit(COMMAND) is not None


@pytest.mark.parametrize("result", ["success", "exit-code"])
def test_a_command_of_a_connection_that_is_gone(systemd: FakeSystemd1, manager: Manager, result: str):
    """It's forgotten as it ends, with its result: no failed unit is left behind."""
    manager.start_command(COMMAND, ["/bin/true"], {}, 60)
    systemd.release(COMMAND)
    assert manager.command_result(COMMAND) is None
    systemd.end_command(COMMAND, result)
    with pytest.raises(NoSuchUnitError):
        manager.command_result(COMMAND)


def test_a_command_that_somebody_else_holds(systemd: FakeSystemd1, manager: Manager):
    """To let go of what isn't held is an error of no consequence: the result is known."""
    systemd.add(COMMAND, active_state="failed", result="exit-code")
    assert manager.command_result(COMMAND) == "exit-code"


def test_a_command_twice(systemd: FakeSystemd1, manager: Manager):
    """The name is taken: that is an error, and the first one goes on."""
    manager.start_command(COMMAND, ["/bin/true"], {}, 60)
    with pytest.raises(BusError, match="already loaded"):
        manager.start_command(COMMAND, ["/bin/true"], {}, 60)
    assert manager.command_result(COMMAND) is None


# --- refusals ---


@pytest.mark.parametrize(
    "name, hint",
    [
        (DBUS_ERROR + "AccessDenied", "root"),
        (DBUS_ERROR + "InteractiveAuthorizationRequired", "polkit"),
        (SYSTEMD_ERROR + "OnlyByDependency", None),
        (SYSTEMD_ERROR + "NoSuchProcess", None),
        (SYSTEMD_ERROR + "TransactionIsDestructive", None),
        (SYSTEMD_ERROR + "ShuttingDown", None),
        ("org.example.Unheard.Of", None),
    ],
)
@pytest.mark.parametrize("invocation", [True, False])
def test_refusals(systemd: FakeSystemd1, manager: Manager, name: str, hint: str | None, invocation: bool):
    """A refusal is told in the manager's words, with its name and a hint; the connection goes on."""
    unit = systemd.add("a.service")
    for method in ("Stop", "StopUnit"):
        systemd.refuse(method, name, "because I say so")
    with pytest.raises(BusError, match="because I say so") as error:
        manager.stop_unit("a.service", unit.invocation_id if invocation else None)
    assert not isinstance(error.value, BusLostError)
    assert error.value.name == name
    assert error.value.hint is None if hint is None else hint in str(error.value.hint)
    assert len(manager.list_units()) == 1


@pytest.mark.parametrize(
    "name",
    [
        DBUS_ERROR + "Disconnected",
        DBUS_ERROR + "NameHasNoOwner",
        DBUS_ERROR + "NoReply",
        DBUS_ERROR + "ServiceUnknown",
        DBUS_ERROR + "Spawn.ChildExited",
        DBUS_ERROR + "TimedOut",
        DBUS_ERROR + "Timeout",
        "System.Error.ECONNRESET",
        "System.Error.ENOTCONN",
        "System.Error.EPIPE",
        "System.Error.ESTALE",
    ],
)
def test_errors_that_mean_a_lost_manager(systemd: FakeSystemd1, manager: Manager, name: str):
    """Each of the errors after which only a new connection helps is told apart from a refusal."""
    systemd.refuse("ListUnits", name, "it is away")
    with pytest.raises(BusLostError, match="it is away") as error:
        manager.list_units()
    assert error.value.hint


def test_refused_following(systemd: FakeSystemd1, manager: Manager):
    """Who may not subscribe is told so."""
    systemd.refuse("Subscribe", DBUS_ERROR + "AccessDenied")
    with pytest.raises(BusError):
        manager.follow()


# --- a manager that is slow, away, or dead ---


CALLS: dict[str, Callable[[Manager], object]] = {
    "list_units": Manager.list_units,
    "describe": lambda manager: manager.describe("a.service"),
    "follow": Manager.follow,
    "stop_unit": lambda manager: manager.stop_unit("a.service", ID),
    "stop_unit by name": lambda manager: manager.stop_unit("a.service", None),
    "kill_unit": lambda manager: manager.kill_unit("a.service", ID, "all", 15),
    "kill_unit by name": lambda manager: manager.kill_unit("a.service", None, "all", 15),
    "restart_unit": lambda manager: manager.restart_unit("a.service", ID),
    "freeze_unit": lambda manager: manager.freeze_unit("a.service", ID),
    "set_size_properties": lambda manager: manager.set_size_properties("a.service", {"MemoryHigh": 1}, ID),
    "set_size_properties by name": lambda manager: manager.set_size_properties(
        "a.service", {"MemoryHigh": 1}
    ),
    "size_properties": lambda manager: manager.size_properties("a.service", ["MemoryHigh"]),
    "start_command": lambda manager: manager.start_command("b.service", ["/bin/true"], {}, 1),
    "command_result": lambda manager: manager.command_result("a.service"),
}
ANSWERED = (
    *("ListUnits", "GetUnit", "Subscribe", "Stop", "Kill", "Restart", "Freeze", "SetProperties"),
    *("StartTransientUnit", *BY_NAME, "Ping"),
)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_manager_that_hangs(systemd: FakeSystemd1, impatient: Manager, call: Callable[[Manager], object]):
    """A manager that doesn't answer costs a timeout, and is lost then."""
    systemd.hang(*ANSWERED)
    with pytest.raises(BusLostError):
        call(impatient)


@pytest.mark.parametrize("invocation", [ID, None], ids=["of a run", "by name"])
def test_a_freeze_that_takes_long_is_under_way_and_no_sign_of_a_manager_that_hangs(
    systemd: FakeSystemd1, impatient: Manager, invocation: str | None
):
    """PID 1 answers when the kernel is done, which a unit that is short of memory keeps waiting."""
    systemd.add("a.service", invocation_id=ID)
    systemd.hang("Freeze", "FreezeUnit")
    impatient.freeze_unit("a.service", invocation)
    assert impatient.lost is None
    assert impatient.describe("a.service").name == "a.service"


def test_an_answer_that_comes_too_late(systemd: FakeSystemd1, impatient: Manager):
    """An answer to a call that was given up is not taken for the answer to the next one."""
    systemd.add("a.service")
    systemd.delay("Id", 0.3)
    with pytest.raises(BusLostError):
        impatient.describe("a.service")
    time.sleep(0.2)
    impatient.follow()
    assert [unit.name for unit in impatient.list_units()] == ["a.service"]
    systemd.add("b.service")
    assert settled(impatient) == appeared("b.service")


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_manager_that_is_away(systemd: FakeSystemd1, manager: Manager, call: Callable[[Manager], object]):
    """The bus is there, but nobody answers to the manager's name; as it comes back, so do the answers."""
    manager.list_units()
    systemd.leave()
    with pytest.raises(BusLostError):
        call(manager)
    systemd.come_back()
    systemd.add("a.service", invocation_id=ID)
    call(manager)


def test_a_bus_that_dies(doomed: DoomedBus):
    """A dead bus is a lost connection at the first call, at the next ones, and after closing, whatever the call."""
    calls = {**CALLS, "changes": Manager.changes}
    managers = {name: Manager(address=doomed.address) for name in calls}
    for manager in managers.values():
        manager.follow()
    doomed.kill()

    def is_lost(name: str) -> bool:
        try:
            calls[name](managers[name])
        except BusLostError:
            return True
        return False

    found = {name: [is_lost(name) for _ in range(3)] for name in calls}
    for manager in managers.values():
        manager.close()
    assert {name: [*lost, is_lost(name)] for name, lost in found.items()} == dict.fromkeys(calls, [True] * 4)


def test_a_bus_that_dies_wakes(doomed: DoomedBus):
    """Who sleeps on the descriptor learns of the loss by waking up; it has no number after that."""
    with Manager(address=doomed.address) as manager:
        manager.follow()
        manager.changes()
        doomed.kill()
        assert select.select([manager], [], [], 10)[0] == [manager]
        with pytest.raises(BusLostError, match="connection reset by peer"):
            manager.changes()
        with pytest.raises(BusLostError):
            manager.fileno()


def test_a_bus_that_dies_during_a_call(doomed: DoomedBus):
    """A call that waits for its answer ends with the bus, and not with the timeout."""
    with Manager(address=doomed.address) as manager:
        manager.list_units()
        doomed.systemd.hang("Id")
        # pystemd holds the GIL while it waits, so another process has to do it
        code = f"import os, time; time.sleep(0.1); os.kill({doomed.daemon.pid}, 9)"
        with (
            subprocess.Popen([sys.executable, "-c", code]),
            pytest.raises(BusLostError, match=r"(?i)reset|not connected") as error,
        ):
            manager.describe("a.service")
        assert "timed out" not in str(error.value).lower()


def test_a_new_connection_after_a_lost_one(doomed: DoomedBus, systemd: FakeSystemd1):
    """A lost connection stays lost; a new one, to a bus that is there, works."""
    with Manager(address=doomed.address) as lost:
        doomed.kill()
        with pytest.raises(BusLostError):
            lost.list_units()
        with Manager(address=systemd.address) as found:
            found.follow()
            systemd.add("a.service")
            assert settled(found) == appeared("a.service")
        with pytest.raises(BusLostError):
            lost.list_units()


@pytest.mark.parametrize("kind", ManagerKind)
def test_no_bus(kind: ManagerKind, tmp_path: Path):
    """Without a bus there is a sentence with the reason, and a hint that fits the manager meant."""
    with pytest.raises(
        BusError, match=f"the {kind} bus can't be reached: no such file or directory"
    ) as error:
        Manager(kind, address=f"unix:path={tmp_path}/none")
    assert {"system": "dbus.service", "user": "XDG_RUNTIME_DIR"}[kind] in str(error.value.hint)


@pytest.mark.parametrize("address", ["", "nonsense", "unix:path=/", "unix:path=/dev/null"])
def test_a_bad_address(address: str):
    """An address that leads nowhere is no crash."""
    with pytest.raises(UnitmemError):
        Manager(address=address).list_units()


# --- closing ---


@pytest.mark.parametrize("call", [*CALLS.values(), Manager.changes, Manager.fileno])
def test_use_after_close(manager: Manager, call: Callable[[Manager], object]):
    """libsystemd would read freed memory: every method refuses before it gets there."""
    manager.follow()
    manager.close()
    manager.close()
    with pytest.raises(BusLostError, match="closed"):
        call(manager)


def test_closing_lets_go_of_the_descriptor(systemd: FakeSystemd1):
    """A daemon that connects anew for weeks must not run out of descriptors."""

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with Manager(address=systemd.address) as manager:
        manager.follow()
    before = descriptors()
    for _ in range(20):
        with Manager(address=systemd.address) as manager:
            manager.follow()
            manager.list_units()
    assert descriptors() == before


# --- endurance ---


@pytest.mark.timeout(method="thread")  # SIGALRM is taken
def test_signals_do_not_interrupt_calls(systemd: FakeSystemd1, manager: Manager):
    """A call that a signal handler interrupts would be given up, with its effect unknown; it isn't."""
    unit = systemd.add("a.service", dies=False)
    handled = []
    before = signal.signal(signal.SIGALRM, lambda *_: handled.append(1))
    try:
        for _ in range(20):
            systemd.delay("Kill", 0.01)
            signal.setitimer(signal.ITIMER_REAL, 0.002)
            manager.kill_unit("a.service", unit.invocation_id, "all", 15)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(handled) == 20, "deferred, and not lost"
    assert len(systemd.calls("Kill")) == 20


@pytest.mark.timeout(method="thread")
def test_an_interrupted_call_is_an_error_of_ours(
    systemd: FakeSystemd1, impatient: Manager, monkeypatch: pytest.MonkeyPatch
):
    """Should a call be interrupted all the same, by a signal not thought of, then it is a refusal."""
    monkeypatch.setattr("unitmem.manager.bus._DEFERRED", frozenset())
    systemd.hang("ListUnits")
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(BusError, match=r"(?i)interrupted"):
            impatient.list_units()
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", ["answers", "signals"])
def test_memory_stays(systemd: FakeSystemd1, manager: Manager, kind: str):
    """A thousand calls or signals more don't take memory in proportion: what is used is given back."""
    systemd.add("a.service", description="d" * 1000, control_group="/a", main_pid=1)
    manager.follow()

    def work(count: int) -> None:
        if kind == "answers":
            for _ in range(count // 10):
                manager.describe("a.service")
        else:
            for _ in range(count // 100):
                systemd.burst(["u" * 200 + ".service"] * 100)
                settled(manager)

    work(1000)
    memory, blocks = private_memory(), sys.getallocatedblocks()
    work(2000)
    # what leaked its message would keep half a KiB each, and a failing call of pystemd's keeps 1.2 KiB;
    # Python's own leaks show in its count of blocks, wherever earlier tests have left room for them
    assert (private_memory() - memory) / 2000 < 256
    assert (sys.getallocatedblocks() - blocks) / 2000 < 0.1


def private_memory() -> int:
    """Bytes of this process that are its own, without garbage."""
    gc.collect()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def test_a_bus_that_takes_connections_and_says_nothing_is_out_of_reach(tmp_path, monkeypatch):
    """libsystemd would wait 90 s for it, and with it whoever watches."""
    monkeypatch.setattr(handshake, "ANSWERS_WITHIN", 0.1)
    path = tmp_path / "bus"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        # in the end nobody has taken a connection for so long that there is no room for another one
        for _ in range(4):
            with pytest.raises(BusError, match="takes connections and doesn't answer"):
                Manager(address=f"unix:path={path},guid=0")
    with pytest.raises(BusError, match="connection refused"):
        Manager(address=f"unix:path={path}").ping()


@pytest.mark.parametrize(
    "address", ["unix:abstract=/tmp/x", "tcp:host=localhost,port=1", "unix:path=/tmp/%20x", ""]
)
def test_what_cannot_be_tried_is_left_to_libsystemd(address):
    assert handshake.answers(address)
