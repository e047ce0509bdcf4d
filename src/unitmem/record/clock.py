"""One moment by both clocks: monotonic times of one boot are moved to another by the wall clock."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Instant:
    """One moment by both clocks, and the boot that the monotonic one counts from."""

    monotonic: float
    realtime: float
    boot_id: str

    @classmethod
    def now(cls, monotonic: float | None = None) -> Instant:
        try:
            boot_id = BOOT_ID.read_text().strip()
        except OSError:
            boot_id = ""
        return cls(time.monotonic() if monotonic is None else monotonic, time.time(), boot_id)

    def shift_from(self, then: Instant, at_least: float = 0.0) -> float:
        """What to add to monotonic times of `then` to have them on this clock.

        Over a reboot the wall clock says how long it was between the two, which is never less than `at_least`.
        """
        if then.boot_id == self.boot_id:
            return 0.0
        passed = max(at_least, self.realtime - then.realtime)
        return self.monotonic - passed - then.monotonic
