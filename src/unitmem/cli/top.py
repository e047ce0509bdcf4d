"""unitmem top"""

from __future__ import annotations

import codecs
import os
import re
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import FrameType
from typing import Annotated, TextIO

import typer

from unitmem.cli.completion import Patterns
from unitmem.cli.machine import Machine
from unitmem.cli.notes import note_refused
from unitmem.cli.options import User, sort_option, span
from unitmem.cli.watches import ask_statuses
from unitmem.errors import BusError, NoSuchUnitError
from unitmem.measure.sample import Sample, UnitSample
from unitmem.measure.snapshot import sample_units
from unitmem.report.styled import Text
from unitmem.report.table import print_line
from unitmem.report.terminal import console_on
from unitmem.report.top import (
    SORT_FIELDS,
    GrowthTrend,
    Look,
    View,
    arrange,
    phases_of,
    press,
    print_top,
    render,
)
from unitmem.report.units import DEFAULT_SORT
from unitmem.unit import Unit

LISTED_EVERY = 30.0
"""Seconds between two listings of units, which are costly for PID 1; in between only cgroupfs is read."""
_PSS_SHARE = 10  # a process waits while its PSS is read: for a tenth of the time at most
_LEAST_INTERVAL = 0.1


def top_units(
    context: typer.Context,
    patterns: Patterns = None,
    interval: Annotated[
        str, typer.Option(metavar="SPAN", help="How often to look, such as 500ms or 1min.")
    ] = "2s",
    sort: Annotated[str, sort_option(SORT_FIELDS)] = DEFAULT_SORT,
    iterations: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Exit after this many samples.")
    ] = None,
    include_all: Annotated[
        bool, typer.Option("--all", help="Also slices, and loaded units without a cgroup.")
    ] = False,
    user: User = False,
) -> None:
    """Watch units and their memory live.

    Units are meant as in `unitmem list`; keys sort and filter the table. GROW/MIN is the growth of memory that can't be
    reclaimed over the last minute of this view, TO LIMIT when the first limit is met at that pace, and PHASE how far a
    running `unitmem watch` is with the unit's steps. ? shows the keys; Enter opens a unit's processes.

    Where stdin or stdout is no terminal, it prints one table, or as many as --iterations says.
    """
    seconds = span("--interval", interval, _LEAST_INTERVAL, "100ms")
    source = _Source(
        Machine.of(context), patterns or [], user=user, include_all=include_all, interval=seconds
    )
    if sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        status = _show_live(source, View(sort=sort), seconds, iterations)
        raise typer.Exit(status)
    _print_tables(source, sort, seconds, iterations or 1)


# --- looking ---------------------------------------------------------------------------------------


class _Source:
    """Successive looks at the machine: units are read each time, and listed every `LISTED_EVERY` seconds."""

    def __init__(
        self, machine: Machine, patterns: Sequence[str], *, user: bool, include_all: bool, interval: float
    ) -> None:
        self._machine = machine
        self._patterns = patterns
        self._user = user
        self._include_all = include_all
        self._units: list[Unit] | None = None
        self._list_at = 0.0
        self._notice: str | None = None
        self._trend = GrowthTrend(interval)
        self._opened: UnitSample | None = None
        self._read_at = 0.0

    def look(self, *, listing: bool = False) -> Look:
        """Return a look at every unit; they are listed by the manager first if `listing`, or if that is due.

        Raises:
            UnitmemError: at the first look, whatever `Machine.sample` raises. Later a manager that doesn't
                answer, or no longer knows a name, leaves the units that were known, and a notice.
        """
        if self._units is None or listing or time.monotonic() >= self._list_at:
            machine = self._list()
        else:
            machine = self._again(self._units)
        growth = self._trend.add(time.monotonic(), machine)
        phases = phases_of(ask_statuses(self._machine.watches(user=self._user)))
        return Look(machine, growth, phases, notice=self._notice)

    def open(self, look: Look, name: str) -> UnitSample | None:
        """Return the unit `name` of `look` with its processes and their PSS, which may be older; None if it is gone."""
        unit = look.find(name)
        if unit is None:
            self._opened = None
            return None
        started = time.monotonic()
        if self._opened is None or self._opened.unit.name != name or started >= self._read_at:
            opened = sample_units(
                [unit.unit], wanted={"pss"}, cgroups=self._machine.cgroups, proc=self._machine.proc
            )
            self._opened = opened.units.get(name)
            ended = time.monotonic()
            self._read_at = ended + _PSS_SHARE * (ended - started)
        return self._opened

    def _list(self) -> Sample:
        try:
            machine = self._machine.sample(self._patterns, user=self._user, include_all=self._include_all)
        except (BusError, NoSuchUnitError) as error:
            if self._units is None:
                raise
            self._notice = f"The list of units can't be refreshed: {error}"
            machine = self._again(self._units)
        else:
            self._units = [unit.unit for unit in machine.units.values()]
            self._notice = None
        self._list_at = time.monotonic() + LISTED_EVERY
        return machine

    def _again(self, units: Sequence[Unit]) -> Sample:
        return sample_units(units, cgroups=self._machine.cgroups, proc=self._machine.proc)


# --- without a terminal ----------------------------------------------------------------------------


def _print_tables(source: _Source, sort: str, interval: float, count: int) -> None:
    console = console_on(sys.stdout)
    for number in range(count):
        if number:
            time.sleep(interval)
            print_line(console)
        look = source.look()
        print_top(look, sort, console)
        sys.stdout.flush()
    note_refused(look.machine.units.values(), "shown as `-`")


# --- on a terminal ---------------------------------------------------------------------------------


