"""Publishing a watch's metrics: in a file for node_exporter's textfile collector, and over HTTP.

Neither may delay ticks. The loop writes the file, but seldom; HTTP is served by a thread of its own (see
`listener`) with the values of the last tick, and a page is rendered only on request. Errors are logged once and
retried, and the watch goes on.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from unitmem.errors import UsageError, reason_of
from unitmem.kernel.process import ProcessGoneError, read_process, with_pss
from unitmem.measure.sample import Sample
from unitmem.policy.decision import Decision, Outcome
from unitmem.policy.model import PolicyFile
from unitmem.policy.state import State
from unitmem.record.files import replace_file
from unitmem.tell.journal import Entry
from unitmem.tell.once import Once
from unitmem.tell.openmetrics import (
    Cost,
    Counts,
    Format,
    Page,
    Seen,
    TickTimes,
    count_decision,
    count_outcome,
    forget_missing,
    page,
    render,
)

if TYPE_CHECKING:
    from unitmem.tell.listener import Listener


WRITE_EVERY = 10.0
"""Seconds between two writes of the file: Prometheus seldom scrapes more often than every 15 s."""
LISTEN_AGAIN = 30.0
"""Seconds until an address that can't be listened on is tried again."""


@dataclass(frozen=True, slots=True)
class Address:
    """An address to listen on; numeric, since a name would need the network."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Parse `9797`, `127.0.0.1:9797` or `[::1]:9797`; a port alone is on the loopback.

    Raises:
        UsageError: it is not an address.
    """
    host, colon, port = text.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if is_bracketed else host
    if not colon:
        host = "127.0.0.1"
    number = int(port) if port.isascii() and port.isdecimal() and len(port) <= 5 else 0
    if not 0 < number < 1 << 16 or not _is_numeric(host, is_bracketed=is_bracketed):
        # `:9797` as well: with others it means every address of the machine
        raise UsageError(
            f"{text!r} is not PORT or ADDRESS:PORT",
            hint="write a port (9797), which is on 127.0.0.1, or ADDRESS:PORT (192.0.2.7:9797, [::1]:9797)",
        )
    return Address(host, number)


def _is_numeric(host: str, *, is_bracketed: bool) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6 if is_bracketed else socket.AF_INET, host)
    except (OSError, ValueError):
        return False
    return True


def format_of(path: Path) -> Format:
    """Return the format for the file `path`: that of the textfile collector if it ends with `.prom`."""
    return Format.TEXT if path.suffix == ".prom" else Format.OPENMETRICS


class Exporter:
    """The metrics of one watch, and their publication.

    Args:
        watch: its name.
        textfile: the file, replaced as a whole each time.
        listen: the address for HTTP, as `parse_address` takes it.
        keep: whether the file stays when the watch ends; its values would then look current for ever.
        version: of unitmem.
    """

    def __init__(
        self,
        watch: str,
        textfile: Path | None = None,
        listen: str | None = None,
        *,
        keep: bool = False,
        version: str = "",
    ) -> None:
        self._version = version
        self._watch = _printable(watch)
        self._textfile = textfile
        self._listen = listen
        self._keep = keep
        self._counts: Counts = {}
        self._ticks = TickTimes()
        self._started = time.time()
        self._seen: Seen | None = None
        self._write_at = 0.0
        self._listen_at = 0.0
        self._listener: Listener | None = None
        self._once = Once()

    def close(self) -> None:
        """Stop listening, and remove the file, or write it a last time."""
        if self._listener is not None:
            self._listener.close()
        if self._textfile is not None:
            with suppress(OSError):
                if self._keep:
                    self._write(self._textfile)
                else:
                    self._textfile.unlink()

    def decided(self, decision: Decision) -> None:
        self._counts = count_decision(self._counts, decision)

    def concluded(self, outcome: Outcome) -> None:
        self._counts = count_outcome(self._counts, outcome)

    def publish(
        self,
        file: PolicyFile,
        sample: Sample,
        state: State,
        *,
        took: float,
        missed: int,
        is_manager_reachable: bool,
        is_file_loaded: bool,
        under_way: int,
        to_set_back: int,
    ) -> Collection[Entry]:
        """Take the values of a tick, and write or listen if that is due; return new errors, and the ends of errors.

        Args:
            file: the policies in force.
            sample: what was read.
            state: the engine's state.
            took: seconds that the tick took.
            missed: ticks skipped since the start.
            is_manager_reachable: whether the service manager can be asked.
            is_file_loaded: whether the file could be loaded when it was last read.
            under_way: the number of actions under way.
            to_set_back: the number of properties to set back.
        """
        self._ticks = replace(self._ticks.after(took), missed=missed)
        self._counts = forget_missing(self._counts, sample.units)
        self._seen = Seen(
            watch=self._watch,
            version=self._version,
            file=file,
            sample=sample,
            state=state,
            counts=self._counts,
            ticks=self._ticks,
            started=self._started,
            ticked=time.time(),
            is_manager_reachable=is_manager_reachable,
            is_file_loaded=is_file_loaded,
            under_way=under_way,
            to_set_back=to_set_back,
        )
        news = self._write_if_due(sample.at), self._listen_if_due(sample.at)
        return [entry for entry in news if entry is not None]

    def current(self) -> Page:
        """Return the page of the last tick, with the watch's own cost now."""
        return {} if self._seen is None else page(self._seen, own_cost())

    def _write_if_due(self, now: float) -> Entry | None:
        """Write the text file if it is due; return an error the first time it occurs, and the end of it."""
        if self._textfile is None or now < self._write_at:
            return None
        self._write_at = now + WRITE_EVERY
        trouble = None
        try:
            self._write(self._textfile)
        except OSError as error:
            trouble = f"metrics can't be written to {self._textfile}, {_AGAIN}: {reason_of(error)}"
        return self._once.news("file", trouble, f"metrics are written to {self._textfile} again", now=now)

    def _listen_if_due(self, now: float) -> Entry | None:
        """Open the HTTP listener if it is due; return an error the first time it occurs, and the end of it."""
        if self._listen is None or self._listener is not None or now < self._listen_at:
            return None
        self._listen_at = now + LISTEN_AGAIN
        trouble = None
        try:
            self._listener = self._start(self._listen)
        except ImportError:
            trouble = (
                f"metrics are not served on {self._listen}: prometheus-client is not installed: "
                "install python3-prometheus-client, or use --textfile instead"
            )
        except UsageError as error:
            # of the service's environment, say: no reason to let units go unguarded
            trouble = f"metrics are not served: {error}: {error.hint}"
        except OSError as error:
            trouble = f"metrics can't be served on {self._listen}, {_AGAIN}: {reason_of(error)}"
        return self._once.news("listener", trouble, f"metrics are served on {self._listen} now", now=now)

    def _write(self, path: Path) -> None:
        replace_file(path, render(self.current(), format_of(path)), durable=False, mode=0o644)

    def _start(self, listen: str) -> Listener:
        address = parse_address(listen)
        from unitmem.tell.listener import Listener  # noqa: PLC0415 - 8 MiB of memory

        return Listener(address.host, address.port, self.current)


_AGAIN = "which is retried (see METRICS in unitmem@.service(8))"


def own_cost() -> Cost:
    """Return the CPU time and memory of this process."""
    cpu = time.process_time()
    try:
        process = with_pss(read_process(os.getpid()))
    except ProcessGoneError:  # another /proc than ours
        return Cost(cpu)
    return Cost(cpu, process.rss, process.pss)


def _printable(name: str) -> str:
    r"""Return `name` as a label's value: bytes that aren't UTF-8 are written `\xff`."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
