"""From YAML nodes to values, with the place of each mistake; shared by all parts of a policy file.

Nodes are read rather than values, since they have line and column, show duplicate keys, and leave `512M`, `on`
and `10:30` as they were written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import yaml

from unitmem.errors import PolicyFileError, Problem
from unitmem.policyfile.warnings import Code
from unitmem.text import QuantityError, close_to, parse_size, parse_span, quoted

MAX_DEPTH = 50
MAX_ALIASES = 200  # what they stand for multiplies, list within list
MAX_MESSAGE = 600  # a value that is quoted in one may be as long as the file
_BOOL_TAG = "tag:yaml.org,2002:bool"
NULL_TAG = "tag:yaml.org,2002:null"
_MERGE_TAG = "tag:yaml.org,2002:merge"
NOT_UTF8 = "this is not text in UTF-8: save the file in that encoding"
_INVISIBLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_NESTED = re.compile(r"\bdo: +(?P<action>[a-z]+): ", re.ASCII)
_T = TypeVar("_T")
LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


class PolicyProblemsError(PolicyFileError):
    """All mistakes of one policy file, one a line."""

    def __init__(self, path: str, problems: Sequence[Problem]) -> None:
        found = tuple(sorted(set(problems)))  # an alias repeats what is wrong with its anchor
        super().__init__("\n".join(problem.at(path) for problem in found))
        self.path = path
        self.problems = found


class NodeReader:
    """A reader of single values, lists and mappings. A method returns None where it has reported a problem."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def span(self, node: yaml.Node, key: str) -> float | None:
        text = self.text(node, key)
        if text is None:
            return None
        try:
            return parse_span(text)
        except QuantityError as error:
            self.problem(node, f"`{key}`: {error}")
            return None

    def size(self, node: yaml.Node, key: str) -> int | None:
        text = self.text(node, key)
        if text is None:
            return None
        try:
            return parse_size(text)
        except QuantityError as error:
            self.problem(node, f"`{key}`: {error}")
            return None

    def choice(self, node: yaml.Node, of: Callable[[str], _T], key: str) -> _T | None:
        text = self.text(node, key)
        if text is None:
            return None
        try:
            return of(text)
        except ValueError:
            names = [str(member) for member in of]  # type: ignore[attr-defined]
            self.problem(node, f"`{key}` can't be {text!r}{close_to(text, names)}: write {quoted(names)}")
            return None

    def text(self, node: yaml.Node, what: str) -> str | None:
        if isinstance(node, yaml.ScalarNode):
            if node.tag == NULL_TAG or not node.value.strip():
                self.problem(node, f"{called(what)} is empty: give it a value, or leave it out")
                return None
            if (odd := _INVISIBLE.search(node.value)) is not None:
                self.problem(node, f"{called(what)} holds the invisible character {odd[0]!r}: take it out")
                return None
            return str(node.value)
        kind = "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
        self.problem(
            node, f"{called(what)} must be one value, not {kind}: put text with `[` or `{{` into quotes"
        )
        return None

    def items(self, node: yaml.Node | None, key: str, read: Callable[[yaml.Node], _T | None]) -> list[_T]:
        """Return what `read` returns for each item of a list, without None; an empty list is a mistake."""
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            is_word = isinstance(node, yaml.ScalarNode) and node.value
            example = f'write ["{node.value}"]' if is_word else "start each of its entries with `- `"
            self.problem(node, f"`{key}` must be a list: {example}")
            return []
        if not node.value:
            self.problem(node, f"`{key}` is an empty list: give it an entry, or leave out what it belongs to")
        read_items = [read(item) for item in node.value]
        return [item for item in read_items if item is not None]

    def keys(
        self, node: yaml.Node, allowed: Sequence[str], required: Iterable[str], what: str
    ) -> dict[str, yaml.Node] | None:
        """Return the nodes of a mapping's values by key; None (and a problem) where it isn't a mapping."""
        if not isinstance(node, yaml.MappingNode):
            self.problem(node, f"{what} is a mapping with the keys {quoted(allowed)}")
            return None
        found: dict[str, yaml.Node] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            if name in found:
                self.problem(
                    key,
                    f"`{name}` is given twice, first in line {lines[name]}: keep one, YAML would drop the other",
                )
            elif name in allowed:
                found[name] = value
                lines[name] = key.start_mark.line + 1
            elif key.tag == _MERGE_TAG:
                self.problem(
                    key, f"{what} has no key `<<`, as nothing is merged here: write out what it stands for"
                )
            elif key.tag == _BOOL_TAG:
                self.problem(
                    key, f"`{name}` is a boolean to YAML, and no key of {what}: use {quoted(allowed)}"
                )
            else:
                self.problem(
                    key,
                    f"{what} has no key `{name}`{close_to(name, allowed)}: its keys are {quoted(allowed)}",
                )
        for name in required:
            if name not in found:
                self.problem(node, f"{what} needs `{name}`: add it")
        return found

    def problem(self, node: yaml.Node, message: str, column: int | None = None) -> None:
        self.problems.append(problem_at(node, message, column))

    def warning(self, node: yaml.Node, code: Code, message: str) -> None:
        self.warnings.append(replace(problem_at(node, message), code=code))


