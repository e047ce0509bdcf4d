"""JSON Schema (draft 2020-12) of policy files, for completion and errors in editors.

`reader` checks more than a schema can: whole conditions, duplicate keys, duplicate names.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Sequence
from typing import Any

from unitmem.measure.catalogue import OPERANDS
from unitmem.policy.action import Action
from unitmem.policy.actions import ACTIONS, DEFAULT_STOP_TIMEOUT
from unitmem.policy.condition import FUNCTIONS, GROWING_RANKS, RANKS, SLOPES
from unitmem.policy.keys import Choice, Count, Items, Key, Part, Size, Span, Syntax, Value, required
from unitmem.policyfile.language import (
    BUDGET_KEYS,
    FILE_KEYS,
    PICK_KEYS,
    POLICY_KEYS,
    POLICY_NAME,
    STEP_KEYS,
    UNIT_CHARACTER,
    UNIT_GLOB,
)
from unitmem.text import SIZE_UNITS, SPAN_UNITS, format_span
from unitmem.unit import CGROUP_KINDS

Schema = dict[str, Any]

# [0-9] rather than \d, which is any script's digits to some and ASCII's to others
_SPAN_TERM = rf"[0-9]+(\.[0-9]+)?\s*({'|'.join(sorted(SPAN_UNITS, key=len, reverse=True))})"
SPAN = rf"^\s*{_SPAN_TERM}(\s*{_SPAN_TERM})*\s*$"
"""A pattern for what `text.parse_span` reads."""

_KINDS = "|".join(sorted(CGROUP_KINDS))
UNIT_NAME = rf"^(?![^@]*@\.[a-z]+$)[A-Za-z0-9:_\\-]{UNIT_CHARACTER}*\.({_KINDS})$"
"""A unit name with its kind, other than a template's."""
_ODD_KIND = rf"\.(?!({_KINDS})$)[^.*?\[\]!]*$"
UNIT_PATTERN = rf"{UNIT_NAME}|^(?=.*[*?\[])(?!.*{_ODD_KIND}){UNIT_GLOB.pattern}$"
"""A unit name with its kind, or a glob that can match one."""

_SIZE_TERM = rf"[0-9]+(\.[0-9]+)?\s*[{''.join(SIZE_UNITS)}]"
SIZE = rf"^\s*{_SIZE_TERM}(\s*{_SIZE_TERM})*\s*$"
"""A pattern for what `text.parse_size` reads."""

_MEASURE = "|".join(map(re.escape, OPERANDS))


def _function(name: str, operands: Iterable[str], *, takes_span: bool) -> str:
    span = ",[^)]+" if takes_span else "(,[^)]+)?"
    return rf"{name}\s*\(\s*({'|'.join(map(re.escape, operands))})\s*{span}\)"


_SUBJECT = "|".join(
    [
        _MEASURE,
        *(
            _function(name, function.operands, takes_span=function.default_span is None)
            for name, function in FUNCTIONS.items()
        ),
    ]
)
CONDITION = rf"(^|[\s(])({_SUBJECT})\s*[<>]=?\s*[0-9]"
"""A pattern that finds any comparison of a measure; it is not the grammar."""
RANK = rf"^\s*({'|'.join([*map(re.escape, RANKS), *(_function(name, GROWING_RANKS, takes_span=True) for name in SLOPES)])})\s*$"
"""A pattern for what units can be ranked by."""


