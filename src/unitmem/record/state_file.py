"""The state that outlives a watch: open episodes, cooldowns, budgets, overrides to undo, and actions under way.

It is one JSON file in the watch's state directory, replaced as a whole, so that a crash at any instant leaves
the old content or the new. Before anything that a tick has decided is done, the state and the decisions are written
to a second file (see `ahead`), without waiting for the disk, which may be what slows the machine down; it notes how
far each one comes as well. This protects against a crash of the watch, so that nothing is done twice, and what became
of it is reported. The first file is written when the tick is done: this protects against a crash of the machine.
Times are those of the monotonic clock, with the boot ID; after a reboot they are converted by the wall clock.

Running timers are not saved: a condition has to hold at every tick, and there were none meanwhile. Nor is
`last_ended`, but for the runs that an action under way will end: a new watch knows of no OOM kills from before it
began, so that no others can be counted again.

The file may be of another version, older or newer; this never makes the reader act more:

- Known parts count, whatever `version` is: cooldowns, budgets, and the open episodes of policies with an unchanged
  fingerprint. Policies with another fingerprint are changed, and `resume` treats them as at a reload.
- Unknown parts count as of now: an episode or a cooldown as if the episode had ended now, a budget as if it had been
  spent now. Where the unit or the policy is unknown, this applies to all of them. It is reported once.
- Actions in an unknown mode count as performed.
- So keys may be added, and older readers ignore them. Only a new section that restrains actions needs a higher
  `version`: in such a document, an unknown section restrains every policy for its cooldown. `refused` needed none:
  what it withholds, the manager refuses anyway; nor did `groups`, as older readers refuse a policy that picks; nor
  `under_way`, beside which `is_ending` is still written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from unitmem.kernel.ownership import distrust, trusted_owners
from unitmem.policy.actions import END_WAIT, Kill, Restart, Stop
from unitmem.policy.decision import Intent, Override
from unitmem.policy.fingerprint import fingerprint
from unitmem.policy.groups import GRACE, longest
from unitmem.policy.model import Budget, Mode, Policy
from unitmem.policy.state import EVERY_UNIT, Ladder, LadderKey, Phase, Refused, State, StepState, resume
from unitmem.record.ahead import Ahead, apply
from unitmem.record.clock import Instant
from unitmem.record.files import replace_file
from unitmem.record.former_fingerprint import former_fingerprint
from unitmem.record.groups import group_document, parse_group
from unitmem.record.intents import end_by_reboot, intent_document, parse_intent
from unitmem.record.invocations import invocation_document, parse_invocation
from unitmem.record.numbers import finite, load
from unitmem.record.overrides import override_document, parse_override
from unitmem.unit import Invocation

FILE_NAME = "state.json"
AHEAD_NAME = "ahead.jsonl"
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
        "under_way",
        "groups",
        "monotonic",
        "realtime",
        "boot_id",
    ]
)
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
_WAIT = "wait for a whole cooldown, and for the span of their budgets"
_LONGEST = 7 * 86400.0
"""Seconds for which a cooldown from before an edit that shortened it is kept at most."""
_T = TypeVar("_T")


class DamagedStateError(Exception):
    """The file can't be parsed, and was renamed; `str()` has the new name."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """The content of the state file."""

    state: State = field(default_factory=State)
    overrides: tuple[Override, ...] = ()
    intents: tuple[Intent, ...] = ()
    """Decisions whose outcome is not reported yet."""
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
                **invocation_document(ladder.invocation),
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
            for (policy, _), ladder in sorted(state.ladders.items())
            if ladder.episode_since is not None
        ],
        "cooling": [[*key, until] for key, until in sorted(state.cooling.items())],
        "spent": [[*key, list(times)] for key, times in sorted(state.spent.items())],
        "spent_in_all": {mode: list(times) for mode, times in sorted(state.spent_in_all.items())},
        "holds": [override_document(override) for override in remembered.overrides],
        "refused": [
            {
                **invocation_document(run),
                "action": action,
                "reason": refused.reason,
            }
            for (run, action), refused in state.refused.items()
        ],
        "under_way": [intent_document(intent) for intent in remembered.intents],
        "groups": [
            group_document(key, picked, group)
            for key, group in sorted(state.groups.items())
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

    A run that an action under way will end is judged once that has its outcome; where the action is not known, once
    its timeout is over.

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
        sections.read(
            "policies", lambda entry: (entry[0], former_fingerprint(entry[1], by_name.get(entry[0])))
        )
    )
    unchanged = {name: policy for name, policy in by_name.items() if former.get(name) == fingerprint(policy)}
    in_all: dict[Mode, tuple[float, ...]] = {}
    for mode, times in sections.read("spent_in_all", lambda entry: (entry[0], _moved(entry[1], shift))):
        known = Mode.OBSERVE if mode == Mode.OBSERVE else Mode.ACT
        in_all[known] = (*in_all.get(known, ()), *times)
    intents: tuple[Intent, ...] = ()
    if "under_way" in document:  # older files have none
        intents = tuple(sections.read("under_way", lambda entry: parse_intent(entry, now, shift)))
    ends = {
        (intent.decision.policy, intent.decision.unit): (intent.decision.invocation, intent.decision.at)
        for intent in intents
        if intent.decision.acts and intent.decision.action.ends_the_unit
    }
    ending = frozenset(run for run, _ in ends.values())
    state = State(
        ladders=dict(sections.read("ladders", lambda entry: _ladder(entry, unchanged, shift, ending))),
        ending=ending,
        last_ended=ends,
        cooling=dict(sections.read("cooling", lambda entry: (_key(*entry[:2]), finite(entry[2]) + shift))),
        spent=dict(sections.read("spent", lambda entry: (_key(*entry[:2]), _moved(entry[2], shift)))),
        spent_in_all=in_all,
        # older files have none
        refused=dict(sections.read("refused", _refused)) if "refused" in document else {},
        groups=dict(sections.read("groups", lambda entry: parse_group(entry, shift)))
        if "groups" in document
        else {},
    )
    overrides = tuple(sections.read("holds", parse_override))
    state = resume(state, former, policies, now)
    doubts = [
        (section, key)
        for section, key in sections.doubts
        # without a refusal the manager is asked once more
        if section != "refused" and (key is None or key[0] in by_name)
    ]
    # whatever the file says: no longer than the policy's own reasons last, or those of its last edition may have lasted
    latest = {name: now + max(_LONGEST, _longest(policy, budget)) for name, policy in by_name.items()}
    cooling = {key: min(until, latest.get(key[0], until)) for key, until in state.cooling.items()}
    for section, key in doubts:
        for policy in policies if key is None else [by_name[key[0]]]:
            until = now + _restraint(section, policy, budget)
            # the budget of a policy that picks is for all of its units
            is_shared = section == "groups" or (section == "spent" and policy.picks)
            each = (policy.name, EVERY_UNIT) if is_shared or key is None else key
            if until > max(now, cooling.get(each, now)):
                cooling[each] = until
    return Remembered(replace(state, cooling=cooling), overrides, intents, _trouble(document, doubts))


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
            picking = [(step, step.pick) for step in policy.steps if step.pick is not None]
            waits = [max(pick.settle, longest(step.action) + GRACE) for step, pick in picking]
            return max(policy.cooldown, *waits) if waits else 0.0
        case _:
            return policy.cooldown


