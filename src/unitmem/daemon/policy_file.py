"""The policy file of a watch, which is obeyed only where nobody else may change it.

A process of its own reads it: what that takes, YAML above all, would stay in the memory of the watch as long as it runs.
"""

from __future__ import annotations

import os

# pickle's own half in Python is a quarter of a megabyte, for those who extend it
from _pickle import dumps, loads
from pathlib import Path
from typing import NamedTuple, NoReturn

from unitmem.errors import PolicyFileError, Problem, UnitmemError, reason_of
from unitmem.kernel.ownership import distrust, trusted_owners
from unitmem.policy.model import PolicyFile, observing


class Loaded(NamedTuple):
    """A policy file without mistakes."""

    file: PolicyFile
    warnings: tuple[Problem, ...]
    """Those that no comment silences."""


def load_checked(path: Path, *, observe: bool) -> Loaded:
    """Return the policies in the file `path`; with `observe`, all of them in observe mode.

    Raises:
        PolicyFileError: the file can't be read, has mistakes, or others may change it.
        UnitmemError: no process can be started to read it, or it was killed.
    """
    # before it is opened: what nobody may change now is what is opened then
    if (why := distrust(path, trusted_owners())) is not None:
        raise PolicyFileError(f"{path} is not obeyed: {why}")
    loaded = _read_elsewhere(path)
    return loaded._replace(file=observing(loaded.file)) if observe else loaded


def _read_elsewhere(path: Path) -> Loaded:
    """Return what another process reads in the file `path`, or raise what it raises."""
    reader, writer = os.pipe()
    try:
        child = os.fork()
    except OSError as error:
        os.close(reader)
        os.close(writer)
        raise UnitmemError(f"{path}: no process can be started to read it: {reason_of(error)}") from None
    if child == 0:
        _answer(path, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = stream.read()
    _, status = os.waitpid(child, 0)
    if status != 0:
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "an error"
        raise UnitmemError(f"{path}: the process that reads it was ended by {how}")
    found: Loaded | UnitmemError = loads(answer)
    if isinstance(found, UnitmemError):
        raise found
    return found


def _answer(path: Path, writer: int) -> NoReturn:
    """Write what is in the file `path` to a pipe, and end this process without anything that its parent would do."""
    status = 1
    try:
        with os.fdopen(writer, "wb") as stream:
            stream.write(dumps(_read(path)))
        status = 0
    finally:
        os._exit(status)


def _read(path: Path) -> Loaded | UnitmemError:
    try:
        from unitmem.policyfile import reader  # noqa: PLC0415 - in the other process alone

        checked = reader.load(path)
    except PolicyFileError as error:
        refusal = PolicyFileError(str(error), error.hint)  # whose class needs no YAML
        refusal.problems = error.problems
        return refusal
    except Exception as error:  # noqa: BLE001 - whatever it is, the watch goes on and tells it
        # what is on disk by now may be another version than what runs
        what = f"unexpected {type(error).__name__}: {error}"
        return UnitmemError(f"{path} can't be read: {what}; if unitmem was upgraded, restart the watch")
    return Loaded(checked.file, checked.warnings)