def _show_live(source: _Source, view: View, interval: float, iterations: int | None) -> int:
    """Show `view` until a key, a signal or the count ends it; return the exit status."""
    look = source.look()  # what is amiss from the start is told on the screen that stays
    due = time.monotonic() + interval
    count = 1
    with _screen(sys.stdin.fileno(), sys.stdout) as screen:
        while True:
            if view.opened and (look.opened is None or look.opened.unit.name != view.opened):
                look = replace(look, opened=source.open(look, view.opened))
            size = screen.size()
            view = arrange(view, look, size)
            screen.show(render(view, look, size))
            if count == iterations:
                return 0
            for key in screen.keys(None if view.paused else max(0.0, due - time.monotonic())):
                view = press(view, key)
                if view.ended:
                    return 0
                # the next key is about what this one made of it: rows in another order, another unit
                view = arrange(view, look, size)
            if screen.ended_by is not None:
                return 128 + screen.ended_by
            if view.stale or (not view.paused and time.monotonic() >= due):
                look = source.look(listing=view.stale)
                if view.opened:
                    look = replace(look, opened=source.open(look, view.opened))
                view = replace(view, stale=False)
                due = time.monotonic() + interval
                count += 1


_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"  # the alternate screen, no cursor, no wrapping
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_ESCAPE = 0.05  # seconds in which the rest of an escape sequence follows, if there is one
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class _Screen:
    """A terminal in cbreak mode on its alternate screen, until `leave`."""

    def __init__(self, keyboard: int, output: TextIO, woken: int) -> None:
        self.ended_by: int | None = None
        """The signal that asked this program to end, if one did."""
        self._keyboard = keyboard
        self._output = output
        self._woken = woken
        self._mode = termios.tcgetattr(keyboard)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._console = console_on(output)

    def enter(self) -> None:
        tty.setcbreak(self._keyboard, termios.TCSADRAIN)
        self._write(_ENTER)

    def leave(self) -> None:
        # of a terminal that was closed there is nothing to restore
        with suppress(OSError):
            self._write(_LEAVE)
        with suppress(termios.error):
            termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._mode)

    def size(self) -> os.terminal_size:
        size = os.get_terminal_size(self._output.fileno())
        return size if size.columns and size.lines else os.terminal_size((80, 24))

    def show(self, lines: Sequence[Text]) -> None:
        text = "\x1b[K\n".join(map(self._console.render, lines))
        self._write(f"\x1b[H{text}\x1b[K\x1b[J")

    def keys(self, seconds: float | None) -> list[str]:
        """Return the keys typed within `seconds` (None: no limit); none if a signal came or the size changed."""
        ready, _, _ = select.select([self._keyboard, self._woken], [], [], seconds)
        if self._woken in ready:
            self._handle(os.read(self._woken, 64))
        if self._keyboard not in ready:
            return []
        data = self._read()
        if data.endswith(b"\x1b") and select.select([self._keyboard], [], [], _ESCAPE)[0]:
            data += self._read()
        return parse_keys(self._decoder.decode(data))

    def _read(self) -> bytes:
        try:
            data = os.read(self._keyboard, 1024)
        except OSError:  # EIO, of a terminal that was closed
            data = b""
        if not data:
            self.ended_by = signal.SIGHUP
        return data

    def _handle(self, numbers: bytes) -> None:
        for number in numbers:
            if number in _ENDING:
                self.ended_by = number
            elif number == signal.SIGTSTP:
                self._suspend()
            elif number == signal.SIGCONT:  # of a SIGSTOP, after which a shell set the terminal as it likes
                self.enter()

    def _suspend(self) -> None:
        """Stop as on Ctrl-Z; the kernel ignores that where no shell could continue the program."""
        self.leave()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self.enter()

    def _write(self, text: str) -> None:
        self._output.write(text)
        self._output.flush()


@contextmanager
def _screen(keyboard: int, output: TextIO) -> Iterator[_Screen]:
    """Yield a `_Screen`, and leave it in any case; signals only wake it, so that none interrupts that."""
    woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    screen = _Screen(keyboard, output, woken)
    numbers = (*_ENDING, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)
    before = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    handlers = {number: signal.signal(number, _note) for number in numbers}
    try:
        screen.enter()
        yield screen
    finally:
        screen.leave()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        os.close(woken)
        os.close(waker)


def _note(number: int, frame: FrameType | None) -> None:
    """Do nothing: the wakeup pipe already has the signal's number."""


_KEY = re.compile(r"\x1b\[([0-9;]*)([@-~])|\x1bO(.)|\x1b[^\x1b]|.", re.DOTALL)
_FINALS = {"A": "up", "B": "down", "H": "home", "F": "end"}
_TILDES = {"1": "home", "4": "end", "5": "pageup", "6": "pagedown", "7": "home", "8": "end"}
_CHARACTERS = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\b": "backspace", "\x1b": "escape"}


def parse_keys(text: str) -> list[str]:
    r"""Return the keys that a terminal sends as `text`, named as in `press`; other keys are left out.

    >>> parse_keys("q\x1b[A\r")
    ['q', 'up', 'enter']
    """
    keys = []
    for match in _KEY.finditer(text):
        parameters, final, application = match.groups()
        if application or final:
            last = application or final
            key = _TILDES.get(parameters.split(";")[0]) if last == "~" else _FINALS.get(last)
        else:
            # a sequence that is none of those, such as a letter with Alt, means nothing
            key = _CHARACTERS.get(match[0]) or (match[0] if len(match[0]) == 1 else None)
        if key:
            keys.append(key)
    return keys
