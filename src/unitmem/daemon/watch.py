"""One watch: its policies, its state, and its tick: update units, sample, evaluate, act, report.

A bus that is away or hangs costs a timeout: sampling goes on, and actions that need the manager are retried
when it is back (see `connection`).
"""

from __future__ import annotations

import selectors
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from unitmem.act.perform import follow_up, perform
from unitmem.act.resume import resume
from unitmem.act.task import Pending
from unitmem.daemon.alive import Alive
from unitmem.daemon.control import Control
from unitmem.daemon.intents import Intents, recorded
from unitmem.daemon.overrides import Overrides
from unitmem.daemon.pace import LONGEST_SUSPEND
from unitmem.daemon.policy_file import Loaded, load_checked
from unitmem.daemon.reloading import answer_reload
from unitmem.daemon.requests import Requests, unit_meant
from unitmem.daemon.sampling import Sampling
from unitmem.daemon.saved_state import SavedState
from unitmem.daemon.unseen import Unseen
from unitmem.daemon.world import World
from unitmem.errors import BusLostError, UnitmemError, UnsupportedSystemError, reason_of
from unitmem.kernel.cgroup import Cgroup
from unitmem.kernel.files import OpenFiles
from unitmem.manager.connection import Connection
from unitmem.manager.systemd import Manager
from unitmem.manager.tracker import Tracker
from unitmem.measure.catalogue import CGROUP_NAMES, OOM_KILLS, Trait, with_trait
from unitmem.measure.collect import list_few, measure_largest
from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy.decision import Decision, Outcome, Result, gravest_first
from unitmem.policy.engine import evaluate
from unitmem.policy.model import Policy, PolicyFile
from unitmem.policy.state import (
    State,
    carry_over,
    conclude,
    forget_refusals,
    reset,
    restart_timers,
    retry_all,
    withdraw,
)
from unitmem.record.clock import Instant
from unitmem.record.event import EventKind
from unitmem.record.recorder import Recorder
from unitmem.record.state_file import Remembered, Store
from unitmem.tell.journal import Priority
from unitmem.tell.once import QUIET
from unitmem.tell.reporter import Reporter
from unitmem.tell.reset import reset_document
from unitmem.tell.status import WatchStatus, status_document
from unitmem.text import format_span, plural
from unitmem.unit import ManagerKind, Unit

if TYPE_CHECKING:
    from unitmem.tell.exporter import Exporter


