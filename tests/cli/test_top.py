"""`unitmem top`: its tables at every width, what each key does, and the whole command on a terminal."""

from __future__ import annotations

import fcntl
import os
import pickle
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import sample_of

from unitmem.cli.top import parse_keys
from unitmem.kernel.host import Host
from unitmem.kernel.limits import Level
from unitmem.kernel.process import Process
from unitmem.measure.sample import UnitSample
from unitmem.policy.condition import Bounds, Comparison, Derivation
from unitmem.policy.trends import UnitFacts, extend, extend_levels
from unitmem.report.styled import cell_len
from unitmem.report.top import (
    SORT_FIELDS,
    GrowthTrend,
    Look,
    View,
    arrange,
    bar,
    format_eta,
    phases_of,
    press,
    render,
)
from unitmem.unit import Invocation, Unit

M, G = 1 << 20, 1 << 30
HOST = Host(
    total=8 * G,
    available=6 * G,
    swap_total=2 * G,
    swap_free=2 * G - 17 * M,
    pressure={"some.avg10": 3.25, "full.avg10": 0.0},
)
LONG = "run-docker-containerd-io.containerd.runtime.v2.task-moby-0f3a9c55d1e7-rootfs.mount"


def size(columns, lines):
    return os.terminal_size((columns, lines))


def unit(name, workingset, limit=8 * G, pressure=0.0, run=1):
    """A unit that runs, with what the table shows, all of its working set unreclaimable; None is unknown."""
    values = {"workingset": workingset, "current": workingset and workingset + 90 * M, "limit": limit}
    values |= {"unreclaimable": workingset, "swap": 3 * M, "pressure.some.avg10": pressure}
    return UnitSample(
        Unit(name, control_group=f"/{name}"),
        Invocation(name, None, run),
        values={key: value for key, value in values.items() if value is not None},
        levels=(Level(f"/{name}", None if limit == 8 * G else limit),),
    )


UNITS = (
    unit("web.service", 510 * M, 512 * M, 42.5),
    unit("db@main.service", 3 * G, 4 * G, 10.0),
    unit("cache.service", 200 * M),
    unit(LONG, 1023 * M, 1024 * M, 99.99),
    unit("odd.scope", None, pressure=None),
    UnitSample(Unit("stopped.service", active_state="inactive", sub_state="dead")),
)
A_MINUTE = 1 / 60
GROWTH = {
    "web.service": 5.25 * M * A_MINUTE,
    "db@main.service": 0.0,
    "cache.service": -1023.9 * M * A_MINUTE,
    LONG: 2 * M * A_MINUTE,
    "host": 0.0,
}
PHASES = {"web.service": "holding 12s/30s (web-leak, step 2)", "db@main.service": "idle (db)"}
LOOK = Look(sample_of(*UNITS, host=HOST), GROWTH)
PROCESSES = (
    Process(7, 1, "tiny", "", rss=0, pss=0, uss=0, swap_pss=0),
    Process(4711, 1, "web", "/usr/bin/web --serve --port 80 --threads 16", 400 * M, 380 * M, 300 * M, 0),
    Process(123456, 1, "a) b\n\x1b[31m", "/opt/größe/鯖", 90 * M, unknown="permission denied"),
)
OPENED = replace(UNITS[0], processes=PROCESSES, unknown={"pss": "1 of 3 processes: permission denied"})


def screen(view, look, size):
    return "\n".join(line.plain.rstrip() for line in render(arrange(view, look, size), look, size))


def pressed(view, *keys, look=LOOK, at=None):
    """`view` after `keys`, arranged after each, as the loop has it."""
    view = arrange(view, look, at or size(80, 24))
    for key in keys:
        view = arrange(press(view, key), look, at or size(80, 24))
    return view


def chosen(view):
    """What of a view differs from the one it begins with, without what `arrange` adds."""
    bare = replace(view, rows=(), page=1, first=0)
    return {
        name: getattr(bare, name)
        for name in View.__dataclass_fields__
        if getattr(bare, name) != getattr(View(), name)
    }


# --- tables ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("phases", [{}, PHASES], ids=["alone", "watched"])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_table(snapshot, width, phases):
    text = screen(View(selected="db@main.service"), replace(LOOK, phases=phases), size(width, 12))
    assert text == snapshot
    assert len(text.splitlines()) == 12


