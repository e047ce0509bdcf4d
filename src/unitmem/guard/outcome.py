"""The values of a guard: its readings, the breach that it acts on, and its outcome."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from unitmem.kernel.process import Process
from unitmem.text import format_size, format_span


class GuardEnd(StrEnum):
    """The kinds of outcome of a guard."""

    KILLED = "killed"
    """The process was above the limit, was signalled, and has ended."""
    EXITED = "exited"
    """It ended without the guard."""
    FAILED = "failed"
    """It can't be guarded."""
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class GuardOutcome:
    """The outcome of a guard."""

    kind: GuardEnd
    reason: str
    """The reason as text, for a log."""
    signal: signal.Signals | None = None
    """The signal that was sent to it last, if any was."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


@dataclass(frozen=True, slots=True)
class GuardReading:
    """One reading of the memory that all guarded processes have together; in bytes."""

    at: float
    """The time of the reading, in seconds of `time.monotonic()`."""
    rss: int | None
    """The sum of RSS; None if it can't be read of each process."""
    pss: int | None
    """The sum of PSS; None where RSS shows that it is within the limit, or where it can't be read of any process."""
    processes: int
    """The number of living processes."""
    unknown: str | None
    """The reason why PSS or children of a process can't be read; `pss` is the sum of the others."""

    @classmethod
    def of(cls, processes: Sequence[Process], at: float) -> Self:
        """Return the sum over the processes, as they were read at that time."""
        rss = [process.rss for process in processes if process.rss is not None]
        pss = [process.pss for process in processes if process.pss is not None]
        unknown = [process for process in processes if process.unknown is not None]
        why = None
        if unknown:
            why = unknown[0].unknown if len(processes) == 1 else f"{unknown[0].label}: {unknown[0].unknown}"
            why = f"{why} (and of {len(unknown) - 1} more)" if len(unknown) > 1 else why
        return cls(
            at=at,
            rss=sum(rss) if len(rss) == len(processes) else None,
            pss=sum(pss) if pss else None,
            processes=len(processes),
            unknown=why,
        )


def is_within(limit: int, processes: Sequence[Process]) -> bool:
    """Return whether RSS alone shows that the PSS of the processes is within the limit."""
    bounds = [process.pss_at_most for process in processes]
    known = [bound for bound in bounds if bound is not None]
    return len(known) == len(bounds) and sum(known) <= limit


@dataclass(slots=True)
class Breach:
    """A PSS above the limit, and the signals that were sent because of it."""

    pss: int
    limit: int
    grace: float | None
    due: float
    """The time to send the next signal, or the same one again."""
    sent: signal.Signals | None = None
    sent_at: float = 0.0

    def __str__(self) -> str:
        """Return `PSS 1.4M > 1.0M`, in bytes where that would show no difference."""
        pss, limit = format_size(self.pss), format_size(self.limit)
        return f"PSS {pss} > {limit}" if pss != limit else f"PSS {self.pss} > {self.limit} bytes"

    def next_signal(self) -> signal.Signals:
        return signal.SIGTERM if self.grace is not None and self.sent is None else signal.SIGKILL

    def killed(self, sent: signal.Signals) -> GuardOutcome:
        """Return the outcome of a process that has ended, and that this signal was sent to last."""
        how = f"by {sent.name}"
        if sent is signal.SIGKILL and self.grace is not None:
            how += f", {format_span(self.grace)} after SIGTERM"
        return GuardOutcome(GuardEnd.KILLED, f"{self}; {how}", sent)
