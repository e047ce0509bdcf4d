"""The program as a process: pipes that close, full disks, signals, and a machine that isn't run by systemd."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

UNITMEM = [sys.executable, "-m", "unitmem"]
IS_SYSTEMD_MACHINE = Path("/run/systemd/system").exists()


def test_a_reader_that_goes_away_ends_it_quietly():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*UNITMEM, "schema"], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


def test_a_full_disk_is_told():
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*UNITMEM, "schema"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"unitmem: the output: No space left on device\n")


@pytest.mark.parametrize("words", ["list", "watch a.yaml", "guard --pss 1G -- true"])
def test_too_few_descriptors_to_start_with_are_told_in_a_sentence(words):
    program = (
        "import resource, signal, sys; from unitmem.__main__ import main; sys.argv[0] = 'unitmem';"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words.split()], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "unitmem: can't be started: Too many open files\n"


WATCHES = (
    "watch a.yaml",
    "watch --user a.yaml",
    "watch a.yaml --observe --once --user",
    "watch --once a.yaml --observe --observe",
    "watch a.yaml --textfile a.prom",
    "watch a.yaml --textfile=a=b.prom --listen 9797",
    "watch --listen=[::1]:9797 a=b.yaml --textfile a.prom --textfile b.prom",
)
IN_ONE_PROCESS = """
import contextlib, io, json, sys
import unitmem.daemon.main
from unitmem.__main__ import main

def daemon(path, observe=False, once=False, user=False, textfile=None, listen=None):
    print(path, observe, once, user, textfile, listen)
    print(*(name for name in ('click', 'rich', 'typer') if sys.modules.get(name)))
    return 7

if sys.argv.pop(1) == 'replace':
    unitmem.daemon.main.main = daemon
ended = []
for words in sys.argv[1:]:
    sys.argv = ['unitmem', *words.split()]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main()
        except SystemExit as error:
            status = error.code
    ended.append([status, out.getvalue(), err.getvalue()])
print(json.dumps(ended))
"""


def program(*lines, daemon="keep"):
    """What the program says to each command line. An interpreter's start takes longer than all of them."""
    done = subprocess.run(
        [sys.executable, "-c", IN_ONE_PROCESS, daemon, *lines], capture_output=True, text=True, check=True
    )
    return dict(zip(lines, map(tuple, json.loads(done.stdout)), strict=True))


@pytest.mark.skipif(IS_SYSTEMD_MACHINE, reason="this machine is run by systemd")
def test_without_systemd_one_sentence_says_so():
    for words, (status, out, err) in program("list", "list --user", "show ssh").items():
        assert (status, out) == (1, ""), words
        message, hint = err.splitlines()
        assert message == "unitmem: this machine isn't run by systemd (there is no /run/systemd/system)"
        assert hint.startswith("Run unitmem on a systemd machine")


def test_both_ways_to_the_daemon_tell_errors_alike(tmp_path):
    """The service's spelling passes by Typer; a broken file ends it with 78 all the same."""
    path = tmp_path / "broken.yaml"
    path.write_text("policies: [*.service]\n")
    spelled = (f"watch {path}", f"watch {path} --observe", f"watch --once {path}")
    for words, (status, _, err) in program(*spelled).items():
        assert status == 78, words
        assert err.startswith(f"{path}:1:12: `*` starts an alias in YAML"), words


def test_a_watch_imports_neither_typer_nor_rich(run, monkeypatch):
    """They would stay in the daemon's memory for its whole life. It is told the same as through them."""
    calls = []
    monkeypatch.setattr(
        "unitmem.daemon.main.main", lambda path, **given: calls.append((path, *given.values())) or 7
    )
    for words, (status, out, err) in program(*WATCHES, daemon="replace").items():
        call, imported = out.splitlines()
        assert (status, imported, err) == (7, "", ""), words
        assert run(*words.split()).status == 7
        assert call == " ".join(map(str, calls.pop())), words


ODD = (
    "watch",
    "watch --help",
    "watch a.yaml b.yaml",
    "watch a.yaml --nope",
    "watch --observe=yes a.yaml",
    "watch --once",
    "watch -- -a.yaml",
    "watch a.yaml --textfile",
    "watch a.yaml --textfile --once",
    "watch a.yaml --textfile= --nope",
    "watch a.yaml --listen localhost",
)


def test_a_watch_that_is_spelled_oddly_is_told_as_by_the_command_line(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for words, ended in program(*ODD).items():
        told = run(*words.split())
        assert ended == (told.status, told.out, told.err), words