@pytest.mark.parametrize(
    "view",
    [
        View(sort="swap"),
        View(sort="eta", filter="SERVICE"),
        View(filter="we", typing=True, paused=True),
        View(filter="nothing"),
        View(helping=True),
        View(opened="web.service"),
        View(opened="web.service", scroll=99),
        View(opened="gone.service"),
    ],
    ids=["swap", "eta", "typing", "nothing", "help", "opened", "scrolled", "gone"],
)
def test_views(snapshot, view):
    look = replace(LOOK, phases=PHASES, opened=OPENED)
    assert screen(view, look, size(80, 7 if view.scroll else 24)) == snapshot


def test_what_is_amiss_is_told_at_the_bottom():
    text = screen(View(), replace(LOOK, notice="The list of units can't be refreshed: no bus"), size(80, 12))
    assert text.splitlines()[-1] == "The list of units can't be refreshed: no bus"


def many(count):
    return Look(sample_of(*(unit(f"u{number:03}.service", number * M) for number in range(count)), host=HOST))


def test_500_units_scroll():
    """The selected unit is always on the screen, and the screen is always full."""
    look, at = many(500), size(80, 24)
    view = pressed(View(sort="unit"), look=look, at=at)
    for keys, first, selected in [
        (["down"] * 3, "u000", "u003"),
        (["pagedown"], "u004", "u023"),
        (["up"] * 19, "u004", "u004"),
        (["k"], "u003", "u003"),
        (["end"], "u480", "u499"),
        (["j"], "u480", "u499"),
        (["pageup"], "u479", "u479"),
        (["home"], "u000", "u000"),
    ]:
        view = pressed(view, *keys, look=look, at=at)
        lines = screen(view, look, at).splitlines()
        assert len(lines) == 24
        assert lines[3][2:6] == first
        assert [line[2:6] for line in lines if line.startswith(">")] == [selected]


def test_nothing_wanders_while_it_scrolls():
    """Columns stand where they stood, whatever the rows that are shown hold."""
    look = Look(sample_of(*UNITS, *many(100).machine.units.values(), host=HOST), GROWTH)
    headers = {
        screen(View(selected=selected), look, size(100, 10)).splitlines()[2]
        for selected in (None, "u050.service", "odd.scope")
    }
    assert len(headers) == 1


@given(
    st.integers(1, 200),
    st.integers(1, 60),
    st.sampled_from(
        [View(), View(helping=True), View(opened="web.service"), View(filter="x" * 99, typing=True)]
    ),
)
def test_a_screen_is_never_overrun(columns, lines, view):
    """Whatever its size: a line too many or too wide would scroll it."""
    at = size(columns, lines)
    look = replace(LOOK, opened=OPENED, phases=PHASES)
    rendered = render(arrange(view, look, at), look, at)
    assert len(rendered) == lines
    assert max(cell_len(line.plain) for line in rendered) <= columns


@pytest.mark.parametrize(
    ("percent", "text"),
    [
        (0, "░░░░"),
        (12.4, "░░░░"),
        (12.5, "▌░░░"),
        (62.5, "██▌░"),
        (99.9, "███▌"),
        (100, "████"),
        (250, "████"),
    ],
)
def test_bar(percent, text):
    """Full means all of it."""
    assert bar(percent, width=4) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "now"),
        (59.9, "59s"),
        (599, "9min 59s"),
        (3599, "59min"),
        (35999, "9h 59min"),
        (86399, "23h"),
        (90000, "1d 1h"),
        (86400 * 9.99, "9d 23h"),
        (86400 * 29.9, "29d"),
        (1e12, ">30d"),
    ],
)
def test_time_to_limit(seconds, text):
    assert format_eta(seconds) == text
    assert len(text) <= 8


def test_a_unit_that_does_not_grow_meets_no_limit():
    times = {sample.unit.name: LOOK.eta(sample) for sample in UNITS}
    assert times["web.service"] == pytest.approx(2 / 5.25 * 60)
    assert {name for name, seconds in times.items() if seconds is None} == set(times) - {"web.service", LONG}


