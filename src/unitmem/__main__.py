"""The executable `unitmem`."""

from __future__ import annotations

import signal
import sys
from io import TextIOWrapper
from types import ModuleType

_WATCH_FLAGS = frozenset({"--observe", "--once", "--user"})


def main() -> None:
    """Run the command line; Ctrl-C ends it without a word also while it is only being read in."""
    try:
        status = _run()
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def _run() -> int:
    """The exit status of the command line.

    The spelling that the service uses, `watch FILE`, starts without Typer and rich: they would stay
    in the daemon's memory for all its life. Every other spelling, help and usage errors included,
    goes through the command line proper, whose `watch` reaches the same function.
    """
    _leave_out_lxml()
    match sys.argv[1:]:
        case ["watch", path, *flags] if not path.startswith("-") and _WATCH_FLAGS.issuperset(flags):
            from unitmem.daemon import main as watch  # noqa: PLC0415
            from unitmem.report import failure  # noqa: PLC0415

            return failure.run(
                lambda: watch(
                    path, observe="--observe" in flags, once="--once" in flags, user="--user" in flags
                )
            )
        case arguments:
            # `unitmem list | head` ends without a word, as other programs do
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            if isinstance(sys.stdout, TextIOWrapper):
                sys.stdout.reconfigure(errors="replace")  # `…`, where the locale lacks it
            from unitmem.cli import main as command_line  # noqa: PLC0415

            return command_line(arguments)


def _leave_out_lxml() -> None:
    """Let pystemd import an empty lxml: it needs one for introspection, which unitmem never asks for.

    The real one would be 4 MiB of the daemon's memory, a quarter of it, and a wait for whoever typed a command.
    """
    lxml = ModuleType("lxml")
    lxml.etree = sys.modules["lxml.etree"] = ModuleType("lxml.etree")  # type: ignore[attr-defined]
    sys.modules["lxml"] = lxml


if __name__ == "__main__":
    main()
