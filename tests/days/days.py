"""The days: what a machine did, and what a guard had to do, by what could be known at the time.

Some are several days long: whether a service leaks shows only when its days can be compared.

Whatever a day doesn't list as right or as allowed is wrong. A moment is in seconds from midnight. `before` is the time
after which the action helps nobody: the kernel's OOM killer, or the loss, has come first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from behaviours import (
    batch,
    between,
    cache_bursts,
    collector,
    daily_wave,
    file_leak,
    forks,
    leak,
    noisy,
    runaway,
    socket_leak,
    spikes,
    steady,
    warm_up,
    with_cache,
)
from machine import DAY, HOUR, MINUTE, Behaviour, G, M, Machine, Service

from unitmem.kernel.oom_preference import OomPreference

FIRST_LOOK, LEAKY, DATABASE, CONTAINERS, WORKERS, JVM, THROTTLED = (
    f"{name}.yaml"
    for name in (
        "first-look",
        "leaky-service",
        "database",
        "containers",
        "forked-workers",
        "jvm-heap-dump",
        "throttled",
    )
)


SHORT = """
policies:
  - name: machine-short
    units: ["*.service", "*.slice"]
    steps:
      - when: "host.available < 8% of host.total"
        for: 10s
        pick: {by: footprint, avoid: ["ci-*.service"], settle: 30s}
        do: {stop: {timeout: 30s, else: kill}}
"""
"""A condition on the machine, by which one unit is to be stopped and not all of them."""
FULL = """
policies:
  - name: full
    units: ["*.service"]
    steps:
      - when: "fill > 90% and unreclaimable > 30% of limit"
        for: 30s
        pick: {by: footprint, settle: 1min}
        do: {stop: {timeout: 30s, else: kill}}
"""
"""The one that `check` points out for units that share the limit of a slice."""
ONCE = SHORT + "    budget: {actions: 1, per: 1d}\n"
HOG = "hog.service"
INNOCENTS = tuple(Service(f"{name}.service", steady(300 * M, 2 * G)) for name in ("a", "b", "c", "y", "z"))
HOG_RATE = 60 * M / MINUTE


DAYS_ON_END = Machine((), lasts=4 * DAY, look=60.0)


@dataclass(frozen=True)
class Right:
    """An action that had to be taken on a unit within a time."""

    unit: str
    action: str
    """An action's keyword, or `log of POLICY`."""
    after: float = 0.0
    before: float = DAY
    times: int = 1
    """How often at least."""
    most: int | None = None
    """How often at most, at any time of the day."""


@dataclass(frozen=True)
class Day:
    """One day of one machine under one shipped policy."""

    name: str
    policy: str
    """The example's file, or policies of its own in YAML."""
    machine: Machine
    right: tuple[Right, ...] = ()
    may: frozenset[tuple[str, str]] = frozenset()
    """(unit, action) that are neither asked for nor wrong."""


def day(
    name: str,
    policy: str,
    *services: Service,
    right: tuple[Right, ...] = (),
    may: tuple[tuple[str, str], ...] = (),
    machine: Machine | None = None,
) -> Day:
    if machine is None:
        machine = DAYS_ON_END if policy == FIRST_LOOK else Machine(())
    made = replace(machine, services=services)
    return Day(name, policy, made, right, frozenset(may))


def fills(start: float, rate: float, level: float) -> float:
    """The seconds after which a leak from `start` by `rate` is at `level`."""
    return (level - start) / rate


API = "api@1.service"
NEIGHBOUR = Service("api@2.service", steady(300 * M, 2 * G), max=1 * G)
MILD = ((API, "signal"), (API, "log of leaky-service-grows"))
"""What the policy for a leaky service does before it restarts one."""
SLOW = 30 * M / HOUR
FAST = 12 * M / MINUTE


def restarted_in_time(start: float, rate: float, limit: float) -> tuple[Right, ...]:
    """A restart between three quarters of the way to the limit and the limit itself."""
    return (Right(API, "restart", fills(start, rate, 0.75 * limit), fills(start, rate, limit)),)


