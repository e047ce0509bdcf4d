"""The state that outlives a watch: open episodes, cooldowns, budgets, and the overrides to undo.

It is one JSON file in the watch's state directory, replaced as a whole, so that a crash at any instant leaves
the old content or the new. Before an action is performed, the state is written to a second file, without waiting
for the disk, which may be what slows the machine down: this protects against a crash of the watch, so that
nothing is done twice. The first file is written when the action is under way: this protects against a crash of
the machine. Times are those of the monotonic clock, with the boot ID; after a reboot they are converted by the
wall clock.

Running timers are not saved: a condition has to hold at every tick, and there were none meanwhile. Nor is
`last_ended`: a new watch knows of no OOM kills from before it began, so that none can be counted again.

The file may be of another version, older or newer; this never makes the reader act more:

- Known parts count, whatever `version` is: cooldowns, budgets, and the open episodes of policies with an unchanged
  fingerprint. Policies with another fingerprint are changed, and `resume` treats them as at a reload.
- Unknown parts count as of now: an episode or a cooldown as if the episode had ended now, a budget as if it had been
  spent now. Where the unit or the policy is unknown, this applies to all of them. It is reported once.
- Actions in an unknown mode count as performed.
- So keys may be added, and older readers ignore them. Only a new section that restrains actions needs a higher
  `version`: in such a document, an unknown section restrains every policy for its cooldown. `refused` needed none:
  what it withholds, the manager refuses anyway; nor did `groups`, as older readers refuse a policy that picks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from unitmem.policy.actions import END_WAIT, Kill, Restart, Stop
from unitmem.policy.decision import Override
from unitmem.policy.fingerprint import Fingerprint, fingerprint
from unitmem.policy.groups import Group, GroupKey, Picked
from unitmem.policy.model import Budget, Mode, Policy
from unitmem.policy.state import EVERY_UNIT, Ladder, LadderKey, Phase, Refused, State, StepState, resume
from unitmem.record.clock import Instant
from unitmem.record.files import replace_file
from unitmem.unit import Invocation

FILE_NAME = "state.json"
AHEAD_NAME = "state.ahead.json"
VERSION = 1
_KNOWN = frozenset(
    [
        "version",
        "policies",
        "ladders",
        "cooling",
        "spent",
        "spent_in_all",
        "holds",
        "refused",
        "groups",
        "monotonic",
        "realtime",
        "boot_id",
    ]
)
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError)
_T = TypeVar("_T")


class DamagedStateError(Exception):
    """The file can't be parsed, and was renamed; `str()` has the new name."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """The content of the state file."""

    state: State = field(default_factory=State)
    overrides: tuple[Override, ...] = ()
    trouble: str | None = None
    """A sentence on the parts that could not be understood, and the consequences; None if all could."""


# --- as JSON ------------------------------------------------------------------------------------


def encode(remembered: Remembered, policies: Sequence[Policy]) -> dict[str, Any]:
    """Return `remembered` as a JSON document, without the time; `decode` is the inverse."""
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
        "refused": [
            {
                "unit": run.unit,
                "invocation_id": run.invocation_id,
                "inode": run.cgroup_inode,
                "action": action,
                "reason": refused.reason,
            }
            for (run, action), refused in state.refused.items()
        ],
        "groups": [
            {
                "policy": policy,
                "step": step,
                "level": level,
                "unit": picked.invocation.unit,
                "invocation_id": picked.invocation.invocation_id,
                "inode": picked.invocation.cgroup_inode,
                "at": picked.at,
                "settle": picked.settle,
                "due_by": picked.due_by,
                "counts_from": group.counts_from,
            }
            for (policy, step, level), group in sorted(state.groups.items())
            if (picked := group.picked) is not None
        ],
    }


