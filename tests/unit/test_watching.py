"""`watch`: its ticks on a clock that tests turn, its callbacks one by one, and how it ends."""

from __future__ import annotations

import math
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import unitmem
from unitmem import MemoryInfo, Ticks, watch


class Clock:
    """A clock that stands still, but for waiting and for what a test adds."""

    def __init__(self, now=100.0):
        self.now = now
        self.waits = []

    def wait(self, seconds):
        self.waits.append(seconds)
        self.now += seconds

    def ticks(self, interval, stop=None):
        return Ticks(interval, stop, now=lambda: self.now, wait=self.wait)


def info():
    return MemoryInfo(at=0.0)


def infos():
    """A `read` that gives 0, 1, 2 … as the times of its samples, and how many it gave."""
    taken = []

    def read():
        taken.append(MemoryInfo(at=float(len(taken))))
        return taken[-1]

    return read, taken


# --- ticks -------------------------------------------------------------------------------------


def test_ticks_come_an_interval_after_another_and_the_first_after_one():
    clock = Clock()
    ticks = clock.ticks(5)
    assert [next(ticks) for _ in range(3)] == [105.0, 110.0, 115.0]
    assert clock.now == 115.0


def test_the_phase_is_kept_however_long_is_spent_between_ticks():
    clock = Clock()
    ticks = clock.ticks(10)
    came = []
    for spent in (1, 9, 3, 0):
        came.append((next(ticks), clock.now))
        clock.now += spent
    assert came == [(110, 110), (120, 120), (130, 130), (140, 140)]


@pytest.mark.parametrize(
    ("spent", "next_two"),
    [
        (9.5, [(120, 120), (130, 130)]),
        (10, [(120, 120), (130, 130)]),
        (10.5, [(120, 120.5), (130, 130)]),
        (35, [(140, 145), (150, 150)]),
        (40, [(150, 150), (160, 160)]),
    ],
)
def test_missed_ticks_are_one_that_comes_at_once_and_then_the_phase_goes_on(spent, next_two):
    clock = Clock()
    ticks = clock.ticks(10)
    assert next(ticks) == 110
    clock.now += spent
    assert [(next(ticks), clock.now) for _ in range(2)] == next_two


def test_ten_thousand_ticks_of_a_tenth_do_not_drift():
    clock = Clock(now=0.0)
    ticks = clock.ticks(0.1)
    for _ in range(9_999):
        next(ticks)
    assert next(ticks) == pytest.approx(1000.0, abs=1e-9)


@given(
    interval=st.floats(1e-3, 1e6),
    start=st.floats(0, 1e9),
    spent=st.lists(st.floats(0, 1e7), max_size=20),
)
def test_no_tick_comes_early_or_twice_and_no_two_wait_where_one_is_due(interval, start, spent):
    clock = Clock(start)
    ticks = clock.ticks(interval)
    last = start
    for seconds in spent:
        before = clock.now
        tick = next(ticks)
        assert tick > last or interval < math.ulp(last)
        assert tick <= clock.now + math.ulp(clock.now)
        waited = clock.now - before
        assert waited <= interval + 2 * math.ulp(clock.now)
        assert clock.now - tick < interval + 2 * math.ulp(clock.now)
        last = tick
        clock.now += seconds


def test_a_wait_that_returns_early_is_gone_on_with():
    clock = Clock()
    ticks = Ticks(10, now=lambda: clock.now, wait=lambda seconds: clock.wait(min(seconds, 3)))
    assert next(ticks) == 110
    assert clock.waits == [3, 3, 3, 1]


@pytest.mark.parametrize("interval", [1e-300, 1e-9, 1, 1e308, 10**300])
def test_every_interval_that_is_finite_can_be_waited_for(interval):
    stop = threading.Event()
    waits = []

    def wait(seconds):
        waits.append(seconds)
        stop.set()

    assert list(Ticks(interval, stop, now=lambda: 0.0, wait=wait)) == []
    assert 0 < waits[0] <= threading.TIMEOUT_MAX


def test_ticks_end_when_stop_is_set_before_or_in_the_midst_of_a_wait():
    stop = threading.Event()
    clock = Clock()
    ticks = Ticks(10, stop, now=lambda: clock.now, wait=lambda seconds: stop.set())
    assert list(ticks) == []
    assert list(ticks) == []


# --- calls -------------------------------------------------------------------------------------


def test_each_tick_is_a_sample_of_this_very_process():
    seen = []
    watch(3600, seen.append, ticks=range(20))
    assert len(seen) == 20
    assert all(isinstance(sample, MemoryInfo) for sample in seen)
    assert [sample.at for sample in seen] == sorted({sample.at for sample in seen})


@pytest.mark.parametrize(("immediate", "count"), [(False, 3), (True, 4)])
def test_immediate_is_one_sample_more_before_the_first_tick(immediate, count):
    read, taken = infos()
    seen = []
    watch(3600, seen.append, immediate=immediate, ticks=range(3), read=read)
    assert seen == taken
    assert len(seen) == count


def test_immediate_does_not_wait_and_counts_for_the_phase_only_as_time_spent():
    clock = Clock()
    stop = threading.Event()
    came = []

    def callback(_):
        came.append(clock.now)
        clock.now += 25
        if len(came) == 3:
            stop.set()

    watch(10, callback, immediate=True, stop=stop, ticks=clock.ticks(10, stop), read=info)
    assert came == [100, 125, 150]


