"""`status`, `explain` and `replay`: what a watch has left behind, told to a person and as JSON."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import time
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import pytest
from documents import PAGES

from unitmem.explain.attribution import Cause, Ending
from unitmem.kernel.process import Process
from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy.actions import Log, Signal, Stop
from unitmem.policy.decision import Outcome, Result
from unitmem.policy.engine import evaluate
from unitmem.policy.model import Budget, Policy, PolicyFile, Step
from unitmem.policy.state import State
from unitmem.policyfile.expression import parse_condition
from unitmem.record.event import FILE_NAME, Event, EventKind
from unitmem.record.recorder import Recorder, decision_event, described, outcome_event
from unitmem.tell.interface import address_of
from unitmem.tell.status import WatchStatus, status_document
from unitmem.tell.wording import decision_entry, outcome_entry
from unitmem.unit import Invocation, Unit, titled

M = 2**20
OLD = Path(__file__).parents[1] / "history-1.sql"
START = 1_790_000_000.0
FILE = PolicyFile(
    (
        Policy(
            "leak",
            ("web.service",),
            (
                Step(parse_condition("anon > 40M"), Log()),
                Step(parse_condition("anon > 60M"), Signal(signal.SIGUSR1), hold=5),
                Step(parse_condition("anon > 90M or pss > 1G"), Stop(timeout=30), hold=60),
            ),
            clear=parse_condition("anon < 20M"),
            budget=Budget(3, 3600),
        ),
    ),
    budget=Budget(10, 3600),
)


def sample(at):
    """A unit that leaks 1 MiB a second."""
    return Sample(
        at,
        {
            "web.service": UnitSample(
                Unit("web.service", invocation_id=f"{1:032x}"),
                Invocation("web.service", f"{1:032x}", 1),
                values={"anon": int(at) * M, "limit": 128 * M},
                unknown={"pss": "permission denied"},
            )
        },
    )


@pytest.fixture
def watch(fake, serve):
    """What a service named web has left after a hundred ticks, one a second: its history; and it tells its status."""
    directory = fake.root / "state/web"
    directory.mkdir(parents=True)
    recorder = Recorder(directory, "boot")
    state = State()
    for tick in range(101):
        read = sample(float(tick))
        state, decisions = evaluate(FILE.policies, read, state, read.at, FILE.budget)
        for decision in decisions:
            message = decision_entry(decision).message
            processes = [
                Process(7, 1, "leaky", rss=50 * M, pss=48 * M),
                Process(8, 1, "helper", rss=2 * M, pss=M),
            ]
            recorder.event(decision_event(decision, message, START + tick, processes), read.at)
            outcome = Outcome(decision, Result.VERIFIED, "SIGUSR1 delivered to pid 7 (leaky)", read.at)
            if (entry := outcome_entry(outcome)) is not None:
                recorder.event(outcome_event(outcome, entry.message, START + tick), read.at)
        recorder.tick(read, START + tick, ["anon", "pss"])
    recorder.close()
    watched = WatchStatus("web", "/etc/unitmem/web.yaml", 1.0, True, {}, ["web.service: MemoryHigh=infinity"])
    serve("web", status_document(FILE, read, state, watched, time.time()))
    return directory / FILE_NAME


@pytest.fixture
def endings(monkeypatch):
    """What the journal tells of the unit's ends."""
    told: list[Ending] = []
    monkeypatch.setattr("unitmem.cli.explain.read_entries", lambda *_, **__: [])
    monkeypatch.setattr("unitmem.cli.explain.attribute", lambda *_, **__: told)
    return told


@pytest.fixture(autouse=True)
def in_utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_status_page(run, watch, snapshot):
    ended = run("status")
    assert (ended.status, ended.err) == (0, "")
    lines = [line for line in ended.out.splitlines() if "last tick" not in line]
    assert "\n".join(lines) == snapshot


