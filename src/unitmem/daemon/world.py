"""The machine as a watch uses it."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from unitmem.kernel import host
from unitmem.kernel.cgroup import own_cgroup
from unitmem.kernel.files import CGROUP_ROOT
from unitmem.manager import notify as service
from unitmem.manager.systemd import Manager
from unitmem.tell.journal import Journal
from unitmem.unit import ManagerKind

MOST_OPEN_FILES = 8192


def seconds_suspended() -> float:
    """Return how long the machine has been suspended since its boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


@dataclass(frozen=True, slots=True)
class World:
    """The parts of the machine that a watch uses; the defaults are the real ones."""

    state_directory: Path | None = None
    """The directory for the state and the history; None: they are not kept."""
    runtime_directory: Path | None = None
    """The directory for the control socket; None: there is none."""
    monotonic: Callable[[], float] = time.monotonic
    realtime: Callable[[], float] = time.time
    suspended: Callable[[], float] = seconds_suspended
    read_host: Callable[[], host.Host] = host.read_host
    own_cgroup: Callable[[], str | None] = own_cgroup
    cgroup_root: Path = CGROUP_ROOT
    most_open_files: int = 0
    """The most files of cgroups that are kept open from one tick to the next."""
    connect: Callable[[ManagerKind], Manager] = Manager
    notify: Callable[..., None] = field(default_factory=service.Notifier)
    watchdog_interval: Callable[[], float | None] = service.watchdog_interval
    open_journal: Callable[[], Journal] = Journal

    @classmethod
    def of_service(cls, environment: Mapping[str, str]) -> Self:
        """Return this machine with the directories that systemd has made for the service.

        See StateDirectory= in systemd.exec(5).
        """

        def first(variable: str) -> Path | None:
            value = environment.get(variable, "").partition(":")[0]
            return Path(value) if value else None

        return cls(first("STATE_DIRECTORY"), first("RUNTIME_DIRECTORY"), most_open_files=_most_open_files())


def _most_open_files() -> int:
    """Return the most files of cgroups that are kept open: half of what may be open, and 38 MiB of the kernel's memory."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MOST_OPEN_FILES, soft // 2) if soft >= 0 else MOST_OPEN_FILES  # below 0 is no limit
