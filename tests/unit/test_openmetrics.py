"""The page of metrics: what is on it, and that the official client reads in it what was meant."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import parser as text_parser
from prometheus_client.openmetrics import exposition
from prometheus_client.openmetrics import parser as openmetrics_parser
from samples import sample_of

from unitmem.kernel.host import Host
from unitmem.measure.catalogue import MEASURES
from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy.actions import Log, Signal, Stop
from unitmem.policy.decision import Decision, Obstacle, Outcome, Refusal, Result
from unitmem.policy.engine import evaluate
from unitmem.policy.model import Budget, Mode, Policy, PolicyFile, Step
from unitmem.policy.state import Ladder, Phase, State, StepState
from unitmem.policy.trends import NOT_YET_WATCHED
from unitmem.policyfile.expression import parse_condition
from unitmem.tell.listener import as_metrics
from unitmem.tell.openmetrics import (
    ACTIONS,
    FAMILIES,
    NEAR_DECISIONS,
    OF_MEASURE,
    OUTCOMES,
    TICK_BUCKETS,
    UNITS_REMEMBERED,
    Cost,
    Format,
    MetricType,
    Seen,
    TickTimes,
    count_decision,
    count_outcome,
    forget_missing,
    measures_page,
    page,
    render,
)
from unitmem.unit import Invocation, Unit

M = 2**20
USR1 = Signal(signal.SIGUSR1)
LOG = Step(parse_condition("anon > 40M"), Log())
SIGNAL = Step(parse_condition("anon > 60M"), USR1, hold=2)
STOP = Step(parse_condition("pss > 80M"), Stop())
P = Policy("p", ("*.service",), (LOG, SIGNAL, STOP))
PARSERS = {
    Format.OPENMETRICS: openmetrics_parser.text_string_to_metric_families,
    Format.TEXT: text_parser.text_string_to_metric_families,
}


def unit(name="a.service", **more):
    values = {key.replace("__", "."): value for key, value in more.pop("values", {}).items()}
    return UnitSample(Unit(name), Invocation(name, "1" * 32, 1), values=values, **more)


def seen(*units, policies=(P,), budget=None, state=None, at=100.0, **more):
    """What a watch sees whose units these are; the state is what `evaluate` makes of them unless given."""
    sample = sample_of(*units, at=at)
    if state is None:
        state, _ = evaluate(policies, sample, State(), at, budget)
    return Seen("web", "1.2", PolicyFile(tuple(policies), 2.0, budget), sample, state, **more)


def samples(some_page, form=Format.OPENMETRICS):
    """{`unitmem_watch_units{watch="web"}`: 1.0}, as the official parser finds them in the page's text."""
    found = {}
    for family in PARSERS[form](render(some_page, form)):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
            key = sample.name + (f"{{{labels}}}" if labels else "")
            assert key not in found
            found[key] = sample.value
    return found


def of(prefix, everything):
    """Those of a metric, or of several, without the label `watch`."""
    return {
        key.replace('watch="web",', "").replace('{watch="web"}', ""): value
        for key, value in everything.items()
        if key.startswith(prefix)
    }


FULL = seen(
    unit(
        values={
            "current": 90 * M,
            "anon": 70 * M,
            "limit": 200 * M,
            "pressure__some__avg10": 42.35,
            "events__oom_kill": 2,
            "process__pss": 30 * M,
            "host__available": 1 << 30,
        },
        unknown={"pss": "permission denied", "swap": "no"},
    ),
    unit("b@x\\x2dy.service", values={"anon": 5 * M, "host__available": 1 << 30}),
    policies=(replace(P, cooldown=60.0, budget=Budget(3, 3600.0)), replace(P, name="q", mode=Mode.OBSERVE)),
    budget=Budget(5, 3600.0),
    ticks=TickTimes().after(0.004).after(0.7).after(60.0),
    ticked=1e9 + 0.5,
    started=1e9,
    under_way=1,
)
COST = Cost(1.25, 20 * M, 15 * M)


# --- the official client, as the oracle ---------------------------------------------------------


