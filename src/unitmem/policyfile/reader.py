"""A policy file: YAML to policies, or every mistake in it with its place and what to write instead.

Works on YAML's nodes rather than on values: nodes know their line and column, show a key given twice,
and leave `512M`, `on` and `10:30` as they were written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from unitmem.errors import PolicyFileError
from unitmem.measure.catalogue import MEASURES, Trait
from unitmem.policy.actions import Log, Reclaim, Run, Signal, action_name
from unitmem.policy.condition import Comparison, Condition, Derivation, comparisons
from unitmem.policy.model import DEFAULT_INTERVAL, Budget, Mode, Policy, PolicyFile, Step
from unitmem.policy.trends import MIN_POINTS
from unitmem.policyfile.actions import ActionReader, kinds_of
from unitmem.policyfile.expression import ConditionError, parse_condition
from unitmem.policyfile.nodes import (
    LOADER,
    NOT_UTF8,
    NULL_TAG,
    PolicyProblemsError,
    Problem,
    beyond_policies,
    column_within,
    is_plain,
    yaml_problem,
)
from unitmem.policyfile.warnings import Code, Ignore, ignores
from unitmem.quantity import format_span
from unitmem.text import quoted
from unitmem.unit import CGROUP_KINDS, is_glob, is_unit_name, unit_kind

FILE_KEYS = ("interval", "budget", "policies")
POLICY_KEYS = ("name", "units", "except", "unprotect", "mode", "steps", "clear", "cooldown", "budget")
STEP_KEYS = ("when", "for", "repeat", "do")
BUDGET_KEYS = ("actions", "per")

MIN_INTERVAL, MAX_INTERVAL = 0.1, 3600.0
MAX_FILE_SIZE = 1 << 20  # a file of policies is written by hand; more is a mistake
MAX_ACTIONS = 10_000
MIN_TICKS_A_SLOPE = MIN_POINTS - 1

UNIT_CHARACTER = r"[A-Za-z0-9:_.\\@-]"
UNIT_GLOB = re.compile(rf"(?:{UNIT_CHARACTER}|[*?]|\[!?{UNIT_CHARACTER}+\])+", re.ASCII)
POLICY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)

_DEEPEST_PART = len(("policies", 0, "steps", 0, "when"))
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


Keys = tuple[str | int, ...]
"""The way to a part of a file: `("policies", 0, "steps", 1, "when")`."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A policy file that may run, and what looks odd in it all the same."""

    file: PolicyFile
    doubts: tuple[Problem, ...]
    """Every warning, also those that a comment silences."""
    ignores: tuple[Ignore, ...] = ()
    places: Mapping[Keys, tuple[int, int]] = field(default_factory=dict)
    """The line and column of each part, from 1."""

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """Those that no comment silences."""
        return tuple(doubt for doubt in self.doubts if not is_silenced(doubt, self.ignores))

    def place(self, *keys: str | int) -> tuple[int, int]:
        """The line and column of a part; where that isn't in the file, of what it would be in."""
        while keys and keys not in self.places:
            keys = keys[:-1]
        return self.places.get(keys, (1, 1))


def is_silenced(doubt: Problem, ignores: Iterable[Ignore]) -> bool:
    """Whether one of the comments is about `doubt`."""
    return any(ignore.silences(doubt.line, doubt.code) for ignore in ignores)


