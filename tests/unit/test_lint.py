"""Warnings about policy files: each code at its place, its close neighbours without it, and comments."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import sample_of

from unitmem.kernel.host import Host
from unitmem.kernel.limits import Level
from unitmem.measure.sample import Sample, UnitSample
from unitmem.policyfile import nodes
from unitmem.policyfile.reader import parse
from unitmem.policyfile.warnings import ignores
from unitmem.simulate.lint import CODES, LintCode, review
from unitmem.simulate.lint_budgets import BudgetCode
from unitmem.unit import Invocation, StartLimit, Unit

M, G = 1 << 20, 1 << 30


def host(swap: int | None) -> Host:
    return Host(total=8 * G, available=6 * G, swap_total=swap, swap_free=swap)


def loaded(name: str, limit: int | None = None, protected: str | None = None) -> UnitSample:
    """A unit that runs within `limit`; one without doesn't run."""
    return UnitSample(Unit(name), protected=protected, values={} if limit is None else {"limit": limit})


HERE = sample_of(
    loaded("db.service", 4 * G),
    loaded("idle.service"),
    loaded("journal-helper.service", G, "systemd-journald.service runs in it"),
    loaded("web@1.service", 512 * M),
    loaded("web@2.service", G),
    host=host(swap=0),
)
SLICE = Level("/web.slice", max=512 * M)
SHARED = sample_of(
    *(
        replace(
            loaded(name, min(limit or G, 512 * M)),
            invocation=Invocation(name, None, 1),
            levels=(Level(f"/web.slice/{name}", max=limit), SLICE),
        )
        for name, limit in (("web@1.service", None), ("web@2.service", G), ("small.service", 256 * M))
    ),
    replace(loaded("top.service", 512 * M), levels=(Level("/top.service"), Level("/", max=512 * M))),
    host=host(swap=0),
)
SLOWED = sample_of(
    loaded("web@1.service", G),
    replace(loaded("web@2.service"), values={"limit": G, "high": 900 * M}),
    host=host(swap=0),
)
SWAP = sample_of(*HERE.units.values(), host=host(swap=G))


def steps(*steps: str, units: str = "db.service", more: str = "") -> str:
    """A file of one policy: its units in line 3, its steps from line 5 on, one a line, and then `more`."""
    lines = "".join(f"      - {{{step}}}\n" for step in steps)
    return f'policies:\n  - name: a\n    units: ["{units}"]\n    steps:\n{lines}{more}'


def told(text: str, machine: Sample | None = HERE) -> list[tuple[str | None, int, int]]:
    """(code, line, column) of each warning."""
    return [(problem.code, problem.line, problem.column) for problem in review(parse(text), machine)]


COOLDOWN = "    cooldown: 10min\n"
CLEAR = '    clear: "{}"\n'
SET_1G, SET_2G = "{set: {MemoryHigh: 1G}}", "{set: {MemoryHigh: 2G}}"
STOP_IF_BOTH = 'when: "anon > 1G and swap > 1G", for: 1s, do: stop'


def another(step: str, units: str = "db.service", more: str = "") -> str:
    """A second policy, of four lines and `more`: its step in the last of these."""
    return f'  - name: b\n    units: ["{units}"]\n    steps:\n      - {{{step}}}\n{more}'