class Pages:
    def __init__(self, some_page):
        self.page = some_page

    def collect(self):
        return as_metrics(self.page)


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize(
    "some_page",
    [{}, page(FULL, COST), measures_page(FULL.sample)],
    ids=["none", "watch", "units"],
)
def test_the_official_client_reads_and_would_write_the_same(some_page, form):
    """Names, types, units, help, labels and values; the client writes what `listener` gives it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Pages(some_page))
    write = {Format.OPENMETRICS: exposition.generate_latest, Format.TEXT: generate_latest}[form]
    official = list(PARSERS[form](write(registry).decode()))
    assert list(PARSERS[form](render(some_page, form))) == official
    assert len(official) == len(some_page)


def test_what_a_unit_has_of_its_slice_is_no_measure_of_its_own():
    """It is there while a policy asks for it, and the slice may be a unit with metrics of its own."""
    plain = seen(unit(values={"anon": M})).sample
    asked = seen(unit(values={"anon": M, "slice__anon": 2 * M, "slice__max": 4 * M})).sample
    assert samples(measures_page(asked)) == samples(measures_page(plain))


def test_every_type_survives_in_both_formats():
    for form in Format:
        types = {family.name: family.type for family in PARSERS[form](render(page(FULL, COST), form))}
        assert set(types.values()) == set(MetricType)
        assert types["unitmem_actions"] == "counter"


# mostly what means something between quotes
TEXT = st.text(st.sampled_from('\\n"\n{},= #')) | st.text()


@given(TEXT, TEXT)
@example("a\\nb", "\\")
def test_any_label_is_read_back(name, when):
    units = [replace(unit(values={"anon": 1}), unit=Unit(name))]
    for form in Format:
        (family,) = PARSERS[form](render(measures_page(sample_of(*units)), form))
        assert [sample.labels for sample in family.samples] == [{"unit": name}]
    labels = (("policy", "p"), ("when", when))
    some_page = {ACTIONS: [(labels, 1, "")]}
    (family,) = PARSERS[Format.OPENMETRICS](render(some_page, Format.OPENMETRICS))
    assert family.samples[0].labels == dict(labels)


@given(st.dictionaries(st.sampled_from(sorted(MEASURES)), st.integers(0, 2**63) | st.floats(0, 1e6)))
def test_any_value_is_read_back_in_its_base_unit(values):
    found = samples(measures_page(sample_of(unit(values=values))))
    assert len(found) == len(values)
    for name, value in values.items():
        family = OF_MEASURE[name]
        label = "" if name.startswith("host.") else '{unit="a.service"}'
        factor = 100 if family.unit == "ratio" else 1
        assert found[family.metric + label] == pytest.approx(value / factor, abs=1e-6)


# --- conventions -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_names_keep_to_the_conventions(family):
    """https://prometheus.io/docs/practices/naming/"""
    assert family.name.startswith("unitmem_")
    assert family.name.endswith(f"_{family.unit}" if family.unit else "")
    assert family.unit in ("", "bytes", "seconds", "ratio")
    assert not family.name.endswith(("_total", "_count", "_sum", "_bucket", "_created"))
    assert family.metric.endswith("_total") is (family.kind is MetricType.COUNTER)
    assert not set('\\"\n') & set(family.meaning)
    assert family.labels[0] == "watch"
    assert "le" not in family.labels


def test_no_name_is_taken_twice():
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)


def test_labels_are_those_that_the_family_says():
    for family, points in page(FULL, COST).items():
        for labels, _, suffix in points:
            expected = (*family.labels, "le") if suffix == "_bucket" else family.labels
            assert tuple(name for name, _ in labels) == expected, family.name


def test_a_page_can_have_every_family():
    """None is forgotten where pages are filled."""
    known = dict.fromkeys(MEASURES, 1)
    everything = replace(FULL, sample=Sample(100.0, {"a.service": unit(values=known)}))
    everything = replace(everything, counts=count_decision({}, decision(refusal=COOLING)))
    assert list(page(everything, COST)) == list(FAMILIES)


# --- units and their measures ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measure", "value", "metric", "expected"),
    [
        ("current", 5, 'unitmem_unit_current_bytes{unit="a.service"}', 5),
        ("swap_pss", 0, 'unitmem_unit_swap_pss_bytes{unit="a.service"}', 0),
        ("process.pss", 7, 'unitmem_unit_process_pss_bytes{unit="a.service"}', 7),
        ("pressure.full.avg60", 42.35, 'unitmem_unit_pressure_full_avg60_ratio{unit="a.service"}', 0.4235),
        ("events.oom_kill", 2, 'unitmem_unit_events_oom_kill_total{unit="a.service"}', 2),
        ("host.available", 9, "unitmem_host_available_bytes", 9),
        ("host.pressure.some.avg10", 100.0, "unitmem_host_pressure_some_avg10_ratio", 1),
    ],
)
def test_a_measure(measure, value, metric, expected):
    assert samples(measures_page(sample_of(unit(values={measure: value})))) == {metric: expected}
    assert samples(measures_page(sample_of(unit(values={measure: value}))), Format.TEXT) == {metric: expected}


