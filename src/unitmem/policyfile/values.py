"""Reading single values of the policy language, and mappings of them, as their `Key`s describe."""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from unitmem.measure.catalogue import OPERANDS, Trait
from unitmem.policy.condition import Comparison, Condition, comparisons
from unitmem.policy.keys import Choice, Count, Items, Key, Part, Size, Span, Syntax, Value, names, required
from unitmem.policyfile.expression import ConditionError, parse_condition
from unitmem.policyfile.language import POLICY_NAME, UNIT_GLOB
from unitmem.policyfile.nodes import NodeReader, column_within, has_escape, is_plain
from unitmem.policyfile.rank import parse_rank
from unitmem.policyfile.warnings import Code
from unitmem.text import format_span, quoted
from unitmem.unit import CGROUP_KINDS, is_glob, is_unit_name, unit_kind

_KINDS = ("service", "scope", "slice", "mount", "socket", "swap")
_SIGNALS = {number.name.removeprefix("SIG"): number for number in signal.Signals}


@dataclass(frozen=True, slots=True)
class Block:
    """The content of a mapping."""

    nodes: Mapping[str, yaml.Node]
    """The nodes of the keys that were written, in their order."""
    values: Mapping[str, Any]
    """The value of every key; its default where it was not written, or could not be read."""
    failed: frozenset[str]
    """Keys that could not be read, or that are required and missing; both are reported."""

    @property
    def given(self) -> dict[str, Any]:
        """The values that were written, in their order."""
        return {name: self.values[name] for name in self.nodes}