def test_status_as_json(run, watch):
    (document,) = json.loads(run("status", "web", "--json").out)["watches"]
    (unit,) = document["units"]
    assert [step["phase"] for step in unit["steps"]] == ["fired", "fired", "holding"]
    assert (unit["steps"][2]["held"], unit["steps"][2]["left"]) == (9.0, 51.0)
    assert unit["budget"] == {"actions": 3, "per": 3600, "left": 2}
    assert unit["reserved_for"] == "stop"
    assert document["budget"]["left"] == 9
    assert unit["values"] == {"anon": 100 * M, "pss": None}
    assert unit["unknown"] == {"pss": "permission denied"}


def test_the_manual_names_every_key_of_a_status(run, watch):
    (document,) = json.loads(run("status", "--json").out)["watches"]
    table = PAGES["man/unitmem.1.md"].partition("`status` gives ")[2].partition("\n\n`explain UNIT` gives")[0]
    rows = [row for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) if " of " not in row]
    assert document.keys() == set(re.findall(r"`(\w+)`", " ".join(rows)))


def test_status_of_a_watch_that_does_not_answer_says_so_and_shows_the_others(run, watch, serve, monkeypatch):
    monkeypatch.setattr("unitmem.cli.watches.TIMEOUT", 0.2)
    hour_ago = time.time() - 3600
    for instance in ("busy", "later"):
        os.utime(serve(instance), (hour_ago, hour_ago))
    ended = run("status")
    assert (ended.status, ended.out.partition(" - ")[0]) == (1, "web")
    assert ended.err == "".join(
        f"unitmem: unitmem@{instance}.service is running, but doesn't answer; its last tick was 1h ago\n"
        "It is busy, or hangs: see its journal.\n"
        for instance in ("busy", "later")
    )
    ended = run("status", "busy", "--json")
    assert (ended.status, json.loads(ended.out)) == (1, {"watches": []})


def test_status_of_a_watch_that_was_killed_is_that_of_none(run, fake, watch):
    directory = fake.root / "run/unitmem/gone"
    directory.mkdir()
    with socket.socket(socket.AF_UNIX) as left, address_of(directory / "io.unitmem") as address:
        left.bind(address)
    assert run("status").status == 0
    assert "unitmem@gone.service is not running" in run("status", "gone").err


