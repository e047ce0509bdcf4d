"""The language of `when`: what it reads, what it refuses and where, and its logic of three values."""

from __future__ import annotations

import itertools
import re
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitmem.measure.catalogue import OPERANDS, Dimension
from unitmem.policy.condition import (
    FUNCTIONS,
    Bounds,
    comparisons,
    format_value,
    judge,
    measures_of,
    truth_of,
)
from unitmem.policyfile.expression import ConditionError, parse_condition
from unitmem.text import SPAN_UNITS

M = 2**20


class Facts:
    """Measures by name, and what is derived from them by its spelling; what is not there is unknown."""

    def __init__(self, known=None, **by_name):
        self.known = {**(known or {}), **by_name}

    def bounds(self, measure):
        value = self.known.get(measure)
        return value if value is None or isinstance(value, Bounds) else Bounds(value, value)

    def derived(self, measure, derivation, span):
        return self.bounds(f"{derivation}({measure}, {span:g})")

    def why_unknown(self, measure, derivation):
        return "not read" if derivation is None else f"no {derivation} yet"

    def level(self, comparison):
        return None


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("workingset > 85% of limit", ["workingset > 85% of limit"]),
        ("anon>=1G 512M", ["anon >= 1.5G"]),
        ("pressure.full.avg10 > 40%", ["pressure.full.avg10 > 40%"]),
        ("events.oom_kill > 0 in 10min", ["events.oom_kill > 0 in 10min"]),
        ("( anon > 1M )", ["anon > 1.0M"]),
        ("anon > 1M\n  and swap < 2M", ["anon > 1.0M", "swap < 2.0M"]),
        ("process.pss > 1.5K or not host.available < 10% of host.total", None),
        ("growth(anon,10min)>5M/min", ["growth(anon, 10min) > 5.0M/min"]),
        ("growth ( process.pss , 1h 30min ) <= 0B/s", ["growth(process.pss, 1h 30min) <= 0B/min"]),
        ("growth(anon, 10s) > 7B/d", ["growth(anon, 10s) > 7B/d"]),
        ("growth(anon, 10s) > 1B/\u00b5s", ["growth(anon, 10s) > 57M 225K 768B/min"]),
        ("eta(limit) < 5min", ["eta(limit, 10min) < 5min"]),
        ("eta(high, 30min) <= 0s", ["eta(high, 30min) <= 0s"]),
        (
            "growth(swap, 1min) > 1M/s and not (eta(limit, 1.5min) > 1h or anon > 1G)",
            ["growth(swap, 1min) > 60.0M/min", "eta(limit, 1min 30s) > 1h", "anon > 1.0G"],
        ),
    ],
)
def test_reading(text, spelled):
    read = [str(comparison) for comparison in comparisons(parse_condition(text))]
    assert spelled is None or read == spelled


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("", 0, "a measure is expected"),
        ("workingset > 80%", 16, "of what?"),
        ("workingset > 80", 13, "no unit: write 80M"),
        ("foo > 1M", 0, "no measure 'foo'"),
        ("working_set > 1M", 0, "did you mean 'workingset'?"),
        ("memory > 1M", 0, "did you mean 'workingset'?"),
        ("pressure.full.avg10 > 40", 22, "write `pressure.full.avg10 > 40%`"),
        ("pressure.full.avg10 > 400%", 22, "never more than 100%"),
        ("anon > limit", 7, "100% of limit"),
        ("anon = 3M", 5, "one of > >= < <="),
        ("anon == 3M", 5, "one of > >= < <="),
        ("anon != 3M", 5, "one of > >= < <="),
        ("events.oom > 3", 14, "in 10min"),
        ("events.oom > 3M in 1min", 13, "a whole number"),
        ("events.oom > 0 in 0s", 18, "greater than 0"),
        ("anon > 3M in 10s", 10, "`for:`"),
        ("(anon > 3M", 0, "never closed"),
        ("anon > 3M)", 9, "unexpected"),
        ("anon > 3M swap > 1M", 10, "`and` or `or`"),
        ("anon > 3M && swap > 1M", 10, "`and` or `or`"),
        ("anon + swap > 3M", 5, "no arithmetic"),
        ("anon > 10Mi", 7, "write 10M"),
        ("anon > 90% of pressure.full.avg10", 14, "of limit"),
        ("not", 3, "a measure is expected"),
        ("anon >", 6, "a size is expected"),
        ("anon > 1M and", 13, "a measure is expected"),
        ("(" * 200 + "anon > 1M", 51, "levels"),
        ("anon > 3M AND swap > 1M", 10, "write `and` in small letters"),
        ("anon > 3M of limit", 10, "80% of limit"),
        ("anon > 3M/min", 9, "write `growth(anon, 10min) > 3M/min`"),
        ("growth(anon, 10min) > 5M", 24, "write `growth(anon, 10min) > 5M/min`"),
        ("growth(anon, 10min) > 5%", 22, "write `growth(anon, 10min) > 5M/min`"),
        ("growth(anon, 10min) > 5M/", 25, "write `growth(anon, 10min) > 5M/min`"),
        ("growth(anon, 10min) > 5M/min in 1h", 29, "`in` counts events"),
        ("growth(anon, 10min) > limit", 22, "a rate is expected"),
        ("growth(anon) > 5M/min", 11, "over what time?"),
        ("growth(limit, 10min) > 5M/min", 7, "write `growth(anon, 10min)`"),
        ("growth(events.oom, 10min) > 5M/min", 7, "write `growth(anon, 10min)`"),
        ("growth(anon, 8d) > 5M/min", 13, "1s to 1w"),
        ("growth(anon, ) > 5M/min", 13, "a time span is expected"),
        ("growth", 6, "needs its arguments"),
        ("Eta(limit) < 1h", 0, "did you mean `eta(limit, 10min)`?"),
        ("eta(anon) < 1h", 4, "write `eta(limit)`"),
        ("eta(limit) < 1G", 13, "use one of ms s min"),
        ("eta(limit) < 80% of high", 13, "write it like 30s"),
        ("eta(limit, 10min < 1h", 0, "never closed"),
    ],
)
def test_what_is_refused_and_where(text, column, says):
    with pytest.raises(ConditionError) as refused:
        parse_condition(text)
    assert says in str(refused.value)
    assert refused.value.column == pytest.approx(column, abs=1 if "levels" in says else 0)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_within_it(text):
    try:
        parse_condition(text)
    except ConditionError as error:
        column = error.column
    else:
        column = 0
    assert 0 <= column <= len(text)


