"""Data flows one way: a module imports only from its left."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src/unitmem"

# From left to right; modules of one line know nothing of each other, except that a later one may use an earlier one.
FLOW = [
    "errors",
    "quantity",
    "unit",
    "cgroup",
    "process",
    "process_tree",
    "pidfd",
    "systemd",
    "sample",
    "memory_info",
    "watching",
    "process_guard",
    "survey",
    "condition",
    "trail",
    "expression",
    "policy",
    "engine",
    "replay",
    "warning",
    "nodes",
    "action_reader",
    "config",
    "lint",
    "plan",
    "schema",
    "outcome",
    "hold",
    "action",
    "journald",
    "journal",
    "history",
    "recorder",
    "openmetrics",
    "store",
    "status",
    "listener",
    "exporter",
    "telling",
    "keeper",
    "entry",
    "account",
    "ending",
    "journalctl",
    "tracker",
    "connection",
    "daemon",
    "report",
    "cli",
    "__main__",
]
PURE = [
    "condition",
    "trail",
    "expression",
    "policy",
    "engine",
    "replay",
    "warning",
    "lint",
    "plan",
    "openmetrics",
    "entry",
    "account",
    "ending",
]
# what would let them know of the time, the machine or the world
IMPURE = {"os", "io", "time", "datetime", "pathlib", "subprocess", "socket", "random", "select", "sys"}


def modules() -> dict[str, list[Path]]:
    """The files of each module; a folder counts as one."""
    found: dict[str, list[Path]] = {}
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if name != "__init__":
            found.setdefault(name, []).append(path)
    return found


def imports(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions, with its full name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
            names |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "unitmem"}
    return names


def test_every_module_has_its_place():
    assert sorted(modules()) == sorted(FLOW)


def test_the_map_for_newcomers_shows_every_module():
    shape = (PACKAGE.parents[1] / "CONTRIBUTING.md").read_text().partition("## The shape")[2]
    rows = "".join(line for line in shape.partition("\n## ")[0].splitlines() if line.startswith("|"))
    assert [name for name in FLOW if not re.search(rf"`{name}[`/]", rows)] == []


@pytest.mark.parametrize("name", FLOW)
def test_a_module_imports_only_from_its_left(name):
    own = {
        imported.split(".")[1]
        for path in modules()[name]
        for imported in imports(path)
        if imported.startswith("unitmem.")
    }
    to_its_right = FLOW[FLOW.index(name) + 1 :]
    assert own & set(to_its_right) - {"__version__"} == set()


def test_one_module_knows_pystemd():
    users = {
        name
        for name, paths in modules().items()
        if any(imported.split(".")[0] == "pystemd" for path in paths for imported in imports(path))
    }
    assert users == {"systemd"}


@pytest.mark.parametrize("name", PURE)
def test_what_decides_knows_no_clock_no_files_and_no_bus(name):
    (path,) = modules()[name]
    assert {imported.split(".")[0] for imported in imports(path)} & IMPURE == set()


def loaded_by(statement: str) -> set[str]:
    """The top-level modules in memory after `statement` in a new interpreter."""
    script = f"{statement}; import sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_the_library_imports_nothing_beyond_the_standard_library():
    known = sys.stdlib_module_names | {"unitmem", "__main__", "sitecustomize"}
    # editable installs and the like put a finder of theirs into every interpreter
    before = loaded_by("pass")
    assert loaded_by("import unitmem") - before - known == set()
    use = "from unitmem import *; read_memory_info(); import os; ProcessGuard(os.getpid()).pss"
    assert loaded_by(use) - before - known == set()


def test_importing_the_package_costs_next_to_nothing_until_a_name_of_it_is_used():
    """The commands and the daemon import it as well, and use none of the library."""
    assert loaded_by("import unitmem") - loaded_by("import importlib") == {"unitmem"}


def test_the_daemon_imports_neither_typer_nor_rich_nor_what_metrics_take():
    """They would stay in its memory for all its life; metrics are for a watch that is asked for them."""
    unwanted = {"typer", "click", "rich", "pydantic", "prometheus_client", "http", "wsgiref", "socketserver"}
    assert loaded_by("import unitmem.daemon, unitmem.report.failure") & unwanted == set()


def test_one_module_knows_prometheus_client():
    users = {
        name
        for name, paths in modules().items()
        if any(imported.split(".")[0] == "prometheus_client" for path in paths for imported in imports(path))
    }
    assert users == {"listener"}
