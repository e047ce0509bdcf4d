"""Warnings about a policy file: what may run but is probably a mistake, and what to write instead.

Pure. The machine is a sample of the units that match; without one, warnings that depend on it are left out.
A warning is its code here, with what it depends on, and its rule; unitmem.yaml(5) explains the codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain

from unitmem.errors import Problem
from unitmem.measure.catalogue import OPERANDS, Trait
from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy.actions import Reclaim, Restart, SetProperties
from unitmem.policy.condition import All, AnyOf, Comparison, Condition, Not, comparisons
from unitmem.policy.model import Policy, Step
from unitmem.policyfile.reader import Checked, is_silenced
from unitmem.policyfile.values import never_true
from unitmem.policyfile.warnings import Code, Ignore
from unitmem.simulate.contradictions import contradiction, shared_unit
from unitmem.simulate.lint_budgets import BudgetCode, doubts_about_budgets, repeating_kills
from unitmem.simulate.near_limit import near_limit_doubts
from unitmem.simulate.no_pick import hits_all
from unitmem.simulate.page_cache import page_cache_alone
from unitmem.simulate.shared_limit import shared_limit_doubts
from unitmem.simulate.spans import short_slopes
from unitmem.simulate.thresholds import rung_of, without_not
from unitmem.text import closest, format_size, listed
from unitmem.unit import CORE_UNITS, StartLimit, Unit, is_glob, matches

_MOST_NAMED = 3


class LintCode(StrEnum):
    """The code of a warning that is found here; those that reading a file finds are in `policyfile.warnings`."""

    ALIAS = "alias"
    """A unit that is named by an alias."""
    CLEAR_NOT_BELOW = "clear-not-below"
    """`clear` may hold while a step's condition holds."""
    CONTRADICTION = "contradiction"
    """Two policies that undo each other's actions on the same unit."""
    CORE_UNIT = "core-unit"
    """A pattern that matches protected units."""
    LADDER_ORDER = "ladder-order"
    """A harsher step that fires no later than a milder one."""
    MEMORY_HIGH_WITHOUT_SWAP = "memory-high-without-swap"
    """MemoryHigh= without swap, which can stall the unit."""
    NEAR_LIMIT = "near-limit"
    """A threshold for more than `log` at 98% of a limit or more, without MemoryHigh=."""
    NO_HOLD = "no-hold"
    """An action that ends the unit, in a step without `for`."""
    NO_MATCH = "no-match"
    """A pattern that matches no loaded unit."""
    NO_PICK = "no-pick"
    """An action that ends each of many units at once, by a condition on the machine or a slice."""
    NO_SWAP = "no-swap"
    """A condition that needs swap where there is none."""
    PAGE_CACHE = "page-cache"
    """A condition that page cache alone can make true."""
    RESTART_LOOP = "restart-loop"
    """A restart without cooldown and budget, or for OOM kills with a cooldown that is shorter than they count."""
    SHARED_LIMIT = "shared-limit"
    """A share of a limit that is a slice's, for all units in it together."""
    SHORT_SPAN = "short-span"
    """A growth or leak over less than a day that leads to more than `log`, without a level beside it."""
    UNKNOWN_CODE = "unknown-code"
    """A comment with a code that doesn't exist."""
    UNUSED_IGNORE = "unused-ignore"
    """A comment that silences nothing."""


CODES = frozenset({*Code, *LintCode, *BudgetCode})


def review(
    checked: Checked, machine: Sample | None = None, start_limits: Mapping[str, StartLimit] | None = None
) -> tuple[Problem, ...]:
    """Return every warning about a policy file that no comment in it silences, in the order of their places.

    Args:
        checked: the file as read.
        machine: every loaded unit that a pattern of the file matches, whatever its state; None where
            they can't be sampled.
        start_limits: the start limits of those units, by name; None where the manager can't be asked.
    """
    doubts = list(checked.doubts)
    for index, policy in enumerate(checked.file.policies):
        doubts += _Review(checked, machine, policy, index).doubts()
    doubts += doubts_about_budgets(checked, machine, start_limits or {})
    doubts += _odd_ignores(checked.ignores, doubts, machine, start_limits)
    return tuple(sorted({doubt for doubt in doubts if not is_silenced(doubt, checked.ignores)}))