def decode(
    document: Mapping[str, Any],
    policies: Sequence[Policy],
    now: float,
    *,
    shift: float = 0.0,
    budget: Budget | None = None,
) -> Remembered:
    """Return the state in `document`, as it applies to `policies` now.

    An action that was under way is decided again if its timeout is over and the unit still runs.

    Args:
        document: the document, of this version or another; see the module's docstring.
        policies: those in force from now on.
        now: seconds of the monotonic clock.
        shift: seconds to add to every time in `document` to convert it to that clock.
        budget: the policy file's budget, for all policies and units together.
    """
    by_name = {policy.name: policy for policy in policies}
    sections = _Sections(document)
    former = dict(
        sections.read("policies", lambda entry: (entry[0], _former(entry[1], by_name.get(entry[0]))))
    )
    unchanged = {name: policy for name, policy in by_name.items() if former.get(name) == fingerprint(policy)}
    in_all: dict[Mode, tuple[float, ...]] = {}
    for mode, times in sections.read("spent_in_all", lambda entry: (entry[0], _moved(entry[1], shift))):
        known = Mode.OBSERVE if mode == Mode.OBSERVE else Mode.ACT
        in_all[known] = (*in_all.get(known, ()), *times)
    state = State(
        ladders=dict(sections.read("ladders", lambda entry: _ladder(entry, unchanged, shift))),
        cooling=dict(sections.read("cooling", lambda entry: (_key(*entry[:2]), float(entry[2]) + shift))),
        spent=dict(sections.read("spent", lambda entry: (_key(*entry[:2]), _moved(entry[2], shift)))),
        spent_in_all=in_all,
        # older files have none
        refused=dict(sections.read("refused", _refused)) if "refused" in document else {},
        groups=dict(sections.read("groups", lambda entry: _group(entry, shift)))
        if "groups" in document
        else {},
    )
    overrides = tuple(sections.read("holds", _override))
    state = resume(state, former, policies, now)
    doubts = [
        (section, key)
        for section, key in sections.doubts
        # without a refusal the manager is asked once more
        if section != "refused" and (key is None or key[0] in by_name)
    ]
    cooling = dict(state.cooling)
    for section, key in doubts:
        for policy in policies if key is None else [by_name[key[0]]]:
            until = now + _restraint(section, policy, budget)
            each = (policy.name, EVERY_UNIT) if key is None or section == "groups" else key
            if until > max(now, cooling.get(each, now)):
                cooling[each] = until
    return Remembered(replace(state, cooling=cooling), overrides, _trouble(document, doubts))


class _Sections:
    """The sections of a document, each a list or a mapping of entries, and the doubts about them."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self.doubts: list[tuple[str, LadderKey | None]] = []
        """(section, key) of each entry that isn't understood; a key of None may be any policy and unit."""
        version = document.get("version")
        if not isinstance(version, int) or version > VERSION:
            self.doubts += [(section, None) for section in sorted(document.keys() - _KNOWN)]

    def read(self, section: str, parse: Callable[[Any], _T]) -> Iterator[_T]:
        """Yield what `parse` returns for each entry of a section; entries on which it fails become doubts."""
        found = self._document.get(section)
        if not isinstance(found, list | dict):
            self.doubts.append((section, None))
            return
        for entry in found.items() if isinstance(found, dict) else found:
            try:
                yield parse(entry)
            except _MALFORMED:
                self.doubts.append((section, None if isinstance(found, dict) else _about(entry)))


def _about(entry: object) -> LadderKey | None:
    match entry:
        case {"policy": str(policy), "unit": str(unit)} | [str(policy), str(unit), *_]:
            return policy, unit
        case {"policy": str(policy)} | [str(policy), *_]:
            return policy, EVERY_UNIT
        case _:
            return None


def _restraint(section: str, policy: Policy, budget: Budget | None) -> float:
    """Return the seconds for which a doubt about `section` withholds episodes of `policy`."""
    match section:
        case "spent":
            return 0.0 if policy.budget is None else policy.budget.per
        case "spent_in_all":
            return 0.0 if budget is None else budget.per
        case "groups":
            settles = [step.pick.settle for step in policy.steps if step.pick is not None]
            return max(policy.cooldown, *settles) if settles else 0.0
        case _:
            return policy.cooldown


def _trouble(document: Mapping[str, Any], doubts: Sequence[tuple[str, LadderKey | None]]) -> str | None:
    if not doubts:
        return None
    sections = sorted({section for section, _ in doubts})
    left = "; properties that it was to set back stay as they are" if "holds" in sections else ""
    return (
        f"the saved state (version {document.get('version')}) can't be read in part ({', '.join(sections)}): "
        f"the cooldowns and budgets that this affects start again, in full{left}"
    )


def _key(policy: object, unit: object) -> LadderKey:
    return str(policy), str(unit)


def _ladder(
    entry: Mapping[str, Any], unchanged: Mapping[str, Policy], shift: float
) -> tuple[LadderKey, Ladder]:
    key = _key(entry["policy"], entry["unit"])
    policy = unchanged.get(key[0])
    if policy is None:  # that an episode is open is all that counts of it
        return key, Ladder(Invocation(key[1], None, 0), (), 0.0)
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
    return key, Ladder(_invocation(entry), tuple(steps), float(entry["episode_since"]) + shift)


def _invocation(entry: Mapping[str, Any]) -> Invocation:
    run = entry["invocation_id"]
    return Invocation(str(entry["unit"]), None if run is None else str(run), int(entry["inode"]))