# what it says, by code: texts that are warned about and where; (text, machine) that are not
DOUBTFUL = {
    "more than all of the limit": (
        steps('when: "anon > 110% of limit", for: 1s, do: log'),
        HERE,
        ("above-limit", 5, 16),
    ),
    "more than all of the limit, whatever the machine": (
        steps('for: 1s, do: log, when: "workingset > 100% of limit"'),
        None,
        ("above-limit", 5, 34),
    ),
    "a size above the limit of all that match": (
        steps('when: "anon >= 2G", do: log', units="web@*.service"),
        HERE,
        ("above-limit", 5, 16),
    ),
    "a size that is the limit": (
        steps('when: "swap > 1M or anon > 1G", do: log', units="web@*.service"),
        HERE,
        ("above-limit", 5, 16),
    ),
    "a share of the machine that is above the limit": (
        steps('when: "anon > 80% of host.total", do: log'),
        HERE,
        ("above-limit", 5, 16),
    ),
    "a stop near the limit": (
        steps('when: "unreclaimable > 98% of limit and age > 1h", for: 1s, do: stop'),
        HERE,
        ("near-limit", 5, 16),
    ),
    "a signal near the limit, whatever the machine": (
        steps('when: "not (fill < 99% and anon < 98% of max)", do: {signal: SIGTERM}'),
        None,
        ("near-limit", 5, 16),
    ),
    "a size near the limit of one that matches": (
        steps('when: "unreclaimable > 510M", do: {signal: SIGTERM}', units="web@*.service"),
        HERE,
        ("near-limit", 5, 16),
    ),
    "a stop near the limit of one that isn't slowed down": (
        steps('when: "unreclaimable > 98% of limit", for: 1s, do: stop', units="web@*.service"),
        SLOWED,
        ("near-limit", 5, 16),
    ),
    "a share of the limit of a slice": (
        steps('when: "pss > 1M or not anon <= 80% of limit", do: log', units="web@*.service"),
        SHARED,
        ("shared-limit", 5, 16),
    ),
    "a stop of all by the machine": (
        steps('when: "host.available < 1G", for: 10s, do: stop', units="web@*.service"),
        HERE,
        ("no-pick", 5, 53),
    ),
    "a restart of all by their slice, or else": (
        steps(
            'when: "anon > 1G or not slice.anon < 80% of slice.max", for: 10s, do: restart',
            units="web@*.service",
            more="    cooldown: 1h\n",
        ),
        None,
        ("no-pick", 5, 80),
    ),
    "a kill of two by the machine, once they are old": (
        steps(
            'when: "age > 10min and host.pressure.full.avg10 > 20%", for: 10s, do: kill',
            units='db.service", "idle.service',
        ),
        HERE,
        ("no-pick", 5, 80),
    ),
    "less than nothing": (steps('when: "anon < 0B", do: log'), HERE, ("never-true", 5, 16)),
    "more than all the time": (
        steps('when: "pressure.full.avg10 > 100%", do: log'),
        HERE,
        ("never-true", 5, 16),
    ),
    "a stop at the first spike": (steps('when: "anon > 1G", do: stop'), HERE, ("no-hold", 5, 33)),
    "a spike beside events": (
        steps('when: "anon > 1G or events.oom > 0 in 1min", do: stop'),
        HERE,
        ("no-hold", 5, 59),
    ),
    "a kill at the first spike": (steps('when: "anon > 1G", do: kill'), HERE, ("no-hold", 5, 33)),
    "a high without swap": (
        steps('when: "anon > 1G", do: {set: {MemoryMax: 3G, MemoryHigh: 1G}}'),
        HERE,
        ("memory-high-without-swap", 5, 33),
    ),
    "a signal for page cache": (
        steps('when: "current > 1G", do: {signal: SIGUSR1}'),
        HERE,
        ("page-cache", 5, 16),
    ),
    "page cache in one branch": (
        steps('when: "anon > 1G or not (file <= 1G and swap < 1G)", for: 1s, do: stop'),
        HERE,
        ("page-cache", 5, 16),
    ),
    "page cache and what is always so": (
        steps('when: "current > 1G and host.swap_total > 0B and not swap > 1G", for: 1s, do: stop'),
        HERE,
        ("page-cache", 5, 16),
    ),
    "a slope of page cache": (
        steps('when: "growth(current, 1d) > 5M/min", do: stop'),
        HERE,
        ("page-cache", 5, 16),
    ),
    "a signal by a short slope": (
        steps('when: "growth(anon, 23h) > 5M/min", do: {signal: SIGHUP}'),
        HERE,
        ("short-span", 5, 16),
    ),
    "a stop by a short slope of an old run": (
        steps('when: "swap > 1G and anon > 1G or leak(anon, 1h) > 5M/min and age > 1d", for: 1s, do: stop'),
        HERE,
        ("short-span", 5, 16),
    ),
    "harsher with more time left": (
        steps('when: "eta(limit) < 1min", do: log', 'when: "eta(limit) < 5min", do: stop'),
        HERE,
        ("ladder-order", 6, 16),
    ),
    "reclaim, for all that is charged": (
        steps('when: "current > 1G", do: {reclaim: 100M}'),
        HERE,
        ("page-cache", 5, 16),
    ),
    "a name that no unit has": (
        steps('when: "anon > 1G", do: log', units="dbb.service"),
        HERE,
        ("no-match", 3, 13),
    ),
    "a unit by its alias": (
        steps('when: "anon > 1G", do: log', units="nick.service"),
        sample_of(UnitSample(Unit("real.service", aliases=("nick.service",)))),
        ("alias", 3, 13),
    ),
    "a glob without a unit": (
        steps('when: "anon > 1G", do: log', units="api@*.service"),
        HERE,
        ("no-match", 3, 13),
    ),
    "harsher at less": (
        steps('when: "anon > 2G", do: log', 'when: "anon > 1G", for: 1s, do: stop'),
        HERE,
        ("ladder-order", 6, 16),
    ),
    "harsher at the same": (
        steps('when: "anon > 80% of limit", do: {signal: SIGHUP}', 'when: "anon > 80% of limit", do: freeze'),
        HERE,
        ("ladder-order", 6, 16),
    ),
    "a freeze before a command": (
        steps('when: "anon > 2G", do: {run: /bin/dump}', 'when: "anon > 1G", do: freeze'),
        HERE,
        ("ladder-order", 6, 16),
    ),
    "a command before a reclaim": (
        steps('when: "anon > 2G", do: {reclaim: 64M}', 'when: "anon > 1G", do: {run: /bin/dump}'),
        HERE,
        ("ladder-order", 6, 16),
    ),
    "a freeze before a thaw": (
        steps('when: "anon > 2G", do: thaw', 'when: "anon > 1G", do: freeze'),
        HERE,
        ("ladder-order", 6, 16),
    ),
    "a thaw before it is logged": (
        steps('when: "anon > 2G", do: log', 'when: "anon > 1G", do: thaw'),
        HERE,
        ("ladder-order", 6, 16),
    ),
    "the harsher one first": (
        steps('when: "anon > 1G", for: 1s, do: stop', 'when: "not anon <= 2G", do: log'),
        HERE,
        ("ladder-order", 6, 16),
    ),
    "harsher while there is more left": (
        steps('when: "headroom < 1G", do: log', 'when: "headroom < 2G", for: 1s, do: stop'),
        HERE,
        ("ladder-order", 6, 16),
    ),
    "harsher later, at a lower threshold": (
        steps('when: "anon > 2G", for: 1s, do: log', 'when: "anon > 1G", for: 10s, do: stop'),
        HERE,
        ("ladder-order", 6, 16),
    ),
    "every service": (
        steps('when: "anon > 1G", for: 1s, do: stop', units="*.service"),
        None,
        ("core-unit", 3, 13),
    ),
    "a glob around instances of a core unit": (
        steps('when: "anon > 1G", for: 1s, do: stop', units="ssh*.service"),
        None,
        ("core-unit", 3, 13),
    ),
    "a glob around what is protected here": (
        steps('when: "anon > 1K", for: 1s, do: stop', units="journal-*.service"),
        HERE,
        ("core-unit", 3, 13),
    ),
    "a core unit by name, but not on purpose": (
        steps('when: "anon > 1G", for: 1s, do: stop', units="dbus.service"),
        None,
        ("core-unit", 3, 13),
    ),
    "clear where a step fires": (
        steps('when: "anon > 2G", do: log', 'when: "anon > 3G", do: log', more=CLEAR.format("anon < 2G")),
        HERE,
        ("clear-not-below", 7, 12),
    ),
    "clear above where a step fires": (
        steps('when: "swap > 1G and anon > 2G", do: log', more=CLEAR.format("not anon > 3G")),
        HERE,
        ("clear-not-below", 6, 12),
    ),
    "clear by what fires": (
        steps('when: "anon > 2G", do: log', more=CLEAR.format("anon > 1G")),
        HERE,
        ("clear-not-below", 6, 12),
    ),
    "clear with less left": (
        steps('when: "headroom < 2G", do: log', more=CLEAR.format("headroom > 1G")),
        HERE,
        ("clear-not-below", 6, 12),
    ),
    "a restart without end": (
        steps('when: "anon > 1G", for: 1s, do: restart'),
        HERE,
        ("restart-loop", 5, 42),
    ),
    "a restart for a kill that ended a run before": (
        steps('when: "not events.oom_kill <= 0 in 1h", do: restart', more=COOLDOWN),
        HERE,
        ("restart-loop", 5, 54),
    ),
    "one action for two steps": (
        steps(
            'when: "anon > 1G", do: {signal: SIGUSR1}',
            'when: "anon > 2G", for: 1s, do: stop',
            more="    budget: {actions: 1, per: 1h}\n",
        ),
        HERE,
        ("small-budget", 7, 13),
    ),
    "one action of all policies for two steps": (
        steps(
            'when: "anon > 1G", do: {signal: SIGUSR1}',
            'when: "anon > 2G", for: 1s, do: stop',
            more="budget: {actions: 1, per: 1h}\n",
        ),
        HERE,
        ("small-budget", 7, 9),
    ),
    "unprotected, not governed": (
        steps('when: "anon > 1G", do: log', more="    unprotect: [web.service]\n"),
        HERE,
        ("unprotect-ungoverned", 6, 16),
    ),
    "a glob without quotes": (
        steps('when: "anon > 1G", do: log').replace('"db.service"', "db*.service"),
        HERE,
        ("unquoted-pattern", 3, 13),
    ),
    "a name with an escape in double quotes": (
        steps('when: "swap > 1G", do: log', units=r"dev-disk\x2da.swap"),
        None,
        ("escaped-name", 3, 13),
    ),
    "a share of swap that isn't there": (
        steps('when: "host.available < 1G and host.swap_free < 10% of host.swap_total", do: log'),
        HERE,
        ("no-swap", 5, 16),
    ),
    "set otherwise by another policy": (
        steps(f'when: "anon > 1G", do: {SET_1G}', more=another(f'when: "pss > 1G", do: {SET_2G}')),
        SWAP,
        ("contradiction", 9, 32),
    ),
    "set otherwise by a policy over a glob": (
        steps(f'when: "anon > 1G", do: {SET_1G}', more=another(f'when: "anon > 2G", do: {SET_2G}', "*b.service")),
        None,
        ("contradiction", 9, 33),
    ),
    "frozen and thawed at the same time": (
        steps('when: "anon > 1G", do: freeze', more=another('when: "host.available > 1G", do: thaw')),
        HERE,
        ("contradiction", 9, 43),
    ),
    "stopped by one policy before the other restarts it": (
        steps('when: "anon > 2G", for: 9s, do: restart', more=COOLDOWN + another('when: "anon > 1G", for: 1s, do: stop')),
        HERE,
        ("contradiction", 10, 42),
    ),
    "restarted by one policy and stopped by another on the same condition": (
        steps(STOP_IF_BOTH, more=another(STOP_IF_BOTH.replace("stop", "restart"), more=COOLDOWN)),
        HERE,
        ("contradiction", 9, 56),
    ),
}  # fmt: skip