@dataclass(frozen=True, slots=True)
class _Review:
    """The review of one policy."""

    checked: Checked
    machine: Sample | None
    policy: Policy
    index: int

    def doubts(self) -> Iterator[Problem]:
        for index, pattern in enumerate(self.policy.units):
            yield from self._pattern(index, pattern)
        for index, step in enumerate(self.policy.steps):
            yield from self._condition(index, step)
            yield from self._action(index, step)
            yield from self._order(index, step)
        for other in self.checked.file.policies[: self.index]:
            yield from self._contradictions(other)
        if self.policy.clear is not None:
            yield from self._limit(self.policy.clear, "clear")
            yield from self._clear(self.policy.clear)

    def doubt(self, code: Code | LintCode, message: str, *keys: str | int) -> Problem:
        """Return a warning about the part of this policy at `keys`."""
        line, column = self.checked.place("policies", self.index, *keys)
        return Problem(line, column, message, code)

    # --- the units ---

    def _pattern(self, index: int, pattern: str) -> Iterator[Problem]:
        if self.machine is not None and not self._matching(pattern):
            yield self.doubt(
                LintCode.NO_MATCH,
                f"{pattern} matches no unit that is loaded here now; `unitmem list --all` shows which are",
                *("units", index),
            )
        for sample in self._matching(pattern):
            if pattern in sample.unit.aliases:
                yield self.doubt(
                    LintCode.ALIAS,
                    f"{pattern} is an alias of {sample.name}, which is the unit that is governed: write {sample.name}",
                    *("units", index),
                )
        acting = [step for step in self.policy.steps if step.action.acts]
        if not acting:
            return  # what is only told is told of protected units too
        core = self._core(pattern)
        if core and is_glob(pattern):
            if all(step.pick is not None for step in acting):
                return  # what is protected isn't picked
            yield self.doubt(
                LintCode.CORE_UNIT,
                f"{pattern} also matches protected units ({listed(core, _MOST_NAMED)}), on which only `log` is "
                "performed: narrow the pattern, or list them under `except`",
                *("units", index),
            )
        elif core:
            yield self.doubt(
                LintCode.CORE_UNIT,
                f"{pattern} is protected, so only `log` is performed on it: "
                "leave it out, or list it under `unprotect` too if it is meant",
                *("units", index),
            )

    def _core(self, pattern: str) -> list[str]:
        """Return the protected units that `pattern` matches: those loaded here, and core units by their usual names."""
        here = [
            sample.unit.name
            for sample in self._matching(pattern)
            if sample.protected is not None and self._means(sample.unit)
        ]
        elsewhere = [
            core
            for core in CORE_UNITS
            # a glob among them stands for any name that it matches
            if matches(name := core.replace("*", "0"), [pattern])
            and self._means(Unit(name))
            and not any(matches(known, [core]) for known in here)
        ]
        return [*here, *elsewhere]

    def _matching(self, pattern: str) -> list[UnitSample]:
        units = () if self.machine is None else self.machine.units.values()
        return [sample for sample in units if any(matches(name, [pattern]) for name in sample.unit.names)]

    def _means(self, unit: Unit) -> bool:
        return self.policy.governs(unit) and not self.policy.unprotects(unit)

    # --- a step by itself ---

    def _condition(self, index: int, step: Step) -> Iterator[Problem]:
        yield from self._limit(step.when, "steps", index, "when")
        if self.machine is not None and self.machine.host.swap_total == 0 and _needs_swap(step.when):
            yield self.doubt(
                LintCode.NO_SWAP,
                f"`{step.when}` is never true here, as there is no swap: join another condition by `or`",
                *("steps", index, "when"),
            )
        if self.machine is not None:
            for doubt in shared_limit_doubts(step.when, self.policy, self.machine):
                yield self.doubt(LintCode.SHARED_LIMIT, doubt, "steps", index, "when")
        if not step.action.acts:
            return
        for term in page_cache_alone(without_not(step.when)):
            if term.measure == "file" and isinstance(step.action, Reclaim):
                continue  # it is page cache that is meant, and that goes
            yield self.doubt(
                LintCode.PAGE_CACHE,
                f"page cache alone makes `{term}` true, and a healthy unit's cache fills up: "
                "compare `workingset` or, better, `unreclaimable`",
                *("steps", index, "when"),
            )

        for doubt in near_limit_doubts(self.policy, step, self.machine):
            yield self.doubt(LintCode.NEAR_LIMIT, doubt, "steps", index, "when")
        for term in short_slopes(step.when):
            yield self.doubt(
                LintCode.SHORT_SPAN,
                f"`{term}` is also true of a garbage collector's sawtooth, a daily wave or a warm-up: take a span of "
                "1d, join it with a level, such as `and unreclaimable > 80% of limit`, or only `log`",
                *("steps", index, "when"),
            )

    def _limit(self, condition: Condition, *keys: str | int) -> Iterator[Problem]:
        """Yield a warning for each size that no unit here can reach."""
        for term in comparisons(without_not(condition)):
            most = None if self.machine is None else _above_limit(term, self.policy, self.machine)
            if most is not None:
                yield self.doubt(
                    Code.ABOVE_LIMIT,
                    f"`{term}` can't be true of any unit that matches here: the most is {most}; write a share "
                    f"of it, such as `{term.measure} {term.operator} 80% of limit`, or less",
                    *keys,
                )

    def _action(self, index: int, step: Step) -> Iterator[Problem]:
        action, keys = step.action, ("steps", index, "do")
        # what looks over a span of time is no spike, nor is what doesn't depend on use
        is_instant = any(
            comparison.span is None and Trait.FIXED not in OPERANDS[comparison.measure].traits
            for comparison in comparisons(step.when)
        )
        if action.ends_the_unit and step.hold == 0 and is_instant:
            yield self.doubt(
                LintCode.NO_HOLD,
                f"without `for`, one spike is enough for `{action.name}`: add one, such as `for: 30s`",
                *keys,
            )
        if (shared := hits_all(self.policy, step)) is not None:
            yield self.doubt(
                LintCode.NO_PICK,
                f"`{shared}` is true of many units at once, and each of them gets `{action.name}`: add "
                "`pick: footprint`, which takes one at a time, or join it with a unit's own use",
                *keys,
            )
        budgets = (self.policy.budget, self.checked.file.budget)
        if isinstance(action, Restart) and self.policy.cooldown == 0 and budgets == (None, None):
            yield self.doubt(
                LintCode.RESTART_LOOP,
                "nothing limits a restart loop: give the policy a `cooldown:`, such as 10min, "
                "or a `budget:`, such as {actions: 3, per: 1h}",
                *keys,
            )
        elif term := next(repeating_kills(self.policy, step, self.checked.file.budget), None):
            yield self.doubt(
                LintCode.RESTART_LOOP,
                f"`{term}` is also true of the run that follows one that an OOM kill ended, so each kill restarts a "
                "healthy run: give the policy a `budget:`, such as {actions: 3, per: 1h}, or a longer `cooldown:`",
                *keys,
            )
        if (
            isinstance(action, SetProperties)
            and dict(action.properties).get("MemoryHigh") is not None
            and self.machine is not None
            and self.machine.host.swap_total == 0
        ):
            yield self.doubt(
                LintCode.MEMORY_HIGH_WITHOUT_SWAP,
                "without swap, as here, MemoryHigh= can stall a unit that stays active: "
                "add swap, set MemoryMax, or restart or stop the unit",
                *keys,
            )

    # --- steps among each other ---

    def _order(self, index: int, step: Step) -> Iterator[Problem]:
        """Yield a warning if of this step and an earlier one, the harsher fires no later than the milder."""
        for other in self.policy.steps[:index]:
            mild, harsh = sorted((other, step), key=lambda each: each.action.severity)
            low, high = rung_of(mild.when), rung_of(harsh.when)
            if low is None or high is None or low.subject != high.subject:
                continue
            if mild.action.severity == harsh.action.severity or (low.height, mild.hold) < (
                high.height,
                harsh.hold,
            ):
                continue
            yield self.doubt(
                LintCode.LADDER_ORDER,
                f"`{harsh.action.name}` at `{harsh.when}` comes no later than `{mild.action.name}` "
                f"at `{mild.when}`, which is milder: give the milder one the threshold that is met first",
                *("steps", index, "when"),
            )
            return

    def _contradictions(self, other: Policy) -> Iterator[Problem]:
        """Yield a warning for each step that undoes what a step of `other`, an earlier policy, does to the same unit."""
        unit = shared_unit(self.policy, other, self.machine)
        for index, step in enumerate(self.policy.steps if unit is not None else ()):
            against = next((each for each in other.steps if contradiction(step, each)), None)
            if against is not None:
                yield self.doubt(
                    LintCode.CONTRADICTION,
                    f"`{step.action}` contradicts `{against.action}` of policy {other.name}, and both may be due for "
                    f"{unit}: make the conditions exclude each other, or keep one of the steps",
                    *("steps", index, "do"),
                )

    def _clear(self, clear: Condition) -> Iterator[Problem]:
        """Yield a warning if `clear` may hold while a step's condition does."""
        end = rung_of(clear)
        if end is None:
            return
        begins = [
            (rung, term)
            for step in self.policy.steps
            for term in comparisons(without_not(step.when))
            if (rung := rung_of(term)) is not None and rung.measured == end.measured
        ]
        # it clears on the way back: heights of the other direction have the other sign
        met = [
            (rung.height, term)
            for rung, term in begins
            if rung.rises == end.rises or rung.height <= -end.height
        ]
        if not met:
            return
        _, first = min(met, key=lambda each: each[0])
        below = "less" if first.operator.startswith(">") else "more"
        yield self.doubt(
            LintCode.CLEAR_NOT_BELOW,
            f"`{clear}` may hold while `{first}` does, so that the step fires again and again: "
            f"clear at {below} than {first.spelled_threshold}",
            "clear",
        )


