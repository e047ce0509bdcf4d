"""JSON documents, for programs: stable, in bytes, percent and counts, and null where a number is unknown.

`list` gives {"host": HOST, "units": [UNIT, …]}, `show` one UNIT with "host", "limit_set_by",
"fill_set_by", "levels" and "processes" besides. Keys are added in later versions, never renamed or removed.

    HOST     total, available, swap_total, swap_free, and pressure.{some,full}.{avg10,avg60,avg300}
    UNIT     unit, description, load_state, active_state, sub_state, invocation_id, control_group, slice,
             main_pid, control_pid, protected (why no policy touches it, or null),
             measures (every measure by its name), unknown (the reason for each that is null)
    level    path, max, high (null: no limit), current, workingset, unreclaimable; the unit's own first, then upwards
    process  pid, name, command, rss, pss, uss, swap_pss, hugetlb, unknown (the reason where pss is null);
             largest first
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from unitmem.kernel.limits import Level
from unitmem.kernel.process import Process
from unitmem.measure.catalogue import HOST_MEASURES, UNIT_NAMES
from unitmem.measure.sample import HostSample, Sample, UnitSample
from unitmem.report.unit import by_size

NOT_ASKED = "not read: it needs --pss"


def emit(document: Any) -> None:
    """Print `document` on stdout: indented, since people read it too, and with escapes if stdout isn't UTF-8."""
    is_unicode = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    # at once, so that a reader who has gone away is noticed here
    print(json.dumps(document, indent=2, ensure_ascii=not is_unicode), flush=True)  # noqa: T201 - for all verbs


def units_document(machine: Sample, units: Sequence[UnitSample]) -> dict[str, Any]:
    """Return what `unitmem list --json` prints: `units` of `machine` in their order."""
    return {"host": _host(machine.host), "units": [_unit(sample) for sample in units]}


def unit_document(machine: Sample, sample: UnitSample) -> dict[str, Any]:
    """Return what `unitmem show --json` prints."""
    return _unit(sample) | {
        "limit_set_by": machine.limit_set_by(sample),
        "fill_set_by": machine.fill_set_by(sample),
        "levels": [_level(level) for level in sample.levels],
        "processes": [_process(process) for process in by_size(sample.processes)],
        "host": _host(machine.host),
    }


def _unit(sample: UnitSample) -> dict[str, Any]:
    unit = sample.unit
    measures = {name: sample.values.get(name) for name in UNIT_NAMES}
    return {
        "unit": unit.name,
        "description": unit.description,
        "load_state": unit.load_state,
        "active_state": unit.active_state,
        "sub_state": unit.sub_state,
        "invocation_id": unit.invocation_id,
        "control_group": unit.control_group,
        "slice": unit.slice,
        "main_pid": unit.main_pid,
        "control_pid": unit.control_pid,
        "protected": sample.protected,
        "measures": measures,
        "unknown": {
            name: sample.unknown.get(name, NOT_ASKED) for name, value in measures.items() if value is None
        },
    }


def _host(host: HostSample) -> dict[str, float | None]:
    return {measure.name.removeprefix("host."): host.values.get(measure.name) for measure in HOST_MEASURES}


def _level(level: Level) -> dict[str, Any]:
    return {
        "path": level.path,
        "max": level.max,
        "high": level.high,
        "current": level.current,
        "workingset": level.workingset,
        "unreclaimable": level.unreclaimable,
    }


def _process(process: Process) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "name": process.name,
        "command": process.command,
        "rss": process.rss,
        "pss": process.pss,
        "uss": process.uss,
        "swap_pss": process.swap_pss,
        "hugetlb": process.hugetlb,
        "unknown": process.unknown,
    }
