"""`reset`: what a watch is asked, and how its answer is told."""

from __future__ import annotations

import json

import pytest

from unitmem.tell.interface import NO_SUCH_UNIT
from unitmem.tell.varlink import CallError

NOTHING = {"cooldowns": [], "budgets": [], "retries": [], "refusals": [], "file_budget": 0}


@pytest.fixture
def asked(serve):
    """What a watch named web was asked: units, and by whom."""
    asked = []

    def reset(unit, uid):
        asked.append(unit)
        if unit == "ssh.service":
            raise CallError(NO_SUCH_UNIT, message=f"no policy in web.yaml governs {unit}")
        if unit == "calm.service":
            return {"unit": unit, **NOTHING}
        return {
            "unit": unit,
            "cooldowns": [{"policy": "leak", "unit": "web.service", "left": 3600.0}],
            "budgets": [
                {"policy": "leak", "unit": "web.service", "actions": 1},
                {"policy": "leak", "unit": "api.service", "actions": 3},
            ],
            "retries": [],
            "refusals": [],
            "file_budget": 4,
        }

    serve("web", reset=reset)
    return asked


@pytest.mark.parametrize("instance", ["web", "unitmem@web", "unitmem@web.service"])
def test_what_was_given_back_is_a_line_for_each_unit(run, asked, instance):
    ended = run("reset", instance)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == (
        "gave 4 actions back to the file's budget\n"
        "api.service: gave 3 actions back to its budget in policy leak\n"
        "web.service: ended the cooldown of policy leak (1h left), gave 1 action back to its budget in policy leak\n"
    )
    assert asked == [None]


def test_as_json_it_is_the_answer_itself(run, asked):
    document = json.loads(run("reset", "web", "web", "--json").out)
    assert (document["instance"], document["unit"], document["file_budget"]) == ("web", "web.service", 4)
    assert document["cooldowns"] == [{"policy": "leak", "unit": "web.service", "left": 3600.0}]
    assert asked == ["web.service"]


def test_where_there_is_nothing_it_says_so_and_is_done(run, asked):
    ended = run("reset", "web", "calm")
    assert (ended.status, ended.out) == (0, "")
    assert ended.err.startswith("nothing to reset for calm.service alone; ")
    assert json.loads(run("reset", "web", "calm", "--json").out) == {
        "instance": "web",
        "unit": "calm.service",
        **NOTHING,
    }


@pytest.mark.parametrize(
    ("arguments", "status", "err"),
    [
        ("web ssh", 4, "no policy in web.yaml governs ssh.service\n"),
        ("web web*", 2, "'web*' is not the name of a unit\nWithout UNIT all units are reset.\n"),
        ("other", 1, "unitmem@other.service is not running\nStart one with `systemctl start unitmem@other.service`.\n"),
        ("../web", 2, "'../web' is not an instance of unitmem@.service\n`unitmem status` shows those that run.\n"),
        ("..", 2, "'..' is not an instance of unitmem@.service\n"),
        ("unitmem@.service", 2, "'unitmem@.service' is not an instance of unitmem@.service\n"),
        ("", 2, "missing argument 'INSTANCE'\n"),
    ],
)  # fmt: skip
def test_what_can_not_be_reset(run, asked, arguments, status, err):
    ended = run("reset", *arguments.split())
    assert (ended.status, ended.out) == (status, "")
    assert ended.err.startswith(f"unitmem: {err}")


def test_who_may_not_is_told_so(run, asked, monkeypatch):
    monkeypatch.setattr("unitmem.daemon.requests.os.geteuid", lambda: 4321)
    monkeypatch.setattr("unitmem.daemon.requests.ROOT", 4322)
    ended = run("reset", "web")
    assert (ended.status, ended.out, asked) == (1, "", [])
    assert ended.err.startswith("unitmem: only root and uid 4321 may reset this watch, not uid ")
    assert ended.err.endswith("\nRun it as root.\n")


def test_a_watch_that_does_not_answer_is_no_success(run, serve, monkeypatch):
    monkeypatch.setattr("unitmem.cli.reset.TIMEOUT", 0.2)
    serve("web")
    ended = run("reset", "web")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith(
        "unitmem: unitmem@web.service is running, but doesn't answer; its last tick was "
    )
