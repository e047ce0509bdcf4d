"""Commands as a table: arguments, exit status, and what is said where."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitmem.cli import main
from unitmem.errors import BusError, UnsupportedSystemError
from unitmem.measure.catalogue import MEASURES, Scope
from unitmem.unit import ManagerKind

VERBS = (
    "list",
    "show",
    "top",
    "check",
    "plan",
    "watch",
    "status",
    "reset",
    "explain",
    "replay",
    "metrics",
    "guard",
    "schema",
)


@pytest.mark.parametrize(
    ("arguments", "status", "out", "err"),
    [
        ("", 0, r"Usage: unitmem .*(list.*show.*check.*watch.*schema)", r"^$"),
        ("-h", 0, r"Usage: unitmem ", r"^$"),
        ("--version", 0, r"^unitmem \d", r"^$"),
        ("list", 0, r"^UNIT .*\nweb\.service .*\ndb\.service .*\nsession-1\.scope .*\n$", r"^$"),
        ("list web", 0, r"^UNIT .*\nweb\.service [^\n]*\n$", r"^$"),
        ("list w*.service *.scope", 0, r"web\.service.*session-1\.scope", r"^$"),
        ("list *.slice", 0, r"^UNIT .*\nsystem\.slice .*\nuser\.slice [^\n]*\n$", r"^$"),
        ("list s*", 0, r"^UNIT .*\nsystem\.slice .*\nsession-1\.scope [^\n]*\n$", r"^$"),
        ("list --all", 0, r"\nsetup\.service +-", r"^$"),
        ("list cron", 0, r"\ncron\.service +- ", r"^$"),
        ("list cron.service --all --json", 0, r'"unit": "cron.service"', r"^$"),
        ("list nginx", 4, r"^$", r"^unitmem: no unit nginx\.service is loaded"),
        ("list web nginx.service", 4, r"^$", r"no unit nginx\.service"),
        ("list nginx*", 0, r"^$", r"^unitmem: no matching unit has a cgroup\n$"),
        ("list nginx* --json", 0, r'"units": \[\]', r"^$"),
        ("list basic.target", 0, r"\nbasic\.target +- ", r"^$"),
        ("list --sort unit", 0, r"db\.service.*session-1\.scope.*web\.service", r"^$"),
        ("list --sort anon", 0, r"web\.service.*db\.service.*session-1\.scope", r"^$"),
        ("list --sort headroom", 0, r"web\.service.*db\.service.*session-1\.scope", r"^$"),
        ("list --sort size", 2, r"^$", r"no field 'size'.*\nUse one of unit, pss, current, workingset, "),
        ("list --sort", 2, r"^$", r"^unitmem: option '--sort' requires an argument\nSee `unitmem"),
        ("list --pss web", 0, r"^UNIT +PSS .*\nweb\.service +570\.0M", r"^$"),
        ("list --sort pss", 0, r"^UNIT +PSS .*\nweb\.service.*\ndb\.service +- ", r"^$"),
        ("list --nope", 2, r"^$", r"^unitmem: no such option: --nope\n"),
        ("show", 2, r"^$", r"^unitmem: missing argument 'UNIT'\nSee `unitmem show --help`\.\n$"),
        ("show web", 0, r"^web\.service - The web, all of it\n.*workingset +510\.0M", r"^$"),
        ("show web.service --explain", 0, r"workingset +510\.0M  memory\.current, memory\.stat: current", r"^$"),
        ("show web --explain", 0, r"limit +512\.0M  memory\.max: .* here that of /system\.slice/web\.service\n.*\n +11 +290\.0M", r"^$"),
        ("show web --explain --json", 2, r"^$", r"^unitmem: --explain and --json don't go together\nLeave one of them out"),
        ("show web --no-pss", 0, r"\n +11 +- +310\.0M", r"^$"),
        ("show db", 0, r"pss, uss.*: 1 of 1 processes: is a directory", r"^$"),
        ("show cron", 0, r"^cron\.service\n +State: inactive \(dead\)\n +Cgroup: none, so [^\n]*\n$", r"^$"),
        ("show basic.target", 0, r"Cgroup: none", r"^$"),
        ("show nginx", 4, r"^$", r"^unitmem: no unit nginx\.service is loaded\n"),
        ("show web db", 2, r"^$", r"unexpected extra argument"),
        ("show w*", 2, r"^$", r"'w\*' is a pattern.*\nTry `unitmem list 'w\*'`"),
        ("check", 2, r"^$", r"missing argument 'POLICY\.\.\.'"),
        ("check /nonexistent.yaml", 78, r"^$", r"^/nonexistent\.yaml: No such file or directory\nName a policy"),
        ("check /nonexistent.yaml --json", 78, r'"line": null', r"^$"),
        ("plan", 2, r"^$", r"missing argument 'POLICY'"),
        ("plan /nonexistent.yaml", 78, r"^$", r"^/nonexistent\.yaml: No such file"),
        ("top --interval 0", 2, r"^$", r"^unitmem: --interval 0 is too short\n100ms is the shortest"),
        ("metrics", 0, r'\nunitmem_unit_workingset_bytes\{unit="web.service"\} 534773760\n', r"^$"),
        ("metrics web", 0, r'# TYPE unitmem_unit_events_oom_total counter\n|\{unit="web.service"\} ', r"^$"),
        ("metrics w* --pss", 0, r'\nunitmem_unit_pss_bytes\{unit="web.service"\} 597688320\n', r"^$"),
        ("metrics db --openmetrics", 0, r"# UNIT unitmem_unit_anon_bytes bytes\n.*\n# EOF\n$", r"^$"),
        ("metrics *.slice", 0, r'\{unit="system.slice"\}', r"^$"),
        ("metrics nothing*", 0, r"^(?!.*unitmem_unit).*\nunitmem_host_available_bytes \d+\n", r"^$"),
        ("metrics nginx", 4, r"^$", r"^unitmem: no unit nginx\.service is loaded"),
        ("metrics --textfile /nonexistent/x.prom", 1, r"^$", r"^unitmem: /nonexistent/\S*: No such file or directory\n$"),
        ("watch", 2, r"^$", r"missing argument 'POLICY'"),
        ("watch x.yaml --listen localhost", 2, r"^$", r"^unitmem: 'localhost' is not PORT or ADDRESS:PORT\nWrite a port \(9797\)"),
        ("watch /nonexistent.yaml", 78, r"^$", r"^/nonexistent\.yaml: No such file"),
        ("guard", 2, r"^$", r"^unitmem: missing option '--pss'\nSee `unitmem guard --help`\.\n$"),
        ("guard true", 2, r"^$", r"missing option '--pss'"),
        ("guard sleep 1 --pss 1G", 2, r"^$", r"^unitmem: options of guard come before the command\nWrite `unitmem guard --pss 1G -- sleep 1`\.\n$"),
        ("guard make -j8 --pss=1G --tree", 2, r"^$", r"\nWrite `unitmem guard --pss=1G --tree -- make -j8`\.\n$"),
        ("guard sleep 1 --pss", 2, r"^$", r"\nWrite `unitmem guard --pss SIZE -- COMMAND`\.\n$"),
        ("guard -- --pss 1G sleep 1", 2, r"^$", r"come before the command\nWrite `unitmem guard --pss SIZE -- COMMAND`\.\n$"),
        ("guard --pss 1M", 2, r"^$", r"^unitmem: there is nothing to guard\nGive either --pid N, or a command after --\.\n$"),
        ("guard --pss 1M --", 2, r"^$", r"nothing to guard"),
        ("guard --pss 1M --pid 5 true", 2, r"^$", r"--pid and a command can't be combined\nGive either"),
        ("guard --pss 100 true", 2, r"^$", r"^unitmem: --pss: '100' has no unit: write 100M"),
        ("guard --pss 0 true", 2, r"^$", r"^unitmem: --pss must be greater than 0\nWrite it like 512M\.\n$"),
        ("guard --pss 0B true", 2, r"^$", r"^unitmem: --pss must be greater than 0\nWrite it like 512M\.\n$"),
        ("guard --pss 80% true", 2, r"^$", r"--pss: '80%' is not a size"),
        ("guard --pss 1M --grace 5 true", 2, r"^$", r"^unitmem: --grace: '5' has no unit: write 5s"),
        ("guard --pss 1M --interval 0 true", 2, r"^$", r"^unitmem: --interval 0 is too short\n1ms is the shortest\.\n$"),
        ("guard --pss 1M --grace 0 true", 2, r"^$", r"--grace 0 is too short"),
        ("guard --pss 1M --interval 1us true", 2, r"^$", r"--interval 1us is too short\n1ms is the shortest"),
        ("guard --pss 1M --pid 0", 2, r"^$", r"^unitmem: --pid: a pid is above 0, not 0\n$"),
        ("guard --pss 1M --pid 1", 2, r"^$", r"^unitmem: --pid: PID 1 can't be ended"),
        ("guard --pss 1M --pid web", 2, r"^$", r"invalid value for '--pid': 'web'"),
        ("guard --pss 1M --pid 1000000000000", 1, r"^$", r"^unitmem: no process has the pid 1000000000000\n$"),
        ("guard --pss 1M -- /nonexistent/command", 127, r"^$", r"^unitmem: /nonexistent/command: command not found\n$"),
        ("guard --pss 1M /dev/null --pss", 126, r"^$", r"^unitmem: /dev/null: permission denied\n$"),
        ("guard --pss 1G true --pss 1", 0, r"^$", r"^$"),
        ("guard --pss 1G false", 1, r"^$", r"^$"),
        ("schema", 0, r"^{\n", r"^$"),
        ("schema x", 2, r"^$", r"unexpected extra argument"),
        ("top-secret", 2, r"^$", r"^unitmem: no such command 'top-secret'\nSee `unitmem --help`\.\n$"),
    ],
)  # fmt: skip
def test_commands(run_on, untouched, arguments, status, out, err):
    """Data on stdout, all else on stderr, and the status that is documented."""
    ended = run_on(untouched.machine, *arguments.split())
    assert ended.status == status, ended
    assert re.search(out, ended.out, re.DOTALL), ended.out
    assert re.search(err, ended.err, re.DOTALL), ended.err
    assert "Traceback" not in ended.err


def test_an_empty_command_is_none(run):
    ended = run("guard", "--pss", "1G", "")
    assert (ended.status, ended.out) == (2, "")
    assert (
        ended.err
        == "unitmem: the command is empty\nGive one after --; a variable that should name it may be unset.\n"
    )


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb_fits_a_terminal(run_on, untouched, verb):
    ended = run_on(untouched.machine, verb, "-h")
    assert ended.status == 0
    assert ended.out == run_on(untouched.machine, verb, "--help").out
    assert f"Usage: unitmem {verb}" in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80


def test_help_says_in_full_what_each_verb_does(run, monkeypatch):
    """Click cuts a summary that doesn't fit beside its verb."""
    monkeypatch.setenv("COLUMNS", "80")
    summaries = dict(re.findall(r"^  (\w+) +(.*)$", run().out.partition("Commands:")[2], re.MULTILINE))
    assert summaries.keys() == set(VERBS)
    assert [summary for summary in summaries.values() if not re.search(r"\w\.$", summary)] == []


