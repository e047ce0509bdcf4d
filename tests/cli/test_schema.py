"""The schema agrees with the reader of policy files: the same keys, and the same verdict on good and bad files."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from malformed import GOOD, MALFORMED

from unitmem.measure.catalogue import OPERANDS, Trait
from unitmem.policy.actions import ACTIONS
from unitmem.policy.keys import names
from unitmem.policyfile import nodes
from unitmem.policyfile import reader as config
from unitmem.policyfile.language import BUDGET_KEYS, FILE_KEYS, PICK_KEYS, POLICY_KEYS, STEP_KEYS
from unitmem.policyfile.schema import CONDITION, SIZE, SPAN, UNIT_PATTERN, policy_file_schema
from unitmem.text import QuantityError, parse_size, parse_span

SCHEMA = policy_file_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
POLICY = SCHEMA["properties"]["policies"]["items"]
STEP = POLICY["properties"]["steps"]["items"]
BARE, *WITH_KEYS = STEP["properties"]["do"]["oneOf"]
ACTION = {name: action for action in WITH_KEYS for name in action["required"]}
INNER = {
    name: next((part for part in inner.get("anyOf", [inner]) if "properties" in part), inner)
    for name, action in ACTION.items()
    for inner in [action["properties"][name]]
}

FILE = """\
interval: {interval}
policies:
  - name: {name}
    units: [{unit}]
    steps:
      - when: {when}
        for: {hold}
        do: {do}
{more}
"""
DEFAULTS = {
    "interval": "2s",
    "name": "one",
    "unit": "web.service",
    "when": '"workingset > 80% of limit"',
    "hold": "30s",
    "do": "log",
    "more": "",
}


def read_yaml(text: str | bytes) -> Any:
    return yaml.load(text, nodes.LOADER)  # a safe one; written in C, where there is that


def is_valid(text: str) -> bool:
    return VALIDATOR.is_valid(read_yaml(text))


def is_accepted(text: str) -> bool:
    try:
        config.parse(text)
    except nodes.PolicyProblemsError:
        return False
    return True


def test_it_is_a_schema(run):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(run("schema").out) == SCHEMA


@pytest.mark.parametrize(
    ("schema", "keys"),
    [
        (SCHEMA, names(FILE_KEYS)),
        (POLICY, names(POLICY_KEYS)),
        (STEP, names(STEP_KEYS)),
        (STEP["properties"]["pick"]["anyOf"][1], names(PICK_KEYS)),
        (SCHEMA["properties"]["budget"], names(BUDGET_KEYS)),
        (POLICY["properties"]["budget"], names(BUDGET_KEYS)),
        (ACTION["signal"], ("signal", "to", "timeout", "else")),
        (INNER["stop"], ("timeout", "else")),
        (INNER["restart"], ("timeout", "else")),
        (INNER["reclaim"], ("size", "timeout")),
        (INNER["run"], ("command", "timeout")),
        (INNER["set"], names(ACTIONS["set"].own_keys())),
    ],
)
def test_its_keys_are_the_readers(schema, keys):
    assert tuple(schema["properties"]) == keys
    assert schema["additionalProperties"] is False


def test_its_actions_are_the_readers():
    assert {*BARE["enum"], *ACTION} == set(ACTIONS)


def test_all_is_described():
    """Each key of the file has words that an editor can show."""

    def silent(schema):
        for key, inner in schema.get("properties", {}).items():
            texts = [part.get("description") for part in [inner, *inner.get("anyOf", [])]]
            if not any(texts) and "properties" not in inner:
                yield key
            yield from silent(inner)
        for inner in [schema.get("items"), *schema.get("oneOf", []), *schema.get("anyOf", [])]:
            if inner:
                yield from silent(inner)

    assert list(silent(SCHEMA)) == []


def test_a_default_is_what_could_be_written():
    """An editor that fills it in gets a file that means the same."""

    def defaults(schema):
        for inner in schema.get("properties", {}).values():
            if "default" in inner:
                yield inner
            yield from defaults(inner)
        for inner in [schema.get("items"), *schema.get("oneOf", []), *schema.get("anyOf", [])]:
            if inner:
                yield from defaults(inner)

    found = [*defaults(SCHEMA)]
    assert len(found) > 3
    for schema in found:
        assert jsonschema.Draft202012Validator(schema).is_valid(schema["default"]), schema


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"interval": "1min 30s"},
        {"interval": "500ms"},
        {"hold": "1.5h"},
        {"unit": '"web@*.service", x.slice'},
        {"unit": '"*"'},
        {"unit": r"dev-disk\x2da.swap"},
        {"unit": '"-.mount"'},
        {"when": '"not (pressure.full.avg10>40% and host.available < 10% of host.total)"'},
        {"when": '"events.oom_kill > 0 in 10min"'},
        {"do": "stop"},
        {"do": "{stop: }"},
        {"do": "{stop: {timeout: 30s, else: kill}}"},
        {"do": "{signal: SIGTERM}"},
        {"do": "{signal: usr1, to: largest}"},
        {"do": "{signal: SIGRTMIN, to: main}"},
        {"more": "    mode: observe\n    except: [a.service]\n    unprotect: [web.service]"},
        {
            "more": '    clear: "anon < 1G"\n    cooldown: 0s\n    budget: {actions: 10000, per: 1month}',
            "do": "stop",
        },
        {"more": "budget: {actions: 1, per: 1s}"},
        {"hold": "1s, repeat: 5min".replace(", ", "\n        ")},
        {"when": '"growth(anon, 10min) > 5M/min"'},
        {"when": '"not growth( process.pss , 1h 30min )<=0B/s"'},
        {"when": '"eta(limit)<5min or eta(high, 1h) < 1min 30s"'},
        {"do": "restart"},
        {"do": "kill"},
        {"do": "freeze"},
        {"do": "thaw"},
        {"do": "{restart: {else: kill}}"},
        {"do": "{kill: }"},
        {"do": "{freeze: {timeout: 3s}}"},
        {"do": "{signal: SIGTERM, to: largest, timeout: 1min, else: kill}"},
        {"do": "{reclaim: 64M}"},
        {"do": "{reclaim: {size: 1G 512M, timeout: 10s}}"},
        {"do": "{set: {MemoryHigh: 512M, MemoryMax: infinity, MemorySwapMax: 0B}}"},
        {"do": "{run: /usr/local/bin/dump}"},
        {"do": '{run: ["/opt/my tools/dump", "--keep", 5, true]}'},
        {"do": "{run: {command: /bin/dump, timeout: 1h}}"},
        {"do": "{run: {command: [/bin/dump], timeout: 1h}}"},
        {"unit": '"web@[!0-9]*.service", "a?.slice", "*b", "x*.s*"'},
        {"unit": "web@a@b.service, a@b@.service"},
    ],
)
def test_good_files(change):
    text = FILE.format(**DEFAULTS | change)
    assert is_valid(text), next(VALIDATOR.iter_errors(read_yaml(text)))
    assert is_accepted(text)


def is_seen(data: str | bytes) -> bool:
    """Whether the schema refuses it."""
    try:
        return not VALIDATOR.is_valid(read_yaml(data))
    except (yaml.YAMLError, ValueError, RecursionError):
        return False  # an editor's own YAML reader tells


def test_it_refuses_what_the_corpus_says_it_can_see():
    """And no more: what it can't is said there, so that nobody takes an editor's silence for a check."""
    assert [case.what for case in MALFORMED if is_seen(case.data) is not case.schema] == []


def test_it_takes_the_good_file_of_the_corpus():
    assert is_valid(GOOD)


@given(st.from_regex(re.compile(SPAN, re.ASCII), fullmatch=True) | st.text("0123456789. smhdwMyµun"))
def test_spans_are_the_readers(text):
    """But for what only counting tells: a span too long, or units in excess of what systemd holds."""
    try:
        parse_span(text)
    except QuantityError as error:
        if "longer than systemd" in str(error):
            return
        is_span = False
    else:
        is_span = True
    assert (re.fullmatch(SPAN, text.rstrip("\n"), re.ASCII) is not None) is is_span


@given(st.from_regex(re.compile(SIZE, re.ASCII), fullmatch=True) | st.text("0123456789. BKMGT"))
def test_sizes_are_the_readers(text):
    """But for the order of units, and sizes that no machine has."""
    try:
        parse_size(text)
    except QuantityError as error:
        if re.search("out of order|more than 16E|more digits", str(error)):
            return
        is_size = False
    else:
        is_size = True
    assert (re.fullmatch(SIZE, text.rstrip("\n"), re.ASCII) is not None) is is_size


@given(
    st.text("web@*?[]!-.:\\\\ /é", max_size=12).map(lambda text: f"a{text}")
    | st.builds(
        "{}.{}".format,
        st.text("wb@*?[]!. ", min_size=1, max_size=8),
        st.sampled_from(["service", "slice", "timer", "s*"]),
    )
)
def test_unit_patterns_are_the_readers(text):
    quoted = json.dumps(text, ensure_ascii=False)
    is_pattern = is_accepted(FILE.format(**DEFAULTS | {"unit": quoted}))
    assert (re.search(UNIT_PATTERN, text) is not None) is is_pattern


def test_growth_is_of_the_measures_that_grow():
    growing = {name for name, measure in OPERANDS.items() if Trait.GROWS in measure.traits}
    texts = {name: f"growth({name}, 10min) > 5M/min" for name in OPERANDS}
    assert {name for name, text in texts.items() if re.search(CONDITION, text)} == growing
    files = {name: FILE.format(**DEFAULTS | {"when": f'"{text}"'}) for name, text in texts.items()}
    assert {name for name, text in files.items() if is_accepted(text)} == growing


def test_the_examples_of_the_manual():
    page = (Path(__file__).parents[2] / "man/unitmem.yaml.5.md").read_text()
    blocks = re.findall(r"(?:^(?: {4}.*)?\n)+", page, re.MULTILINE)
    examples = [
        textwrap.dedent(block) for block in blocks if re.search(r"^    policies:", block, re.MULTILINE)
    ]
    assert examples
    for example in examples:
        assert is_valid(example), example
