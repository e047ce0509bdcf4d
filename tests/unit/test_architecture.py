"""The rooms: data flows one way, and each room has a thing that is done only there."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

import unitmem

PACKAGE = Path(__file__).parents[2] / "src/unitmem"
TESTS = Path(__file__).parents[1]

# A room imports only from those above it. A name without a slash is a module of the top level, or a package.
ROOMS = [
    "errors",
    "text",
    "unit",
    "kernel",
    "manager",
    "measure",
    "policy",
    "policyfile",
    "act",
    "record",
    "tell",
    "explain",
    "simulate",
    "guard",
    "system",
    "daemon",
    "report",
    "cli",
    "__main__",
]
ONLY_THERE = {
    "pystemd": {"manager"},
    "yaml": {"policyfile"},
    "sqlite3": {"record"},
    "_sqlite3": {"record"},
    "prometheus_client": {"tell"},
    "typer": {"cli"},
}
PURE = {"policy", "simulate", "unit", "text", "errors"}
# what would let them know of the time, the machine or the world
IMPURE = {"os", "io", "time", "datetime", "pathlib", "subprocess", "socket", "random", "select", "sys"}
LONGEST = 450
LONGER = {
    "tell/openmetrics.py": "the list of all metrics",
    "report/top.py": "one screen",
}
"""Modules past that length, and why each is one."""

FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    """`unitmem.kernel.cgroup` of that file."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def room_of(module: str) -> str:
    """`kernel` of `unitmem.kernel.cgroup`; an empty name for the package itself."""
    return (*module.split("."), "")[1]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions, with its full name; names within a module are not kept."""
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            within = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            names |= within or {str(node.module)}
    return names


def own_imports(path: Path) -> set[str]:
    return {name for name in imports(path) if name in MODULES and name != "unitmem"}


@cache
def rooms() -> dict[str, set[str]]:
    """Each room with those that it imports from."""
    found: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        if room := room_of(module):
            found.setdefault(room, set()).update(map(room_of, own_imports(path)))
    return {room: others - {room} for room, others in found.items()}


def test_every_module_is_in_a_room():
    assert sorted(rooms()) == sorted(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_those_above_it(room):
    assert rooms()[room] - set(ROOMS[: ROOMS.index(room)]) == set()


def test_modules_form_no_circle():
    TopologicalSorter({module: own_imports(path) for module, path in MODULES.items()}).prepare()


def test_the_house_stays_simple():
    floors: dict[str, int] = {}
    for room in ROOMS:
        floors[room] = 1 + max((floors[other] for other in rooms()[room]), default=0)
    assert max(floors.values()) <= 10
    assert sum(map(len, rooms().values())) < 100


@pytest.mark.parametrize("library", ONLY_THERE)
def test_a_library_is_known_to_its_room_alone(library):
    users = {
        room_of(module)
        for module, path in MODULES.items()
        if library in {n.split(".")[0] for n in imports(path)}
    }
    assert users == ONLY_THERE[library]


@pytest.mark.parametrize("room", sorted(PURE))
def test_what_decides_knows_no_clock_no_files_and_no_bus(room):
    for module, path in MODULES.items():
        if room_of(module) == room:
            assert {imported.split(".")[0] for imported in imports(path)} & IMPURE == set(), module


def test_nobody_imports_what_another_module_keeps_to_itself():
    for path in FILES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("unitmem"):
                private = [alias.name for alias in node.names if re.match("_[^_]", alias.name)]
                assert private == [], path


def private_names(tree: ast.AST) -> list[str]:
    """The attributes with a leading underscore that are used of anything, and those that are patched by name."""
    attributes = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    patched = [
        str(argument.value).rpartition(".")[2]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) == "setattr"
        for argument in node.args
        if isinstance(argument, ast.Constant)
    ]
    return [name for name in attributes + patched if re.match("_[^_]", name)]


@pytest.mark.parametrize(
    ("code", "private"),
    [
        ("watch.tick(now); watch.__exit__()", []),
        ("watch.connection._pause", ["_pause"]),
        ("setattr(watch, '_late', 1)", ["_late"]),
        ("monkeypatch.setattr('unitmem.daemon.loop._drain', drain)", ["_drain"]),
    ],
)
def test_private_names_are_found(code, private):
    assert private_names(ast.parse(code)) == private


def test_no_test_of_the_daemon_touches_what_is_private():
    of_the_daemon = [path for path in TESTS.rglob("*.py") if "unitmem.daemon" in path.read_text()]
    assert of_the_daemon
    for path in of_the_daemon:
        assert private_names(ast.parse(path.read_text())) == [], path


def test_a_package_is_a_sentence_and_nothing_else():
    """No re-exports: a name is imported from where it is defined. The library's own are the one exception."""
    for path in FILES:
        if path.name == "__init__.py" and path.parent not in (PACKAGE, PACKAGE / "cli"):
            assert [type(node) for node in parsed(path).body] == [ast.Expr], path