def policy_file_schema() -> Schema:
    """Return the schema of a policy file, as a JSON document."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "unitmem policy file",
        "description": "Which systemd units are governed, when their memory is too much, and what is then done.",
        **_object(FILE_KEYS),
    }


def _object(keys: Sequence[Key]) -> Schema:
    return {
        "type": "object",
        "properties": {key.name: _key(key) for key in keys},
        "required": list(required(keys)),
        "additionalProperties": False,
    }


def _key(key: Key) -> Schema:
    schema = _value(key.value, key.meaning)
    if key.default is not None:
        schema["default"] = _span(key.default) if isinstance(key.value, Span) else str(key.default)
    return schema | ({"examples": list(key.examples)} if key.examples else {})


def _span(seconds: float) -> str:
    """Return a span as text, with a unit even if it is 0."""
    return format_span(seconds) if seconds else "0s"


def _value(value: Value, meaning: str) -> Schema:
    """Return the schema of a value, with its description."""
    match value:
        case Span():
            return _text(f"{meaning} A span of systemd.time(7), such as 30s or 1min 30s.", SPAN)
        case Size(or_infinity=or_infinity):
            size = _text(f"{meaning} A size with its unit, such as 512M.", SIZE)
            return {"anyOf": [{"const": "infinity"}, size]} if or_infinity else size
        case Count(most):
            return {"type": "integer", "minimum": 1, "maximum": most, "description": meaning}
        case Choice(of):
            return {"enum": [str(member) for member in of], "description": meaning}
        case Items(of, item):
            return {"type": "array", "description": meaning, "items": _value(of, item), "minItems": 1}
        case Syntax():
            return _syntax(value, meaning)
        case Part.POLICY:
            return _object(POLICY_KEYS)
        case Part.STEP:
            return _object(STEP_KEYS)
        case Part.BUDGET:
            return _object(BUDGET_KEYS) | {"description": meaning}
        case Part.PICK:
            return {"anyOf": [_text(meaning, RANK), _object(PICK_KEYS)]}
        case Part.ACTION:
            bare = [action.keyword for action in ACTIONS.values() if not action.question]
            description = f"`stop` waits {format_span(DEFAULT_STOP_TIMEOUT)} and does not kill."
            with_keys = [_action(action) for action in ACTIONS.values() if action.own_keys()]
            return {"description": meaning, "oneOf": [{"enum": bare, "description": description}, *with_keys]}


def _syntax(syntax: Syntax, meaning: str) -> Schema:
    match syntax:
        case Syntax.POLICY_NAME:
            return _text(meaning, f"^{POLICY_NAME.pattern}$")
        case Syntax.UNIT_PATTERN:
            return _text(meaning, UNIT_PATTERN)
        case Syntax.UNIT_NAME:
            return _text(meaning, UNIT_NAME)
        case Syntax.CONDITION:
            return _text(meaning, CONDITION)
        case Syntax.RANK:
            return _text(meaning, RANK)
        case Syntax.SIGNAL:
            signals = [number.name for number in signal.Signals]
            # the first is what editors offer; case and SIG don't matter to the reader
            forms = [{"enum": signals}, {"type": "string", "pattern": _any_case(signals)}]
            return {"description": meaning, "anyOf": forms}
        case Syntax.COMMAND:
            listed = {
                "type": "array",
                "description": meaning,
                "prefixItems": [{"type": "string", "pattern": "^/.*[^/]$"}],
                "items": {"type": ["string", "number", "boolean"], "pattern": r"\S"},
                "minItems": 1,
            }
            return {"anyOf": [listed, {"type": "string", "pattern": r"^/\S*[^\s/]$"}]}


def _action(action: type[Action]) -> Schema:
    """Return the schema of an action with its keys, beside its keyword or in a mapping or single value below it."""
    block = _object(action.own_keys())
    if action.is_flat:
        return block
    if not action.question:
        block["type"] = ["object", "null"]
    elif not block["required"]:
        block |= {"description": action.meaning, "minProperties": 1}
    main = action.main_key()
    if main is not None:
        short = _value(main.value, main.meaning)
        block = {"anyOf": [*short.get("anyOf", [short]), block]}
    return {
        "type": "object",
        "properties": {action.keyword: block},
        "required": [action.keyword],
        "additionalProperties": False,
    }


def _text(description: str, pattern: str) -> Schema:
    return {"type": "string", "description": description, "pattern": pattern}


def _any_case(names: Iterable[str]) -> str:
    """Return a pattern for the signals `names`, with and without SIG, in any case: schema patterns have no flags."""

    def spell(name: str) -> str:
        return "".join(f"[{c}{c.lower()}]" if c.isalpha() else c for c in name)

    return rf"^({spell('SIG')})?({'|'.join(spell(name.removeprefix('SIG')) for name in names)})$"
