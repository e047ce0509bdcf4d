"""The machine that commands look at; tests replace it."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unitmem.kernel.files import CGROUP_ROOT, PROC_ROOT
from unitmem.measure.sample import Sample
from unitmem.system import Connect, System, connect

if TYPE_CHECKING:
    import typer


@dataclass(frozen=True, slots=True)
class Machine:
    """The places of cgroups, processes and files, and the way to connect to the service manager."""

    cgroups: Path = CGROUP_ROOT
    proc: Path = PROC_ROOT
    connect: Connect = connect
    runtime: Path = Path("/run")
    """Below it are the runtime directories, in which running watches have their sockets."""
    state: Path = Path("/var/lib/unitmem")
    """Below it are the state directories of the unitmem@ services, with their histories; unitmem-observe@ has its own beside it."""

    @classmethod
    def of(cls, context: typer.Context) -> Machine:
        """Return the machine of this run of the command line."""
        return context.find_object(cls) or cls()

    def system(self, *, user: bool) -> System:
        """Return the `System` of the system's or the calling user's manager; the caller closes it.

        Raises:
            UnsupportedSystemError: this isn't run by systemd, or has no cgroup v2.
            BusError: the manager can't be reached.
        """
        return System(user=user, connect=self.connect, cgroups=self.cgroups, proc=self.proc)

    def watches(self, *, user: bool) -> Path:
        """Return what contains the runtime directories of running watches, of the system or of the calling user."""
        runtime = Path(os.environ.get("XDG_RUNTIME_DIR", "/nonexistent")) if user else self.runtime
        return runtime / "unitmem"

    def histories(self, *, user: bool) -> tuple[Path, ...]:
        """Return the directories that contain the histories of watches, of the system or of the calling user."""
        if not user:
            return self.state, self.state.with_name(f"{self.state.name}-observe")
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
        brief: bool = False,
    ) -> Sample:
        """Take one sample; args and errors are those of `System.sample`."""
        with self.system(user=user) as system:
            return system.sample(
                *patterns, measures=wanted, include_all=include_all, skip_missing=skip_missing, brief=brief
            )