def test_the_time_to_the_limit_is_of_what_can_not_be_reclaimed():
    """Page cache that fills up to the limit is no danger."""
    cached = replace(UNITS[0], values={**UNITS[0].values, "unreclaimable": 12 * M})
    assert LOOK.eta(cached) == pytest.approx(500 / 5.25 * 60)
    assert LOOK.eta(replace(cached, values={**cached.values, "unreclaimable": 512 * M})) == 0


# --- growth ----------------------------------------------------------------------------------------


def growths(points, interval=2, name="a.service"):
    """Bytes a minute at each of (second, bytes); None where none is known."""
    trend = GrowthTrend(interval)
    found = [trend.add(at, sample_of(unit(name, size))).get(name) for at, size in points]
    return [None if growth is None else 60 * growth for growth in found]


@pytest.mark.parametrize(
    ("points", "growth"),
    [
        ([(0, 0), (2, 9), (4, 18), (6, 27)], None),  # too few to tell a spike from a slope
        ([(at, 100 + 3 * at) for at in range(0, 10, 2)], 180),
        ([(at, 100 - 3 * at) for at in range(0, 10, 2)], -180),
        ([(0, 5), (2, 5), (4, 5), (6, 5), (8, 10**9)], 0),  # the spike is the last one
        ([(0, 10**9), (2, 5), (4, 5), (6, 5), (8, 5)], 0),
        ([(at, 3 * at + (10**9 if at == 30 else 0)) for at in range(0, 60, 2)], 180),
    ],
)
def test_growth(points, growth):
    assert growths(points)[-1] == growth


@given(st.lists(st.integers(0, 1 << 40), min_size=5, max_size=70))
def test_growth_lies_between_the_steepest_slopes(sizes):
    slopes = [60 * (after - before) for before, after in pairwise(sizes)]
    points = [(2 * number, size) for number, size in enumerate(sizes)]
    assert min(slopes) <= 2 * growths(points)[-1] <= max(slopes)


def test_the_last_minute_counts():
    """What was before it, and an earlier run of the unit, does not."""
    trend = GrowthTrend(interval=2)
    found = []
    for at in range(0, 200, 2):
        level = at * M if at < 100 else 100 * M
        run = 1 if at < 190 else 2
        found.append(trend.add(at, sample_of(unit("a.service", level, run=run))).get("a.service"))
    assert found[:4] == [None] * 4
    assert found[4:51] == [M] * 47
    assert found[85:95] == [0] * 10
    assert found[95:99] == [None] * 4


def test_a_slow_view_tells_growth_as_well():
    points = [(at, at * M) for at in range(0, 3000, 300)]
    assert growths(points, interval=300) == [None] * 4 + [60 * M] * 6


looks = st.lists(
    st.tuples(st.floats(2, 12), st.none() | st.integers(0, 12 * G), st.integers(1, 12 * G)),
    min_size=32,
    max_size=60,
)


@given(looks)
def test_the_time_to_the_limit_is_a_policys_eta(looks):
    """As soon as a policy knows one; until then the view has an estimate of its own."""
    wanted = [Comparison("limit", "<", 60.0, span=60.0, derivation=Derivation.ETA)]
    growth_trend, trend, levels, at = GrowthTrend(interval=2), None, {}, 0.0
    for gap, size, limit in looks:
        at += gap
        sample = unit("a.service", size, limit)
        machine = sample_of(sample, host=Host(16 * G, available=16 * G - (size or 0)))
        trend = extend(trend, sample, wanted, at)
        levels = extend_levels(levels, machine, {"a.service": wanted}, at)
        facts = UnitFacts(sample, trend, at, machine.host, levels)
        eta = facts.derived("limit", Derivation.ETA, 60.0)
        shown = Look(machine, growth_trend.add(at, machine)).eta(sample)
        if eta is not None:
            assert eta == Bounds(*[inf if shown is None else shown] * 2)


# --- phases ----------------------------------------------------------------------------------------


def status(*units):
    return {"instance": "web", "pid": 1, "units": list(units)}


def governed(*steps, policy="web-leak", cooldown=None, unit="web.service"):
    """(phase, held, for) of each step."""
    return {
        "unit": unit,
        "policy": policy,
        "cooldown_left": cooldown,
        "steps": [
            {"step": number, "phase": phase, "held": held, "for": lasts}
            for number, (phase, held, lasts) in enumerate(steps, 1)
        ],
    }