class Watch:
    """The policies, units and state of one watch; `loop` calls its methods.

    Args:
        path: the policy file, for `reload`.
        checked: the file as read.
        manager: connected, and not followed yet; None if it can't be reached so far.
        world: the machine.
        exporter: publishes metrics; None for no metrics.
        observe: perform nothing, whatever the policies' modes say.
        kind: which manager, where `manager` is None.
    """

    def __init__(
        self,
        path: Path,
        checked: Loaded,
        manager: Manager | None,
        world: World,
        exporter: Exporter | None = None,
        *,
        observe: bool = False,
        kind: ManagerKind = ManagerKind.SYSTEM,
    ) -> None:
        self.path = path
        self.file: PolicyFile = checked.file
        self.has_looked = False
        """Whether the last tick knew which units there are, and could read the machine."""
        self.pending: list[Pending] = []
        """The actions that are under way."""
        self.selector = selectors.DefaultSelector()
        """What wakes the loop; the manager's signals are registered."""
        self._kept = OpenFiles(world.most_open_files) if world.most_open_files else None
        self.tracker = Tracker(
            self._governs,
            world.own_cgroup(),
            world.cgroup_root,
            self.file.names,
            counts_oom=OOM_KILLS in self.file.measures,
            kept=self._kept,
        )
        recorded = () if world.state_directory is None else with_trait(Trait.RECORDED)
        always = recorded if exporter is None else CGROUP_NAMES
        # metrics are of now
        self.sampling = Sampling(always, world.cgroup_root, self._kept, reads_all=exporter is not None)
        self.world = world
        self._observe = observe
        self._recorder = Recorder(world.state_directory, Instant.now().boot_id)
        self._exporter = exporter
        kind = kind if manager is None else manager.kind
        self._reporter = Reporter(world.open_journal(), self._recorder, kind, exporter, world.monotonic)
        store = Store(world.state_directory, world.runtime_directory)
        self._saved_state = SavedState(store, self._reporter)
        self._alive = Alive(world)
        self._suspended = world.suspended()
        self._unseen = Unseen(self._reporter)
        self._is_loaded = True
        self._missed = 0
        self.connection = Connection(
            kind,
            manager,
            self.selector,
            on_lost=partial(self._reporter.once, "manager", by_words=False),
            on_return=partial(self._reporter.once, "manager", None),
            renewed=self.tracker.resume,
            connect=world.connect,
        )
        self._seen, self._seen_at = Sample(0.0, is_complete=False), 0.0
        self._requests = Requests(self._status, self._reset)
        self.control = Control(world.runtime_directory, self.selector, self._requests.answer, world.monotonic)
        self._tell_warnings(checked)
        remembered = self._saved_state.load(checked.file.policies, checked.file.budget)
        self.state: State = remembered.state
        self.overrides = Overrides(remembered.overrides, self._reporter)
        self._intents = Intents(remembered.intents, self._saved_state)
        self._over: list[Decision] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.control.close()
        self.tracker.close()
        self.sampling.close()
        self.selector.close()
        self._recorder.close()
        self._saved_state.close()
        if self._exporter is not None:
            self._exporter.close()
        self.connection.close()
        self._reporter.close()

    # --- what the loop asks for ---

    def tick(self, now: float) -> None:
        """Do one tick: update the units, sample them, decide, act, report."""
        self.catch_up(now)
        self._notice_suspend()
        sample = self._sample(now)
        self._seen, self._seen_at = sample, self.world.realtime()
        self.tracker.has_opened = False
        self.has_looked = sample.is_complete
        self.state, decisions = evaluate(self.file, sample, self.state, now)
        self._act(decisions, sample, now)
        self.overrides.undo_ended(self.state, self.connection.answering(now), now)
        self._forget_over()
        self._save(now)
        self._recorder.tick(sample, self.world.realtime(), self.file.measures, self.file.followed)
        self._reporter.unknown(self.state, now, sample.units)
        self._reporter.trouble()
        self._reporter.flush()
        self._unseen.report(self.tracker, self._kept)
        self._tell_status(sample)
        self._tell_metrics(sample, self.world.monotonic() - now)

    @property
    def look_at(self) -> float:
        """When to look at the units that are near a threshold, between two ticks."""
        return self.sampling.look_at

    def look(self, now: float, changed: Collection[int] = ()) -> bool:
        """Look at the units that are near a threshold; return whether one has crossed it, so that a tick is due.

        Also at those of which memory.events has `changed`, given by the inodes of their cgroups.
        """
        return self.sampling.look(self.state, now, changed)

    def catch_up(self, now: float) -> None:
        """Check the actions under way, read the manager's signals, and send what journald had no room for."""
        self._alive()
        self._reporter.flush()
        # before the manager is asked, which may take long: a last resort needs none
        pending, self.pending = self.pending, []
        for action in pending:
            self._alive()
            observes = self._observe or action.decision.policy not in self.file.acting
            after = follow_up(action, self.connection.answering(now), now, observe=observes)
            if after != action:
                self._intents.follow(action.decision, after)
            self._conclude(after, now)
        manager = self.connection.reach(now)
        if manager is not None:
            try:
                self.tracker.update(manager, self._alive, now)
            except BusLostError as error:
                self.connection.lose(error, now)
            else:
                if self.connection.confirm():
                    self.state = retry_all(self.state)
                if self.tracker.has_reloaded:
                    self.state = forget_refusals(self.state)
        if self._intents.left:
            self._resume(now)
        if self._forget_over():
            self._save(now, ahead=True)

    def announce(self) -> None:
        """Log what is watched and notify the manager that the watch is ready, once units are listed."""
        if self._alive.is_ready or not (self.tracker.is_listed or self.tracker.refusal is not None):
            return
        self._reporter.say(
            Priority.INFO,
            f"watching with {self.path}: {_summary(self.file.policies)}, every {format_span(self.file.interval)}"
            + (", observing only" if self._observe else ""),
        )
        self._alive.ready()

    def report_missed(self, missed: int) -> None:
        """Count missed ticks; log the first delay, and no further one until none was missed for a minute."""
        self._missed += missed
        late = (
            f"late by {plural(missed, 'tick')} (interval {format_span(self.file.interval)}): choose a longer "
            "`interval`, or fewer process measures; further delays are not logged until it has caught up"
        )
        well = f"caught up: no longer late; {plural(self._missed, 'tick')} missed since the start"
        self._reporter.once("late", late if missed > 0 else None, well, by_words=False, quiet=QUIET)

    def reload(self) -> None:
        """Read the policy file again; if it has mistakes, log them and keep the policies."""
        now = self.world.monotonic()
        self.world.notify(reloading=1, monotonic_usec=int(now * 1_000_000))
        try:
            checked = load_checked(self.path, observe=self._observe)
        except UnitmemError as error:
            self._is_loaded = False
            kept = f"{self.path} was not loaded: the previous policies stay in force"
            for line in (*str(error).splitlines(), kept):
                self._reporter.say(Priority.ERROR, line)
        else:
            self._is_loaded = True
            self.state = carry_over(self.state, self.file.policies, checked.file.policies, now)
            self.file = checked.file
            self.tracker.govern(self._governs, self.file.names, counts_oom=OOM_KILLS in self.file.measures)
            self._tell_warnings(checked)
            self._reporter.say(Priority.NOTICE, f"{self.path} is loaded: {_summary(self.file.policies)}")
        if self._alive.is_ready:
            self.world.notify(ready=1)
        answer_reload(self.world.runtime_directory, is_loaded=self._is_loaded)

    def leave(self, now: float) -> None:
        """Undo the overrides, connecting anew if the manager was lost, and save the state."""
        if self.connection.answering(now) is None:
            self.connection.renew(now)
        self.state = self.overrides.lapsed(self.state, self.file.policies)
        self.overrides.undo_all(self.connection.manager, now)
        self._save(now)

    # --- reading ---

    def _governs(self, unit: str) -> bool:
        return any(policy.governs(Unit(unit)) for policy in self.file.policies)

    def _sample(self, now: float) -> Sample:
        """Return the sample of this tick; an empty, incomplete one if the host can't be read."""
        try:
            host = self.world.read_host()
        except (OSError, UnsupportedSystemError) as error:
            self._reporter.once("host", f"nothing is decided, as the machine can't be read: {error}")
            return Sample(now, is_complete=False)
        self._reporter.once("host", None, "the machine can be read again")
        return self.sampling.take(self.tracker, host, self.file.policies, self.state, now, self._alive)

    def _notice_suspend(self) -> None:
        """Restart the timers of all steps after a suspend, which the monotonic clock leaves out."""
        before, self._suspended = self._suspended, self.world.suspended()
        if self._suspended - before > LONGEST_SUSPEND:
            self.state = restart_timers(self.state)
            self._recorder.resumed()

    # --- acting ---

    def _resume(self, now: float) -> None:
        """Take up the actions of the previous watch: report them, follow those whose outcome isn't seen yet."""
        left, self._intents.left = self._intents.left, []
        for intent in left:
            manager, decision = self.connection.answering(now), intent.decision
            self._alive()
            root = self.world.cgroup_root
            observes = self._observe or decision.policy not in self.file.acting
            result = None if manager is None else resume(intent, manager, root, now, observe=observes)
            if result is None:
                self._intents.left.append(intent)
                continue
            known = recorded(intent, self.world.state_directory)
            if not intent.logged:
                self._reporter.decided(decision, late=now - decision.at)
                self._intents.logged(decision)
            if EventKind.DECISION not in known:
                self._reporter.record(decision, intent.realtime)
            if decision.acts and not intent.begun:
                self.state = withdraw(self.state, decision)
            self._conclude(result, now, is_reported=EventKind.OUTCOME in known)

    def _act(self, decisions: Sequence[Decision], sample: Sample, now: float) -> None:
        """Perform the decisions, the gravest first; then describe them, for which processes and the journal may wait.

        The state is saved before with the decisions in it, so that a crash neither repeats nor loses them.
        """
        if not decisions:
            return
        decisions = gravest_first(decisions)
        self._intents.add(decisions, self.world.realtime())
        self._save(now, ahead=True)
        for deed in [self._perform(decision, sample, now) for decision in decisions]:
            self._alive()
            decision = deed.decision
            self._reporter.decided(decision)
            self._intents.logged(decision)
            processes = () if deed.cgroup is None else measure_largest(deed.unit, deed.cgroup)
            self._reporter.record(decision, self._intents.about(decision).realtime, processes)
            self._conclude(deed.outcome, now)

    def _perform(self, decision: Decision, sample: Sample, now: float) -> _Deed:
        self._alive()
        tracked, unit = self.tracker.find(decision.unit), sample.units[decision.unit]
        cgroup = None if tracked is None else tracked.cgroup
        if cgroup is None:
            gone = Outcome(decision, Result.GONE, "it was found gone in this very tick", now)
            return _Deed(decision, unit, None, gone)
        manager = self.connection.answering(now)
        override = self.overrides.prepare(decision, manager)
        if not decision.acts:
            return _Deed(decision, unit, cgroup, perform(decision, cgroup, manager, now))
        self._intents.begin(decision, override)
        unit = list_few(unit, cgroup)  # what it ends may be gone before it is described
        outcome = perform(decision, cgroup, manager, now, override)
        self._intents.follow(decision, outcome)
        return _Deed(decision, unit, cgroup, outcome)

    def _conclude(self, outcome: Outcome | Pending, now: float, *, is_reported: bool = False) -> None:
        if isinstance(outcome, Pending):
            self.pending.append(outcome)
            return
        self.state = conclude(self.state, outcome, now)
        if not is_reported:
            self._reporter.concluded(outcome, self._intents.about(outcome.decision).realtime)
        self._over.append(outcome.decision)

    def _forget_over(self) -> bool:
        """Forget the actions that are over, which the caller saves with what came of them; return whether there are any."""
        over, self._over = self._over, []
        for decision in over:
            self._intents.forget(decision)
        return bool(over)

    def _save(self, now: float, *, ahead: bool = False) -> None:
        remembered = Remembered(self.state, self.overrides.in_force, self._intents.all)
        self._saved_state.save(remembered, self.file.policies, now, ahead=ahead)

    # --- telling ---

    def _tell_warnings(self, checked: Loaded) -> None:
        for warning in checked.warnings:
            self._reporter.say(Priority.WARNING, warning.at(str(self.path)))

    def _tell_status(self, sample: Sample) -> None:
        away = "" if self.connection.manager is not None else "; the manager is out of reach"
        doing = f"; {plural(len(self.pending), 'action')} under way" if self.pending else ""
        governed = f"{_summary(self.file.policies)} over {plural(len(sample.units), 'running unit')}"
        self.world.notify(status=f"{governed}{doing}{away}")
        self._requests.renew()
        try:
            self.control.mark()
        except OSError as error:
            why = f"its socket can't be opened: {reason_of(error)}"
            self._reporter.once("control", f"`unitmem status` and `reset` can't ask this watch, as {why}")
        else:
            self._reporter.once("control", None, "the socket for `unitmem status` and `reset` is open again")

    def _status(self) -> dict[str, Any]:
        status = WatchStatus(
            instance=self.path.stem,
            path=str(self.path),
            interval=self.file.interval,
            is_manager_reachable=self.connection.manager is not None,
            under_way={pending.decision.key[:3]: str(pending.decision.action) for pending in self.pending},
            overrides=self.overrides.spelled(),
            nearest=self.sampling.nearest,
        )
        return status_document(self.file, self._seen, self.state, status, self._seen_at)

    def _reset(self, unit: str | None, uid: int) -> dict[str, Any]:
        """Give back what is spent of `unit`, or of all, for the user `uid`; return the document of it."""
        unit = unit_meant(unit, self._seen, self.file, self.state)
        now = self.world.monotonic()
        self.state, given_back = reset(self.state, unit, now)
        document = reset_document(unit, given_back)
        if not given_back.is_nothing:
            self._reporter.reset(document, uid, now)
            self._save(now)
        return document

    def _tell_metrics(self, sample: Sample, took: float) -> None:
        if self._exporter is None:
            return
        news = self._exporter.publish(
            self.file,
            sample,
            self.state,
            took=took,
            missed=self._missed,
            is_manager_reachable=self.connection.manager is not None,
            is_file_loaded=self._is_loaded,
            under_way=len(self.pending),
            to_set_back=len(self.overrides.spelled()),
        )
        for entry in news:
            self._reporter.say(entry.priority, entry.message)


class _Deed(NamedTuple):
    """A decision that was performed, and the unit as it was before."""

    decision: Decision
    unit: UnitSample
    cgroup: Cgroup | None
    """None for a unit that is gone, so that nothing was performed."""
    outcome: Outcome | Pending


def _summary(policies: tuple[Policy, ...]) -> str:
    return plural(len(policies), "policy", "policies")
