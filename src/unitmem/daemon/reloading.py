"""The answer to ExecReload= of the service: whether the policy file was loaded. `systemctl reload` fails if not."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from unitmem.record.files import replace_file

FILE_NAME = "reload"
"""The file in the runtime directory that ExecReload= waits for."""


def answer_reload(directory: Path | None, *, is_loaded: bool) -> None:
    """Write `loaded` or `refused` to the file in `directory`, if there is one."""
    if directory is not None:
        with suppress(OSError):  # the journal has it, too
            replace_file(directory / FILE_NAME, "loaded\n" if is_loaded else "refused\n", durable=False)