IDLE, FIRED = ("idle", 0, 30.0), ("fired", 31.0, 30.0)


@pytest.mark.parametrize(
    ("documents", "phase"),
    [
        ([status(governed(IDLE, IDLE))], "idle (web-leak)"),
        ([status(governed(IDLE, cooldown=90.4))], "cooldown 1min 30s (web-leak)"),
        ([status(governed(("holding", 12.7, 30.0)))], "holding 12s/30s (web-leak, step 1)"),
        ([status(governed(("holding", 0, 90)))], "holding 0/1min 30s (web-leak, step 1)"),
        ([status(governed(("holding", None, None)))], "holding 0 (web-leak, step 1)"),
        ([status(governed(FIRED, ("holding", 2, 10), IDLE))], "holding 2s/10s (web-leak, step 2)"),
        ([status(governed(FIRED, FIRED, IDLE), governed(FIRED, policy="b"))], "fired (web-leak, step 2)"),
        ([status(governed(("holding", 1, 2), policy="a")), status(governed(FIRED, policy="b"))], "fired (b, step 1)"),
        ([status(governed(IDLE, policy="a")), status(governed(IDLE, policy="b", cooldown=5))], "cooldown 5s (b)"),
        ([status(governed(FIRED, policy="\x1b[2J"))], r"fired (\x1b[2J, step 1)"),
    ],
)  # fmt: skip
def test_phases(documents, phase):
    """The most advanced step of a unit, of whatever policy and watch."""
    assert phases_of(documents) == {"web.service": phase}


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        7,
        {},
        {"units": None},
        {"units": [None, 7, {}]},
        status({"unit": "a.service", "policy": "a"}),
        status(governed(("holding", "x", 1))),
        status(governed(("holding", float("inf"), 1))),
        status(governed(("fired", 1, 1)) | {"steps": [7]}),
    ],
)
def test_a_status_of_another_form_says_nothing(document):
    assert phases_of([document, status(governed(IDLE, unit="b.service"))]) == {"b.service": "idle (web-leak)"}


# --- keys ------------------------------------------------------------------------------------------

ORDER = ("db@main.service", LONG, "web.service", "cache.service", "odd.scope", "stopped.service")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("", {}),
        ("m", {}),
        ("g", {"sort": "growth"}),
        ("p", {"sort": "pressure"}),
        ("n", {"sort": "unit"}),
        ("t", {"sort": "eta"}),
        ("u", {"sort": "used"}),
        ("c", {"sort": "current"}),
        (">", {"sort": "anon"}),
        ("< <", {"sort": "unit"}),
        ("< < <", {"sort": "eta"}),
        ("down", {"selected": LONG}),
        ("j j k", {"selected": LONG}),
        ("j up", {}),
        ("k", {}),
        ("end", {"selected": "stopped.service"}),
        ("pagedown pageup", {}),
        ("end home", {}),
        ("j j g", {"selected": "web.service", "sort": "growth"}),
        ("enter", {"opened": "db@main.service"}),
        ("j enter", {"selected": LONG, "opened": LONG}),
        ("j enter g /", {"selected": LONG, "opened": LONG}),
        ("enter q", {}),
        ("enter escape", {}),
        ("enter q q", {"ended": True}),
        ("q", {"ended": True}),
        ("escape", {"ended": True}),
        ("space", {"paused": True}),
        ("space space", {}),
        ("r", {"stale": True}),
        ("?", {"helping": True}),
        ("? q", {}),
        ("? g", {}),
        ("enter ?", {"opened": "db@main.service", "helping": True}),
        ("/", {"typing": True}),
        ("/ w q", {"typing": True, "filter": "wq"}),
        ("/ w q backspace", {"typing": True, "filter": "w"}),
        ("/ backspace", {"typing": True}),
        ("/ w e enter", {"filter": "we"}),
        ("/ w e enter enter", {"filter": "we", "opened": "web.service"}),
        ("/ w escape", {}),
        ("/ w enter escape", {}),
        ("/ w enter escape escape", {"ended": True}),
        ("/ w enter q", {"filter": "w", "ended": True}),
        ("/ up down \x01 w", {"typing": True, "filter": "w"}),
        ("/ x x enter j enter", {"filter": "xx"}),
        ("j / c a c h e", {"typing": True, "filter": "cache"}),
        ("x y z \x01 left backspace", {}),
    ],
)  # fmt: skip
def test_keys(keys, expected):
    assert pressed(View()).rows == ORDER
    view = pressed(View(), *(" " if key == "space" else key for key in keys.split(" ") if key))
    assert chosen(view) == expected


