"""`unitmem plan`: a file of policies, held against the fake machine."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from unitmem.errors import BusError

POLICIES = """\
policies:
  - name: web
    units: ["w*.service", cron.service]
    mode: observe
    steps:
      - {when: "workingset > 80% of limit", for: 1min, do: log}
      - {when: "pss > 700M or (pressure.some.avg10 > 40% and not swap > 1G)", for: 10s, do: {stop: {else: kill}}}
      - {when: "anon > 600M or growth(anon, 10min) > 1M/min", for: 10s, do: {signal: SIGUSR1}}
  - name: db
    units: [db.service, "dbus*.service"]
    except: ["dbus-*"]
    steps:
      - {when: "pss > 1M", do: {signal: SIGTERM, to: largest}}
      - {when: "anon > 2G and swap > 1M", for: 10s, do: stop}
  - name: none
    units: [nginx.service]
    steps: [{when: "anon > 1M", do: log}]
"""


@pytest.fixture
def file(tmp_path, monkeypatch, fake):
    """The policies' file, on a machine with dependents and a bus."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(POLICIES)
    fake.cgroup("/system.slice/dbus.service", current=1, anon=1)
    fake.unit("dbus.service", "/system.slice/dbus.service", sub_state="running")
    fake.unit("web.socket", sub_state="running")
    fake.unit("worker.service", sub_state="running")
    fake.unit("stopped.service", active_state="inactive")
    fake.manager.refusing = {"db.service"}
    fake.manager.dependencies = {
        "web.service": {
            "RequiredBy": ("stopped.service", "gone.service"),
            "BoundBy": ("worker.service",),
            "TriggeredBy": ("web.socket", "web.timer"),
        },
        "worker.service": {"ConsistsOf": ("db.service", "web.service")},
    }
    return "a.yaml"


def test_the_whole_plan(run, file, snapshot):
    ended = run("plan", file)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == snapshot


def test_json(run, file, snapshot):
    ended = run("plan", file, "--json")
    assert (ended.status, ended.err) == (0, "")
    assert json.loads(ended.out) == snapshot


def test_a_bad_file(run, tmp_path):
    (tmp_path / "bad.yaml").write_text("policies: []\n")
    ended = run("plan", str(tmp_path / "bad.yaml"))
    assert (ended.status, ended.out) == (78, "")
    assert ended.err.startswith(f"{tmp_path}/bad.yaml:1:11: ")


def test_without_a_manager_there_is_no_plan(run, fake, file):
    def connect(kind):
        raise BusError("the system bus can't be reached")

    ended = run("plan", file, machine=replace(fake.machine, connect=connect))
    assert (ended.status, ended.out, ended.err) == (1, "", "unitmem: the system bus can't be reached\n")


PICK = """\
policies:
  - name: short
    units: ["*.service"]
    steps:
      - when: "host.available < 1G"
        for: 10s
        pick: {by: anon, avoid: ["web*"]}
        do: stop
"""


def test_a_step_that_picks_says_who_comes_first(run, file, tmp_path):
    (tmp_path / "p.yaml").write_text(PICK)
    lines = run("plan", "p.yaml").out.splitlines()
    index = next(i for i, line in enumerate(lines) if "step 1:" in line)
    assert lines[index].endswith("for 10s: stop within 1min 30s, of one at a time, picked by anon")
    assert lines[index + 1].strip().startswith("picked first: ")
    (policy,) = json.loads(run("plan", "p.yaml", "--json").out)["policies"]
    pick = policy["steps"][0]["pick"]
    assert (pick["by"], pick["avoid"], pick["settle"]) == ("anon", ["web*"], 30.0)
    order = [each["unit"] for each in pick["order"]]
    protected = {unit["unit"] for unit in policy["units"] if unit["protected"]}
    assert order
    assert set(order).isdisjoint(protected)
    assert order[-1].startswith("web")
    values = [each["value"] for each in pick["order"] if not each["unit"].startswith("web")]
    assert values == sorted(values, reverse=True)
