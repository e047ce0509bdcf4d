"""The Varlink interface of a running watch, `io.unitmem`: its socket, its methods, and its description."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

TYPE_CHECKING = False  # as type checkers know it; a TAB needs nothing of pathlib
if TYPE_CHECKING:
    from pathlib import Path

INTERFACE = "io.unitmem"
SOCKET_NAME = INTERFACE
"""The socket in the runtime directory, named like the interface, as those of systemd's services are."""
STATUS, RESET = "Status", "Reset"
PERMISSION_DENIED = f"{INTERFACE}.PermissionDenied"
NO_SUCH_UNIT = f"{INTERFACE}.NoSuchUnit"

DESCRIPTION = """\
# A running watch of unitmem; see unitmem@.service(8)
interface io.unitmem

type Cooldown(policy: string, unit: string, left: float)

type Budget(policy: string, unit: string, actions: int)

type Retry(policy: string, unit: string)

type Refusal(unit: string, action: string)

# What the watch saw at its last tick, and where each step stands: as in `unitmem status --json`
method Status() -> (status: object)

# Ends cooldowns and pauses, refills budgets, and forgets what the manager has refused: of that unit, or of all units.
# Only root may, and the user whose watch it is.
method Reset(unit: ?string) -> (
  unit: ?string,
  cooldowns: []Cooldown,
  budgets: []Budget,
  retries: []Retry,
  refusals: []Refusal,
  file_budget: int
)

error PermissionDenied(message: string)

# No policy of this watch governs that unit, and nothing is kept about it
error NoSuchUnit(message: string)
"""


@contextmanager
def address_of(path: Path) -> Iterator[str]:
    """Yield an address of the socket at `path`; if that is longer than the 107 bytes of unix(7), one by its directory.

    Raises:
        OSError: there is no such directory.
    """
    if len(os.fsencode(path)) <= 107:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
