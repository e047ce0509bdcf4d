"""Reporting a problem once while it lasts, and its end once."""

from __future__ import annotations

from collections.abc import Hashable

from unitmem.tell.journal import Entry, Priority


class Once:
    """The problems that were reported and still last, each under a key."""

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
        """Return the entry to report about `key`: a new problem, or the end of one; None if nothing is new.

        Args:
            key: the subject of the problem.
            trouble: the message about the problem; None if there is none now.
            well: the message about the end of the problem; None if the end isn't reported.
            priority: the priority of the problem; its end is a notice.
            by_words: whether a problem whose message has changed is reported again.
        """
        reported = self._reported.pop(key, None)
        if trouble is None:
            return None if reported is None or well is None else Entry(Priority.NOTICE, well)
        self._reported[key] = trouble
        return (
            None
            if reported == trouble or (reported is not None and not by_words)
            else Entry(priority, trouble)
        )
