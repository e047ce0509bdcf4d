"""How services use memory: each a function of the time it has been up and of the time of day."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from functools import wraps

from machine import DAY, HOUR, MINUTE, Behaviour, M, Need


def steady(anon: float, cache: float = 0.0, noise: float = 0.02) -> Behaviour:
    """It holds the same all day, give or take."""
    return lambda up, day, dice: Need(anon * (1 + noise * dice.uniform(-1, 1)), cache)


def leak(anon: float, rate: float, most: float = math.inf, noise: float = 0.01) -> Behaviour:
    """It grows by `rate` bytes a second from its start on, up to `most`."""
    return lambda up, day, dice: Need(min(most, anon + rate * up) * (1 + noise * dice.uniform(-1, 1)))


def socket_leak(anon: float, rate: float) -> Behaviour:
    """It leaks by TCP buffers that nobody drains."""
    return lambda up, day, dice: Need(anon, sock=rate * up)


def file_leak(anon: float, rate: float) -> Behaviour:
    """It fills a tmpfs."""
    return lambda up, day, dice: Need(anon, shmem=rate * up)


def collector(low: float, high: float, period: float) -> Behaviour:
    """It has a garbage collector: up to `high`, then back to `low`, again and again; no two rounds are alike."""

    def need(up: float, day: float, dice: random.Random) -> Need:
        share = up % period / period
        return Need(low + (high - low) * share * (1 + 0.1 * dice.uniform(-1, 1)))

    return need


def daily_wave(low: float, high: float) -> Behaviour:
    """It follows its users: least at four in the morning, most at four in the afternoon."""

    def need(up: float, day: float, dice: random.Random) -> Need:
        share = (1 - math.cos((day - 4 * HOUR) / DAY * 2 * math.pi)) / 2
        return Need(low + (high - low) * share * (1 + 0.03 * dice.uniform(-1, 1)))

    return need


def warm_up(anon: float, span: float) -> Behaviour:
    """It fills its caches after the start, ever slower, and stays there."""
    return lambda up, day, dice: Need(
        anon * (1 - 0.8 * math.exp(-3 * up / span)) * (1 + 0.01 * dice.uniform(-1, 1))
    )


def batch(anon: float, period: float, lasts: float) -> Behaviour:
    """It works now and then, and holds little in between."""
    return lambda up, day, dice: Need(anon * dice.uniform(0.9, 1) if up % period < lasts else 20 * M)


def cache_bursts(anon: float, cache: float, period: float) -> Behaviour:
    """It reads far more than there is room for, once in a while: a backup, an index."""
    return lambda up, day, dice: Need(
        anon * (1 + 0.02 * dice.uniform(-1, 1)), cache if up % period > period / 2 else 0
    )


def noisy(anon: float, spread: float) -> Behaviour:
    """A database: its buffers, and sessions that come and go."""

    def need(up: float, day: float, dice: random.Random) -> Need:
        return Need(anon + spread * sum(dice.uniform(-1, 1) for _ in range(3)) / 3, 64 * anon)

    return need


def forks(worker: float, workers: int) -> Behaviour:
    """A runner that forks for each job: many short lives."""

    def need(up: float, day: float, dice: random.Random) -> Need:
        running = [worker * dice.uniform(0.2, 1) for _ in range(dice.randint(0, workers))]
        return Need(30 * M + sum(running), worker=max(running, default=0.0))

    return need


def runaway(base: float, workers: int, since: float, rate: float) -> Behaviour:
    """Forked workers, one of which grows from some time on."""

    def need(up: float, day: float, dice: random.Random) -> Need:
        largest = base * dice.uniform(0.9, 1) + max(0.0, up - since) * rate
        return Need(base * workers + max(0.0, up - since) * rate, worker=largest)

    return need


def spikes(anon: float, high: float, period: float, lasts: float = MINUTE / 2) -> Behaviour:
    """Short peaks, as of a large request."""
    return lambda up, day, dice: Need(
        high if up % period < lasts else anon * (1 + 0.02 * dice.uniform(-1, 1))
    )


def between(since: float, behaviour: Behaviour, before: Behaviour) -> Behaviour:
    """As `before` until `since` seconds after the start, then as `behaviour`."""
    return lambda up, day, dice: behaviour(up - since, day, dice) if up >= since else before(up, day, dice)


def with_cache(behaviour: Behaviour, cache: float) -> Behaviour:
    """As `behaviour`, with page cache that takes whatever room there is."""

    @wraps(behaviour)
    def need(up: float, day: float, dice: random.Random) -> Need:
        return replace(behaviour(up, day, dice), cache=cache)

    return need
