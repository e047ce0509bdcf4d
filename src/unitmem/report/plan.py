"""The pages of `unitmem plan`: each policy with its steps, then each unit that matches it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from unitmem.policy.condition import Finding, format_value
from unitmem.policy.model import Mode, Pick, Step, step_number
from unitmem.report.styled import Text
from unitmem.report.table import GAP, print_line
from unitmem.report.terminal import Console
from unitmem.simulate.plan import Dependent, PolicyPlan, UnitPlan, pick_order
from unitmem.text import format_span, listed

_INDENT = " " * GAP
_MOST_PICKED = 3
_TRUTH = {True: "holds", False: "does not hold", None: "unknown"}
_STYLE = {True: "bold yellow", False: "", None: "dim"}


def print_plan(plans: Sequence[PolicyPlan], console: Console) -> None:
    """Print `plans`, a paragraph for each policy and for each of its units."""
    for index, plan in enumerate(plans):
        if index:
            print_line(console)
        _print_policy(plan, console)
        for unit in plan.units:
            print_line(console)
            _print_unit(unit, console)


def plan_document(plans: Sequence[PolicyPlan]) -> dict[str, Any]:
    """Return what `unitmem plan --json` prints; see unitmem(1)."""
    return {"policies": [_policy(plan) for plan in plans]}


# --- for people --------------------------------------------------------------------------------


def _print_policy(plan: PolicyPlan, console: Console) -> None:
    policy = plan.policy
    title = Text(policy.name, "bold")
    title.append(f": {', '.join(policy.units)}")
    if policy.excluded:
        title.append(f", except {', '.join(policy.excluded)}")
    if policy.mode is Mode.OBSERVE:
        title.append(" (only observes)")
    print_line(console, title)
    idle = {each.step: each.reasons for each in plan.idle}
    for reason in idle.get(None, ()):
        print_line(console, Text(f"{_INDENT}can't act here: {reason}", "yellow"))
    for index, step in enumerate(policy.steps):
        print_line(console, f"{_INDENT}step {step_number(index)}: {_spelled(step)}")
        if step.pick is not None and (order := _order(step.pick, plan)) is not None:
            print_line(console, f"{_INDENT * 2}{order}")
        for reason in idle.get(index, ()):
            print_line(console, Text(f"{_INDENT * 2}can't act here: {reason}", "yellow"))


def _spelled(step: Step) -> str:
    """Return a step as text: `workingset > 85% of limit for 30s: stop within 1min 30s`."""
    hold = f" for {format_span(step.hold)}" if step.hold else ""
    pick = "" if step.pick is None else f", of one at a time, picked by {step.pick}"
    return f"{step.when}{hold}: {step.action}{pick}"


def _order(pick: Pick, plan: PolicyPlan) -> str | None:
    if pick.by.function is not None:
        return f"picked first: depends on {pick.by.subject}, which only a watch measures"
    values = [
        f"{name} {format_value(value, pick.by.dimension)}" for name, value in pick_order(pick, plan.units)
    ]
    return f"picked first: {listed(values, _MOST_PICKED)}" if values else None


def _print_unit(unit: UnitPlan, console: Console) -> None:
    title = Text(f"{_INDENT}{unit.sample.unit.name}", "bold")
    if unit.sample.unit.aliases:
        title.append(f" (alias {', '.join(unit.sample.unit.aliases)})")
    title.append(f"  {unit.sample.unit.state}")
    print_line(console, title)
    for index, verdict in enumerate(unit.verdicts):
        line = Text(f"{_INDENT * 2}step {step_number(index)} ")
        line.append(_TRUTH[verdict.truth], _STYLE[verdict.truth])
        line.append(f": {'; '.join(map(str, verdict.findings))}")
        print_line(console, line)
    for note in _notes(unit):
        print_line(console, f"{_INDENT * 2}{note}")


def _notes(unit: UnitPlan) -> Iterator[str]:
    if unit.sample.invocation is None:
        yield "nothing to measure: it has no cgroup now"
    if unit.protected is not None:
        yield f"protected, so only `log` is performed on it: {unit.protected}"
    if unit.refuses_stops:
        yield "systemd refuses to stop it (RefuseManualStop=yes), so `stop` and `restart` fail unless they have `else: kill`"
    if unit.shared_limit is not None:
        shares = ", ".join(f"`{term}`" for term in dict.fromkeys(unit.shared_limit.shares))
        yield f"its limit is that of {unit.shared_limit.path}, and what other units in it use is left out of {shares}"
    for each in unit.stopped_with:
        yield f"stopping it also stops: {each}"
    for each in unit.started_by:
        yield f"would start it again: {each.unit} ({each.relation})"


# --- for programs ------------------------------------------------------------------------------


def _policy(plan: PolicyPlan) -> dict[str, Any]:
    policy = plan.policy
    return {
        "policy": policy.name,
        "mode": str(policy.mode),
        "steps": [
            {
                "when": str(step.when),
                "for": step.hold,
                "do": step.action.name,
                "action": str(step.action),
                "pick": None if step.pick is None else _pick(step.pick, plan),
            }
            for step in policy.steps
        ],
        "units": [_unit(unit) for unit in plan.units],
        "idle": [
            {"step": None if each.step is None else step_number(each.step), "reasons": list(each.reasons)}
            for each in plan.idle
        ],
    }


def _pick(pick: Pick, plan: PolicyPlan) -> dict[str, Any]:
    order = [{"unit": unit, "value": value} for unit, value in pick_order(pick, plan.units)]
    return {"by": str(pick), "avoid": list(pick.avoid), "settle": pick.settle, "order": order}


def _unit(unit: UnitPlan) -> dict[str, Any]:
    described = unit.sample.unit
    return {
        "unit": described.name,
        "aliases": list(described.aliases),
        "active_state": described.active_state,
        "sub_state": described.sub_state,
        "protected": unit.protected,
        "steps": [
            {"holds": verdict.truth, "findings": [_finding(finding) for finding in verdict.findings]}
            for verdict in unit.verdicts
        ],
        "stopped_with": [_dependent(each) for each in unit.stopped_with],
        "started_by": [_dependent(each) for each in unit.started_by],
        "refuses_stops": unit.refuses_stops,
        "shared_limit": None
        if unit.shared_limit is None
        else {
            "path": unit.shared_limit.path,
            "comparisons": [str(term) for term in dict.fromkeys(unit.shared_limit.shares)],
        },
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "comparison": str(finding.comparison),
        "holds": finding.truth,
        "value": finding.value,
        "threshold": finding.threshold,
        "unknown": dict(finding.unknown),
    }


def _dependent(each: Dependent) -> dict[str, str]:
    return {"unit": each.unit, "relation": each.relation, "to": each.to}