def test_the_map_for_newcomers_shows_every_room_with_its_sentence():
    shape = (
        (PACKAGE.parents[1] / "CONTRIBUTING.md")
        .read_text()
        .partition("## The rooms")[2]
        .partition("\n## ")[0]
    )
    rows = [line for line in shape.splitlines() if line.startswith("|")]
    for room in ROOMS:
        assert any(re.search(rf"`{room}[`/]", row) for row in rows), room


def test_a_module_answers_one_question():
    long = {str(path.relative_to(PACKAGE)) for path in FILES if len(path.read_text().splitlines()) > LONGEST}
    assert long == set(LONGER)


def loaded_by(*statements: str) -> list[set[str]]:
    """The top-level modules that each statement adds to those in memory, one after the other in a new interpreter."""
    # what is kept out on purpose is None there
    report = "print(*{name.split('.')[0] for name, module in sys.modules.items() if module is not None})"
    script = "\n".join(("import sys", report, *(f"{each}\n{report}" for each in statements)))
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    loaded = [set(line.split()) for line in done.stdout.splitlines()]
    return [after - before for before, after in pairwise(loaded)]


def test_the_library_imports_nothing_beyond_the_standard_library():
    """And the package next to nothing until a name of it is used: the commands and the daemon import it as well."""
    # pystemd comes when a System is made, and YAML with what reads it
    everything = set(unitmem.__all__) - {"load_policies"}
    _, package, *library = loaded_by(
        "import importlib",
        "import unitmem",
        "from unitmem import ProcessGuard, read_memory_info; read_memory_info(); import os; ProcessGuard(os.getpid()).pss",
        f"from unitmem import {', '.join(sorted(everything))}",
    )
    assert package == {"unitmem"}
    assert set().union(*library) - sys.stdlib_module_names == set()


# as the service does, up to a policy file that isn't there
A_WATCH = """
import sys
from contextlib import suppress
from unitmem.__main__ import main
sys.argv[1:] = ["watch", "/nonexistent.yaml"]
with suppress(SystemExit): main()
"""


def test_the_daemon_imports_neither_typer_nor_yaml_nor_what_metrics_take():
    """They would stay in its memory for all its life; metrics are for a watch that is asked for them."""
    unwanted = {"typer", "click", "rich", "pydantic", "prometheus_client", "http", "wsgiref", "socketserver"}
    unwanted |= {"statistics", "fractions", "decimal"}  # half a megabyte for one median
    unwanted |= {"traceback", "tokenize", "ast", "dis"}  # a megabyte and a half, most of it behind inspect
    unwanted |= {"asyncio", "logging", "subprocess", "random", "csv", "email", "concurrent", "xml"}
    unwanted |= {"threading", "queue"}  # one thread at most, and that for a reclaim
    (loaded,) = loaded_by(A_WATCH)
    # what a policy file is read with
    unwanted |= {"yaml", "pickle"}
    unwanted |= {"datetime", "ipaddress", "platform"}  # behind sqlite3, pathlib and uuid: another megabyte
    assert "pystemd" in loaded
    assert loaded & unwanted == set()


def private_memory(statement: str, cache: Path) -> int:
    """KiB that an interpreter has for itself after `statement`, with everything compiled before."""
    script = f"{statement}\nprint(open('/proc/self/smaps_rollup').read())"
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(cache), "PYTHONDONTWRITEBYTECODE": ""}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment
        )
    sizes = dict(re.findall(r"^(\w+): +(\d+) kB$", done.stdout, re.MULTILINE))
    # pages of files are its own or not by what else runs
    return int(sizes["Anonymous"])


def test_a_watch_starts_with_less_than_four_times_a_bare_interpreter(tmp_path):
    assert private_memory(A_WATCH, tmp_path) < 3.9 * private_memory("", tmp_path)


def test_what_only_tells_or_records_needs_no_bus():
    modules = [
        "unitmem.tell.wording",
        "unitmem.tell.journal",
        "unitmem.tell.exporter",
        "unitmem.record.recorder",
        "unitmem.record.state_file",
        "unitmem.simulate.replay",
        "unitmem.cli.replay",
        "unitmem.cli.metrics",
    ]
    (loaded,) = loaded_by(f"import {', '.join(modules)}")
    assert "pystemd" not in loaded
