"""unitmem replay"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from unitmem.cli.options import Json
from unitmem.policy.decision import Decision
from unitmem.policyfile import reader as config
from unitmem.record.history import read_samples
from unitmem.report.document import emit
from unitmem.report.failure import say
from unitmem.simulate.replay import Replayed, decisions
from unitmem.tell.wording import decision_entry
from unitmem.text import format_span


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
    """
    checked = config.load(policy)
    replayed = Replayed()
    made = decisions(checked.file, read_samples(history), replayed)
    if as_json:
        documents = [_document(decision, replayed) for decision in made]
        emit({"samples": replayed.samples, "decisions": documents})
    else:
        _print(made, replayed)


def _print(made: Iterable[Decision], replayed: Replayed) -> None:
    counts: Counter[str] = Counter()
    for decision in made:
        typer.echo(f"{_time(decision, replayed):>12}  {decision_entry(decision).message}")
        counts["withheld" if decision.refusal is not None else decision.action.name] += 1
    say(_summary(replayed, counts))


def _time(decision: Decision, replayed: Replayed) -> str:
    return "+" + format_span(decision.at - (replayed.first or 0.0), accuracy=0.001)


def _summary(replayed: Replayed, counts: Counter[str]) -> str:
    if not replayed.samples:
        return "the history has no samples"
    span = format_span((replayed.last or 0.0) - (replayed.first or 0.0))
    what = (
        ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing would have been done"
    )
    return f"{replayed.samples} samples over {span}: {what}"


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