def load(path: Path) -> Checked:
    """The policies in the file `path`.

    Raises:
        PolicyFileError: it can't be read, or (PolicyProblemsError) has mistakes, all of which are told.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_SIZE + 1)
    except OSError as error:
        raise PolicyFileError(
            f"{path}: {error.strerror}",
            hint="name a policy file; the service unitmem@NAME reads /etc/unitmem/NAME.yaml",
        ) from None
    return parse(data, str(path))


def parse(data: bytes | str, path: str = "<policy>") -> Checked:
    """The policies in the YAML text `data`; `path` is for messages.

    Raises:
        PolicyProblemsError: as `load` does.
    """
    if len(data) > MAX_FILE_SIZE:
        raise PolicyProblemsError(
            path, [Problem(1, 1, "the file is larger than 1M, which no policy file is: name another")]
        )
    if isinstance(data, bytes) and data.startswith(_UTF16_MARKS):
        raise PolicyProblemsError(path, [Problem(1, 1, NOT_UTF8)])
    try:
        beyond = beyond_policies(data)
        node = None if beyond else yaml.compose(data, Loader=LOADER)
    except yaml.YAMLError as error:
        raise PolicyProblemsError(path, [yaml_problem(error, data)]) from None
    except UnicodeError:
        raise PolicyProblemsError(path, [Problem(1, 1, NOT_UTF8)]) from None
    if beyond:
        raise PolicyProblemsError(path, [beyond])
    reader = _Reader()
    file = reader.file(node)
    if node is None or reader.problems or file is None:
        raise PolicyProblemsError(path, reader.problems)
    return Checked(file, tuple(sorted(reader.warnings)), ignores(data, LOADER), dict(_places(node, ())))


def _places(node: yaml.Node, keys: Keys) -> Iterator[tuple[Keys, tuple[int, int]]]:
    """The place of every part of a file, as deep as policies name their parts."""
    yield keys, (node.start_mark.line + 1, node.start_mark.column + 1)
    if len(keys) == _DEEPEST_PART:
        return
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _places(value, (*keys, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _places(item, (*keys, index))


class _Reader(ActionReader):
    """Nodes to policies. A method returns None where it has reported a problem, and reading goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.interval = DEFAULT_INTERVAL
        """Of the file, once it is read: a slope needs some ticks."""

    # --- the parts of a file ---

    def file(self, node: yaml.Node | None) -> PolicyFile | None:
        if node is None or node.tag == NULL_TAG:
            self.problems.append(Problem(1, 1, f"the file is empty: {_EXAMPLE}"))
            return None
        keys = self.keys(node, FILE_KEYS, required=("policies",), what="a policy file")
        if keys is None:
            return None
        interval = DEFAULT_INTERVAL
        if "interval" in keys:
            given = self.span(keys["interval"], "interval")
            interval = interval if given is None else given
            if MIN_INTERVAL <= interval <= MAX_INTERVAL:
                self.interval = interval
            else:
                self.problem(
                    keys["interval"],
                    f"an interval of {format_span(interval)} is out of range: "
                    "write one from 100ms to 1h, such as 2s",
                )
        budget = self.budget(keys["budget"]) if "budget" in keys else None
        policies = self.items(keys.get("policies"), "policies", self.policy)
        self.unique_names(keys.get("policies"), policies)
        return PolicyFile(tuple(policies), interval, budget)

    def policy(self, node: yaml.Node) -> Policy | None:
        keys = self.keys(node, POLICY_KEYS, required=("name", "units", "steps"), what="a policy")
        if keys is None:
            return None
        name = self.policy_name(keys.get("name"))
        units = self.items(keys.get("units"), "units", self.pattern)
        steps = self.steps(keys.get("steps"))
        excluded = self.items(keys["except"], "except", self.pattern) if "except" in keys else []
        unprotect = self.items(keys["unprotect"], "unprotect", self.exact_name) if "unprotect" in keys else []
        mode = self.choice(keys["mode"], Mode, "mode") if "mode" in keys else Mode.ACT
        clear = self.condition(keys["clear"], "clear") if "clear" in keys else None
        cooldown = self.span(keys["cooldown"], "cooldown") if "cooldown" in keys else 0.0
        budget = self.budget(keys["budget"]) if "budget" in keys else None
        self.kinds_can(keys.get("units"), units, keys.get("steps"), steps)
        if clear is not None and any(step.when == clear for step in steps):
            self.problem(
                keys["clear"],
                "this is the condition of a step too, which would never fire: write what is milder, "
                "such as a lower threshold with <",
            )
        if budget is not None and steps and all(isinstance(step.action, Log) for step in steps):
            self.problem(keys["budget"], "every step only logs, which costs no budget: leave it out")
        if name is None or mode is None or cooldown is None or not units or not steps:
            return None
        policy = Policy(
            name,
            tuple(units),
            tuple(steps),
            tuple(excluded),
            frozenset(unprotect),
            mode,
            clear,
            cooldown,
            budget,
            line=node.start_mark.line + 1,
        )
        for unprotected in sorted(policy.unprotect):
            if not policy.governs(unprotected):
                self.warning(
                    keys["unprotect"],
                    Code.UNPROTECT_UNGOVERNED,
                    f"{unprotected} is unprotected, but this policy does not govern it: add it to `units`",
                )
        return policy

    def budget(self, node: yaml.Node) -> Budget | None:
        keys = self.keys(node, BUDGET_KEYS, required=BUDGET_KEYS, what="a budget")
        if keys is None or len(keys) < len(BUDGET_KEYS):
            return None
        text = self.text(keys["actions"], "actions")
        per = self.span(keys["per"], "per")
        if text is None or per is None:
            return None
        # 010 is eight to YAML, and ten to most people
        if re.fullmatch(r"[1-9][0-9]{,8}", text, re.ASCII) is None or int(text) > MAX_ACTIONS:
            observe = ": `mode: observe` does nothing at all" if text == "0" else ""
            self.problem(
                keys["actions"],
                f"`actions` can't be {text}{observe}: write a whole number from 1 to {MAX_ACTIONS}",
            )
            return None
        if per <= 0:
            self.problem(keys["per"], "no time at all holds no action: write a span such as 1h")
            return None
        return Budget(int(text), per)

    def kinds_can(
        self,
        units_node: yaml.Node | None,
        units: Sequence[str],
        steps_node: yaml.Node | None,
        steps: Sequence[Step],
    ) -> None:
        """Refuse actions that none of the kinds of unit that are meant can take."""
        kinds = {pattern.rpartition(".")[2] for pattern in units}
        if not isinstance(steps_node, yaml.SequenceNode) or any(is_glob(kind) for kind in kinds):
            return
        if units_node is None or not units:
            return
        for step, node in zip(steps, steps_node.value, strict=False):
            possible, what = kinds_of(step.action)
            if kinds.isdisjoint(possible) and step.line == node.start_mark.line + 1:
                self.problem(node, f"{what}, and this policy's units are of the kind {quoted(sorted(kinds))}")

    def steps(self, node: yaml.Node | None) -> list[Step]:
        if isinstance(node, yaml.SequenceNode):
            given = [_keys_of(item) for item in node.value]
            if all(len(keys) == 1 for keys in given) and {("when",), ("do",)} <= set(given):
                others = quoted(keys[0] for keys in given[1:])
                self.problem(
                    node.value[1], f"one step has one `- `, before its first key: take it from {others}"
                )
                return []
        return self.items(node, "steps", self.step)

    def step(self, node: yaml.Node) -> Step | None:
        keys = self.keys(node, STEP_KEYS, required=("when", "do"), what="a step")
        if keys is None:
            return None
        condition = self.condition(keys["when"], "when") if "when" in keys else None
        hold = self.span(keys["for"], "for") if "for" in keys else 0.0
        action = self.action(keys["do"]) if "do" in keys else None
        repeat = self.span(keys["repeat"], "repeat") if "repeat" in keys else None
        if "repeat" in keys and repeat is not None and action is not None:
            if repeat <= 0:
                self.problem(keys["repeat"], "`repeat` can't be no time at all: write a span such as 5min")
            elif not isinstance(action, Log | Signal | Reclaim | Run):
                self.problem(
                    keys["repeat"],
                    f"to {action_name(action)} again in one episode means nothing: leave `repeat` out",
                )
        if condition is None or hold is None or action is None or ("repeat" in keys and repeat is None):
            return None
        return Step(condition, action, hold, repeat, node.start_mark.line + 1)

    # --- values ---

    def condition(self, node: yaml.Node, key: str) -> Condition | None:
        text = self.text(node, key)
        if text is None:
            return None
        try:
            condition = parse_condition(text)
        except ConditionError as error:
            self.problem(node, str(error), column_within(node, error.column))
            return None
        for comparison in comparisons(condition):
            if comparison.derivation in (Derivation.GROWTH, Derivation.ETA):
                least = MIN_TICKS_A_SLOPE * self.interval
                if comparison.span is not None and comparison.span < least:
                    self.problem(
                        node,
                        f"`{comparison.subject}` sees fewer than {MIN_TICKS_A_SLOPE} ticks of "
                        f"{format_span(self.interval)}: write a span of {format_span(least)} or more",
                    )
            if (doubt := never_true(comparison)) is not None:
                code, reason = doubt
                self.warning(node, code, f"`{comparison}` can never be true: {reason}")
        return condition

    def policy_name(self, node: yaml.Node | None) -> str | None:
        name = self.text(node, "name") if node is not None else None
        if node is None or name is None:
            return None
        if POLICY_NAME.fullmatch(name) is None:
            self.problem(
                node, f"{name!r} can't name a policy: use letters, digits, `-`, `_` and `.`, up to 64"
            )
            return None
        return name

    def pattern(self, node: yaml.Node) -> str | None:
        text = self.text(node, "a unit pattern")
        if text is None:
            return None
        if not is_glob(text):
            return self.unit_name(node, text)
        if is_plain(node):
            self.warning(
                node,
                Code.UNQUOTED_PATTERN,
                f'{text} is not quoted, and YAML gives `*`, `?` and `[` meanings: write "{text}"',
            )
        if UNIT_GLOB.fullmatch(text) is None:
            self.problem(
                node,
                f"{text!r} matches no unit: names are letters, digits and `:_.\\@-`, of which a glob takes "
                "any by `*`, one by `?` and one of some by `[ab]` or `[!ab]`; write several names as several entries",
            )
            return None
        _, dot, ending = text.rpartition(".")
        if dot and not is_glob(ending) and ending not in CGROUP_KINDS:
            self.problem(node, f"{text!r} matches no unit with memory: let it end in one of {quoted(_KINDS)}")
            return None
        return text

    def exact_name(self, node: yaml.Node) -> str | None:
        text = self.text(node, "a unit name")
        if text is not None and is_glob(text):
            self.problem(
                node, f"{text!r} is a pattern: a protected unit must be named exactly, one entry for each"
            )
            return None
        return None if text is None else self.unit_name(node, text)

    def unit_name(self, node: yaml.Node, text: str) -> str | None:
        if is_unit_name(text) and unit_kind(text) in CGROUP_KINDS:
            prefix, at, rest = text.partition("@")
            if at and rest == unit_kind(text).join((".", "")):
                self.problem(
                    node,
                    f'{text!r} is a template, which never runs itself: write "{prefix}@*{rest}", or one instance',
                )
                return None
            return text
        if is_unit_name(f"{text}.service") and not is_unit_name(text):
            self.problem(node, f"{text!r} lacks its kind: write {text}.service (or {quoted(_KINDS[1:])})")
        else:
            self.problem(node, f"{text!r} is not the name of a unit with memory, such as web.service")
        return None

    # --- structure ---

    def unique_names(self, node: yaml.Node | None, policies: Sequence[Policy]) -> None:
        seen = set()
        items = node.value if isinstance(node, yaml.SequenceNode) else []
        places = {item.start_mark.line + 1: item for item in items}
        for policy in policies:
            if policy.name in seen:
                self.problem(
                    places[policy.line or 1],
                    f"two policies are named {policy.name!r}: give each a name of its own, logs tell by it",
                )
            seen.add(policy.name)


_KINDS = ("service", "scope", "slice", "mount", "socket", "swap")
_EXAMPLE = "it needs at least `policies:`, a list; see unitmem.yaml(5)"


def never_true(comparison: Comparison) -> tuple[Code, str] | None:
    """The kind of mistake, and why `comparison` can't be true of any unit; None if it can."""
    falls = comparison.derivation is Derivation.GROWTH  # a slope may be negative
    if comparison.operator == "<" and comparison.threshold == 0 and not falls:
        return Code.NEVER_TRUE, "nothing is less than 0"
    if (
        comparison.operator in (">", ">=")
        and comparison.of == "limit"
        and Trait.BOUNDED in MEASURES[comparison.measure].traits
        and (comparison.threshold > 100 or (comparison.threshold == 100 and comparison.operator == ">"))
    ):
        return Code.ABOVE_LIMIT, "the kernel keeps the unit within its limit; write less than 100%"
    if (
        comparison.operator == ">"
        and comparison.measure.find("pressure.") >= 0
        and comparison.threshold >= 100
    ):
        return Code.NEVER_TRUE, "a pressure is never above 100%"
    return None


def _keys_of(node: yaml.Node) -> tuple[str, ...]:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return tuple(key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode))
