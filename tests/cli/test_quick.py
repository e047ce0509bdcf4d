"""Plain command lines pass by Typer, and are understood as by Typer."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import pytest

from unitmem.cli import application, main, quick

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


@pytest.mark.parametrize("typed", ["", "s", "sch", "w", "zzz"])
def test_verbs_are_offered_as_by_typer(fake, monkeypatch, capsys, typed):
    asked = {
        "_UNITMEM_COMPLETE": "complete_bash",
        "COMP_WORDS": f"unitmem\n{typed}",
        "COMP_CWORD": "1",
    }
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        application()([], prog_name="unitmem", obj=fake.machine)
    assert quick.complete(asked) == capsys.readouterr().out.removesuffix("\n")


@pytest.mark.parametrize(
    "asked",
    [
        {"COMP_WORDS": "unitmem\n--", "COMP_CWORD": "1"},
        {"COMP_WORDS": "unitmem\nlist\n", "COMP_CWORD": "2"},
        {"COMP_WORDS": "unitmem\nli\nweb", "COMP_CWORD": "1"},
        {"COMP_WORDS": "unitmem\nli'", "COMP_CWORD": "1"},
        {"_UNITMEM_COMPLETE": "complete_fish"},
    ],
)
def test_other_completions_are_left_to_typer(asked):
    assert quick.complete({"_UNITMEM_COMPLETE": "complete_bash", **asked}) is None


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
        (["--version"], {}, {"dataclasses", "pathlib", "typing", "traceback"}),
        (
            [],
            {"_UNITMEM_COMPLETE": "complete_bash", "COMP_WORDS": "unitmem\nsch", "COMP_CWORD": "1"},
            {"dataclasses", "pathlib", "typing", "traceback"},
        ),
        (["schema"], {}, {"pystemd", "sqlite3"}),
        (["list"], {}, FOR_OTHERS | {"json", "textwrap", "unitmem.report.unit", "unitmem.policy.condition"}),
        (["list", "--json"], {}, FOR_OTHERS),
        (["show", "web"], {}, FOR_OTHERS | {"json"}),
        (["check", "/nonexistent.yaml"], {}, {"pygments", "sqlite3"}),
        (["--help"], {}, {"pygments"}),
    ],
)
def test_a_command_imports_what_it_needs(words, environment, unwanted):
    """Each import delays it; rich and lxml are nobody's, and Typer is for what isn't plain."""
    script = (
        "import sys\nfrom unitmem.__main__ import main\ntry: main()\n"
        # what is deferred, or kept out, has none
        "finally: print(*(name for name, module in sys.modules.items() if getattr(module, '__spec__', None)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path += {sys.path!r}\n{script}", *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    imported = set(done.stderr.splitlines()[-1].split())
    if words[:1] not in (["check"], ["--help"]):
        unwanted = unwanted | {"typer", "click"}
    assert imported & (unwanted | {"rich", "lxml"}) == set()
    assert "unitmem.cli.quick" in imported
