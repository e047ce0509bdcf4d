"""The cookbook: each recipe passes the strict check, and does over a made-up history what its page says."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf

import pytest
from documents import CHECKOUT, PAGES, blocks

from unitmem.errors import UnsupportedSystemError
from unitmem.policy.actions import Log
from unitmem.policy.model import Mode
from unitmem.policyfile import reader as config

M = 1 << 20
G = 1 << 30
PAGE = PAGES["docs/cookbook.md"]
RECIPES = {block.section: block.text for block in blocks(PAGE) if block.language == "yaml"}
EXPECTED = {block.section: block.text for block in blocks(PAGE) if block.language == "text"}


@dataclass(frozen=True)
class Story:
    """What a unit measured, minute by minute, and others beside it."""

    unit: str
    minutes: int
    values: Callable[[float], dict[str, float]]
    every: int = 10
    """Seconds between two samples."""
    others: Mapping[str, Callable[[float], dict[str, float]]] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        for at in range(0, self.minutes * 60 + 1, self.every):
            units = {
                unit: {
                    "run": "1",
                    "values": {name: round(value, 1) for name, value in values(at / 60).items()},
                }
                for unit, values in {self.unit: self.values, **self.others}.items()
            }
            yield json.dumps({"at": at, "units": units}) + "\n"


def leak(start: float, rate: float, limit: float) -> Callable[[float], dict[str, float]]:
    """`rate` bytes a minute from `start` on, all of it anonymous, under a limit of its own."""
    return lambda minute: {
        "anon": start + rate * minute,
        "unreclaimable": start + rate * minute,
        "footprint": start + rate * minute,
        "max": limit,
        "limit": limit,
        "age": minute * 60,
    }


def one_worker_runs_away(minute: float) -> dict[str, float]:
    """80 MiB each, until one takes 30 MiB a minute more, is ended, and another starts with 80 again."""
    grown = (minute - 10) * 30 if minute >= 10 else 0
    return {"process.pss": (80 + (grown if grown < 480 else 0)) * M}


def heap_is_full_and_buffers_leak(minute: float) -> dict[str, float]:
    """The heap fills to 3 GiB within half an hour, and stays; direct buffers take 6 MiB a minute all the time."""
    return {"unreclaimable": min(0.5 * G + minute * 100 * M, 3 * G) + minute * 6 * M, "limit": 4 * G}


def tab_runs_away(minute: float) -> dict[str, float]:
    return {
        "process.uss": 300 * M + max(0, minute - 30) * 500 * M,
        "unreclaimable": 2 * G + max(0, minute - 30) * 500 * M,
        "host.total": 16 * G,
        "host.available": 10 * G - max(0, minute - 30) * 500 * M,
    }


def cache_is_full_all_day_and_then_a_query_goes_wrong(minute: float) -> dict[str, float]:
    wrong = max(0, minute - 480) * 200 * M
    return {
        "current": 8 * G - 4 * M,
        "workingset": 7.2 * G,
        "unreclaimable": 3 * G + wrong,
        "process.uss": 60 * M + wrong,
        "pressure.full.avg10": 0.4 if minute < 495 else 12,
        "limit": 8 * G,
    }


def throttled_at_its_high(minute: float) -> dict[str, float]:
    """Without swap, what is above MemoryHigh= can go nowhere."""
    throttled = max(0, minute - 20)
    return {
        "events.high": throttled * 3000,
        "pressure.full.avg60": min(70.0, throttled * 35),
    }


def others_take_the_machine(minute: float) -> dict[str, float]:
    taken = minute * 200 * M if minute < 50 else 0
    return {
        "host.total": 16 * G,
        "host.available": 10 * G - taken,
        "host.pressure.full.avg10": 0.0,
    }


def holds(
    size: float, rate: float = 0, **more: Callable[[float], float]
) -> Callable[[float], dict[str, float]]:
    """`size` bytes and `rate` more a minute; `more` are other measures, with `__` for dots."""
    return lambda minute: {
        "footprint": size + rate * minute,
        "swap": 0.0,
        **{name.replace("__", "."): value(minute) for name, value in more.items()},
    }


def machine(
    total: float,
    available: float,
    rate: float,
    until: float = inf,
    swap_total: float = 0,
    swap_free: float = 0,
) -> dict[str, Callable[[float], float]]:
    """A machine on which `available` falls by `rate` bytes a minute, until what takes it is ended at the minute `until`."""
    return {
        "host__total": lambda _: total,
        "host__available": lambda minute: available - (rate * minute if minute < until else 0),
        "host__swap_total": lambda _: swap_total,
        "host__swap_free": lambda _: swap_free,
        "host__pressure__some__avg10": lambda _: 0.0,
    }


def stalled(begin: float, until: float) -> dict[str, Callable[[float], float]]:
    """A machine with room, and a slice in which nothing can run for some minutes."""
    pressure = {"slice__pressure__full__avg10": lambda minute: 75.0 if begin <= minute < until else 0.3}
    return machine(64 * G, 40 * G, 0, swap_total=8 * G, swap_free=8 * G) | pressure


STALLED_SLICE = stalled(20, 20.6)
STALLED_BUILD = stalled(10, 10.7)
FULL_SWAP = machine(16 * G, 7 * G, 500 * M, 11.2, 2 * G, 64 * M)
NO_SWAP = machine(16 * G, 8 * G, 800 * M, 9.3)
STORIES = {
    "A first look at any machine": Story("mail.service", 5400, leak(300 * M, M / 2, 4 * G), every=60),
    "A leaky service": Story("api@1.service", 135, leak(300 * M, 12 * M, 2 * G)),
    "Forked workers": Story("celery.service", 30, one_worker_runs_away, every=2),
    "A JVM, with a heap dump before its restart": Story("app.service", 160, heap_is_full_and_buffers_leak),
    "Containers in scopes": Story("docker-3f2a81c5d09e.scope", 60, leak(100 * M, 8 * M, 512 * M)),
    "Your own session": Story("app-firefox-1234.scope", 60, tab_runs_away),
    "A database that lives on page cache": Story(
        "postgresql@17-main.service", 503, cache_is_full_all_day_and_then_a_query_goes_wrong
    ),
    "A service that is throttled to a standstill": Story("worker@1.service", 40, throttled_at_its_high),
    "Batch work that can wait": Story("batch.slice", 60, others_take_the_machine),
    "As systemd-oomd does": Story(
        "batch.service",
        25,
        holds(6 * G, **STALLED_SLICE),
        1,
        {"web.service": holds(2 * G, **STALLED_SLICE)},
    ),
    "As Meta's oomd does": Story(
        "cache.service",
        13,
        holds(6 * G, **STALLED_BUILD),
        5,
        {"build.service": holds(G, 400 * M, **STALLED_BUILD)},
    ),
    "As earlyoom does": Story(
        "postgresql@17-main.service",
        14,
        holds(5 * G, **FULL_SWAP),
        1,
        {"indexer.service": holds(2 * G, 500 * M, **FULL_SWAP)},
    ),
    "As nohang does": Story(
        "web.service",
        11,
        holds(3 * G, **NO_SWAP),
        1,
        {"worker.service": holds(2 * G, 800 * M, **NO_SWAP), "-.slice": holds(5 * G, **NO_SWAP)},
    ),
}
FILES = {
    "A first look at any machine": "first-look",
    "A leaky service": "leaky-service",
    "Forked workers": "forked-workers",
    "A JVM, with a heap dump before its restart": "jvm-heap-dump",
    "Containers in scopes": "containers",
    "Your own session": "desktop",
    "A database that lives on page cache": "database",
    "A service that is throttled to a standstill": "throttled",
    "Batch work that can wait": "batch",
    "As systemd-oomd does": "as-systemd-oomd",
    "As Meta's oomd does": "as-oomd",
    "As earlyoom does": "as-earlyoom",
    "As nohang does": "as-nohang",
}
"""Where the package has them: examples/….yaml."""


@pytest.fixture
def nowhere(untouched):
    """A machine whose service manager can't be asked: a recipe's units are on no machine of ours."""

    def refuse(kind):
        raise UnsupportedSystemError("not run by systemd")

    return replace(untouched.machine, connect=refuse)


def test_each_recipe_has_a_policy_a_story_and_what_to_expect():
    assert list(RECIPES) == list(STORIES) == list(EXPECTED) == list(FILES)


def test_the_packages_examples_are_the_recipes():
    examples = {path.stem: path.read_text() for path in (CHECKOUT / "examples").glob("*.yaml")}
    assert examples == {FILES[recipe]: policy + "\n" for recipe, policy in RECIPES.items()}


@pytest.mark.parametrize("recipe", STORIES)
def test_a_recipe_passes_the_strict_check(recipe, run_on, nowhere, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPES[recipe])
    ended = run_on(nowhere, "check", "--strict", str(file))
    assert (ended.status, ended.err) == (0, "")


@pytest.mark.parametrize("recipe", STORIES)
def test_a_recipe_only_observes_until_its_reader_has_it_act(recipe):
    for policy in config.parse(RECIPES[recipe]).file.policies:
        assert policy.mode is Mode.OBSERVE or {type(step.action) for step in policy.steps} == {Log}


@pytest.mark.parametrize("recipe", STORIES)
def test_a_recipe_does_what_its_page_says(recipe, run_on, nowhere, tmp_path):
    file, history = tmp_path / "recipe.yaml", tmp_path / "history.jsonl"
    # the interval of the watch that would have recorded it
    interval = f"interval: {STORIES[recipe].every}s\n"
    file.write_text(interval + re.sub(r"^interval:.*\n", "", RECIPES[recipe], flags=re.MULTILINE))
    history.write_text("".join(STORIES[recipe].lines()))
    ended = run_on(nowhere, "replay", str(file), "--history", str(history))
    assert ended.status == 0, ended.err
    assert ended.out.rstrip("\n") == EXPECTED[recipe]


def test_the_heap_dump_script_asks_the_jvm_of_the_unit_as_its_user(tmp_path):
    """Pasted as it stands, with what it calls in place of the real ones."""
    script = next(block.text for block in blocks(PAGE) if block.text.startswith("#!/bin/sh"))
    for name, does in {
        "systemctl": 'case "$*" in *MainPID*app.service) echo 4711;; *User*app.service) echo app;; esac',
        "runuser": 'echo "$1 $2 $3"; shift 3; exec "$@"',
        "jcmd": 'echo "$@"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "UNITMEM_UNIT": "app.service"},
        check=True,
        capture_output=True,
        text=True,
    )
    user, command = done.stdout.splitlines()
    assert user == "-u app --"
    assert re.fullmatch(r"4711 GC\.heap_dump /var/tmp/app\.service-\d+\.hprof", command)
