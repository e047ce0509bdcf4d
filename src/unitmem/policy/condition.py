"""Conditions, and judging them: comparisons of measures, joined by and, or and not.

The truth has three values: it is None where a number is unknown, and None never counts as true. Facts are
bounds, because some are costly to read exactly and a bound is often enough: PSS is never more than RSS.
`policyfile.expression` reads conditions from text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from math import isinf
from operator import ge, gt, le, lt
from typing import NamedTuple, Protocol

from unitmem.kernel.limits import HOST_LEVEL
from unitmem.measure.catalogue import CGROUP_MEASURES, OPERANDS, Dimension, Trait
from unitmem.text import format_percent, format_rate, format_size, format_span, spell_rate, spell_size

# --- what a condition is -----------------------------------------------------------------------


class Derivation(StrEnum):
    """What is derived from a measure over a span of time before it is compared."""

    INCREASE = "increase"
    """`events.oom_kill > 0 in 10min`: its increase."""
    GROWTH = "growth"
    """`growth(anon, 10min) > 5M/min`: its slope, robust against single spikes."""
    ETA = "eta"
    """`eta(limit, 10min) < 5min`: the time until unreclaimable memory reaches a limit, at its slope over the span."""
    LEAK = "leak"
    """`leak(anon, 1d) > 10M/h`: the slope of its floor, which what is given back again does not raise."""


ETA_USAGE = "unreclaimable"
"""The measure that `eta` follows: only memory that the kernel can't reclaim stays at a limit."""
FILL = "fill"
"""The measure of the levels that `eta` looks at."""
MACHINE = ("host.total", "host.available")
"""The measures of the outermost of those levels."""
UNKNOWN_LEVEL = ""
"""In place of a level where it isn't known which it is."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of conditions, `name(operand, span)`: all that is known of it but its value, which `trends` computes."""

    dimension: Dimension
    operands: tuple[str, ...]
    """The measures that it takes."""
    example: str
    refusal: str
    """What is said of another operand, with `{}` in its place."""
    follows: str | None = None
    """The measure that is followed over the span, where that isn't the operand."""
    default_span: float | None = None
    """The span in seconds where none is written; None where one has to be."""
    least_ticks: int = 4
    """The least number of ticks within its span."""
    is_signed: bool = False
    """Whether its value may be below 0."""


_GROWING = tuple(name for name, measure in OPERANDS.items() if Trait.GROWS in measure.traits)
FUNCTIONS: Mapping[Derivation, Function] = {
    Derivation.GROWTH: Function(
        Dimension.RATE,
        _GROWING,
        "growth(anon, 10min)",
        "{!r} has no growth to measure: write `growth(anon, 10min)`",
        is_signed=True,
    ),
    Derivation.ETA: Function(
        Dimension.SPAN,
        ("limit", "high"),
        "eta(limit, 10min)",
        "eta is the time until a limit is met: write `eta(limit)`, not {!r}",
        follows=ETA_USAGE,
        default_span=600.0,
    ),
    Derivation.LEAK: Function(
        Dimension.RATE,
        _GROWING,
        "leak(anon, 1d)",
        "{!r} has no growth to measure: write `leak(anon, 1d)`",
        least_ticks=16,
    ),
}


SLOPES = (Derivation.GROWTH, Derivation.LEAK)
"""The functions by whose values units can be ranked."""
RANKS = tuple(
    measure.name
    for measure in CGROUP_MEASURES
    if measure.dimension in (Dimension.SIZE, Dimension.PERCENT)
    and not measure.traits & (Trait.FIXED | Trait.LIMIT)
)
"""The measures by which units can be ranked: those of a unit's own use."""
GROWING_RANKS = tuple(name for name in RANKS if Trait.GROWS in OPERANDS[name].traits)
"""Those that have a slope."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """`measure operator threshold`; the threshold is in the dimension of what is compared, or a percentage of `of`."""

    measure: str
    operator: str
    threshold: float
    """Bytes, percent, a count, bytes a second, or seconds; with `of`, a percentage of that measure."""
    of: str | None = None
    span: float | None = None
    """Seconds over which the derivation is taken; None without one."""
    derivation: Derivation | None = None

    @property
    def dimension(self) -> Dimension:
        return OPERANDS[self.measure].dimension if self.function is None else self.function.dimension

    @property
    def function(self) -> Function | None:
        """The function on the left side; None for a measure, and for an increase, which is written with `in`."""
        return None if self.derivation is None else FUNCTIONS.get(self.derivation)

    @property
    def followed(self) -> str:
        """The measure whose value is compared, or followed over the span."""
        return (self.function and self.function.follows) or self.measure

    @property
    def subject(self) -> str:
        """The left side, as in a policy: `anon`, `growth(anon, 10min)`."""
        if self.span is None or self.derivation in (None, Derivation.INCREASE):
            return self.measure
        return _call(self.derivation, self.measure, self.span)

    def __str__(self) -> str:
        share = f" of {self.of}" if self.of is not None else ""
        return f"{self.subject} {self.operator} {self.spelled_threshold}{share}{self.spelled_span}"

    @property
    def spelled_threshold(self) -> str:
        """The threshold as text that is read back exactly: `1.2G`, `62.55%`."""
        number = f"{self.threshold:.15g}"
        if self.of is not None:
            return f"{number}%"
        match self.dimension:
            case Dimension.SIZE:
                return spell_size(int(self.threshold))
            case Dimension.RATE:
                return spell_rate(self.threshold)
            case Dimension.SPAN:
                return format_span(self.threshold, accuracy=0.001) if self.threshold else "0s"
            case Dimension.COUNT:
                return number
            case Dimension.PERCENT:
                return f"{number}%"

    @property
    def spelled_span(self) -> str:
        """` in 10min` for an increase, else empty."""
        if self.span is None or self.derivation is not Derivation.INCREASE:
            return ""
        return f" in {format_span(self.span, accuracy=0.001)}"


@lru_cache  # asked for at each tick, while it is unknown
def _call(derivation: Derivation | None, measure: str, span: float) -> str:
    return f"{derivation}({measure}, {format_span(span, accuracy=0.001)})"


@dataclass(frozen=True, slots=True)
class Not:
    """What holds where its term doesn't."""

    term: Condition

    def __str__(self) -> str:
        return f"not {self.term}" if isinstance(self.term, Comparison) else f"not ({self.term})"


