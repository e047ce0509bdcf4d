"""The machine that commands look at: the real one, or what a test puts in its place."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from unitmem.kernel.cgroup import require_memory_controller
from unitmem.kernel.files import CGROUP_ROOT, PROC_ROOT
from unitmem.measure.snapshot import Survey, survey
from unitmem.unit import ManagerKind

if TYPE_CHECKING:
    from unitmem.manager.systemd import Manager


def _connect(kind: ManagerKind) -> Manager:
    from unitmem.manager.systemd import Manager  # noqa: PLC0415 - a seventh of a second that `--help` doesn't need

    return Manager(kind)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where cgroups and processes are, and how to reach the service manager."""

    cgroups: Path = CGROUP_ROOT
    proc: Path = PROC_ROOT
    connect: Callable[[ManagerKind], Manager] = _connect
    runtime: Path = Path("/run")
    """Where services keep what they tell of themselves while they run."""
    state: Path = Path("/var/lib/unitmem")
    """Where watches that run as services keep their histories."""

    @classmethod
    def of(cls, context: typer.Context) -> Machine:
        """The machine that this run of the command line is about."""
        return context.find_object(cls) or cls()

    def manager(self, *, user: bool) -> Manager:
        """A connection to the system's or the calling user's manager, to be closed by the caller.

        Raises:
            UnsupportedSystemError: this isn't run by systemd.
            BusError: the manager can't be reached.
        """
        return self.connect(ManagerKind.USER if user else ManagerKind.SYSTEM)

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

    def survey(
        self,
        patterns: Sequence[str],
        *,
        user: bool,
        wanted: Collection[str] = (),
        include_all: bool = False,
        skip_missing: bool = False,
    ) -> Survey:
        """`survey.survey` of this machine.

        Raises:
            UnsupportedSystemError: what is missing here, systemd before cgroup v2: a machine without
                the one most often lacks the other too, and for that reason.
            NoSuchUnitError, BusError: as there.
        """
        with self.manager(user=user) as manager:
            require_memory_controller(self.cgroups)
            return survey(
                manager,
                patterns,
                wanted=wanted,
                include_all=include_all,
                skip_missing=skip_missing,
                cgroups=self.cgroups,
                proc=self.proc,
            )