FINE = {
    "one of all by the machine": (
        steps(
            'when: "host.available < 1G", for: 10s, pick: footprint, do: stop', units="web@*.service"
        ),
        HERE,
    ),
    "one unit by the machine": (steps('when: "host.available < 1G", for: 10s, do: stop'), HERE),
    "those of all that are large by the machine": (
        steps(
            'when: "host.available < 1G and anon > 300M", for: 10s, do: stop', units="web@*.service"
        ),
        HERE,
    ),
    "a log of all by the machine": (
        steps('when: "host.available < 1G", do: log', units="web@*.service"),
        HERE,
    ),
    "every service, of which one is picked": (
        steps('when: "host.available < 1G", for: 10s, pick: anon, do: stop', units="*.service"),
        None,
    ),
    "a restart for kills with a budget": (
        steps(
            'when: "events.oom_kill > 0 in 1h", do: restart', more="    budget: {actions: 3, per: 1h}\n"
        ),
        HERE,
    ),
    "a cooldown as long as kills count": (
        steps('when: "events.oom_kill > 0 in 10min", do: restart', more=COOLDOWN),
        HERE,
    ),
    "a restart where there was no kill": (
        steps('when: "events.oom_kill < 1 in 1h", do: restart', more=COOLDOWN),
        HERE,
    ),
    "another end for a kill": (
        steps('when: "events.oom_kill > 0 in 1h", do: stop', more=COOLDOWN),
        HERE,
    ),
    "less than all of the limit": (steps('when: "anon > 99% of limit", do: log'), HERE),
    "a stop short of the limit": (steps('when: "anon > 97% of limit", for: 1s, do: stop'), HERE),
    "a stop near the limit, or else": (
        steps('when: "anon > 98% of limit or pressure.full.avg10 > 40%", for: 1s, do: stop'),
        HERE,
    ),
    "a stop short of the machine": (steps('when: "anon > 98% of host.total", for: 1s, do: stop'), None),
    "a stop near the limit of one that is slowed down": (
        steps('when: "anon > 98% of limit", for: 1s, do: stop', units="web@2.service"),
        SLOWED,
    ),
    "a stop near the limit, after it was slowed down": (
        steps(f'when: "anon > 80% of limit", do: {SET_1G}', 'when: "anon > 98% of limit", for: 1s, do: stop'),
        None,
    ),
    "a thaw below the limit": (steps('when: "anon < 98% of limit", do: thaw'), HERE),
    "the slice is looked at too": (
        steps('when: "fill > 90% and anon > 30% of limit", do: log', units="web@*.service"),
        SHARED,
    ),
    "the slice is looked at by name": (
        steps('when: "slice.anon > 80% of slice.max or anon > 30% of limit", do: log', units="web@*.service"),
        SHARED,
    ),
    "the slice is governed too": (steps('when: "anon > 80% of limit", do: log', units="web*"), SHARED),
    "a limit of its own, below that of the slice": (
        steps('when: "anon > 80% of limit", do: log', units="small.service"),
        SHARED,
    ),
    "the limit of a container": (steps('when: "anon > 80% of limit", do: log', units="top.service"), SHARED),
    "less than the limit of a slice": (
        steps('when: "anon < 80% of limit", do: log', units="web@*.service"),
        SHARED,
    ),
    "process sizes may be above the limit": (steps('when: "pss > 110% of limit", do: log'), HERE),
    "a slope that falls": (steps('when: "growth(anon, 10min) < 0M/min", do: log'), HERE),
    "a stop by a slope": (steps('when: "growth(anon, 1d) > 5M/min", do: stop'), HERE),
    "a stop by a leak": (steps('when: "leak(anon, 1d) > 5M/h and age > 3d", do: stop'), HERE),
    "a stop by a short slope at a level": (
        steps('when: "growth(anon, 10min) > 5M/min and anon > 1G", for: 1s, do: stop'),
        HERE,
    ),
    "a short slope is told": (steps('when: "leak(anon, 1h) > 5M/min", do: log'), HERE),
    "a stop by a short slope that falls": (steps('when: "growth(anon, 1h) < 0B/h", do: stop'), HERE),
    "a stop by the size of its slice": (steps('when: "slice.max > 1G", do: stop'), HERE),
    "a stop by age": (steps('when: "age > 7d", do: stop'), HERE),
    "a stop by what is left of time": (steps('when: "eta(limit) < 5min", do: stop'), HERE),
    "harsher as time runs out": (
        steps('when: "eta(limit) < 5min", do: log', 'when: "eta(limit) < 1min", do: stop'),
        HERE,
    ),
    "harsher by a slope over another span": (
        steps(
            'when: "growth(anon, 10min) > 5M/min", do: log',
            'when: "growth(anon, 1d) > 1M/min", do: stop',
        ),
        HERE,
    ),
    "a size below the limit of one that matches": (
        steps('when: "anon > 600M", do: log', units="web@*.service"),
        HERE,
    ),
    "a size that the limit lets it reach": (
        steps('when: "anon >= 1G", do: log', units="web@*.service"),
        HERE,
    ),
    "a size above the limit that is cleared at": (steps('when: "anon < 9G", do: log'), HERE),
    "a size above what no unit that runs is known to have": (
        steps('when: "anon > 9G", do: log', units="idle.service"),
        HERE,
    ),
    "any size where the machine can't be asked": (steps('when: "anon > 900G", do: log'), None),
    "a stop that waits": (steps('when: "anon > 1G", for: 1s, do: stop'), HERE),
    "a signal at the first spike": (steps('when: "anon > 1G", do: {signal: SIGTERM}'), HERE),
    "events are counted over a span": (steps('when: "events.oom > 0 in 1min", do: stop'), HERE),
    "a high with swap": (steps('when: "anon > 1G", do: {set: {MemoryHigh: 1G}}'), SWAP),
    "a high where the machine can't be asked": (
        steps('when: "anon > 1G", do: {set: {MemoryHigh: 1G}}'),
        None,
    ),
    "no high at all": (steps('when: "anon > 1G", do: {set: {MemoryHigh: infinity}}'), HERE),
    "a max without swap": (steps('when: "anon > 1G", do: {set: {MemoryMax: 1G}}'), HERE),
    "page cache is told": (steps('when: "current > 1G", do: log'), HERE),
    "page cache is low": (steps('when: "current < 1G", do: {signal: SIGUSR1}'), HERE),
    "page cache, and memory that is needed": (
        steps('when: "current > 1G and unreclaimable > 1G", for: 1s, do: stop'),
        HERE,
    ),
    "page cache, and memory is short": (
        steps('when: "current > 1G and host.available < 1G", for: 1s, do: stop'),
        HERE,
    ),
    "reclaim, for page cache": (steps('when: "file > 1G", do: {reclaim: 100M}'), HERE),
    "a share of what has page cache in it": (
        steps('when: "anon > 90% of current", for: 1s, do: stop'),
        HERE,
    ),
    "a glob that matches": (steps('when: "anon > 1M", do: log', units="w*@?.service"), HERE),
    "a unit that is loaded and doesn't run": (
        steps('when: "anon > 1M", do: log', units="idle.service"),
        HERE,
    ),
    "any name where the machine can't be asked": (
        steps('when: "anon > 1G", do: log', units="x.service"),
        None,
    ),
    "harsher at more": (
        steps('when: "anon > 1G", do: log', 'when: "anon > 2G", for: 1s, do: stop'),
        HERE,
    ),
    "harsher at the same, later": (
        steps('when: "anon > 1G", for: 1s, do: log', 'when: "anon > 1G", for: 10s, do: stop'),
        HERE,
    ),
    "as harsh": (
        steps('when: "anon > 2G", for: 1s, do: stop', 'when: "anon > 1G", for: 10s, do: stop'),
        HERE,
    ),
    "a command is as harsh as a signal": (
        steps('when: "anon > 2G", do: {run: /bin/dump}', 'when: "anon > 1G", do: {signal: SIGHUP}'),
        HERE,
    ),
    "a freeze, and a thaw as it shrinks": (
        steps('when: "anon > 2G", do: freeze', 'when: "anon < 1G", do: thaw'),
        HERE,
    ),
    "harsher at less of another measure": (
        steps('when: "anon > 2G", do: log', 'when: "swap > 1G", for: 1s, do: stop'),
        HERE,
    ),
    "harsher at less of something else": (
        steps('when: "anon > 80% of limit", do: log', 'when: "anon > 70% of high", for: 1s, do: stop'),
        HERE,
    ),
    "harsher at less and more": (
        steps('when: "anon > 2G", do: log', 'when: "anon > 1G and swap > 1G", for: 1s, do: stop'),
        HERE,
    ),
    "every service, and only to tell": (
        steps('when: "anon > 1G", do: log', units="*.service"),
        None,
    ),
    "every service but those": (
        steps('when: "anon > 1G", for: 1s, do: stop', units="dbus*.service", more='    except: ["dbus*"]\n'),
        None,
    ),
    "a core unit on purpose": (
        steps(
            'when: "anon > 1G", for: 1s, do: stop',
            units="dbus.service",
            more='    unprotect: ["dbus.service"]\n',
        ),
        None,
    ),
    "clear below": (
        steps('when: "anon > 2G", do: log', more=CLEAR.format("anon < 1G")),
        HERE,
    ),
    "clear with more left": (
        steps('when: "headroom < 1G", do: log', more=CLEAR.format("not headroom < 2G")),
        HERE,
    ),
    "clear by another measure": (
        steps('when: "anon > 2G", do: log', more=CLEAR.format("workingset < 3G")),
        HERE,
    ),
    "clear by a share": (
        steps('when: "anon > 2G", do: log', more=CLEAR.format("anon < 80% of limit")),
        HERE,
    ),
    "a restart with a pause": (steps('when: "anon > 1G", for: 1s, do: restart', more=COOLDOWN), HERE),
    "a restart within a budget": (
        steps('when: "anon > 1G", for: 1s, do: restart', more="    budget: {actions: 3, per: 1h}\n"),
        HERE,
    ),
    "a restart within a budget for all": (
        steps('when: "anon > 1G", for: 1s, do: restart', more="budget: {actions: 3, per: 1h}\n"),
        HERE,
    ),
    "two actions for three steps, as the last one is kept": (
        steps(
            'when: "anon > 1G", do: {reclaim: 1M}',
            'when: "anon > 2G", do: {signal: SIGUSR1}',
            'when: "anon > 3G", for: 1s, do: stop',
            more="    budget: {actions: 2, per: 1h}\n",
        ),
        HERE,
    ),
    "one action for one step that acts": (
        steps(
            'when: "anon > 1G", do: log',
            'when: "anon > 2G", for: 1s, do: stop',
            more="    budget: {actions: 1, per: 1h}\n",
        ),
        HERE,
    ),
    "unprotected and governed": (
        steps('when: "anon > 1G", do: log', more="    unprotect: [db.service]\n"),
        HERE,
    ),
    "a name with a backslash in single quotes": (
        steps('when: "swap > 1G", do: log').replace('"db.service"', r"'dev-disk\x2da.swap'"),
        None,
    ),
    "a name with its backslash doubled": (
        steps('when: "swap > 1G", do: log', units=r"dev-disk\\x2da.swap"),
        None,
    ),
    "a share of swap, or another condition": (
        steps('when: "host.available < 1G or host.swap_free < 10% of host.swap_total", do: log'),
        HERE,
    ),
    "a share of swap that is there": (
        steps('when: "host.swap_free < 10% of host.swap_total", do: log'),
        SWAP,
    ),
    "set otherwise in the same ladder": (
        steps(f'when: "anon > 1G", do: {SET_1G}', f'when: "anon > 2G", do: {SET_2G}'),
        SWAP,
    ),
    "set otherwise where the first condition can't hold": (
        steps(f'when: "anon > 2G", do: {SET_1G}', more=another(f'when: "anon < 1G", do: {SET_2G}')),
        SWAP,
    ),
    "set the same by two policies": (
        steps(f'when: "anon > 1G", do: {SET_1G}', more=another(f'when: "pss > 1G", do: {SET_1G}')),
        SWAP,
    ),
    "set otherwise for other units": (
        steps(f'when: "anon > 9M", do: {SET_1G}', more=another(f'when: "anon > 9M", do: {SET_2G}', "web@1.service")),
        SWAP,
    ),
    "set otherwise by a policy that only observes": (
        steps(f'when: "anon > 1G", do: {SET_1G}', more=another(f'when: "anon > 1G", do: {SET_2G}', more="    mode: observe\n")),
        SWAP,
    ),
    "frozen below and thawed above": (
        steps(
            'when: "host.available < 1G or host.pressure.full.avg10 > 20%", do: freeze',
            more=another('when: "host.available > 2G", do: thaw'),
        ),
        HERE,
    ),
    "restarted by one policy before the other stops it": (
        steps('when: "anon > 1G", for: 1s, do: restart', more=COOLDOWN + another('when: "anon > 2G", for: 1s, do: stop')),
        HERE,
    ),
    "a glob in quotes": (steps('when: "anon > 1G", do: log', units="db*.service"), HERE),
}  # fmt: skip


