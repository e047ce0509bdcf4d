"""A machine made of files and values, to run whole commands against: a cgroup tree, a /proc, a service manager."""

from __future__ import annotations

import io
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Self

import pytest
import typer.main

from unitmem.cli import VERBS, application, main
from unitmem.cli.machine import Machine
from unitmem.daemon.control import Control
from unitmem.daemon.requests import Requests
from unitmem.errors import NoSuchUnitError
from unitmem.kernel.process import PAGE_SIZE
from unitmem.report.terminal import console_on
from unitmem.unit import ManagerKind, StartLimit, Unit

M = 1 << 20


@dataclass
class FakeManager:
    """Answers from a table, and notes who asked."""

    units: dict[str, Unit]
    asked: list[ManagerKind] = field(default_factory=list)
    vanished: set[str] = field(default_factory=set)
    ending: set[str] = field(default_factory=set)
    """Described once as they are, and then inactive."""

    dependencies: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    refusing: set[str] = field(default_factory=set)
    """Those with RefuseManualStop=."""

    start_limits: dict[str, StartLimit] = field(default_factory=dict)

    def __call__(self, kind: ManagerKind) -> Self:
        self.asked.append(kind)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def close(self) -> None:
        pass

    def list_units(self) -> list[Unit]:
        return list(self.units.values())

    def control_group(self) -> str:
        return ""

    def complete(self, unit: Unit) -> Unit:
        return self.describe(unit.name)

    def describe(self, name: str, *, at_once: bool = False) -> Unit:
        if name not in self.units or name in self.vanished:
            raise NoSuchUnitError(f"no unit {name} is loaded")
        unit = self.units[name]
        if name in self.ending:
            self.units[name] = replace(unit, active_state="inactive", control_group=None)
        return unit

    def refuses_stops(self, name: str) -> bool:
        return name in self.refusing

    def dependents(self, name: str) -> dict[str, tuple[str, ...]]:
        self.describe(name)
        return self.dependencies.get(name, {})

    def start_limit(self, name: str) -> StartLimit | None:
        self.describe(name)
        return self.start_limits.get(name)