# --- conditions --------------------------------------------------------------------------------


def impossible(condition: Condition, policy: Policy, machine: Sample) -> tuple[str, ...]:
    """Return the reasons why `condition` can't become true of any unit of `policy` here; none if it can."""
    match without_not(condition):
        case Comparison() as term:
            if machine.host.swap_total == 0 and _needs_swap(term):
                return (f"`{term}` is never true here: there is no swap",)
            doubt = never_true(term)
            most = _above_limit(term, policy, machine)
            if doubt is not None:
                return (f"`{term}` can never be true: {doubt[1]}",)
            return () if most is None else (f"no unit that matches comes to `{term}`: the most is {most}",)
        case All(terms):
            return tuple(reason for term in terms for reason in impossible(term, policy, machine))
        case AnyOf(terms):
            reasons = [impossible(term, policy, machine) for term in terms]
            return tuple(chain.from_iterable(reasons)) if all(reasons) else ()
        case Not():  # none is left
            return ()


def _needs_swap(condition: Condition) -> bool:
    """Return whether `condition` can't be true without swap, since a share of 0 is unknown."""
    match without_not(condition):
        case Comparison(of=whole):
            return whole == "host.swap_total"
        case All(terms):
            return any(map(_needs_swap, terms))
        case AnyOf(terms):
            return all(map(_needs_swap, terms))
        case Not():  # none is left
            return False


