"""Asking running watches over their control sockets."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from unitmem.cli.machine import Machine
from unitmem.errors import NoSuchUnitError, UnitmemError, UsageError
from unitmem.tell.interface import (
    INTERFACE,
    NO_SUCH_UNIT,
    PERMISSION_DENIED,
    SOCKET_NAME,
    STATUS,
    address_of,
)
from unitmem.tell.varlink import END, CallError, MalformedMessageError, call_message, parse_reply
from unitmem.text import format_span
from unitmem.unit import is_unit_name

TIMEOUT = 3.0
"""Seconds for a watch to answer: it does between two ticks."""
_AT_ONCE = 0.5


@dataclass(frozen=True, slots=True)
class Answer:
    """What one watch has answered: parameters, or an error."""

    instance: str
    parameters: dict[str, Any] | None = None
    error: UnitmemError | None = None

    @property
    def status(self) -> dict[str, Any] | None:
        """The status document in it; None if there is none."""
        document = (self.parameters or {}).get("status")
        return document if isinstance(document, dict) else None


def instance_of(name: str) -> str:
    """Return the instance that is meant: `web` of `web` and of `unitmem@web.service`.

    Raises:
        UsageError: no watch can have that name.
    """
    instance = name.removeprefix("unitmem@").removeprefix("unitmem-observe@").removesuffix(".service")
    if not is_unit_name(f"unitmem@{instance}.service") or not instance.strip("."):
        raise UsageError(
            f"{name!r} is not an instance of unitmem@.service", hint="`unitmem status` shows those that run"
        )
    return instance


def not_running(instance: str | None, *, user: bool) -> UnitmemError:
    """Return the error where the watch `instance`, or any, doesn't run."""
    which = "no unitmem@ service is" if instance is None else f"unitmem@{instance}.service is not"
    start = f"systemctl {'--user ' if user else ''}start unitmem@{instance or 'NAME'}.service"
    return UnitmemError(f"{which} running", hint=f"start one with `{start}`")


def ask_statuses(directory: Path) -> list[dict[str, Any]]:
    """Return the status documents of the watches that answer at once, by name."""
    answers = ask(directory, None, STATUS, timeout=_AT_ONCE)
    return [answer.status for answer in answers if answer.status is not None]


def ask(
    directory: Path,
    instance: str | None,
    method: str,
    *,
    timeout: float | None = None,
    **parameters: object,
) -> list[Answer]:
    """Call a method of the watch `instance`, or of all that run, by name; return their answers.

    All are asked before the first one is waited for, so that `timeout` seconds are enough for all of them.

    Args:
        directory: what contains their runtime directories.
        instance: None is all.
        method: its name.
        timeout: seconds to wait; `TIMEOUT` unless given.
        parameters: those of the method.
    """
    deadline = time.monotonic() + (TIMEOUT if timeout is None else timeout)
    call = call_message(f"{INTERFACE}.{method}", parameters)
    answers: list[Answer] = []
    with ExitStack() as stack:
        asked = []
        paths = _sockets(directory, instance)
        # where one hangs with a full queue, the others are still asked in time
        share = (deadline - time.monotonic()) / max(1, len(paths))
        for path in paths:
            connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            try:
                _connect(connection, path, share)
                connection.sendall(call)
            except (FileNotFoundError, ConnectionRefusedError):
                continue  # it has ended
            except PermissionError:
                error = UnitmemError(f"{path}: permission denied", hint="run it as root")
                answers.append(Answer(path.parent.name, error=error))
            except OSError:
                answers.append(Answer(path.parent.name, error=_silence(path)))
            else:
                asked.append((path, connection))
        answers += [_receive(path, connection, deadline) for path, connection in asked]
    return sorted(answers, key=lambda answer: answer.instance)


def instance_names(context: typer.Context, incomplete: str) -> Iterator[str]:
    """Yield the instances that run, for a shell."""
    directory = Machine.of(context).watches(user=bool(context.params.get("user")))
    for path in _sockets(directory, None):
        if path.parent.name.startswith(incomplete):
            yield path.parent.name


def watched_units(context: typer.Context, incomplete: str) -> Iterator[str]:
    """Yield the units of the instance that was named before, for a shell."""
    directory = Machine.of(context).watches(user=bool(context.params.get("user")))
    with suppress(AttributeError, KeyError, TypeError, UsageError):
        for answer in ask(directory, instance_of(context.params["instance"]), STATUS, timeout=_AT_ONCE):
            document = answer.status or {}
            names = {entry["unit"] for entry in (*document["units"], *document["cooling"])}
            yield from sorted(name for name in names if name.startswith(incomplete))


def _sockets(directory: Path, instance: str | None) -> Sequence[Path]:
    names = [instance] if instance is not None else []
    if instance is None:
        with suppress(OSError):
            names = sorted(os.listdir(directory))
    paths = [directory / name / SOCKET_NAME for name in names if name and "/" not in name]
    return [path for path in paths if _is_socket(path)]


def _is_socket(path: Path) -> bool:
    try:
        return path.is_socket()
    except PermissionError:
        return True  # to be told when it is asked
    except OSError:  # a name that is too long
        return False


def _connect(connection: socket.socket, path: Path, seconds: float) -> None:
    # a connection that waits to be accepted waits in connect() itself, and not for readiness: see unix(7)
    wait = struct.pack("@ll", *_timeval(seconds))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
    with address_of(path) as address:
        connection.connect(address)


def _timeval(seconds: float) -> tuple[int, int]:
    microseconds = max(1, int(seconds * 1e6))  # 0 is no limit
    return divmod(microseconds, 1_000_000)


def _receive(path: Path, connection: socket.socket, deadline: float) -> Answer:
    instance, received = path.parent.name, b""
    try:
        while not received.endswith(END):
            connection.settimeout(max(1e-3, deadline - time.monotonic()))
            data = connection.recv(1 << 20)
            if not data:
                raise ConnectionResetError
            received += data
        return Answer(instance, parse_reply(received.removesuffix(END)))
    except CallError as error:
        return Answer(instance, error=_refusal(instance, error))
    except (OSError, MalformedMessageError):
        return Answer(instance, error=_silence(path))


def _refusal(instance: str, error: CallError) -> UnitmemError:
    message = str(error.parameters.get("message", f"unitmem@{instance}.service answers with {error.name}"))
    match error.name:
        case name if name == PERMISSION_DENIED:
            return UnitmemError(message, hint="run it as root")
        case name if name == NO_SUCH_UNIT:
            return NoSuchUnitError(message)
    return UnitmemError(message)


def _silence(path: Path) -> UnitmemError:
    """Return the error of a watch that runs and doesn't answer; the socket has the time of its last tick."""
    last = ""
    with suppress(OSError):
        age = time.time() - path.stat().st_mtime
        last = f"; its last tick was {format_span(age) if age >= 1 else 'less than 1s'} ago"
    return UnitmemError(
        f"unitmem@{path.parent.name}.service is running, but doesn't answer{last}",
        hint="it is busy, or hangs: see its journal",
    )
