"""`unitmem watch` from its options to its exit status."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unitmem.daemon.loop import Loop
from unitmem.daemon.watch import Watch, load_policies
from unitmem.daemon.world import World
from unitmem.kernel.cgroup import require_memory_controller
from unitmem.unit import ManagerKind

if TYPE_CHECKING:
    from unitmem.tell.exporter import Exporter


def main(
    path: str,
    *,
    observe: bool = False,
    once: bool = False,
    user: bool = False,
    textfile: str | None = None,
    listen: str | None = None,
) -> int:
    """Run the policies in the file `path` until SIGTERM or SIGINT, or for one tick; return the exit status.

    Args:
        path: the policy file, read again at SIGHUP.
        observe: perform nothing, whatever the policies' modes say.
        once: sample and decide once, see the actions through, and end.
        user: govern the units of the calling user's own manager.
        textfile: where metrics are written to; $UNITMEM_TEXTFILE unless given, and nowhere without either.
        listen: the address, or the port of the loopback's, at which metrics are served; likewise $UNITMEM_LISTEN.

    Raises:
        UsageError: nobody can listen at such an address as `listen`.
        PolicyFileError: the file must not run.
        UnsupportedSystemError, BusError: there is nothing here to watch, or no way to.
    """
    raise_file_limit()
    world = World.of_service(os.environ)
    exporter = _exporter(Path(path).stem, metrics_targets(textfile, listen, os.environ), keep=once)
    checked = load_policies(Path(path), observe=observe)
    # systemd first: a machine without it most often lacks cgroup v2 too, and for that reason
    manager = world.connect(ManagerKind.USER if user else ManagerKind.SYSTEM)
    require_memory_controller()
    with Watch(Path(path), checked, manager, world, exporter, observe=observe) as watch:
        Loop(watch).run(once=once)
        return 0 if watch.has_looked or not once else 1


def raise_file_limit() -> None:
    """Raise the soft limit of open files to the hard one: each unit takes two, and a shell's limit is soon met."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class MetricsTargets(NamedTuple):
    """Where metrics go."""

    textfile: Path | None
    listen: str | None


def metrics_targets(
    textfile: str | None, listen: str | None, environment: Mapping[str, str]
) -> MetricsTargets | None:
    """Return where metrics are asked for, by options or else by the environment; None if nowhere.

    What is off in the environment is told later, and stops nobody.

    Raises:
        UsageError: nobody can listen at such an address as `listen`.
    """
    textfile = textfile or environment.get("UNITMEM_TEXTFILE")
    by_environment = environment.get("UNITMEM_LISTEN")
    if listen:
        from unitmem.tell.exporter import parse_address  # noqa: PLC0415 - a megabyte that not every watch needs

        parse_address(listen)
    if not (textfile or listen or by_environment):
        return None
    return MetricsTargets(Path(textfile) if textfile else None, listen or by_environment)


def _exporter(watch: str, targets: MetricsTargets | None, *, keep: bool) -> Exporter | None:
    if targets is None:
        return None
    from unitmem.tell.exporter import Exporter  # noqa: PLC0415 - as above

    return Exporter(watch, *targets, keep=keep)
