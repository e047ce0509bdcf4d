"""Journal entries as `journalctl --output=json` writes them: their fields, senders, and messages without fields.

Any program may log anything, also with a MESSAGE_ID: the sender is known only by the fields that journald itself
adds, whose names begin with an underscore (systemd.journal-fields(7)).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from unitmem.policy.journal_fields import DECISION_MESSAGE_ID, OUTCOME_MESSAGE_ID
from unitmem.unit import is_unit_name, unit_kind

# --- fields ------------------------------------------------------------------------------------


def text(entry: Mapping[str, object], name: str) -> str | None:
    """Return the field's text; None where it is missing, empty, or has several different values."""
    found = values(entry, name)
    return found.pop() if len(found) == 1 else None


def values(entry: Mapping[str, object], name: str) -> set[str]:
    """Return every value of a field, which may have several."""
    value = entry.get(name)
    # numbers are the bytes of one value
    several = isinstance(value, list) and not all(isinstance(part, int) for part in value)
    decoded = map(_decoded, value) if isinstance(value, list) and several else [_decoded(value)]
    return {part for part in decoded if part is not None}


def _decoded(value: object) -> str | None:
    if isinstance(value, str):
        return value or None
    if isinstance(value, list) and all(isinstance(part, int) and 0 <= part < 256 for part in value):
        return bytes(value).decode(errors="replace") or None
    return None


def number(entry: Mapping[str, object], name: str) -> int | None:
    """Return the number at the start of the field: `9` of `9` and of `9/KILL`."""
    match = re.match(r"\d{1,18}", text(entry, name) or "", re.ASCII)
    return int(match[0]) if match else None


# --- whose word it is --------------------------------------------------------------------------


def is_from_kernel(entry: Mapping[str, object]) -> bool:
    """Return whether the kernel itself wrote the entry: what root writes to /dev/kmsg has another facility."""
    return text(entry, "_TRANSPORT") == "kernel" and text(entry, "SYSLOG_FACILITY") in ("0", None)


def is_from_oomd(entry: Mapping[str, object]) -> bool:
    """Return whether systemd-oomd wrote the entry."""
    return text(entry, "_SYSTEMD_UNIT") == "systemd-oomd.service"


def is_from_manager(entry: Mapping[str, object], uid: int | None = None) -> bool:
    """Return whether PID 1 wrote the entry; with `uid`, whether that user's manager did."""
    if uid is None:
        return text(entry, "_PID") == "1"
    return text(entry, "_UID") == str(uid) and text(entry, "_SYSTEMD_USER_UNIT") == "init.scope"


def is_from_unitmem(entry: Mapping[str, object], uid: int | None = None) -> bool:
    """Return whether the entry is a decision or an outcome of a unitmem that root runs; with `uid`, that user."""
    return text(entry, "MESSAGE_ID") in (DECISION_MESSAGE_ID, OUTCOME_MESSAGE_ID) and text(
        entry, "_UID"
    ) == str(uid or 0)


# --- parsers -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OomLine:
    """The kernel's `oom-kill:` line: which process it kills, and why."""

    constraint: str
    """`MEMCG` where a cgroup's limit was reached, `NONE` where the machine was out of memory."""
    limited: str | None
    """The cgroup whose limit was reached."""
    cgroup: str
    pid: int
    name: str


_OOM_KILL = re.compile(
    r"oom-kill:constraint=CONSTRAINT_(?P<constraint>[A-Z_]+),.*?"
    r"(?:,oom_memcg=(?P<limited>/.*)|,global_oom),task_memcg=(?P<cgroup>/.*),"
    r"task=(?P<name>.*),pid=(?P<pid>\d+),uid=\d+\s*",
    re.DOTALL,
)
_KILLED = re.compile(
    r"(?:Memory cgroup out|Out) of memory[^:]*: Killed process (\d+) \(.*\) "
    r"total-vm:\d+kB, anon-rss:(\d+)kB",
    re.DOTALL,
)
# 257 and before say Killed, later ones may say Marked … for killing
_OOMD_KILL = re.compile(
    r"(?:Killed (?P<killed>/.*?)|Marked (?P<marked>/.*?) for killing)"
    r" due to (?P<why>memory (?:used|pressure) .*)",
    re.DOTALL,
)
# Sending is said before, and only of processes that are neither main nor control process
_SIGNAL_REQUEST = re.compile(r"(?:Sent|Sending) signal (SIG[A-Z0-9+-]+) to .* on client request\.", re.DOTALL)
# which say more than the result `timeout` does; timeouts of stopping are not meant, since what they tell is known
_TIMEOUT = re.compile(
    r"(?:Start|start).* timed out\. .*|[A-Z][a-z]+ reached runtime time limit\. .*", re.DOTALL
)


def parse_oom_kill(message: str) -> OomLine | None:
    """Parse the kernel's `oom-kill:` line; None for any other message, and for an ambiguous one.

    Names of processes and, below a delegated unit, of cgroups are chosen by their owners, and may contain commas.
    """
    match = _OOM_KILL.fullmatch(message)
    if match is None or any(message.count(key) > 1 for key in (",task_memcg=", ",oom_memcg=", ",task=")):
        return None
    return OomLine(match["constraint"], match["limited"], match["cgroup"], int(match["pid"]), match["name"])


def parse_killed(message: str) -> tuple[int, int] | None:
    """Return (pid, bytes of anonymous memory) of the kernel's `Killed process` line; None for any other message."""
    match = _KILLED.match(message)
    return (int(match[1]), int(match[2]) * 1024) if match else None


def parse_oomd_kill(message: str) -> tuple[str, str] | None:
    """Return (cgroup, reason) of a kill by systemd-oomd; None for any other message."""
    match = _OOMD_KILL.fullmatch(message)
    return (match["killed"] or match["marked"], match["why"]) if match else None


def parse_signal_request(message: str, unit: str) -> str | None:
    """Return the name of the signal that `systemctl kill` sent to a process of `unit`; None for any other message."""
    match = _SIGNAL_REQUEST.fullmatch(message.removeprefix(f"{unit}: "))
    return match[1] if match else None


def parse_timeout(message: str, unit: str) -> str | None:
    """Return the manager's message that `unit` exceeded its start or runtime limit; None for any other message."""
    said = message.removeprefix(f"{unit}: ")
    return said if _TIMEOUT.fullmatch(said) else None


def unit_of_cgroup(path: str, uid: int | None = None) -> str | None:
    """Return the unit that the cgroup `path` belongs to, by systemd's own rule; None if there is none.

    It is the first that is not a slice: whatever is below belongs to that unit, and may be named like a unit of the
    machine (a container's `system.slice/ssh.service`). With `uid`, it is the unit of that user's manager.
    """
    names = [name.removeprefix("_") for name in path.split("/") if name]  # cg_escape() puts the underscore
    if uid is not None:
        manager = f"user@{uid}.service"
        if manager not in names or unit_of_cgroup(path) != manager:
            return None
        names = names[names.index(manager) + 1 :]
    found = None
    for name in names:
        if not is_unit_name(name):
            break
        found = name
        if unit_kind(name) != "slice":
            break
    return found