def test_a_watch_that_may_not_be_asked_is_told(run, watch, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("socket.socket.connect", refuse)
    ended = run("status")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.endswith("run/unitmem/web/io.unitmem: permission denied\nRun it as root.\n")


@pytest.mark.parametrize("name", ["web", "unitmem@web", "web.service", "unitmem@web.service"])
def test_status_knows_an_instance_by_its_unit_too(run, watch, name):
    assert run("status", name).out.startswith("web - ")


@pytest.mark.parametrize(
    ("arguments", "which", "start"),
    [
        ("status", "no unitmem@ service is", "systemctl start unitmem@NAME.service"),
        ("status other", "unitmem@other.service is not", "systemctl start unitmem@other.service"),
        ("status unitmem@other", "unitmem@other.service is not", "systemctl start unitmem@other.service"),
        (
            "status --user other",
            "unitmem@other.service is not",
            "systemctl --user start unitmem@other.service",
        ),
    ],
)
def test_status_without_a_watch(run, fake, monkeypatch, arguments, which, start):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    ended = run(*arguments.split())
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == f"unitmem: {which} running\nStart one with `{start}`.\n"


def test_explain_page(run, watch, endings, snapshot, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    endings.append(
        Ending(
            START + 104,
            "web.service",
            f"{1:032x}",
            Cause.OOM_KILLER,
            "the machine was out of memory; killed pid 7 (leaky)",
            ("kernel: Out of memory: Killed process 7 (leaky)",),
        )
    )
    ended = run("explain", "web", "--since", "1000w")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == snapshot


def test_explain_names_what_ran_in_units_with_made_up_names(run, fake, watch, endings):
    """Such a name is used again: what else ran under it before is named where that is told."""
    recorder = Recorder(watch.parent, "boot")
    for clock, content in ((102.0, "make"), (103.0, "/usr/bin/backup"), (104.0, "")):
        message = f"{titled('run-u12.service', content)}: anon 50M > 40M"
        recorder.event(
            Event(START + clock, EventKind.DECISION, "run-u12.service", message, detail=described(content)),
            clock,
        )
    recorder.close()
    heading, *lines = run("explain", "run-u12.service", "--since", "1000w").out.split("\n", 1)
    assert heading == "run-u12.service (/usr/bin/backup)"
    assert re.findall(r"\d\d:\d\d:\d\d  (.*)", lines[0]) == [
        "run-u12.service (make): anon 50M > 40M",
        "anon 50M > 40M",
        "anon 50M > 40M",
    ]
    assert re.search(r"run-u12\.service .* /usr/bin/backup\n", run("explain", "--since", "1000w").out)
    document = json.loads(run("explain", "run-u12.service", "--since", "1000w", "--json").out)
    assert document["description"] == "/usr/bin/backup"
    assert [event.get("description") for event in document["events"]] == ["make", "/usr/bin/backup", None]


def test_explain_tells_of_a_reset_and_who_asked_for_it(run, watch, endings):
    message = "web.service: reset by uid 1000: gave 2 actions back to its budget in policy leak"
    recorder = Recorder(watch.parent, "boot")
    recorder.event(Event(START + 104, EventKind.RESET, "web.service", message, detail={"uid": 1000}), 104.0)
    recorder.close()
    assert re.search(
        r"  reset by uid 1000: gave 2 actions back to its", run("explain", "web", "--since", "1000w").out
    )
    assert re.search(r"web\.service .* reset\n", run("explain", "--since", "1000w").out)
    event = json.loads(run("explain", "web", "--since", "1000w", "--json").out)["events"][-1]
    assert (event["kind"], event["uid"]) == ("reset", 1000)


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (Cause.OOM_KILLER, "ended by the kernel's OOM killer, not by unitmem: why"),
        (Cause.SYSTEMD_OOMD, "ended by systemd-oomd, not by unitmem: why"),
        (Cause.REQUEST, "stopped on request, not by unitmem: why"),
        (Cause.UNITMEM, "ended by unitmem: why"),
    ],
)
def test_explain_says_who_it_was(run, fake, endings, cause, words):
    endings.append(Ending(START, "web.service", None, cause, "why", ()))
    assert words in run("explain", "web").out


def test_explain_of_a_unit_that_nothing_happened_to(run, fake, endings):
    ended = run("explain", "web")
    assert (ended.status, ended.out) == (
        0,
        "web.service\n  nothing was done to it, and no end of it is recorded, in the last 7d\n",
    )


def test_explain_does_not_say_of_a_misspelt_name_that_nothing_happened(run, fake, endings):
    ended = run("explain", "wbe")
    assert (ended.status, ended.out) == (4, "")
    assert (
        ended.err
        == "unitmem: no unit wbe.service is loaded, and nothing is recorded about one in the last 7d\n"
    )
    ended = run("explain", "web@*")
    assert (ended.status, ended.out) == (2, "")
    assert "is a pattern" in ended.err


def test_explain_tells_the_past_of_a_unit_that_is_not_loaded_any_more(run, fake, endings):
    endings.append(Ending(START, "wbe.service", None, Cause.EXIT, "why", ()))
    assert "it ended: why" in run("explain", "wbe").out


@pytest.mark.parametrize("damage", [b"", b"rubbish" * 1000])
def test_explain_leaves_out_a_damaged_history_and_says_so(run, fake, watch, endings, damage):
    path = fake.root / "state/db" / FILE_NAME
    path.parent.mkdir()
    path.write_bytes(damage)
    for arguments in ([], ["web"]):
        ended = run("explain", *arguments, "--since", "1000w")
        assert ended.status == 1
        assert f"{path} can't be read" in ended.err
        assert "a restart of unitmem@db.service sets it aside" in ended.err
        assert "web.service" in ended.out
    ended = run("explain", "db")  # nothing is known of decisions about it
    assert (ended.status, ended.out) == (1, "db.service\n  no end of it is recorded, in the last 7d\n")


