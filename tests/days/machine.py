"""A machine of made services, in which time passes look by look, and to which what a policy decides is done.

A service is a function of the time it has been up: what it would hold if nobody took anything back. The machine does to
it what a kernel does: page cache is dropped at a limit, anonymous memory goes to swap where there is some, and what
still doesn't fit is OOM-killed, after which systemd starts the service again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from unitmem.kernel.cgroup import CgroupReading
from unitmem.kernel.host import Host, impossible_meminfo
from unitmem.kernel.limits import Level, level_of
from unitmem.kernel.oom_preference import OomPreference
from unitmem.measure.formulas import host_values, unit_values
from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy.actions import Kill, Restart, Signal, Stop, Target
from unitmem.policy.decision import Decision, Outcome, Result
from unitmem.policy.engine import evaluate
from unitmem.policy.model import Mode, PolicyFile
from unitmem.policy.state import State, conclude, restart_timers
from unitmem.record.clock import Instant
from unitmem.record.state_file import Remembered, Store
from unitmem.unit import Invocation, Unit

M = 2**20
G = 2**30
MINUTE = 60.0
HOUR = 3600.0
DAY = 24 * HOUR


@dataclass(frozen=True)
class Need:
    """What a service wants to hold at one instant, in bytes."""

    anon: float = 0.0
    cache: float = 0.0
    """Page cache; the kernel takes it back when there is no room."""
    shmem: float = 0.0
    sock: float = 0.0
    worker: float = 0.0
    """PSS of its largest process; 0 where nobody asks."""


Behaviour = Callable[[float, float, random.Random], Need]
"""(seconds up, seconds since the machine's midnight, its own dice) -> what it needs."""


@dataclass(frozen=True)
class Service:
    """A service of the machine, with its limits in bytes."""

    name: str
    behaviour: Behaviour
    max: int | None = None
    high: int | None = None
    starts: float = 0.0
    restarts: bool = True
    """Whether systemd starts it again when it was OOM-killed."""
    slice: str = "system.slice"
    preference: OomPreference = OomPreference.NONE
    is_stubborn: bool = False
    """Whether it refuses to be stopped."""


@dataclass(frozen=True)
class Did:
    """Something that happened to a unit."""

    at: float
    unit: str
    action: str
    """An action's word, or `oom` for the kernel's own."""


@dataclass(frozen=True)
class Machine:
    """The machine, its services, and how it is looked at."""

    services: tuple[Service, ...]
    total: int = 16 * G
    swap: int = 0
    lasts: float = DAY
    look: float = 20.0
    """Seconds between two looks, also the interval of the policies."""
    spoil: Callable[[float, dict[str, int]], dict[str, int]] = lambda _, meminfo: meminfo
    """What /proc/meminfo says, where that isn't what is true."""
    is_looking: Callable[[float], bool] = lambda _: True
    """Whether there is a look at that time: there is none while the machine is suspended, or the watch is starved."""
    limits: Callable[[float, Service], int | None] = lambda _, service: service.max
    """memory.max of a service at that time, for limits that are changed live."""
    slices: tuple[str, ...] = ()
    """The slices that are looked at as units of their own."""
    slice_max: Mapping[str, int] = field(default_factory=dict)
    """memory.max of slices, for all units in them together."""
    is_unreadable: Callable[[float, Service], bool] = lambda _, service: False
    """Whether memory.stat of a service can't be read at that time."""
    suspends: tuple[float, ...] = ()
    """When the machine was suspended for a while: time goes on from there, and so does what runs."""
    wall: Callable[[float], float] = lambda now: now
    """The wall clock at that time."""
    restarts: tuple[float, ...] = ()
    """When the watch is restarted."""


@dataclass
class _Run:
    """One run of a service."""

    service: Service
    number: int
    since: float
    events: dict[str, int] = field(default_factory=lambda: {"high": 0, "max": 0, "oom": 0, "oom_kill": 0})
    lost: float = 0.0
    """Bytes that a signal made it give back, or that its largest worker had."""


@dataclass(frozen=True)
class _Held:
    """What a run holds once the kernel has had its say."""

    need: Need
    cache: float
    swap: float
    stall: float
    """Share of time in which all of it waits for memory, in percent."""

    @property
    def resident(self) -> float:
        return self.need.anon + self.need.shmem + self.need.sock - self.swap

    @property
    def current(self) -> float:
        return self.resident + self.cache


def live(
    machine: Machine, file: PolicyFile, seed: int = 0, look: Callable[[Sample], None] = lambda _: None
) -> Iterator[Did | Decision]:
    """Yield all that happens on `machine` while `file` governs it, in the order of time; `look` gets each sample."""
    dice = {service.name: random.Random(f"{seed} {service.name}") for service in machine.services}
    file = replace(
        file,
        interval=machine.look,
        policies=tuple(replace(policy, mode=Mode.ACT) for policy in file.policies),
    )
    runs: dict[str, _Run] = {}
    state = State()
    now = 0.0
    while now < machine.lasts:
        for service in machine.services:
            if service.name not in runs and service.starts <= now < service.starts + machine.look:
                runs[service.name] = _Run(service, 1, now)
        held = {name: _settle(machine, run, now, dice[name]) for name, run in runs.items()}
        for name in _overfull(machine, runs, held, now):
            run = runs[name]
            run.events["oom_kill"] += 1
            yield Did(now, name, "oom")
            if run.service.restarts:
                runs[name] = _Run(run.service, run.number + 1, now)
                held[name] = _settle(machine, runs[name], now, dice[name])
            else:
                del runs[name], held[name]
        if any(now <= at < now + machine.look for at in machine.suspends):
            state = restart_timers(state)
        if any(now <= at < now + machine.look for at in machine.restarts):
            state = _restarted(state, file, machine.wall, now)
        if machine.is_looking(now):
            sample = _sample(machine, runs, held, now)
            look(sample)
            state, decisions = evaluate(file, sample, state, now)
            for decision in decisions:
                yield decision
                if decision.acts:
                    result = _do(runs, held, decision, now)
                    outcome = Outcome(decision, result, "", now, again=result is Result.FAILED)
                    state = conclude(state, outcome, now)
        now += machine.look


# --- what the kernel does ----------------------------------------------------------------------


def _settle(machine: Machine, run: _Run, now: float, dice: random.Random) -> _Held:
    need = run.service.behaviour(now - run.since, now, dice)
    need = replace(need, anon=max(0.0, need.anon - run.lost))
    limit = machine.limits(now, run.service)
    room = min(limit if limit is not None else machine.total, machine.total)
    fixed = need.anon + need.shmem + need.sock
    swap, stall = 0.0, 0.0
    if run.service.high is not None and fixed > run.service.high:
        run.events["high"] += 100
        stall = 60.0 if not machine.swap else 20.0
    if fixed > room and machine.swap:
        swap = min(fixed - room, need.anon, machine.swap)
    cache = max(0.0, min(need.cache, room - (fixed - swap)))
    if run.service.high is not None and fixed <= run.service.high < fixed + cache:
        cache = run.service.high - fixed
        run.events["high"] += 100
    if cache < need.cache:
        run.events["max"] += 1
    return _Held(need, cache, swap, stall)


def _overfull(
    machine: Machine, runs: Mapping[str, _Run], held: Mapping[str, _Held], now: float
) -> Iterator[str]:
    """Yield the units that the kernel kills: those past their own limit, and the largest of a slice or the machine."""
    left = {}
    for slice_, most in machine.slice_max.items():
        within = {name: held[name].resident for name, run in runs.items() if run.service.slice == slice_}
        if sum(within.values()) > most:
            yield max(within, key=within.__getitem__)
    for name, run in runs.items():
        limit = machine.limits(now, run.service)
        if limit is not None and held[name].resident > limit:
            yield name
        else:
            left[name] = held[name].resident
    while left and sum(left.values()) > machine.total + machine.swap:
        largest = max(left, key=left.__getitem__)
        del left[largest]
        yield largest


# --- what a look sees --------------------------------------------------------------------------


def _sample(machine: Machine, runs: Mapping[str, _Run], held: Mapping[str, _Held], now: float) -> Sample:
    resident = sum(one.resident for one in held.values())
    swapped = sum(one.swap for one in held.values())
    host = _host(
        machine.spoil(
            now,
            {
                "MemTotal": machine.total,
                "MemAvailable": int(max(0.0, machine.total - resident)),
                "SwapTotal": machine.swap,
                "SwapFree": int(max(0.0, machine.swap - swapped)),
            },
        ),
        max((one.stall for one in held.values()), default=0.0),
    )
    around = {name: _slice(name, most, runs, held) for name, most in machine.slice_max.items()}
    units = {name: _unit(machine, run, held[name], host, now, around) for name, run in runs.items()}
    for name in machine.slices:
        within = [units[one] for one, run in runs.items() if run.service.slice == name]
        values = {
            measure: sum(unit.values[measure] for unit in within)
            for measure in ("footprint", "unreclaimable")
        }
        if name in machine.slice_max:
            values |= {"limit": machine.slice_max[name], "age": now}
        unit = Unit(name, control_group=f"/{name}")
        units[name] = UnitSample(unit, Invocation(name, None, 1), values=values)
    return Sample(now, units, host_values(host))


def _host(meminfo: dict[str, int], stall: float) -> Host:
    known = {key: value for key, value in meminfo.items() if key not in impossible_meminfo(meminfo)}
    return Host(
        total=known.get("MemTotal"),
        available=known.get("MemAvailable"),
        swap_total=known.get("SwapTotal"),
        swap_free=known.get("SwapFree"),
        pressure=_pressure(stall),
    )


def _slice(name: str, most: int, runs: Mapping[str, _Run], held: Mapping[str, _Held]) -> Level:
    within = [held[one] for one, run in runs.items() if run.service.slice == name]
    used = sum(int(one.resident) for one in within)
    cache = min(sum(int(one.cache) for one in within), max(0, most - used))
    return Level(f"/{name}", most, None, used + cache, cache, cache, 0)


def _unit(
    machine: Machine, run: _Run, held: _Held, host: Host, now: float, around: Mapping[str, Level]
) -> UnitSample:
    service = run.service
    limits = {"memory.max": machine.limits(now, service), "memory.high": service.high}
    stat = {} if machine.is_unreadable(now, service) else _stat(held)
    path = f"/{service.slice}/{service.name}"
    own = level_of(path, limits | {"memory.current": int(held.current)}, stat, {})
    reading = CgroupReading(
        path=path,
        inode=run.number,
        counters={
            **limits,
            "memory.current": own.current,
            "memory.swap.max": None,
            "memory.swap.current": int(held.swap),
            "memory.zswap.current": 0,
        },
        stat=stat,
        events=dict(run.events),
        pressure=_pressure(held.stall),
        levels=(own, *(level for name, level in around.items() if name == service.slice)),
        unknown={} if stat else {"memory.stat": "input/output error"},
    )
    values, unknown = unit_values(reading, host)
    values["age"] = now - run.since
    if held.need.worker:
        values["process.pss"] = values["process.uss"] = max(0, int(held.need.worker - run.lost))
    return UnitSample(
        Unit(service.name),
        Invocation(service.name, f"{run.number:032x}", run.number),
        values=values,
        unknown={name: why for name, why in unknown.items() if name not in values},
        levels=reading.levels,
        oom_preference=service.preference,
    )


def _stat(held: _Held) -> dict[str, int]:
    cache, shmem = int(held.cache), int(held.need.shmem)
    return {
        "anon": int(held.need.anon - held.swap),
        "file": cache + shmem,
        "shmem": shmem,
        "sock": int(held.need.sock),
        "kernel": 0,
        "slab_reclaimable": 0,
        "swapcached": 0,
        "active_file": cache // 2,
        "inactive_file": cache - cache // 2,
    }


def _pressure(stall: float) -> dict[str, float]:
    return {f"{kind}.{window}": stall for kind in ("some", "full") for window in ("avg10", "avg60", "avg300")}


# --- what outlives a watch ---------------------------------------------------------------------


def _restarted(state: State, file: PolicyFile, wall: Callable[[float], float], now: float) -> State:
    """Return what the next watch of the same boot knows of `state`."""
    with TemporaryDirectory() as directory:
        instant = Instant(now, wall(now), "boot")
        store = Store(Path(directory))
        store.save(Remembered(state), file.policies, replace(instant, realtime=wall(now - 1)))
        state = store.load(file.policies, instant, file.budget).state
        store.close()
    return state


# --- what is done ------------------------------------------------------------------------------


def _do(runs: dict[str, _Run], held: Mapping[str, _Held], decision: Decision, now: float) -> Result:
    run = runs.get(decision.unit)
    if run is None:  # another policy has ended it in this look
        return Result.GONE
    if run.service.is_stubborn:
        return Result.FAILED
    match decision.action:
        case Restart():
            runs[decision.unit] = _Run(run.service, run.number + 1, now)
        case Stop() | Kill():
            del runs[decision.unit]
        case Signal(to=Target.LARGEST):
            run.lost += max(0.0, held[decision.unit].need.worker - run.lost)
        case _:
            pass
    return Result.VERIFIED
