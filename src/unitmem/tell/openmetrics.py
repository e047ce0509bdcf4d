"""Metrics for Prometheus: the families, a page of samples, and its text; pure.

`page` has all metrics of a watch, `measures_page` only those of units and the machine. `render` writes either in
one of two formats: in OpenMetrics a counter is `x` with samples `x_total`, and the page ends with `# EOF`; in the
older text format the counter is `x_total` itself. The official client library reads both, node_exporter's textfile
collector knows types only in the older one.

Names follow https://prometheus.io/docs/practices/naming/: they end with the base unit, and ratios are of 1 rather
than percent. An unknown value has no sample. The number of label sets is bounded by the policy file and the units
that run, and by `UNITS_REMEMBERED` for counts of units that no longer do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import NamedTuple

from unitmem.measure.catalogue import MEASURES, Dimension, Measure, Scope
from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy.decision import Decision, Obstacle, Outcome, Result
from unitmem.policy.model import Mode, Policy, PolicyFile, Step, step_number
from unitmem.policy.state import (
    Phase,
    State,
    cooldown_left,
    cooling_absent,
    cools_until,
    file_budget_left,
    is_open,
    step_state,
    unit_budget_left,
)
from unitmem.policy.trends import NOT_YET_WATCHED

UNITS_REMEMBERED = 200
"""The number of units that no longer run whose counts are kept; the latest are."""
TICK_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
"""The buckets of the histogram of tick durations, in seconds."""


class Format(StrEnum):
    """The formats of a page."""

    OPENMETRICS = "openmetrics"
    TEXT = "text"
    """Prometheus' older format, version 0.0.4: what node_exporter's textfile collector reads."""


class MetricType(StrEnum):
    """The types of metrics."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family: all metrics of one name."""

    name: str
    """The name in OpenMetrics: that of a counter is without `_total`."""
    kind: MetricType
    meaning: str
    labels: tuple[str, ...]
    unit: str = ""
    """The unit, with which the name ends: `bytes`, `seconds`, `ratio`; empty for a plain number."""

    @property
    def metric(self) -> str:
        """The name in a query."""
        return f"{self.name}_total" if self.kind is MetricType.COUNTER else self.name


Labels = tuple[tuple[str, str], ...]


class Point(NamedTuple):
    """One sample of a family."""

    labels: Labels
    value: float
    suffix: str = ""
    """The suffix of the metric's name, such as `_bucket`."""


Page = Mapping[Family, list[Point]]

CountKey = tuple[str, Labels]
"""A family's name, and the labels of a counter."""
Counts = Mapping[str, Mapping[CountKey, int]]
"""Counts by unit and counter; the unit that was counted last comes last."""


@dataclass(frozen=True, slots=True)
class TickTimes:
    """The durations of ticks, as a histogram."""

    count: int = 0
    missed: int = 0
    seconds: float = 0.0
    within: tuple[int, ...] = (0,) * len(TICK_BUCKETS)
    """The numbers of ticks that took no longer than each of `TICK_BUCKETS`."""

    def after(self, seconds: float) -> TickTimes:
        """Return the durations with a tick of `seconds` added."""
        pairs = zip(self.within, TICK_BUCKETS, strict=True)
        within = tuple(count + (seconds <= bound) for count, bound in pairs)
        return replace(self, count=self.count + 1, seconds=self.seconds + seconds, within=within)


@dataclass(frozen=True, slots=True)
class Seen:
    """The values of one tick; immutable, so that another thread may read it."""

    watch: str
    """The watch's name, a label that distinguishes several watches of one unit."""
    version: str
    file: PolicyFile
    sample: Sample
    state: State
    counts: Counts = field(default_factory=dict)
    ticks: TickTimes = TickTimes()
    started: float = 0.0
    """The time when the watch started, by the wall clock, as `ticked`."""
    ticked: float = 0.0
    is_manager_reachable: bool = True
    is_file_loaded: bool = True
    """Whether the file could be loaded when it was last read."""
    under_way: int = 0
    to_set_back: int = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """The CPU time and memory of the watch itself."""

    cpu_seconds: float
    rss: int | None = None
    pss: int | None = None