@pytest.mark.parametrize("name", DOUBTFUL)
def test_what_is_doubted_is_told_with_its_code_and_place(name):
    text, machine, doubt = DOUBTFUL[name]
    assert told(text, machine) == [doubt]


@pytest.mark.parametrize("name", FINE)
def test_its_close_neighbours_are_not_doubted(name):
    text, machine = FINE[name]
    assert told(text, machine) == []


def test_every_code_but_those_about_comments_is_in_the_table():
    assert {doubt[0] for _, _, doubt in DOUBTFUL.values()} == CODES - {
        BudgetCode.START_LIMIT,
        LintCode.UNKNOWN_CODE,
        LintCode.UNUSED_IGNORE,
    }


@pytest.mark.parametrize(
    ("more", "hold", "limit", "restarts"),
    [
        # the usual limit, and a pause that is longer than its interval
        ("cooldown: 10min", "1min", StartLimit(5, 10), None),
        ("budget: {actions: 3, per: 1h}", "1s", StartLimit(3, 3600), "3 restarts"),
        ("budget: {actions: 3, per: 1h}", "1s", StartLimit(4, 3600), None),
        ("budget: {actions: 3, per: 1h}", "1s", StartLimit(4, 7200), "6 restarts"),
        ("cooldown: 10min", "10min", StartLimit(3, 3600), "3 restarts"),
        ("cooldown: 10min", "10min", StartLimit(4, 3600), None),
        ("cooldown: 10min\n    budget: {actions: 1, per: 1h}", "10min", StartLimit(3, 3600), None),
    ],
)
def test_restarts_are_counted_against_the_start_limit(more, hold, limit, restarts):
    text = steps(f'when: "anon > 1G", for: {hold}, do: restart', more=f"    {more}\n")
    doubts = review(parse(text), HERE, {"db.service": limit, "web@1.service": StartLimit(1, 9e9)})
    assert [(doubt.code, doubt.line) for doubt in doubts] == [("start-limit", 5)] * (restarts is not None)
    if restarts is not None:
        assert f"{restarts} of db.service may exceed its start limit ({limit})" in doubts[0].message


