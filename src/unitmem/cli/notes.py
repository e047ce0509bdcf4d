"""Notes on stderr, besides the data."""

from __future__ import annotations

from collections.abc import Iterable

from unitmem.measure.sample import UnitSample
from unitmem.report.failure import say


def note_refused(samples: Iterable[UnitSample], missing: str) -> None:
    """Print a note if this user may not read some values; `missing` says how they are shown."""
    if any("permission denied" in reason for sample in samples for reason in sample.unknown.values()):
        say(f"unitmem: values {missing} may not be read by this user (permission denied): run it as root")