@pytest.mark.parametrize(
    "arguments", [("list",), ("show", "web"), ("list", "--all", "--pss"), ("show", "cron")]
)
def test_json_names_every_measure(run, arguments):
    """Each measure is there: a number, or null and a reason."""
    document = json.loads(run(*arguments, "--json").out)
    for row in document.get("units", [document]):
        names = {name for name, measure in MEASURES.items() if measure.scope is not Scope.HOST}
        assert row["measures"].keys() == names
        assert row["unknown"].keys() == {name for name in names if row["measures"][name] is None}
    assert document["host"]["total"] == 4 << 30


def test_json_documents(run, snapshot):
    """The whole of both documents: what programs rely on."""
    assert run("show", "web", "--json").out == snapshot(name="show")
    assert run("list", "db", "--json").out == snapshot(name="list")


def test_user_asks_the_users_own_manager(run, fake):
    for arguments in (["list"], ["show", "web"]):
        run(*arguments)
        run(*arguments, "--user")
    assert fake.manager.asked == [ManagerKind.SYSTEM, ManagerKind.USER] * 2


def test_a_unit_that_vanishes_meanwhile_is_skipped(run, fake):
    """Unloaded after it was listed, and stopped after it was described."""
    shutil.rmtree(fake.root / "cgroup/system.slice/db.service")
    fake.unit("gone.service", "/system.slice/gone.service")
    ended = run("list")
    assert (ended.status, ended.err) == (0, "")
    assert re.findall(r"^\S+", ended.out, re.MULTILINE) == ["UNIT", "web.service", "session-1.scope"]
    fake.manager.ending.add("gone.service")
    ended = run("show", "gone")
    assert (ended.status, ended.err) == (1, "unitmem: gone stopped while it was being read\nTry again.\n")