@pytest.mark.parametrize(
    ("pick", "protected", "is_told"),
    [("", None, True), ("pick: {by: anon, settle: 10s}, ", None, False), ("", "the machine needs it", False)],
)
def test_restarts_are_rarer_while_the_last_one_settles_and_none_of_what_is_protected(
    pick, protected, is_told
):
    text = steps(f'when: "anon > 1G", for: 2s, {pick}do: restart', more="    budget: {actions: 9, per: 1h}\n")
    units = {"db.service": replace(HERE.units["db.service"], protected=protected)}
    doubts = review(parse(text), replace(HERE, units=units), {"db.service": StartLimit(5, 10)})
    assert ("start-limit" in {doubt.code for doubt in doubts}) is is_told


def test_parts_on_lines_of_their_own_have_places_of_their_own():
    text = """\
policies:
- name: a
  units:
    - db.service
    -   "nginx@*.service"
  steps:
    - when: "anon > 1G"
      do:
        stop
    - do: stop
      when:  "current > 2G"
"""
    assert told(text) == [
        ("no-match", 5, 9),
        ("no-hold", 9, 9),
        ("no-hold", 10, 11),
        ("page-cache", 11, 14),
    ]


def test_a_message_says_what_to_write_instead():
    text = steps('when: "anon > 80%  of limit", for: 1s, do: stop', 'when: "anon > 90% of limit", do: log')
    (order,) = review(parse(text), HERE)
    assert order.message == (
        "`stop` at `anon > 80% of limit` comes no later than `log` at `anon > 90% of limit`, which is "
        "milder: give the milder one the threshold that is met first"
    )
    (core,) = review(parse(steps('when: "anon > 1G", for: 1s, do: stop', units="*.socket")), None)
    assert "systemd-journald*.socket, dbus.socket, systemd-logind-varlink.socket and 5 more" in core.message