@pytest.fixture
def unprivileged(tmp_path):
    """A context in which this process is a user to whom `tmp_path` is open, and what is private in it is not."""
    for directory in takewhile(lambda path: "pytest" in str(path), [tmp_path, *tmp_path.parents]):
        directory.chmod(directory.stat().st_mode | 0o055)

    @contextmanager
    def drop():
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            yield
        finally:
            if is_root:
                os.seteuid(0)

    return drop


def test_explain_by_a_user_who_may_not_look_does_not_say_that_nothing_happened(run, watch, unprivileged):
    run("explain")  # with all that it imports
    watch.parent.chmod(0o700 if os.geteuid() == 0 else 0)
    with unprivileged():
        ended = run("explain")
    watch.parent.chmod(0o700)
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == f"unitmem: {watch}: permission denied\nRun it as root.\n"


def test_explain_user_also_looks_where_older_systemds_keep_state(run, watch, endings, monkeypatch, tmp_path):
    config = tmp_path / "config"
    (config / "unitmem").mkdir(parents=True)
    watch.parent.rename(config / "unitmem/web")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "none"))
    ended = run("explain", "--user", "--since", "1000w")
    assert (ended.status, ended.err) == (0, "")
    assert "web.service" in ended.out


def test_explain_without_a_unit_lists_those_that_have_a_story(run, watch, snapshot):
    assert run("explain", "--since", "1000w").out == snapshot
    assert run("explain", "--since", "1s").err == "nothing was decided about any unit in the last 1s\n"


def test_explain_tells_what_was_only_observed_from_what_was_withheld(run, watch):
    with sqlite3.connect(watch) as database:
        database.execute("UPDATE events SET result = 'observed' WHERE kind = 'decision' AND action = 'log'")
        database.execute(
            "UPDATE events SET obstacle = 'cooling down' WHERE kind = 'decision' AND action != 'log'"
        )
    (line,) = run("explain", "--since", "1000w").out.splitlines()[1:2]
    assert line.split()[3:7] == ["0", "0", "1", "1"]


def test_explain_draws_the_thresholds_of_two_policies_apart(run, watch, endings):
    with sqlite3.connect(watch) as database:
        database.execute("UPDATE events SET policy = 'other', step = 1 WHERE action != 'log'")
    page = run("explain", "web", "--since", "1000w").out
    assert "leak, step 1: 40.0M" in page
    assert "other, step 1: 60.0M" in page


def test_explain_as_json(run, watch, endings):
    endings.append(Ending(START, "web.service", None, Cause.EXIT, "why", ("line",)))
    endings.append(Ending(START, "web.service", None, Cause.OOM_KILLER, "why", ("line",), ended=False))
    document = json.loads(run("explain", "web", "--json", "--since", "1000w").out)
    assert [event["action"] for event in document["events"]] == ["log", "SIGUSR1", "SIGUSR1"]
    assert document["events"][0]["findings"][0]["threshold"] == 40 * M
    assert document["events"][0]["processes"][0]["pss"] == 48 * M
    assert [(ending["cause"], ending["ended"]) for ending in document["endings"]] == [
        ("exit", True),
        ("oom-killer", False),
    ]
    (unit,) = json.loads(run("explain", "--json", "--since", "1000w").out)["units"]
    assert unit["endings"] is None  # nobody looked for them


POLICY = """
policies:
  - name: leak
    units: [web.service]
    steps:
      - {when: "anon > 40M", do: log}
      - {when: "anon > 60M", for: 5s, do: {signal: SIGUSR1}}
"""


