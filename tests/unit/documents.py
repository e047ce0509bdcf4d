"""The pages that people read, taken apart: their blocks, the policies and commands in them, their links."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(CHECKOUT)): path.read_text()
    for pattern in ("*.md", "[!.]*/**/*.md")
    for path in sorted(CHECKOUT.glob(pattern))
}
"""Every page of the checkout, by its path."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# after an empty line: what follows a `:` directly is a paragraph of a definition
_INDENTED = re.compile(r"(?:(?<=\n\n)|(?<=\A\n))(?:^ {4}.*\n(?:^\n)*)+", re.MULTILINE)
_HEREDOC = re.compile(r"<<'?EOF'?\n(.*?)^EOF$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_ELLIPSIS = "…"


@dataclass(frozen=True)
class Block:
    """A block of a page: what is to be typed (`sh`), what that prints (`text`), a policy (`yaml`)."""

    language: str
    """Empty where it isn't told, as for a block that is indented."""
    text: str
    section: str
    """The heading that it stands below."""
    line: int
    """Of its first line in the page."""

    @property
    def line_below(self) -> int:
        """Where a block begins that stands right below this one, a fence and an empty line between them."""
        return self.line + self.text.count("\n") + 4


def blocks(page: str) -> list[Block]:
    """The blocks between fences, and those that are indented by four spaces, in the order of the page."""
    found = [(match.start(2), match[1], match[2]) for match in _FENCE.finditer(page)]
    # the same length, so that places stay what they are
    rest = _FENCE.sub(lambda match: re.sub(r".", "-", match[0]), page)
    found += [
        (match.start(), "", textwrap.dedent(match[0]))
        for match in _INDENTED.finditer(rest)
        if not _is_defined(rest[: match.start()])
    ]
    headings = [(match.start(), match[1]) for match in re.finditer(r"^#+ (.*)$", rest, re.MULTILINE)]
    return [
        Block(
            language,
            text.strip("\n"),
            next((title for at, title in reversed(headings) if at < start), ""),
            page.count("\n", 0, start) + 1,
        )
        for start, language, text in sorted(found)
    ]


def _is_defined(before: str) -> bool:
    """Whether what follows `before` is a further paragraph of a definition's text."""
    paragraphs = before.rstrip("\n").split("\n\n")
    while paragraphs and paragraphs[-1].startswith("    "):
        paragraphs.pop()
    return bool(paragraphs) and re.search(r"^:   ", paragraphs[-1], re.MULTILINE) is not None


def policies(page: str) -> Iterator[str]:
    """The policy files in a page: blocks that are one, and what a command block writes into one."""
    for block in blocks(page):
        for text in [block.text, *(match[1] for match in _HEREDOC.finditer(block.text))]:
            if re.search(r"^policies:", text, re.MULTILINE) and not _HEREDOC.search(text):
                yield text


def commands(page: str) -> Iterator[list[str]]:
    """The words after `unitmem` of every call of it that a page shows, up to two spaces, a comment or a pipe."""
    typed = [
        line for block in blocks(page) if block.language in ("", "sh") for line in block.text.splitlines()
    ]
    for line in [*typed, *_CODE.findall(_FENCE.sub("", page))]:
        for match in re.finditer(r"(?<![\w/.@-])unitmem (?! )((?:\S+ ?)+)", line):
            yield [word.strip("'\"") for word in re.split(r" ?[|;&#>`]", match[1])[0].split()]


def links(page: str) -> list[str]:
    """The targets of the links that lead into the checkout."""
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", page)) if ":" not in target]


def anchors(page: str) -> set[str]:
    """What `#…` may name in a page, as GitHub spells it."""
    titles = re.findall(r"^#+ (.*)$", _FENCE.sub("", page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


# --- what is shown and what is printed -----------------------------------------------------------

_MASKS = (
    (r"\b[0-9a-f]{8,}\b", "#"),  # ids
    (r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) ", ""),
    (r"\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +\d+", "#"),
    (r"\b[A-Z]{3,4}\b(?=;|$)", "#"),  # time zones
    (r"less than 1s", "#"),
    (r"\d+(?:\.\d+)?", "#"),
    (r"#(?:[BKMGT%]|us|ms|s|min|h|d)?(?![a-z])", "#"),  # units change with the number
    (r"#(?:[ :-]#)+", "#"),  # 1min 3s, 12:30:01, 2026-11-25
    (r"[▁▂▃▄▅▆▇█┄ ]*[▁▂▃▄▅▆▇█┄][▁▂▃▄▅▆▇█┄ ]*", " "),
    (r"(?<!\w)-(?!\w)", "#"),  # unknown, where a number would be
    (r"─+", "─"),
)


def masked(line: str) -> str:
    """`line` without what differs from run to run: numbers, ids, times, the width of columns, pictures' bars."""
    for pattern, mask in _MASKS:
        line = re.sub(pattern, mask, line)
    return " ".join(line.split())


def difference(shown: str, printed: str) -> str | None:
    """Where `printed` isn't what a page has `shown`, apart from what `masked` hides; None if it is.

    A line that is an ellipsis stands for any number of lines, and one that ends in it for any end.
    """
    wanted = [masked(line) for line in shown.splitlines() if line.strip()]
    got = [masked(line) for line in printed.splitlines() if line.strip()]
    if _fits(wanted, got):
        return None
    missing = [line for line in wanted if line != _ELLIPSIS and not any(_is(line, each) for each in got)]
    return f"shown, but not printed: {missing}" if missing else f"more or in another order: {got}"


def _fits(wanted: Sequence[str], got: Sequence[str]) -> bool:
    if not wanted:
        return not got
    if wanted[0] == _ELLIPSIS:
        return any(_fits(wanted[1:], got[start:]) for start in range(len(got) + 1))
    return bool(got) and _is(wanted[0], got[0]) and _fits(wanted[1:], got[1:])


def _is(wanted: str, got: str) -> bool:
    if wanted.endswith(_ELLIPSIS):
        return got.startswith(wanted.removesuffix(_ELLIPSIS).rstrip())
    return wanted == got