def test_the_machine_is_there_without_any_unit():
    alone = replace(seen(), sample=sample_of(host=Host(9, available=5)))
    assert of("unitmem_host", samples(page(alone, COST))) == {
        "unitmem_host_total_bytes": 9,
        "unitmem_host_available_bytes": 5,
    }


def test_what_is_unknown_is_absent():
    found = samples(page(FULL, COST))
    assert of("unitmem_unit_anon", found) == {
        'unitmem_unit_anon_bytes{unit="a.service"}': 70 * M,
        'unitmem_unit_anon_bytes{unit="b@x\\x2dy.service"}': 5 * M,
    }
    assert of("unitmem_unit_swap", found) == of("unitmem_unit_pss", found) == {}
    assert of("unitmem_watch_pss", samples(page(FULL, Cost(1.0)))) == {}


def test_a_bound_is_no_value():
    """PSS is at most so much: that is not what it is."""
    bounded = unit(values={"rss": 9}, at_most={"pss": 12})
    assert samples(measures_page(sample_of(bounded))) == {'unitmem_unit_rss_bytes{unit="a.service"}': 9}


def test_of_the_machine_there_is_one_whatever_the_units():
    found = samples(page(FULL, COST))
    assert of("unitmem_host", found) == {"unitmem_host_available_bytes": 1 << 30}


# --- policies and steps ------------------------------------------------------------------------


def test_a_step_is_in_one_phase():
    found = samples(
        page(seen(unit(values={"anon": 70 * M}), policies=(Policy("p", ("a*",), (LOG, SIGNAL)),)), COST)
    )
    assert of("unitmem_step_phase", found) == {
        'unitmem_step_phase{policy="p",step="1",unit="a.service",phase="idle"}': 0,
        'unitmem_step_phase{policy="p",step="1",unit="a.service",phase="holding"}': 0,
        'unitmem_step_phase{policy="p",step="1",unit="a.service",phase="fired"}': 1,
        'unitmem_step_phase{policy="p",step="2",unit="a.service",phase="idle"}': 0,
        'unitmem_step_phase{policy="p",step="2",unit="a.service",phase="holding"}': 1,
        'unitmem_step_phase{policy="p",step="2",unit="a.service",phase="fired"}': 0,
    }
    assert of("unitmem_episode_open", found) == {'unitmem_episode_open{policy="p",unit="a.service"}': 1}


def test_a_policy_tells_of_its_steps_and_of_units_it_governs():
    one = replace(P, units=("b*",), steps=(SIGNAL,), mode=Mode.OBSERVE)
    found = samples(page(seen(unit(), policies=(one,)), COST))
    assert of("unitmem_policy_info", found) == {'unitmem_policy_info{policy="p",mode="observe"}': 1}
    assert of("unitmem_step", found) == {
        'unitmem_step_info{policy="p",step="1",action="SIGUSR1",when="anon > 60.0M"}': 1
    }
    assert of("unitmem_actions", found) == of("unitmem_episode", found) == {}


@pytest.mark.parametrize(
    ("unknown", "count"),
    [
        ({}, 0),
        ({"pss": "permission denied"}, 1),
        ({"pss": "permission denied", "swap": "no"}, 2),
        ({"growth": NOT_YET_WATCHED}, 0),
        ({"growth": NOT_YET_WATCHED, "pss": "no"}, 1),
    ],
)
def test_what_a_step_is_blind_to(unknown, count):
    """What time alone will mend is no blindness."""
    ladder = Ladder(Invocation("a.service", "1" * 32, 1), (StepState(Phase.IDLE, unknown=unknown),))
    state = State(ladders={("p", "a.service"): ladder})
    found = samples(page(seen(unit(), policies=(replace(P, steps=(LOG,)),), state=state), COST))
    assert of("unitmem_step_unknown", found) == {
        'unitmem_step_unknown_measures{policy="p",step="1",unit="a.service"}': count
    }


