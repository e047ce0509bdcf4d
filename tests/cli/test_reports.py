"""Whole tables, made from values: at 80 and at 120 columns, with unknowns and with names that are odd."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from samples import sample_of

from unitmem.kernel.host import Host
from unitmem.kernel.limits import Level
from unitmem.kernel.process import Process
from unitmem.measure.catalogue import MEASURES, UNIT_NAMES
from unitmem.measure.formulas import process_values
from unitmem.measure.sample import UnitSample
from unitmem.policy.state import State
from unitmem.policyfile.reader import parse
from unitmem.report.status import print_statuses
from unitmem.report.unit import print_sources, print_unit
from unitmem.report.units import SORT_FIELDS, print_units, sort_units
from unitmem.tell.status import WatchStatus, status_document
from unitmem.unit import Invocation, Unit

K, M, G = 1 << 10, 1 << 20, 1 << 30
HOST = Host(
    total=8 * G,
    available=6 * G + 300 * M,
    swap_total=2 * G,
    swap_free=2 * G - 17 * M,
    pressure={
        f"{kind}.{window}": 0.0 for kind in ("some", "full") for window in ("avg10", "avg60", "avg300")
    },
)
LONG = "run-docker-containerd-io.containerd.runtime.v2.task-moby-0f3a9c55d1e7-rootfs.mount"


def sample(name: str, levels: tuple[Level, ...] = (), description: str = "", **values: float) -> UnitSample:
    """A unit of which `values` are known (`.` written `_`), and nothing else."""
    measures = {name.replace(".", "_"): name for name in MEASURES}
    known = {measures[name]: value for name, value in values.items()}
    return UnitSample(
        Unit(
            name,
            description,
            sub_state="running",
            control_group=levels[0].path if levels else f"/{name}",
            invocation_id="5ebe3b1f3d0a4f8b9f0c2c6d7e8f9a0b",
            main_pid=4711,
        ),
        Invocation(name, None, 1),
        values=known,
        unknown={
            name: f"{MEASURES[name].source}: permission denied"
            for name in UNIT_NAMES
            if name not in known and MEASURES[name].scope.name == "UNIT"
        },
        levels=levels,
    )


WEB_LEVELS = (
    Level("/outer.slice/outer-inner.slice/web.service", 640 * M, 600 * M, 590 * M, 80 * M, 180 * M, 5 * M),
    Level("/outer.slice/outer-inner.slice", 512 * M, None, 590 * M, 90 * M, 180 * M, 5 * M),
    Level("/outer.slice", None, None, 2 * G, 1 * G),
)
PROCESSES = (
    Process(7, 1, "tiny", "", rss=0, pss=0, uss=0, swap_pss=0),
    Process(4711, 1, "web", "/usr/bin/web --serve --port 80 --threads 16 --log /var/log/web.log", 400 * M, 380 * M, 300 * M, 0),
    Process(123456, 1, "a) b\n\x1b[31m", "/opt/größe/鯖 --名前", 90 * M, None, None, None, "permission denied"),
)  # fmt: skip
VALUES, UNKNOWN, _ = process_values(PROCESSES)
WEB = sample(
    "web.service",
    WEB_LEVELS,
    "The web",
    current=590 * M,
    peak=640 * M,
    swap=3 * M + 200 * K,
    zswap=0,
    workingset=510 * M,
    anon=400 * M,
    file=180 * M,
    kernel=10 * M,
    shmem=0,
    sock=0,
    unreclaimable=405 * M,
    limit=512 * M,
    high=600 * M,
    headroom=12 * M,
    fill=100 * 405 / 512,
    pressure_some_avg10=42.5,
    pressure_some_avg60=12.25,
    pressure_some_avg300=3.0,
    pressure_full_avg10=20.0,
    pressure_full_avg60=0.0,
    pressure_full_avg300=100.0,
    events_high=12345,
    events_max=3,
    events_oom=0,
    events_oom_kill=0,
)
WEB = replace(
    WEB,
    protected="unitmem itself runs in it",
    processes=PROCESSES,
    values={**WEB.values, **VALUES},
    unknown={**WEB.unknown, **UNKNOWN},
)
UNITS = (
    WEB,
    sample(
        "db@main.service", current=6 * G, workingset=G + 500 * M, anon=G, swap=0, limit=8 * G, headroom=6 * G, pressure_some_avg10=10.0, pss=990 * M
    ),
    sample(LONG, current=1023 * M + 1000 * K, workingset=1023 * M + 1000 * K, anon=0, swap=0, limit=1024 * M, headroom=24 * K, pressure_some_avg10=99.99),
    sample(r"dev-disk-by\x2dlabel-größe.swap", limit=8 * G),
    UnitSample(Unit("stopped.service", active_state="inactive", sub_state="dead")),
)  # fmt: skip
MACHINE = sample_of(*UNITS, host=HOST)


@pytest.mark.parametrize("with_pss", [False, True])
@pytest.mark.parametrize("width", [80, 120])
def test_list(render, snapshot, width, with_pss):
    text = render(print_units, width, MACHINE, UNITS, with_pss=with_pss)
    assert text == snapshot
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_show(render, snapshot, width):
    text = render(print_unit, width, MACHINE, WEB)
    assert text == snapshot
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_explain(render, snapshot, width):
    text = render(print_sources, width, MACHINE, UNITS[1])
    assert text == snapshot
    assert max(map(len, text.splitlines())) <= width


def test_explain_has_every_number_that_show_has(render):
    """With the tables of limits and of processes."""
    shown = render(print_unit, 80, MACHINE, WEB).partition("\nLimits, upwards")[2]
    levels, processes = shown.split("\n\n")
    text = render(print_sources, 80, MACHINE, WEB)
    assert levels in text
    assert text.endswith(processes)


@pytest.mark.parametrize(
    ("name", "whose"),
    [
        ("limit", "/outer.slice/outer-inner.slice"),
        ("high", "/outer.slice/outer-inner.slice/web.service"),
        ("headroom", "/outer.slice/outer-inner.slice"),
    ],
)
def test_explain_says_whose_limit_it_is(render, name, whose):
    text = render(print_sources, 300, MACHINE, WEB)
    assert re.search(rf"^  {name} .*; here that of {whose}$", text, re.MULTILINE)


def test_explain_says_that_it_is_the_machines(render):
    unit = sample(
        "a.service", (Level("/a.service", None, None, M, 0),), limit=HOST.total, headroom=HOST.available
    )
    text = render(print_sources, 300, MACHINE, unit)
    assert len(re.findall(r"^  (?:limit|headroom) .*; here that of this machine$", text, re.MULTILINE)) == 2


def test_a_unit_without_a_cgroup(render, snapshot):
    assert render(print_unit, 80, MACHINE, UNITS[-1]) == snapshot
    assert render(print_sources, 80, MACHINE, UNITS[-1]) == render(print_unit, 80, MACHINE, UNITS[-1])


def test_huge_pages_that_pss_lacks_are_told_below_the_processes(render):
    processes = (
        Process(7, 1, "small", "small", rss=4 * M, pss=3 * M, uss=2 * M, hugetlb=0),
        Process(8, 1, "huge", "huge", rss=2 * M, pss=M, uss=65 * M, hugetlb=64 * M),
    )
    text = render(print_unit, 120, MACHINE, replace(sample("vm.service"), processes=processes))
    assert text.index(" huge ") < text.index(" small ")
    assert "64.0M of huge pages (hugetlbfs) are in neither PSS nor RSS" in text
    assert "huge pages" not in render(
        print_unit, 120, MACHINE, replace(sample("vm.service"), processes=processes[:1])
    )


def test_a_limit_that_is_unknown_is_not_shown_as_none(render):
    levels = (Level("/a.service", current=M, inactive_file=0, unknown={"max": "is a directory"}),)
    text = render(print_unit, 80, MACHINE, sample("a.service", levels))
    assert re.search(r"a\.service +- +none +1\.0M +1\.0M +-\n", text)
    assert "← limit" not in text


def test_the_root_slice_has_no_levels(render):
    text = render(print_unit, 80, MACHINE, sample("-.slice", current=G, limit=8 * G))
    assert re.search(r"this machine +8\.0G +none +1\.7G +1\.7G +6\.2G +← limit\n", text)


def test_a_terminal_gets_a_legend_and_colour(render, snapshot):
    text = render(print_units, 80, MACHINE, UNITS, terminal=True)
    assert text == snapshot
    assert (
        re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()[:-2]
        == render(print_units, 80, MACHINE, UNITS).splitlines()
    )


def test_what_runs_in_a_unit_is_shown_where_its_name_does_not_say_it(render):
    """Where there is room: names and numbers come first."""
    made_up = sample("run-u12.service", description="/usr/bin/backup\n --all " + 40 * "x", current=M)
    wide = render(print_units, 140, MACHINE, (WEB, made_up))
    assert re.search(r" +PRESSURE +DESCRIPTION\n", wide)
    assert re.search(r"\nrun-u12\.service .* /usr/bin/backup\\n --all x+…\n", wide)
    assert "The web" not in wide
    assert "DESCRIPTION" not in render(print_units, 80, MACHINE, (WEB, made_up))
    assert "DESCRIPTION" not in render(print_units, 140, MACHINE, (WEB,))


def test_no_color_is_plain(render, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in render(print_units, 80, MACHINE, UNITS, terminal=True)
    assert "\x1b" not in render(print_unit, 80, MACHINE, WEB, terminal=True)


def test_no_environment_makes_a_pipe_a_terminal(render, monkeypatch):
    """What rich and others take for a terminal would put escapes into files."""
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.setenv(name, "1")
    assert "\x1b" not in render(print_unit, 80, MACHINE, WEB)


@pytest.mark.parametrize("field", SORT_FIELDS)
def test_sorting_by_each_field(field):
    """Largest first, except the least headroom and names; unknown last."""
    ordered = [sample.unit.name for sample in sort_units(UNITS, field)]
    assert sorted(ordered) == sorted(sample.unit.name for sample in UNITS)
    # the PSS of web.service is unknown too, since one of its processes may not be read
    assert ordered[-1] == ("web.service" if field in {"unit", "pss"} else "stopped.service")
    first = {"unit": "db@main.service", "pss": "db@main.service", "current": "db@main.service", "workingset": "db@main.service",
             "anon": "db@main.service", "swap": "web.service", "limit": "db@main.service", "used": LONG, "headroom": LONG,
             "pressure": LONG}  # fmt: skip
    assert ordered[0] == first[field]


def test_what_a_process_calls_itself_can_not_reach_the_terminal(render):
    text = render(print_unit, 120, MACHINE, WEB, terminal=True)
    assert "\x1b[31m" not in text
    assert r"a) b\n\x1b[31m" in text


ODD = "we\u202eb\u200b\x9b1m\u2028.service"
"""It turns a line around, hides a character, gives a terminal a command and breaks the line."""


def test_what_others_have_named_can_not_reach_the_terminal(render):
    sample = replace(
        WEB,
        unit=replace(WEB.unit, name=ODD, slice=ODD, control_group=f"/{ODD}"),
        levels=tuple(replace(level, path=f"/{ODD}") for level in WEB.levels),
    )
    for is_terminal in (True, False):
        pages = (
            render(print_units, 200, MACHINE, [sample], terminal=is_terminal),
            render(print_unit, 200, MACHINE, sample, terminal=is_terminal),
        )
        for page in pages:
            assert "\\u202eb\\u200b\\x9b1m\\u2028.service" in page
            assert all(c.isprintable() or c in "\n\x1b" for c in page)


def test_what_was_given_can_not_reach_the_terminal_by_a_message(run):
    ended = run("check", "a\u202eb.yaml", "show", "\x1b[2J")
    assert ended.err.startswith("a\\u202eb.yaml: No such file or directory\n")
    assert "\x1b" not in ended.err


@pytest.mark.parametrize(
    ("nearest", "line"),
    [
        (("web.service", 0.1), "  looks every 100ms at web.service, the nearest to a threshold\n"),
        (("web.service", 2.0), ""),
        (None, ""),
    ],
)
def test_status_shows_the_pace_and_what_it_rests_on(render, nearest, line):
    file = parse("{policies: [{name: p, units: [web.service], steps: [{when: current > 9G, do: log}]}]}").file
    watch = WatchStatus("web", "/etc/unitmem/web.yaml", 1.0, True, {}, [], nearest)
    document = status_document(file, replace(MACHINE, unread=frozenset({"web.service"})), State(), watch, 0.0)
    page = render(print_statuses, 120, [document], 0.0)
    assert (
        f"ago, pid {document['pid']}\n{line}  1 unit far from every threshold: values are up to 30s old\n"
        in page
    )


def test_status_names_the_level_that_is_filled_most(render):
    text = "{policies: [{name: p, units: [web.service], steps: [{when: fill > 90%, do: log}]}]}"
    watch = WatchStatus("web", "/etc/unitmem/web.yaml", 1.0, True, {}, [])
    document = status_document(parse(text).file, MACHINE, State(), watch, 0.0)
    assert document["units"][0]["fill_set_by"] == "/outer.slice/outer-inner.slice"
    assert "\n  fill 79.1% at /outer.slice/outer-inner.slice\n" in render(
        print_statuses, 120, [document], 0.0
    )