def test_a_unit_whose_cgroup_is_not_made_yet_runs_all_the_same(run, fake):
    """The manager names a cgroup for a socket that has no process, and there is none."""
    fake.unit("web.socket", "/system.slice/web.socket", sub_state="listening")
    assert "web.socket" not in run("list").out
    assert "web.socket" in run("list", "--all").out
    ended = run("show", "web.socket")
    assert (ended.status, ended.err) == (0, "")
    assert "/system.slice/web.socket, which is not there now" in ended.out


def test_a_unit_whose_file_was_deleted_is_listed_while_it_runs(run, fake):
    fake.cgroup("/system.slice/old.service", current=1)
    fake.unit("old.service", "/system.slice/old.service", load_state="not-found")
    assert "old.service" in run("list").out


def test_what_a_user_may_not_read_is_said_once(run, fake, monkeypatch):
    def refuse(path, *arguments, _open=os.open, **options):
        if path == "smaps_rollup":
            raise PermissionError(13, "Permission denied")
        return _open(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    ended = run("list", "--pss")
    assert ended.status == 0
    assert re.search(r"web\.service +- +600\.0M", ended.out)
    refused = "may not be read by this user (permission denied): run it as root\n"
    assert ended.err == f"unitmem: values shown as `-` {refused}"
    assert run("list", "--pss", "--json").err == f"unitmem: values that are null {refused}"
    assert run("metrics", "--pss").err == f"unitmem: values left out {refused}"
    assert run("list").err == ""


@pytest.mark.parametrize("verb", [["list"], ["show", "web"]])
def test_what_the_machine_lacks_is_one_sentence(run, fake, verb):
    """Systemd first: without it the rest is of no interest."""
    (fake.root / "cgroup/cgroup.controllers").write_text("cpu pids\n")
    ended = run(*verb)
    assert ended.status == 1
    assert re.match(r"unitmem: the memory controller of cgroup v2 is off .*\nBoot .*\.\n$", ended.err)

    def connect(kind):
        raise UnsupportedSystemError("this machine isn't run by systemd", "run it elsewhere")

    ended = run(*verb, machine=replace(fake.machine, connect=connect))
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == "unitmem: this machine isn't run by systemd\nRun it elsewhere.\n"


def test_watch_hands_over_to_the_daemon(run, monkeypatch):
    """Its options as they are, and its status as the command's own."""
    calls = []

    def daemon(path, **options):
        calls.append((path, options))
        return 7

    monkeypatch.setattr("unitmem.daemon.main.main", daemon)
    assert run("watch", "a.yaml").status == 7
    assert run("watch", "--observe", "--once", "--user", "b.yaml").status == 7
    assert run("watch", "--textfile", "c.prom", "--listen", "9797", "c.yaml").status == 7
    none = {"observe": False, "once": False, "user": False, "textfile": None, "listen": None}
    assert calls == [
        ("a.yaml", none),
        ("b.yaml", none | {"observe": True, "once": True, "user": True}),
        ("c.yaml", none | {"textfile": "c.prom", "listen": "9797"}),
    ]


def test_metrics_of_a_machine_go_into_a_file_as_its_name_says(run, tmp_path):
    for name, last in (("units.prom", r"\}? \S+\n$"), ("units.txt", r"\n# EOF\n$")):
        ended = run("metrics", "--textfile", str(tmp_path / name))
        assert (ended.status, ended.out, ended.err) == (0, "", "")
        assert re.search(last, (tmp_path / name).read_text())
    assert run("metrics").out == (tmp_path / "units.prom").read_text()
    assert run("metrics", "--openmetrics").out == (tmp_path / "units.txt").read_text()


@pytest.mark.parametrize(
    ("error", "status", "err"),
    [
        (KeyboardInterrupt(), 130, r"^$"),
        (BusError("the system bus can't be reached", "see elsewhere"), 1, r"^unitmem: the system bus can't .*\nSee elsewhere\.\n$"),
        (ValueError("odd\nthing"), 1, r"^unitmem: unexpected ValueError at \w+\.py:\d+: odd thing\nThis is a bug in unitmem: please report it"),
        (PermissionError(13, "Permission denied", "/proc/meminfo"), 1, r"^unitmem: /proc/meminfo: Permission denied\n$"),
    ],
)  # fmt: skip
def test_no_error_ends_in_a_traceback(run, fake, error, status, err, monkeypatch):
    """Unless it is asked for."""

    def connect(kind):
        raise error

    machine = replace(fake.machine, connect=connect)
    ended = run("list", machine=machine)
    assert (ended.status, ended.out) == (status, "")
    assert re.search(err, ended.err)
    monkeypatch.setenv("UNITMEM_DEBUG", "1")
    assert ("Traceback" in run("list", machine=machine).err) is (status == 1)


@given(st.lists(st.text(max_size=12), max_size=4))
def test_no_arguments_cause_a_bug(arguments):
    """Whatever is typed: done, failed, usage, no such unit or a bad file, in our own words."""
    assert main([*arguments, "--nope"]) in {0, 2}