def test_a_slow_callback_finds_one_tick_however_many_it_missed():
    clock = Clock()
    stop = threading.Event()
    came = []

    def callback(_):
        came.append(clock.now)
        clock.now += {0: 45, 1: 1}.get(len(came) - 1, 0)
        if len(came) == 4:
            stop.set()

    watch(10, callback, stop=stop, ticks=clock.ticks(10, stop), read=info)
    assert came == [110, 155, 160, 170]


def test_calls_are_made_in_the_callers_thread_and_never_two_at_a_time():
    running = threading.Lock()
    threads = set()

    def callback(_):
        assert running.acquire(blocking=False)
        time.sleep(0.002)  # several ticks pass
        threads.add(threading.current_thread())
        calls.append(None)
        if len(calls) == 5:
            stop.set()
        running.release()

    calls, stop = [], threading.Event()
    watch(0.0005, callback, immediate=True, stop=stop, read=info)
    assert (len(calls), threads) == (5, {threading.current_thread()})


# --- how it ends -------------------------------------------------------------------------------


def test_stop_set_before_means_no_sample_at_all():
    stop = threading.Event()
    stop.set()
    read, taken = infos()
    watch(1e-3, pytest.fail, immediate=True, stop=stop, ticks=range(3), read=read)
    watch(1e-3, pytest.fail, immediate=True, stop=stop, read=read)
    assert taken == []


def test_stop_set_by_the_callback_means_no_further_sample():
    stop = threading.Event()
    read, taken = infos()
    watch(3600, lambda sample: sample.at == 2 and stop.set(), stop=stop, ticks=range(1000), read=read)
    assert len(taken) == 3


def test_stop_set_while_a_sample_is_taken_means_no_call():
    stop = threading.Event()

    def read():
        stop.set()
        return info()

    watch(3600, pytest.fail, immediate=True, stop=stop, ticks=range(3), read=read)


def test_stop_ends_a_wait_of_an_hour_in_a_thread_of_its_own():
    stop = threading.Event()
    sampled = threading.Event()
    thread = threading.Thread(
        target=watch, args=(3600, lambda _: sampled.set()), kwargs={"immediate": True, "stop": stop}
    )
    thread.start()
    assert sampled.wait(60)
    stop.set()
    thread.join(60)
    assert not thread.is_alive()


def test_several_threads_watch_side_by_side():
    counts = dict.fromkeys(range(4), 0)

    def count(key):
        counts[key] += 1

    threads = [
        threading.Thread(target=watch, args=(1, lambda _, key=key: count(key)), kwargs={"ticks": range(10)})
        for key in counts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(counts.values()) == {10}


# --- errors ------------------------------------------------------------------------------------


def divide(_):
    return 1 / 0


@pytest.mark.parametrize("immediate", [False, True])
def test_what_the_callback_raises_ends_the_watch(immediate):
    read, taken = infos()
    with pytest.raises(ZeroDivisionError):
        watch(1, divide, immediate=immediate, ticks=range(3), read=read)
    assert len(taken) == 1


def test_with_on_error_it_is_told_and_sampling_goes_on():
    read, taken = infos()
    errors = []
    watch(1, divide, immediate=True, on_error=errors.append, ticks=range(3), read=read)
    assert [type(error) for error in errors] == [ZeroDivisionError] * 4
    assert len(taken) == 4


def test_what_on_error_raises_goes_to_the_caller():
    def give_up(error):
        raise RuntimeError("enough") from error

    with pytest.raises(RuntimeError, match="enough"):
        watch(1, divide, on_error=give_up, ticks=range(3), read=info)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_is_no_error_is_not_kept_from_the_caller(kind):
    def interrupt(_):
        raise kind

    with pytest.raises(kind):
        watch(1, interrupt, on_error=pytest.fail, ticks=range(3), read=info)


@pytest.mark.parametrize(
    ("interval", "kind"),
    [
        (True, TypeError),
        (False, TypeError),
        ("5", TypeError),
        (None, TypeError),
        (1j, TypeError),
        (0, ValueError),
        (-0.0, ValueError),
        (-1, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        (-math.inf, ValueError),
        (10**400, ValueError),
    ],
)
def test_a_bad_interval_is_an_error_at_the_call(interval, kind):
    read, taken = infos()
    with pytest.raises(kind, match="interval must be"):
        watch(interval, pytest.fail, immediate=True, ticks=range(3), read=read)
    with pytest.raises(kind, match="interval must be"):
        Ticks(interval)
    assert taken == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"callback": None}, "callback must be callable, not None"),
        ({"callback": 5}, "callback must be callable, not 5"),
        ({"on_error": "log"}, "on_error must be callable, not 'log'"),
        ({"read": None}, "read must be callable, not None"),
        ({"stop": True}, "stop must be a threading.Event, not True"),
    ],
)
def test_a_bad_argument_is_an_error_at_the_call(arguments, message):
    read, taken = infos()
    good = {"callback": pytest.fail, "read": read, "ticks": range(3), "immediate": True}
    with pytest.raises(TypeError, match=message):
        watch(1, **{**good, **arguments})
    assert taken == []


def test_the_packages_names_are_there_and_no_others():
    assert set(unitmem.__all__) <= set(dir(unitmem))
    assert all(getattr(unitmem, name) is not None for name in unitmem.__all__)
    with pytest.raises(AttributeError, match="module 'unitmem' has no attribute 'wacth'"):
        unitmem.wacth  # noqa: B018