# --- what there is -----------------------------------------------------------------------------

_UNIT_OF_DIMENSION = {Dimension.SIZE: "bytes", Dimension.PERCENT: "ratio", Dimension.SPAN: "seconds"}


def _of_measure(measure: Measure) -> Family:
    subject = measure.name if measure.scope is Scope.HOST else f"unit.{measure.name}"
    unit = _UNIT_OF_DIMENSION.get(measure.dimension, "")
    labels = ("watch",) if measure.scope is Scope.HOST else ("watch", "unit")
    kind = MetricType.COUNTER if measure.dimension is Dimension.COUNT else MetricType.GAUGE
    name = "_".join(["unitmem", *subject.split("."), *filter(None, [unit])])
    meaning = f"{measure.formula} ({measure.source})" + (", of 1" if unit == "ratio" else "")
    return Family(name, kind, meaning, labels, unit)


OF_MEASURE: Mapping[str, Family] = {name: _of_measure(measure) for name, measure in MEASURES.items()}

_OF_POLICY = ("watch", "policy", "unit")
_OF_STEP = ("watch", "policy", "step", "unit")
_OF_ACTION = ("watch", "policy", "step", "action", "unit")


_of_watch: list[Family] = []


def _family(kind: MetricType, name: str, labels: tuple[str, ...], meaning: str, unit: str = "") -> Family:
    _of_watch.append(Family(name, kind, meaning, labels, unit))
    return _of_watch[-1]


_gauge = partial(_family, MetricType.GAUGE)
_counter = partial(_family, MetricType.COUNTER)

POLICY_INFO = _gauge(
    "unitmem_policy_info",
    ("watch", "policy", "mode"),
    "1, with its mode: act or observe",
)
STEP_INFO = _gauge(
    "unitmem_step_info",
    ("watch", "policy", "step", "action", "when"),
    "1, with what it does, and its condition; steps count from 1",
)
STEP_PHASE = _gauge(
    "unitmem_step_phase",
    (*_OF_STEP, "phase"),
    "1 for the phase in which the step is, 0 for the others: idle, holding, fired",
)
STEP_UNKNOWN = _gauge(
    "unitmem_step_unknown_measures",
    _OF_STEP,
    "measures that can't be read, and without which the step's condition can't be judged",
)
EPISODE_OPEN = _gauge(
    "unitmem_episode_open", _OF_POLICY, "1 from the first step that fires until the end of it"
)
COOLDOWN = _gauge(
    "unitmem_cooldown_remaining_seconds", _OF_POLICY, "time until a new episode may begin", "seconds"
)
BUDGET_LEFT = _gauge(
    "unitmem_budget_actions_left", _OF_POLICY, "actions that the policy's budget for the unit has left"
)
FILE_BUDGET_LEFT = _gauge(
    "unitmem_file_budget_actions_left", ("watch",), "actions that the budget of the whole file has left"
)
ACTIONS = _counter(
    "unitmem_actions", _OF_ACTION, "actions decided, performed or, where the policy only observes, logged"
)
OUTCOMES = _counter(
    "unitmem_outcomes",
    (*_OF_ACTION, "result"),
    "what became of actions: verified, failed, gone (the run or process had ended), observed",
)
NEAR_DECISIONS = _counter(
    "unitmem_near_decisions",
    (*_OF_ACTION, "obstacle"),
    "what was due and withheld: protected, cooling down, refused by the manager, out of budget, out of the file's budget",
)
BUILD_INFO = _gauge("unitmem_build_info", ("watch", "version"), "1, with the version of unitmem")
START_TIME = _gauge(
    "unitmem_watch_start_time_seconds", ("watch",), "when the watch started, in seconds since 1970", "seconds"
)
LAST_TICK = _gauge(
    "unitmem_watch_last_tick_timestamp_seconds",
    ("watch",),
    "when it last ticked, in seconds since 1970",
    "seconds",
)
INTERVAL = _gauge("unitmem_watch_interval_seconds", ("watch",), "the file's interval", "seconds")
UNITS = _gauge("unitmem_watch_units", ("watch",), "units that run and are governed")
MANAGER_REACHABLE = _gauge(
    "unitmem_watch_manager_reachable", ("watch",), "1 while the service manager can be asked, else 0"
)
FILE_LOADED = _gauge(
    "unitmem_watch_file_loaded",
    ("watch",),
    "1 if the policy file could be loaded when it was last read, 0 if older policies are in force",
)
UNDER_WAY = _gauge("unitmem_watch_actions_under_way", ("watch",), "actions whose outcome is not seen yet")
TO_SET_BACK = _gauge(
    "unitmem_watch_properties_to_set_back", ("watch",), "properties that are set until their episode ends"
)
TICKS = _counter("unitmem_watch_ticks", ("watch",), "ticks, those that events caused included")
MISSED = _counter(
    "unitmem_watch_ticks_missed", ("watch",), "ticks skipped since the one before took too long"
)
TICK_TIME = _family(
    MetricType.HISTOGRAM,
    "unitmem_watch_tick_duration_seconds",
    ("watch",),
    "how long a tick takes",
    "seconds",
)
CPU = _counter("unitmem_watch_cpu_seconds", ("watch",), "CPU time of the watch, user and system", "seconds")
RSS = _gauge("unitmem_watch_rss_bytes", ("watch",), "RSS of the watch", "bytes")
PSS = _gauge("unitmem_watch_pss_bytes", ("watch",), "PSS of the watch", "bytes")

