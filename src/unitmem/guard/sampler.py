"""`watch`, which calls a function with the program's own memory at regular ticks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Self

from unitmem.guard.memory_info import MemoryInfo, read_memory_info
from unitmem.text import seconds

_FINEST = 1e-6  # the clock's own steps come next


class Ticks(Iterator[float]):
    """The instants `start + n × interval`, each given when it comes, in seconds of the clock.

    They keep their phase, however long the caller takes between them. Those that passed meanwhile are
    given as one, at once: the last of them. They end when `stop` is set, in the midst of a wait too.

    To be used by one thread.

    Args:
        interval: seconds from one to the next, counted from now on; what is less than a microsecond is one.
        stop: ends them.
        now: the clock, in seconds; it must never go back.
        wait: returns after so many seconds, or before that when `stop` is set.

    Raises:
        TypeError: `interval` is not a number.
        ValueError: it is not finite, or not above 0.
    """

    def __init__(
        self,
        interval: float,
        stop: threading.Event | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self._interval = max(seconds(interval), _FINEST)
        self._stop = threading.Event() if stop is None else stop
        self._now = now
        self._wait = self._stop.wait if wait is None else wait
        self._start = now()
        self._given = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> float:
        due = self._given + 1
        while not self._stop.is_set():
            # from the start each time: what is added up drifts
            at = self._start + due * self._interval
            late = self._now() - at
            if late >= 0:
                self._given = due + int(late // self._interval)
                return self._start + self._given * self._interval
            self._wait(min(-late, threading.TIMEOUT_MAX))
        raise StopIteration


def watch(
    interval: float,
    callback: Callable[[MemoryInfo], object],
    *,
    immediate: bool = False,
    on_error: Callable[[Exception], object] | None = None,
    stop: threading.Event | None = None,
    ticks: Iterable[float] | None = None,
    read: Callable[[], MemoryInfo] = read_memory_info,
) -> None:
    """Call `callback` with this program's memory every `interval` seconds, until `stop` is set.

    It blocks, and calls in the thread that called it: one call after the other, never two at a time.
    Ticks that pass during a call that takes long become one, which comes right after it; the phase is
    kept. Any thread will do, and each may watch for itself.

    Args:
        interval: seconds from tick to tick.
        callback: is given each sample. What it returns is ignored.
        immediate: take a sample at once, before the first tick.
        on_error: is given what `callback` raises, and the watch goes on. What it raises itself goes
            to the caller. KeyboardInterrupt and the like are no errors, and always go to the caller.
        stop: ends the watch: it returns at once, takes no further sample and makes no further call; one
            that is under way is not cut short. Without it, the watch goes on until something is raised.
        ticks: instead of those of the clock: a sample is taken for each, and the watch returns after the
            last. `range(1000)` lets a test run without sleeping, and `Ticks` takes another clock. To wait
            for the next, and to coalesce, is the matter of what is given here.
        read: takes the sample; `functools.partial(read_memory_info, pss=False)` is a cheaper one.

    Raises:
        TypeError: `interval` is not a number, or what must be callable isn't.
        ValueError: `interval` is not finite, or not above 0.
        Exception: what `callback` raises, if there is no `on_error`.
    """
    for name, value in {"callback": callback, "on_error": on_error, "read": read}.items():
        if not (callable(value) or (value is None and name == "on_error")):
            raise TypeError(f"{name} must be callable, not {value!r}")
    if stop is not None and not (hasattr(stop, "is_set") and hasattr(stop, "wait")):
        raise TypeError(f"stop must be a threading.Event, not {stop!r}")
    # made before the first sample: the phase is that of the call
    own = Ticks(interval, stop)

    def stopped() -> bool:
        return stop is not None and stop.is_set()

    def sample() -> None:
        info = read()
        if stopped():
            return
        try:
            callback(info)
        except Exception as error:
            if on_error is None:
                raise
            on_error(error)

    if immediate and not stopped():
        sample()
    for _ in own if ticks is None else ticks:
        if stopped():
            return
        sample()