def _refused(entry: Mapping[str, Any]) -> tuple[tuple[Invocation, str], Refused]:
    return (_invocation(entry), str(entry["action"])), Refused(str(entry["reason"]))


def _group(entry: Mapping[str, Any], shift: float) -> tuple[GroupKey, Group]:
    def moved(at: float | None) -> float | None:
        return None if at is None else float(at) + shift

    picked = Picked(
        _invocation(entry), float(entry["at"]) + shift, float(entry["settle"]), moved(entry["due_by"])
    )
    key = str(entry["policy"]), int(entry["step"]), str(entry["level"])
    return key, Group(picked=picked, counts_from=moved(entry["counts_from"]))


def _override(entry: Mapping[str, Any]) -> Override:
    former = {str(name): None if size is None else int(size) for name, size in entry["former"].items()}
    return Override(*_key(entry["policy"], entry["unit"]), former)


def _moved(times: Iterable[float], shift: float) -> tuple[float, ...]:
    return tuple(float(at) + shift for at in times)


# --- fingerprints of 0.1 ------------------------------------------------------------------------

_FIELDS_OF_0_1 = {
    "Policy": "name units steps excluded unprotect mode clear cooldown budget line",
    "Step": "when action hold repeat line",
    "Budget": "actions per",
    "Comparison": "measure operator threshold of span derivation",
    "Not": "term",
    "All": "terms",
    "AnyOf": "terms",
    "Log": "",
    "Signal": "number to timeout otherwise",
    "Stop": "timeout otherwise",
    "Restart": "timeout otherwise",
    "Kill": "timeout",
    "Reclaim": "size timeout",
    "SetProperties": "properties",
    "Freeze": "timeout",
    "Thaw": "timeout",
    "Run": "command timeout",
}


def _former(said: object, policy: Policy | None) -> Fingerprint | None:
    """Return the fingerprint in `said`; None where its form is unknown.

    Version 0.1 wrote the `repr` of its classes: that counts as the fingerprint of `policy` if 0.1 would have written
    it for `policy`.
    """
    if isinstance(said, dict):
        return said
    return fingerprint(policy) if policy is not None and said == _fingerprint_of_0_1(policy) else None


def _fingerprint_of_0_1(policy: Policy) -> str:
    steps = tuple(replace(step, line=None) for step in policy.steps)
    bare = replace(policy, steps=steps, line=None, unprotect=frozenset())
    return f"({_spelled_by_0_1(bare)}, {sorted(policy.unprotect)})"


def _spelled_by_0_1(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_spelled_by_0_1, value))}{',' * (len(value) == 1)})"
    if not is_dataclass(value):
        return repr(value)
    name = type(value).__name__
    names = _FIELDS_OF_0_1.get(name, "").split()
    # what 0.1 didn't know makes a difference where it is used
    names += [
        each.name
        for each in fields(value)
        if each.name not in names and getattr(value, each.name) != each.default
    ]
    return f"{name}({', '.join(f'{each}={_spelled_by_0_1(getattr(value, each))}' for each in names)})"


# --- on disk ------------------------------------------------------------------------------------


class Store:
    """The state files of one watch in `directory`; if that is None, nothing is saved."""

    def __init__(self, directory: Path | None) -> None:
        self._path = None if directory is None else directory / FILE_NAME
        self._saved: dict[str, Any] | None = None

    def load(self, policies: Sequence[Policy], now: Instant, budget: Budget | None = None) -> Remembered:
        """Return the saved state, as it applies to `policies` and the file's `budget`; a new one without a file.

        Raises:
            DamagedStateError: it can't be parsed, and was renamed.
            OSError: it can't be read.
        """
        if self._path is None:
            return Remembered()
        with suppress(OSError, *_MALFORMED):
            # where it is, it is the newer one; but one from before a crash of the machine may be anything
            then, document = _read(self._path.with_name(AHEAD_NAME))
            if then.boot_id == now.boot_id:
                return decode(document, policies, now.monotonic, budget=budget)
        try:
            then, document = _read(self._path)
            shift = now.shift_from(then)
            return decode(document, policies, now.monotonic, shift=shift, budget=budget)
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
        """Save `remembered` if it differs from what was saved before.

        Args:
            remembered: the content.
            policies: the policies that it belongs to.
            now: the time of the state.
            ahead: whether to write the second file, which survives a crash of this process only.

        Raises:
            OSError: it can't be written; the previous file is still there.
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


def _read(path: Path) -> tuple[Instant, dict[str, Any]]:
    document = json.loads(path.read_bytes())
    then = Instant(float(document["monotonic"]), float(document["realtime"]), str(document["boot_id"]))
    return then, document