# --- comments ----------------------------------------------------------------------------------

STOP = 'when: "anon > 1G", do: stop'


@pytest.mark.parametrize(
    "text",
    [
        steps(STOP).replace("stop}", "stop}  # unitmem: ignore=no-hold"),
        steps(STOP).replace("stop}", "stop} #unitmem:ignore = no-hold because it may"),
        steps(STOP).replace("      - {", "      # unitmem: ignore=no-hold\n      - {"),
        steps(STOP).replace("      - {", "# unitmem: ignore=no-hold\n\n  # for a reason\n      - {"),
        steps(STOP.replace("anon", "file")).replace("stop}", "stop} # unitmem: ignore=no-hold,page-cache"),
        steps(STOP.replace("anon", "file")).replace("stop}", "stop} # unitmem: ignore=no-hold , page-cache"),
        steps(STOP.replace("anon", "file")).replace(
            "      - {", "# unitmem: ignore=no-hold\n# why # unitmem: ignore=page-cache\n      - {"
        ),
        steps(STOP).replace("\n", "\r\n").replace("stop}", "stop}  # unitmem: ignore=no-hold"),
        steps(STOP.replace("do", "for: 1s, do"), units="none*.service").replace(
            "]\n", "]  # unitmem: ignore=no-match\n"
        ),
    ],
)
def test_a_comment_at_its_line_or_above_it_silences_a_warning(text):
    assert told(text) == []


