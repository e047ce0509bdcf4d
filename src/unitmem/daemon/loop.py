"""The loop of `unitmem watch`: read, decide, act, tell, and sleep until the next tick or the next event.

One thread (but for memory.reclaim, see `action`). A tick is due every `interval` by the monotonic clock; the kernel's memory.events and the
manager's signals wake it earlier. A bus that is away or hangs costs a timeout: sampling goes on,
actions that need the manager are tried again when it is back (see `connection`).
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Self

from unitmem.act.perform import follow_up, perform
from unitmem.act.task import Pending
from unitmem.daemon.overrides import Keeper
from unitmem.errors import BusLostError, PolicyFileError, UnsupportedSystemError
from unitmem.files import replace_file
from unitmem.kernel.cgroup import Cgroup, CgroupGoneError, own_cgroup, require_memory_controller
from unitmem.kernel.host import read_host
from unitmem.kernel.limits import Level
from unitmem.kernel.process import Process
from unitmem.manager.connection import Connection
from unitmem.manager.notify import notify, watchdog_interval
from unitmem.manager.systemd import Manager
from unitmem.manager.tracker import Tracked, Tracker
from unitmem.measure.collect import collect, resolve, weigh_largest
from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy.decision import Decision, Outcome
from unitmem.policy.engine import evaluate, is_undecided
from unitmem.policy.model import Policy, PolicyFile, observing, wanted_measures
from unitmem.policy.state import carry_over, rearm, retry_all
from unitmem.policyfile import reader as config
from unitmem.policyfile.reader import Checked
from unitmem.quantity import format_span
from unitmem.record.recorder import Recorder
from unitmem.record.state_file import Instant, Store
from unitmem.tell.journal import Journal, Priority
from unitmem.tell.reporter import Teller
from unitmem.tell.status import FILE_NAME as STATUS_FILE
from unitmem.tell.status import Watched, status_document
from unitmem.unit import Invocation, ManagerKind

if TYPE_CHECKING:
    from unitmem.tell.exporter import Exporter


FOLLOW_UP_EVERY = 0.5
"""Seconds between looks at an action under way."""
EVENTS_PER_INTERVAL = 10
"""How many ticks at most events may cause within one interval: a throttled unit causes a hundred a second."""
REST_PER_TICK = 9
"""How many times as long as a tick has taken events wait after it: they cost a tenth of the time at most."""
ALIVE_EVERY = 1.0
"""Seconds after which the watchdog is told that a long tick goes on."""


def main(
    path: str,
    *,
    observe: bool = False,
    once: bool = False,
    user: bool = False,
    textfile: str | None = None,
    listen: str | None = None,
) -> int:
    """Run the policies in the file `path` until SIGTERM or SIGINT, or for one tick; the exit status.

    Args:
        path: the policy file, read again at SIGHUP.
        observe: perform nothing, whatever the policies' modes say.
        once: sample and decide once, see the actions through, and end.
        user: govern the units of the calling user's own manager.
        textfile: where metrics are written to; $UNITMEM_TEXTFILE unless given, and nowhere without either.
        listen: the address, or the port of the loopback's, at which metrics are served; likewise $UNITMEM_LISTEN.

    Raises:
        UsageError: nobody can listen at such an address as `listen`.
        PolicyFileError: the file must not run.
        UnsupportedSystemError, BusError: there is nothing here to watch, or no way to.
    """
    _raise_file_limit()
    exporter = _exporter(Path(path).stem, textfile, listen, keep=once)
    file = _load(Path(path), observe=observe)
    # systemd first: a machine without it most often lacks cgroup v2 too, and for that reason
    manager = Manager(ManagerKind.USER if user else ManagerKind.SYSTEM)
    require_memory_controller()
    watch = Watch(Path(path), file, manager, Directories.of_service(), exporter, observe=observe)
    with watch:
        watch.run(once=once)
        return 0 if watch.has_looked or not once else 1


@dataclass(frozen=True, slots=True)
class Directories:
    """Where a watch keeps what must outlive it, and tells what it sees; None: nowhere."""

    state: Path | None = None
    runtime: Path | None = None

    @classmethod
    def of_service(cls) -> Self:
        """Those that systemd has made for this service; see StateDirectory= in systemd.exec(5)."""

        def first(variable: str) -> Path | None:
            value = os.environ.get(variable, "").partition(":")[0]
            return Path(value) if value else None

        return cls(first("STATE_DIRECTORY"), first("RUNTIME_DIRECTORY"))


class Watch:
    """A running watch: its policies, what it remembers, and its connection."""

    def __init__(
        self,
        path: Path,
        checked: Checked,
        manager: Manager,
        directories: Directories,
        exporter: Exporter | None = None,
        *,
        observe: bool = False,
    ) -> None:
        self.path = path
        self.file: PolicyFile = checked.file
        self._observe = observe
        self._directories = directories
        self._recorder = Recorder(directories.state, Instant.now().boot_id)
        self._exporter = exporter
        self._teller = Teller(Journal(), self._recorder, manager.kind, exporter)
        self._keeper = Keeper(Store(directories.state), self._teller)
        self._wakeup = -1
        self._alive_at = 0.0
        self._troubles: dict[str, frozenset[str]] = {}
        self._tracker = Tracker(self._governs, own_cgroup())
        self._pending: list[Pending] = []
        self.has_looked = False
        """Whether the last tick has seen what there is to see."""
        self._stopping = False
        self._reloading = False
        self._is_loaded = True
        self._missed = 0
        self._overrun_told = False
        self._events_from = 0.0
        self._selector = selectors.DefaultSelector()
        self._connection = Connection(
            manager,
            self._selector,
            on_lost=partial(self._teller.say, Priority.WARNING),
            on_return=partial(self._teller.say, Priority.NOTICE),
            renewed=self._tracker.resume,
        )
        for warning in checked.warnings:
            self._teller.say(Priority.WARNING, warning.at(str(path)))
        self.state = self._keeper.recall(checked.file.policies)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._tracker.close()
        self._selector.close()
        self._recorder.close()
        if self._exporter is not None:
            self._exporter.close()
        self._connection.close()
        self._teller.close()

    # --- the loop ---

    def run(self, *, once: bool = False) -> None:
        """Tick until told to stop; with `once`, tick once and see the actions through."""
        with self._signals():
            started = time.monotonic()
            due = 0  # ticks stand on a grid from the start on, so that they don't drift
            self.tick(started)
            self._tell_ready()
            while once and self._pending and not self._stopping:
                time.sleep(FOLLOW_UP_EVERY)
                self._follow_manager(time.monotonic())
                self._follow_up(time.monotonic())
            while not (once or self._stopping):
                passed = int((time.monotonic() - started) / self.file.interval)
                self._tell_overrun(passed - due)
                due = passed + 1  # missed ticks coalesce
                self._sleep(started + due * self.file.interval)
                if self._reloading:
                    self._reload()
                    started, due = time.monotonic(), 0
                if not self._stopping:
                    self.tick(time.monotonic())
            notify(stopping=1, status="stopping")
            self._leave(time.monotonic())

    def tick(self, now: float) -> None:
        """One round: learn of units, sample them, decide, act, tell."""
        notify(watchdog=1)
        self._follow_manager(now)
        self._follow_up(now)
        sample = self._sample(now)
        self.has_looked = sample is not None and self._tracker.is_listed
        is_unseen = self._tracker.is_unseen if sample is not None else lambda _: True
        sample = sample or Sample(now, {})
        self.state, decisions = evaluate(
            self.file.policies, sample, self.state, now, self.file.budget, is_unseen
        )
        self._act(decisions, sample, now)
        self._keeper.set_back(self.state, self._connection.answering(now), now)
        self._keeper.save(self.state, self.file.policies, now)
        self._recorder.tick(sample, time.time(), wanted_measures(self.file.policies))
        self._teller.unknown(self.state, now)
        self._teller.trouble()
        self._teller.flush()
        self._tell_unseen()
        self._tell_status(sample)
        took = time.monotonic() - now
        self._tell_metrics(sample, took)
        self._events_from = now + max(self.file.interval / EVENTS_PER_INTERVAL, took * (1 + REST_PER_TICK))

    def _sleep(self, deadline: float) -> None:
        """Wait for the deadline, or for an event that is worth an earlier tick."""
        listening = False
        try:
            while not (self._stopping or self._reloading):
                now = time.monotonic()
                if now >= deadline:
                    return
                if not listening and now >= self._events_from:
                    self._selector.register(self._tracker.events, selectors.EVENT_READ)
                    listening = True
                wake_at = min([deadline, *([] if listening else [self._events_from]), *self._timers(now)])
                ready = {key.fileobj for key, _ in self._selector.select(max(0.0, wake_at - now))}
                notify(watchdog=1)
                self._teller.flush()
                if self._wakeup in ready:
                    _drain(self._wakeup)
                if self._tracker.events in ready:
                    self._tracker.events.acknowledge()
                    return
                self._follow_manager(time.monotonic())
                self._follow_up(time.monotonic())
        finally:
            if listening:
                self._selector.unregister(self._tracker.events)

    def _alive(self) -> None:
        """Tell the watchdog that a long tick makes progress."""
        if (now := time.monotonic()) >= self._alive_at:
            self._alive_at = now + ALIVE_EVERY
            notify(watchdog=1)

    def _timers(self, now: float) -> Iterator[float]:
        if self._pending:
            yield now + FOLLOW_UP_EVERY
        if self._connection.manager is None:
            yield self._connection.retry_at
        if (patience := watchdog_interval()) is not None:
            yield now + patience / 3

    # --- reading ---

    def _governs(self, unit: str) -> bool:
        return any(policy.governs(unit) for policy in self.file.policies)

    def _sample(self, now: float) -> Sample | None:
        """Every governed unit that has a cgroup, PSS read where nothing cheaper decides; None if the host can't be read."""
        try:
            host = read_host()
        except (OSError, UnsupportedSystemError) as error:
            self._tell_troubles("host", f"nothing is decided, as the machine can't be read: {error}")
            return None
        self._tell_troubles("host")
        units = {}
        seen: dict[str, Level] = {}
        for tracked, cgroup in self._tracker.present():
            self._alive()
            name = tracked.unit.name
            policies = [policy for policy in self.file.policies if policy.governs(name)]
            try:
                unit = collect(tracked.unit, cgroup, host, wanted_measures(policies), seen=seen)
                unit = replace(unit, protected=tracked.protected)
                if is_undecided(policies, unit, self.state, now):
                    unit = resolve(unit)
            except CgroupGoneError:
                self._tracker.mark_gone(name)
                continue
            except OSError as error:
                # unreadable is not gone: the invocation keeps its place, and nothing of it is known
                unit = _unreadable(tracked, cgroup, error)
            units[name] = unit
        return Sample(now, units)

    # --- acting ---

    def _act(self, decisions: Sequence[Decision], sample: Sample, now: float) -> None:
        """Perform what was decided; what must not be decided again after a crash is kept before that."""
        holds = [self._keeper.hold(decision, self._connection.answering(now)) for decision in decisions]
        if decisions:
            self._keeper.save(self.state, self.file.policies, now, ahead=True)
        for decision, hold in zip(decisions, holds, strict=True):
            self._alive()
            tracked = self._tracker.find(decision.unit)
            cgroup = None if tracked is None else tracked.cgroup
            message = self._teller.decided(decision)
            processes: Sequence[Process] = ()
            if cgroup is not None:  # else found gone in this very tick
                processes = weigh_largest(sample.units[decision.unit], cgroup)
                outcome = perform(decision, cgroup, self._connection.answering(now), now, hold)
            self._teller.record(decision, message, processes)
            if cgroup is not None:
                self._conclude(outcome, now)

    def _follow_up(self, now: float) -> None:
        pending, self._pending = self._pending, []
        for action in pending:
            self._alive()
            self._conclude(follow_up(action, self._connection.answering(now), now), now)

    def _conclude(self, outcome: Outcome | Pending, now: float) -> None:
        if isinstance(outcome, Pending):
            self._pending.append(outcome)
            return
        if outcome.again:
            self.state = rearm(self.state, outcome.decision, now, untried=outcome.untried)
        self._teller.concluded(outcome)

    # --- the manager ---

    def _follow_manager(self, now: float) -> None:
        """Learn what the manager has to say."""
        manager = self._connection.reach(now)
        if manager is None:
            return
        try:
            self._tracker.update(manager, self._alive)
        except BusLostError as error:
            self._connection.lose(error, now)
            return
        if self._connection.confirm():
            self.state = retry_all(self.state)

    def _leave(self, now: float) -> None:
        """Set back what was set, by a manager that may just have been lost."""
        if self._connection.answering(now) is None:
            self._connection.renew(now)
        self._keeper.leave(self.state, self.file.policies, self._connection.manager, now)

    # --- signals and reloading ---

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn SIGTERM, SIGINT and SIGHUP into flags, and wake the selector for them."""

        def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
            self._stopping = True

        def reload(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
            self._reloading = True

        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: reload}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._selector.register(reader, selectors.EVENT_READ)
        self._wakeup = reader
        try:
            yield
        finally:
            self._wakeup = -1
            self._selector.unregister(reader)
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(reader)
            os.close(writer)

    def _reload(self) -> None:
        """Read the file again; a broken one changes nothing, and is told."""
        self._reloading = False
        notify(reloading=1, monotonic_usec=time.monotonic_ns() // 1000)
        try:
            checked = _load(self.path, observe=self._observe)
        except PolicyFileError as error:
            self._is_loaded = False
            for line in str(error).splitlines():
                self._teller.say(Priority.ERROR, line)
            self._teller.say(
                Priority.ERROR, f"{self.path} was not loaded: the policies from before stay in force"
            )
        else:
            self._is_loaded = True
            self.state = carry_over(self.state, self.file.policies, checked.file.policies, time.monotonic())
            self.file = checked.file
            self._tracker.govern(self._governs)
            for warning in checked.warnings:
                self._teller.say(Priority.WARNING, warning.at(str(self.path)))
            self._teller.say(Priority.NOTICE, f"{self.path} is loaded: {_summary(self.file.policies)}")
        notify(ready=1)

    # --- telling ---

    def _tell_ready(self) -> None:
        self._teller.say(
            Priority.INFO,
            f"watching by {self.path}: {_summary(self.file.policies)}, every {format_span(self.file.interval)}"
            + (", observing only" if self._observe else ""),
        )
        notify(ready=1)

    def _tell_status(self, sample: Sample) -> None:
        count = len(sample.units)
        away = "" if self._connection.manager is not None else "; the manager is out of reach"
        doing = f"; {len(self._pending)} actions under way" if self._pending else ""
        notify(status=f"{_summary(self.file.policies)} over {count} running units{doing}{away}")
        if self._directories.runtime is None:
            return
        watched = Watched(
            instance=self.path.stem,
            path=str(self.path),
            interval=self.file.interval,
            is_manager_reachable=self._connection.manager is not None,
            under_way={
                (pending.decision.policy, pending.decision.unit, pending.decision.step): str(
                    pending.decision.action
                )
                for pending in self._pending
            },
            held=self._keeper.spelled(),
        )
        document = status_document(self.file, sample, self.state, watched, time.time())
        try:
            replace_file(
                self._directories.runtime / STATUS_FILE, json.dumps(document), durable=False, mode=0o644
            )
        except OSError as error:
            self._tell_troubles("status", f"`unitmem status` shows an old state, or nothing: {error}")
        else:
            self._tell_troubles("status")

    def _tell_unseen(self) -> None:
        refusal = self._tracker.refusal
        self._tell_troubles(
            "unseen",
            *([] if refusal is None else [f"which units there are is not known: {refusal}"]),
            *(
                f"{unit}: nothing of it is seen, as its cgroup can't be opened: {why}"
                for unit, why in self._tracker.unopened.items()
            ),
        )

    def _tell_troubles(self, kind: str, *troubles: str) -> None:
        """Say what is wrong by now, and was not the last time that this kind of trouble was looked for."""
        told = self._troubles.get(kind, frozenset())
        self._troubles[kind] = frozenset(troubles)
        for trouble in troubles:
            if trouble not in told:
                self._teller.say(Priority.WARNING, trouble)

    def _tell_metrics(self, sample: Sample, took: float) -> None:
        if self._exporter is None:
            return
        news = self._exporter.publish(
            self.file,
            sample,
            self.state,
            took=took,
            missed=self._missed,
            is_manager_reachable=self._connection.manager is not None,
            is_file_loaded=self._is_loaded,
            under_way=len(self._pending),
            to_set_back=len(self._keeper.spelled()),
        )
        for message in news:
            self._teller.say(Priority.WARNING, message)

    def _tell_overrun(self, missed: int) -> None:
        """Say once that ticks are missed, until they are kept again."""
        self._missed += max(0, missed)
        if missed > 0 and not self._overrun_told:
            self._teller.say(
                Priority.WARNING,
                f"a tick took longer than the interval of {format_span(self.file.interval)}: "
                f"{missed} were skipped; choose a longer `interval`, or fewer process measures",
            )
        self._overrun_told = missed > 0


def _raise_file_limit() -> None:
    """Each unit takes two descriptors: a shell's soft limit is soon met by a machine with hundreds of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _exporter(watch: str, textfile: str | None, listen: str | None, *, keep: bool) -> Exporter | None:
    """What tells Prometheus, where it is asked for; what is off in the environment is told later, and stops nobody."""
    textfile = textfile or os.environ.get("UNITMEM_TEXTFILE")
    by_environment = os.environ.get("UNITMEM_LISTEN")
    if not (textfile or listen or by_environment):
        return None
    from unitmem.tell.exporter import Exporter, parse_address  # noqa: PLC0415 - a megabyte that not every watch needs

    if listen:
        parse_address(listen)
    return Exporter(watch, Path(textfile) if textfile else None, listen or by_environment, keep=keep)


def _load(path: Path, *, observe: bool) -> Checked:
    checked = config.load(path)
    return replace(checked, file=observing(checked.file)) if observe else checked


def _drain(pipe: int) -> None:
    with suppress(BlockingIOError):
        while os.read(pipe, 4096):
            pass


def _unreadable(tracked: Tracked, cgroup: Cgroup, error: OSError) -> UnitSample:
    unit = tracked.unit
    return UnitSample(
        unit=unit,
        invocation=Invocation(unit.name, unit.invocation_id, cgroup.inode),
        protected=tracked.protected,
        unknown={cgroup.path: str(error)},
    )


def _summary(policies: tuple[Policy, ...]) -> str:
    return f"{len(policies)} {'policy' if len(policies) == 1 else 'policies'}"
