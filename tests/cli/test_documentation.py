"""What the manuals and the README say is what the program does."""

from __future__ import annotations

import re
from contextlib import redirect_stdout
from functools import cache
from io import StringIO

import pytest
from documents import CHECKOUT, PAGES, anchors, blocks, commands, links, policies

from unitmem.cli import VERBS, main
from unitmem.kernel.process import Process
from unitmem.measure.catalogue import MEASURES
from unitmem.policy import journal_fields
from unitmem.policy.actions import (
    ACTIONS,
    DEFAULT_END_TIMEOUT,
    DEFAULT_RECLAIM_TIMEOUT,
    DEFAULT_RUN_TIMEOUT,
    DEFAULT_STOP_TIMEOUT,
    LastResort,
    Log,
    Stop,
    Target,
)
from unitmem.policy.condition import Derivation, Finding, comparisons
from unitmem.policy.decision import Decision, Obstacle, Outcome, Refusal, Result, environment_of
from unitmem.policy.keys import names
from unitmem.policy.model import Mode
from unitmem.policy.state import GivenBack, Phase
from unitmem.policyfile import reader as config
from unitmem.policyfile.expression import parse_condition
from unitmem.policyfile.language import BUDGET_KEYS, FILE_KEYS, POLICY_KEYS, STEP_KEYS
from unitmem.simulate.lint import CODES, LintCode, review
from unitmem.tell import wording
from unitmem.tell.reset import reset_document, reset_entry
from unitmem.text import format_span
from unitmem.unit import Invocation, ManagerKind

COMMANDS = tuple(VERBS)
MANUAL = {
    path.removeprefix("man/").removesuffix(".md"): text
    for path, text in PAGES.items()
    if path.startswith("man/")
}
INVOCATION = Invocation("web.service", "1" * 32, 7)
FINDING = Finding(*comparisons(parse_condition("anon > 1G")), truth=True, value=2, threshold=1, unknown={})
EXAMPLES = sorted((CHECKOUT / "examples").glob("*.yaml"))


@cache
def helped(*command: str) -> str:
    with redirect_stdout(StringIO()) as out:
        assert main([*command, "--help"]) == 0
    return out.getvalue()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_in_the_manual_and_every_one_there_exists(command):
    options = set(re.findall(r"--[a-z][a-z-]+", helped(command)))
    synopsis = next(
        line for line in MANUAL["unitmem.1"].splitlines() if line.startswith(f"`unitmem {command}`")
    )
    assert {option for option in options - {"--help"} if option not in MANUAL["unitmem.1"]} == set()
    assert set(re.findall(r"--[a-z][a-z-]+", synopsis)) <= options


def test_the_manual_names_every_command():
    assert set(re.findall(r"^  (\w+)  ", helped(), re.MULTILINE)) >= set(COMMANDS)


@pytest.mark.parametrize(
    "words",
    [
        names(FILE_KEYS),
        names(POLICY_KEYS),
        names(STEP_KEYS),
        names(BUDGET_KEYS),
        tuple(ACTIONS),
        *(names(action.own_keys()) for action in ACTIONS.values() if action.own_keys()),
        (Derivation.GROWTH, Derivation.ETA),
        tuple(Target),
        tuple(Mode),
        tuple(LastResort),
    ],
    ids=lambda words: words[0],
)
def test_the_policy_manual_names_every_word_of_the_language(words):
    assert [word for word in words if not re.search(rf"`[^`]*\b{word}\b", MANUAL["unitmem.yaml.5"])] == []


def test_the_policy_manual_names_every_measure():
    spelled = MANUAL["unitmem.yaml.5"].replace("`pressure.some.avg10` … `pressure.full.avg300`", "")
    missing = [
        name for name in MEASURES if f"`{name}`" not in spelled and not re.match(r"(host\.)?pressure\.", name)
    ]
    assert missing == []


def test_the_policy_manual_explains_every_warning():
    assert re.findall(
        r"^\| `([a-z-]+)` \|.+\|.+\|$", MANUAL["unitmem.yaml.5"].partition("## WARNINGS")[2], re.MULTILINE
    ) == [
        *sorted(CODES - {LintCode.UNKNOWN_CODE, LintCode.UNUSED_IGNORE}),
        LintCode.UNKNOWN_CODE,
        LintCode.UNUSED_IGNORE,
    ]


def test_the_service_manual_names_the_message_ids():
    ids = [value for name, value in vars(journal_fields).items() if name.endswith("_MESSAGE_ID")]
    assert len(ids) == 5
    assert [message_id for message_id in ids if message_id not in MANUAL["unitmem@.service.8"]] == []


def test_the_service_manual_has_a_row_for_every_field():
    refusal = Refusal(Obstacle.PROTECTED, "it is")
    decision = Decision(0, "one", 0, Stop(), INVOCATION, 0, 0, (FINDING,), refusal=refusal)
    outcome = Outcome(decision, Result.VERIFIED, "", 0, process=Process(7, 1, "worker"))
    entries = [
        entry
        for manager in ManagerKind
        for entry in (wording.decision_entry(decision, manager), wording.outcome_entry(outcome, manager))
    ]
    spent = GivenBack({}, {("one", "web.service"): 1}, (), ())
    entries.append(reset_entry(reset_document(None, spent), 0, ManagerKind.SYSTEM))
    fields = {field for entry in entries for field in entry.fields}
    assert fields <= set(
        re.findall(r"`([A-Z_]+)`", section("## IN THE JOURNAL", MANUAL["unitmem@.service.8"]))
    )


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if [*policies(text)]])
def test_every_policy_shown_passes_the_check(page):
    for policy in policies(PAGES[page]):
        assert review(config.parse(policy)) == ()


