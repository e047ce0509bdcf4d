"""`unitmem check`: mistakes and warnings with their places, for people and for programs."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from unitmem.errors import BusError
from unitmem.unit import StartLimit

GOOD = """\
policies:
  - name: web
    units: [web.service]
    steps:
      - {when: "workingset > 80% of limit", for: 30s, do: log}
      - {when: "workingset > 90% of limit", for: 30s, do: stop}
"""
DOUBTFUL = """\
policies:
  - name: web
    units: [web.service, "nginx@*.service"]
    steps: [{when: "workingset > 100% of limit", do: log}]
  - name: cron
    units: [crom.service]
    steps: [{when: "anon > 1G", do: stop}]
"""
WHOLE = """\
interval: 2s
budget: {actions: 20, per: 1d}
policies:
  - name: web
    units: ["web*.service"]
    except: [web@0.service]
    mode: observe
    clear: "anon < 1G"
    cooldown: 10min
    budget: {actions: 3, per: 1h}
    steps:
      - {when: "workingset > 70% of limit", for: 1min, repeat: 5min, do: log}
      - {when: "growth(anon, 1d) > 5M/min and age > 1h", do: {reclaim: {size: 64M, timeout: 10s}}}
      - {when: "eta(limit) < 5min or leak(anon, 1d) > 5M/h", do: {set: {MemoryHigh: 512M, MemorySwapMax: infinity}}}
      - {when: "process.pss > 512M", do: {signal: SIGTERM, to: largest, timeout: 5s, else: kill}}
      - {when: "pressure.full.avg10 > 40%", repeat: 1h, do: {signal: SIGUSR1, to: main}}
      - {when: "swap > 1G", do: freeze}
      - {when: "swap < 1M", do: {thaw: {timeout: 3s}}}
      - {when: "events.oom > 0 in 1h", do: {run: {command: ["/bin/dump", "--all"], timeout: 1min}}}
      - {when: "anon > 80% of limit", for: 10s, do: {restart: {timeout: 2min, else: kill}}}
      - {when: "anon > 90% of limit", for: 10s, do: {stop: {timeout: 30s, else: kill}}}
      - {when: "headroom < 64M", for: 10s, do: kill}
"""
WHOLE_AND_BAD = """\
interval: 2
budget: {actions: 0, per: 1d}
policies:
  - name: web leak
    units: ["web@.service"]
    except: web@0.service
    mode: dry
    clear: "anon < 1"
    cooldown: 600
    budget: {actions: 3}
    steps:
      - {when: "workingset > 70%", for: 1min, repeat: 5min, do: log}
      - {when: "growth(limit, 10min) > 5M/min", do: {reclaim: {size: 64M, timeout: 10s}}}
      - {when: "eta(limit) < 5min", do: {set: {MemoryHigh: 80%}}}
      - {when: "process.pss > 512M", do: {signal: SIGTERM, to: biggest}}
      - {when: "pressure.full.avg10 > 40%", do: {signal: SIGUSR1, to: main, else: kill}}
      - {when: "swap > 1G", repeat: 5min, do: freeze}
      - {when: "swap < 1M", do: {thaw: {timeout: 0s}}}
      - {when: "events.oom > 0 in 1h", do: {run: /bin/dump --all}}
      - {when: "anon > 80% of limit", do: {restart: , stop: }}
      - {when: "anon > 90% of limit", do: {stop: {timeout: 30, else: kill}}}
      - {when: "headroom < 64M", do: {kill: {else: kill}}}
"""
BAD = """\
interval: 2
policies:
  - name: web
    units: web.service
    steps: [{when: "workingset > 80%", do: lock}]
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    """file(text, name=…): write a policy file into the current directory; its name."""
    monkeypatch.chdir(tmp_path)

    def write(text, name="a.yaml"):
        (tmp_path / name).write_text(text)
        return name

    return write


def test_a_good_file(run, file):
    ended = run("check", file(GOOD))
    assert (ended.status, ended.out, ended.err) == (0, "a.yaml: ok, 1 policy, 2 steps\n", "")


def test_every_mistake_of_every_file(run, file, snapshot):
    """All at once, and what is good is still told."""
    ended = run("check", file(BAD, "bad.yaml"), file(GOOD), "none.yaml")
    assert ended.status == 78
    assert ended.out == "a.yaml: ok, 1 policy, 2 steps\n"
    assert ended.err == snapshot


def test_the_whole_language_passes(run, file):
    ended = run("check", file(WHOLE))
    assert (ended.status, ended.out, ended.err) == (0, "a.yaml: ok, 1 policy, 11 steps\n", "")


def test_every_mistake_in_the_whole_language(run, file, snapshot):
    """One in each line, of every kind that a file has keys for."""
    ended = run("check", file(WHOLE_AND_BAD))
    assert (ended.status, ended.out) == (78, "")
    assert ended.err == snapshot


@pytest.mark.parametrize(
    "text", [b"\xff\xfe\0", b"policies: \0", b"", b"[" * 9999, b"policies: !!python/object:os.abort []"]
)
def test_no_file_is_too_odd_to_be_told_of(run, tmp_path, text):
    (tmp_path / "odd.yaml").write_bytes(text)
    ended = run("check", str(tmp_path / "odd.yaml"))
    assert (ended.status, ended.out) == (78, "")
    assert re.fullmatch(r".*odd\.yaml:1:\d+: [^\n]+\n", ended.err)


