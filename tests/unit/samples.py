"""Samples made by hand."""

from __future__ import annotations

from dataclasses import replace

from unitmem.kernel.host import Host
from unitmem.measure.formulas import host_values
from unitmem.measure.sample import HostSample, Sample, UnitSample


def sample_of(*units: UnitSample, host: Host | None = None, at: float = 0.0) -> Sample:
    """A sample of these units; measures of the host that are among a unit's values are the host's."""
    values = {} if host is None else dict(host_values(host).values)
    for unit in units:
        values |= {name: value for name, value in unit.values.items() if name.startswith("host.")}
    own = [
        replace(unit, values={name: value for name, value in unit.values.items() if name not in values})
        for unit in units
    ]
    return Sample(at, {unit.unit.name: unit for unit in own}, HostSample(values))