@dataclass(frozen=True, slots=True)
class All:
    """What holds where all of its terms do."""

    terms: tuple[Condition, ...]

    def __str__(self) -> str:
        # a chain within a chain was in parentheses, and reads back the same only so
        return " and ".join(
            f"({term})" if isinstance(term, All | AnyOf) else str(term) for term in self.terms
        )


@dataclass(frozen=True, slots=True)
class AnyOf:
    """What holds where one of its terms does."""

    terms: tuple[Condition, ...]

    def __str__(self) -> str:
        return " or ".join(f"({term})" if isinstance(term, AnyOf) else str(term) for term in self.terms)


Condition = Comparison | Not | All | AnyOf


def comparisons(condition: Condition) -> Iterator[Comparison]:
    """Yield every comparison in `condition`, from left to right."""
    match condition:
        case Comparison():
            yield condition
        case Not(term):
            yield from comparisons(term)
        case All(terms) | AnyOf(terms):
            for term in terms:
                yield from comparisons(term)


def measures_of(condition: Condition) -> frozenset[str]:
    """Return the name of every measure that `condition` needs."""
    names = set()
    for comparison in comparisons(condition):
        names |= {comparison.measure, comparison.of, comparison.followed}
        if comparison.derivation is Derivation.ETA:
            names |= {FILL, *(MACHINE if comparison.measure == "limit" else ())}
    return frozenset(name for name in names if name)


def format_value(value: float, dimension: Dimension) -> str:
    """Return a measure's value as text for people: `512.0M`, `40.0%`, `3`."""
    match dimension:
        case Dimension.SIZE:
            return format_size(int(value))
        case Dimension.PERCENT:
            return format_percent(value)
        case Dimension.COUNT:
            return f"{value:g}"
        case Dimension.RATE:
            return format_rate(value)
        case Dimension.SPAN:
            return "never" if isinf(value) else format_span(value)


def format_level(path: str) -> str:
    """Return a level as text for people: the path of its cgroup, or `this machine`."""
    return "this machine" if path == HOST_LEVEL else path


# --- judging -----------------------------------------------------------------------------------


class Bounds(NamedTuple):
    """Bounds of a number: at least `low`, at most `high`; they are equal where it is known exactly."""

    low: float
    high: float


