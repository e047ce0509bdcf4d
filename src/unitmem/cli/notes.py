"""What is said besides the data, on stderr, once."""

from __future__ import annotations

from collections.abc import Iterable

from unitmem.measure.sample import UnitSample
from unitmem.report.failure import say


def note_refused(samples: Iterable[UnitSample], missing: str) -> None:
    """Say why values are missing, if it is because this user may not read them; `missing` is how that shows."""
    if any("permission denied" in reason for sample in samples for reason in sample.unknown.values()):
        say(f"unitmem: values {missing} may not be read by this user (permission denied): run it as root")
