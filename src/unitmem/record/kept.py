"""What is kept of each sample, and how far a value may move while it counts as the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from unitmem.measure.catalogue import AGE, COSTLY_NAMES, OPERANDS, Dimension, Trait
from unitmem.record.chunk import AT_LEAST, AT_MOST, HOST

SHARE = 0.008
"""The most that a size may move, as a share of it; with what its bounds are rounded by, they are 1% apart at most."""
LEAST_SIZE = 48 << 10
"""The most that a size may move where that share is less, in bytes."""
POINT = 0.75
"""The most that a percentage may move, in points."""
EXACT = (0.0, 0.0)
_LEVEL_COLUMNS = ("max", "high", "current", "file", "slab_reclaimable")

Slack = tuple[float, float]
"""The most that a value may move: an amount, or a share of it if that is more."""


class Kept:
    """What is kept of each sample.

    Args:
        measures: the names of the measures.
        followed: those of which any change counts, as slopes are taken of them.
        with_levels: whether the levels of units are kept as well.
    """

    def __init__(self, measures: Iterable[str], followed: Iterable[str], *, with_levels: bool) -> None:
        names, followed = tuple(measures), frozenset(followed)
        self.of_host = tuple(name for name in names if name.startswith("host."))
        self.of_units = tuple(name for name in names if not name.startswith("host."))
        self.bounded = tuple(name for name in self.of_units if name in COSTLY_NAMES)
        self.age = self.of_units.index(AGE) if AGE in self.of_units else None
        self.with_levels = with_levels
        slack = {name: EXACT if name in followed else _slack(name) for name in names}
        self._unit_columns = {name: slack[name] for name in self.of_units}
        self._unit_columns |= {
            bound + name: slack[name] for bound in (AT_MOST, AT_LEAST) for name in self.bounded
        }
        self._host_columns = {name: slack[name] for name in self.of_host}
        self._level_columns = dict.fromkeys(_LEVEL_COLUMNS, EXACT)

    def measures(self, part: str) -> tuple[str, ...]:
        """Return the measures of `part`, in the order of their columns, which may be followed by others."""
        if part == HOST:
            return self.of_host
        return () if part.startswith("/") else self.of_units

    def columns(self, part: str) -> Mapping[str, Slack]:
        """Return the columns of `part`, with what their values may move."""
        if part == HOST:
            return self._host_columns
        return self._level_columns if part.startswith("/") else self._unit_columns


def _slack(name: str) -> Slack:
    measure = OPERANDS.get(name)
    if measure is None or Trait.FIXED in measure.traits:
        return EXACT
    return {Dimension.SIZE: (LEAST_SIZE, SHARE), Dimension.PERCENT: (POINT, 0.0)}.get(
        measure.dimension, EXACT
    )