def leaky(name: str, behaviour: Behaviour, start: float, rate: float, *others: Service) -> Day:
    """A day on which api@1.service leaks from `start` bytes by `rate` a second, below a limit of 1 GiB."""
    service = Service(API, behaviour, max=1 * G)
    return day(name, LEAKY, service, *others, right=restarted_in_time(start, rate, 1 * G), may=MILD)


def without_memory(since: float, lasts: float) -> Machine:
    """A machine whose /proc/meminfo says MemTotal 0 for a while, as in a container that is being moved."""

    def spoil(now: float, meminfo: dict[str, int]) -> dict[str, int]:
        return meminfo | {"MemTotal": 0, "MemAvailable": 0} if since <= now < since + lasts else meminfo

    return Machine((), spoil=spoil)


def with_huge_free_swap(since: float, lasts: float) -> Machine:
    """A machine whose SwapFree is 2^64 − 4096 for a while."""

    def spoil(now: float, meminfo: dict[str, int]) -> dict[str, int]:
        return meminfo | {"SwapFree": 2**64 - 4096} if since <= now < since + lasts else meminfo

    return Machine((), swap=4 * G, spoil=spoil)


def asleep(since: float, until: float) -> Machine:
    """A machine that is suspended from `since` to `until`."""
    return Machine((), is_looking=lambda now: not since <= now < until)


def with_limit(since: float, to: int | None, until: float = inf) -> Machine:
    """A machine on which somebody sets another limit of api@1.service, for good or for a while."""

    def limit(now: float, service: Service) -> int | None:
        return to if since <= now < until and service.name == API else service.max

    return Machine((), limits=limit)


def without_available(since: float, lasts: float) -> Machine:
    """A machine whose MemAvailable is more than its MemTotal for a while."""

    def spoil(now: float, meminfo: dict[str, int]) -> dict[str, int]:
        more = {"MemAvailable": 2 * meminfo["MemTotal"]}
        return meminfo | more if since <= now < since + lasts else meminfo

    return Machine((), spoil=spoil)


def unreadable(since: float, lasts: float) -> Machine:
    """A machine on which memory.stat of api@1.service can't be read for a while."""
    return Machine(
        (), is_unreadable=lambda now, service: since <= now < since + lasts and service.name == API
    )


def starved(every: float) -> Machine:
    """A machine so short of time that the watch comes to look at it but seldom."""
    return Machine((), is_looking=lambda now: now % every < 20)


def stepped(*steps: tuple[float, float], lasts: float = DAY) -> Machine:
    """A machine whose wall clock is set by so many hours at those times, whereupon the watch is restarted."""

    def wall(now: float) -> float:
        return 1e9 + now + sum(hours * HOUR for at, hours in steps if now >= at)

    return Machine((), lasts=lasts, wall=wall, restarts=tuple(at for at, _ in steps))


def shared(most: int, *slices: str) -> Machine:
    """A machine with a limit on apps.slice for all units in it together."""
    return Machine((), slice_max={"apps.slice": most}, slices=slices)


def in_slice(name: str, behaviour: Behaviour, **more: int) -> Service:
    return Service(name, behaviour, slice="apps.slice", **more)


HOG_LEAK = leak(300 * M, HOG_RATE)
HOG_STOPPED = Right(HOG, "stop", fills(300 * M, HOG_RATE, 10 * G), fills(300 * M, HOG_RATE, 14.5 * G))


def short(
    name: str,
    *services: Service,
    policy: str = SHORT,
    right: tuple[Right, ...] = (),
    may: tuple[tuple[str, str], ...] = (),
    machine: Machine | None = None,
) -> Day:
    """Hours of services among five that are innocent, on a machine with 16 GiB."""
    hours = replace(machine or Machine(()), lasts=5 * HOUR)
    return day(name, policy, *INNOCENTS, *services, right=right, may=may, machine=hours)


