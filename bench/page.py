"""Write the figures of docs/performance.md, and its plots, from a kept result: python -m bench.page RESULT.

What stands between `<!-- NAME -->` and `<!-- end -->` is replaced by the tables of that question.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.plot import bars
from bench.table import Answer, Table, markdown, targets_table

PAGE = Path(__file__).parents[1] / "docs/performance.md"
PLOTS = PAGE.with_suffix("")


def main() -> None:
    document = json.loads(Path(sys.argv[1]).read_text())
    answers = {name: Answer.from_document(each) for name, each in document["answers"].items()}
    PLOTS.mkdir(exist_ok=True)
    parts = {name: "\n\n".join(map(markdown, answer.tables)) for name, answer in answers.items()}
    for name, plot in plots(answers).items():
        (PLOTS / f"{name}.svg").write_text(plot)
        parts[name] += f"\n\n![{answers[name].tables[0].title}](performance/{name}.svg)"
    parts["targets"] = markdown(
        targets_table([each for answer in answers.values() for each in answer.targets])
    )
    parts["machine"] = machine(document)
    PAGE.write_text(filled(PAGE.read_text(), parts))


def filled(page: str, parts: Mapping[str, str]) -> str:
    """The page with each part between its marks; one without a part says that it wasn't measured."""
    return re.sub(
        r"(<!-- (\w+) -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}{parts.get(found[2], 'Not measured in this run.')}\n{found[3]}",
        page,
        flags=re.DOTALL,
    )


def machine(document: Mapping[str, Any]) -> str:
    """The sentence that says what was measured on what, and when."""
    facts = ", ".join(f"{name} {value}" for name, value in document["machine"].items())
    return f"Measured on {document['date']}{' by a quick run' if document['quick'] else ''}: {facts}."


def plots(answers: Mapping[str, Answer]) -> dict[str, str]:
    made = {}
    for name, is_log in (("memory", False), ("commands", False)):
        if name in answers:
            table = answers[name].tables[0]
            column = table.columns[2 if name == "memory" else 1]
            figures = numbers(table, column)
            made[name] = bars(table.title, column, [("", figures)], is_log=is_log)
    if "idle" in answers:
        table = answers["idle"].tables[0]
        guards = table.columns[1:-1]
        made["idle"] = bars(
            table.title,
            "ms a minute",
            [(str(row[0]), dict(zip(guards, map(number, row[1:-1]), strict=True))) for row in table.rows],
            is_log=True,
        )
    if "reaction" in answers:
        table = answers["reaction"].tables[0]
        groups: dict[str, dict[str, float]] = {}
        for row in table.rows:
            if row[2] is not None:
                groups.setdefault(str(row[0]), {})[str(row[1])] = number(row[2])
        made["reaction"] = bars(table.title, "ms", list(groups.items()), is_log=True)
    return made


def numbers(table: Table, column: str) -> dict[str, float]:
    return {
        str(name): number(value)
        for name, value in zip(table.column(table.columns[0]), table.column(column), strict=True)
    }


def number(cell: str | float | None) -> float:
    return cell if isinstance(cell, int | float) else 0.0


if __name__ == "__main__":
    main()