sizes = st.builds("{}{}".format, st.integers(0, 10**6), st.sampled_from("BKMG"))
spans = st.builds("{}{}".format, st.integers(1, 10**5), st.sampled_from(["s", "min", "ms"]))
slope_spans = st.builds("{}{}".format, st.integers(1, 10000), st.sampled_from(["s", "min"]))
rates = st.builds("{}/{}".format, sizes, st.sampled_from(SPAN_UNITS))


@st.composite
def generated(draw):
    name = draw(st.sampled_from(sorted(OPERANDS)))
    match OPERANDS[name].dimension:
        case Dimension.SIZE:
            threshold = draw(sizes | st.builds("{}% of limit".format, st.integers(0, 200)))
        case Dimension.PERCENT:
            threshold = f"{draw(st.integers(0, 100))}%"
        case Dimension.SPAN:
            threshold = draw(spans)
        case _:
            threshold = f"{draw(st.integers(0, 1000))} in {draw(spans)}"
    plain = f"{name}{{}}{threshold}"
    derivation, function = draw(st.sampled_from(list(FUNCTIONS.items())))
    threshold = draw(rates if function.dimension is Dimension.RATE else spans)
    derived = f"{derivation}({draw(st.sampled_from(function.operands))}, {draw(slope_spans)}){{}}{threshold}"
    operator = draw(st.sampled_from([" > ", ">=", "< ", " <="]))
    return draw(st.sampled_from([plain, derived])).format(operator)


@given(generated())
def test_what_is_spelled_reads_back_as_the_same(text):
    condition = parse_condition(text)
    assert parse_condition(str(condition)) == condition


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_function_is_read_as_its_example_and_suggested_by_it(function):
    threshold = "5M/min" if function.dimension is Dimension.RATE else "5min"
    read = parse_condition(f"{function.example} > {threshold}")
    assert read.subject == function.example
    assert read.function is function
    with pytest.raises(ConditionError, match=re.escape(f"did you mean `{function.example}`?")):
        parse_condition(f"{function.example.capitalize()} > {threshold}")


# --- three values ------------------------------------------------------------------------------

VALUE = {True: 2 * M, False: 0, None: None}


def truth(text, a, b=None):
    known = {name: VALUE[v] for name, v in (("anon", a), ("swap", b)) if VALUE[v] is not None}
    condition, facts = parse_condition(text), Facts(**known)
    verdict = judge(condition, facts)
    assert truth_of(condition, facts) is verdict.truth
    return verdict.truth


def kleene_and(a, b):
    return False if False in (a, b) else None if None in (a, b) else True


@pytest.mark.parametrize(("a", "b"), list(itertools.product([True, False, None], repeat=2)))
def test_and_or_not_over_true_false_and_unknown(a, b):
    opposite = {True: False, False: True, None: None}
    assert truth("anon > 1M and swap > 1M", a, b) is kleene_and(a, b)
    assert truth("anon > 1M or swap > 1M", a, b) is opposite[kleene_and(opposite[a], opposite[b])]
    assert truth("not anon > 1M", a) is opposite[a]
    assert truth("not (anon > 1M and swap > 1M)", a, b) is truth("not anon > 1M or not swap > 1M", a, b)


