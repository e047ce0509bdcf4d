"""unitmem replay"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from unitmem.cli.options import Json
from unitmem.errors import UnitmemError
from unitmem.policy.decision import Decision
from unitmem.policy.model import step_number
from unitmem.policyfile import reader as config
from unitmem.record.history import read_samples
from unitmem.report.document import emit
from unitmem.report.failure import say
from unitmem.simulate.replay import Coverage, Replayed, decisions
from unitmem.tell.wording import decision_entry
from unitmem.text import format_span, listed, plural, printable

_MOST = 3
"""Reasons that are printed for a step; `--json` has all."""


def replay_policy(
    policy: Annotated[Path, typer.Argument(metavar="POLICY", help="A policy file.")],
    history: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="A history.sqlite that a watch has recorded, or samples as JSON lines."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Tell what a policy would have decided about recorded samples.

    Each decision comes with its time in the recording. Nothing is done to any unit, and the past is not changed by what
    would have been done: after a stop, the recording goes on with the unit as it was.

    At the end, it says in how many samples each step could be judged, and in how many it was left open for a unit: of
    values that hardly change a history has bounds alone, and of samples that are some days old the least and the
    greatest values of five minutes. Status 1 if one could be in none: what it needs was
    not recorded, or no unit that matches.
    """
    checked = config.load(policy)
    replayed = Replayed()
    made = decisions(checked.file, read_samples(history, with_ages=False), replayed)
    if as_json:
        documents = [_document(decision, replayed) for decision in made]
        steps = [_step(*step, coverage) for step, coverage in replayed.steps.items()]
        emit({"samples": replayed.samples, "steps": steps, "decisions": documents})
    else:
        _print(made, replayed)
        if replayed.is_sparse and any(step.hold for policy in checked.file.policies for step in policy.steps):
            say(
                "most samples are more than two intervals apart, so that `for` counts less time than has passed: "
                "write an `interval` as long as the samples are apart"
            )
    if replayed.is_blind:
        raise typer.Exit(UnitmemError.exit_status)


def _print(made: Iterable[Decision], replayed: Replayed) -> None:
    counts: Counter[str] = Counter()
    for decision in made:
        typer.echo(printable(f"{_time(decision, replayed):>12}  {decision_entry(decision).message}"))
        counts["withheld" if decision.refusal is not None else decision.action.name] += 1
    say(_summary(replayed, counts))
    for step, coverage in replayed.steps.items():
        say(_coverage(*step, coverage, replayed.samples))
        if coverage.picked or coverage.not_picked:
            say(_picked(*step, coverage))


def _time(decision: Decision, replayed: Replayed) -> str:
    return "+" + format_span(decision.at - (replayed.first or 0.0), accuracy=0.001)


def _summary(replayed: Replayed, counts: Counter[str]) -> str:
    if not replayed.samples:
        return "the history has no samples"
    span = format_span((replayed.last or 0.0) - (replayed.first or 0.0))
    nothing = "nothing would have been done"
    if replayed.is_blind or replayed.is_open:
        nothing += ", as far as that could be judged"
    what = ", ".join(f"{count} {name}" for name, count in counts.most_common()) or nothing
    return f"{replayed.samples} samples over {span}: {what}"


def _coverage(policy: str, index: int, coverage: Coverage, samples: int) -> str:
    """Return the line on a step: `web, step 1: judged in 0 of 312 samples: pss is unknown (not in this history)`."""
    reasons = [
        f"{why}{'' if count == samples else f' in {count}'}"
        for why, count in coverage.unknown.most_common(_MOST)
    ]
    if coverage.judged:  # else the reasons say it of all units
        reasons += [f"never for {unit}, as {why}" for unit, why in sorted(coverage.never.items())[:_MOST]]
    if coverage.open:
        left_open = [f"{unit}, as {why}" for unit, why in sorted(coverage.left_open.items())[:_MOST]]
        reasons.append(f"left open in {coverage.open} for {', '.join(left_open)}")
    line = f"{policy}, step {step_number(index)}: judged in {coverage.judged} of {plural(samples, 'sample')}"
    return ": ".join([line, *(["; ".join(reasons)] if reasons else [])])


def _picked(policy: str, index: int, coverage: Coverage) -> str:
    """Return the line on a step that picks: `short, step 1: picked a.service (2 times); not picked: b.service (9 samples)`."""
    times = [f"{unit} ({plural(count, 'time')})" for unit, count in coverage.picked.most_common()]
    samples = [f"{unit} ({plural(count, 'sample')})" for unit, count in coverage.not_picked.most_common()]
    others = f"; not picked: {listed(samples, _MOST)}" if samples else ""
    return f"{policy}, step {step_number(index)}: picked {listed(times, _MOST) or 'none'}{others}"


def _step(policy: str, index: int, coverage: Coverage) -> dict[str, Any]:
    return {
        "policy": policy,
        "step": step_number(index),
        "judged": coverage.judged,
        "unknown": dict(coverage.unknown),
        "never_judged": coverage.never,
        "picked": dict(coverage.picked),
        "not_picked": dict(coverage.not_picked),
        "open": coverage.open,
        "left_open": coverage.left_open,
    }


def _document(decision: Decision, replayed: Replayed) -> dict[str, Any]:
    return {
        "at": decision.at,
        "after": decision.at - (replayed.first or 0.0),
        "unit": decision.unit,
        "invocation_id": decision.invocation.invocation_id,
        "policy": decision.policy,
        "step": decision.step_number,
        "action": decision.action.name,
        "obstacle": None if decision.refusal is None else decision.refusal.obstacle,
        "held": decision.held,
        "message": decision_entry(decision).message,
    }
