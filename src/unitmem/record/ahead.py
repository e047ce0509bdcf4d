"""The file that is written ahead of what a tick does: a line a record, appended without waiting for any disk.

It protects against a crash of the watch only, so it belongs into the runtime directory, which is in memory. What a
crash leaves of a line is not read. Each line has the boot ID, and one key beside it that says what it is.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from unitmem.record.numbers import load

_LARGEST = 8 << 20
"""The size in bytes from which the file is begun anew with the next state, where the state can't be saved."""


class Ahead:
    """The file at `path`, which is opened once and kept open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def open(self) -> None:
        """Open the file, unless it is open; it is made where it is missing.

        Raises:
            OSError: it can't be opened.
        """
        if self._fd < 0:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(self.path, flags, 0o600)

    def read(self, boot_id: str) -> Iterator[Mapping[str, Any] | None]:
        """Yield the records of this boot, oldest first; None for a whole line that is no record.

        Raises:
            OSError: it can't be read.
        """
        try:
            *lines, torn = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        if torn:  # the next record must not be added to it
            os.truncate(self.path, sum(len(line) + 1 for line in lines))
        for line in lines:
            try:
                record = load(line)
            except (ValueError, RecursionError):
                yield None
                continue
            if not isinstance(record, dict):
                yield None
            elif record.get("boot_id") == boot_id:
                yield record

    def append(self, record: Mapping[str, Any], boot_id: str) -> None:
        """Add a record.

        Raises:
            OSError: it can't be written; what was written of it is taken back.
        """
        self.open()
        data = json.dumps({"boot_id": boot_id, **record}).encode() + b"\n"
        size = os.fstat(self._fd).st_size
        if "state" in record and size > _LARGEST:
            size = 0
            os.ftruncate(self._fd, 0)
        if os.write(self._fd, data) < len(data):
            os.ftruncate(self._fd, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def clear(self) -> None:
        """Remove all records, as the state on disk has them.

        Raises:
            OSError: they can't be.
        """
        self.open()
        os.ftruncate(self._fd, 0)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def apply(records: Iterable[Mapping[str, Any] | None], document: dict[str, Any]) -> dict[str, Any]:
    """Return the state's `document` as `records` have changed it; one that isn't understood is an entry that is None.

    They are: `state`, another document; `intent` with `changes` to the entry of that key; `override`, one more entry of
    the overrides.
    """
    for record in records:
        match record:
            case {"state": dict(state)}:
                document = {**state}
            case {"intent": list(key), "changes": dict(changes)}:
                for entry in _under_way(document):
                    if _has_key(entry, key):
                        entry.update(changes)
            case {"override": dict(override)} if isinstance(document.get("holds"), list):
                if override not in document["holds"]:
                    document["holds"].append(override)
            case _:
                document["under_way"] = [*_under_way(document), None]
    return document


def _under_way(document: Mapping[str, Any]) -> list[Any]:
    found = document.get("under_way", [])
    return found if isinstance(found, list) else [None]


def _has_key(entry: object, key: list[Any]) -> bool:
    return isinstance(entry, dict) and [entry.get(name) for name in ("policy", "unit", "step", "at")] == key
