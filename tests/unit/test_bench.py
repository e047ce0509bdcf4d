"""The benchmark: what it prints and keeps, and that each question is there. What it measures needs a guest."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import page
from bench.plot import bars
from bench.questions import NAMES
from bench.table import Answer, Table, Target, markdown, render, targets_table

BENCH = Path(page.__file__).parent
TABLE = Table("CPU", ("", "ms", "ratio"), [["unitmem", 1234.5, 0.0123], ["nohang", None, 2.0]], "Idle.")


def test_each_question_has_its_file():
    assert sorted(NAMES) == sorted(path.stem for path in (BENCH / "questions").glob("[!_]*.py"))
    for name in NAMES:
        assert importlib.util.find_spec(f"bench.questions.{name}")


def test_a_table_for_the_terminal():
    assert render(TABLE).splitlines() == [
        "CPU",
        "              ms   ratio",
        "  unitmem  1,234  0.0123",
        "  nohang       -       2",
        "  Idle.",
    ]


def test_a_table_for_a_page():
    assert markdown(TABLE).splitlines()[2:] == [
        "|  | ms | ratio |",
        "| --- | ---: | ---: |",
        "| unitmem | 1,234 | 0.0123 |",
        "| nohang | - | 2 |",
        "",
        "Idle.",
    ]


@pytest.mark.parametrize(
    ("value", "at_least", "told"),
    [(0.9, False, "reached"), (1.1, False, "missed"), (1.1, True, "reached"), (None, False, "not measured")],
)
def test_a_target_is_reached_or_missed(value, at_least, told):
    assert targets_table([Target("x", value, 1.0, at_least)]).rows[0][-1] == told


def test_a_page_has_the_figures_of_the_questions_that_were_asked():
    before = "a\n<!-- idle -->\nold\n<!-- end -->\nb\n<!-- bus -->\n<!-- end -->\n"
    assert page.filled(before, {"idle": "new"}) == (
        "a\n<!-- idle -->\nnew\n<!-- end -->\nb\n<!-- bus -->\nNot measured in this run.\n<!-- end -->\n"
    )


def test_the_page_of_performance_has_a_place_for_each_question():
    text = page.PAGE.read_text()
    assert [name for name in (*NAMES, "targets", "machine") if f"<!-- {name} -->" not in text] == []


@pytest.mark.parametrize("is_log", [False, True])
def test_bars_are_as_long_as_their_figures(is_log):
    plot = ET.fromstring(
        bars("a < b", "ms", [("", {"unitmem": 1.0, "nohang": 10.0, "none": 0.0})], is_log=is_log)
    )
    widths = [float(bar.get("width", "0")) for bar in plot.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert widths[1] > widths[0] >= widths[2]
    assert max(widths) <= 720 - 200 - 70


def test_an_answer_survives_being_kept():
    answer = Answer([TABLE], [Target("x", 1.0, 2.0)])
    kept = Answer.from_document(json.loads(json.dumps(dataclasses.asdict(answer))))
    assert [render(table) for table in kept.tables] == [render(TABLE)]
    assert list(kept.targets) == list(answer.targets)


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs a compiler")
def test_the_loops_measure_what_they_say(tmp_path):
    program = tmp_path / "loops"
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-o", program, BENCH / "loops.c"], check=True)
    (tmp_path / "memory.current").write_text("8192\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 2\nactive_file 3\nslab_reclaimable 4\n")
    for words in (["sample", "3", tmp_path], ["pss", "3", "self"]):
        done = subprocess.run([program, *words], check=True, capture_output=True, text=True)
        assert float(done.stdout) > 0
    assert subprocess.run([program], check=False, capture_output=True).returncode == 2
