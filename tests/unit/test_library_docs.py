"""The library's pages: each example runs, and the table of fields is that of the class."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from unitmem import GuardEnd, MemoryInfo

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples():
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text()
        for match in EXAMPLE.finditer(text):
            line = text.count("\n", 0, match.start(1)) + 1
            yield pytest.param(match[1], id=f"{page.name}:{line}")


@pytest.mark.parametrize("example", list(examples()))
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


def rows(title):
    """The first cells of the tables below a heading, up to the next of its rank."""
    below = (DOCS / "library.md").read_text().partition(f"\n## {title}")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", below, re.MULTILINE)


def test_the_table_has_every_field_of_memory_info():
    assert rows("`MemoryInfo`") == [item.name for item in fields(MemoryInfo) if item.name != "unknown"]


def test_the_table_has_every_end_of_a_guard():
    assert rows("`ProcessGuard`") == [*GuardEnd]