class Facts(Protocol):
    """The numbers that a condition is judged by."""

    def bounds(self, measure: str) -> Bounds | None:
        """Return bounds of `measure`; None where it is unknown."""

    def derived(self, measure: str, derivation: Derivation, span: float) -> Bounds | None:
        """Return bounds of the derivation of `measure` over `span` seconds; None where it is unknown."""

    def why_unknown(self, measure: str, derivation: Derivation | None) -> str:
        """Return the reason for which `measure`, or what is derived from it, is not known exactly."""

    def level(self, comparison: Comparison) -> str | None:
        """Return the level that the left side is about: the path of a slice, or `host`; None if it is the unit's own.

        `UNKNOWN_LEVEL` if it isn't known which.
        """


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one comparison, with the numbers that it is based on."""

    comparison: Comparison
    truth: bool | None
    value: float | None
    """The compared value, where it is known exactly."""
    threshold: float | None
    """The threshold, in the dimension of the value."""
    unknown: Mapping[str, str]
    """Measures that are needed and unknown, with the reasons."""
    level: str | None = None
    """The level that it is true of, if that isn't the unit's own: the path of a slice, `host`, or `UNKNOWN_LEVEL`."""

    def __str__(self) -> str:
        """Return the comparison with its numbers: `workingset 450.1M > 435.2M (85% of limit)`."""
        comparison = self.comparison
        if self.unknown:
            return "; ".join(f"{name} is unknown ({reason})" for name, reason in self.unknown.items())
        if self.threshold is None:
            return str(comparison)
        dimension = comparison.dimension
        value = "" if self.value is None else f" {format_value(self.value, dimension)}"
        if self.level:
            value += f" at {format_level(self.level)}"
        operator = comparison.operator if self.truth else f"is not {comparison.operator}"
        threshold = comparison.spelled_threshold
        if comparison.of is not None:
            threshold = f"{format_value(self.threshold, dimension)} ({threshold} of {comparison.of})"
        return f"{comparison.subject}{value} {operator} {threshold}{comparison.spelled_span}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The truth of a condition, and the comparisons that decide it."""

    truth: bool | None
    findings: tuple[Finding, ...]
    is_close: bool = False
    """Whether it is true by less than what memory.stat may lag behind, so that a second look has to agree."""


def judge(condition: Condition, facts: Facts) -> Verdict:
    """Judge `condition` by `facts`: its truth is None where the known bounds don't decide it."""
    match condition:
        case Comparison():
            finding = _compare(condition, facts)
            return Verdict(finding.truth, (finding,))
        case Not(term):
            inner = judge(term, facts)
            return Verdict(None if inner.truth is None else not inner.truth, inner.findings)
        case All(terms):
            return _join([judge(term, facts) for term in terms], decisive=False)
        case AnyOf(terms):
            return _join([judge(term, facts) for term in terms], decisive=True)


def truth_of(condition: Condition, facts: Facts) -> bool | None:
    """Return the truth that `judge` finds, without the findings: most conditions don't hold, and nobody is told of these."""
    match condition:
        case Comparison():
            return _decide(condition, facts)[0]
        case Not(term):
            truth = truth_of(term, facts)
            return None if truth is None else not truth
        case All(terms) | AnyOf(terms):
            decisive = isinstance(condition, AnyOf)
            truth = not decisive
            for term in terms:
                inner = truth_of(term, facts)
                if inner is decisive:
                    return decisive
                if inner is None:
                    truth = None
            return truth


def _join(verdicts: list[Verdict], *, decisive: bool) -> Verdict:
    """Return `decisive` if one verdict is, whatever the others are; else its opposite if all are known, else None."""
    truth = None if any(verdict.truth is None for verdict in verdicts) else not decisive
    if any(verdict.truth is decisive for verdict in verdicts):
        truth = decisive
    deciding = [verdict for verdict in verdicts if verdict.truth is truth]
    return Verdict(truth, tuple(finding for verdict in deciding for finding in verdict.findings))


def _compare(comparison: Comparison, facts: Facts) -> Finding:
    truth, bounds, whole, threshold = _decide(comparison, facts)
    unknown = {}
    if bounds is None:
        unknown[comparison.subject] = facts.why_unknown(comparison.measure, comparison.derivation)
    if comparison.of is not None and threshold is None:
        if whole is None or whole.low != whole.high:
            unknown[comparison.of] = facts.why_unknown(comparison.of, None)
        else:
            unknown[f"{comparison.spelled_threshold} of {comparison.of}"] = f"{comparison.of} is 0"
    if bounds is not None and threshold is not None and truth is None:
        unknown[comparison.subject] = facts.why_unknown(comparison.measure, comparison.derivation)
    value = bounds.low if bounds is not None and bounds.low == bounds.high else None
    level = facts.level(comparison) if truth else None
    return Finding(comparison, truth, value, threshold, unknown, level)


def _decide(
    comparison: Comparison, facts: Facts
) -> tuple[bool | None, Bounds | None, Bounds | None, float | None]:
    """Return (truth, bounds of what is compared, bounds of what the threshold is a share of, threshold)."""
    if comparison.derivation is None or comparison.span is None:
        bounds = facts.bounds(comparison.measure)
    else:
        bounds = facts.derived(comparison.measure, comparison.derivation, comparison.span)
    threshold: float | None = comparison.threshold
    whole = None
    if comparison.of is not None:
        whole = facts.bounds(comparison.of)
        # every value is at least a share of 0, so that would say nothing: no swap, a MemTotal of 0
        is_known = whole is not None and whole.low == whole.high != 0
        threshold = whole.low * comparison.threshold / 100 if whole is not None and is_known else None
    if bounds is None or threshold is None:
        return None, bounds, whole, threshold
    compare = _OPERATORS[comparison.operator]
    truth = compare(bounds.low, threshold)
    return truth if compare(bounds.high, threshold) is truth else None, bounds, whole, threshold


_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {">": gt, ">=": ge, "<": lt, "<=": le}