def test_time_and_budget_left():
    policies = (replace(P, cooldown=60.0, budget=Budget(3, 3600.0)), replace(P, name="q"))
    state = State(
        cooling={("p", "a.service"): 130.0, ("p", "gone.service"): 101.0, ("p", "old.service"): 99.0},
        spent={("p", "a.service"): (50.0, 90.0)},
        spent_in_all={Mode.ACT: (90.0,)},
    )
    some = seen(unit(), unit("b.service"), policies=policies, budget=Budget(5, 60.0), state=state)
    found = samples(page(some, COST))
    assert of(("unitmem_cooldown", "unitmem_budget", "unitmem_file_budget"), found) == {
        'unitmem_cooldown_remaining_seconds{policy="p",unit="a.service"}': 30,
        'unitmem_cooldown_remaining_seconds{policy="p",unit="b.service"}': 0,
        'unitmem_cooldown_remaining_seconds{policy="p",unit="gone.service"}': 1,
        'unitmem_budget_actions_left{policy="p",unit="a.service"}': 1,
        'unitmem_budget_actions_left{policy="p",unit="b.service"}': 3,
        "unitmem_file_budget_actions_left": 4,
    }


# --- counting ----------------------------------------------------------------------------------

COOLING = Refusal(Obstacle.COOLING_DOWN, "it is cooling down")


def decision(action=USR1, step=1, name="a.service", **more):
    return Decision(100.0, "p", step, action, Invocation(name, "1" * 32, 1), 3.0, 2.0, (), **more)


def test_decisions_and_outcomes_are_counted():
    counts = {}
    for one in (decision(), decision(), decision(refusal=COOLING), decision(Log(), 0)):
        counts = count_decision(counts, one)
        result = Result.VERIFIED if one.refusal is None else Result.REFUSED
        counts = count_outcome(counts, Outcome(one, result, "", 101.0))
    counts = count_outcome(counts, Outcome(decision(), Result.FAILED, "", 101.0))
    found = samples(page(seen(counts=counts), COST))
    usr1 = 'policy="p",step="2",action="SIGUSR1",unit="a.service"'
    log = 'policy="p",step="1",action="log",unit="a.service"'
    assert of(("unitmem_actions", "unitmem_outcomes", "unitmem_near"), found) == {
        f"unitmem_actions_total{{{usr1}}}": 2,
        f"unitmem_actions_total{{{log}}}": 1,
        f'unitmem_outcomes_total{{{usr1},result="verified"}}': 2,
        f'unitmem_outcomes_total{{{usr1},result="failed"}}': 1,
        f'unitmem_outcomes_total{{{log},result="verified"}}': 1,
        f'unitmem_near_decisions_total{{{usr1},obstacle="cooling down"}}': 1,
    }


@pytest.mark.parametrize(
    ("policy", "budget", "protected", "results", "obstacles"),
    [
        (replace(P, steps=(LOG,)), None, None, {"verified"}, set()),
        (replace(P, steps=(LOG,)), Budget(1, 60), "it is PID 1", {"verified"}, set()),
        (replace(P, steps=(LOG,), cooldown=9.0), None, None, {"verified"}, {"cooling down"}),
        (replace(P, steps=(SIGNAL,)), None, None, {"verified", "failed", "gone"}, set()),
        (replace(P, steps=(SIGNAL,), mode=Mode.OBSERVE), None, None, {"observed"}, set()),
        (replace(P, steps=(SIGNAL,)), None, "dear", {"verified", "failed", "gone"}, {"protected"}),
        (replace(P, steps=(STOP,)), None, None, {"verified", "failed", "gone"}, {"refused by the manager"}),
        (
            replace(P, steps=(SIGNAL,), unprotect=frozenset({"a.service"}), budget=Budget(1, 60.0)),
            Budget(1, 60.0),
            "dear",
            {"verified", "failed", "gone"},
            {"out of budget", "out of the file's budget"},
        ),
    ],
)  # fmt: skip
def test_what_may_yet_be_counted_is_there_with_0(policy, budget, protected, results, obstacles):
    """A counter that begins with 1 has not risen, to Prometheus."""
    some = page(seen(unit(protected=protected), policies=(policy,), budget=budget, state=State()), COST)
    assert {
        point.value for family in (ACTIONS, OUTCOMES, NEAR_DECISIONS) for point in some.get(family, [])
    } == {0}
    assert len(some[ACTIONS]) == 1
    assert {dict(point.labels)["result"] for point in some[OUTCOMES]} == results
    assert {dict(point.labels)["obstacle"] for point in some.get(NEAR_DECISIONS, [])} == obstacles


