"""What must outlive the daemon: open episodes, cooldowns, budgets, and the properties to set back.

One JSON file in the daemon's state directory, replaced as a whole, so that a crash at any instant leaves
the old or the new. Before an action is performed it is written to a second one, ahead of the first: that
one is for a daemon that crashes, so that nothing is done twice, and waits for no disk, which may be what
the machine is short of; the first one follows when the action is under way, and is for machines that crash.
Times are kept by the monotonic clock, with the boot they belong to; after a reboot they are moved by the
wall clock.

What was about to fire is not kept: a condition has to hold at every tick, and nobody looked meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unitmem.files import replace_file
from unitmem.policy.actions import END_WAIT, Kill, Restart, Stop
from unitmem.policy.decision import Override
from unitmem.policy.model import Mode, Policy
from unitmem.policy.state import Ladder, Phase, State, StepState
from unitmem.record.clock import Instant
from unitmem.unit import Invocation

FILE_NAME = "state.json"
AHEAD_NAME = "state.ahead.json"
VERSION = 1


class DamagedStateError(Exception):
    """The file can't be understood; it was set aside, and `str()` says where."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is kept."""

    state: State = field(default_factory=State)
    overrides: tuple[Override, ...] = ()


# --- as JSON ------------------------------------------------------------------------------------


def encode(remembered: Remembered, policies: Sequence[Policy]) -> dict[str, Any]:
    """`remembered` as JSON takes it, without the time; `decode` reads it."""
    state = remembered.state
    acting = {policy.name for policy in policies if policy.mode is Mode.ACT}
    return {
        "version": VERSION,
        "policies": {policy.name: fingerprint(policy) for policy in policies},
        "ladders": [
            {
                "policy": policy,
                "unit": unit,
                "invocation_id": ladder.invocation.invocation_id,
                "inode": ladder.invocation.cgroup_inode,
                "episode_since": ladder.episode_since,
                "is_ending": ladder.invocation in state.ending and policy in acting,
                "steps": [
                    {
                        "fired_at": step.fired_at if step.phase is Phase.FIRED else None,
                        "not_before": step.not_before,
                    }
                    for step in ladder.steps
                ],
            }
            for (policy, unit), ladder in sorted(state.ladders.items())
            if ladder.episode_since is not None
        ],
        "cooling": [[*key, until] for key, until in sorted(state.cooling.items())],
        "spent": [[*key, list(times)] for key, times in sorted(state.spent.items())],
        "spent_in_all": {mode: list(times) for mode, times in sorted(state.spent_in_all.items())},
        "holds": [
            {"policy": override.policy, "unit": override.unit, "former": dict(override.former)}
            for override in remembered.overrides
        ],
    }


def decode(document: Mapping[str, Any], policies: Sequence[Policy], shift: float = 0.0) -> Remembered:
    """What `encode` made `document` of, with `shift` seconds added to every time.

    The episodes of a policy that reads differently now are over; its cooldowns and budgets are not.
    An action that was under way is decided again if its time is over and the unit is still there.

    Raises:
        ValueError, KeyError, TypeError: not such a document.
    """
    if document["version"] != VERSION:
        raise ValueError(f"version {document['version']}")
    by_name = {policy.name: policy for policy in policies}
    unchanged = {
        name
        for name, print_ in document["policies"].items()
        if name in by_name and print_ == fingerprint(by_name[name])
    }
    ladders = {}
    for entry in document["ladders"]:
        if entry["policy"] in unchanged:
            ladder = _ladder(entry, by_name[entry["policy"]], shift)
            ladders[str(entry["policy"]), str(entry["unit"])] = ladder
    state = State(
        ladders=ladders,
        cooling={
            (str(policy), str(unit)): float(until) + shift
            for policy, unit, until in document["cooling"]
            if policy in by_name
        },
        spent={
            (str(policy), str(unit)): _moved(times, shift)
            for policy, unit, times in document["spent"]
            if policy in by_name
        },
        spent_in_all={Mode(mode): _moved(times, shift) for mode, times in document["spent_in_all"].items()},
    )
    overrides = tuple(
        Override(
            str(entry["policy"]),
            str(entry["unit"]),
            {str(name): None if size is None else int(size) for name, size in entry["former"].items()},
        )
        for entry in document["holds"]
    )
    return Remembered(state, overrides)


