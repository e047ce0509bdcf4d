"""Serving metrics over HTTP; formats, compression and filters are those of the official Prometheus client library.

One thread answers one request after another, in the order in which they arrive. Silent connections delay no
others, as long as there are fewer than `AT_ONCE`; a slow one delays them by `REQUEST_TIMEOUT` at most; and no more
than `PER_SECOND` requests are answered a second. None of them delays a tick. The library's own server isn't used,
since it has a thread for each connection, without a limit.
"""

from __future__ import annotations

import io
import select
import signal
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from unitmem.tell.openmetrics import FAMILIES, Family, Page, Point

REQUEST_TIMEOUT = 5.0
"""Seconds for a request to arrive, and for its answer to be read."""
AT_ONCE = 32
"""The most connections at a time; others wait to be accepted."""
PER_SECOND = 20


class Listener:
    """A listener that serves a page at an address until it is closed.

    Args:
        host: a numeric address.
        port: a TCP port; 0 is any that is free.
        page: returns the page to serve; called in the listener's thread.

    Raises:
        OSError: the address can't be listened on, or no thread can be started.
    """

    def __init__(self, host: str, port: int, page: Callable[[], Page]) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Pages(page))
        self._server = _Server(host, port)
        self._server.set_app(make_wsgi_app(registry))
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._server.server_close()
            raise OSError("no thread can be started for it") from None

    def close(self) -> None:
        """Stop listening, without waiting for a request that is being answered."""
        self._server.is_closing = True
        # the socket's end wakes the thread; it is a daemon's, for which no exit waits
        self._server.shut_down()

    def _run(self) -> None:
        # they are the loop's, which they wake
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._server.serve()


def as_metrics(page: Page) -> Iterator[Metric]:
    """Yield the metrics of `page` as objects of the client library."""
    for family, points in page.items():
        yield _metric(family, points)


class _Pages(Collector):
    """The collector that the client library calls at each request."""

    def __init__(self, page: Callable[[], Page]) -> None:
        self._page = page

    def collect(self) -> Iterable[Metric]:
        return as_metrics(self._page())

    def describe(self) -> Iterable[Metric]:
        # by which it knows what `?name[]=` may mean
        return [_metric(family, ()) for family in FAMILIES]


def _metric(family: Family, points: Iterable[Point]) -> Metric:
    metric = Metric(family.name, family.meaning, str(family.kind), family.unit)
    for labels, value, suffix in points:
        metric.add_sample(family.metric + suffix, dict(labels), value)
    return metric


class _Server(WSGIServer):
    """A server that answers one request at a time."""

    allow_reuse_port = False
    is_closing = False

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # not HTTPServer's, which looks the host's name up, wherever that may lead
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def serve(self) -> None:
        """Answer requests until the socket is shut down, and close the connections."""
        silent: dict[socket.socket, float] = {}  # clients, and until when they may be
        while not self.is_closing:
            listener = [self.socket] if len(silent) < AT_ONCE else []
            readable = _readable([*listener, *silent], min(silent.values(), default=None))
            # now rather than later: who asks while another is answered has not been silent
            now = time.monotonic()
            for client in [one for one, end in silent.items() if end <= now and one not in readable]:
                del silent[client]
                self.shutdown_request(client)
            for ready in readable:
                if ready is self.socket:
                    self._let_in(silent)
                else:
                    del silent[ready]
                    self._answer(ready)
        for client in silent:
            self.shutdown_request(client)
        self.server_close()

    def _let_in(self, silent: dict[socket.socket, float]) -> None:
        try:
            client, _ = self.get_request()
        except OSError:
            # out of descriptors, say: what waits will wait
            time.sleep(1 / PER_SECOND)
        else:
            silent[client] = time.monotonic() + REQUEST_TIMEOUT

    def _answer(self, client: socket.socket) -> None:
        try:
            self.finish_request(client, client.getpeername())
        except Exception:  # noqa: BLE001, S110 - a client that goes away, or sends what is no HTTP, is its own affair
            pass
        finally:
            self.shutdown_request(client)
        time.sleep(1 / PER_SECOND)

    def shut_down(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)


def _readable(connections: list[socket.socket], deadline: float | None) -> list[socket.socket]:
    """Return the connections that can be read or have ended; none if `deadline` passes before."""
    by_number = {connection.fileno(): connection for connection in connections}
    poll = select.poll()
    for number in by_number:
        poll.register(number, select.POLLIN)
    timeout = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
    return [by_number[number] for number, _ in poll.poll(timeout)]


class _Handler(WSGIRequestHandler):
    """The handler of one request, which has to arrive within `REQUEST_TIMEOUT`."""

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_DeadlineReader(self.connection, time.monotonic() + REQUEST_TIMEOUT))

    def get_stderr(self) -> TextIO:
        # where tracebacks of broken connections would go
        return io.StringIO()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing: requests for metrics don't belong in the journal."""


class _DeadlineReader(io.RawIOBase):
    """A reader of `connection` until `deadline`, however small the pieces that arrive."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)  # and as much again for the answer, as a whole
        return self._connection.recv_into(buffer)