FAMILIES: tuple[Family, ...] = (*OF_MEASURE.values(), *_of_watch)
"""All families, in the order of a page."""


# --- counting ----------------------------------------------------------------------------------


def count_decision(counts: Counts, decision: Decision) -> Counts:
    """Return `counts` with one action more, or with one near-decision if the decision has an obstacle."""
    labels = _action_labels(decision)
    if decision.refusal is None:
        return _count(counts, decision.unit, ACTIONS, labels)
    return _count(
        counts, decision.unit, NEAR_DECISIONS, (*labels, ("obstacle", str(decision.refusal.obstacle)))
    )


def count_outcome(counts: Counts, outcome: Outcome) -> Counts:
    """Return `counts` with one outcome more; refused decisions were counted by `count_decision`."""
    if outcome.result is Result.REFUSED:
        return counts
    labels = (*_action_labels(outcome.decision), ("result", str(outcome.result)))
    return _count(counts, outcome.decision.unit, OUTCOMES, labels)


def forget_missing(counts: Counts, present: Collection[str]) -> Counts:
    """Return `counts` without units that are not `present`, except for the latest `UNITS_REMEMBERED` of those.

    Otherwise the names of transient units would accumulate.
    """
    gone = [unit for unit in counts if unit not in present]
    if len(gone) <= UNITS_REMEMBERED:
        return counts
    forgotten = set(gone[:-UNITS_REMEMBERED])
    return {unit: mine for unit, mine in counts.items() if unit not in forgotten}


def _count(counts: Counts, unit: str, family: Family, labels: Labels) -> Counts:
    mine = dict(counts.get(unit, {}))
    key = family.name, labels
    mine[key] = mine.get(key, 0) + 1
    return {**{name: others for name, others in counts.items() if name != unit}, unit: mine}


def _action_labels(decision: Decision) -> Labels:
    return _labels_of(decision.policy, decision.step_number, decision.action.name, decision.unit)


def _labels_of(policy: str, step: int, action: str, unit: str) -> Labels:
    return ("policy", policy), ("step", str(step)), ("action", action), ("unit", unit)


# --- a page ------------------------------------------------------------------------------------


def page(seen: Seen, cost: Cost) -> Page:
    """Return the page of all metrics of a watch."""
    whose = (("watch", seen.watch),)
    filled = _Filled(whose)
    filled.measures(seen.sample)
    filled.policies(seen)
    filled.counts(seen)
    filled.watch(seen, cost)
    return filled.page()


