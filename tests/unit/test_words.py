"""The words: one word has one meaning, and those that were replaced don't come back."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src/unitmem"

CLASSES = {
    "action",
    "budget",
    "decision",
    "group",
    "intent",
    "ladder",
    "obstacle",
    "outcome",
    "override",
    "phase",
    "pick",
    "policy",
    "step",
    "trend",
}
"""The words of the glossary that are classes of `policy`."""
REPLACED = {
    "climb": "advance",
    "door": "listener",
    "hears": "receives",
    "keeper": "override",
    "patience": "timeout",
    "story": "explanation",
    "survey": "sample",
    "teller": "reporter",
    "telling": "reporting",
    "told": "reported",
    "trail": "trend",
    "weigh": "measure",
}
"""Words that must not be in names, with those that took their place."""
HOLD = {"hold", "NO_HOLD"}
"""The names with the word: a step's `for`, and the warning about a step without one."""


def glossary() -> set[str]:
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("\n## Words\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| ([a-z]+) \|", section, re.MULTILINE)) - {"word"}


@cache
def names_and_classes() -> dict[Path, tuple[set[str], list[str]]]:
    """The identifiers and the classes of each file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        classes = [node.name for node in nodes if isinstance(node, ast.ClassDef)]
        found[path] = {path.stem, *identifiers(nodes)}, classes
    return found


def identifiers(nodes: list[ast.AST]) -> Iterator[str]:
    """Yield every name that is defined or used in `nodes`."""
    for node in nodes:
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.MatchAs(name=str(name)):
                yield name
            case ast.keyword(arg=str(name)):
                yield name
            case ast.alias(name=name, asname=alias):
                yield from (*name.split("."), alias or "")
            case ast.ImportFrom(module=str(name)):
                yield from name.split(".")


@cache
def words(identifier: str) -> set[str]:
    """Return the words of a name, in lower case and in the singular."""
    found = re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", identifier)
    return {word.lower() for word in found} | {singular(word.lower()) for word in found}


def singular(word: str) -> str:
    return re.sub("ies$", "y", word) if word.endswith("ies") else word.removesuffix("s")


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        ("_told_unknown", {"told", "unknown"}),
        ("print_stories", {"print", "story", "stories"}),
        ("GrowthTrend", {"growth", "trend"}),
        ("MAX_DOORS", {"max", "door", "doors"}),
        ("History", {"history"}),
    ],
)
def test_a_name_is_split_into_words(identifier, expected):
    assert words(identifier) == expected


def test_what_is_a_class_has_its_word():
    of_policy = {
        name
        for path, (_, classes) in names_and_classes().items()
        if path.parent.name == "policy"
        for name in classes
    }
    assert glossary() >= CLASSES
    assert {word.capitalize() for word in CLASSES} <= of_policy
    assert {name.lower() for name in of_policy} & glossary() == CLASSES


def test_a_class_has_a_name_of_its_own():
    named = Counter(name for _, classes in names_and_classes().values() for name in classes)
    assert [name for name, count in named.items() if count > 1] == []


def test_no_name_has_a_word_that_was_replaced():
    for path, (names, _) in names_and_classes().items():
        for identifier in names:
            assert words(identifier) & REPLACED.keys() == set(), f"{path}: {identifier}"


def test_hold_is_a_steps_for_and_nothing_else():
    names = set().union(*(names for names, _ in names_and_classes().values()))
    assert {name for name in names if "hold" in words(name)} == HOLD


def test_no_word_that_was_replaced_is_explained():
    assert glossary() & REPLACED.keys() == set()
