"""JSON Schema (draft 2020-12) of policy files, so that editors complete and underline.

It says what a schema can say. `config` is the judge, and knows more: conditions as a whole, keys
given twice, names that repeat.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from unitmem.measure.catalogue import MEASURES, Trait, with_trait
from unitmem.policy.actions import DEFAULT_STOP_TIMEOUT, SETTABLE, LastResort, Target
from unitmem.policy.condition import ETA_TARGETS
from unitmem.policy.model import DEFAULT_INTERVAL, Mode
from unitmem.policyfile.reader import (
    MAX_ACTIONS,
    MAX_INTERVAL,
    MIN_INTERVAL,
    POLICY_NAME,
    UNIT_CHARACTER,
    UNIT_GLOB,
)
from unitmem.quantity import SIZE_UNITS, SPAN_UNITS, format_span
from unitmem.unit import CGROUP_KINDS

Schema = dict[str, Any]

# [0-9] rather than \d, which is any script's digits to some and ASCII's to others
_SPAN_TERM = rf"[0-9]+(\.[0-9]+)?\s*({'|'.join(sorted(SPAN_UNITS, key=len, reverse=True))})"
SPAN = rf"^\s*{_SPAN_TERM}(\s*{_SPAN_TERM})*\s*$"
"""As `quantity.parse_span` takes it."""

_KINDS = "|".join(sorted(CGROUP_KINDS))
UNIT_NAME = rf"^(?![^@]*@\.[a-z]+$)[A-Za-z0-9:_\\-]{UNIT_CHARACTER}*\.({_KINDS})$"
"""A name with its kind, and no template's."""
_ODD_KIND = rf"\.(?!({_KINDS})$)[^.*?\[\]!]*$"
UNIT_PATTERN = rf"{UNIT_NAME}|^(?=.*[*?\[])(?!.*{_ODD_KIND}){UNIT_GLOB.pattern}$"
"""A name with its kind, or a glob that can match one."""

_SIZE_TERM = rf"[0-9]+(\.[0-9]+)?\s*[{''.join(SIZE_UNITS)}]"
SIZE = rf"^\s*{_SIZE_TERM}(\s*{_SIZE_TERM})*\s*$"
"""As `quantity.parse_size` takes it."""

_MEASURE = "|".join(map(re.escape, MEASURES))
_GROWTH = rf"growth\s*\(\s*({'|'.join(with_trait(Trait.GROWS))})\s*,[^)]+\)"
_ETA = rf"eta\s*\(\s*({'|'.join(ETA_TARGETS)})\s*(,[^)]+)?\)"
CONDITION = rf"(^|[\s(])({_MEASURE}|{_GROWTH}|{_ETA})\s*[<>]=?\s*[0-9]"
"""Not a grammar: any comparison of a measure, somewhere."""