def test_each_field_can_be_sorted_by():
    view, seen = View(), []
    for _ in SORT_FIELDS:
        view = pressed(view, ">")
        seen.append(view.sort)
        assert sorted(view.rows) == sorted(ORDER)
    assert sorted(seen) == sorted(SORT_FIELDS)


def test_processes_scroll_within_bounds():
    processes = tuple(Process(pid, 1, "a", pss=pid) for pid in range(1, 101))
    look = replace(LOOK, opened=replace(UNITS[0], processes=processes))
    view = View(opened="web.service")
    for key, scroll in [
        ("up", 0),
        ("down", 1),
        ("pagedown", 21),
        ("end", 81),
        ("down", 81),
        ("pageup", 61),
        ("home", 0),
    ]:
        view = pressed(view, key, look=look)
        assert view.scroll == scroll


def test_a_selected_unit_that_stops_leaves_its_place_to_the_next():
    view = pressed(View(), "down", "down")
    assert view.selected == "web.service"
    for gone, selected in [
        ("web.service", "cache.service"),
        ("stopped.service", "cache.service"),
        ("cache.service", "odd.scope"),
        ("odd.scope", LONG),
    ]:
        remaining = tuple(
            sample for sample in UNITS if sample.unit.name in view.rows and sample.unit.name != gone
        )
        view = arrange(view, Look(sample_of(*remaining, host=HOST)), size(80, 24))
        assert view.selected == selected
    assert arrange(view, Look(sample_of(host=HOST)), size(80, 24)).selected is None


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("q", ["q"]),
        ("jj/", ["j", "j", "/"]),
        ("\r\n\x7f\b", ["enter", "enter", "backspace", "backspace"]),
        ("\x1b[A\x1b[B\x1bOA\x1bOB", ["up", "down", "up", "down"]),
        ("\x1b[H\x1b[F\x1b[1~\x1b[4~\x1b[5~\x1b[6~", ["home", "end", "home", "end", "pageup", "pagedown"]),
        ("\x1b[1;5A", ["up"]),
        ("\x1b", ["escape"]),
        ("\x1b\x1b", ["escape", "escape"]),
        ("\x1b\x1b[A", ["escape", "up"]),
        ("\x1bq\x1b[3~\x1b[Z", []),
        ("ö鯖", ["ö", "鯖"]),
    ],
)
def test_parse_keys(text, keys):
    assert parse_keys(text) == keys


@given(st.text(st.characters(max_codepoint=255) | st.sampled_from("\x1b[O~;1")))
def test_no_input_is_too_odd(text):
    view = View()
    for key in parse_keys(text):
        view = pressed(view, key)
        assert len(screen(view, LOOK, size(80, 24)).splitlines()) == 24


# --- without a terminal ------------------------------------------------------------------------------


def test_without_a_terminal_it_prints_a_table_and_ends(run, snapshot):
    ended = run("top")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == snapshot


def test_one_table_for_each_iteration(run, fake):
    ended = run("top", "--iterations", "3", "--interval", "100ms", "--sort", "unit", "w*", "db")
    assert ended.status == 0
    tables = ended.out.split("\n\n")
    assert [re.findall(r"^\S+", table, re.MULTILINE) for table in tables] == [
        ["UNIT", "db.service", "web.service"]
    ] * 3
    assert len(fake.manager.asked) == 1


def test_phases_come_from_the_watches_that_run(run, serve):
    """One that doesn't answer, or answers otherwise, is as if it weren't there."""
    step = {"step": 1, "phase": "holding", "held": 3.2, "for": 30}
    serve("a", {"units": [{"unit": "web.service", "policy": "leak", "steps": [step]}]})
    serve("b", reset=lambda unit, uid: {})
    serve("c")
    assert re.search(r"PHASE\nweb\.service .*  holding 3s/30s \(leak, step 1\)\ndb", run("top").out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--interval 2", "--interval: '2' has no unit"),
        ("--interval 1ms", "--interval 1ms is too short"),
        ("--iterations 0", "invalid value for '--iterations'"),
        ("--sort pss", "there is no field 'pss' to sort by"),
    ],
)
def test_what_it_does_not_take(run, arguments, message):
    ended = run("top", *arguments.split())
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith(f"unitmem: {message}")


