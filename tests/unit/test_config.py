"""Policy files: what is read, and every way to break one, each with its place and a way out."""

from __future__ import annotations

import re
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from malformed import GOOD, MALFORMED

from unitmem.errors import PolicyFileError
from unitmem.policy.actions import (
    ACTIONS,
    Freeze,
    Kill,
    LastResort,
    Log,
    Reclaim,
    Restart,
    Run,
    SetProperties,
    Signal,
    Stop,
    Target,
    Thaw,
)
from unitmem.policy.condition import comparisons
from unitmem.policy.model import Budget, Mode
from unitmem.policyfile.nodes import MAX_MESSAGE, PolicyProblemsError
from unitmem.policyfile.reader import load, parse
from unitmem.text import parse_size

M = 2**20
ONE = """\
policies:
  - name: one
    units: {units}
    steps:
      - {{when: {when}, do: {do}}}
{more}
"""


def one(units='["web.service"]', when='"anon > 1G"', do="log", more=""):
    """A file of one policy, which reads well unless an argument doesn't."""
    return ONE.format(units=units, when=when, do=do, more=more)


def test_a_file_is_read():
    file = parse(GOOD).file
    (policy,) = file.policies
    assert (file.interval, file.budget) == (2, Budget(20, 86400))
    assert (policy.name, policy.mode, policy.cooldown) == ("web", Mode.OBSERVE, 600)
    assert (policy.units, policy.excluded) == (("web@*.service", "db.service"), ("web@0.service",))
    assert policy.unprotect == {"db.service"}
    assert [str(comparison) for comparison in comparisons(policy.clear)] == ["anon < 1.0G"]
    assert policy.budget == Budget(3, 3600)
    assert [step.action for step in policy.steps] == [
        Log(),
        Reclaim(64 * M, 10),
        SetProperties((("MemoryHigh", 512 * M), ("MemorySwapMax", None))),
        Signal(signal.SIGTERM, Target.LARGEST, 5, LastResort.KILL),
        Signal(signal.SIGUSR1),
        Freeze(),
        Thaw(3),
        Run(("/bin/dump", "--all"), 60),
        Restart(120, LastResort.KILL),
        Stop(30, LastResort.KILL),
        Kill(),
    ]
    assert [step.hold for step in policy.steps] == [60] + [0] * 10
    assert [step.repeat for step in policy.steps] == [300] + [None] * 10


@pytest.mark.parametrize(
    ("do", "action"),
    [
        ("stop", Stop()),
        ("{stop: }", Stop()),
        ("{stop: {}}", Stop()),
        ("restart", Restart()),
        ("{restart: {timeout: 1min}}", Restart(60)),
        ("kill", Kill()),
        ("{kill: {timeout: 3s}}", Kill(3)),
        ("freeze", Freeze()),
        ("{thaw: }", Thaw()),
        ("{signal: kill, to: all}", Signal(signal.SIGKILL, Target.ALL)),
        ("{signal: RTMIN}", Signal(signal.SIGRTMIN)),
        ("{reclaim: 1.5G}", Reclaim(parse_size("1.5G"))),
        ("{set: {MemorySwapMax: 0B}}", SetProperties((("MemorySwapMax", 0),))),
        ("{run: /bin/dump}", Run(("/bin/dump",))),
        (
            '{run: ["/opt/my tools/dump", 10, yes, 010, 10:30]}',
            Run(("/opt/my tools/dump", "10", "yes", "010", "10:30")),
        ),
        ("{run: {command: /bin/dump, timeout: 1h}}", Run(("/bin/dump",), 3600)),
    ],
)
def test_an_action_is_read(do, action):
    (policy,) = parse(one(do=do)).file.policies
    assert policy.steps[0].action == action


@pytest.mark.parametrize("action", ACTIONS.values(), ids=list(ACTIONS))
def test_what_a_message_shows_of_an_action_is_read_as_that(action):
    spelled = [action.example or action.keyword, action.question.partition(" write ")[2] or action.keyword]
    for do in spelled:
        (policy,) = parse(one(do=do)).file.policies
        assert type(policy.steps[0].action) is action


def test_actions_are_listed_from_mild_to_harsh():
    severities = [action.severity for action in ACTIONS.values()]
    assert severities == sorted(severities)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + one(),
        one().replace("\n", "\r\n"),
        one(units="&units [web.service]", more="    except: *units"),
        one().replace(
            '{when: "anon > 1G", do: log}',
            "when: >-\n          anon > 1G\n          and swap > 1G\n        do: log",
        ),
        one(when="anon >\u00a01G"),
    ],
    ids=[
        "a mark of order",
        "lines as in DOS",
        "an anchor and an alias",
        "a condition in lines",
        "a wide space",
    ],
)
def test_what_yaml_allows_and_misleads_nobody_is_read(text):
    assert len(parse(text.encode()).file.policies[0].steps) == 1


def test_a_step_that_reads_as_another_in_its_own_place_is_the_same():
    assert parse("# moved\n" + GOOD).file == parse(GOOD).file


# --- what is refused ---------------------------------------------------------------------------


def test_the_corpus_is_of_files_that_differ():
    assert len({case.what for case in MALFORMED}) == len(MALFORMED)
    assert len({case.data for case in MALFORMED}) == len(MALFORMED)
    assert parse(GOOD).warnings == ()


