"""What a policy file would do: what a stop takes along, and what can't act, from values."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import sample_of

from unitmem.kernel.host import Host
from unitmem.kernel.limits import Level
from unitmem.measure.sample import UnitSample
from unitmem.policyfile.expression import parse_condition
from unitmem.policyfile.reader import parse
from unitmem.report.plan import plan_document, print_plan
from unitmem.report.terminal import console_on
from unitmem.simulate.plan import Answers, PolicyPlan, plan, started_by, stopped_with
from unitmem.unit import Invocation, Unit

M, G = 1 << 20, 1 << 30
HOST = Host(total=8 * G, available=6 * G, swap_total=0, swap_free=0)


def running(name: str, protected: str | None = None, unknown: str = "", **values: float) -> UnitSample:
    known = {"limit": G, "anon": 500 * M, "events.oom": 0} | values
    return UnitSample(
        Unit(name, sub_state="running"),
        Invocation(name, None, 1),
        protected,
        values={measure: value for measure, value in known.items() if measure != unknown},
        unknown={unknown: "permission denied"} if unknown else {},
    )


def planned(
    *units: UnitSample,
    steps: str = '[{when: "anon > 400M", for: 1min, do: stop}]',
    patterns: str = '["web@*.service"]',
    more: str = "",
    active: tuple[str, ...] = (),
    dependents: dict[str, dict[str, tuple[str, ...]]] | None = None,
    refusing: tuple[str, ...] = (),
) -> PolicyPlan:
    """The plan of a file of one policy."""
    text = f"policies:\n  - name: a\n    units: {patterns}\n    steps: {steps}\n    {more}\n"
    tied = dependents or {}
    answers = Answers(active.__contains__, lambda name: tied.get(name, {}), refusing.__contains__)
    (only,) = plan(parse(text).file, sample_of(*units, host=HOST), answers)
    return only


# --- what a stop takes along -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dependents", "taken"),
    [
        ({}, []),
        ({"a": {"BoundBy": ("b",)}}, ["a <- b (BindsTo)"]),
        ({"a": {"RequiredBy": ("b",)}}, ["a <- b (Requires)"]),
        ({"a": {"ConsistsOf": ("b",)}}, ["a <- b (PartOf)"]),
        ({"a": {"RequisiteOf": ("b",)}}, ["a <- b (Requisite)"]),
        ({"a": {"PropagatesStopTo": ("b",)}}, ["a <- b (StopPropagatedFrom)"]),
        ({"a": {"TriggeredBy": ("b",), "UpheldBy": ("c",)}}, []),
        # by several ways
        ({"a": {"RequiredBy": ("b",), "BoundBy": ("b",)}}, ["a <- b (BindsTo)"]),
        (
            {"a": {"RequiredBy": ("b", "c")}, "b": {"BoundBy": ("c", "d")}, "c": {"BoundBy": ("d",)}},
            ["a <- b (Requires)", "a <- c (Requires)", "b <- d (BindsTo)"],
        ),
        # in circles
        ({"a": {"RequiredBy": ("a",)}}, []),
        (
            {"a": {"ConsistsOf": ("b",)}, "b": {"RequiredBy": ("c",)}, "c": {"BoundBy": ("a", "b")}},
            ["a <- b (PartOf)", "b <- c (Requires)"],
        ),
    ],
)
def test_a_stop_takes_along_all_that_depends_on_it(dependents, taken):
    assert [str(each) for each in stopped_with("a", lambda name: dependents.get(name, {}))] == taken


@given(st.dictionaries(st.sampled_from("abcdefg"), st.lists(st.sampled_from("abcdefg")).map(tuple)))
def test_however_units_are_tied_each_is_taken_along_once(requiring):
    """It ends, and what is named is what can be reached."""
    taken = [each.unit for each in stopped_with("a", lambda name: {"RequiredBy": requiring.get(name, ())})]
    reached, new = set(), {"a"}
    while new:
        reached |= new
        new = {other for name in new for other in requiring.get(name, ())} - reached
    assert sorted(taken) == sorted(reached - {"a"})


def test_a_chain_is_followed_however_long():
    taken = stopped_with("0", lambda name: {"BoundBy": (str(int(name) + 1),)} if int(name) < 5000 else {})
    assert len(list(taken)) == 5000


def test_what_starts_it_again():
    tied = {"a": {"TriggeredBy": ("a.socket", "a.timer"), "UpheldBy": ("up.target",), "BoundBy": ("b",)}}
    assert [(each.unit, each.relation) for each in started_by("a", lambda name: tied.get(name, {}))] == [
        ("a.socket", "Triggers"),
        ("a.timer", "Triggers"),
        ("up.target", "Upholds"),
    ]


def test_only_what_is_active_is_stopped_and_starts():
    """A stop passes through a unit that doesn't run, and what stops along starts nothing."""
    tied = {
        "web@1.service": {
            "RequiredBy": ("idle.target", "api.service"),
            "ConsistsOf": ("web@1.socket",),
            "TriggeredBy": ("web@1.socket", "web@1.timer", "old.timer"),
        },
        "idle.target": {"BoundBy": ("deep.service",)},
    }
    active = ("web@1.service", "api.service", "deep.service", "web@1.socket", "web@1.timer")
    (unit,) = planned(running("web@1.service"), active=active, dependents=tied).units
    assert [str(each) for each in unit.stopped_with] == [
        "web@1.service <- api.service (Requires)",
        "web@1.service <- web@1.socket (PartOf)",
        "idle.target <- deep.service (BindsTo)",
    ]
    assert [each.unit for each in unit.started_by] == ["web@1.timer"]