def test_a_name_that_is_not_loaded(run):
    assert run("top", "nginx").status == 4


# --- on a terminal -----------------------------------------------------------------------------------

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
PROGRAM = """
import fcntl, pickle, sys, termios
from pathlib import Path
from types import SimpleNamespace

fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C and a new size are signals
from unitmem.cli import main
from unitmem.cli.machine import Machine
from unitmem.errors import BusError

root = Path(sys.argv[1])


def units():
    try:
        return pickle.loads((root / "units").read_bytes())
    except FileNotFoundError:
        raise BusError("nobody answers") from None


manager = SimpleNamespace(
    list_units=lambda: list(units().values()),
    control_group=lambda: "",
    complete=lambda unit: units()[unit.name],
    describe=lambda name, at_once=False: units()[name],
    close=lambda: None,
)
sys.exit(main(["top", *sys.argv[2:]], Machine(root / "cgroup", root / "proc", lambda kind: manager, root / "run")))
"""


def publish(fake):
    """Let the service manager of a session know the units there are."""
    (fake.root / "units.new").write_bytes(pickle.dumps(fake.manager.units))
    (fake.root / "units.new").rename(fake.root / "units")


class Session:
    """The command on a terminal of its own: what stands on its screen, and what was typed."""

    def __init__(self, fake, *arguments):
        self.master, self.terminal = pty.openpty()
        self.resize(24, 80)
        self.mode = termios.tcgetattr(self.terminal)
        self.seen = ""
        publish(fake)
        environment = {**os.environ, "TERM": "xterm-256color", "NO_COLOR": "1"}
        for name in ("COLUMNS", "LINES", "UNITMEM_DEBUG"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(fake.root), "--interval", "100ms", *arguments],
            stdin=self.terminal,
            stdout=self.terminal,
            stderr=self.terminal,
            start_new_session=True,
            env=environment,
        )

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.terminal)

    def resize(self, lines, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text):
        os.write(self.master, text.encode())

    def listen(self):
        while select.select([self.master], [], [], 0.05)[0]:
            self.seen += os.read(self.master, 1 << 16).decode()

    @property
    def screen(self):
        """The last whole one."""
        frames = re.findall(r"\x1b\[H((?:(?!\x1b\[H).)*?)\x1b\[J", self.seen[-50_000:], re.DOTALL)
        return re.sub(r"\x1b\[\w", "", frames[-1]).replace("\r\n", "\n") if frames else ""

    def until(self, condition):
        """Return once `condition` of this session holds, however slow the machine."""
        deadline = time.monotonic() + 60
        while not condition(self):
            assert time.monotonic() < deadline, self.screen or self.seen
            self.listen()

    def shows(self, pattern):
        self.until(lambda session: re.search(pattern, session.screen, re.MULTILINE))

    def ends(self):
        """The exit status; by then the terminal is as it was."""
        self.until(lambda session: session.process.poll() is not None)
        self.listen()
        assert termios.tcgetattr(self.terminal) == self.mode
        assert self.seen.count(LEAVE) == self.seen.count(ENTER) > 0
        assert self.seen.rindex(LEAVE) > self.seen.rindex("\x1b[J")
        assert "\x1b[?25h" in self.seen[self.seen.rindex("\x1b[J") :]
        return self.process.returncode


@pytest.fixture
def session(fake):
    """session("--sort", "unit"): `unitmem top` on the fake machine and on a terminal."""
    sessions = []

    def start(*arguments):
        sessions.append(Session(fake, *arguments))
        return sessions[-1]

    yield start
    for session in sessions:
        session.close()


