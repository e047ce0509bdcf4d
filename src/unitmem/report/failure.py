"""What a person is told when something went wrong, in one voice: a sentence, a hint, and no traceback.

Apart from everything that imports rich or Typer, since the daemon's errors pass through here too.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from unitmem.errors import PolicyFileError, UnitmemError

INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it


def run(command: Callable[[], int]) -> int:
    """The exit status of `command`; what it raises is told on stderr. `UNITMEM_DEBUG=1` adds the traceback."""
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
        _let_go_of_stdout()
        tell(UnitmemError(f"{error.filename or 'the output'}: {error.strerror or error}"))
        return UnitmemError.exit_status
    except Exception as error:  # noqa: BLE001 - a person gets a sentence, whatever it is
        _trace()
        tell(_unexpected(error))
        return UnitmemError.exit_status
    return status


def tell(error: UnitmemError) -> None:
    """`unitmem: MESSAGE` on stderr, and the hint on a line of its own."""
    # a policy file's problems begin with their own place, where editors look for it
    say(str(error) if isinstance(error, PolicyFileError) else f"unitmem: {error}")
    if error.hint:
        say(f"{error.hint[0].upper()}{error.hint[1:]}.")


def say(line: str) -> None:
    """One line on stderr; lost when nobody listens there."""
    with suppress(
        OSError, AttributeError
    ):  # of a descriptor that was closed before we began there is no file
        sys.stderr.write(f"{line}\n")


def _unexpected(error: Exception) -> UnitmemError:
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    words = " ".join(str(error).split()) or "no message"
    return UnitmemError(
        f"unexpected {type(error).__name__}{place}: {words}",
        hint="this is a bug in unitmem: please report it, with the output of the same command under UNITMEM_DEBUG=1",
    )


def _let_go_of_stdout() -> None:
    """Drop what could not be written: Python would try again at its exit, and complain at length."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _trace() -> None:
    if os.environ.get("UNITMEM_DEBUG"):
        traceback.print_exc()