def test_replay_page(run, watch, tmp_path, snapshot):
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    ended = run("replay", str(policy), "--history", str(watch))
    assert ended.status == 0
    assert ended.out == snapshot
    assert ended.err == (
        "101 samples over 1min 40s: 1 log, 1 SIGUSR1\n"
        "leak, step 1: judged in 101 of 101 samples\n"
        "leak, step 2: judged in 101 of 101 samples\n"
    )


def test_replay_of_a_history_as_json_lines(run, watch, tmp_path):
    policy, lines = tmp_path / "policy.yaml", tmp_path / "samples.jsonl"
    policy.write_text(POLICY)
    lines.write_text(
        "".join(
            json.dumps({"at": at, "units": {"web.service": {"run": "1", "values": {"anon": at * M}}}}) + "\n"
            for at in range(101)
        )
    )
    from_lines = json.loads(run("replay", str(policy), "--history", str(lines), "--json").out)
    recorded = json.loads(run("replay", str(policy), "--history", str(watch), "--json").out)
    told = [(made["at"], made["step"], made["message"]) for made in from_lines["decisions"]]
    assert told == [(made["at"], made["step"], made["message"]) for made in recorded["decisions"]]
    assert [at for at, *_ in told] == [41, 66]


@pytest.mark.parametrize(
    ("unit", "measure", "why"),
    [
        ("web.service", "anno", "anon is unknown (not in this history)"),
        ("wbe.service", "anon", "no unit that matches"),
    ],
)
def test_replay_fails_where_a_step_could_not_be_judged_at_all(run, tmp_path, unit, measure, why):
    policy, lines = tmp_path / "policy.yaml", tmp_path / "samples.jsonl"
    policy.write_text(POLICY)
    sample = {unit: {"run": "1", "values": {measure: 99 * M}}}
    lines.write_text("".join(json.dumps({"at": at, "units": sample}) + "\n" for at in range(3)))
    ended = run("replay", str(policy), "--history", str(lines))
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == (
        "3 samples over 2s: nothing would have been done, as far as that could be judged\n"
        f"leak, step 1: judged in 0 of 3 samples: {why}\n"
        f"leak, step 2: judged in 0 of 3 samples: {why}\n"
    )
    ended = run("replay", str(policy), "--history", str(lines), "--json")
    assert ended.status == 1
    assert [(step["judged"], step["unknown"]) for step in json.loads(ended.out)["steps"]] == [
        (0, {why: 3})
    ] * 2


def test_replay_says_which_units_and_samples_a_step_could_not_be_judged_by(run, tmp_path):
    policy, lines = tmp_path / "policy.yaml", tmp_path / "samples.jsonl"
    policy.write_text(
        'policies: [{name: p, units: ["*.service"], steps: [{when: "growth(anon, 10s) > 1G/min", do: log}]}]'
    )
    units = {"a.service": {"run": "1", "values": {"anon": M}}, "b.service": {"run": "1", "values": {}}}
    lines.write_text("".join(json.dumps({"at": at, "units": units}) + "\n" for at in range(20)))
    ended = run("replay", str(policy), "--history", str(lines))
    assert ended.status == 0
    assert ended.err.splitlines()[1] == (
        "p, step 1: judged in 10 of 20 samples: growth(anon, 10s) is unknown (not watched for that long yet) in 10; "
        "never for b.service, as growth(anon, 10s) is unknown (not in this history)"
    )


@pytest.mark.parametrize(("distance", "is_told"), [(2, False), (4, False), (5, True)])
def test_replay_says_that_samples_are_too_far_apart_for_the_interval(run, tmp_path, distance, is_told):
    policy, lines = tmp_path / "policy.yaml", tmp_path / "samples.jsonl"
    policy.write_text(
        "policies: [{name: p, units: [a.service], steps: [{when: anon > 1M, for: 30s, do: log}]}]"
    )
    units = {"a.service": {"run": "1", "values": {"anon": 2 * M}}}
    lines.write_text("".join(json.dumps({"at": at * distance, "units": units}) + "\n" for at in range(9)))
    ended = run("replay", str(policy), "--history", str(lines))
    assert ("more than two intervals apart" in ended.err) is is_told


