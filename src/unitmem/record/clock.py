"""Instants by both clocks: the wall clock converts monotonic times of one boot to those of another."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Instant:
    """An instant by the monotonic and the wall clock, in seconds, with the boot ID."""

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
        """Return the seconds to add to monotonic times of `then` to convert them to this instant's clock.

        Across a reboot, the time between the two is taken from the wall clock, and is `at_least` that long.
        """
        if then.boot_id == self.boot_id:
            return 0.0
        passed = max(at_least, self.realtime - then.realtime)
        return self.monotonic - passed - then.monotonic
