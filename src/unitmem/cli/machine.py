"""The machine that commands look at: the real one, or what a test puts in its place."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from unitmem.kernel.files import CGROUP_ROOT, PROC_ROOT
from unitmem.measure.sample import Sample
from unitmem.system import System, connect
from unitmem.unit import ManagerKind

if TYPE_CHECKING:
    from unitmem.manager.systemd import Manager


@dataclass(frozen=True, slots=True)
class Machine:
    """Where cgroups and processes are, and how to reach the service manager."""

    cgroups: Path = CGROUP_ROOT
    proc: Path = PROC_ROOT
    connect: Callable[[ManagerKind], Manager] = connect
    runtime: Path = Path("/run")
    """Where services keep what they tell of themselves while they run."""
    state: Path = Path("/var/lib/unitmem")
    """Where watches that run as services keep their histories."""

    @classmethod
    def of(cls, context: typer.Context) -> Machine:
        """The machine that this run of the command line is about."""
        return context.find_object(cls) or cls()

    def manager(self, *, user: bool) -> Manager:
        """Connect to the system's or the calling user's manager alone; to be closed by the caller.

        Raises:
            UnsupportedSystemError: this isn't run by systemd.
            BusError: the manager can't be reached.
        """
        return self.connect(ManagerKind.USER if user else ManagerKind.SYSTEM)

    def system(self, *, user: bool) -> System:
        """Connect to the system's or the calling user's manager; to be closed by the caller.

        Raises:
            UnsupportedSystemError: this isn't run by systemd, or has no cgroup v2.
            BusError: the manager can't be reached.
        """
        return System(user=user, connect=self.connect, cgroups=self.cgroups, proc=self.proc)

    def statuses(self, *, user: bool) -> Path:
        """The directory in which running watches of the system's or the calling user's manager tell their status."""
        runtime = Path(os.environ.get("XDG_RUNTIME_DIR", "/nonexistent")) if user else self.runtime
        return runtime / "unitmem"

    def histories(self, *, user: bool) -> tuple[Path, ...]:
        """The directories below which the watches of the system's or the calling user's manager keep their histories."""
        if not user:
            return (self.state,)
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
        # where systemd before 254 has a user's StateDirectory=
        config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        return Path(state, "unitmem"), Path(config, "unitmem")

    def sample(
        self,
        patterns: Sequence[str],
        *,
        user: bool,
        wanted: Collection[str] = (),
        include_all: bool = False,
        skip_missing: bool = False,
    ) -> Sample:
        """Take one sample; args and errors are those of `System.sample`."""
        with self.system(user=user) as system:
            return system.sample(
                *patterns, measures=wanted, include_all=include_all, skip_missing=skip_missing
            )