@dataclass
class FakeMachine:
    """Files below a temporary directory, and the units that they belong to."""

    root: Path
    manager: FakeManager

    @property
    def machine(self) -> Machine:
        return Machine(
            self.root / "cgroup", self.root / "proc", self.manager, self.root / "run", self.root / "state"
        )

    def unit(self, name: str, cgroup: str | None = None, **properties: object) -> None:
        self.manager.units[name] = Unit(name, control_group=cgroup, **properties)

    def cgroup(self, path: str, *, pids: tuple[int, ...] = (), psi: float = 0, **files: str | int) -> Path:
        """A cgroup whose memory files say what is given: current=…, max=…, anon=…, inactive_file=…"""
        directory = self.root / "cgroup" / path.lstrip("/")
        directory.mkdir(parents=True, exist_ok=True)
        stat = {
            "anon": 0, "file": 0, "kernel": 0, "shmem": 0, "sock": 0,
            "active_file": 0, "inactive_file": 0, "slab_reclaimable": 0,
        }  # fmt: skip
        stat |= {key: files.pop(key) for key in tuple(files) if key in stat}
        files = {"max": "max", "high": "max", "swap.current": 0} | files
        for name, value in files.items():
            (directory / f"memory.{name}").write_text(f"{value}\n")
        (directory / "memory.stat").write_text("".join(f"{key} {value}\n" for key, value in stat.items()))
        (directory / "memory.events").write_text("low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n")
        (directory / "memory.pressure").write_text(pressure(psi))
        (directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
        return directory

    def process(self, pid: int, name: str, command: str, *, rss: int, pss: int | None) -> None:
        """A process; one without `pss` may not be read."""
        directory = self.root / "proc" / str(pid)
        directory.mkdir(parents=True)
        fields = ["S", "1", *["0"] * 17, "4711", *["0"] * 20]
        (directory / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")
        (directory / "statm").write_text(f"0 {rss // PAGE_SIZE} 0 0 0 0 0\n")
        (directory / "cmdline").write_bytes(command.replace(" ", "\0").encode())
        rollup = directory / "smaps_rollup"
        if pss is None:
            rollup.mkdir()  # even root gets an error from it
        else:
            rollup.write_text(
                f"Rss: {rss // 1024} kB\nPss: {pss // 1024} kB\nPrivate_Clean: 0 kB\n"
                f"Private_Dirty: {pss // 2048} kB\nPrivate_Hugetlb: 0 kB\nShared_Hugetlb: 0 kB\nSwapPss: 0 kB\n"
            )


def pressure(some: float) -> str:
    return f"some avg10={some:.2f} avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"


@pytest.fixture(scope="session")
def imported() -> Callable[[list[str], Mapping[str, str]], set[str]]:
    """imported(words, environment): the modules that `unitmem WORDS` has imported when it ends, in that environment."""
    script = (
        "import sys\nfrom unitmem.__main__ import main\ntry: main()\n"
        # what is deferred, or kept out, has no spec
        "finally: print(*(name for name, module in sys.modules.items() if getattr(module, '__spec__', None)), file=sys.stderr)"
    )

    def imported(words: list[str], environment: Mapping[str, str]) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-S", "-c", f"import sys; sys.path += {sys.path!r}\n{script}", *words],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return set(done.stderr.splitlines()[-1].split())

    return imported


@pytest.fixture
def bare(tmp_path: Path) -> FakeMachine:
    """A machine with nothing on it."""
    return empty(tmp_path)


def empty(root: Path) -> FakeMachine:
    (root / "cgroup").mkdir()
    (root / "cgroup/cgroup.controllers").write_text("cpu memory pids\n")
    (root / "proc/pressure").mkdir(parents=True)
    (root / "proc/pressure/memory").write_text(pressure(0))
    (root / "proc/meminfo").write_text(
        "MemTotal: 4194304 kB\nMemAvailable: 3145728 kB\nSwapTotal: 1048576 kB\nSwapFree: 1048576 kB\n"
    )
    return FakeMachine(root, FakeManager({}))


@pytest.fixture
def fake(bare: FakeMachine) -> FakeMachine:
    """A machine with a tight slice, a service in it, another one beside, a session, and some that don't run."""
    return furnish(bare)


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> FakeMachine:
    """The same, for all tests that change nothing on it: its sixty files take longer than a command."""
    return furnish(empty(tmp_path_factory.mktemp("machine")))


def furnish(bare: FakeMachine) -> FakeMachine:
    bare.cgroup("/system.slice", current=700 * M, inactive_file=200 * M, max=1024 * M)
    bare.cgroup(
        "/system.slice/web.service",
        pids=(10, 11),
        psi=42.5,
        current=600 * M,
        inactive_file=90 * M,
        anon=400 * M,
        file=190 * M,
        kernel=10 * M,
        max=512 * M,
        high=480 * M,
    )
    bare.cgroup("/system.slice/db.service", pids=(20,), current=90 * M, anon=50 * M)
    bare.cgroup("/user.slice", current=30 * M)
    bare.cgroup("/user.slice/session-1.scope", current=30 * M, anon=5 * M)
    bare.process(10, "web", "/usr/bin/web --serve", rss=300 * M, pss=280 * M)
    bare.process(11, "web", "/usr/bin/web --worker", rss=310 * M, pss=290 * M)
    bare.process(20, "db", "/usr/bin/db", rss=60 * M, pss=None)
    bare.unit("system.slice", "/system.slice", sub_state="active")
    bare.unit(
        "web.service",
        "/system.slice/web.service",
        description="The web, all of it",
        sub_state="running",
        invocation_id="0123456789abcdef0123456789abcdef",
        main_pid=10,
        slice="system.slice",
    )
    bare.unit("db.service", "/system.slice/db.service", sub_state="running", slice="system.slice")
    bare.unit("user.slice", "/user.slice", sub_state="active")
    bare.unit("session-1.scope", "/user.slice/session-1.scope", sub_state="running")
    bare.unit("setup.service", active_state="active", sub_state="exited")
    bare.unit("cron.service", active_state="inactive", sub_state="dead")
    bare.unit("ghost.service", load_state="not-found", active_state="inactive", sub_state="dead")
    bare.unit("basic.target", sub_state="active")
    return bare


@dataclass(frozen=True)
class Ended:
    """What a command did."""

    status: int
    out: str
    err: str


@cache
def command(verb: str) -> Callable[..., object]:
    """The program with that verb, or with all of them; to make it takes longer than most verbs do."""
    return typer.main.get_command(application([verb]))


@pytest.fixture
def run(fake: FakeMachine, run_on: Callable[..., Ended]) -> Callable[..., Ended]:
    """run("list", "--json"): the whole command line on the fake machine, or on the one given."""
    return lambda *arguments, machine=None: run_on(machine or fake.machine, *arguments)


@pytest.fixture
def run_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """run_on(machine, "list", "--json"): the whole command line on that machine."""
    for name in ("COLUMNS", "UNITMEM_DEBUG"):  # xdist sets the first
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        "unitmem.cli.application", lambda words: command(words[0] if words[0] in VERBS else "")
    )

    def run_on(machine: Machine, *arguments: str) -> Ended:
        status = main(arguments, machine)
        return Ended(status, *capsys.readouterr())

    return run_on


class Screen(io.StringIO):
    """Text that is written to a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def render(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """render(print_units, 80, machine, …): what a report prints at that width, to a pipe or to a terminal."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")

    def render(
        report: Callable[..., None], width: int, *data: object, terminal: bool = False, **options: object
    ) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        file = Screen() if terminal else io.StringIO()
        report(*data, console_on(file), **options)
        return file.getvalue()

    return render


@pytest.fixture
def serve(fake: FakeMachine) -> Iterator[Callable[..., Path]]:
    """serve("web", status=…, reset=…): a watch of that name that answers so, and its socket.

    Either is a document, or what makes one. Without `status`, it accepts no connection.
    """
    with ExitStack() as stack:

        def serve(
            instance: str,
            status: Mapping[str, Any] | None = None,
            reset: Callable[[str | None, int], dict[str, Any]] | None = None,
        ) -> Path:
            directory = fake.root / "run/unitmem" / instance
            directory.mkdir(parents=True)
            requests = Requests(lambda: dict(status or {}), reset or (lambda unit, uid: {}))
            return stack.enter_context(_served(directory, requests, is_busy=status is None and reset is None))

        yield serve


@contextmanager
def _served(directory: Path, requests: Requests, *, is_busy: bool) -> Iterator[Path]:
    selector, stopped = selectors.DefaultSelector(), threading.Event()
    control = Control(directory, selector, requests.answer, time.monotonic)
    control.mark()

    def run() -> None:
        while not stopped.is_set():
            selector.select(0.01)
            control.serve()

    thread = threading.Thread(target=run)
    if not is_busy:
        thread.start()
    try:
        yield directory / "io.unitmem"
    finally:
        stopped.set()
        if not is_busy:
            thread.join()
        control.close()
        selector.close()
