"""Error messages: a sentence and a hint, without a traceback.

This module imports neither rich nor Typer, since the daemon's errors are printed here too.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from unitmem.errors import PolicyFileError, UnitmemError
from unitmem.text import printable

INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it


def run(command: Callable[[], int]) -> int:
    """Run `command` and return its exit status; errors are printed on stderr, with a traceback if UNITMEM_DEBUG=1."""
    try:
        status = command()
        if sys.stdout is not None:  # it was closed before we began
            sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except UnitmemError as error:
        _trace()
        tell(error)
        return error.exit_status
    except OSError as error:
        _trace()
        _let_go_of(sys.stdout)
        tell(
            _too_many_files(error)
            or UnitmemError(f"{error.filename or 'the output'}: {error.strerror or error}")
        )
        return UnitmemError.exit_status
    except Exception as error:  # noqa: BLE001 - a person gets a sentence, whatever it is
        _trace()
        tell(_unexpected(error))
        return UnitmemError.exit_status
    return status


def tell(error: UnitmemError) -> None:
    """Print `unitmem: MESSAGE` on stderr, and the hint on a line of its own."""
    # a policy file's problems begin with their own place, where editors look for it
    say(str(error) if isinstance(error, PolicyFileError) else f"unitmem: {error}")
    if error.hint:
        say(f"{error.hint[0].upper()}{error.hint[1:]}.")


def say(line: str) -> None:
    """Print one line, or the lines of a message, on stderr, escaped; ignore that they can't be written."""
    line = "\n".join(map(printable, line.split("\n")))
    if sys.stderr is None:  # it was closed before we began
        return
    try:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    except OSError:
        _let_go_of(sys.stderr)


def _too_many_files(error: OSError) -> UnitmemError | None:
    if error.errno not in (errno.EMFILE, errno.ENFILE):
        return None
    return UnitmemError(
        "too many open files",
        hint="raise the limit: `ulimit -n` shows that of a shell, `LimitNOFILE=` sets that of a service",
    )


def _unexpected(error: Exception) -> UnitmemError:
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    place = "" if last is None else f" at {Path(last.tb_frame.f_code.co_filename).name}:{last.tb_lineno}"
    words = " ".join(str(error).split()) or "no message"
    return UnitmemError(
        f"unexpected {type(error).__name__}{place}: {words}",
        hint="this is a bug in unitmem: please report it, with the output of the same command under UNITMEM_DEBUG=1",
    )


def _let_go_of(stream: TextIO) -> None:
    """Discard what could not be written: Python would retry at exit, print a traceback, and change the exit status."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _trace() -> None:
    if os.environ.get("UNITMEM_DEBUG"):
        import traceback  # noqa: PLC0415 - half a megabyte that a daemon has no use for

        traceback.print_exc()
