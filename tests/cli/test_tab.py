"""A TAB is answered as by Typer, without it. Run as a program, it makes the table of what is offered anew."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from unitmem.cli import VERBS, application, offered, tab
from unitmem.unit import CGROUP_KINDS

HEAD = '''"""The verbs and options that a shell offers, as the commands have them.

Made by `.venv/bin/python tests/cli/test_tab.py`; a test holds that it agrees with the commands.
"""
'''


def verbs_and_options() -> tuple[dict[str, str], dict[str, Any]]:
    """The help of each verb, and by verb the (names, help, whether a value follows, values) of each option."""
    program: Any = typer.main.get_command(application())
    parent = program.make_context("unitmem", [], resilient_parsing=True)
    verbs = {name: command.get_short_help_str() for name, command in program.commands.items()}
    contexts = {
        name: command.make_context(name, [], parent=parent, resilient_parsing=True)
        for name, command in program.commands.items()
    }
    return verbs, {name: options_of(context) for name, context in {"": parent, **contexts}.items()}


def options_of(context: Any) -> tuple[tuple[Any, ...], ...]:
    params = context.command.get_params(context)
    return tuple(option_of(param, context) for param in params if param.param_type_name == "option")


def option_of(param: Any, context: Any) -> tuple[Any, ...]:
    values = tuple(item.value for item in param.shell_complete(context, ""))
    # click has those of --help in any order
    names = sorted((*param.opts, *param.secondary_opts), key=len)
    return tuple(names), param.help or "", not param.is_flag, values


def table() -> str:
    verbs, options = verbs_and_options()
    return f"{HEAD}\nVERBS = {verbs!r}\n\nOPTIONS = {options!r}\n"


def test_what_is_offered_agrees_with_the_commands():
    verbs, options = verbs_and_options()
    assert verbs == offered.VERBS, "make it anew: .venv/bin/python tests/cli/test_tab.py"
    assert options == offered.OPTIONS, "make it anew: .venv/bin/python tests/cli/test_tab.py"
    assert list(offered.VERBS) == list(VERBS)


SHELLS = ("bash", "zsh", "fish")


def asked(shell: str, line: str) -> dict[str, str]:
    """The environment in which a shell asks at the end of `unitmem LINE`."""
    words = ["unitmem", *line.split(" ")]
    environment = {"_UNITMEM_COMPLETE": f"complete_{shell}"}
    if shell == "bash":
        return {**environment, "COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    action = {"_TYPER_COMPLETE_FISH_ACTION": "get-args"} if shell == "fish" else {}
    return {**environment, **action, "_TYPER_COMPLETE_ARGS": " ".join(words)}


def entries(answer: str) -> list[str]:
    """The words of an answer with their helps, by name: shells sort them."""
    return sorted(answer.removeprefix("_arguments '*: :((").removesuffix("))'").splitlines())


@pytest.fixture
def by_typer(fake, monkeypatch, capsys):
    """by_typer(environment): what Typer prints for a completion, after which it exits with that status."""

    def complete(environment, status=0):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "rich", None)  # as the program has it
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                application()([], prog_name="unitmem", obj=fake.machine)
        assert (ended.value.code or 0) == status
        return capsys.readouterr().out.removesuffix("\n")

    return complete


@pytest.fixture
def systemctl(fake, monkeypatch, tmp_path):
    """A systemctl that lists the units of the fake manager; what it was asked is in the file that is returned."""
    lines = [
        f"{unit.name} {unit.load_state} {unit.active_state} {unit.sub_state or '-'}   {unit.description}"
        for unit in fake.manager.list_units()
        if unit.kind in CGROUP_KINDS
    ]
    program = tmp_path / "bin/systemctl"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\ncat <<"END"\n' + "\n".join(lines) + "\nEND\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path / "asked"


LINES = (
    *("", "s", "sch", "w", "zzz", "-", "--", "--ver"),
    *("list --", "list --p", "list --user --", "list web --all --", "list --sort ", "list --sort w"),
    *("show --", "show web --no-pss --", "show --pss --", "top --sort ", "top --", "watch --", "watch a.yaml --"),
    *("guard --", "schema --", "replay --", "explain --", "check --", "plan -", "reset leaks --"),
    *("check ", "check /etc/un", "plan ~/a", "watch a.yaml ", "watch --textfile ", "replay ", "guard sl", "schema x"),
    *("show web ", "explain web w", "status leaks "),
)  # fmt: skip


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("line", LINES)
def test_words_are_offered_as_by_typer(by_typer, shell, line):
    found = tab.answer(asked(shell, line))
    assert found is not None
    assert entries(found) == entries(by_typer(asked(shell, line)))


@pytest.mark.parametrize(
    ("line", "status"), [("sch", 0), ("zzz", 1), ("check ", 1), ("list --p", 0), ("show web x", 1)]
)
def test_fish_is_told_whether_anything_is_offered(by_typer, line, status):
    environment = {**asked("fish", line), "_TYPER_COMPLETE_FISH_ACTION": "is-args"}
    with pytest.raises(SystemExit) as ended:
        tab.answer(environment)
    assert ended.value.code == status
    assert by_typer(environment, status) == ""


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "line",
    ["list ", "list w", "list web.service s", "show ", "top d", "explain w", "metrics ", "list --all w"],
)
def test_units_are_offered_as_by_typer(by_typer, systemctl, shell, line):
    answer = tab.answer(asked(shell, line))
    assert answer is not None
    assert entries(answer) == entries(by_typer(asked(shell, line)))
    assert "--user" not in systemctl.read_text()


@pytest.mark.parametrize("line", ["sch", "list --", "list --sort ", "show w", "status --user l"])
def test_a_tab_imports_next_to_nothing(imported, systemctl, fake, line):
    """It takes little more than the interpreter's start."""
    (fake.machine.runtime / "unitmem/leaks").mkdir(parents=True)
    loaded = imported([], {**asked("bash", line), "XDG_RUNTIME_DIR": str(fake.machine.runtime)})
    assert (
        loaded
        & {
            "typer",
            "click",
            "rich",
            "pystemd",
            "yaml",
            "enum",
            "re",
            "typing",
            "pathlib",
            "dataclasses",
            "subprocess",
        }
        == set()
    )
    assert "unitmem.cli.tab" in loaded


