"""A service manager that does as tests tell it: org.freedesktop.systemd1 on a private bus.

It speaks the part of org.freedesktop.systemd1(5) that unitmem uses, with real messages through a real
dbus-daemon, so that the real pystemd talks to it. It needs a process of its own, since pystemd holds
the GIL while it waits for an answer. Run as a program it is that process, which reads commands as
JSON lines; `FakeSystemd1` is the tests' side of it.

Properties exist on the interfaces where systemd 252 has them and nowhere else, and an object path may
hold an invocation ID in place of a name, as in manager_load_unit_from_dbus_path() of systemd.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

NAME = "org.freedesktop.systemd1"
ROOT_PATH = "/org/freedesktop/systemd1"
UNIT_PREFIX = ROOT_PATH + "/unit/"
JOB_PATH = ROOT_PATH + "/job/1"
MANAGER = NAME + ".Manager"
PROPERTIES = "org.freedesktop.DBus.Properties"

_KIND_PROPERTIES = {
    "service": ("ControlGroup", "Slice", "Result", "MainPID", "ControlPID"),
    "scope": ("ControlGroup", "Slice", "Result"),
    "slice": ("ControlGroup", "Slice"),
    "socket": ("ControlGroup", "Slice", "Result", "ControlPID"),
    "mount": ("ControlGroup", "Slice", "Result", "ControlPID"),
    "swap": ("ControlGroup", "Slice", "Result", "ControlPID"),
}
INFINITY = 2**64 - 1
# the least that each takes (bus_cgroup_set_property() of systemd), and the file that it is written to
_SIZES = {
    "MemoryMin": (0, "memory.min"),
    "MemoryLow": (0, "memory.low"),
    "MemoryHigh": (1, "memory.high"),
    "MemoryMax": (1, "memory.max"),
    "MemorySwapMax": (0, "memory.swap.max"),
}
_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
# what a transient service may be given, and of which type each is
_TRANSIENT = {
    "AddRef": "b",
    "CollectMode": "s",
    "Description": "s",
    "Environment": "as",
    "ExecStart": "a(sasb)",
    "TimeoutStartUSec": "t",
    "TimeoutStopUSec": "t",
    "Type": "s",
}
_DEPENDENTS = (
    "RequiredBy",
    "RequisiteOf",
    "BoundBy",
    "UpheldBy",
    "ConsistsOf",
    "TriggeredBy",
    "PropagatesStopTo",
)


def new_invocation_id() -> str:
    return uuid.uuid4().hex


@dataclass
class FakeUnit:
    """What the manager has to say about one unit."""

    name: str
    description: str = ""
    load_state: str = "loaded"
    active_state: str = "active"
    sub_state: str = "running"
    invocation_id: str = field(default_factory=new_invocation_id)
    """32 hex digits, or empty."""
    control_group: str = ""
    slice: str = "system.slice"
    main_pid: int = 0
    control_pid: int = 0
    aliases: tuple[str, ...] = ()
    directory: str | None = None
    """The directory that plays its cgroup: removed as it stops."""
    stops: bool = True
    """Whether it ends when it is asked to."""
    dies: bool = True
    """Whether it ends when it is killed."""
    transient: bool = False
    """Whether it is unloaded as it ends."""
    dependents: dict[str, list[str]] = field(default_factory=dict)
    """The names of other units, by the property that has them."""
    restarts: str = "up"
    """What a restart leads to: `up`, `down`, `start-limit-hit`, or `hangs`, which takes a SIGKILL to go on."""
    refuses_manual_start: bool = False
    refuses_manual_stop: bool = False
    start_limit: tuple[int, int] = (5, 10_000_000)
    """StartLimitBurst= and StartLimitIntervalSec= in µs."""
    freezes: bool = True
    """Whether its processes stand still when they are to be frozen, and go on when thawed."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Its MemoryHigh= and the like; what isn't in here is infinity."""
    applies: bool = True
    """Whether its cgroup's files follow what is set."""
    result: str = "success"
    active_enter: int = 0
    """When it became active, in microseconds of the monotonic clock."""
    inactive_exit: int = 0
    """When it began to start."""
    collect_mode: str = "inactive"
    referenced_by: list[str] = field(default_factory=list)
    """Addresses of the connections that hold it."""
    restart_queued: bool = False

    @property
    def kind(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def interface(self) -> str:
        """The interface of its kind."""
        return f"{NAME}.{self.kind.capitalize()}"

    def properties(self, interface: str) -> dict[str, Variant]:
        if interface == NAME + ".Unit":
            return {
                "Id": Variant("s", self.name),
                "Description": Variant("s", self.description),
                "LoadState": Variant("s", self.load_state),
                "ActiveState": Variant("s", self.active_state),
                "SubState": Variant("s", self.sub_state),
                "InvocationID": Variant("ay", bytes.fromhex(self.invocation_id)),
                "RefuseManualStart": Variant("b", self.refuses_manual_start),
                "RefuseManualStop": Variant("b", self.refuses_manual_stop),
                "StartLimitBurst": Variant("u", self.start_limit[0]),
                "StartLimitIntervalUSec": Variant("t", self.start_limit[1]),
                "ActiveEnterTimestampMonotonic": Variant("t", self.active_enter),
                "InactiveExitTimestampMonotonic": Variant("t", self.inactive_exit),
                **{name: Variant("as", self.dependents.get(name, [])) for name in _DEPENDENTS},
            }
        if interface != self.interface:
            return {}
        every = {
            "ControlGroup": Variant("s", self.control_group),
            "Slice": Variant("s", self.slice),
            "Result": Variant("s", self.result),
            "MainPID": Variant("u", self.main_pid),
            "ControlPID": Variant("u", self.control_pid),
        }
        found = {name: every[name] for name in _KIND_PROPERTIES.get(self.kind, ())}
        sizes = {name: Variant("t", self.sizes.get(name, INFINITY)) for name in _SIZES}
        return {**found, **sizes} if found else {}


class RefusalError(Exception):
    """An error reply: its D-Bus name and text."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


def no_such_unit(name: str) -> RefusalError:
    return RefusalError(NAME + ".NoSuchUnit", f"Unit {name} not loaded.")


class Daemon:
    """The process: one connection to the bus, and what the tests want it to do there."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.bus: MessageBus | None = None
        self.answering: set[asyncio.Task[None]] = set()
        self.forget()

    def forget(self) -> None:
        self.units: dict[str, FakeUnit] = {}
        self.calls: list[list[Any]] = []
        self.hangs: set[str] = set()
        self.delays: dict[str, float] = {}
        self.refusals: dict[str, tuple[str, str]] = {}
        self.holds_jobs = False
        self.control_group = ""
        self.interludes: dict[str, list[dict[str, Any]]] = {}
        """Commands to run as a method is called, before it answers."""

    async def run(self) -> None:
        await self.join()
        reader = asyncio.StreamReader(limit=2**24)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            try:
                answer: Any = {"value": await self.obey(json.loads(line))}
            except Exception as error:  # noqa: BLE001 - it is raised on the tests' side
                answer = {"error": repr(error)}
            print(json.dumps(answer), flush=True)

    async def obey(self, command: dict[str, Any]) -> Any:
        arguments = dict(command)
        result = getattr(self, "do_" + arguments.pop("do"))(**arguments)
        return await result if asyncio.iscoroutine(result) else result

    async def join(self) -> None:
        self.bus = await MessageBus(bus_address=self.address).connect()
        self.bus.add_message_handler(self.handle)
        await self.bus.request_name(NAME)

    # --- what tests ask for ---

    async def do_reset(self) -> None:
        self.forget()
        await self.do_come_back()

    def do_add(self, unit: dict[str, Any], *, announce: bool = True) -> None:
        added = FakeUnit(**unit)
        self.units[added.name] = added
        if announce:
            self.announce("UnitNew", added)

    def do_change(self, name: str, **values: Any) -> None:
        for key, value in values.items():
            setattr(self.units[name], key, value)

    def do_remove(self, name: str, *, announce: bool = True) -> None:
        unit = self.units.pop(name)
        if announce:
            self.announce("UnitRemoved", unit)

    def do_restart(self, name: str, *, announce: bool = True, **values: Any) -> str:
        unit = self.units[name]
        unit.invocation_id = new_invocation_id()
        self.do_change(name, **values)
        if announce:
            self.job("JobNew", name)
            self.job("JobRemoved", name)
        return unit.invocation_id

    def do_be_in(self, control_group: str) -> None:
        self.control_group = control_group

    def do_hold_jobs(self) -> None:
        self.holds_jobs = True

    def do_end_command(self, name: str, result: str) -> None:
        unit = self.units[name]
        unit.result = result
        unit.active_state = "inactive" if result == "success" else "failed"
        self.collect(unit)

    def do_release(self, name: str) -> None:
        """Forget who holds it, as when their connection ends."""
        self.units[name].referenced_by.clear()
        self.collect(self.units[name])

    def do_job(self, signal: str, name: str) -> None:
        self.job(signal, name)

    def do_end(self, name: str, result: str) -> None:
        """Say Result= of a unit, as at each change of its state, with some of what else is said then."""
        unit = self.units[name]
        unit.result = result
        interface = f"{NAME}.{unit.kind.capitalize()}"
        said = unit.properties(interface)
        changed = {name: said[name] for name in ("Result", "MainPID", "ControlPID") if name in said}
        body = [interface, changed, ["ExecStart"]]
        self.signal("PropertiesChanged", "sa{sv}as", body, path_of(name), PROPERTIES)
        body = [NAME + ".Unit", {"ActiveState": Variant("s", unit.active_state)}, []]
        self.signal("PropertiesChanged", "sa{sv}as", body, path_of(name), PROPERTIES)

    def do_reloading(self, *, active: bool) -> None:
        self.signal("Reloading", "b", [active])

    def do_burst(self, names: list[str]) -> None:
        if self.bus is None:
            return
        self.bus._sock.setblocking(True)  # a socket that is full for now ends dbus-fast's connection
        try:
            for name in names:
                self.signal("UnitNew", "so", [name, path_of(name)])
        finally:
            self.bus._sock.setblocking(False)

    def do_hang(self, methods: list[str]) -> None:
        self.hangs = set(methods)

    def do_delay(self, method: str, seconds: float) -> None:
        self.delays[method] = seconds

    def do_refuse(self, method: str, name: str, text: str) -> None:
        self.refusals[method] = (name, text)

    def do_allow(self, method: str) -> None:
        del self.refusals[method]

    def do_interlude(self, method: str, commands: list[dict[str, Any]]) -> None:
        self.interludes[method] = commands

    async def do_leave(self) -> None:
        """Give the name up, as a manager that isn't there any more."""
        if self.bus is not None:
            await self.bus.release_name(NAME)

    async def do_disconnect(self) -> None:
        if self.bus is not None:
            self.bus.disconnect()
            await self.bus.wait_for_disconnect()
            self.bus = None

    async def do_come_back(self) -> None:
        """Own the name, by the same connection or by a new one."""
        if self.bus is None or not self.bus.connected:
            await self.join()
        else:
            await self.bus.request_name(NAME)

    async def do_forge(
        self, destination: str, member: str, unit: str, times: int, interface: str, signature: str
    ) -> None:
        """Send a manager's signal straight to `destination` from a connection that isn't the manager."""
        stranger = await MessageBus(bus_address=self.address).connect()
        message = Message(
            message_type=MessageType.SIGNAL,
            destination=destination,
            path=ROOT_PATH if interface == MANAGER else UNIT_PREFIX + "a_2eservice",
            interface=interface,
            member=member,
            signature=signature,
            body={"so": [unit, UNIT_PREFIX + "x"], "sa{sv}as": [unit, {"Result": Variant("s", unit)}, []]}[
                signature
            ],
        )
        for _ in range(times):
            await stranger.send(message)
            # an answered call is proof that the bus has passed on what was sent before it
            await stranger.introspect("org.freedesktop.DBus", "/org/freedesktop/DBus")
        stranger.disconnect()

    def do_unit(self, name: str) -> dict[str, Any] | None:
        return asdict(self.units[name]) if name in self.units else None

    def do_calls(self) -> list[list[Any]]:
        return self.calls

    # --- the bus ---

    def handle(self, message: Message) -> Message | bool | None:
        if message.message_type is not MessageType.METHOD_CALL:
            return None
        if not message.path.startswith(ROOT_PATH):
            return None
        method = message.body[1] if message.member == "Get" else message.member
        self.calls.append([message.path, message.interface, method, plain(message.body)])
        if method in self.hangs:
            return True
        task = asyncio.ensure_future(self.answer(message, method))
        self.answering.add(task)
        task.add_done_callback(self.answering.discard)
        return True

    async def answer(self, message: Message, method: str) -> None:
        bus = self.bus
        if bus is None:
            return
        for command in self.interludes.pop(method, []):
            await self.obey(command)
        if method in self.delays:
            await asyncio.sleep(self.delays.pop(method))
        if method in self.refusals:
            await bus.send(Message.new_error(message, *self.refusals[method]))
            return
        try:
            reply = Message.new_method_return(message, *self.reply_to(message))
        except RefusalError as refusal:
            reply = Message.new_error(message, refusal.name, str(refusal))
        await bus.send(reply)

    def reply_to(self, message: Message) -> tuple[str, list[Any]]:
        match message.interface, message.member, *message.body:
            case "org.freedesktop.systemd1.Manager", "ListUnits":
                return "a(ssssssouso)", [[self.row(unit) for unit in self.units.values()]]
            case ("org.freedesktop.systemd1.Manager", "Subscribe") | ("org.freedesktop.DBus.Peer", "Ping"):
                return "", []
            case "org.freedesktop.systemd1.Manager", "GetUnit", name:
                return "o", [path_of(self.loaded(name).name)]
            case "org.freedesktop.systemd1.Manager", "StopUnit", name, "replace":
                return self.stop(self.loaded(name))
            case "org.freedesktop.systemd1.Manager", "KillUnit", name, whom, number:
                return self.kill(self.loaded(name), whom, number)
            case "org.freedesktop.systemd1.Manager", "RestartUnit", name, "replace":
                return self.restart(self.loaded(name))
            case "org.freedesktop.systemd1.Manager", "FreezeUnit", name:
                return self.freeze(self.loaded(name), frozen=True)
            case "org.freedesktop.systemd1.Manager", "ThawUnit", name:
                return self.freeze(self.loaded(name), frozen=False)
            case "org.freedesktop.systemd1.Manager", "SetUnitProperties", name, True, values:
                return self.set(self.loaded(name), values)
            case "org.freedesktop.systemd1.Manager", "StartTransientUnit", name, "fail", values, []:
                return self.start_transient(name, values, message.sender)
            case "org.freedesktop.systemd1.Unit", "Restart", "replace":
                return self.restart(self.addressed(message.path))
            case "org.freedesktop.systemd1.Unit", "Freeze":
                return self.freeze(self.addressed(message.path), frozen=True)
            case "org.freedesktop.systemd1.Unit", "Thaw":
                return self.freeze(self.addressed(message.path), frozen=False)
            case "org.freedesktop.systemd1.Unit", "SetProperties", True, values:
                return self.set(self.addressed(message.path), values)
            case "org.freedesktop.systemd1.Unit", "Unref":
                return self.unref(self.addressed(message.path), message.sender)
            case "org.freedesktop.systemd1.Unit", "Stop", "replace":
                return self.stop(self.addressed(message.path))
            case "org.freedesktop.systemd1.Unit", "Kill", whom, number:
                return self.kill(self.addressed(message.path), whom, number)
            case "org.freedesktop.DBus.Properties", "Get", "org.freedesktop.systemd1.Manager", "ControlGroup":
                return "v", [Variant("s", self.control_group)]
            case "org.freedesktop.DBus.Properties", "GetAll", "":
                unit = self.addressed(message.path)
                return "a{sv}", [unit.properties(NAME + ".Unit") | unit.properties(unit.interface)]
            case "org.freedesktop.DBus.Properties", "Get", interface, name:
                unit = self.addressed(message.path)
                try:
                    return "v", [unit.properties(interface)[name]]
                except KeyError:
                    raise RefusalError(
                        "org.freedesktop.DBus.Error.UnknownProperty",
                        f"Unknown interface {interface} or property {name}.",
                    ) from None
        raise RefusalError("org.freedesktop.DBus.Error.UnknownMethod", f"Unknown method {message.member}.")

    def row(self, unit: FakeUnit) -> list[Any]:
        return [
            unit.name, unit.description, unit.load_state, unit.active_state, unit.sub_state,
            "", path_of(unit.name), 0, "", "/",
        ]  # fmt: skip

    def loaded(self, name: str) -> FakeUnit:
        for unit in self.units.values():
            if name == unit.name or name in unit.aliases:
                return unit
        raise no_such_unit(name)

    def addressed(self, path: str) -> FakeUnit:
        """The unit of an object path; one that isn't loaded is loaded, and so not found."""
        name = name_of(path)
        if len(name) == 32 and set(name) <= set("0123456789abcdef"):
            for unit in self.units.values():
                if unit.invocation_id == name:
                    return unit
            raise RefusalError(
                NAME + ".NoUnitForInvocationID", f"No unit with the specified invocation ID {name} known."
            )
        try:
            return self.loaded(name)
        except RefusalError:
            return FakeUnit(name, load_state="not-found", active_state="inactive", invocation_id="")

    def check_manual(self, unit: FakeUnit, *, is_refused: bool) -> None:
        """Refuse a request as bus_unit_queue_job() of systemd does."""
        if is_refused:
            raise RefusalError(
                NAME + ".OnlyByDependency",
                f"Operation refused, unit {unit.name} may be requested by dependency only "
                "(it is configured to refuse manual start/stop).",
            )

    def check_loaded(self, unit: FakeUnit) -> None:
        """Refuse a start as bus_unit_validate_load_state() of systemd does."""
        refusals = {
            "not-found": ("NoSuchUnit", "not found"),
            "bad-setting": ("BadUnitSetting", "has a bad unit file setting"),
            "masked": ("UnitMasked", "is masked"),
        }
        if unit.load_state in refusals:
            name, what = refusals[unit.load_state]
            raise RefusalError(f"{NAME}.{name}", f"Unit {unit.name} {what}.")

    def stop(self, unit: FakeUnit) -> tuple[str, list[Any]]:
        self.check_manual(unit, is_refused=unit.refuses_manual_stop)
        self.job("JobNew", unit.name)
        if unit.stops:
            asyncio.get_running_loop().call_soon(self.end, unit)
        return "o", [JOB_PATH]

    def kill(self, unit: FakeUnit, whom: str, number: int) -> tuple[str, list[Any]]:
        if whom == "main" and not unit.main_pid:
            raise RefusalError(NAME + ".NoSuchProcess", "No main process to kill")
        if whom == "control" and not unit.control_pid:
            raise RefusalError(NAME + ".NoSuchProcess", "No control process to kill")
        if number == 9 and unit.dies:
            asyncio.get_running_loop().call_soon(self.come_up if unit.restart_queued else self.end, unit)
        return "", []

    def restart(self, unit: FakeUnit) -> tuple[str, list[Any]]:
        self.check_manual(unit, is_refused=unit.refuses_manual_start or unit.refuses_manual_stop)
        self.check_loaded(unit)
        self.job("JobNew", unit.name)
        unit.restart_queued = True
        ways = {"up": self.come_up, "down": self.stay_down, "start-limit-hit": self.hit_the_start_limit}
        then = ways.get(unit.restarts)
        if then is not None:
            asyncio.get_running_loop().call_soon(then, unit)
        return "o", [JOB_PATH]

    def come_up(self, unit: FakeUnit) -> None:
        """Another run, in a cgroup of its own."""
        unit.active_state, unit.sub_state = "active", "running"
        unit.invocation_id, unit.restart_queued = new_invocation_id(), False
        if unit.directory is not None:
            old = Path(unit.directory)
            kept = old.rename(old.with_name(f".{old.name}"))  # or its inode number would be used again
            old.mkdir()
            shutil.rmtree(kept)
        self.job("JobRemoved", unit.name)

    def stay_down(self, unit: FakeUnit) -> None:
        """Another run, which fails at once."""
        self.end(unit)
        unit.active_state, unit.sub_state, unit.result = "failed", "failed", "exit-code"
        unit.invocation_id, unit.restart_queued = new_invocation_id(), False

    def hit_the_start_limit(self, unit: FakeUnit) -> None:
        """No other run, so the invocation stays."""
        self.end(unit)
        unit.active_state, unit.sub_state, unit.result = "failed", "failed", "start-limit-hit"
        unit.restart_queued = False

    def freeze(self, unit: FakeUnit, *, frozen: bool) -> tuple[str, list[Any]]:
        if unit.active_state != "active":
            raise RefusalError(NAME + ".UnitInactive", "Unit is not active.")
        if unit.directory is not None and unit.freezes:
            Path(unit.directory, "cgroup.events").write_text(f"populated 1\nfrozen {int(frozen)}\n")
        return "", []

    def set(self, unit: FakeUnit, values: list[Any]) -> tuple[str, list[Any]]:
        if unit.load_state == "not-found":
            raise no_such_unit(unit.name)
        for name, value in values:
            if name not in _SIZES or value.signature != "t":
                raise RefusalError(
                    "org.freedesktop.DBus.Error.PropertyReadOnly",
                    f"Cannot set property {name}, or unknown property.",
                )
            if value.value < _SIZES[name][0]:
                raise RefusalError("org.freedesktop.DBus.Error.InvalidArgs", f"{name}= is out of range.")
        for name, value in values:
            size = value.value
            unit.sizes[name] = size
            if unit.applies and unit.directory is not None:
                text = "max" if size == INFINITY else size // _PAGE_SIZE * _PAGE_SIZE
                Path(unit.directory, _SIZES[name][1]).write_text(f"{text}\n")
        return "", []

    def start_transient(self, name: str, values: list[Any], sender: str | None) -> tuple[str, list[Any]]:
        if name in self.units:
            raise RefusalError(
                NAME + ".UnitExists", f"Unit {name} was already loaded or has a fragment file."
            )
        for key, value in values:
            if _TRANSIENT.get(key) != value.signature:
                raise RefusalError(
                    "org.freedesktop.DBus.Error.PropertyReadOnly",
                    f"Cannot set property {key}, or unknown property.",
                )
        given = {key: value.value for key, value in values}
        # until its job is run it is as inactive, and as successful, as one that is done
        unit = FakeUnit(name, given.get("Description", ""), active_state="inactive", invocation_id="")
        unit.collect_mode = given.get("CollectMode", "inactive")
        if given.get("AddRef"):
            unit.referenced_by.append(str(sender))
        self.units[name] = unit
        self.announce("UnitNew", unit)
        self.job("JobNew", name)
        if not self.holds_jobs:
            asyncio.get_running_loop().call_soon(self.begin, unit)
        return "o", [JOB_PATH]

    def begin(self, unit: FakeUnit) -> None:
        unit.active_state, unit.sub_state, unit.invocation_id = "activating", "start", new_invocation_id()

    def unref(self, unit: FakeUnit, sender: str | None) -> tuple[str, list[Any]]:
        if sender not in unit.referenced_by:
            raise RefusalError(NAME + ".NotReferenced", "Unit has not been referenced yet.")
        unit.referenced_by.remove(sender)
        self.collect(unit)
        return "", []

    def collect(self, unit: FakeUnit) -> None:
        """Unload a transient unit that nobody needs any more; see CollectMode= in systemd.unit(5)."""
        is_done = unit.active_state == "inactive" or (
            unit.active_state == "failed" and unit.collect_mode == "inactive-or-failed"
        )
        if is_done and not unit.referenced_by:
            self.do_remove(unit.name)

    def end(self, unit: FakeUnit) -> None:
        unit.active_state, unit.sub_state = "inactive", "dead"
        unit.control_group, unit.main_pid, unit.control_pid = "", 0, 0
        if unit.directory is not None:
            shutil.rmtree(unit.directory)
        self.job("JobRemoved", unit.name)
        if unit.transient:
            self.do_remove(unit.name)

    def announce(self, signal: str, unit: FakeUnit) -> None:
        self.signal(signal, "so", [unit.name, path_of(unit.name)])

    def job(self, signal: str, name: str) -> None:
        if signal == "JobNew":
            self.signal(signal, "uos", [1, JOB_PATH, name])
        else:
            self.signal(signal, "uoss", [1, JOB_PATH, name, "done"])

    def signal(
        self, member: str, signature: str, body: list[Any], path: str = ROOT_PATH, interface: str = MANAGER
    ) -> None:
        if self.bus is not None:
            self.bus.send(Message.new_signal(path, interface, member, signature, body))


def plain(value: Any) -> Any:
    """What a message holds, without the types of its variants."""
    if isinstance(value, Variant):
        return plain(value.value)
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def path_of(name: str) -> str:
    """sd_bus_path_encode(3): a name as the last part of an object path."""
    return UNIT_PREFIX + "".join(
        c if c.isascii() and c.isalnum() and not (i == 0 and c.isdigit()) else f"_{ord(c):02x}"
        for i, c in enumerate(name)
    )


def name_of(path: str) -> str:
    parts = path.removeprefix(UNIT_PREFIX).split("_")
    return parts[0] + "".join(chr(int(part[:2], 16)) + part[2:] for part in parts[1:])


# --- the tests' side -------------------------------------------------------------------------------


class FakeSystemd1:
    """A handle on the process: each method tells it something, and returns once that is done."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._process = subprocess.Popen(
            [sys.executable, __file__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.reset()

    def close(self) -> None:
        self._process.communicate()

    def reset(self) -> None:
        """Know no unit, hold no grudge, and own the name."""
        self._tell("reset")

    def add(self, name: str, *, announce: bool = True, **values: Any) -> FakeUnit:
        unit = FakeUnit(name, **values)
        self._tell("add", unit=asdict(unit), announce=announce)
        return unit

    def change(self, name: str, **values: Any) -> None:
        """Change what is said of a unit, without a signal."""
        self._tell("change", name=name, **values)

    def remove(self, name: str, *, announce: bool = True) -> None:
        self._tell("remove", name=name, announce=announce)

    def restart(self, name: str, *, announce: bool = True, **values: Any) -> str:
        """Start it anew; the new invocation ID."""
        return str(self._tell("restart", name=name, announce=announce, **values))

    def end(self, name: str, result: str) -> None:
        """Send PropertiesChanged of a unit with that Result, as it ends, or (`success`) as it is started again."""
        self._tell("end", name=name, result=result)

    def be_in(self, control_group: str) -> None:
        """Have all units below that cgroup, as a user's manager has."""
        self._tell("be_in", control_group=control_group)

    def hold_jobs(self) -> None:
        """Start no transient unit from here on: their jobs stay in the queue."""
        self._tell("hold_jobs")

    def end_command(self, name: str, result: str = "success") -> None:
        """A transient service is done, with that Result."""
        self._tell("end_command", name=name, result=result)

    def release(self, name: str) -> None:
        """Have nobody hold a transient unit any more."""
        self._tell("release", name=name)

    def unit(self, name: str) -> FakeUnit | None:
        """The unit as it is now; None when it isn't loaded."""
        found = self._tell("unit", name=name)
        return None if found is None else FakeUnit(**found)

    def job(self, signal: str, name: str) -> None:
        """Send JobNew or JobRemoved of a unit."""
        self._tell("job", signal=signal, name=name)

    def reloading(self, *, active: bool = False) -> None:
        self._tell("reloading", active=active)

    def burst(self, names: list[str]) -> None:
        """Send UnitNew of each, at once."""
        self._tell("burst", names=names)

    def hang(self, *methods: str) -> None:
        """Leave calls of these methods, or readings of these properties, without an answer from here on."""
        self._tell("hang", methods=methods)

    def delay(self, method: str, seconds: float) -> None:
        """Answer the next call of `method` that late."""
        self._tell("delay", method=method, seconds=seconds)

    def refuse(self, method: str, name: str, text: str = "no") -> None:
        """Answer `method` with the D-Bus error `name` from here on."""
        self._tell("refuse", method=method, name=name, text=text)

    def allow(self, method: str) -> None:
        """Refuse it no longer."""
        self._tell("allow", method=method)

    def interlude(self, method: str, *commands: dict[str, Any]) -> None:
        """Before `method` is answered the next time, do as `commands` say: `{"do": "restart", …}`."""
        self._tell("interlude", method=method, commands=commands)

    def leave(self) -> None:
        """Be gone from the bus, while the bus stays."""
        self._tell("leave")

    def reexec(self) -> None:
        """Come back under another unique name, as systemd does after `daemon-reexec`."""
        self._tell("disconnect")
        self._tell("come_back")

    def come_back(self) -> None:
        self._tell("come_back")

    def forge(self, destination: str, member: str, unit: str, times: int = 1, **kind: str) -> None:
        """Have somebody else send the manager's signal `member`, straight to `destination`."""
        kind = {"interface": MANAGER, "signature": "so", **kind}
        self._tell("forge", destination=destination, member=member, unit=unit, times=times, **kind)

    def calls(self, *methods: str) -> list[tuple[str, list[Any]]]:
        """(method or property, arguments) of every call so far; of `methods` only, if there are any."""
        calls = [(method, body) for _, _, method, body in self._tell("calls")]
        return [call for call in calls if not methods or call[0] in methods]

    def _tell(self, do: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["value"]


@contextmanager
def private_bus(directory: Path) -> Iterator[str]:
    """A dbus-daemon of its own, where everybody may do everything; its address."""
    with running_bus(directory) as (address, _):
        yield address


@contextmanager
def running_bus(directory: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A private bus and its process, for tests that end it early."""
    config = directory / "bus.conf"
    config.write_text(
        f"""<busconfig>
          <type>custom</type>
          <listen>unix:path={directory}/bus</listen>
          <auth>EXTERNAL</auth>
          <policy context="default">
            <allow send_destination="*" eavesdrop="true"/>
            <allow eavesdrop="true"/>
            <allow own="*"/>
          </policy>
        </busconfig>"""
    )
    daemon = subprocess.Popen(
        ["dbus-daemon", "--nofork", "--nopidfile", f"--config-file={config}", "--print-address=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,  # says that it would like to have more file descriptors
        text=True,
    )
    assert daemon.stdout is not None
    assert daemon.stderr is not None
    try:
        address = daemon.stdout.readline().strip()
        if not address:
            raise RuntimeError(daemon.stderr.read())
        yield address, daemon
    finally:
        daemon.kill()
        daemon.communicate()


if __name__ == "__main__":
    asyncio.run(Daemon(sys.argv[1]).run())
