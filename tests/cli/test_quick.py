"""Plain command lines pass by Typer, and are understood as by Typer."""

from __future__ import annotations

import inspect

import pytest

from unitmem.cli import main, quick

PLAIN = (
    "list",
    "list web* db.service",
    "list --sort anon --all",
    "list --sort=unit --user --json web",
    "list --pss --pss --sort pss",
    "show web",
    "show --user --pss web.service",
    "show web --explain",
    "show --json web",
)
FOR_TYPER = (
    "",
    "-h",
    "--version list",
    "list --help",
    "list --nope",
    "list --sort",
    "list --sort size",
    "list --sort --all",
    "list -- web",
    "list --all=yes",
    "show",
    "show web db",
    "show web --no-pss",
    "schema x",
    "schema --help",
    "top",
    "check a.yaml",
    "nope",
)


@pytest.mark.parametrize("line", PLAIN)
def test_options_are_those_that_typer_reads(fake, monkeypatch, line):
    calls = []

    def noting(function):
        def note(machine, *words, **options):
            call = inspect.signature(function).bind(None, *words, **options)
            call.apply_defaults()
            calls.append({**call.arguments, "patterns": list(call.arguments.get("patterns", ()))})

        return note

    from unitmem.cli import units

    for name, verb in (("print_list", "list"), ("print_one", "show")):
        noted = noting(getattr(units, name))
        monkeypatch.setattr(f"unitmem.cli.{verb}.{name}", noted)
        monkeypatch.setattr(units, name, noted)
    words = line.split()
    assert quick.understand(words)() == main(words, fake.machine) == 0
    assert calls[0] == calls[1]


@pytest.mark.parametrize("line", FOR_TYPER)
def test_what_is_not_plain_is_left_to_typer(line):
    assert quick.answer(line.split()) is None
    assert quick.understand(line.split()) is None


def test_an_empty_word_is_left_to_typer():
    assert quick.understand(["list", ""]) is None
    assert quick.understand(["show", ""]) is None


FOR_OTHERS = {
    "yaml",
    "sqlite3",
    "inspect",
    "uuid",
    "platform",
    "shlex",
    "pystemd.systemd1",
    "difflib",
}
"""What neither `list` nor `show` needs, while a library that they use would import it, or another command does."""


@pytest.mark.parametrize(
    ("words", "environment", "unwanted"),
    [
        (["--version"], {}, {"dataclasses", "pathlib", "typing", "traceback", "enum", "contextlib"}),
        (["schema"], {}, {"pystemd", "sqlite3"}),
        (["list"], {}, FOR_OTHERS | {"json", "textwrap", "unitmem.report.unit", "unitmem.policy.condition"}),
        (["list", "--json"], {}, FOR_OTHERS),
        (["show", "web"], {}, FOR_OTHERS | {"json"}),
        (["check", "/nonexistent.yaml"], {}, {"pygments", "sqlite3"}),
        (["--help"], {}, {"pygments"}),
    ],
)
def test_a_command_imports_what_it_needs(imported, words, environment, unwanted):
    """Each import delays it; rich and lxml are nobody's, and Typer is for what isn't plain."""
    loaded = imported(words, environment)
    if words[:1] not in (["check"], ["--help"]):
        unwanted = unwanted | {"typer", "click"}
    assert loaded & (unwanted | {"rich", "lxml"}) == set()
    assert "unitmem.cli.quick" in loaded
