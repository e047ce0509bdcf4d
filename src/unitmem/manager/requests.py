"""What the manager is asked to do: stop, signal, restart, freeze and set units, and run commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from pystemd.dbuslib import apply_signature, path_encode

from unitmem.errors import BusError, BusLostError, InvocationGoneError, NoSuchUnitError, RefusedError
from unitmem.manager.bus import INFINITY, MANAGER, MANAGER_PATH, UNIT, UNIT_PATH, NotFoundError
from unitmem.manager.dbus import INVALID, TIMED_OUT, hex_of, text_of, variants
from unitmem.manager.units import UnitReader

COMMAND_END_WAIT = 5.0
"""Seconds that a command has to end after its timeout, before SIGKILL."""


class UnitRequests(UnitReader):
    """A connection over which the manager is asked to do something to a run of a unit."""

    def stop_unit(self, name: str, invocation_id: str | None) -> None:
        """Queue a stop job, as `systemctl stop --no-block` does; the unit's own ExecStop and timeout apply.

        Args:
            name: the unit.
            invocation_id: the invocation that is meant: the manager refuses if another one runs by now. None means
                whatever runs under that name.

        Raises:
            InvocationGoneError: that run is over, or there is no such unit.
            RefusedError: refused for good, as by RefuseManualStop=, or as the unit file is gone.
            BusLostError: no answer.
            BusError: refused.
        """
        self._act(name, invocation_id, "Stop", "s", "replace")

    def kill_unit(self, name: str, invocation_id: str | None, whom: str, number: int) -> None:
        """Have the manager signal `whom` of the unit: `main`, `control` or `all`.

        Args:
            name: the unit.
            invocation_id: the run of it that is meant, as for `stop_unit`.
            whom: which processes.
            number: the signal.

        Raises:
            InvocationGoneError: that run is over, or there is no such unit.
            BusLostError: no answer.
            BusError: refused.
        """
        self._act(name, invocation_id, "Kill", "si", whom, number)

    def restart_unit(self, name: str, invocation_id: str | None) -> None:
        """Queue a restart job, as `systemctl restart --no-block` does.

        Args and errors are those of `stop_unit`.
        """
        self._act(name, invocation_id, "Restart", "s", "replace")

    def freeze_unit(self, name: str, invocation_id: str | None) -> None:
        """Freeze every process of the unit; return when the kernel is done, or the call has timed out.

        Args and errors are those of `stop_unit`.
        """
        self._act_in_kernel(name, invocation_id, "Freeze")

    def thaw_unit(self, name: str, invocation_id: str | None) -> None:
        """Thaw a frozen unit. Args and errors are those of `stop_unit`."""
        self._act_in_kernel(name, invocation_id, "Thaw")

    def _act_in_kernel(self, name: str, invocation_id: str | None, method: str) -> None:
        try:
            self._act(name, invocation_id, method)
        except BusLostError as error:
            # it answers when the kernel is done, which a unit that is short of memory keeps waiting
            if error.name not in TIMED_OUT:
                raise
            self.ping()

    def set_size_properties(
        self, name: str, sizes: Mapping[str, int | None], invocation_id: str | None = None
    ) -> None:
        """Set properties at run time, as `systemctl set-property --runtime` does; None is infinity.

        Args and errors are those of `stop_unit`; without an invocation, the unit is addressed by its name.
        """
        values = [(prop, "t", INFINITY if size is None else size) for prop, size in sizes.items()]
        if invocation_id is None:
            head = apply_signature(b"sb", [name.encode(), True])
            path, interface, method = MANAGER_PATH, MANAGER, "SetUnitProperties"
        else:
            head = apply_signature(b"b", [True])
            path, interface, method = _invocation_path(invocation_id), UNIT, "SetProperties"
        try:
            self._send(path, interface, method, [*head, *variants(values)])
        except NotFoundError as error:
            if error.name == INVALID:
                raise  # of a value that is out of range, and not of the unit
            raise InvocationGoneError(f"that run of {name} is over") from None

    def start_command(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], timeout: float
    ) -> None:
        """Start `command` as the transient service `name`, which gets SIGTERM after `timeout` seconds.

        SIGKILL follows `COMMAND_END_WAIT` seconds later. The unit stays loaded for `command_result`
        as long as this connection lives, and no longer, however it ends.

        Raises:
            BusLostError: no answer.
            BusError: refused.
        """
        arguments = [word.encode() for word in command]
        values = [
            ("Description", "s", f"Command of a memory policy ({name})".encode()),
            ("Type", "s", b"oneshot"),
            ("ExecStart", "a(sasb)", [(arguments[0], arguments, False)]),
            ("Environment", "as", [f"{key}={value}".encode() for key, value in environment.items()]),
            ("TimeoutStartUSec", "t", int(timeout * 1_000_000)),
            ("TimeoutStopUSec", "t", int(COMMAND_END_WAIT * 1_000_000)),
            ("AddRef", "b", True),
            ("CollectMode", "s", b"inactive-or-failed"),  # or each one that failed would be kept for good
        ]
        head = apply_signature(b"ss", [name.encode(), b"fail"])
        no_other_units = [(ord("a"), b"(sa(sv))"), (-1, None)]
        self._send(MANAGER_PATH, MANAGER, "StartTransientUnit", [*head, *variants(values), *no_other_units])

    def command_result(self, name: str) -> str | None:
        """Return Result= of a command that `start_command` started: `success`, `timeout`, …; None until it has ended.

        Then the unit is released, so that a result is returned only once.

        Raises:
            NoSuchUnitError: the unit is no longer loaded: the connection that started it is closed.
            BusLostError: no answer.
            BusError: refused.
        """
        with self._loaded(name) as path:
            if text_of(self._property(path, UNIT, "ActiveState", "s")) not in ("inactive", "failed"):
                return None
            # while its job waits to be run it looks like one that was successful
            if hex_of(self._property(path, UNIT, "InvocationID", "ay")) is None:
                return None
            result = text_of(self._property(path, b"org.freedesktop.systemd1.Service", "Result", "s"))
        with suppress(BusError):  # it is another connection's: the manager forgets it by itself
            self._call(path, UNIT, "Unref")
        return result

    def _act(
        self, name: str, invocation_id: str | None, method: str, signature: str = "", *values: str | int
    ) -> None:
        """Call `method` of that run, or of whatever runs under that name."""
        try:
            if invocation_id is None:
                self._call(MANAGER_PATH, MANAGER, f"{method}Unit", f"s{signature}", name, *values)
            else:
                self._call(_invocation_path(invocation_id), UNIT, method, signature, *values)
        except NotFoundError as error:
            if self._runs(name, invocation_id):  # so it is the unit file that isn't found
                raise RefusedError(error.words, None, error.name) from None
            raise InvocationGoneError(f"that run of {name} is over") from None

    def _runs(self, name: str, invocation_id: str | None) -> bool:
        """Return whether that run of the unit goes on."""
        try:
            unit = self.describe(name)
        except NoSuchUnitError:
            return False
        is_meant = invocation_id in (None, unit.invocation_id)
        return is_meant and unit.active_state not in ("inactive", "failed")


def _invocation_path(invocation_id: str) -> bytes:
    """Return an object path that refers to a unit only during that invocation (manager.c of systemd)."""
    return bytes(path_encode(UNIT_PATH, invocation_id.encode()))
