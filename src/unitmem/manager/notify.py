"""The daemon's own ties to its manager: sd_notify(3) and its watchdog."""

from __future__ import annotations

from pystemd import daemon as sd_daemon

# --- the daemon's own ties to its manager ----------------------------------------------------------


def notify(**states: str | int) -> None:
    """sd_notify(3): `ready=1`, `status="…"`, `watchdog=1`. Without a manager that listens, nothing happens."""
    sd_daemon.notify(False, **states)


def watchdog_interval() -> float | None:
    """Seconds within which the manager wants to hear `watchdog=1`; None when it doesn't watch us."""
    usec = sd_daemon.watchdog_enabled(False)
    return usec / 1_000_000 if usec else None
