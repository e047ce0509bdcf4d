"""What clients of the control socket may ask of a watch, and who may."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from unitmem import __version__
from unitmem.measure.sample import Sample
from unitmem.policy.model import PolicyFile
from unitmem.policy.state import State, has_kept
from unitmem.tell.interface import DESCRIPTION, INTERFACE, NO_SUCH_UNIT, PERMISSION_DENIED, RESET, STATUS
from unitmem.tell.varlink import CallError, InvalidParameterError, Service, check_parameters, reply_message
from unitmem.unit import Unit, is_unit_name

ROOT = 0
_INFO = {
    "vendor": "unitmem",
    "product": "unitmem",
    "version": __version__,
    "url": "man:unitmem@.service(8)",
}


class Requests:
    """The methods of one watch; the reply about its status is made once a tick, and only when asked for.

    Args:
        status: returns the status document.
        reset: gives back what is spent of a unit, or of all, for a uid; returns the document of the reset.
    """

    def __init__(
        self, status: Callable[[], dict[str, Any]], reset: Callable[[str | None, int], dict[str, Any]]
    ) -> None:
        self._status = status
        self._reset = reset
        self._reply: bytes | None = None
        """The reply about the status, since somebody asked for it."""

    def renew(self) -> None:
        """Drop the reply about the status, which is of an earlier tick: the next one who asks gets a new one."""
        self._reply = None

    def answer(self, message: bytes, uid: int) -> bytes:
        """Return the reply to a call of the user `uid`.

        Raises:
            MalformedMessageError: it is no call.
        """
        methods = {
            STATUS: self._answer_status,
            RESET: lambda parameters: self._answer_reset(parameters, uid),
        }
        return Service(_INFO, INTERFACE, DESCRIPTION, methods).answer(message)

    def _answer_status(self, parameters: Mapping[str, Any]) -> bytes:
        check_parameters(parameters)
        if self._reply is None:
            self._reply = reply_message({"status": self._status()})
        return self._reply

    def _answer_reset(self, parameters: Mapping[str, Any], uid: int) -> bytes:
        check_parameters(parameters, "unit")
        if uid not in (ROOT, os.geteuid()):
            whose = "root" if os.geteuid() == ROOT else f"root and uid {os.geteuid()}"
            raise CallError(PERMISSION_DENIED, message=f"only {whose} may reset this watch, not uid {uid}")
        unit = parameters.get("unit")
        if unit is not None and not (isinstance(unit, str) and is_unit_name(unit)):
            raise InvalidParameterError("unit")
        reply = reply_message(self._reset(unit, uid))
        self.renew()
        return reply


def unit_meant(unit: str | None, seen: Sample, file: PolicyFile, state: State) -> str | None:
    """Return the name of the unit that `unit` stands for, which may be an alias; None for all.

    Raises:
        CallError: no policy governs it, and nothing is kept about it.
    """
    names = {name: each.name for each in seen.units.values() for name in each.unit.names}
    if unit is None or unit in names:
        return names.get(unit or "")
    if any(policy.governs(Unit(unit)) for policy in file.policies) or has_kept(state, unit):
        return unit
    raise CallError(
        NO_SUCH_UNIT, message=f"no policy of this watch governs {unit}, and nothing is kept about it"
    )