def _above_limit(term: Comparison, policy: Policy, machine: Sample) -> str | None:
    """Return the greatest limit of a unit of `policy` here, as text, if `term` can't be met below it."""
    limits = [
        (sample.values["limit"], sample.unit.name)
        for sample in machine.units.values()
        if policy.governs(sample.unit) and "limit" in sample.values
    ]
    size = _least(term, machine)
    if not limits or size is None:
        return None
    limit, name = max(limits)
    if size < limit or (size == limit and term.operator != ">"):
        return None
    return f"{format_size(int(limit))}, the limit of {name}"


def _least(term: Comparison, machine: Sample) -> float | None:
    """Return the bytes that a unit's memory must reach for `term`; None where that isn't what `term` is about."""
    if (
        Trait.BOUNDED not in OPERANDS[term.measure].traits
        or not term.operator.startswith(">")
        or term.span is not None
    ):
        return None
    if term.of == "host.total":
        return None if machine.host.total is None else machine.host.total * term.threshold / 100
    return term.threshold if term.of is None else None


# --- comments ----------------------------------------------------------------------------------


def _odd_ignores(
    ignores: Iterable[Ignore],
    doubts: Iterable[Problem],
    machine: Sample | None,
    start_limits: Mapping[str, StartLimit] | None,
) -> Iterator[Problem]:
    """Yield a warning for each comment that silences an unknown code, or a warning that isn't there."""
    given = {(doubt.line, doubt.code) for doubt in doubts}
    for ignore in ignores:
        for code in ignore.codes:
            if code not in CODES:
                close = f" (did you mean {meant}?)" if (meant := closest(code, CODES)) else ""
                message = f"there is no warning {code!r}{close}: unitmem.yaml(5) lists them"
                yield Problem(ignore.line, ignore.column, message, LintCode.UNKNOWN_CODE)
            elif (
                code not in (LintCode.UNKNOWN_CODE, LintCode.UNUSED_IGNORE)
                and _is_judged(code, machine, start_limits)
                and not any((line, code) in given for line in ignore.lines)
            ):
                message = f"there is no {code} here to ignore: remove it"
                yield Problem(ignore.line, ignore.column, message, LintCode.UNUSED_IGNORE)


def _is_judged(code: str, machine: Sample | None, start_limits: Mapping[str, StartLimit] | None) -> bool:
    """Return whether all that a warning of this code depends on is known."""
    match code:
        case LintCode.NO_MATCH | LintCode.CORE_UNIT | LintCode.ALIAS:
            return machine is not None
        case BudgetCode.START_LIMIT:
            return start_limits is not None
        case Code.ABOVE_LIMIT | LintCode.SHARED_LIMIT | LintCode.NEAR_LIMIT:
            return machine is not None and any("limit" in sample.values for sample in machine.units.values())
        case LintCode.MEMORY_HIGH_WITHOUT_SWAP | LintCode.NO_SWAP:
            return machine is not None and machine.host.swap_total is not None
        case _:
            return True
