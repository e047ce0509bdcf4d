"""What is wrong is told once while it lasts, and so is that it's well again."""

from __future__ import annotations

from collections.abc import Hashable

from unitmem.tell.journal import Entry, Priority


class Once:
    """What was told of what is wrong by now, by a key for each thing that can be."""

    def __init__(self) -> None:
        self._reported: dict[Hashable, str] = {}

    def news(
        self,
        key: Hashable,
        trouble: str | None,
        well: str | None = None,
        priority: Priority = Priority.WARNING,
        *,
        by_words: bool = True,
    ) -> Entry | None:
        """What there is to tell of `key`: that it is in trouble, or that it no longer is; None if nothing is new.

        Args:
            key: what it is about.
            trouble: the sentence that says what is wrong now; None if nothing is.
            well: the sentence for the end of the trouble; None where its end is not worth one.
            priority: of the trouble; its end is a notice.
            by_words: whether a trouble that reads differently by now is told anew.
        """
        told = self._reported.pop(key, None)
        if trouble is None:
            return None if told is None or well is None else Entry(Priority.NOTICE, well)
        self._reported[key] = trouble
        return None if told == trouble or (told is not None and not by_words) else Entry(priority, trouble)