def test_a_terminal_shows_what_happens_and_obeys_keys(session, fake):
    """Numbers, sorting, filter, processes, pause, size and an end, as a person goes through them."""
    live = session()
    live.shows(r"^> web\.service +\S+ +510\.0M(.*\n)+  db\.service")
    assert not termios.tcgetattr(live.terminal)[3] & (termios.ECHO | termios.ICANON)

    fake.cgroup("/system.slice/db.service", pids=(20,), current=700 << 20)
    live.shows(r"^> db\.service +\S+ +700\.0M")
    live.type("n\x1b[B\x1b[B")
    live.shows(r"by unit(.*\n)+> web\.service")

    live.type("\r")
    live.shows(r"^web\.service\n510\.0M of 512\.0M(.*\n)+ +11 +290\.0M(.*\n)+ +10 +280\.0M")
    live.type("\x1b")
    live.shows("^> web")
    live.type("/db\r")
    live.shows(r"3 units, 1 with 'db'(.*\n)+> db\.service")
    assert "web.service" not in live.screen
    live.type("\x1b")
    live.shows(r"^. web\.service")

    live.type(" ")
    live.shows("paused$")
    live.resize(10, 60)
    live.until(lambda live: len(live.screen.splitlines()) == 10)
    assert max(map(len, live.screen.splitlines())) <= 60
    live.type(" ")
    shutil.rmtree(fake.root / "cgroup/system.slice/db.service")
    live.shows("^2 units, by unit$")
    assert "db.service" not in live.screen
    live.type("q")
    assert live.ends() == 0


@pytest.mark.parametrize(
    ("end", "status", "last"),
    [
        (lambda live, fake: live.type("q"), 0, ""),
        (lambda live, fake: live.type("\x03"), 130, ""),
        (lambda live, fake: live.process.send_signal(signal.SIGTERM), 143, ""),
        pytest.param(lambda live, fake: live.type("\x1c"), 131, "", marks=pytest.mark.slow),
        pytest.param(
            lambda live, fake: live.process.send_signal(signal.SIGHUP), 129, "", marks=pytest.mark.slow
        ),
        (lambda live, fake: (fake.root / "proc/meminfo").unlink(), 1, "meminfo can't be read"),
    ],
    ids=["q", "Ctrl-C", "SIGTERM", "Ctrl-backslash", "SIGHUP", "failure"],
)
def test_the_terminal_is_restored_however_it_ends(session, fake, end, status, last):
    """And what went wrong is told on the screen that stays."""
    live = session()
    live.shows("web.service")
    end(live, fake)
    assert live.ends() == status
    told = live.seen[live.seen.rindex(LEAVE) + len(LEAVE) :]
    assert last in told
    assert bool(last) == bool(told)


def test_units_are_listed_anew_on_request(session, fake):
    """A manager that doesn't answer then leaves what was known, and a word about it."""
    live = session()
    live.shows("^3 units")
    fake.cgroup("/system.slice/new.service", current=1 << 20)
    fake.unit("new.service", "/system.slice/new.service")
    publish(fake)
    live.type("r")
    live.shows("^  new.service")
    (fake.root / "units").unlink()
    live.type("r")
    live.shows("^The list of units can't be refreshed: nobody answers")
    assert re.search("^  new.service", live.screen, re.MULTILINE)
    publish(fake)
    live.type("r")
    live.shows(r"^\? help")


def test_so_many_looks_on_a_terminal(session):
    live = session("--iterations", "3")
    assert live.ends() == 0
    assert "web.service" in live.screen


def test_it_goes_on_after_a_stop(session):
    """A shell may have changed the terminal meanwhile; where there is none, Ctrl-Z must not stop for ever."""
    live = session()
    live.shows("web.service")
    live.type("\x1a")
    live.until(lambda live: live.seen.count(ENTER) == 2)
    live.process.send_signal(signal.SIGSTOP)
    os.waitpid(live.process.pid, os.WUNTRACED)
    termios.tcsetattr(live.terminal, termios.TCSANOW, live.mode)
    live.process.send_signal(signal.SIGCONT)
    live.until(lambda live: live.seen.count(ENTER) == 3)
    assert not termios.tcgetattr(live.terminal)[3] & termios.ICANON
    live.type("n")
    live.shows("by unit")


def test_a_unit_whose_processes_can_not_be_listed_is_not_shown_as_having_none():
    reason = "not every process of it can be found: too many open files"
    look = Look(sample_of(*UNITS, host=HOST), opened=replace(UNITS[0], processes=(), unknown={"pss": reason}))
    assert f"PSS unknown: {reason}" in screen(View(opened=UNITS[0].unit.name), look, size(100, 12))
