"""Reporting a problem once while it lasts, and its end once, also where it comes and goes."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from unitmem.tell.journal import Entry, Priority

QUIET = 60.0
"""The seconds for which a problem that comes and goes has to be away until its end is reported."""
LONGEST_QUIET = 900.0
"""Those of one that keeps coming back, as they are doubled each time; one that comes back later is a new one."""
MOST_WORDS = 5
"""The most messages about one problem whose words change."""


@dataclass(slots=True)
class _Problem:
    """A problem that was reported."""

    words: str
    quiet: float
    """The seconds for which it has to be away until its end is reported."""
    reports: int = 1
    away_since: float | None = None
    well: str | None = None
    over_at: float | None = None
    """The time at which its end was reported, after which it is remembered for a while."""


class Once:
    """The problems that were reported and still last, or ended a short while ago, each under a key."""

    def __init__(self) -> None:
        self._problems: dict[Hashable, _Problem] = {}

    def news(
        self,
        key: Hashable,
        trouble: str | None,
        well: str | None = None,
        priority: Priority = Priority.WARNING,
        *,
        by_words: bool = True,
        now: float = 0.0,
        quiet: float = 0.0,
    ) -> Entry | None:
        """Return the entry to report about `key`: a new problem, or the end of one; None if nothing is new.

        Args:
            key: the subject of the problem.
            trouble: the message about the problem; None if there is none now.
            well: the message about the end of the problem; None if the end isn't reported.
            priority: the priority of the problem; its end is a notice.
            by_words: whether a problem whose message has changed is reported again.
            now: seconds of a monotonic clock.
            quiet: the seconds for which the problem has to be away until its end is reported. If it comes back soon
                after that, they become a minute, or twice as many.
        """
        self._forget(now)
        problem = self._problems.get(key)
        if trouble is None:
            if problem is None or problem.over_at is not None:
                return None
            problem.well = well
            problem.away_since = now if problem.away_since is None else problem.away_since
            return _end(problem, now)
        if problem is None:
            self._problems[key] = _Problem(trouble, quiet)
            return Entry(priority, trouble)
        if problem.over_at is not None:
            again = min(max(QUIET, 2 * problem.quiet), LONGEST_QUIET)
            self._problems[key] = _Problem(trouble, again)
            return Entry(priority, trouble)
        problem.away_since = None
        if trouble == problem.words or not by_words or problem.reports == MOST_WORDS:
            return None
        problem.words, problem.reports = trouble, problem.reports + 1
        return Entry(priority, trouble)

    def ends(self, now: float) -> Iterator[Entry]:
        """Yield the entry about the end of each problem that has been away for long enough by now."""
        for problem in self._problems.values():
            if problem.over_at is None and (entry := _end(problem, now)) is not None:
                yield entry

    def _forget(self, now: float) -> None:
        self._problems = {
            key: problem
            for key, problem in self._problems.items()
            if problem.over_at is None or now - problem.over_at <= LONGEST_QUIET
        }


def _end(problem: _Problem, now: float) -> Entry | None:
    """Return the entry about the end of `problem` if it is over by now; None if it isn't, or nobody asked for one."""
    if problem.away_since is None or now - problem.away_since < problem.quiet:
        return None
    problem.over_at = now
    return None if problem.well is None else Entry(Priority.NOTICE, problem.well)
