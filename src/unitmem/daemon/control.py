"""The control socket: clients are served between ticks, in rounds that take a tenth of the time at most.

In a round each client sends, or gets, as much as its socket takes at once, and one of its calls is answered. So none
of them delays a tick, whatever it sends or doesn't read.
"""

from __future__ import annotations

import os
import select
import selectors
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf
from pathlib import Path

from unitmem.tell.interface import SOCKET_NAME, address_of
from unitmem.tell.varlink import END, MAX_CALL, MalformedMessageError

AT_ONCE = 16
"""The most clients at a time; others wait to be accepted."""
PER_USER = 8
"""The most clients of one user; further ones are closed."""
RESERVED = 4
"""Clients that only root and the user of the watch may have, so that others don't keep them out."""
TIMEOUT = 10.0
"""Seconds for a call to arrive, and for its reply to be read."""
REST = 9
"""Clients wait this many times as long as the last round has used the CPU."""
LEAST_REST, MOST_REST = 0.01, 0.5
"""Seconds between two rounds."""
ACCEPT_AGAIN = 1.0
"""Seconds until clients are served again after one could not be accepted, for lack of descriptors, say."""

CREDENTIALS = struct.Struct("iII")


class Control:
    """The control socket of one watch, and its clients.

    Args:
        directory: where the socket is made; None: there is none.
        selector: wakes the loop when a client wants something.
        answer: returns the reply to a call of a client with that uid; raises `MalformedMessageError`.
        clock: seconds of a monotonic clock.
        work: the seconds for which this thread has used the CPU.
    """

    def __init__(
        self,
        directory: Path | None,
        selector: selectors.BaseSelector,
        answer: Callable[[bytes, int], bytes],
        clock: Callable[[], float],
        work: Callable[[], float] = time.thread_time,
    ) -> None:
        self._path = None if directory is None else directory / SOCKET_NAME
        self._wakes = selector
        self._answer = answer
        self._clock = clock
        self._work = work
        self._ready = selectors.EpollSelector()
        self._listener: socket.socket | None = None
        self._clients: set[_Client] = set()
        self._resting_until: float | None = None
        selector.register(self, selectors.EVENT_READ)

    def fileno(self) -> int:
        """Return the descriptor that is readable when a client wants something."""
        return self._ready.fileno()

    @property
    def due(self) -> float:
        """The time at which to call `serve`, even if no client wants anything."""
        if self._resting_until is not None:
            return self._resting_until
        return min((client.deadline for client in self._clients), default=inf)

    def mark(self) -> None:
        """Set the socket's times, which tell clients of the last tick; listen where the socket is missing.

        Raises:
            OSError: it can't be made.
        """
        if self._path is None:
            return
        if self._listener is not None:
            try:
                os.utime(self._path)
            except FileNotFoundError:
                self._stop_listening()
        if self._listener is None:
            self._listen(self._path)

    def serve(self) -> None:
        """Serve the clients that want something, unless they have to wait, and close those that take too long."""
        began, worked = self._clock(), self._work()
        if self._resting_until is not None:
            if began < self._resting_until:
                return
            self._resting_until = None
            self._wakes.register(self, selectors.EVENT_READ)
        ready = self._ready.select(0)
        clients = [key.data for key, _ in ready if key.data is not None]
        for client in clients:
            self._serve(client, began)
        if len(clients) < len(ready):
            for client in self._accept(began):
                self._serve(client, began)
        for client in [client for client in self._clients if client.deadline <= began]:
            self._close(client)
        if ready:
            took = self._work() - worked  # a disk that a reset waits for is nobody's work
            self._rest(self._clock() + min(MOST_REST, max(LEAST_REST, REST * took)))

    def close(self) -> None:
        """Close everything, and remove the socket."""
        if self._resting_until is None:
            self._wakes.unregister(self)
        for client in list(self._clients):
            self._close(client)
        if self._listener is not None and self._path is not None:
            self._stop_listening()
            self._path.unlink(missing_ok=True)
        self._ready.close()

    def _listen(self, path: Path) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            path.unlink(missing_ok=True)  # of a watch that was killed
            with address_of(path) as address:
                listener.bind(address)
            path.chmod(0o666)  # whoever may connect is seen by its credentials
            listener.listen(AT_ONCE)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        if len(self._clients) < AT_ONCE:
            self._ready.register(listener, selectors.EVENT_READ)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            with suppress(KeyError):
                self._ready.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _rest(self, until: float) -> None:
        if self._resting_until is None:
            self._wakes.unregister(self)
        self._resting_until = max(until, self._resting_until or 0.0)

    def _accept(self, now: float) -> list[_Client]:
        """Accept the clients that wait, and return them; let further ones wait while there are too many."""
        accepted: list[_Client] = []
        assert self._listener is not None  # noqa: S101 - it is what is ready
        for _ in range(AT_ONCE):
            if len(self._clients) >= AT_ONCE:
                self._ready.unregister(self._listener)
                break
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                break
            except OSError:
                self._rest(now + ACCEPT_AGAIN)
                break
            connection.setblocking(False)
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
            _, uid, _ = CREDENTIALS.unpack(credentials)
            if not self._has_room(uid):
                connection.close()
                continue
            client = _Client(connection, uid, now + TIMEOUT)
            self._clients.add(client)
            self._ready.register(connection, selectors.EVENT_READ, client)
            accepted.append(client)
        return accepted

    def _has_room(self, uid: int) -> bool:
        owners = (0, os.geteuid())
        others = sum(client.uid not in owners for client in self._clients)
        of_user = sum(client.uid == uid for client in self._clients)
        return of_user < PER_USER and (uid in owners or others < AT_ONCE - RESERVED)

    def _serve(self, client: _Client, now: float) -> None:
        """Receive from `client`, answer one call, and send; close it at its end, and if it sends what is no call."""
        try:
            if not client.unsent and (call := client.next_call()) is not None:
                if client.is_gone():  # it has said by now that this was not done
                    raise ConnectionResetError
                client.unsent = memoryview(self._answer(call, client.uid))
                client.deadline = now + TIMEOUT
            if client.unsent:
                client.unsent = client.unsent[client.connection.send(client.unsent) :]
        except BlockingIOError:
            pass
        except (OSError, MalformedMessageError):
            self._close(client)
            return
        waits_for_us = client.unsent or END in client.received
        events = selectors.EVENT_WRITE if waits_for_us else selectors.EVENT_READ
        self._ready.modify(client.connection, events, client)

    def _close(self, client: _Client) -> None:
        self._ready.unregister(client.connection)
        client.connection.close()
        self._clients.discard(client)
        if self._listener is not None and self._listener not in self._ready.get_map():
            self._ready.register(self._listener, selectors.EVENT_READ)


class _Client:
    """A connected client."""

    def __init__(self, connection: socket.socket, uid: int, deadline: float) -> None:
        self.connection = connection
        self.uid = uid
        self.deadline = deadline
        """When it is closed, unless a call of it is answered before."""
        self.received = b""
        self.unsent = memoryview(b"")
        """What it has not taken of a reply; until then, nothing more is received."""

    def is_gone(self) -> bool:
        """Return whether it has closed the connection; one that only sends nothing more waits for its reply."""
        poll = select.poll()
        poll.register(self.connection, 0)
        return bool(poll.poll(0))

    def next_call(self) -> bytes | None:
        """Return the next call, without its NUL; None where it has not arrived as a whole.

        Raises:
            OSError: it is gone, or nothing arrives now (BlockingIOError).
            MalformedMessageError: the call is too long.
        """
        if END not in self.received:
            data = self.connection.recv(MAX_CALL + 1 - len(self.received))
            if not data:
                raise ConnectionResetError
            self.received += data
        call, end, rest = self.received.partition(END)
        if end:
            self.received = rest
            return call
        if len(self.received) > MAX_CALL:
            raise MalformedMessageError("too long")
        return None