@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig"])
def test_a_comment_in_any_encoding_of_yaml(mark):
    text = steps(STOP).replace("stop}", "stop}  # unitmem: ignore=no-hold für immer")
    assert told(text.encode(mark)) == []


@pytest.mark.parametrize(
    ("old", "new", "doubts"),
    [
        # another line
        ("policies:", "# unitmem: ignore=no-hold\npolicies:", {("unused-ignore", 1, 1), ("no-hold", 6, 33)}),
        (
            "    steps:",
            "    steps: # unitmem: ignore=no-hold",
            {("unused-ignore", 4, 12), ("no-hold", 5, 33)},
        ),
        ("stop}", "stop}\n# unitmem: ignore=no-hold", {("unused-ignore", 6, 1), ("no-hold", 5, 33)}),
        # another code
        ("stop}", "stop} # unitmem: ignore=page-cache", {("unused-ignore", 5, 39), ("no-hold", 5, 33)}),
        ("stop}", "stop} # unitmem: ignore=no-hodl", {("unknown-code", 5, 39), ("no-hold", 5, 33)}),
        ("stop}", "stop} # unitmem: ignore=", {("unknown-code", 5, 39), ("no-hold", 5, 33)}),
        ("stop}", "stop} # unitmem: ignore=no-hold,all", {("unknown-code", 5, 39)}),
        ("stop}", "stop} # unitmem: ignore=no-hold,page-cache", {("unused-ignore", 5, 39)}),
        # no comment at all
        ('"anon > 1G"', '"anon > 1G" ,"x # unitmem: ignore=no-hold": 1', None),
        ("stop}", "stop} # unitmem: ignores no-hold", {("no-hold", 5, 33)}),
        ("stop}", "stop} # unitmem: this one stops", {("no-hold", 5, 33)}),
        # comments about comments
        ("stop}", "stop} # unitmem: ignore=no-hold,page-cache,unused-ignore", set()),
        ("stop}", "stop} # unitmem: ignore=no-hold,all,unknown-code", set()),
    ],
)
def test_comments_that_silence_nothing(old, new, doubts):
    text = steps(STOP).replace(old, new)
    if doubts is None:
        assert ignores(text, nodes.LOADER) == ()
    else:
        assert set(told(text)) == doubts


