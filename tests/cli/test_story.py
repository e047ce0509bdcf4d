"""`status`, `explain` and `replay`: what a watch has left behind, told to a person and as JSON."""

from __future__ import annotations

import json
import signal
import time

import pytest

from unitmem.ending import Cause, Ending
from unitmem.engine import Result, State, evaluate
from unitmem.expression import parse_condition
from unitmem.history import FILE_NAME, Recorder, decision_event, outcome_event
from unitmem.journal import decision_entry, outcome_entry
from unitmem.outcome import Outcome
from unitmem.policy import Budget, Log, Policy, PolicyFile, Signal, Step, Stop
from unitmem.process import Process
from unitmem.sample import Sample, UnitSample
from unitmem.status import FILE_NAME as STATUS_FILE
from unitmem.status import Watched, status_document
from unitmem.store import replace_file
from unitmem.unit import Invocation, Unit

M = 2**20
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
def watch(fake):
    """What a service named web has left after a hundred ticks, one a second: its history and its status."""
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
    runtime = fake.root / "run/unitmem/web"
    runtime.mkdir(parents=True)
    watched = Watched("web", "/etc/unitmem/web.yaml", 1.0, True, {}, ["web.service: MemoryHigh=infinity"])
    document = status_document(FILE, read, state, watched, time.time())
    replace_file(runtime / STATUS_FILE, json.dumps(document), durable=False)
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
    assert document["budget"]["left"] == 9
    assert unit["values"] == {"anon": 100 * M, "pss": None}
    assert unit["unknown"] == {"pss": "permission denied"}


def test_status_of_a_watch_that_hangs_says_so(run, fake, watch):
    path = fake.root / "run/unitmem/web" / STATUS_FILE
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"at": document["at"] - 3600}))
    assert "last tick 1h ago" in run("status").out
    assert "it hangs, or has died" in run("status").out


@pytest.mark.parametrize("arguments", [["status"], ["status", "other"]])
def test_status_without_a_watch(run, fake, arguments):
    ended = run(*arguments)
    assert (ended.status, ended.out) == (1, "")
    assert "runs here as a service" in ended.err


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


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (Cause.OOM_KILLER, "ended by the kernel's OOM killer, not by unitmem: why"),
        (Cause.SYSTEMD_OOMD, "ended by systemd-oomd, not by unitmem: why"),
        (Cause.REQUEST, "ended on somebody's request, not by unitmem: why"),
        (Cause.UNITMEM, "its end, by unitmem: why"),
    ],
)
def test_explain_says_who_it_was(run, fake, endings, cause, words):
    endings.append(Ending(START, "web.service", None, cause, "why", ()))
    assert words in run("explain", "web").out


def test_explain_of_a_unit_that_nothing_happened_to(run, fake, endings):
    ended = run("explain", "web")
    assert (ended.status, ended.out) == (
        0,
        "web.service\n  nothing was done to it, and no end of it is on record\n",
    )


def test_explain_without_a_unit_lists_those_that_have_a_story(run, watch, snapshot):
    assert run("explain", "--since", "1000w").out == snapshot
    assert run("explain", "--since", "1s").err == "nothing was decided about any unit in the last 1s\n"


def test_explain_as_json(run, watch, endings):
    endings.append(Ending(START, "web.service", None, Cause.EXIT, "why", ("line",)))
    document = json.loads(run("explain", "web", "--json", "--since", "1000w").out)
    assert [event["action"] for event in document["events"]] == ["log", "SIGUSR1", "SIGUSR1"]
    assert document["events"][0]["findings"][0]["threshold"] == 40 * M
    assert document["events"][0]["processes"][0]["pss"] == 48 * M
    assert [ending["cause"] for ending in document["endings"]] == ["exit"]


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
    assert ended.err == "101 samples over 1min 40s: 1 log, 1 SIGUSR1\n"


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
    ("history", "words"),
    [("none", "no such file or directory"), ("rubbish", ":1: not a sample")],
)
def test_replay_of_what_is_no_history(run, tmp_path, history, words):
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "rubbish").write_text("rubbish\n")
    ended = run("replay", str(tmp_path / "policy.yaml"), "--history", str(tmp_path / history))
    assert (ended.status, ended.out) == (1, "")
    assert words in ended.err