@pytest.mark.parametrize("case", MALFORMED, ids=lambda case: case.what)
def test_a_broken_file_is_told_with_its_place_and_a_way_out(case):
    """One mistake as one, also where a whole list is another kind of thing; what is missing is told item by item."""
    with pytest.raises(PolicyProblemsError) as refused:
        parse(case.data, "web.yaml")
    told = [problem for problem in refused.value.problems if problem.line == case.line]
    (problem,) = [problem for problem in told if case.says in problem.message]
    assert case.column in (None, problem.column)
    assert problem.at("web.yaml") in str(refused.value)
    assert all(len(problem.message) < MAX_MESSAGE + 10 for problem in refused.value.problems)
    missing = [problem for problem in refused.value.problems if "add it" in problem.message]
    assert len(set(refused.value.problems) - set(missing)) <= 1 or case.what in SEVERAL


SEVERAL = {"a laugh", "eta at a slow tick"}


def test_every_mistake_is_told_at_once():
    text = (
        GOOD.replace("SIGUSR1", "SIGFOO")
        .replace("for: 1min", "for: 60")
        .replace("observe", "dry")
        .replace('["db.', '["d b.')
        .replace("per: 1h", "per: 0s")
    )
    with pytest.raises(PolicyProblemsError) as refused:
        parse(text)
    assert [problem.line for problem in refused.value.problems] == [7, 8, 11, 13, 17]


def test_what_an_alias_repeats_is_told_once():
    with pytest.raises(PolicyProblemsError) as refused:
        parse(one(units="&units [web]", more="    except: *units\n    unprotect: *units"))
    (problem,) = refused.value.problems
    assert (problem.line, problem.column) == (3, 20)


def test_the_slowest_tick_for_a_slope_is_a_quarter_of_its_span():
    """As many points as a slope takes fit into it, and no fewer."""
    growth = one(when='"growth(anon, 1min) > 5M/min"')
    assert parse("interval: 15s\n" + growth).file.interval == 15
    with pytest.raises(PolicyProblemsError, match="write a span of 1min 4s or more"):
        parse("interval: 16s\n" + growth)


KINDS = ["service", "scope", "slice", "mount", "socket", "swap"]


@pytest.mark.parametrize(
    ("do", "kinds"),
    [
        ("{signal: SIGTERM, to: main}", {"service"}),
        ("{signal: SIGTERM, to: control}", {"service", "socket", "mount", "swap"}),
        ("{signal: SIGTERM, to: all}", set(KINDS)),
        ("{signal: SIGTERM, to: largest}", set(KINDS)),
        ("restart", set(KINDS) - {"scope"}),
        *(
            (do, set(KINDS))
            for do in ("log", "stop", "kill", "freeze", "thaw", "{reclaim: 64M}", "{run: /bin/dump}")
        ),
    ],
)
def test_an_action_is_for_the_kinds_that_can_take_it(do, kinds):
    assert {kind for kind in KINDS if is_read(one(units=f"[a.{kind}]", do=do))} == kinds
    # one that can is enough, and a glob may mean any
    assert all(is_read(one(units=f"[a.{kind}, b.service]", do=do)) for kind in KINDS)
    assert is_read(one(units='["a*"]', do=do))


@pytest.mark.parametrize(
    ("do", "repeats"),
    [
        *(
            (do, True)
            for do in ("log", "{signal: SIGUSR1}", "{signal: SIGTERM}", "{reclaim: 64M}", "{run: /bin/dump}")
        ),
        *((do, False) for do in ("stop", "restart", "kill", "freeze", "thaw", "{set: {MemoryHigh: 1G}}")),
    ],
)
def test_what_may_be_done_again_in_an_episode(do, repeats):
    assert is_read(one(do=f"{do}, repeat: 5min")) is repeats
    assert is_read(one(do=do))


def is_read(text):
    try:
        parse(text)
    except PolicyProblemsError:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (one(when='"anon > 100% of limit"'), "can never be true"),
        (one(when='"anon < 0B"'), "can never be true"),
        (one(when='"pressure.some.avg10 > 100%"'), "can never be true"),
        (one(more='    clear: "anon < 0B"'), "can never be true"),
        (one(units="[web@*.service]"), "not quoted"),
        (one(more="    unprotect: [dbus.service]"), "does not govern it"),
    ],
)
def test_a_doubt_is_a_warning_and_the_file_runs(text, says):
    (warning,) = parse(text).warnings
    assert says in warning.message


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(PolicyFileError, match="No such file") as refused:
        load(tmp_path / "web.yaml")
    assert refused.value.exit_status == 78


# --- whatever is written -----------------------------------------------------------------------

VALUES = [
    "~",
    "-1",
    "0",
    "1e999",
    "0x1F",
    "010",
    "10:30",
    ".nan",
    "yes",
    "2024-01-01",
    "[]",
    "{}",
    "''",
    "!x y",
    "*a",
    "|",
    "\t",
    "%",
]


def refusal(data):
    """Try `data`, which is read, or refused in one way and at places within it."""
    try:
        parse(data)
        return
    except PolicyProblemsError as error:
        problems = error.problems
    assert problems
    assert {1 <= problem.line <= len(data.splitlines()) + 1 for problem in problems} == {True}
    assert {problem.column >= 1 for problem in problems} == {True}


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_anything_is_read_or_refused(data):
    refusal(data)


@given(st.text(st.characters(), max_size=50))
def test_half_a_character_is_refused_as_any_other_text(text):
    refusal(text + "\ud800")


@given(st.data())
def test_a_good_file_with_a_piece_cut_out_is_read_or_refused(data):
    start = data.draw(st.integers(0, len(GOOD)))
    end = data.draw(st.integers(start, len(GOOD)))
    refusal(GOOD[:start] + GOOD[end:])


@given(st.data())
def test_a_good_file_with_a_piece_in_the_place_of_another_is_read_or_refused(data):
    """A word or a value of YAML's where another word stood."""
    words = re.split(r"(\W+)", GOOD)
    place = data.draw(st.integers(0, len(words) - 1))
    words[place] = data.draw(st.sampled_from(VALUES) | st.sampled_from(words))
    refusal("".join(words))
