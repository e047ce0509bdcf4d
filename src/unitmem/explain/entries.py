"""Journal entries as `journalctl --output=json` writes them: their fields, senders, and messages without fields.

Any program may log anything, also with a MESSAGE_ID: the sender is known only by the fields that journald itself
adds, whose names begin with an underscore (systemd.journal-fields(7)).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from unitmem.policy.journal_fields import DECISION_MESSAGE_ID, OUTCOME_MESSAGE_ID
from unitmem.text import printable
from unitmem.unit import is_unit_name, is_within, unit_kind

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


GUARDS = {
    "earlyoom.service": "earlyoom",
    "nohang.service": "nohang",
    "nohang-desktop.service": "nohang",
}
"""Services of other userspace OOM killers that signal single processes, and the names of these."""

# --- whose word it is --------------------------------------------------------------------------


def is_from_kernel(entry: Mapping[str, object]) -> bool:
    """Return whether the kernel itself wrote the entry: what root writes to /dev/kmsg has another facility."""
    return text(entry, "_TRANSPORT") == "kernel" and text(entry, "SYSLOG_FACILITY") in ("0", None)


def is_from_oomd(entry: Mapping[str, object]) -> bool:
    """Return whether systemd-oomd wrote the entry."""
    return text(entry, "_SYSTEMD_UNIT") == "systemd-oomd.service"


def guard_of(entry: Mapping[str, object]) -> str | None:
    """Return the name of the other userspace OOM killer whose service wrote the entry; None if none did."""
    return GUARDS.get(text(entry, "_SYSTEMD_UNIT") or "")


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
# SysRq asks for memory of the order -1, which nothing else does (is_sysrq_oom() in mm/oom_kill.c)
_INVOKED = re.compile(r".* invoked oom-killer: gfp_mask=.*, order=(-?\d+), .*", re.DOTALL)
_SYSRQ = re.compile(r"sysrq: (?:SysRq : )?Manual OOM execution\s*")
# kill.c of earlyoom 1.3 to 1.8
_EARLYOOM = re.compile(
    r'sending (?P<signal>SIG[A-Z]+) to process (?P<pid>\d+) (?:uid \d+ )?"(?P<name>.*)": '
    r"(?:badness|oom_score) -?\d+, .*",
    re.DOTALL,
)
# nohang 0.2, which prints the victim first, a line each
_NOHANG_VICTIM = re.compile(r"\s*PID: +(?P<pid>\d+), name: (?P<name>.*), state: .*", re.DOTALL)
_NOHANG_CGROUP = re.compile(r"\s*cgroup_v2: (?P<cgroup>/.*)", re.DOTALL)
_NOHANG_SIGNAL = re.compile(r"\s*Sending (?P<signal>SIG[A-Z]+) to the victim\s*")
_DRY_RUN = re.compile(r"dryrun, not actually sending any signal\s*")
_GUARD_LINES = (_DRY_RUN, _EARLYOOM, _NOHANG_VICTIM, _NOHANG_CGROUP, _NOHANG_SIGNAL)
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


def parse_invoked(message: str) -> bool | None:
    """Return whether somebody has run the OOM killer by SysRq, as the kernel's first lines about a kill say.

    None for any other message. The lines that follow are the same as where the machine is out of memory.
    """
    if _SYSRQ.fullmatch(message):
        return True
    match = _INVOKED.fullmatch(message)
    return None if match is None else int(match[1]) < 0


@dataclass(frozen=True, slots=True)
class GuardLine:
    """A line of another userspace OOM killer about a victim; each has a part of these."""

    signal: str | None = None
    """The signal that it sends now."""
    victim: str | None = None
    """`pid 77 (web)`"""
    cgroup: str | None = None


def parse_guard_line(message: str) -> GuardLine | None:
    """Parse a line of earlyoom or nohang about a victim; None for any other message.

    One without any part takes back the signal in the line before: a dry run.
    """
    for pattern in _GUARD_LINES:
        if (match := pattern.fullmatch(message)) is not None:
            part = match.groupdict()
            victim = f"pid {part['pid']} ({printable(part['name'])})" if "pid" in part else None
            return GuardLine(part.get("signal"), victim, part.get("cgroup"))
    return None


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


def oom_reason(oom: OomLine, unit: str, *, is_by_sysrq: bool) -> str:
    """Return the reason of a kill in `unit`, as a clause; `is_by_sysrq` is what `parse_invoked` returned before."""
    match oom.constraint, oom.limited:
        case "NONE", _ if is_by_sysrq:
            return "somebody ran the OOM killer by SysRq"
        case "NONE", _:
            return "the whole machine was out of memory"
        case "MEMCG", None:
            return "a cgroup's limit (memory.max) was reached"
        case "MEMCG", str(limited):
            own = next(
                (p for p in _ancestors(oom.cgroup) if p.rpartition("/")[2].removeprefix("_") == unit), None
            )
            if limited == own:
                return "its own limit (memory.max) was reached"
            inside = own is not None and is_within(limited, own)
            # above the unit everything is systemd's, and called by its last name
            whose = printable(limited if inside else limited.rpartition("/")[2])
            return f"the limit (memory.max) of {whose} was reached"
        case constraint, _:
            return f"there was no memory left where it may allocate ({constraint.lower().replace('_', ' ')})"


def _ancestors(path: str) -> Iterator[str]:
    """Yield `/a`, `/a/b`, … down to `path` itself."""
    names = [name for name in path.split("/") if name]
    for count in range(1, len(names) + 1):
        yield "/" + "/".join(names[:count])