def test_and_binds_tighter_than_or():
    assert truth("anon > 1M or anon > 1M and swap > 1M", a=True, b=False) is True


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.sampled_from([">", ">=", "<", "<="]))
def test_what_bounds_decide_no_exact_value_within_them_reverses(low, width, threshold, operator):
    condition = parse_condition(f"pss {operator} {threshold}B")
    decided = judge(condition, Facts(pss=Bounds(low, low + width))).truth
    for value in range(low, low + width + 1):
        exact = judge(condition, Facts(pss=value)).truth
        assert exact is not None
        assert decided in (None, exact)


def test_a_finding_tells_numbers_and_what_is_unknown():
    condition = parse_condition("workingset > 85% of limit")
    (finding,) = judge(condition, Facts(workingset=450 * M, limit=512 * M)).findings
    assert str(finding) == "workingset 450.0M > 435.1M (85% of limit)"
    (finding,) = judge(condition, Facts(limit=512 * M)).findings
    assert str(finding) == "workingset is unknown (not read)"


@pytest.mark.parametrize("operator", [">", ">=", "<", "<="])
@pytest.mark.parametrize("negated", ["", "not "])
def test_a_share_of_nothing_is_unknown(operator, negated):
    """As without swap: `<= 10%` of it always held, `< 10%` never, and both without a word."""
    condition = parse_condition(f"{negated}host.swap_free {operator} 10% of host.swap_total")
    verdict = judge(condition, Facts({"host.swap_free": 0, "host.swap_total": 0}))
    assert verdict.truth is None
    (finding,) = verdict.findings
    assert str(finding) == "10% of host.swap_total is unknown (host.swap_total is 0)"


@pytest.mark.parametrize(
    ("text", "known", "truth", "told"),
    [
        (
            "growth(anon, 10min) > 5M/min",
            {"growth(anon, 600)": M / 6},
            True,
            "growth(anon, 10min) 10.0M/min > 5.0M/min",
        ),
        (
            "growth(anon, 10min) > 5M/min",
            {"growth(anon, 600)": -M / 60},
            False,
            "growth(anon, 10min) -1.0M/min is not > 5.0M/min",
        ),
        (
            "growth(anon, 10min) > 5M/min",
            {"anon": M},
            None,
            "growth(anon, 10min) is unknown (no growth yet)",
        ),
        ("eta(limit) < 5min", {"eta(limit, 600)": 90}, True, "eta(limit, 10min) 1min 30s < 5min"),
        ("eta(limit) < 5min", {"eta(limit, 600)": inf}, False, "eta(limit, 10min) never is not < 5min"),
        ("eta(limit) > 5min", {"eta(limit, 600)": inf}, True, "eta(limit, 10min) never > 5min"),
        ("eta(limit) <= 0s", {"eta(limit, 600)": 0}, True, "eta(limit, 10min) 0 <= 0s"),
        ("eta(limit) < 5min", {"limit": M}, None, "eta(limit, 10min) is unknown (no eta yet)"),
        ("events.oom > 0 in 1h", {"increase(events.oom, 3600)": 2}, True, "events.oom 2 > 0 in 1h"),
        (
            "events.oom > 0 in 1h",
            {"increase(events.oom, 3600)": Bounds(0, 2)},
            None,
            "events.oom is unknown (no increase yet)",
        ),
        (
            "events.oom > 2 in 1h",
            {"increase(events.oom, 3600)": Bounds(0, 2)},
            False,
            "events.oom is not > 2 in 1h",
        ),
    ],
)
def test_what_is_derived_is_judged_and_told(text, known, truth, told):
    verdict = judge(parse_condition(text), Facts(known))
    assert verdict.truth is truth
    assert [str(finding) for finding in verdict.findings] == [told]


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (M, Dimension.SIZE, "1.0M"),
        (62.55, Dimension.PERCENT, "62.5%"),
        (3, Dimension.COUNT, "3"),
        (M / 60, Dimension.RATE, "1.0M/min"),
        (90, Dimension.SPAN, "1min 30s"),
        (inf, Dimension.SPAN, "never"),
    ],
)
def test_a_value_is_written_in_its_dimension(value, dimension, text):
    assert format_value(value, dimension) == text


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("anon > 80% of limit or not swap > 1M", {"anon", "limit", "swap"}),
        ("growth(process.pss, 10min) > 5M/min", {"process.pss"}),
        ("eta(limit) < 5min", {"limit", "unreclaimable", "fill", "host.total", "host.available"}),
        ("eta(high) < 5min and events.oom > 0 in 1h", {"high", "unreclaimable", "fill", "events.oom"}),
        ("slice.anon > 80% of slice.max", {"slice.anon", "slice.max"}),
    ],
)
def test_the_measures_of_a_condition_are_those_it_needs(text, needed):
    assert measures_of(parse_condition(text)) == needed