def test_all_that_a_watch_counts_had_a_0_before():
    """Whatever `evaluate` decides, and whatever becomes of it."""
    policies = (replace(P, steps=(LOG, SIGNAL), cooldown=5.0, budget=Budget(1, 60.0)),)
    state, counts = State(), {}
    expected = {
        key
        for points in (page(seen(unit(values={"anon": M}), policies=policies), COST),)
        for key in of_counts(points)
    }
    for at in range(30):
        high = at % 10 < 6
        some = unit(values={"anon": (90 if high else 1) * M})
        state, decisions = evaluate(policies, Sample(float(at), {"a.service": some}), state, float(at))
        for one in decisions:
            counts = count_decision(counts, one)
            counts = count_outcome(
                counts, Outcome(one, Result.REFUSED if one.refusal else Result.GONE, "", at)
            )
    assert {name for mine in counts.values() for name, _ in mine} == {
        ACTIONS.name,
        OUTCOMES.name,
        NEAR_DECISIONS.name,
    }
    counted = {(name, labels) for mine in counts.values() for name, labels in mine}
    # GONE is no outcome of a log; all else must be expected
    assert {key for key in counted if ("action", "log") not in key[1] or key[0] != OUTCOMES.name} <= expected


def of_counts(some_page):
    for family in (ACTIONS, OUTCOMES, NEAR_DECISIONS):
        for labels, _, _ in some_page.get(family, ()):
            yield family.name, labels[1:]


def test_counts_of_units_that_no_longer_run_are_kept_for_the_latest():
    counts = {}
    for number in range(UNITS_REMEMBERED + 5):
        counts = count_decision(counts, decision(name=f"run-{number}.service"))
    counts = count_decision(counts, decision(name="run-0.service"))  # it is a late one, by that
    kept = forget_missing(counts, {"run-1.service"})
    gone = {f"run-{number}.service" for number in (2, 3, 4, 5)}
    assert kept.keys() == counts.keys() - gone
    assert kept["run-0.service"] == {(ACTIONS.name, labels): 2 for _, labels in kept["run-0.service"]}
    assert forget_missing(kept, ()) is not kept
    assert forget_missing(kept, counts) is kept


# --- the watch itself --------------------------------------------------------------------------


def test_what_the_watch_costs_and_how_it_fares():
    found = of(("unitmem_watch", "unitmem_build"), samples(page(FULL, COST)))
    buckets = {key: value for key, value in found.items() if "_bucket" in key}
    assert {key: value for key, value in found.items() if key not in buckets} == {
        'unitmem_build_info{version="1.2"}': 1,
        "unitmem_watch_start_time_seconds": 1e9,
        "unitmem_watch_last_tick_timestamp_seconds": 1e9 + 0.5,
        "unitmem_watch_interval_seconds": 2,
        "unitmem_watch_units": 2,
        "unitmem_watch_manager_reachable": 1,
        "unitmem_watch_file_loaded": 1,
        "unitmem_watch_actions_under_way": 1,
        "unitmem_watch_properties_to_set_back": 0,
        "unitmem_watch_ticks_total": 3,
        "unitmem_watch_ticks_missed_total": 0,
        "unitmem_watch_tick_duration_seconds_count": 3,
        "unitmem_watch_tick_duration_seconds_sum": 60.704,
        "unitmem_watch_cpu_seconds_total": 1.25,
        "unitmem_watch_rss_bytes": 20 * M,
        "unitmem_watch_pss_bytes": 15 * M,
    }
    assert list(buckets.values()) == [0, 1, 1, 1, 1, 1, 2, 2, 3]
    assert len(buckets) == len(TICK_BUCKETS) + 1


def test_pages_of_two_watches_over_one_unit_don_t_collide():
    """node_exporter would refuse to answer at all, for every metric that it has."""
    one = samples(page(FULL, COST))
    other = samples(page(replace(FULL, watch="db"), COST))
    alone = samples(measures_page(FULL.sample))
    assert not one.keys() & other.keys()
    assert not one.keys() & alone.keys()
