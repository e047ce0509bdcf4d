"""The loop of `unitmem watch`: tick, and sleep until the next tick is due or an event asks for one.

One thread (but for memory.reclaim, see `act`). A tick is due every `interval` by the monotonic clock; the
kernel's memory.events, a unit that crosses a threshold, and the manager's signals wake the loop earlier.
"""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from types import FrameType

from unitmem.daemon.pace import Pace
from unitmem.daemon.sampling import QUICKEST
from unitmem.daemon.watch import Watch

FOLLOW_UP_EVERY = 0.5
"""Seconds between two checks of an action that is under way."""
REST_PER_LOOK = 49
"""Looks between two ticks rest this many times as long as the last one took: they take a fiftieth of the time at most."""


class Loop:
    """The ticks of one watch on schedule, and the signals that stop or reload it."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._world = watch.world
        self._wakeup = -1
        self._stopping = False
        self._reloading = False

    def run(self, *, once: bool = False) -> None:
        """Tick until SIGTERM or SIGINT; with `once`, tick once and follow its actions to their outcomes.

        Once more, where a unit is so near a threshold that a second look is due at once: before a step without `for` fires,
        that may have to agree.
        """
        watch, clock = self._watch, self._world.monotonic
        with self._signals():
            began = clock()
            pace = Pace(began, watch.file.interval)
            watch.tick(began)
            watch.announce()
            if once and watch.look_at <= clock() + QUICKEST:
                time.sleep(QUICKEST)
                watch.tick(clock())
            while once and watch.pending and not self._stopping:
                time.sleep(FOLLOW_UP_EVERY)
                watch.catch_up(clock())
            while not (once or self._stopping):
                watch.report_missed(pace.ticked(began, clock()))
                self._sleep(pace)
                if self._reloading:
                    self._reloading = False
                    watch.reload()
                    pace = Pace(clock(), watch.file.interval)
                if not self._stopping:
                    began = clock()
                    watch.tick(began)
                    watch.announce()
            self._world.notify(stopping=1, status="stopping")
            watch.leave(clock())

    def _sleep(self, pace: Pace) -> None:
        """Wait until a tick is due, or until an event or a unit that crosses a threshold causes an earlier one."""
        watch, clock = self._watch, self._world.monotonic
        selector, events, control = watch.selector, watch.tracker.events, watch.control
        listening = crossed = False
        caught_up = clock()
        look_from, listen_from = caught_up, pace.events_from
        try:
            while not (self._stopping or self._reloading):
                now = clock()
                tick_at = min(
                    pace.due,
                    pace.crossings_from if crossed else inf,
                    pace.starts_from if watch.tracker.has_opened else inf,
                )
                if now >= tick_at:
                    return
                if not crossed and now >= max(watch.look_at, look_from):
                    crossed = watch.look(now)
                    look_from = now + (clock() - now) * (1 + REST_PER_LOOK)
                    continue
                if listening != (now >= listen_from):
                    listening = not listening
                    if listening:
                        selector.register(events, selectors.EVENT_READ)
                    else:
                        selector.unregister(events)
                timer = min(self._timers(caught_up), default=inf)
                wake_at = [tick_at, timer]
                if not crossed:
                    wake_at.append(max(watch.look_at, look_from))
                if not listening:
                    wake_at.append(listen_from)
                wait = max(0.0, min(*wake_at, control.due) - now)
                ready = {key.fileobj for key, _ in selector.select(wait)}
                control.serve()
                if ready <= {control} and clock() < timer:
                    continue  # so that clients cause neither work for PID 1 nor a look at what is under way
                caught_up = clock()
                self._world.notify(watchdog=1)
                if self._wakeup in ready:
                    _drain(self._wakeup)
                if events in ready:
                    now = clock()
                    crossed = watch.look(now, events.acknowledge()) or crossed
                    listen_from = now + max(QUICKEST, (clock() - now) * (1 + REST_PER_LOOK))
                caught_up = clock()
                watch.catch_up(caught_up)
        finally:
            if listening:
                selector.unregister(events)

    def _timers(self, caught_up: float) -> Iterator[float]:
        """Yield the times at which something has to be done besides looking, given the time of the last `catch_up`."""
        if self._watch.pending:
            yield caught_up + FOLLOW_UP_EVERY
        if self._watch.connection.manager is None:
            yield self._watch.connection.retry_at
        if (timeout := self._world.watchdog_interval()) is not None:
            yield caught_up + timeout / 3

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn SIGTERM, SIGINT and SIGHUP into flags that wake the selector."""

        def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
            self._stopping = True

        def reload(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
            self._reloading = True

        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: reload}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._watch.selector.register(reader, selectors.EVENT_READ)
        self._wakeup = reader
        try:
            yield
        finally:
            self._wakeup = -1
            self._watch.selector.unregister(reader)
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(reader)
            os.close(writer)


def _drain(pipe: int) -> None:
    with suppress(BlockingIOError):
        while os.read(pipe, 4096):
            pass