DAYS = (
    # --- leaks --------------------------------------------------------------------------------
    day(
        "a slow leak is told on its third day",
        FIRST_LOOK,
        Service("mail.service", leak(300 * M, SLOW * 2)),
        Service("web.service", steady(500 * M, 8 * G)),
        right=(Right("mail.service", "log of keeps-growing", 2 * DAY, 3 * DAY),),
    ),
    day(
        "a slow leak under noise is told on its third day",
        FIRST_LOOK,
        Service("mail.service", leak(300 * M, SLOW * 3, noise=0.05)),
        right=(Right("mail.service", "log of keeps-growing", 2 * DAY, 3 * DAY),),
    ),
    leaky(
        "a fast leak is restarted before its limit, and its neighbour lives",
        leak(300 * M, FAST),
        300 * M,
        FAST,
        NEIGHBOUR,
    ),
    *(
        leaky(name, behaviour, start, 2 * SLOW, *others)
        for name, behaviour, start, *others in (
            ("a slow leak is restarted before its limit", leak(300 * M, 2 * SLOW), 300 * M, NEIGHBOUR),
            (
                "a leak among page cache is restarted for the leak",
                with_cache(leak(300 * M, 2 * SLOW), 8 * G),
                300 * M,
            ),
            (
                "a leak by sockets is restarted before the kernel kills",
                socket_leak(100 * M, 2 * SLOW),
                100 * M,
            ),
            ("a leak into tmpfs is restarted before the kernel kills", file_leak(100 * M, 2 * SLOW), 100 * M),
        )
    ),
    day(
        "a leak into swap is told, though what is resident stays",
        FIRST_LOOK,
        Service("mail.service", leak(300 * M, SLOW * 4), max=400 * M),
        right=(Right("mail.service", "log of keeps-growing", 2 * DAY, 3 * DAY),),
        may=(("mail.service", "log of near-its-limit"),),
        machine=replace(DAYS_ON_END, swap=32 * G),
    ),
    day(
        "two leaks at once are each restarted",
        LEAKY,
        Service(API, leak(300 * M, 60 * M / HOUR), max=1 * G),
        Service("api@2.service", leak(200 * M, 70 * M / HOUR), max=1 * G),
        right=(
            *restarted_in_time(300 * M, 60 * M / HOUR, 1 * G),
            Right(
                "api@2.service",
                "restart",
                fills(200 * M, 70 * M / HOUR, 0.75 * G),
                fills(200 * M, 70 * M / HOUR, G),
            ),
        ),
        may=(
            (API, "signal"),
            ("api@2.service", "signal"),
            (API, "log of leaky-service-grows"),
            ("api@2.service", "log of leaky-service-grows"),
        ),
    ),
    day(
        "a leak that begins in the afternoon",
        LEAKY,
        Service(API, between(14 * HOUR, leak(300 * M, FAST), steady(300 * M)), max=1 * G),
        right=(
            Right(
                API,
                "restart",
                14 * HOUR + fills(300 * M, FAST, 0.75 * G),
                14 * HOUR + fills(300 * M, FAST, G),
            ),
        ),
        may=MILD,
    ),
    day(
        "a container's leak stops the container alone",
        CONTAINERS,
        Service("docker-aa.scope", leak(100 * M, 60 * M / HOUR), max=1 * G, restarts=False),
        Service("docker-bb.scope", steady(600 * M, 4 * G), max=1 * G, restarts=False),
        right=(Right("docker-aa.scope", "stop", 0, fills(100 * M, 60 * M / HOUR, G)),),
        may=(("docker-aa.scope", "log of containers"),),
    ),
    day(
        "a JVM beyond its heap is dumped, then restarted",
        JVM,
        Service("app.service", leak(2 * G, 100 * M / HOUR), max=4 * G),
        right=(
            Right("app.service", "run", 0, fills(2 * G, 100 * M / HOUR, 4 * G)),
            Right("app.service", "restart", 0, fills(2 * G, 100 * M / HOUR, 4 * G)),
        ),
    ),
    # --- health that looks like a leak ----------------------------------------------------------
    *(
        day(
            f"a collector's sawtooth of {period / HOUR:g} h is no leak",
            FIRST_LOOK,
            Service("app.service", collector(200 * M, 900 * M, period)),
        )
        for period in (0.25 * HOUR, HOUR, 2.5 * HOUR, 5 * HOUR)
    ),
    day("a daily wave is no leak", FIRST_LOOK, Service("web.service", daily_wave(300 * M, 1200 * M))),
    day("a warm-up of an hour is no leak", FIRST_LOOK, Service("cache.service", warm_up(2 * G, HOUR))),
    day("a warm-up of four hours is no leak", FIRST_LOOK, Service("cache.service", warm_up(4 * G, 4 * HOUR))),
    day("a noisy database is no leak", FIRST_LOOK, Service("db.service", noisy(2 * G, 300 * M))),
    day(
        "batch work is no leak", FIRST_LOOK, Service("report.service", batch(900 * M, 6 * HOUR, 40 * MINUTE))
    ),
    day(
        "page cache is no leak",
        FIRST_LOOK,
        Service("backup.service", cache_bursts(100 * M, 14 * G, 4 * HOUR)),
    ),
    day("a build machine's jobs are no leak", FIRST_LOOK, Service("runner.service", forks(300 * M, 12))),
    day(
        "what started late has a warm-up too",
        FIRST_LOOK,
        Service("cache.service", warm_up(2 * G, 2 * HOUR), starts=11 * HOUR),
    ),
    # --- health near a limit --------------------------------------------------------------------
    day("page cache at the limit restarts nothing", LEAKY, Service(API, steady(250 * M, 8 * G), max=400 * M)),
    day(
        "short peaks restart nothing",
        LEAKY,
        Service(API, spikes(300 * M, 980 * M, 30 * MINUTE, 20), max=1 * G),
    ),
    day(
        "a sawtooth below the threshold restarts nothing",
        LEAKY,
        Service(API, collector(200 * M, 600 * M, HOUR), max=1 * G),
        may=((API, "log of leaky-service-grows"),),
    ),
    day(
        "a database at its limit loses no session",
        DATABASE,
        Service("postgresql@16-main.service", noisy(600 * M, 50 * M), max=1 * G),
    ),
    day(
        "a backup evicts nobody's container",
        CONTAINERS,
        Service("docker-aa.scope", cache_bursts(100 * M, 14 * G, HOUR), max=1 * G),
    ),
    day("sound workers stay", WORKERS, Service("celery.service", forks(300 * M, 16))),
    day(
        "a sawtooth past the first threshold leaves the budget to the leak that follows",
        LEAKY,
        Service(
            API,
            between(16 * HOUR, leak(500 * M, FAST), collector(200 * M, 800 * M, 30 * MINUTE)),
            max=1 * G,
        ),
        right=(Right(API, "restart", 16 * HOUR, 16 * HOUR + fills(500 * M, FAST, G)),),
        may=MILD,
    ),
    # --- workers --------------------------------------------------------------------------------
    day(
        "the worker that runs away is ended, not the service",
        WORKERS,
        Service("celery.service", runaway(80 * M, 8, 10 * HOUR, 30 * M / MINUTE)),
        right=(Right("celery.service", "signal", 10 * HOUR, 10 * HOUR + 18 * MINUTE),),
        may=(("celery.service", "signal"), ("celery.service", "log of runaway-worker")),
    ),
    # --- throttled at MemoryHigh= -----------------------------------------------------------------
    day(
        "a service that stands still at its MemoryHigh= is restarted",
        THROTTLED,
        Service("worker@1.service", leak(300 * M, 60 * M / HOUR), high=600 * M),
        right=(Right("worker@1.service", "restart", 5 * HOUR, 5.5 * HOUR),),
        may=(("worker@1.service", "log of throttled"), ("worker@1.service", "restart")),
    ),
    day(
        "page cache at MemoryHigh= restarts nothing",
        THROTTLED,
        Service("worker@1.service", steady(300 * M, 8 * G), high=600 * M),
    ),
    # --- the machine is short, and one of many is picked ------------------------------------------
    short(
        "of a hog and five that are innocent, the hog is stopped",
        Service(HOG, HOG_LEAK),
        right=(HOG_STOPPED,),
    ),
    short(
        "of several leaks, each is stopped when it is the greatest",
        Service("leak-a.service", leak(500 * M, 80 * M / MINUTE)),
        Service("leak-b.service", leak(200 * M, 60 * M / MINUTE)),
        right=(
            Right("leak-a.service", "stop", 1.25 * HOUR, 2 * HOUR),
            Right("leak-b.service", "stop", 3.5 * HOUR, 4.25 * HOUR),
        ),
    ),
    short(
        "who is to be avoided is stopped only when it is the hog and all others are spared",
        Service("ci-7.service", steady(4 * G)),
        Service(HOG, HOG_LEAK),
        right=(Right(HOG, "stop", 2 * HOUR, 4 * HOUR),),
    ),
    short(
        "a hog that ManagedOOMPreference= exempts is left, and the next one goes",
        Service(HOG, leak(300 * M, HOG_RATE, 12.5 * G), preference=OomPreference.OMIT),
        Service("next.service", steady(1.5 * G)),
        right=(Right("next.service", "stop", 2 * HOUR, 4 * HOUR),),
    ),
    short(
        "a hog that can't be stopped costs the next one, and no more",
        Service(HOG, leak(300 * M, HOG_RATE, 12.5 * G), is_stubborn=True),
        Service("next.service", steady(1.5 * G)),
        right=(Right("next.service", "stop", 2 * HOUR, 4 * HOUR),),
        may=((HOG, "stop"),),
    ),
    short(
        "of a slice and what is in it, the hog is stopped and not the slice",
        Service(HOG, HOG_LEAK, slice="apps.slice"),
        Service("app.service", steady(500 * M), slice="apps.slice"),
        right=(HOG_STOPPED,),
        machine=Machine((), slices=("apps.slice",)),
    ),
    short(
        "the only action there is goes to the hog, and not to the first by the alphabet",
        Service(HOG, HOG_LEAK),
        policy=ONCE,
        right=(HOG_STOPPED,),
    ),
    short("a machine that is only busy has nobody stopped", Service("db.service", noisy(8 * G, 2 * G))),
    # --- a slice that is full -----------------------------------------------------------------------
    day(
        "a slice that its units fill together is told, though none of them is near its limit",
        FIRST_LOOK,
        *(in_slice(f"{name}.service", steady(250 * M, 1 * G)) for name in ("a", "b", "c")),
        right=(Right("apps.slice", "log of near-its-limit", 0, HOUR),),
        machine=replace(shared(1 * G, "apps.slice"), lasts=DAY, look=60.0),
    ),
    day(
        "of a slice that a hog fills, the hog is stopped and not who is beside it",
        FULL,
        in_slice("a.service", steady(330 * M, 1 * G)),
        in_slice(HOG, leak(200 * M, FAST)),
        Service("outside.service", steady(2 * G)),
        right=(Right(HOG, "stop", fills(550 * M, FAST, 0.85 * G), fills(530 * M, FAST, 1 * G)),),
        machine=shared(1 * G),
    ),
    day(
        "of a slice that many fill, one after the other is stopped until there is room",
        FULL,
        *(in_slice(f"{name}.service", leak(100 * M, 30 * M / HOUR, 380 * M)) for name in ("a", "b")),
        in_slice("c.service", leak(150 * M, 30 * M / HOUR, 400 * M)),
        right=(Right("c.service", "stop", 6 * HOUR, 9 * HOUR),),
        machine=shared(1 * G),
    ),
    day(
        "page cache that fills a slice stops nobody",
        FULL,
        *(in_slice(f"{name}.service", cache_bursts(320 * M, 4 * G, HOUR)) for name in ("a", "b")),
        machine=shared(1 * G),
    ),
    # --- a machine, or a watch, that isn't well ---------------------------------------------------
    day(
        "a MemTotal of 0 stops nobody",
        LEAKY,
        Service(API, steady(300 * M)),
        machine=without_memory(12 * HOUR, 10 * MINUTE),
    ),
    day(
        "free swap near 2^64 stops nobody",
        LEAKY,
        Service(API, steady(300 * M)),
        machine=with_huge_free_swap(12 * HOUR, 10 * MINUTE),
    ),
    day(
        "a night's suspend is no time that anything held",
        LEAKY,
        Service(API, spikes(300 * M, 980 * M, DAY, 30), max=1 * G, starts=8 * HOUR - 20),
        machine=asleep(8 * HOUR, 14 * HOUR),
    ),
    day(
        "a leak that is suspended while `for` runs is restarted in time",
        LEAKY,
        Service(API, leak(300 * M, FAST), max=1 * G),
        right=restarted_in_time(300 * M, FAST, 1 * G),
        may=MILD,
        machine=Machine((), lasts=2 * HOUR, suspends=(fills(300 * M, FAST, 0.9 * G) + 20,)),
    ),
    day(
        "a watch that comes to look but once a minute restarts a leak late, and in time",
        LEAKY,
        Service(API, leak(300 * M, 2 * SLOW), max=1 * G),
        right=restarted_in_time(300 * M, 2 * SLOW, 1 * G),
        may=MILD,
        machine=starved(MINUTE),
    ),
    *(
        day(
            f"a leak is restarted in time though the clock is set by {hours:+g} h",
            LEAKY,
            Service(API, leak(300 * M, FAST), max=1 * G),
            right=restarted_in_time(300 * M, FAST, 1 * G),
            may=MILD,
            machine=stepped((fills(300 * M, FAST, 0.9 * G), hours), lasts=2 * HOUR),
        )
        for hours in (-5, 5)
    ),
    *(
        day(
            f"a clock that is set by {hours:+g} h refills no budget",
            LEAKY,
            Service(API, steady(980 * M), max=1 * G),
            right=(Right(API, "restart", 0, HOUR, most=4),),
            may=((API, "signal"),),
            machine=stepped((2 * HOUR, hours), (4 * HOUR, hours), lasts=6 * HOUR),
        )
        for hours in (-20, 20)
    ),
    day(
        "a memory.stat that can't be read stops nobody",
        LEAKY,
        Service(API, steady(300 * M, 8 * G), max=400 * M),
        may=((API, "signal"),),
        machine=replace(unreadable(HOUR, HOUR), lasts=3 * HOUR),
    ),
    day(
        "a leak is restarted when memory.stat can be read again",
        LEAKY,
        Service(API, leak(300 * M, 2 * SLOW), max=1 * G),
        right=(Right(API, "restart", fills(300 * M, 2 * SLOW, 0.95 * G), fills(300 * M, 2 * SLOW, 1 * G)),),
        may=MILD,
        machine=unreadable(fills(300 * M, 2 * SLOW, 0.8 * G), fills(0, 2 * SLOW, 0.15 * G)),
    ),
    short(
        "the hog is stopped when what is available can be true again",
        Service(HOG, HOG_LEAK),
        right=(Right(HOG, "stop", 3.75 * HOUR, fills(300 * M, HOG_RATE, 14.5 * G)),),
        machine=without_available(3 * HOUR, 0.75 * HOUR),
    ),
    day(
        "a limit lowered live is the limit",
        LEAKY,
        Service(API, steady(470 * M), max=1 * G),
        right=(Right(API, "restart", 12 * HOUR, 12 * HOUR + 10 * MINUTE),),
        may=((API, "signal"), (API, "restart")),
        machine=with_limit(12 * HOUR, 512 * M),
    ),
    day(
        "a limit that is lowered for some seconds restarts nothing",
        LEAKY,
        Service(API, steady(850 * M), max=1 * G),
        may=((API, "signal"),),
        machine=replace(with_limit(HOUR, 900 * M, HOUR + 20), lasts=3 * HOUR),
    ),
    day(
        "a limit raised in time is the limit of a leak",
        LEAKY,
        Service(API, leak(300 * M, FAST), max=1 * G),
        right=restarted_in_time(300 * M, FAST, 2 * G),
        may=MILD,
        machine=replace(with_limit(fills(300 * M, FAST, 0.8 * G), 2 * G), lasts=4 * HOUR),
    ),
    day(
        "a limit that is taken away stops nobody, however large",
        LEAKY,
        Service(API, between(HOUR, steady(6 * G), steady(300 * M)), max=1 * G),
        may=MILD,
        machine=replace(with_limit(HOUR / 2, None), lasts=3 * HOUR),
    ),
    day(
        "a restart loop is ended by the budget",
        LEAKY,
        Service(API, steady(980 * M), max=1 * G),
        right=(Right(API, "restart", 0, HOUR),),
        may=((API, "signal"), (API, "restart")),
    ),
    day(
        "an idle machine is left alone",
        FIRST_LOOK,
        Service("idle.service", steady(10 * M)),
        Service("sshd.service", steady(8 * M)),
    ),
    day(
        "a unit that the kernel kills again and again is told",
        FIRST_LOOK,
        Service("mail.service", leak(700 * M, FAST), max=1 * G),
        right=(Right("mail.service", "log of near-its-limit", 0, HOUR),),
    ),
)

assert len({one.name for one in DAYS}) == len(DAYS)