def measures_page(sample: Sample) -> Page:
    """Return the page of the measures of units and machine in `sample`, without any watch."""
    filled = _Filled(())
    filled.measures(sample)
    return filled.page()


class _Filled:
    """A page that is being filled."""

    def __init__(self, whose: Labels) -> None:
        self._whose = whose
        self._points: dict[str, list[Point]] = {}

    def page(self) -> Page:
        return {family: self._points[family.name] for family in FAMILIES if family.name in self._points}

    def add(self, family: Family, value: float, labels: Labels = (), suffix: str = "") -> None:
        self._points.setdefault(family.name, []).append(Point(self._whose + labels, value, suffix))

    def measures(self, sample: Sample) -> None:
        for unit in sample.units.values():
            labels = (*self._whose, ("unit", unit.name))  # one object for all its points
            for name, value in unit.values.items():
                if (family := OF_MEASURE.get(name)) is None:
                    continue  # of the slice around it, which is a unit of its own
                point = Point(labels, _in_base_unit(family, value))
                self._points.setdefault(family.name, []).append(point)
        for name, value in sample.host.values.items():
            self.add(OF_MEASURE[name], _in_base_unit(OF_MEASURE[name], value))

    def policies(self, seen: Seen) -> None:
        file, state, now = seen.file, seen.state, seen.sample.at
        for policy in file.policies:
            of_policy = ("policy", policy.name)
            self.add(POLICY_INFO, 1, (of_policy, ("mode", str(policy.mode))))
            for index, step in enumerate(policy.steps):
                about = ("action", step.action.name), ("when", str(step.when))
                self.add(STEP_INFO, 1, (of_policy, ("step", str(step_number(index))), *about))
            for one in seen.sample.units.values():
                if policy.governs(one.unit):
                    self._ladder(policy, one.name, state, now)
        for (name, unit), left in cooling_absent(state, seen.sample.units, now):
            self.add(COOLDOWN, left, (("policy", name), ("unit", unit)))
        if (file_left := file_budget_left(file, state, now)) is not None:
            self.add(FILE_BUDGET_LEFT, file_left)

    def _ladder(self, policy: Policy, unit: str, state: State, now: float) -> None:
        key = policy.name, unit
        of_policy, of_unit = ("policy", policy.name), ("unit", unit)
        ladder = state.ladders.get(key)
        for index in range(len(policy.steps)):
            step = step_state(ladder, index)
            labels = of_policy, ("step", str(step_number(index))), of_unit
            for phase in Phase:
                self.add(STEP_PHASE, int(step.phase is phase), (*labels, ("phase", str(phase))))
            blind = sum(1 for why in step.unknown.values() if why != NOT_YET_WATCHED)
            self.add(STEP_UNKNOWN, blind, labels)
        self.add(EPISODE_OPEN, int(is_open(state, key)), (of_policy, of_unit))
        if policy.cooldown > 0 or cools_until(state.cooling, key) is not None:
            self.add(COOLDOWN, cooldown_left(state, key, now) or 0.0, (of_policy, of_unit))
        if (left := unit_budget_left(policy, state, unit, now)) is not None:
            self.add(BUDGET_LEFT, left, (of_policy, of_unit))

    def counts(self, seen: Seen) -> None:
        """Add the counts, and 0 for all that may be counted later: a rate needs a first value."""
        counted = {key: count for mine in seen.counts.values() for key, count in mine.items()}
        for policy in seen.file.policies:
            for unit in seen.sample.units.values():
                if policy.governs(unit.unit):
                    for key in _countable(policy, seen.file, unit):
                        counted.setdefault(key, 0)
        by_name = {family.name: family for family in (ACTIONS, OUTCOMES, NEAR_DECISIONS)}
        for (name, labels), count in counted.items():
            self.add(by_name[name], count, labels)

    def watch(self, seen: Seen, cost: Cost) -> None:
        self.add(BUILD_INFO, 1, (("version", seen.version),))
        for family, value in (
            (START_TIME, seen.started),
            (LAST_TICK, seen.ticked),
            (INTERVAL, seen.file.interval),
            (UNITS, len(seen.sample.units)),
            (MANAGER_REACHABLE, int(seen.is_manager_reachable)),
            (FILE_LOADED, int(seen.is_file_loaded)),
            (UNDER_WAY, seen.under_way),
            (TO_SET_BACK, seen.to_set_back),
            (TICKS, seen.ticks.count),
            (MISSED, seen.ticks.missed),
            (CPU, cost.cpu_seconds),
            (RSS, cost.rss),
            (PSS, cost.pss),
        ):
            if value is not None:
                self.add(family, value)
        for bound, count in zip(TICK_BUCKETS, seen.ticks.within, strict=True):
            self.add(TICK_TIME, count, (("le", repr(bound)),), "_bucket")
        self.add(TICK_TIME, seen.ticks.count, (("le", "+Inf"),), "_bucket")
        self.add(TICK_TIME, seen.ticks.count, suffix="_count")
        self.add(TICK_TIME, seen.ticks.seconds, suffix="_sum")