def fingerprint(policy: Policy) -> str:
    """The same for policies that mean the same, in any process."""
    steps = tuple(replace(step, line=None) for step in policy.steps)
    return repr((replace(policy, steps=steps, line=None, unprotect=frozenset()), sorted(policy.unprotect)))


def _ladder(entry: Mapping[str, Any], policy: Policy, shift: float) -> Ladder:
    steps = []
    for step, kept in zip(policy.steps, entry["steps"], strict=True):
        not_before = None if kept["not_before"] is None else float(kept["not_before"]) + shift
        if kept["fired_at"] is None:
            steps.append(StepState(not_before=not_before))
            continue
        fired_at = float(kept["fired_at"]) + shift
        if entry["is_ending"] and isinstance(step.action, Stop | Restart | Kill):
            due = fired_at + step.action.timeout + END_WAIT
            steps.append(StepState(fired_at=fired_at, not_before=due))
        else:
            steps.append(StepState(Phase.FIRED, fired_at=fired_at, not_before=not_before))
    run = entry["invocation_id"]
    invocation = Invocation(str(entry["unit"]), None if run is None else str(run), int(entry["inode"]))
    return Ladder(invocation, tuple(steps), float(entry["episode_since"]) + shift)


def _moved(times: Iterable[float], shift: float) -> tuple[float, ...]:
    return tuple(float(at) + shift for at in times)


# --- on disk ------------------------------------------------------------------------------------


class Store:
    """The files of one daemon, below `directory`; without one, nothing is kept."""

    def __init__(self, directory: Path | None) -> None:
        self._path = None if directory is None else directory / FILE_NAME
        self._saved: dict[str, Any] | None = None

    def load(self, policies: Sequence[Policy], now: Instant) -> Remembered:
        """What was kept last; nothing where there is no file yet.

        Raises:
            DamagedStateError: it can't be understood, and was set aside.
            OSError: it can't be read.
        """
        if self._path is None:
            return Remembered()
        with suppress(OSError, *_MALFORMED):
            # where it is, it is the newer one; but one from before a crash of the machine may be anything
            then, document = _read(self._path.with_name(AHEAD_NAME))
            if then.boot_id == now.boot_id:
                return decode(document, policies)
        try:
            then, document = _read(self._path)
            return decode(document, policies, now.shift_from(then))
        except FileNotFoundError:
            return Remembered()
        except _MALFORMED as error:
            aside = self._path.with_name(f"{FILE_NAME}.damaged-{int(now.realtime)}")
            self._path.replace(aside)
            raise DamagedStateError(
                f"{self._path} can't be understood ({error}): it is set aside as {aside}, "
                "and cooldowns, budgets and open episodes start anew"
            ) from None

    def save(
        self, remembered: Remembered, policies: Sequence[Policy], now: Instant, *, ahead: bool = False
    ) -> None:
        """Keep `remembered` in place of what was kept before, if it differs.

        Args:
            remembered: what to keep.
            policies: those that it is about.
            now: the moment it is of.
            ahead: whether it has to outlive this process only, for now.

        Raises:
            OSError: it can't be written; what was kept before is still there.
        """
        if self._path is None:
            return
        document = encode(remembered, policies)
        if document == self._saved:
            return
        text = json.dumps(
            document | {"monotonic": now.monotonic, "realtime": now.realtime, "boot_id": now.boot_id}
        )
        if ahead:
            replace_file(self._path.with_name(AHEAD_NAME), text, durable=False)
            self._saved = None  # the first one has to follow, whatever comes of it
        else:
            replace_file(self._path, text, durable=True)
            self._path.with_name(AHEAD_NAME).unlink(missing_ok=True)
            self._saved = document


_MALFORMED = (ValueError, KeyError, TypeError, AttributeError)


def _read(path: Path) -> tuple[Instant, dict[str, Any]]:
    document = json.loads(path.read_bytes())
    then = Instant(float(document["monotonic"]), float(document["realtime"]), str(document["boot_id"]))
    return then, document