def policy_file_schema() -> Schema:
    """The schema of a whole file, as JSON takes it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "unitmem policy file",
        "description": "Which systemd units are governed, when their memory is too much, and what is then done.",
        **_object(
            {
                "interval": _span(
                    "The time between two ticks; kernel events and the service manager cause earlier ones. "
                    f"From {format_span(MIN_INTERVAL)} to {format_span(MAX_INTERVAL)}.",
                    default=DEFAULT_INTERVAL,
                ),
                "budget": _budget("For all policies and units together."),
                "policies": _list("Each is a ladder of steps over a set of units.", _policy()),
            },
            required=("policies",),
        ),
    }


def _policy() -> Schema:
    return _object(
        {
            "name": {
                "type": "string",
                "description": "The journal tells by it which policy acted. Unique in its file.",
                "pattern": f"^{POLICY_NAME.pattern}$",
            },
            "units": _list(
                "Names with their kind, or shell globs in quotes. Each unit that matches is governed on its own.",
                _text('Such as web.service or "api@*.service".', UNIT_PATTERN),
            ),
            "except": _list(
                "Units that match here are not governed.", _text("A name or a glob.", UNIT_PATTERN)
            ),
            "unprotect": _list(
                "Protected units that this policy may touch all the same, each named exactly.",
                _text("A name, no glob.", UNIT_NAME),
            ),
            "mode": _choice("`observe` decides and tells everything, and does nothing.", Mode, Mode.ACT),
            "steps": _list("The ladder, mildest step first. Each fires once an episode.", _step()),
            "clear": _text(
                "What ends an episode; without it, that no step's condition holds.",
                CONDITION,
                examples=["workingset < 60% of limit"],
            ),
            "cooldown": _span("After an episode, how long no new one begins for that unit.", default=0.0),
            "budget": _budget("For each unit on its own."),
        },
        required=("name", "units", "steps"),
    )


def _step() -> Schema:
    return _object(
        {
            "when": _text(
                "Comparisons of measures, joined by `and`, `or`, `not` and parentheses. What is unknown is not "
                f"true. Measures: {', '.join(MEASURES)}.",
                CONDITION,
                examples=[
                    "unreclaimable > 85% of limit",
                    "process.pss > 512M",
                    "pressure.full.avg10 > 40%",
                    "events.oom_kill > 0 in 10min",
                ],
            ),
            "for": _span("How long the condition has to hold, at every tick. Without it, once is enough."),
            "repeat": _span("How long after it fired it fires again, while the condition holds."),
            "do": {
                "description": "What is then done, to the run of the unit that breached and to no other.",
                "oneOf": [
                    {
                        "enum": ["log", "stop", "restart", "kill", "freeze", "thaw"],
                        "description": f"`stop` waits {format_span(DEFAULT_STOP_TIMEOUT)} and does not kill.",
                    },
                    _signal(),
                    *(_object({name: _end()}, required=(name,)) for name in ("stop", "restart")),
                    *(
                        _object(
                            {name: _object({"timeout": _span(_TIMEOUT)}, nullable=True)}, required=(name,)
                        )
                        for name in ("kill", "freeze", "thaw")
                    ),
                    _object({"reclaim": _either(_size(_RECLAIM), _reclaim())}, required=("reclaim",)),
                    _object({"set": _set()}, required=("set",)),
                    _object({"run": _either(_command(), _absolute(), _run())}, required=("run",)),
                ],
            },
        },
        required=("when", "do"),
    )


def _signal() -> Schema:
    names = [number.name for number in signal.Signals]
    return _object(
        {
            "signal": {
                "description": "The signal's name.",
                # the first is what editors offer; case and SIG don't matter to the reader
                "anyOf": [{"enum": names}, {"type": "string", "pattern": _any_case(names)}],
            },
            "to": _choice("Which of the unit's processes.", Target, Target.MAIN),
            "timeout": _span("How long a process that it is to end may take."),
            "else": _choice("What then, to the same process.", LastResort),
        },
        required=("signal",),
    )


_TIMEOUT = "How long it may take until it counts as failed."
_RECLAIM = "How much the kernel is to take back."


def _end() -> Schema:
    return _object(
        {
            "timeout": _span(_TIMEOUT, default=DEFAULT_STOP_TIMEOUT),
            "else": _choice("What then; without it, the failure is told and no more.", LastResort),
        },
        nullable=True,
    )


def _reclaim() -> Schema:
    return _object({"size": _size(_RECLAIM), "timeout": _span(_TIMEOUT)}, required=("size",))


def _set() -> Schema:
    properties = {
        name: _either({"const": "infinity"}, _size(f"{name}= of systemd.resource-control(5)."))
        for name in SETTABLE
    }
    return _object(properties) | {
        "description": "Set at run time, and set back when the episode ends.",
        "minProperties": 1,
    }


def _run() -> Schema:
    return _object(
        {"command": _either(_command(), _absolute()), "timeout": _span("When it is killed.")},
        required=("command",),
    )


def _command() -> Schema:
    return {
        "type": "array",
        "description": "A program by its absolute path, and its arguments; there is no shell.",
        "prefixItems": [{"type": "string", "pattern": "^/.*[^/]$"}],
        "items": {"type": ["string", "number", "boolean"], "pattern": r"\S"},
        "minItems": 1,
    }


def _absolute() -> Schema:
    return {"type": "string", "pattern": r"^/\S*[^\s/]$"}


def _budget(description: str) -> Schema:
    return _object(
        {
            "actions": {
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_ACTIONS,
                "description": "How many; logging is none.",
            },
            "per": _span("In what time."),
        },
        required=("actions", "per"),
    ) | {"description": f"At most so many actions in a span. {description}"}


def _either(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def _size(description: str) -> Schema:
    return _text(f"{description} A size with its unit, such as 512M.", SIZE)


def _object(
    properties: Mapping[str, Schema], *, required: Iterable[str] = (), nullable: bool = False
) -> Schema:
    return {
        "type": ["object", "null"] if nullable else "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def _list(description: str, items: Schema) -> Schema:
    return {"type": "array", "description": description, "items": items, "minItems": 1}


def _text(description: str, pattern: str, examples: Iterable[str] = ()) -> Schema:
    schema: Schema = {"type": "string", "description": description, "pattern": pattern}
    return schema | ({"examples": list(examples)} if examples else {})


def _span(description: str, default: float | None = None) -> Schema:
    schema = _text(f"{description} A span of systemd.time(7), such as 30s or 1min 30s.", SPAN)
    return schema if default is None else schema | {"default": format_span(default)}


def _choice(description: str, of: type[StrEnum], default: StrEnum | None = None) -> Schema:
    schema: Schema = {"enum": [str(member) for member in of], "description": description}
    return schema if default is None else schema | {"default": str(default)}


def _any_case(names: Iterable[str]) -> str:
    """A pattern for `names`, with and without SIG, in any case: the regular expressions here have no flags."""

    def spell(name: str) -> str:
        return "".join(f"[{c}{c.lower()}]" if c.isalpha() else c for c in name)

    return rf"^({spell('SIG')})?({'|'.join(spell(name.removeprefix('SIG')) for name in names)})$"
