"""Reporting the units that a watch can't see, and that it can again."""

from __future__ import annotations

from unitmem.kernel.files import OpenFiles
from unitmem.manager.tracker import Tracker
from unitmem.tell.reporter import Reporter


class Unseen:
    """The units that can't be listed, or whose cgroups can't be opened, as far as that was reported."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._unopened: frozenset[str] = frozenset()

    def report(self, tracker: Tracker, kept: OpenFiles | None) -> None:
        """Report what has changed since the last call, in `tracker`, and in the files of cgroups that are `kept` open."""
        refusal, unopened = tracker.refusal, tracker.unopened
        unlisted = None if refusal is None else f"the units can't be listed: {refusal}"
        self._reporter.once("units", unlisted, "the units can be listed again")
        for unit in sorted(self._unopened | unopened.keys()):
            why, tracked = unopened.get(unit), tracker.find(unit)
            unseen = f"{unit}: not watched, as its cgroup can't be opened: {why}"
            # else it has stopped, or is governed no more
            is_open = tracked is not None and tracked.cgroup is not None
            again = f"{unit}: its cgroup can be opened again" if is_open else None
            self._reporter.once(("cgroup", unit), None if why is None else unseen, again)
        self._unopened = frozenset(unopened)
        if kept is not None and kept.is_short:
            most = f"no more than {kept.most} files of cgroups are kept open"
            self._reporter.once("files", f"{most}: the others are opened at each tick")
