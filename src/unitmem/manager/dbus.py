"""Conversion of D-Bus values and errors between pystemd and unitmem."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import Any

from pystemd.dbusexc import DBusBaseError
from pystemd.dbuslib import apply_signature

# --- decoding --------------------------------------------------------------------------------------

DENIED = frozenset(
    {
        "org.freedesktop.DBus.Error.AccessDenied",
        "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
    }
)
INVALID = "org.freedesktop.DBus.Error.InvalidArgs"
NOT_FOUND = frozenset(
    {
        "org.freedesktop.systemd1.NoSuchUnit",
        "org.freedesktop.systemd1.NoUnitForInvocationID",
        "org.freedesktop.DBus.Error.UnknownObject",
        INVALID,
    }
)
REFUSED_FOR_GOOD = frozenset(
    f"org.freedesktop.systemd1.{name}"
    for name in (
        "BadUnitSetting",
        "JobTypeNotApplicable",
        "OnlyByDependency",  # RefuseManualStop=, RefuseManualStart=
        "UnitMasked",
    )
)
"""What the manager answers again and again until the unit's configuration is changed."""
LOST = tuple(
    f"org.freedesktop.DBus.Error.{name}"
    for name in (
        "Disconnected",
        "NameHasNoOwner",
        "NoReply",
        "NoServer",
        "ServiceUnknown",
        "Spawn.",  # the bus tried to start the manager, which it can't
        "TimedOut",
        "Timeout",
    )
)
TIMED_OUT = frozenset(f"org.freedesktop.DBus.Error.{name}" for name in ("NoReply", "TimedOut", "Timeout"))
LOST_NUMBERS = frozenset(
    {
        errno.ECHILD,  # libsystemd's answer to use after a fork
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ENOTCONN,
        errno.EPIPE,
        errno.ESHUTDOWN,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
# what pystemd says of errors that it knows only the number of
EMPTY_WORDS = frozenset({"", "Could not open a bus to DBus", "Failed to process bus"})
# pystemd maps these to classes, and drops the name then
NAME_BY_CLASS = {
    f"DBus{name}Error": f"org.freedesktop.DBus.Error.{name}"
    for name in (
        "AccessDenied",
        "Disconnected",
        "InteractiveAuthorizationRequired",
        "InvalidArgs",
        "NameHasNoOwner",
        "NoReply",
        "NoServer",
        "ServiceUnknown",
        "TimedOut",
        "Timeout",
        "UnknownObject",
    )
} | {"DBusNoSuchUnitError": "org.freedesktop.systemd1.NoSuchUnit"}


def variants(values: Iterable[tuple[str, str, Any]]) -> list[Any]:
    """Return properties, each (name, signature, value), as an `a(sv)` in the form of pystemd's messages."""
    message: list[Any] = [(ord("a"), b"(sv)")]
    for name, signature, value in values:
        message += [(ord("r"), b"sv"), (ord("s"), name.encode()), (ord("v"), signature.encode())]
        message += [*apply_signature(signature.encode(), [value]), (-1, None), (-1, None)]
    return [*message, (-1, None)]


def text_of(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def hex_of(value: Any) -> str | None:
    octets = bytes(value or ())  # `ay` comes as a list of numbers
    return octets.hex() if any(octets) else None


def error_name(error: DBusBaseError) -> str | None:
    raw = text_of(getattr(error, "err_name", "") or "")
    if "." in raw and " " not in raw:  # some of pystemd's own errors hold a sentence there
        return raw
    return NAME_BY_CLASS.get(type(error).__name__)


def describe(error: Exception) -> str:
    """Return the manager's message, or the meaning of the error number where the message is pystemd's own."""
    message = text_of(getattr(error, "err_message", "") or "")
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number and message in EMPTY_WORDS:
        return os.strerror(abs(number)).lower()
    return message or str(error)