def _longest(policy: Policy, budget: Budget | None) -> float:
    """Return the most seconds for which episodes of `policy` may be withheld."""
    return max(_restraint(section, policy, budget) for section in ("cooling", "spent", "spent_in_all"))


def _trouble(document: Mapping[str, Any], doubts: Sequence[tuple[str, LadderKey | None]]) -> str | None:
    if not doubts:
        return None
    sections = sorted({section for section, _ in doubts})
    left = "; properties that it was to set back stay as they are" if "holds" in sections else ""
    left += "; the outcomes of some actions will not be reported" if "under_way" in sections else ""
    return (
        f"the saved state (version {document.get('version')}) can't be read in part ({', '.join(sections)}): "
        f"the policies that this affects {_WAIT}{left}"
    )


def _key(policy: object, unit: object) -> LadderKey:
    return str(policy), str(unit)


def _ladder(
    entry: Mapping[str, Any], unchanged: Mapping[str, Policy], shift: float, followed: Collection[Invocation]
) -> tuple[LadderKey, Ladder]:
    key = _key(entry["policy"], entry["unit"])
    policy = unchanged.get(key[0])
    if policy is None:  # that an episode is open is all that counts of it
        return key, Ladder(Invocation(key[1], None, 0), (), 0.0)
    invocation = parse_invocation(entry)
    is_ending = entry["is_ending"] and invocation not in followed
    steps = []
    for step, kept in zip(policy.steps, entry["steps"], strict=True):
        not_before = None if kept["not_before"] is None else finite(kept["not_before"]) + shift
        if kept["fired_at"] is None:
            steps.append(StepState(not_before=not_before))
            continue
        fired_at = finite(kept["fired_at"]) + shift
        if is_ending and isinstance(step.action, Stop | Restart | Kill):
            due = fired_at + step.action.timeout + END_WAIT
            steps.append(StepState(fired_at=fired_at, not_before=due))
        else:
            steps.append(StepState(Phase.FIRED, fired_at=fired_at, not_before=not_before))
    return key, Ladder(invocation, tuple(steps), finite(entry["episode_since"]) + shift)


