"""Guests, units and policies for the end-to-end tests.

Which guests is chosen by --guest or $UNITMEM_GUESTS ("bookworm,trixie"). They are brought up by vagrant/guest and kept
running afterwards. Every test that takes `host` runs once a guest; `-n 2` runs the guests side by side.

A guest is emulated where KVM doesn't serve, ten to twenty times slower: no test asserts a time, waits go through
`eventually`.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra
from documents import Block, difference
from testinfra.host import Host

CHECKOUT = Path(__file__).parents[2]
GUEST = CHECKOUT / "vagrant/guest"
SUITES = ("bookworm", "trixie")
UNTRIED = ("el10",)
"""May be asked for, with UNITMEM_BOX=public; what fails there was never seen to pass."""
PYTHON = {
    "bookworm": "/opt/unitmem/bin/python",
    "el10": "/opt/unitmem/bin/python",
    "trixie": "/usr/bin/python3",
}
"""What unitmem runs on: an environment of its own where Debian's packages are too old for it."""
WORKLOADS = "/usr/local/lib/unitmem-workloads"

#: The units a test started, for the dump when it fails.
STARTED = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--guest", help="guests to test in, comma-separated (default: $UNITMEM_GUESTS, or all)")


def chosen_suites(config: pytest.Config) -> list[str]:
    # The option is known only if this directory was named on the command line; the variable always serves.
    choice = config.getoption("--guest", None) or os.environ.get("UNITMEM_GUESTS") or ",".join(SUITES)
    suites = choice.split(",")
    if unknown := set(suites) - {*SUITES, *UNTRIED}:
        raise pytest.UsageError(f"--guest: {', '.join(sorted(unknown))}: must be among {', '.join(SUITES)}")
    return suites


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "suite" in metafunc.fixturenames:
        only = metafunc.definition.get_closest_marker("suites")
        suites = [
            pytest.param(suite, marks=pytest.mark.guest)
            for suite in chosen_suites(metafunc.config)
            if only is None or suite in only.args
        ]
        metafunc.parametrize("suite", suites, scope="session")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A worker per guest, so that each guest is installed into once and its tests do not meet each other.

    --dist=loadgroup is meant for this, but groups nothing under pytest 9.2 (pytest-xdist#1386).
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByGuest(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            parameters = nodeid.partition("[")[2]
            return next((suite for suite in (*SUITES, *UNTRIED) if suite in parameters), nodeid)

    return ByGuest(config, log)


@pytest.fixture(scope="session")
def host(suite: str) -> Host:
    """A running guest with the checkout installed, as testinfra's host, with root's rights."""

    def guest(verb: str) -> str:
        command = [GUEST, verb, suite]
        done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            pytest.fail(f"vagrant/guest {verb} {suite}:\n{done.stderr}", pytrace=False)
        return done.stdout.strip()

    guest("up")
    guest("install")
    # Its connection outlives pauses of minutes, as the configuration says, and those that testinfra would open don't.
    config = guest("ssh-config")
    login = ["ssh", "-F", config, f"root@{suite}", "true"]
    subprocess.run(login, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    # root's own, since a sudo takes as long as what it runs
    return testinfra.get_host(f"ssh://root@{suite}?timeout=60&ssh_config={config}")


@pytest.fixture(scope="session")
def python(suite: str) -> str:
    """The guest's Python that has unitmem."""
    return PYTHON[suite]


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """eventually(predicate, why, ceiling=180): poll until predicate() is true, and return what it returned.

    The ceiling, in seconds, is for a guest that hangs: it says nothing about how long a thing may take.
    """

    def poll(predicate: Callable[[], Any], why: str, ceiling: float = 180) -> Any:
        began = look = time.monotonic()
        while not (answer := predicate()):
            now = time.monotonic()
            if now > began + ceiling:
                pytest.fail(f"waited {ceiling:g} s in vain: {why}; last answer: {answer!r}")
            # Looks take half of the guest's one CPU and not most of it: the rest is for what is waited for.
            time.sleep(min(max(0.3, now - look), 2))
            look = time.monotonic()
        return answer

    return poll


@dataclass(frozen=True)
class Journal:
    """The guest's journal, read from a moment on."""

    host: Host

    def now(self) -> int:
        """The guest's clock, in microseconds, as the journal stamps its entries."""
        return int(self.host.check_output("date +%s%6N"))

    def entries(self, unit: str, since: int = 0) -> list[dict[str, Any]]:
        """What a unit wrote, and what others wrote about it, from a moment on, oldest first."""
        # not --after-cursor: systemd 252 then drops the first entry that matches
        # --since takes seconds, and spares the guest all that is older; the filter below is exact
        shown = self.host.check_output(
            "journalctl --output=json --since=@%s --unit=%s", str(since // 1_000_000), unit
        )
        entries = (json.loads(line) for line in shown.splitlines())
        return [entry for entry in entries if int(entry["__REALTIME_TIMESTAMP"]) >= since]

    def messages(self, unit: str, since: int = 0) -> list[str]:
        return [str(entry.get("MESSAGE")) for entry in self.entries(unit, since)]


@pytest.fixture(scope="session")
def journal(host: Host) -> Journal:
    return Journal(host)


@dataclass(frozen=True)
class Unit:
    """A unit in the guest."""

    host: Host
    name: str
    since: int = 0
    """When it was asked to start, as the journal stamps its entries: others had its name before it."""

    def get(self, prop: str) -> str:
        """A property, as systemctl show prints it."""
        return self.host.check_output("systemctl show --property %s --value -- %s", prop, self.name)

    def read(self, file: str) -> str:
        """A file of its cgroup, as memory.current."""
        return self.host.check_output("cat /sys/fs/cgroup%s/%s", self.get("ControlGroup"), file)

    def is_active(self) -> bool:
        return self.get("ActiveState") == "active"


def remove_units(host: Host, names: Sequence[str], *files: str) -> None:
    """Stop units, whatever they do, and remove files, all in one login."""
    if not names:
        return
    # SIGKILL first: what ignores SIGTERM, or is frozen, would keep the stop waiting. Of several names,
    # systemctl goes on with the others where one is not loaded.
    each = " ".join(["%s"] * len(names))
    host.run(
        f"systemctl thaw {each}; systemctl kill --signal=SIGKILL {each}; systemctl stop {each};"
        f" systemctl reset-failed {each}; rm -f {' '.join(['%s'] * len(files))}",
        *[*names] * 4,
        *files,
    )


def start_units(
    host: Host, journal: Journal, eventually: Callable[..., Any], request: pytest.FixtureRequest
) -> Iterator[Callable[..., Unit]]:
    """unit(command, *arguments, name=None, **properties): start a transient service, and return it when it is ready.

    A bare word is a script of vagrant/workloads, which says when it is ready. Properties are systemd's:
    unit("leak", "--rate", "8M", MemoryMax="256M"). All are stopped after the test.
    """
    started = request.node.stash.setdefault(STARTED, [])

    def start(command: str, *arguments: str, name: str | None = None, **properties: str) -> Unit:
        workload = "/" not in command
        name = name or f"e2e-{Path(command).name}-{secrets.token_hex(3)}.service"
        started.append(name)
        words = ["systemd-run", "--quiet", f"--unit={name}", "--property=Type=exec"]
        words += [f"--property={prop}={value}" for prop, value in properties.items()]
        words += ["--", f"{WORKLOADS}/{command}" if workload else command, *arguments]
        # the moment as by Journal.now(), in the same login
        since = int(host.check_output("date +%%s%%6N; " + " ".join(["%s"] * len(words)), *words))
        if workload:
            eventually(
                lambda: any(message.startswith("ready") for message in journal.messages(name, since)),
                f"{name} is ready",
            )
        return Unit(host, name, since)

    yield start
    remove_units(host, started[::-1])


unit = pytest.fixture(start_units, name="unit")
lasting_unit = pytest.fixture(start_units, name="lasting_unit", scope="module")
"""As `unit`, for units that all tests of a file look at and none changes."""


def start_policies(host: Host, request: pytest.FixtureRequest) -> Iterator[Callable[..., Unit]]:
    """policy(text, name=None): write /etc/unitmem/NAME.yaml and start unitmem@NAME, both removed after the test."""
    started = request.node.stash.setdefault(STARTED, [])
    names: list[str] = []

    def start(text: str, name: str | None = None) -> Unit:
        name = name or f"e2e-{secrets.token_hex(3)}"
        names.append(name)
        started.append(f"unitmem@{name}.service")
        # Type=notify: it has read the policy, and watches, when this returns.
        host.check_output(
            "printf %%s %s >/etc/unitmem/%s.yaml && systemctl start unitmem@%s.service", text, name, name
        )
        return Unit(host, f"unitmem@{name}.service")

    yield start
    remove_units(
        host, [f"unitmem@{name}.service" for name in names], *[f"/etc/unitmem/{name}.yaml" for name in names]
    )


policy = pytest.fixture(start_policies, name="policy")
lasting_policy = pytest.fixture(start_policies, name="lasting_policy", scope="module")
"""As `policy`, for a watch that several tests of a file use, since a start takes longer than most of what they ask."""


@dataclass(frozen=True)
class Follower:
    """Somebody who pastes a page's blocks into a root shell, one after the other, and compares what is printed."""

    host: Host
    eventually: Callable[..., Any]
    directory: str
    """Where they type it."""
    shell: str = "bash -c %s"

    def paste(self, text: str, *, may_fail: bool = False) -> str:
        """What a block prints; unless it may fail, each of its lines has to succeed."""
        command = (
            f"cd {self.directory} && export COLUMNS=100; exec 2>&1; {'' if may_fail else 'set -e; '}{text}"
        )
        done = self.host.run(self.shell, command)
        if done.rc and not may_fail:
            pytest.fail(f"this failed with status {done.rc}:\n{text}\nand printed:\n{done.stdout}")
        return done.stdout

    def follow(self, page: Sequence[Block], before: Mapping[str, Callable[[], object]] | None = None) -> None:
        """Paste the blocks that are commands, and hold what each prints to the block below it, if that shows it.

        Args:
            page: some of a page's blocks, in its order.
            before: by the beginning of a block, what has to be done before it.
        """
        for block, below in zip(page, [*page[1:], None], strict=True):
            if block.language != "sh":
                continue
            for start, prepare in (before or {}).items():
                if block.text.startswith(start):
                    prepare()
            if below is None or below.language != "text" or below.line != block.line_below:
                self.paste(block.text)
            elif is_look(block.text):
                self.wait_for(block.text, below.text)
            else:
                printed = self.paste(block.text, may_fail=True)
                assert difference(below.text, printed) is None, printed

    def wait_for(self, look: str, shown: str) -> None:
        """Look again and again, as a person does who waits for something, until that is printed."""
        printed = ""

        def is_shown() -> bool:
            nonlocal printed
            printed = self.paste(look, may_fail=True)
            return difference(shown, printed) is None

        try:
            self.eventually(is_shown, look)
        except pytest.fail.Exception:
            pytest.fail(f"{look}\n{difference(shown, printed)}\nIt printed:\n{printed}", pytrace=False)


def is_look(text: str) -> bool:
    """Whether a block only looks, so that it may be pasted again."""
    looks = (
        "unitmem list",
        "unitmem show",
        "unitmem plan",
        "unitmem status",
        "unitmem explain",
        "unitmem replay",
        "journalctl",
    )
    return all(line.startswith(looks) for line in text.splitlines())


@pytest.fixture
def follower(host: Host, eventually: Callable[..., Any]) -> Iterator[Follower]:
    """Somebody who follows a page as root, in a directory of their own."""
    directory = host.check_output("mktemp -d")
    yield Follower(host, eventually, directory)
    host.run("rm -r %s", directory)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show, with a failure, what the units of the test have logged."""
    report = yield
    host = getattr(item, "funcargs", {}).get("host")
    if report.failed and report.when != "teardown" and host:
        report.sections.append(("guest's journal", dump(host, item.stash.get(STARTED, []))))
    return report


def dump(host: Host, units: list[str]) -> str:
    chosen = " ".join(f"--unit={name}" for name in units) or "--boot"
    try:
        return host.run(f"journalctl --no-hostname --output=short-precise --lines=200 {chosen}").stdout
    except (RuntimeError, OSError) as error:  # the guest is gone
        return f"{error}\nSee vagrant/.vagrant/console-*.log"