def test_a_users_units_are_asked_for(systemctl):
    assert tab.answer(asked("bash", "show --user w")) == "web.service"
    assert "--user" in systemctl.read_text()


def test_instances_are_offered(serve, fake, monkeypatch):
    serve("leaks", status={})
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(fake.machine.runtime))
    for verb in ("status", "reset"):
        assert tab.answer(asked("bash", f"{verb} --user l")) == "leaks"
        assert tab.answer(asked("bash", f"{verb} --user x")) == ""


@pytest.mark.parametrize(("path", "offered"), [("/nonexistent", None), ("/bin/false", "")])
def test_without_systemctl_units_are_left_to_typer_and_a_manager_that_hangs_is_asked_once(
    monkeypatch, tmp_path, path, offered
):
    (tmp_path / "systemctl").symlink_to(path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tab.answer(asked("bash", "list w")) == offered


def test_a_description_is_no_command_to_a_shell(monkeypatch, tmp_path):
    """Anybody who mounts something, say, describes a unit, and root presses TAB; zsh evaluates what it is given."""
    hostile = ["\\$(touch x)", "\\`touch x`", "$(touch x)", "\\\\$(touch x)"]
    lines = [f"w{index}.mount loaded active mounted {text}" for index, text in enumerate(hostile)]
    (tmp_path / "systemctl").write_text(
        "\n".join(["#!/bin/sh", "cat <<'EOF'", *lines, "half a line", "", "EOF", ""])
    )
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    answer = tab.answer(asked("zsh", "show w"))
    assert answer is not None
    assert answer.count(".mount") == len(hostile)
    assert not set("\\$`") & set(answer)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "line",
    [
        *("list --sort=w", "list 'w", "list --nope ", "list --help ", "list -- ", "nope ", "--version "),
        *("guard sleep -", "reset leaks ", "li\\"),
    ],
)
def test_what_is_not_plain_is_left_to_typer(shell, line):
    assert tab.answer(asked(shell, line)) is None


@pytest.mark.parametrize(
    "environment",
    [
        {"_UNITMEM_COMPLETE": "source_bash"},
        {"_UNITMEM_COMPLETE": "complete_powershell", "_TYPER_COMPLETE_ARGS": "unitmem l"},
        {"_UNITMEM_COMPLETE": "complete_bash"},
        {"_UNITMEM_COMPLETE": "complete_bash", "COMP_WORDS": "unitmem\nli", "COMP_CWORD": "x"},
        {"_UNITMEM_COMPLETE": "complete_bash", "COMP_WORDS": "unitmem\nli", "COMP_CWORD": "7"},
        {"_UNITMEM_COMPLETE": "complete_fish", "_TYPER_COMPLETE_ARGS": "unitmem"},
    ],
)
def test_other_questions_are_left_to_typer(environment):
    assert tab.answer(environment) is None


def test_the_word_before_the_end_can_be_completed():
    asked_within = {"_UNITMEM_COMPLETE": "complete_bash", "COMP_WORDS": "unitmem\nli\nweb", "COMP_CWORD": "1"}
    assert tab.answer(asked_within) == "list"


if __name__ == "__main__":
    Path(offered.__file__).write_text(table())
    subprocess.run([sys.executable, "-m", "ruff", "format", offered.__file__], check=True)
