"""Units: names, state as described by the manager, and invocations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from unitmem.text import printable

# The kinds whose units may own a cgroup; devices, targets, timers and the like never do.
CGROUP_KINDS = frozenset({"service", "scope", "slice", "mount", "socket", "swap"})
KINDS = CGROUP_KINDS | {"target", "timer", "path", "device", "automount"}
ROOT_SLICE = "-.slice"

_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}", re.ASCII)
# the ID of a container, and what systemd-run and logind call their units
_MADE_UP = re.compile(r"[0-9a-f]{12,}|^run-[a-z]?[0-9a-f-]+|^session-")
_LONGEST_CONTENT = 60
_GLOB_CHARACTERS = frozenset("*?[]!")


class ManagerKind(StrEnum):
    """A service manager: the machine's, or the calling user's own."""

    SYSTEM = "system"
    USER = "user"

    @classmethod
    def of(cls, *, user: bool) -> ManagerKind:
        return cls.USER if user else cls.SYSTEM


@dataclass(frozen=True, slots=True)
class Unit:
    """One loaded unit, as its manager describes it at one instant."""

    name: str
    description: str = ""
    load_state: str = "loaded"
    active_state: str = "active"
    sub_state: str = ""
    invocation_id: str | None = None
    """32 hex digits that are new with each start; None for a unit that never ran, or existed before systemd."""
    control_group: str | None = None
    """The path below the cgroup mount, `/system.slice/a.service`; None when there is no cgroup now."""
    main_pid: int | None = None
    control_pid: int | None = None
    slice: str | None = None
    up_since: float | None = None
    """When this run became active, in seconds of the monotonic clock; while it starts, when it began to."""
    aliases: tuple[str, ...] = ()
    """Other names of it, of those that were asked for."""

    @property
    def names(self) -> tuple[str, ...]:
        """Its name, and its aliases."""
        return (self.name, *self.aliases)

    @property
    def kind(self) -> str:
        """The part of the name after the last dot: `service`, `scope`, …"""
        return unit_kind(self.name)

    @property
    def content(self) -> str:
        """The description, where a program made the name up and the description says more: `run-u12.service`; else empty.

        It is fit for a message: one printable line, cut where it is longer than 60 characters. Container runtimes
        describe their scopes by the ID that is in the name (runc), or by `libcrun container`.
        """
        made_up = _MADE_UP.search(self.name)
        if made_up is None or self.description in ("", self.name, "libcrun container"):
            return ""
        if made_up[0] in self.description:
            return ""
        line = printable(self.description)
        return line if len(line) <= _LONGEST_CONTENT else f"{line[: _LONGEST_CONTENT - 1]}…"

    @property
    def state(self) -> str:
        """`active (running)`, as systemctl writes it."""
        return f"{self.active_state} ({self.sub_state})" if self.sub_state else self.active_state


@dataclass(frozen=True, slots=True)
class Invocation:
    """One run of a unit. Two runs differ in one of these at least, even when the path is the same.

    The cgroup's inode tells apart runs of units that have no InvocationID, and a cgroup that was
    made again under the same path.
    """

    unit: str
    invocation_id: str | None
    cgroup_inode: int


@dataclass(frozen=True, slots=True)
class StartLimit:
    """How often a unit may be started, by hand, by unitmem or by its Restart=: see systemd.unit(5)."""

    burst: int
    """StartLimitBurst=."""
    interval: float
    """StartLimitIntervalSec=."""

    def __str__(self) -> str:
        return f"StartLimitBurst={self.burst} in StartLimitIntervalSec={self.interval:g}s"


START_LIMIT_HIT = "start-limit-hit"
"""Result= of a unit that was started more often than its start limit allows."""


def titled(name: str, content: str) -> str:
    """Return how a message names a unit: by its name, and by its `Unit.content` in brackets if there is any."""
    return f"{name} ({content})" if content else name


def unit_kind(name: str) -> str:
    """Return `service` of `ssh.service`; an empty string where the name has no dot."""
    return name.rpartition(".")[2] if "." in name else ""


def parent_slice(name: str) -> str:
    """Return the slice around the slice `name`, as the dashes of its name say: `a.slice` around `a-b.slice`."""
    outer, _, _ = name.removesuffix(".slice").rpartition("-")
    return f"{outer}.slice" if outer else ROOT_SLICE


def is_unit_name(name: str) -> bool:
    """Return whether `name` is a valid unit name, which has to end in a known kind."""
    return _NAME.fullmatch(name) is not None and unit_kind(name) in KINDS and not name.startswith((".", "@"))


def is_glob(pattern: str) -> bool:
    """Return whether `pattern` can match more than the one name it spells."""
    return not _GLOB_CHARACTERS.isdisjoint(pattern)


def complete_name(name: str) -> str:
    """Return `name` completed as by systemctl: `ssh` is `ssh.service`, `/home` is `home.mount`."""
    if name.startswith("/") and not is_glob(name):
        return escape_path(name) + ".mount"
    return name if is_glob(name) or unit_kind(name) in KINDS else f"{name}.service"


def escape_path(path: str) -> str:
    r"""Return a file path as systemd-escape --path writes it: `/home/a b` is `home-a\x20b`."""
    trimmed = "/".join(part for part in path.split("/") if part not in ("", "."))
    if not trimmed:
        return "-"

    def escape(position: int, character: str) -> str:
        if character == "/":
            return "-"
        if (character.isascii() and (character.isalnum() or character in ":_")) or (
            character == "." and position > 0
        ):
            return character
        return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogateescape"))

    return "".join(escape(position, character) for position, character in enumerate(trimmed))


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether `name` matches one of the shell globs `patterns`; case counts."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


# Properties of a unit that name other units, and the setting by which these said so: systemd.unit(5).
STOPPED_WITH = {
    "BoundBy": "BindsTo",
    "RequiredBy": "Requires",
    "ConsistsOf": "PartOf",
    "RequisiteOf": "Requisite",
    "PropagatesStopTo": "StopPropagatedFrom",
}
"""Properties that list units which stop with the unit, and the settings that cause it."""
STARTED_BY = {"TriggeredBy": "Triggers", "UpheldBy": "Upholds"}
"""Properties that list units which start the unit again, and the settings that cause it."""
DEPENDENTS = (*STOPPED_WITH, *STARTED_BY)


# What must live for the machine to be reached and repaired: without any of these an operator has
# lost the journal, the bus, the login or the network. Sockets come along: stopping one stops its service.
OWN_UNITS = ("unitmem.slice", "unitmem@*.service", "unitmem-observe@*.service")
CORE_UNITS: tuple[str, ...] = (
    "init.scope",
    ROOT_SLICE,
    "-.mount",
    "systemd-journald*.service",
    "systemd-journald*.socket",
    "dbus.service",
    "dbus-broker.service",
    "dbus.socket",
    "systemd-logind.service",
    "systemd-logind-varlink.socket",
    "systemd-udevd.service",
    "systemd-udevd-*.socket",
    "systemd-resolved.service",
    "systemd-resolved-*.socket",
    "systemd-networkd.service",
    "systemd-networkd*.socket",
    "ssh.service",
    "ssh.socket",
    "ssh@*.service",
    "sshd.service",
    "sshd.socket",
    "sshd@*.service",
    *OWN_UNITS,  # nor does one guard end another
)

# most units are none of these by the first letters of their names
_CORE_BEGINNINGS = tuple(pattern.partition("*")[0] for pattern in CORE_UNITS)


def is_core(name: str) -> bool:
    """Return whether the unit `name` is one of `CORE_UNITS`."""
    return name.startswith(_CORE_BEGINNINGS) and matches(name, CORE_UNITS)


def protection(unit: Unit, own_cgroup: str | None, core_cgroups: Sequence[tuple[str, str]]) -> str | None:
    """Return the reason for which `unit` must not be touched unless a policy names it; None if there is none.

    Args:
        unit: the unit in question.
        own_cgroup: the cgroup path of this process; for a command typed in a session it is the session's.
        core_cgroups: (unit name, cgroup path) of the core units that run.

    A slice around a core unit is protected as the unit itself is, since stopping the slice stops both.
    """
    if is_core(unit.name):
        is_own = matches(unit.name, OWN_UNITS)
        return "unitmem itself runs in it" if is_own else "the machine can't be run or reached without it"
    path = unit.control_group
    if path is None:
        return None
    if own_cgroup is not None and is_within(own_cgroup, path):
        return "unitmem itself runs in it"
    for core, core_path in core_cgroups:
        if is_within(core_path, path):
            return f"{core} runs in it"
    return None


def slice_path(path: str) -> str | None:
    """Return the path of the nearest slice around the cgroup `path`, which is `/` for the root slice; None for `/` itself."""
    parts = path.strip("/").split("/")[:-1]
    while parts and not parts[-1].endswith(".slice"):
        parts.pop()
    return "/" + "/".join(parts) if path.strip("/") else None


def is_within(path: str, ancestor: str) -> bool:
    """Return whether the cgroup `path` is `ancestor` or below it."""
    root = ancestor.rstrip("/")
    return path == ancestor or path.startswith(root + "/")