def _refused(entry: Mapping[str, Any]) -> tuple[tuple[Invocation, str], Refused]:
    return (parse_invocation(entry), str(entry["action"])), Refused(str(entry["reason"]))


def _moved(times: Iterable[float], shift: float) -> tuple[float, ...]:
    return tuple(finite(at) + shift for at in times)


# --- on disk ------------------------------------------------------------------------------------


class Store:
    """The state files of one watch in `directory`; if that is None, nothing is saved.

    Args:
        directory: where the state is.
        runtime: where what is written ahead is; `directory` if it is None.
    """

    def __init__(self, directory: Path | None, runtime: Path | None = None) -> None:
        self._path = None if directory is None else directory / FILE_NAME
        self._ahead = None if directory is None else Ahead((runtime or directory) / AHEAD_NAME)
        self._is_apart = runtime is not None
        self._boot_id = ""
        self._saved: dict[str, Any] | None = None
        self._is_trusted = True

    def load(self, policies: Sequence[Policy], now: Instant, budget: Budget | None = None) -> Remembered:
        """Return the saved state, as it applies to `policies` and the file's `budget`; a new one without a file.

        Raises:
            DamagedStateError: it can't be parsed, and was renamed.
            OSError: it can't be read.
        """
        if self._path is None or self._ahead is None:
            return Remembered()
        self._boot_id = now.boot_id
        owners, self._is_trusted = trusted_owners(), True
        if (why := distrust(self._path, owners) or distrust(self._ahead.path, owners)) is not None:
            trouble = (
                f"the state in {self._path.parent} is neither used nor saved, so all policies {_WAIT}, and what was to "
                f"be set back stays as it is: {why}"
            )
            self._is_trusted = False
            return replace(decode({}, policies, now.monotonic, budget=budget), trouble=trouble)
        # now, as nothing is to be done yet; if that fails, the first save reports it
        with suppress(OSError):
            if self._is_apart:
                self._ahead.open()
        try:
            records = list(self._ahead.read(now.boot_id))
        except OSError:
            records = [None]
        document: dict[str, Any] | None = None
        shift, is_of_this_boot = 0.0, True
        # a state in there is the newer one
        if not any(record is not None and isinstance(record.get("state"), dict) for record in records):
            try:
                then, document = _read(self._path)
                shift, is_of_this_boot = now.shift_from(then), then.boot_id == now.boot_id
            except FileNotFoundError:
                if not records:
                    return Remembered()
            except _MALFORMED as error:
                aside = self._path.with_name(f"{FILE_NAME}.damaged-{int(now.realtime)}")
                self._path.replace(aside)
                raise DamagedStateError(
                    f"{self._path} can't be understood ({error}): it is set aside as {aside}, "
                    f"and all policies {_WAIT}"
                ) from None
        document = apply(records, {"version": VERSION} if document is None else document)
        if not is_of_this_boot:
            end_by_reboot(document)
        return decode(document, policies, now.monotonic, shift=shift, budget=budget)

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
        if self._path is None or self._ahead is None or not self._is_trusted:
            return
        document = encode(remembered, policies)
        if document == self._saved:
            return
        self._boot_id = now.boot_id
        state = document | {
            "monotonic": now.monotonic,
            "realtime": now.realtime,
            "boot_id": now.boot_id,
        }
        if ahead:
            self._saved = None  # the first one has to follow, whatever comes of it
            self._ahead.append({"state": state}, self._boot_id)
        else:
            replace_file(self._path, json.dumps(state), durable=True)
            self._ahead.clear()
            self._saved = document

    def note(self, record: Mapping[str, Any]) -> None:
        """Write a change to what was saved, as `ahead.apply` reads it, without waiting for the disk.

        Raises:
            OSError: it can't be written.
        """
        if self._ahead is not None and self._is_trusted:
            self._ahead.append(record, self._boot_id)

    def close(self) -> None:
        if self._ahead is not None:
            self._ahead.close()


def _read(path: Path) -> tuple[Instant, dict[str, Any]]:
    document = load(path.read_bytes())
    then = Instant(finite(document["monotonic"]), finite(document["realtime"]), str(document["boot_id"]))
    return then, document
