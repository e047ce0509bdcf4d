"""Text in styles, for terminals: few of the escapes of ECMA-48, and the width that text has there."""

from __future__ import annotations

import unicodedata
from typing import Self

_CODES = {"bold": "1", "dim": "2", "reverse": "7", "red": "31", "green": "32", "yellow": "33"}
_ZERO_WIDTH = frozenset({"Mn", "Me", "Cf"})
ELLIPSIS = "…"


class Text:
    """Pieces of text, each with a style: words such as `bold red`, or nothing.

    Args:
        plain: the first piece.
        style: its style.
    """

    __slots__ = ("pieces", "style")

    def __init__(self, plain: str = "", style: str = "") -> None:
        self.style = style
        """The style of the first piece."""
        self.pieces = [(plain, style)] if plain else []

    @classmethod
    def assemble(cls, *parts: str | tuple[str, str] | Text) -> Self:
        """Return one text of several."""
        text = cls()
        for part in parts:
            if isinstance(part, Text):
                text.pieces += part.pieces
            else:
                text.append(*([part] if isinstance(part, str) else part))
        return text

    def append(self, plain: str, style: str = "") -> None:
        self.pieces.append((plain, style))

    def append_text(self, text: Text) -> None:
        self.pieces += text.pieces

    @property
    def plain(self) -> str:
        """The text without styles."""
        if len(self.pieces) == 1:
            return self.pieces[0][0]
        return "".join(plain for plain, _ in self.pieces)

    def rstrip(self) -> None:
        """Remove blanks at the end."""
        while self.pieces:
            plain, style = self.pieces.pop()
            if plain := plain.rstrip():
                self.pieces.append((plain, style))
                return

    def truncate(self, width: int) -> None:
        """Cut the end to `width` cells at most, with an ellipsis in place of what is missing."""
        if cell_len(self.plain) <= width:
            return
        pieces, self.pieces = self.pieces, []
        room = width - cell_len(ELLIPSIS)
        for plain, style in pieces:
            taken = take(plain, room)
            room -= cell_len(taken)
            if taken != plain:
                self.append(taken + ELLIPSIS, style)
                return
            self.append(plain, style)

    def rendered(self) -> str:
        """Return the text with the escapes of its styles."""
        return "".join(
            f"\x1b[{';'.join(_CODES[word] for word in style.split())}m{plain}\x1b[0m"
            if style and plain
            else plain
            for plain, style in self.pieces
        )


def cell_len(text: str) -> int:
    """Return how many columns of a terminal `text` takes: some characters take two, and some none."""
    if text.isascii():
        return len(text)
    return sum(
        2
        if unicodedata.east_asian_width(character) in "WF"
        else unicodedata.category(character) not in _ZERO_WIDTH
        for character in text
    )


def take(text: str, width: int) -> str:
    """Return the beginning of `text` that fits into `width` cells."""
    taken = 0
    for position, character in enumerate(text):
        taken += cell_len(character)
        if taken > width:
            return text[:position]
    return text
