"""The library's pages: each example runs, and the table of fields is that of the class."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import unitmem
from unitmem import GuardEnd, MemoryInfo, UnitSample

DOCS = Path(__file__).parents[2] / "docs"
CACHE = (
    DOCS.parent / ".mypy_cache/examples"
)  # with the options of `make types`, the two would undo each other
EXAMPLE = re.compile(
    r"(?P<guest>^<!-- in a guest -->\n)?^```python\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


def examples():
    """(page and line, text, whether it needs units to run on) of each."""
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text()
        for match in EXAMPLE.finditer(text):
            line = text.count("\n", 0, match.start("text")) + 1
            yield f"{page.name}:{line}", match["text"], bool(match["guest"])


def test_examples_are_typed(tmp_path):
    """As a user's strict mypy sees the library."""
    for place, text, _ in examples():
        (tmp_path / f"example_{re.sub('[^0-9]', '_', place)}.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={CACHE}", tmp_path],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "example", [pytest.param(text, id=place) for place, text, in_guest in examples() if not in_guest]
)
def test_an_example_runs(example, tmp_path):
    """As a program of its own, which a reader would paste; what it raises fails it, a warning too."""
    script = tmp_path / "example.py"
    script.write_text(example)
    done = subprocess.run(
        [sys.executable, "-W", "error", script],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def section(title):
    """The text below a heading, up to the next of its rank."""
    return (DOCS / "library.md").read_text().partition(f"\n## {title}")[2].partition("\n## ")[0]


def rows(title):
    """The first cells of the tables in a section."""
    return re.findall(r"^\| `(\w+)` \|", section(title), re.MULTILINE)


def test_the_table_has_every_field_of_memory_info():
    assert rows("`MemoryInfo`") == [item.name for item in fields(MemoryInfo) if item.name != "unknown"]


def test_the_table_has_every_end_of_a_guard():
    assert rows("`ProcessGuard`") == [*GuardEnd]


def test_the_attributes_of_a_unit_are_documented():
    assert set(re.findall(r"`(\w+)`", section("`System`"))) >= {
        *(name for name, value in vars(UnitSample).items() if type(value).__name__ == "_Size"),
        *(item.name for item in fields(UnitSample) if item.name not in {"at_most", "at_least"}),
    }


def test_every_name_of_the_library_is_documented():
    text = (DOCS / "library.md").read_text()
    assert [name for name in unitmem.__all__ if not re.search(rf"\b{name}\b", text)] == []
