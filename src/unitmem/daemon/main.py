"""The entry point of `unitmem watch`: from its options to its exit status."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unitmem import __version__
from unitmem.daemon.loop import Loop
from unitmem.daemon.policy_file import load_checked
from unitmem.daemon.watch import Watch
from unitmem.daemon.world import World
from unitmem.errors import BusError
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
        once: sample and decide once, follow the actions to their outcomes, and end.
        user: govern the units of the calling user's own manager.
        textfile: the file that metrics are written to; $UNITMEM_TEXTFILE unless given, and none without either.
        listen: the address, or the port on the loopback, at which metrics are served; $UNITMEM_LISTEN unless
            given, and none without either.

    Raises:
        UsageError: `listen` is not an address to listen on.
        PolicyFileError: the file can't be read, or has mistakes.
        UnsupportedSystemError: the units can't be read.
        BusError: the manager can't be reached, and this is no service, which tries again.
    """
    raise_file_limit()
    world = World.of_service(os.environ)
    exporter = _exporter(Path(path).stem, metrics_targets(textfile, listen, os.environ), keep=once)
    checked = load_checked(Path(path), observe=observe)
    # systemd first: a machine without it most often lacks cgroup v2 too, and for that reason
    kind = ManagerKind.of(user=user)
    manager = None
    try:
        manager = world.connect(kind)
    except BusError:
        # a service tries again, since ending would only have it started again; whoever runs it by hand wants to know
        if once or "NOTIFY_SOCKET" not in os.environ:
            raise
    require_memory_controller()
    with Watch(Path(path), checked, manager, world, exporter, observe=observe, kind=kind) as watch:
        Loop(watch).run(once=once)
        return 0 if watch.has_looked or not once else 1


def raise_file_limit() -> None:
    """Raise the soft limit of open files to the hard one: each unit needs up to ten, and the usual 1024 are too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class MetricsTargets(NamedTuple):
    """The file and the address for metrics; None where there is none."""

    textfile: Path | None
    listen: str | None


def metrics_targets(
    textfile: str | None, listen: str | None, environment: Mapping[str, str]
) -> MetricsTargets | None:
    """Return the targets that the options, or else the environment, ask for; None if there are none.

    A bad address in the environment is logged later, and doesn't stop the watch.

    Raises:
        UsageError: `listen` is not an address to listen on.
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

    return Exporter(watch, *targets, keep=keep, version=__version__)