@pytest.mark.parametrize("code", ["no-match", "core-unit", "above-limit", "memory-high-without-swap"])
def test_what_could_not_be_judged_is_not_unused(code):
    """Where the machine can't be asked, the warning that the comment silences may only be missing here."""
    text = steps('when: "anon > 1G", do: log').replace("log}", f"log}} # unitmem: ignore={code}")
    assert told(text, None) == []
    assert told(text, HERE) == [("unused-ignore", 5, 38)]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('a: "b # unitmem: ignore=x"\n', []),
        ("a: 'b\n\n  # unitmem: ignore=x\n  c'\n", []),
        ("a: |\n  b\n  # unitmem: ignore=x\n", []),
        ("a: >\n  b\n# unitmem: ignore=x\n", [3]),
        ("a: b# unitmem: ignore=x\n", []),
        ("a: b # unitmem: ignore=x\n", [1]),
        ("a: 'ä' # unitmem: ignore=x\n", [1]),
        ("a: {'b': [c, # unitmem: ignore=x\n 'd']} # unitmem: ignore=x\n", [1, 2]),
        ("# unitmem: ignore=x\n", [1]),
        ("", []),
    ],
)
def test_a_comment_is_told_from_a_value(text, lines):
    assert [ignore.line for ignore in ignores(text, nodes.LOADER)] == lines


def test_the_daemon_leaves_silenced_doubts_alone():
    """It reads the file without the linter, and tells what `config` doubts."""
    text = steps('when: "anon < 0B", do: log')
    assert [problem.code for problem in parse(text).warnings] == ["never-true"]
    assert parse(text.replace("log}", "log} # unitmem: ignore=never-true")).warnings == ()


@given(
    st.permutations(
        ['when: "anon > 1G", do: log', 'when: "anon > 2G", do: freeze', 'when: "anon > 3G", do: kill']
    )
)
def test_the_order_in_which_steps_are_written_is_free(written):
    assert "ladder-order" not in [code for code, _, _ in told(steps(*written))]


@given(st.permutations([("log", 1), ("freeze", 2), ("kill", 3)]), st.permutations([1, 2, 3]))
def test_a_ladder_is_in_order_only_if_each_threshold_is(actions, thresholds):
    text = steps(
        *(
            f'when: "anon > {size}G", do: {action}'
            for (action, _), size in zip(actions, thresholds, strict=True)
        )
    )
    ladder = sorted(zip(thresholds, (rank for _, rank in actions), strict=True))
    in_order = all(low[1] < high[1] for low, high in pairwise(ladder))
    assert ("ladder-order" not in [code for code, _, _ in told(text)]) is in_order
