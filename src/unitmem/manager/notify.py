"""The daemon's messages to its own manager: sd_notify(3), and the watchdog."""

from __future__ import annotations

from pystemd import daemon as sd_daemon

# --- the daemon's own ties to its manager ----------------------------------------------------------


def notify(**states: str | int) -> None:
    """Send a message of sd_notify(3): `ready=1`, `status="…"`, `watchdog=1`; do nothing without $NOTIFY_SOCKET."""
    sd_daemon.notify(False, **states)


def watchdog_interval() -> float | None:
    """Return the seconds within which the manager expects `watchdog=1`; None without a watchdog."""
    usec = sd_daemon.watchdog_enabled(False)
    return usec / 1_000_000 if usec else None