def _in_base_unit(family: Family, value: float) -> float:
    # rounded, since 42.35 / 100 is 0.42350000000000004
    return round(value / 100, 6) if family.unit == "ratio" else value


def _countable(policy: Policy, file: PolicyFile, unit: UnitSample) -> Iterator[CountKey]:
    """Yield the keys of all that may be counted of `unit` under `policy`."""
    name = unit.unit.name
    for index, step in enumerate(policy.steps):
        labels = _labels_of(policy.name, step_number(index), step.action.name, name)
        yield ACTIONS.name, labels
        for result in _results(policy, step):
            yield OUTCOMES.name, (*labels, ("result", str(result)))
        for obstacle in _obstacles(policy, step, file, unit):
            yield NEAR_DECISIONS.name, (*labels, ("obstacle", str(obstacle)))


def _results(policy: Policy, step: Step) -> tuple[Result, ...]:
    if policy.mode is Mode.OBSERVE:
        return (Result.OBSERVED,)
    if not step.action.acts:
        return (Result.VERIFIED,)
    return Result.VERIFIED, Result.FAILED, Result.GONE


def _obstacles(policy: Policy, step: Step, file: PolicyFile, unit: UnitSample) -> Iterator[Obstacle]:
    if policy.cooldown > 0:
        yield Obstacle.COOLING_DOWN
    if not step.action.acts:
        return
    if unit.protected is not None and not policy.unprotects(unit.unit):
        yield Obstacle.PROTECTED
    if step.action.ends_by_job():
        yield Obstacle.REFUSED_BY_MANAGER
    if policy.budget is not None:
        yield Obstacle.OUT_OF_BUDGET
    if file.budget is not None:
        yield Obstacle.OUT_OF_FILE_BUDGET
    if step.pick is not None:
        yield Obstacle.NOT_PICKED


# --- the text of a page ------------------------------------------------------------------------


def render(page: Page, form: Format) -> str:
    """Return the text of `page`, to its last newline."""
    is_openmetrics = form is Format.OPENMETRICS
    lines = []
    spelled: dict[Labels, str] = {}
    for family, points in page.items():
        title = family.name if is_openmetrics else family.metric
        lines.append(f"# HELP {title} {family.meaning}")
        lines.append(f"# TYPE {title} {family.kind}")
        if is_openmetrics and family.unit:
            lines.append(f"# UNIT {title} {family.unit}")
        for labels, value, suffix in points:
            text = spelled.get(labels)
            if text is None:
                text = spelled[labels] = _spell(labels)
            lines.append(f"{family.metric}{suffix}{text} {value}")
    if is_openmetrics:
        lines.append("# EOF")
    return "".join(f"{line}\n" for line in lines)


def _spell(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{escape(value)}"' for name, value in labels) + "}"


def escape(value: str) -> str:
    """Return a label's value, escaped to stand between quotes."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