def test_there_are_policies_where_one_is_looked_for():
    shown = {page: len([*policies(text)]) for page, text in PAGES.items()}
    assert min(shown[page] for page in ("README.md", "docs/tutorial.md", "man/unitmem.yaml.5.md")) > 0
    assert shown["docs/cookbook.md"] >= 6


def test_the_mistakes_that_the_readme_shows_are_told_so(run, tmp_path):
    file = tmp_path / "web.yaml"
    file.write_text(
        "policies:\n"
        "  - name: web-leak\n"
        '    units: ["web@*.service"]\n'
        "    steps:\n"
        '      - {when: "workingset > 70%", for: 1min, do: log}\n'
        '      - {when: "anon > 85% of limt", for: 30, do: {signal: SIGFOO, to: main}}\n'
    )
    told = run("check", str(file)).err.replace(str(file), "/etc/unitmem/web.yaml")
    assert "$ unitmem check /etc/unitmem/web.yaml\n" + told.rstrip() in [
        block.text for block in blocks(PAGES["README.md"])
    ]


@pytest.mark.parametrize("page", PAGES)
def test_every_call_of_unitmem_that_is_shown_can_be_made(page):
    for verb, *words in commands(PAGES[page]):
        if verb.startswith("-"):
            assert verb in helped()
            continue
        assert verb in COMMANDS
        options = set(re.findall(r"--[a-z][a-z-]+", helped(verb)))
        words = words[: words.index("--")] if "--" in words else words  # noqa: PLW2901
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options, verb


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    for link in links(PAGES[page]):
        path, _, anchor = link.partition("#")
        target = (CHECKOUT / page).parent / path if path else CHECKOUT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_passes_the_check(example):
    assert review(config.parse(example.read_text())) == ()


@pytest.mark.parametrize("page", MANUAL)
def test_the_manual_takes_no_emphasis_for_a_word(page):
    """Between words of plain text, `_` means emphasis to what renders the pages: CAP_KILL needs its backquotes."""
    plain = re.sub(r"^ {4}.*|`[^`]*`", "", MANUAL[page], flags=re.MULTILINE)
    assert re.findall(r"\S*_\S*", plain) == []


ONE = """\
policies:
  - name: one
    units: [web.service]
    steps: [{{when: {when}, do: {do}}}]
"""


def section(title: str, document: str = MANUAL["unitmem.yaml.5"]) -> str:
    """What stands below a heading, up to the next of its rank."""
    rank, _, _ = title.partition(" ")
    return re.split(rf"^{rank} ", document.partition(f"\n{title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def test_every_condition_shown_is_read():
    lines = blocks(section("## CONDITIONS"))[0].text.splitlines()
    inline = re.findall(r"`([^`]+ [<>]=? [^`]+)`", section("## CONDITIONS"))
    assert min(len(lines), len(inline)) > 3
    for condition in [*lines, *inline]:
        config.parse(ONE.format(when=f'"{condition}"', do="log"))


def test_every_action_shown_is_read_and_every_action_is_shown():
    heads = re.findall(r"^(`.*)\n:  ", section("## ACTIONS"), re.MULTILINE)
    shown = [action for head in heads for action in re.findall(r"`([^`]+)`", head)]
    steps = [config.parse(ONE.format(when='"anon > 1G"', do=do)).file.policies[0].steps[0] for do in shown]
    assert {type(step.action) for step in steps} == set(ACTIONS.values())


@pytest.mark.parametrize(
    ("action", "default"),
    [
        ("reclaim", DEFAULT_RECLAIM_TIMEOUT),
        ("signal", DEFAULT_END_TIMEOUT),
        ("freeze", DEFAULT_END_TIMEOUT),
        ("run", DEFAULT_RUN_TIMEOUT),
        ("restart", DEFAULT_STOP_TIMEOUT),
        ("stop", DEFAULT_STOP_TIMEOUT),
        ("kill", DEFAULT_END_TIMEOUT),
    ],
)
def test_the_policy_manual_names_every_timeout(action, default):
    entry = re.search(rf"^`{{?{action}[:`](?:.*\n)+?(?=^`|^###)", section("## ACTIONS"), re.MULTILINE)
    assert entry is not None
    spelled = {f"`timeout` ({format_span(default)}", f"`timeout` ({default:g}s"}
    assert any(form in entry[0] for form in spelled)


def test_the_policy_manual_names_every_variable_of_a_command():
    decision = Decision(0, "one", 0, Log(), INVOCATION, 0, 0, (FINDING,), content="/usr/bin/backup")
    table = section("### The environment of a command")
    assert set(re.findall(r"`(UNITMEM_\w+)`", table)) == environment_of(decision).keys()


@pytest.mark.parametrize("words", [Phase, Obstacle], ids=lambda words: words.__name__)
def test_the_policy_manual_has_a_row_for_every(words):
    rows = re.findall(r"^\| `([^`]+)` \|", section("### Phases"), re.MULTILINE)
    assert set(map(str, words)) <= set(rows)