@pytest.mark.parametrize(
    ("steps", "is_told"),
    [
        ('[{when: "anon > 400M", for: 1min, do: stop}]', True),
        ('[{when: "anon > 400M", for: 1min, do: restart}]', True),
        ('[{when: "anon > 400M", for: 1min, do: kill}]', False),
        ('[{when: "anon > 400M", do: log}]', False),
    ],
)
def test_a_unit_that_refuses_to_be_stopped_is_told_where_a_step_would(steps, is_told):
    planning = planned(
        running("web@1.service"), running("web@2.service"), steps=steps, refusing=("web@1.service",)
    )
    assert [unit.refuses_stops for unit in planning.units] == [is_told, False]
    printed = StringIO()
    print_plan([planning], console_on(printed))
    assert printed.getvalue().count("RefuseManualStop=yes") == is_told


@pytest.mark.parametrize(
    ("when", "patterns", "shares"),
    [
        ("anon > 80% of limit", '["web@*.service"]', ("anon > 80% of limit",)),
        ("not anon <= 80% of limit", '["web@*.service"]', ("anon > 80% of limit",)),
        ("anon > 80% of limit and fill > 90%", '["web@*.service"]', ()),
        ("anon > 80% of limit", '["web@*.service", "web.slice"]', ()),
        ("anon > 400M", '["web@*.service"]', ()),
    ],
)
def test_a_limit_that_other_units_use_too_is_told_of_each_unit_that_has_it(when, patterns, shares):
    def below(name: str, own: int) -> UnitSample:
        levels = (Level(f"/web.slice/{name}", max=own), Level("/web.slice", max=G))
        return replace(running(name, limit=min(own, G)), levels=levels)

    steps = f'[{{when: "{when}", for: 1min, do: stop}}, {{when: "{when}", for: 1min, do: log}}]'
    planning = planned(
        below("web@1.service", 2 * G), below("web@2.service", G // 2), steps=steps, patterns=patterns
    )
    (policy,) = plan_document([planning])["policies"]
    told = {"path": "/web.slice", "comparisons": list(shares)} if shares else None
    assert [unit["shared_limit"] for unit in policy["units"]] == [told, None]
    printed = StringIO()
    print_plan([planning], console_on(printed))
    assert printed.getvalue().count("its limit is that of /web.slice") == len(shares)


@pytest.mark.parametrize(
    ("pick", "order"),
    [
        ("anon", "web@2.service 500.0M, web@1.service 300.0M"),
        ("growth(anon, 10min)", "depends on growth(anon, 10min), which only a watch measures"),
        ("footprint", None),
    ],
)
def test_a_pick_says_who_comes_first_or_what_that_depends_on(pick, order):
    steps = f'[{{when: "host.available < 1G", for: 1min, pick: "{pick}", do: stop}}]'
    printed = StringIO()
    units = running("web@1.service", anon=300 * M), running("web@2.service")
    print_plan([planned(*units, steps=steps)], console_on(printed))
    said = [line.strip() for line in printed.getvalue().splitlines() if "picked first" in line]
    assert said == ([] if order is None else [f"picked first: {order}"])


# --- what holds --------------------------------------------------------------------------------


def test_each_step_is_judged_for_each_unit_that_is_governed():
    planning = planned(
        running("web@1.service"),
        running("web@2.service", anon=300 * M),
        running("web@3.service", unknown="anon"),
        running("web@4.service"),
        UnitSample(Unit("web@5.service", active_state="inactive")),
        more='except: ["web@4.service"]',
    )
    assert [
        (unit.sample.unit.name, [verdict.truth for verdict in unit.verdicts]) for unit in planning.units
    ] == [
        ("web@1.service", [True]),
        ("web@2.service", [False]),
        ("web@3.service", [None]),
        ("web@5.service", []),
    ]
    assert planning.idle == ()


@pytest.mark.parametrize(
    ("condition", "values", "truth"),
    [
        ("events.oom > 0 in 1h", {}, False),
        ("events.oom > 0 in 1h", {"events.oom": 1}, None),
        ("growth(anon, 10min) > 1M/min", {}, None),
        ("eta(limit) < 10min", {}, None),
        ("growth(anon, 10min) > 1M/min or anon > 400M", {}, True),
    ],
)
def test_one_look_knows_no_past(condition, values, truth):
    """It is unknown whether an event was within the span, unless there was none; that is no reason to never act."""
    planning = planned(running("web@1.service", **values), steps=f'[{{when: "{condition}", do: log}}]')
    (unit,) = planning.units
    assert [verdict.truth for verdict in unit.verdicts] == [truth]
    assert [each.reasons for each in planning.idle if "not watched" in str(each.reasons)] == []


# --- what can't act ----------------------------------------------------------------------------

LOG = '[{when: "anon > 400M", do: log}]'
BUS = running("dbus.service", protected="the machine needs it")


@pytest.mark.parametrize(
    ("arguments", "idle"),
    [
        ({}, [(None, "no unit that matches is loaded now")]),
        (
            {"units": [running("web@1.service")], "more": 'except: ["web@1*"]'},
            [(None, "every loaded unit that matches is excluded")],
        ),
        (
            {"units": [UnitSample(Unit("web@1.service", active_state="failed"))]},
            [(None, "no unit that matches runs now")],
        ),
        ({"units": [BUS], "patterns": "[dbus.service]"}, [(0, "every unit that matches is protected")]),
        ({"units": [BUS], "patterns": "[dbus.service]", "steps": LOG}, []),
        ({"units": [BUS], "patterns": "[dbus.service]", "more": "unprotect: [dbus.service]"}, []),
        ({"units": [BUS, running("web@1.service")], "patterns": '["*.service"]'}, []),
        (
            {"units": [BUS, running("web@1.service", unknown="anon")], "patterns": '["*.service"]'},
            [(0, "anon is unknown (permission denied)")],
        ),
        (
            {"units": [running("web@1.service", unknown="anon"), running("web@2.service", unknown="anon")]},
            [(0, "anon is unknown (permission denied)")],
        ),
        (
            {
                "units": [running("web@1.service")],
                "steps": '[{when: "anon > 2G", do: log}, {when: "anon > 1M", do: log}]',
            },
            [(0, "no unit that matches comes to `anon > 2.0G`: the most is 1.0G, the limit of web@1.service")],
        ),
        (
            {
                "units": [running("web@1.service")],
                "steps": '[{when: "not pressure.full.avg10 < 100% and anon < 0B", do: log}]',
            },
            [(0, "`anon < 0B` can never be true: nothing is less than 0")],
        ),
        (
            {
                "units": [running("web@1.service")],
                "steps": '[{when: "anon > 1M and host.swap_free < 10% of host.swap_total", do: log}]',
            },
            [(0, "`host.swap_free < 10% of host.swap_total` is never true here: there is no swap")],
        ),
        (
            {"units": [running("web@1.service")], "steps": '[{when: "anon > 2G or anon > 1M", do: log}]'},
            [],
        ),
        (
            {
                "units": [running("web@1.service"), running("web@2.service", limit=4 * G)],
                "steps": '[{when: "anon > 2G", do: log}]',
            },
            [],
        ),
    ],
)  # fmt: skip
def test_what_cannot_act_here_comes_with_the_reason(arguments, idle):
    arguments = dict(arguments)
    planning = planned(*arguments.pop("units", []), **arguments)
    assert [(each.step, reason) for each in planning.idle for reason in each.reasons] == idle


# --- how a condition is shown ------------------------------------------------------------------


def joined(terms: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Conditions of one or two others, in parentheses or not."""
    term = terms | terms.map("({})".format)
    two = st.tuples(term, st.sampled_from(["and", "or"]), term).map(" ".join)
    return two | terms.map("not ({})".format)


@given(st.recursive(st.sampled_from(["anon > 1M", "swap > 80% of limit", "file > 0B"]), joined, max_leaves=8))
def test_what_plan_shows_reads_back_as_the_same_condition(text):
    condition = parse_condition(text)
    only = planned(steps=f'[{{when: "{text}", do: log}}]')
    (policy,) = plan_document([only])["policies"]
    assert parse_condition(policy["steps"][0]["when"]) == condition
    printed = StringIO()
    print_plan([only], console_on(printed))
    shown = printed.getvalue().partition("step 1: ")[2].partition(": log\n")[0]
    assert parse_condition(shown) == condition


def test_a_unit_that_is_named_by_an_alias_is_shown_with_it():
    unit = running("real.service")
    unit = replace(unit, unit=replace(unit.unit, aliases=("nick.service",)))
    text = 'policies: [{name: a, units: ["nick.service"], steps: [{when: "anon > 1M", do: log}]}]'
    answers = Answers(lambda _: True, lambda _: {}, lambda _: False)
    plans = plan(parse(text).file, sample_of(unit, host=HOST), answers)
    (only,) = plan_document(plans)["policies"][0]["units"]
    assert (only["unit"], only["aliases"], only["steps"][0]["holds"]) == (
        "real.service",
        ["nick.service"],
        True,
    )
    printed = StringIO()
    print_plan(plans, console_on(printed))
    assert "real.service (alias nick.service)" in printed.getvalue()