def test_warnings_leave_the_status(run, file, snapshot):
    ended = run("check", file(DOUBTFUL))
    assert (ended.status, ended.out) == (0, "a.yaml: ok, 2 policies, 2 steps\n")
    assert ended.err == snapshot


def test_strict_lets_warnings_count(run, file):
    """Mistakes count more, and what is silenced doesn't."""
    assert run("check", "--strict", file(GOOD)).status == 0
    ended = run("check", "--strict", file(DOUBTFUL), file(GOOD, "b.yaml"))
    assert (ended.status, ended.out.count(": ok, ")) == (1, 2)
    assert run("check", "--strict", file(DOUBTFUL), "--json").status == 1
    assert run("check", "--strict", file(DOUBTFUL), file(BAD, "bad.yaml")).status == 78
    silenced = GOOD.replace("for: 30s, do: stop}", "do: stop}  # unitmem: ignore=no-hold")
    ended = run("check", "--strict", file(silenced))
    assert (ended.status, ended.err) == (0, "")


def test_what_this_machine_has_is_asked_once(run, fake, file):
    """Limits, protected units and swap, for all files together."""
    text = GOOD.replace("workingset > 90% of limit", "anon > 600M")
    ended = run("check", file(text), file(text.replace("[web.service]", "['*.service']"), "b.yaml"), "--json")
    problems = json.loads(ended.out)["problems"]
    assert [
        (problem["file"], problem["code"], problem["line"], problem["column"]) for problem in problems
    ] == [
        ("a.yaml", "above-limit", 6, 16),
        ("b.yaml", "core-unit", 3, 13),
        ("b.yaml", "shared-limit", 5, 16),
    ]
    assert "512.0M, the limit of web.service" in problems[0]["message"]
    assert len(fake.manager.asked) == 1


def test_the_manager_is_not_asked_about_each_unit(run, fake, file, monkeypatch):
    """Of hundreds that match, that took seconds; and nothing of it is in a warning."""
    monkeypatch.setattr(type(fake.manager), "complete", lambda *_: pytest.fail("it was asked"))
    ended = run("check", file(GOOD.replace("[web.service]", "['*.service']")))
    assert (ended.status, "[core-unit]" in ended.err) == (0, True)


def test_a_unit_that_vanishes_meanwhile_is_no_failure(run, fake, file):
    fake.manager.vanished.add("web.service")
    ended = run("check", file(GOOD))
    assert ended.status == 0
    assert "web.service matches no unit" in ended.err


def test_without_a_manager_patterns_are_not_doubted(run, fake, file):
    def connect(kind):
        raise BusError("the system bus can't be reached")

    ended = run("check", file(DOUBTFUL), machine=replace(fake.machine, connect=connect))
    assert ended.status == 0
    assert "matches no unit" not in ended.err
    assert "can never be true" in ended.err


def test_json_lists_all_problems(run, file):
    ended = run("check", file(DOUBTFUL), file(BAD, "bad.yaml"), "--json")
    assert (ended.status, ended.err) == (78, "")
    problems = json.loads(ended.out)["problems"]
    assert {(problem["file"], problem["severity"]) for problem in problems} == {
        ("a.yaml", "warning"),
        ("bad.yaml", "error"),
    }
    assert all(problem["line"] and problem["column"] and problem["message"] for problem in problems)
    assert all(bool(problem["code"]) is (problem["severity"] == "warning") for problem in problems)
    assert json.loads(run("check", file(GOOD), "--json").out) == {"problems": []}


def test_a_start_limit_that_restarts_exceed(run, fake, file):
    fake.manager.start_limits["web.service"] = StartLimit(1, 600)
    text = GOOD.replace("do: stop", "do: restart") + "    budget: {actions: 3, per: 1h}\n"
    ended = run("check", file(text))
    assert ended.status == 0
    assert (
        "3 restarts of web.service may exceed its start limit (StartLimitBurst=1 in StartLimitIntervalSec=600s)"
        in (ended.err)
    )
    assert run("check", file(GOOD + "    budget: {actions: 3, per: 1h}\n")).err == ""


def test_a_file_that_others_may_change_is_a_warning_that_no_comment_silences(run, file, tmp_path):
    """`watch` refuses it; a draft may be checked all the same."""
    path = file(GOOD.replace("web\n", "web  # unitmem: ignore=no-hold,unsafe-file\n", 1))
    (tmp_path / path).chmod(0o666)
    ended = run("check", path)
    assert ended.status == 0
    assert "a.yaml:1:1: warning: `unitmem watch` does not obey this file: others may write " in ended.err
    assert ended.err.splitlines()[0].endswith("[unsafe-file]")
    assert run("check", "--strict", path).status == 1
    (warning, *_) = json.loads(run("check", "--json", path).out)["problems"]
    assert (warning["severity"], warning["code"]) == ("warning", "unsafe-file")
    (tmp_path / path).chmod(0o644)
    assert "unsafe-file]" not in run("check", path).err


def test_what_the_service_would_not_obey_is_a_mistake(run, file, tmp_path, monkeypatch):
    monkeypatch.setattr("unitmem.cli.check.SERVICE_DIRECTORY", tmp_path)
    path = file(GOOD)
    (tmp_path / path).chmod(0o646)
    ended = run("check", path)
    assert (ended.status, ended.out) == (78, "")
    assert ended.err.startswith("a.yaml is not obeyed: others may write ")
