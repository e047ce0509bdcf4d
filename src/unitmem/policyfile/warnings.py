"""The codes of warnings about policy files, and the comments in a file that silence them.

    # unitmem: ignore=no-hold
    do: stop  # unitmem: ignore=no-hold,restart-loop  and words on why, if you like

A comment at the end of a line is about that line; one on a line of its own is about the next line that is
neither empty nor a comment.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from enum import StrEnum

import yaml


class Code(StrEnum):
    """The code of a warning, as in `# unitmem: ignore=CODE`; see unitmem.yaml(5)."""

    ABOVE_LIMIT = "above-limit"
    """A threshold above the unit's limit."""
    ALIAS = "alias"
    """A unit that is named by an alias."""
    CLEAR_NOT_BELOW = "clear-not-below"
    """`clear` may hold while a step's condition holds."""
    CORE_UNIT = "core-unit"
    """A pattern that matches protected units."""
    LADDER_ORDER = "ladder-order"
    """A harsher step that fires no later than a milder one."""
    MEMORY_HIGH_WITHOUT_SWAP = "memory-high-without-swap"
    """MemoryHigh= without swap, which can stall the unit."""
    NEVER_TRUE = "never-true"
    """A comparison that no number satisfies."""
    NO_HOLD = "no-hold"
    """An action that ends the unit, in a step without `for`."""
    NO_MATCH = "no-match"
    """A pattern that matches no loaded unit."""
    PAGE_CACHE = "page-cache"
    """A condition that page cache alone can make true."""
    RESTART_LOOP = "restart-loop"
    """A restart without cooldown and budget."""
    SHARED_LIMIT = "shared-limit"
    """A share of a limit that is a slice's, for all units in it together."""
    SHORT_SPAN = "short-span"
    """A growth or leak over less than a day that leads to more than `log`, without a level beside it."""
    UNKNOWN_CODE = "unknown-code"
    """A comment with a code that doesn't exist."""
    UNPROTECT_UNGOVERNED = "unprotect-ungoverned"
    """A unit under `unprotect` that the policy doesn't govern."""
    UNQUOTED_PATTERN = "unquoted-pattern"
    """A glob without quotes, which YAML may misread."""
    UNUSED_IGNORE = "unused-ignore"
    """A comment that silences nothing."""


@dataclass(frozen=True, slots=True)
class Ignore:
    """One comment that silences warnings."""

    line: int
    """The line of the comment; lines and columns count from 1."""
    column: int
    codes: tuple[str, ...]
    """The codes as written, which may be wrong."""
    lines: frozenset[int]
    """The lines that it is about, including its own."""

    def silences(self, line: int, code: str | None) -> bool:
        return code in self.codes and line in self.lines


_MARK = re.compile(
    r"(?:^|(?<=[ \t]))#[ \t]*unitmem:[ \t]*ignore[ \t]*=[ \t]*(?P<codes>[\w-]*(?:[ \t]*,[ \t]*[\w-]+)*)"
)


def ignores(data: bytes | str, loader: type[yaml.CSafeLoader | yaml.SafeLoader]) -> tuple[Ignore, ...]:
    """Return every comment in `data` that silences warnings; `data` must be valid YAML."""
    text = _decoded(data)
    lines = text.splitlines()
    marks = [(number, mark) for number, line in enumerate(lines) for mark in _MARK.finditer(line)]
    if not marks:
        return ()
    starts, ends = _scalars(text, loader)

    def is_comment(position: tuple[int, int]) -> bool:
        # a `#` after a blank begins a comment wherever it isn't a part of some value
        before = bisect_right(starts, position) - 1
        return before < 0 or position >= ends[before]

    return tuple(
        Ignore(
            number + 1,
            mark.start() + 1,
            tuple(code.strip() for code in mark["codes"].split(",")),
            _about(lines, number, mark.start()),
        )
        for number, mark in marks
        if is_comment((number, mark.start()))
    )


def _decoded(data: bytes | str) -> str:
    return data if isinstance(data, str) else data.decode("utf-8-sig", errors="replace")


def _scalars(
    text: str, loader: type[yaml.CSafeLoader | yaml.SafeLoader]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the beginnings and the ends of values, each as (line, column) from 0."""
    tokens = [token for token in yaml.scan(text, Loader=loader) if isinstance(token, yaml.ScalarToken)]
    return (
        [(token.start_mark.line, token.start_mark.column) for token in tokens],
        [(token.end_mark.line, token.end_mark.column) for token in tokens],
    )


def _about(lines: list[str], number: int, column: int) -> frozenset[int]:
    """Return the lines, from 1, that a comment at `column` of line `number` (both from 0) is about."""
    before = lines[number][:column].lstrip()
    if before and not before.startswith("#"):
        return frozenset({number + 1})
    says_something = (
        later + 1
        for later in range(number + 1, len(lines))
        if lines[later].strip() and not lines[later].lstrip().startswith("#")
    )
    return frozenset({number + 1, next(says_something, number + 1)})
