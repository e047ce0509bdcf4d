"""What a policy file may be warned about, by code, and the comments in it that silence a warning.

    # unitmem: ignore=no-hold
    do: stop  # unitmem: ignore=no-hold,restart-loop  and words on why, if you like

A comment at the end of a line is about that line; one that stands alone is about the next line that
says something.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from enum import StrEnum

import yaml


class Code(StrEnum):
    """What a warning is called in `# unitmem: ignore=CODE`; see unitmem.yaml(5)."""

    ABOVE_LIMIT = "above-limit"
    """A threshold that the unit's limit keeps its memory below."""
    ALIAS = "alias"
    """A unit that is named by an alias."""
    CLEAR_NOT_BELOW = "clear-not-below"
    """The episode would end where a step still fires, or begins to."""
    CORE_UNIT = "core-unit"
    """Units that must not be touched are among those meant."""
    LADDER_ORDER = "ladder-order"
    """A harsher step comes no later than a milder one."""
    MEMORY_HIGH_WITHOUT_SWAP = "memory-high-without-swap"
    """memory.high stalls a unit whose memory has nowhere to go."""
    NEVER_TRUE = "never-true"
    """A comparison that no number satisfies."""
    NO_HOLD = "no-hold"
    """One spike is enough to end the unit."""
    NO_MATCH = "no-match"
    """A pattern without a unit."""
    PAGE_CACHE = "page-cache"
    """Page cache alone would have the step act."""
    RESTART_LOOP = "restart-loop"
    """Nothing ends a loop of restarts."""
    UNKNOWN_CODE = "unknown-code"
    """A comment that silences what doesn't exist."""
    UNPROTECT_UNGOVERNED = "unprotect-ungoverned"
    """A unit under `unprotect` that is none of the policy's."""
    UNQUOTED_PATTERN = "unquoted-pattern"
    """A glob that YAML may take for something else."""
    UNUSED_IGNORE = "unused-ignore"
    """A comment that silences nothing."""


@dataclass(frozen=True, slots=True)
class Ignore:
    """One comment that silences warnings."""

    line: int
    """Where it begins; lines and columns count from 1."""
    column: int
    codes: tuple[str, ...]
    """As they are spelled, which may be wrong."""
    lines: frozenset[int]
    """The lines that it is about, its own among them."""

    def silences(self, line: int, code: str | None) -> bool:
        return code in self.codes and line in self.lines


_MARK = re.compile(
    r"(?:^|(?<=[ \t]))#[ \t]*unitmem:[ \t]*ignore[ \t]*=[ \t]*(?P<codes>[\w-]*(?:[ \t]*,[ \t]*[\w-]+)*)"
)


def ignores(data: bytes | str, loader: type[yaml.CSafeLoader | yaml.SafeLoader]) -> tuple[Ignore, ...]:
    """Every comment in `data` that silences warnings; `data` is YAML that `loader` has read before."""
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
    """Where values begin, and where they end, as (line, column) from 0."""
    tokens = [token for token in yaml.scan(text, Loader=loader) if isinstance(token, yaml.ScalarToken)]
    return (
        [(token.start_mark.line, token.start_mark.column) for token in tokens],
        [(token.end_mark.line, token.end_mark.column) for token in tokens],
    )


def _about(lines: list[str], number: int, column: int) -> frozenset[int]:
    """The lines, from 1, that a comment at `column` of line `number` (from 0) is about."""
    before = lines[number][:column].lstrip()
    if before and not before.startswith("#"):
        return frozenset({number + 1})
    says_something = (
        later + 1
        for later in range(number + 1, len(lines))
        if lines[later].strip() and not lines[later].lstrip().startswith("#")
    )
    return frozenset({number + 1, next(says_something, number + 1)})
