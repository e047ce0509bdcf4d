"""Reading the journal's entries about a unit through journalctl(1).

For the command line only: the daemon never reads the journal, nor waits for a process that does.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping

from unitmem.errors import UnitmemError
from unitmem.explain.entries import (
    GUARDS,
    guard_of,
    is_from_kernel,
    is_from_oomd,
    parse_guard_line,
    parse_invoked,
    parse_killed,
    parse_oom_kill,
    parse_oomd_kill,
    text,
    unit_of_cgroup,
)
from unitmem.policy.journal_fields import (
    ACTION_FIELD,
    DECIDED_FIELD,
    DECISION_MESSAGE_ID,
    INVOCATION_FIELD,
    OBJECT_FIELDS,
    OUTCOME_MESSAGE_ID,
    POLICY_FIELD,
    RESULT_FIELD,
    STEP_FIELD,
    UNIT_FIELD,
)

#: What `ending.attribute` looks at; journalctl adds the cursor, the times and the boot.
FIELDS = (
    *("MESSAGE", "MESSAGE_ID", "SYSLOG_FACILITY", "_TRANSPORT", "_PID", "_UID"),
    *("_SYSTEMD_UNIT", "_SYSTEMD_USER_UNIT"),
    *("UNIT", "INVOCATION_ID", "USER_UNIT", "USER_INVOCATION_ID"),
    *("UNIT_RESULT", "JOB_TYPE", "COMMAND", "EXIT_CODE", "EXIT_STATUS"),
    *(UNIT_FIELD, ACTION_FIELD, RESULT_FIELD, POLICY_FIELD, STEP_FIELD, DECIDED_FIELD),
    *(*OBJECT_FIELDS.values(), INVOCATION_FIELD),
)
_HINT = "run it as root, or as a member of the group systemd-journal"


def read_entries(unit: str, since: float, *, user: bool = False) -> Iterator[dict[str, object]]:
    """Yield the entries about `unit`, oldest first, of its manager, unitmem, the kernel's OOM killer and systemd-oomd.

    And those of other guards about any process, since few of them name a unit.

    Args:
        unit: its full name.
        since: seconds since the epoch.
        user: whether it is a unit of the calling user's own manager.

    Raises:
        UnitmemError: journalctl is missing, or failed; or the system's journal may not be read, which is known
            only after the readable part was yielded.
    """
    uid = os.getuid() if user else None
    victims: set[int] = set()
    for line in _run(command(unit, since, uid), partial=user):
        entry = parse_entry(line)
        if entry is not None and is_about(entry, unit, uid, victims):
            yield entry


def command(unit: str, since: float, uid: int | None) -> list[str]:
    """Return the journalctl command line; all terms of a group must match, and one group is enough."""
    own = [
        f"{UNIT_FIELD}={unit}",
        f"MESSAGE_ID={DECISION_MESSAGE_ID}",
        f"MESSAGE_ID={OUTCOME_MESSAGE_ID}",
    ]
    manager = [f"UNIT={unit}", "_PID=1"] if uid is None else [f"USER_UNIT={unit}", f"_UID={uid}"]
    groups = [
        manager,
        [*own, f"_UID={uid or 0}"],
        # their lines about a kill have no MESSAGE_ID
        [f"_SYSTEMD_UNIT={service}" for service in ("systemd-oomd.service", *GUARDS)],
        ["_TRANSPORT=kernel"],
    ]
    terms: list[str] = []
    for group in groups:
        terms += ["+", *group] if terms else group
    return [
        *("journalctl", "--output=json", "--all", "--no-pager"),
        f"--output-fields={','.join(FIELDS)}",
        f"--since=@{since:.6f}",
        *terms,
    ]


def parse_entry(line: bytes) -> dict[str, object] | None:
    """Parse one line of `journalctl --output=json`; None for any other line, such as a hint or a truncated entry."""
    try:
        entry = json.loads(line)
    except ValueError:  # of bad UTF-8 too
        return None
    return entry if isinstance(entry, dict) else None


def is_about(entry: Mapping[str, object], unit: str, uid: int | None, victims: set[int]) -> bool:
    """Return whether an entry from `command` is about `unit`, which its terms alone can't ensure.

    Args:
        entry: the entry.
        unit: the unit in question.
        uid: of the user whose manager's unit it is; None for the system's.
        victims: pids of the unit that the kernel has chosen to kill, to be passed with each entry, since the
            kernel's next line has only the pid.
    """
    message = text(entry, "MESSAGE") or ""
    if is_from_kernel(entry):
        if (killed := parse_killed(message)) is not None:
            return killed[0] in victims
        if parse_invoked(message) is not None:
            return True
        oom = parse_oom_kill(message)
        if oom is None:
            return False
        if unit_of_cgroup(oom.cgroup, uid) != unit:
            victims.discard(oom.pid)
            return False
        victims.add(oom.pid)
        return True
    if text(entry, "_TRANSPORT") == "kernel":
        return False
    if guard_of(entry) is not None:
        return parse_guard_line(message) is not None
    if is_from_oomd(entry):
        killed_cgroup = parse_oomd_kill(message)
        return killed_cgroup is not None and unit_of_cgroup(killed_cgroup[0], uid) == unit
    return True


def _run(arguments: list[str], *, partial: bool) -> Iterator[bytes]:
    """Yield the lines that journalctl prints; with `partial`, it need not be allowed to read all of the journal."""
    # a file takes whatever it says; a pipe that nobody reads would fill, and hold it up
    with tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints
            )
        except FileNotFoundError:
            raise UnitmemError(
                "journalctl is not installed, so the journal can't be read",
                hint="it comes with systemd",
            ) from None
        except PermissionError:
            raise UnitmemError("journalctl may not be run by this user", hint=_HINT) from None
        with process:
            assert process.stdout is not None  # noqa: S101 - for the type checker: it was asked for
            try:
                yield from process.stdout
            except GeneratorExit:
                process.kill()
                raise
        complaints.seek(0)
        said = complaints.read().decode(errors="replace").strip()
    # journalctl succeeds where it may read some files and not others, and says so without --quiet only
    nothing = "No journal files were opened due to insufficient permissions" in said
    hidden = nothing or (
        not partial and ("not seeing messages" in said or "insufficient permissions" in said)
    )
    if hidden:
        raise UnitmemError("the system's journal may not be read by this user", hint=_HINT)
    if process.returncode != 0:
        last = said.splitlines()[-1] if said else f"it ended with status {process.returncode}"
        raise UnitmemError(f"journalctl failed: {last}")