def beyond_policies(data: bytes | str) -> Problem | None:
    """Return the first use of YAML that no policy needs, and that could harm or mislead; None if there is none.

    That is deep nesting, since composing recurses, in C until the process dies; many aliases; tags.
    """
    depth = aliases = 0
    for event in yaml.parse(data, Loader=LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        aliases += isinstance(event, yaml.AliasEvent)
        tag = getattr(event, "tag", None)
        if depth > MAX_DEPTH:
            message = f"more than {MAX_DEPTH} levels of nesting: a policy needs six, see unitmem.yaml(5)"
        elif aliases > MAX_ALIASES:
            message = f"more than {MAX_ALIASES} aliases: write what they stand for instead"
        elif tag is not None:
            spelled = str(tag).replace("tag:yaml.org,2002:", "!!")
            message = f"`{spelled}` is a tag in YAML, and a policy has none: leave it out, or quote the value"
        else:
            continue
        if (mark := event.start_mark) is not None:
            return Problem(mark.line + 1, mark.column + 1, message)
    return None


def problem_at(node: yaml.Node, message: str, column: int | None = None) -> Problem:
    mark = node.start_mark
    if len(message) > MAX_MESSAGE:
        message = f"{message[: MAX_MESSAGE // 2]} … {message[-MAX_MESSAGE // 2 :]}"
    return Problem(mark.line + 1, (mark.column if column is None else column) + 1, message)


def is_plain(node: yaml.Node) -> bool:
    """Return whether a scalar is written without quotes; its style is then `''` or None."""
    return isinstance(node, yaml.ScalarNode) and not node.style


def has_escape(node: yaml.Node) -> bool:
    """Return whether YAML read something else than what stands between double quotes, but for backslashes doubled."""
    if not isinstance(node, yaml.ScalarNode) or node.style != '"':
        return False
    start, end = node.start_mark, node.end_mark
    written = len(node.value) + node.value.count("\\") + 2
    return bool(start.line != end.line or end.column - start.column != written)


def column_within(node: yaml.Node, offset: int) -> int:
    """Return the column in the file of the character `offset` of a scalar, if known; else that of its start."""
    start, end = node.start_mark, node.end_mark
    quotes = 0 if is_plain(node) else 1
    is_verbatim = start.line == end.line and end.column - start.column == len(node.value) + 2 * quotes
    return int(start.column + quotes + offset) if is_verbatim else int(start.column)


def yaml_problem(error: yaml.YAMLError, data: bytes | str) -> Problem:
    """Return YAML's syntax error as a problem, with advice for common mistakes."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        return _unreadable_character(error, data)
    text = data.decode(errors="replace") if isinstance(data, bytes) else data
    lines = text.splitlines()
    what = str(getattr(error, "problem", None) or error)
    context = str(getattr(error, "context", None) or "")
    place = getattr(error, "context_mark", None) or mark
    line = lines[place.line] if place.line < len(lines) else ""
    if (nested := _NESTED.search(line)) and ("flow mapping" in context or "mapping values" in what):
        action = nested["action"]
        message = f"`do: {action}:` names two keys at once: write `do: {{{action}: …}}`"
        return Problem(place.line + 1, nested.start() + 1, message)
    hint = _yaml_hint(what, context, line, place.column)
    started_here = (
        "alias",
        "block scalar",
        "scanning a tag",
        "quoted scalar",
        "flow sequence",
        "flow mapping",
    )
    place = place if any(what in context for what in started_here) and "escape" not in what else mark
    return Problem(place.line + 1, place.column + 1, hint or f"this is not YAML: {what}")


def _unreadable_character(error: yaml.YAMLError, data: bytes | str) -> Problem:
    """Return the place where `data` is not text, by the byte offset in `error`."""
    raw = data if isinstance(data, bytes) else data.encode(errors="replace")
    before = raw[: getattr(error, "position", 0)]
    column = len(before.rpartition(b"\n")[2].decode(errors="replace")) + 1
    is_text = "control characters" in str(error)
    message = "a control character, which YAML refuses: take it out" if is_text else NOT_UTF8
    return Problem(before.count(b"\n") + 1, column, message)


def _yaml_hint(what: str, context: str, line: str, column: int) -> str | None:
    if "alias" in context or "alias" in what:
        return '`*` starts an alias in YAML: quote the pattern, such as "*.service"'
    if "block scalar" in context:
        return (
            f"`{line[column : column + 1]}` starts a block of text in YAML: "
            'quote the whole condition, such as "workingset > 80% of limit"'
        )
    if "scanning a tag" in context:
        return '`!` starts a tag in YAML: quote the pattern, such as "web@[!0]*.service"'
    if "escape" in what:
        return "`\\` has a meaning within double quotes in YAML: use single quotes"
    if "quoted scalar" in context:
        return f"this quote is never closed: add a {line[column : column + 1]} at the end of the value"
    if "flow sequence" in context:
        return "the list that starts here lacks a `,` between its entries, or a `]` at its end"
    if "flow mapping" in context:
        return "the mapping that starts here lacks a `,` between its keys, or a `}` at its end"
    if "directive" in context or "incompatible YAML" in what:
        return "`%` at the start of a line is a directive in YAML: take the line out"
    if "tab character" in what or "\\t" in what or "\t" in line[: len(line) - len(line.lstrip())]:
        return "YAML takes no tabs for indentation: use spaces"
    if "cannot start any token" in what and column < len(line):
        return f"nothing in YAML may start with `{line[column]}`: put the value into quotes"
    if "mapping values are not allowed" in what:
        return "`: ` in the middle of a value starts a mapping in YAML: put the value into quotes"
    if "expected <document start>" in what or "but found another document" in what:
        return "a policy file is one YAML document: remove what follows `---`"
    if "could not find expected ':'" in what:
        return "a key ends in `: `, a colon and a space: add it here or in the line before"
    if "did not find expected" in what:
        return (
            "this does not fit what stands before it: indent it as its neighbours are, "
            "and put the whole of a value into one pair of quotes"
        )
    return None


def called(what: str) -> str:
    """Return a single word between backticks, as a key; other text unchanged."""
    return what if " " in what else f"`{what}`"
