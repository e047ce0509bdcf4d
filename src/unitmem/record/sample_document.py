"""Samples in JSON: the lines of other sources, and what version 0.1 recorded.

    {"at": 12.5, "units": {"web.service": {"run": "1", "values": {"anon": 1048576}, "unknown": {"pss": "why"}}}}

`at` is in seconds and never falls; `run` changes when the unit is started anew; `values` are by the
measures' names, in bytes, percent, counts and seconds; `protected` may say why no policy may touch the unit;
`oom_ends` may list how many seconds ago OOM kills ended earlier runs of it; `levels` have the limits of its cgroup
and of those around it, as in `LEVEL_KEYS`, which `eta` is judged by, and under `unknown` why a `max` or `high` is missing;
`cgroup` has its path, and `oom_preference` its ManagedOOMPreference=, which a `pick` goes by.
A key `host` beside `units` has the `values` and `unknown` of the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unitmem.kernel.limits import Level
from unitmem.kernel.oom_preference import OomPreference
from unitmem.measure.sample import HostSample, Sample, UnitSample
from unitmem.record.chunk import HOST
from unitmem.record.numbers import finite
from unitmem.unit import Invocation, Unit

LEVEL_KEYS = ("path", "max", "high", "current", "file", "slab_reclaimable")
NOT_A_SAMPLE = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)
"""What reading a document raises that is not that of a sample."""
_OF_HOST = "host."


def read_sample(at: float, document: Mapping[str, Any], host: Mapping[str, Any] | None = None) -> Sample:
    """Return the sample in `document`, a mapping by unit; version 0.1 had the host's measures in each unit."""
    units = {}
    host = dict(host or document.get(HOST, {}))
    values, unknown = dict(_values(host.get("values", {}))), dict(host.get("unknown", {}))
    for name, entry in document.items():
        if name == HOST:
            continue
        run = entry.get("run")
        own = _values(entry["values"])
        reasons = {str(measure): str(why) for measure, why in entry.get("unknown", {}).items()}
        values.update((measure, value) for measure, value in own.items() if measure.startswith(_OF_HOST))
        unknown.update((measure, why) for measure, why in reasons.items() if measure.startswith(_OF_HOST))
        units[str(name)] = UnitSample(
            Unit(
                str(name),
                invocation_id=None if run is None else str(run),
                control_group=None if (path := entry.get("cgroup")) is None else str(path),
                aliases=tuple(map(str, entry.get("aliases", ()))),
            ),
            Invocation(str(name), None if run is None else str(run), int(finite(entry.get("inode") or 0))),
            protected=entry.get("protected"),
            oom_preference=OomPreference(entry.get("oom_preference", "none")),
            values={measure: value for measure, value in own.items() if not measure.startswith(_OF_HOST)},
            unknown={measure: why for measure, why in reasons.items() if not measure.startswith(_OF_HOST)},
            levels=tuple(_level(level) for level in entry.get("levels", ())),
            oom_ends=tuple(at - finite(ago) for ago in entry.get("oom_ends", ())),
            at_most=_bounds(entry.get("at_most", {})),
            at_least=_bounds(entry.get("at_least", {})),
        )
    return Sample(
        at, units, HostSample(values, {name: why for name, why in unknown.items() if name not in values})
    )


def _level(document: Mapping[str, Any]) -> Level:
    sizes = {key: int(finite(document[key])) for key in LEVEL_KEYS if key in document and key != "path"}
    unknown = {str(name): str(why) for name, why in document.get("unknown", {}).items()}
    return Level(str(document["path"]), **sizes, unknown=unknown)


def _bounds(document: Mapping[str, Any]) -> dict[str, int]:
    return {str(measure): int(finite(value)) for measure, value in document.items()}


def _values(document: Mapping[str, Any]) -> dict[str, float]:
    checked = {str(measure): _checked(value) for measure, value in document.items()}
    return {measure: value for measure, value in checked.items() if value is not None}


def _checked(value: object) -> float | None:
    return None if value is None else finite(value)