class ValueReader(NodeReader):
    """A reader of the values that keys describe. A method returns None where it has reported a problem."""

    def __init__(self) -> None:
        super().__init__()
        self.slopes: list[tuple[yaml.Node, Comparison]] = []
        """The comparisons of slopes, whose spans are checked against the file's interval later."""

    def part(self, node: yaml.Node, part: Part) -> Any:
        raise NotImplementedError

    def block(
        self, node: yaml.Node, keys: Sequence[Key], what: str, label: str | None = None
    ) -> Block | None:
        """Read a mapping; return None where `node` isn't one.

        Args:
            node: the node of the mapping.
            keys: the keys that it may have.
            what: the name of the mapping in messages.
            label: the name of the required key in messages, if not its own.
        """
        nodes = self.keys(node, names(keys), required(keys), what)
        if nodes is None:
            return None
        values, failed = {}, set()
        for key in keys:
            value = None
            if key.name in nodes:
                called = label if label is not None and key.is_required else key.name
                value = self.value(nodes[key.name], key.value, called)
            if value is None and (key.name in nodes or key.is_required):
                failed.add(key.name)
            values[key.name] = key.default if value is None else value
        return Block(nodes, values, frozenset(failed))

    def value(self, node: yaml.Node, value: Value, label: str) -> Any:
        """Return the value of `node`, which messages call `label`; None where it is wrong."""
        match value:
            case Span(least, most, refusal):
                span = self.span(node, label)
                if span is None or least <= span <= most:
                    return span
                self.problem(node, refusal.format(value=format_span(span)))
                return None
            case Size():
                return self.bounded_size(node, value, label)
            case Count(most):
                return self.count(node, most, label)
            case Choice(of):
                return self.choice(node, of, label)
            case Items(of):
                if of is Part.STEP and self.is_one_step_split(node):
                    return None
                return self.items(node, label, lambda item: self.value(item, of, label)) or None
            case Part():
                return self.part(node, value)
            case Syntax.POLICY_NAME:
                return self.policy_name(node)
            case Syntax.UNIT_PATTERN:
                return self.pattern(node)
            case Syntax.UNIT_NAME:
                return self.exact_name(node)
            case Syntax.CONDITION:
                return self.condition(node, label)
            case Syntax.SIGNAL:
                return self.signal(node, label)
            case Syntax.COMMAND:
                return self.command(node, label)
            case Syntax.RANK:
                return self.rank(node, label)

    # --- numbers ---

    def bounded_size(self, node: yaml.Node, value: Size, label: str) -> float | None:
        if value.or_infinity and isinstance(node, yaml.ScalarNode):
            if node.value == "infinity":
                return math.inf
            if node.value.lower() in ("max", "infinity", ".inf"):
                self.problem(node, f"`{label}`: write `infinity` for no limit")
                return None
        size = self.size(node, label)
        if size is None or size >= value.least:
            return size
        self.problem(node, value.refusal)
        return None

    def count(self, node: yaml.Node, most: int, label: str) -> int | None:
        text = self.text(node, label)
        if text is None:
            return None
        # 010 is eight to YAML, and ten to most people
        if re.fullmatch(r"[1-9][0-9]{,8}", text, re.ASCII) is None or int(text) > most:
            observe = ", or `mode: observe` to perform nothing" if text == "0" else ""
            self.problem(node, f"`{label}` can't be {text}: write a whole number from 1 to {most}{observe}")
            return None
        return int(text)

    # --- names ---

    def policy_name(self, node: yaml.Node) -> str | None:
        name = self.text(node, "name")
        if name is None:
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
        self.unescaped(node, text)
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
                f"{text!r} matches no unit: a name has letters, digits and `:_.\\@-`, and a glob also `*`, "
                "`?`, `[ab]` and `[!ab]`; write several names as several entries",
            )
            return None
        _, dot, ending = text.rpartition(".")
        if dot and not is_glob(ending) and ending not in CGROUP_KINDS:
            self.problem(node, f"{text!r} matches no unit with memory: end it in one of {quoted(_KINDS)}")
            return None
        return text

    def exact_name(self, node: yaml.Node) -> str | None:
        text = self.text(node, "a unit name")
        if text is not None:
            self.unescaped(node, text)
        if text is not None and is_glob(text):
            self.problem(
                node, f"{text!r} is a pattern: a protected unit must be named exactly, one entry for each"
            )
            return None
        return None if text is None else self.unit_name(node, text)

    def unescaped(self, node: yaml.Node, text: str) -> None:
        """Warn if `text` is not as it stands in the file, and so is the name of another unit."""
        if has_escape(node):
            self.warning(
                node,
                Code.ESCAPED_NAME,
                f"`\\` is an escape in double quotes, so this is {text}: put the name into single quotes",
            )

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

    def signal(self, node: yaml.Node, label: str) -> signal.Signals | None:
        name = self.text(node, label)
        if name is None:
            return None
        # some letters beyond ASCII have one of it as their capital
        number = _SIGNALS.get(name.upper().removeprefix("SIG")) if name.isascii() else None
        if number is None:
            self.problem(node, f"there is no signal {name!r}: write its name, such as SIGTERM or SIGUSR1")
        return number

    # --- conditions, commands, lists ---

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
            if comparison.function is not None:
                self.slopes.append((node, comparison))
            if (doubt := never_true(comparison)) is not None:
                code, reason = doubt
                self.warning(node, code, f"`{comparison}` can never be true: {reason}")
        return condition

    def rank(self, node: yaml.Node, key: str) -> Comparison | None:
        text = self.text(node, key)
        if text is None:
            return None
        try:
            by = parse_rank(text)
        except ConditionError as error:
            self.problem(node, str(error), column_within(node, error.column))
            return None
        if by.function is not None:
            self.slopes.append((node, by))
        return by

    def command(self, node: yaml.Node, label: str) -> tuple[str, ...] | None:
        if isinstance(node, yaml.SequenceNode):
            words = self.items(node, label, lambda item: self.text(item, "a word of the command"))
            if len(words) < len(node.value):
                return None
        else:
            text = self.text(node, label)
            words = [] if text is None else [text]
            if len(words) == 1 and any(character.isspace() for character in words[0]):
                listed = ", ".join(f'"{word}"' for word in _split(words[0]))
                self.problem(node, f"there is no shell to split this: write a list, [{listed}]")
                return None
        if not words:
            return None
        if not words[0].startswith("/") or words[0].endswith("/"):
            what = "a directory" if words[0].startswith("/") else "not an absolute path"
            self.problem(node, f"{words[0]!r} is {what}: write the program like /usr/local/bin/dump")
            return None
        return tuple(words)

    def is_one_step_split(self, node: yaml.Node) -> bool:
        """Return whether the keys of one step are each written as an item, with its own `- `; report it if so."""
        if not isinstance(node, yaml.SequenceNode):
            return False
        given = [_keys_of(item) for item in node.value]
        if not all(len(keys) == 1 for keys in given) or not {("when",), ("do",)} <= set(given):
            return False
        others = quoted(keys[0] for keys in given[1:])
        self.problem(node.value[1], f"one step has one `- `, before its first key: take it from {others}")
        return True


def never_true(comparison: Comparison) -> tuple[Code, str] | None:
    """Return (code, reason) if `comparison` can't be true of any unit; None if it can."""
    is_signed = comparison.function is not None and comparison.function.is_signed
    if comparison.operator == "<" and comparison.threshold == 0 and not is_signed:
        return Code.NEVER_TRUE, "nothing is less than 0"
    if (
        comparison.operator in (">", ">=")
        and comparison.of == "limit"
        and Trait.BOUNDED in OPERANDS[comparison.measure].traits
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


def _split(command: str) -> list[str]:
    import shlex  # noqa: PLC0415 - only where there is an error to explain

    try:
        return shlex.split(command)
    except ValueError:  # a quote that is never closed
        return command.split()