@pytest.mark.parametrize(
    "line",
    [
        '{"at": 1, "units": {"web.service": {"values": {"anon": NaN}}}}',
        '{"at": 1, "units": {"web.service": {"values": {"anon": 1e999}}}}',
        '{"at": 1, "units": {"web.service": {"values": {}, "at_most": {"pss": -Infinity}}}}',
        '{"at": 1, "units": {"web.service": {"values": {}, "levels": [{"path": "/a", "max": Infinity}]}}}',
        '{"at": 1, "units": {"web.service": {"values": {}, "inode": 1e999}}}',
        '{"at": 1, "units": {}, "host": {"values": {"host.total": Infinity}}}',
        '{"at": NaN, "units": {}}',
        '{"at": 1' + "0" * 400 + ', "units": {}}',
    ],
)
def test_replay_refuses_what_is_no_number_with_its_place(run, watch, tmp_path, line):
    policy, lines = tmp_path / "policy.yaml", tmp_path / "samples.jsonl"
    policy.write_text(POLICY)
    lines.write_text('{"at": 0, "units": {}}\n' + line)
    ended = run("replay", str(policy), "--history", str(lines))
    assert (ended.status, ended.out) == (1, "")
    assert f"{lines}:2: not a sample: " in ended.err
    assert "is not a number" in ended.err


def test_replay_refuses_what_is_no_number_in_a_recorded_history(run, watch, tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    with sqlite3.connect(watch) as database:
        database.executescript("PRAGMA user_version = 0; DROP TABLE events; " + OLD.read_text())
        database.execute(
            "UPDATE ticks SET units = replace(units, '\"anon\":', '\"anon\":1e999') WHERE id = 2"
        )
        ((at,),) = database.execute("SELECT at FROM ticks WHERE id = 2")
    ended = run("replay", str(policy), "--history", str(watch))
    assert ended.status == 1
    assert f"{watch} can't be read: sample at {at:.3f}: inf is not a number" in ended.err


@pytest.mark.parametrize(
    ("history", "words"),
    [("none", "no such file or directory"), ("rubbish", ":1: not a sample")],
)
def test_replay_of_what_is_no_history(run, tmp_path, history, words):
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "rubbish").write_text("rubbish\n")
    ended = run("replay", str(tmp_path / "policy.yaml"), "--history", str(tmp_path / history))
    assert (ended.status, ended.out) == (1, "")
    assert words in ended.err


def test_replay_says_what_it_left_open(run, fake, tmp_path):
    recorder = Recorder(tmp_path, "boot")
    for tick in range(301):
        recorder.tick(sample(tick / 10), START + tick / 10, ["anon"])
    recorder.close()
    policy = tmp_path / "policy.yaml"
    policy.write_text("policies: [{name: p, units: [web.service], steps: [{when: anon > 100M, do: log}]}]")
    with sqlite3.connect(tmp_path / FILE_NAME) as database:
        database.execute("DELETE FROM chunks")
    ended = run("replay", str(policy), "--history", str(tmp_path / FILE_NAME))
    assert "nothing would have been done\n" in ended.err
    policy.write_text(policy.read_text().replace("100M", "20M"))
    ended = run("replay", str(policy), "--history", str(tmp_path / FILE_NAME))
    assert ended.status == 1  # it could be judged in none
    assert "nothing would have been done, as far as that could be judged" in ended.err
    assert "left open in 301 for web.service, as anon is unknown (thinned)" in ended.err
    (step,) = json.loads(run("replay", "--json", str(policy), "--history", str(tmp_path / FILE_NAME)).out)[
        "steps"
    ]
    assert step["open"] == 301
    assert step["left_open"] == {"web.service": "anon is unknown (thinned)"}
