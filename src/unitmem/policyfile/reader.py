"""Policy files: from YAML to policies, or to every mistake with its place and what to write instead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import yaml

from unitmem.errors import PolicyFileError, Problem
from unitmem.policy.action import Action
from unitmem.policy.keys import Part, Syntax, required
from unitmem.policy.model import Budget, Pick, Policy, PolicyFile, Step
from unitmem.policyfile.actions import ActionReader
from unitmem.policyfile.language import BUDGET_KEYS, FILE_KEYS, PICK_KEYS, POLICY_KEYS, STEP_KEYS
from unitmem.policyfile.nodes import (
    LOADER,
    NOT_UTF8,
    NULL_TAG,
    PolicyProblemsError,
    beyond_policies,
    yaml_problem,
)
from unitmem.policyfile.warnings import Code, Ignore, ignores
from unitmem.text import format_span, quoted
from unitmem.unit import Unit, is_glob

MAX_FILE_SIZE = 1 << 20  # a file of policies is written by hand; more is a mistake

_EXAMPLE = "it needs at least `policies:`, a list; see unitmem.yaml(5)"
_DEEPEST_PART = len(("policies", 0, "steps", 0, "when"))
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


Keys = tuple[str | int, ...]
"""The keys and indices that lead to a part of a file: `("policies", 0, "steps", 1, "when")`."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A policy file without mistakes, and its warnings."""

    file: PolicyFile
    doubts: tuple[Problem, ...]
    """Every warning, including those that a comment silences."""
    ignores: tuple[Ignore, ...] = ()
    places: Mapping[Keys, tuple[int, int]] = field(default_factory=dict)
    """The line and column of each part, from 1."""

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The warnings that no comment silences."""
        return tuple(doubt for doubt in self.doubts if not is_silenced(doubt, self.ignores))

    def place(self, *keys: str | int) -> tuple[int, int]:
        """Return the line and column of a part; if it isn't in the file, those of the part that would contain it."""
        while keys and keys not in self.places:
            keys = keys[:-1]
        return self.places.get(keys, (1, 1))


def is_silenced(doubt: Problem, ignores: Iterable[Ignore]) -> bool:
    """Return whether one of the comments silences `doubt`."""
    return any(ignore.silences(doubt.line, doubt.code) for ignore in ignores)


def load_policies(path: str | PathLike[str]) -> PolicyFile:
    """Read a policy file for `evaluate`.

    Raises:
        PolicyFileError: it can't be read, or has mistakes: `problems` has each with its line and column.
    """
    return load(Path(path)).file


def load(path: Path) -> Checked:
    """Read the policy file `path`.

    Raises:
        PolicyFileError: it can't be read.
        PolicyProblemsError: it has mistakes, all of which are in the error.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_SIZE + 1)
    except OSError as error:
        raise PolicyFileError(
            f"{path}: {error.strerror}",
            hint="name a policy file; the service unitmem@NAME reads /etc/unitmem/NAME.yaml",
        ) from None
    return parse(data, str(path))


def parse(data: bytes | str, path: str = "<policy>") -> Checked:
    """Parse the YAML text `data` of a policy file; `path` is for messages.

    Raises:
        PolicyProblemsError: it has mistakes.
    """
    if len(data) > MAX_FILE_SIZE:
        raise PolicyProblemsError(
            path, [Problem(1, 1, "the file is larger than 1M, which no policy file is: name another")]
        )
    if isinstance(data, bytes) and data.startswith(_UTF16_MARKS):
        raise PolicyProblemsError(path, [Problem(1, 1, NOT_UTF8)])
    try:
        beyond = beyond_policies(data)
        node = None if beyond else yaml.compose(data, Loader=LOADER)
    except yaml.YAMLError as error:
        raise PolicyProblemsError(path, [yaml_problem(error, data)]) from None
    except UnicodeError:
        raise PolicyProblemsError(path, [Problem(1, 1, NOT_UTF8)]) from None
    if beyond:
        raise PolicyProblemsError(path, [beyond])
    reader = _Reader()
    file = reader.file(node)
    if node is None or reader.problems or file is None:
        raise PolicyProblemsError(path, reader.problems)
    return Checked(file, tuple(sorted(reader.warnings)), ignores(data, LOADER), dict(_places(node, ())))


def _places(node: yaml.Node, keys: Keys) -> Iterator[tuple[Keys, tuple[int, int]]]:
    """Yield the place of every part of a file, down to the parts of steps."""
    yield keys, (node.start_mark.line + 1, node.start_mark.column + 1)
    if len(keys) == _DEEPEST_PART:
        return
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _places(value, (*keys, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _places(item, (*keys, index))


class _Reader(ActionReader):
    """A reader of policies. A method returns None where it has reported a problem, and reading goes on."""

    def part(self, node: yaml.Node, part: Part) -> Policy | Step | Action | Budget | Pick | None:
        match part:
            case Part.POLICY:
                return self.policy(node)
            case Part.STEP:
                return self.step(node)
            case Part.ACTION:
                return self.action(node)
            case Part.BUDGET:
                return self.budget(node)
            case Part.PICK:
                return self.pick(node)

    def file(self, node: yaml.Node | None) -> PolicyFile | None:
        if node is None or node.tag == NULL_TAG:
            self.problems.append(Problem(1, 1, f"the file is empty: {_EXAMPLE}"))
            return None
        block = self.block(node, FILE_KEYS, "a policy file")
        if block is None:
            return None
        values = block.values
        policies = values["policies"] or []
        self.unique_names(block.nodes.get("policies"), policies)
        self.ticks(values["interval"])
        return PolicyFile(tuple(policies), values["interval"], values["budget"])

    def policy(self, node: yaml.Node) -> Policy | None:
        block = self.block(node, POLICY_KEYS, "a policy")
        if block is None:
            return None
        nodes, values = block.nodes, block.values
        units, steps = values["units"] or [], values["steps"] or []
        self.kinds_can(nodes.get("units"), units, nodes.get("steps"), steps)
        clear, budget = values["clear"], values["budget"]
        if clear is not None and any(step.when == clear for step in steps):
            self.problem(
                nodes["clear"],
                "a step has this condition too, and would never fire: write a milder one, "
                "such as a lower threshold with <",
            )
        if budget is not None and steps and not any(step.action.acts for step in steps):
            self.problem(nodes["budget"], "every step only logs, which costs no budget: leave it out")
        if block.failed & set(required(POLICY_KEYS)):
            return None
        policy = Policy(
            name=values["name"],
            units=tuple(units),
            steps=tuple(steps),
            excluded=tuple(values["except"] or ()),
            unprotect=frozenset(values["unprotect"] or ()),
            mode=values["mode"],
            clear=clear,
            cooldown=values["cooldown"],
            budget=budget,
            line=node.start_mark.line + 1,
        )
        for unprotected in sorted(policy.unprotect):
            if not policy.governs(Unit(unprotected)):
                self.warning(
                    nodes["unprotect"],
                    Code.UNPROTECT_UNGOVERNED,
                    f"{unprotected} is unprotected, but this policy does not govern it: add it to `units`",
                )
        return policy

    def step(self, node: yaml.Node) -> Step | None:
        block = self.block(node, STEP_KEYS, "a step")
        if block is None:
            return None
        action, repeat = block.values["do"], block.values["repeat"]
        if action is not None and repeat is not None and not action.is_repeatable:
            self.problem(
                block.nodes["repeat"],
                f"to {action.name} again in one episode has no effect: leave `repeat` out",
            )
        pick = block.values["pick"]
        if action is not None and pick is not None and not action.acts:
            self.problem(
                block.nodes["pick"], f"`{action.name}` does nothing to the unit it picks: leave `pick` out"
            )
        if block.failed:
            return None
        line = node.start_mark.line + 1
        return Step(block.values["when"], action, block.values["for"], repeat, line, pick)

    def pick(self, node: yaml.Node) -> Pick | None:
        """Read a pick: a measure alone, or a mapping."""
        if isinstance(node, yaml.ScalarNode):
            by = self.value(node, Syntax.RANK, "pick")
            return None if by is None else Pick(by)
        block = self.block(node, PICK_KEYS, "a pick")
        if block is None or block.failed:
            return None
        return Pick(block.values["by"], tuple(block.values["avoid"] or ()), block.values["settle"])

    def budget(self, node: yaml.Node) -> Budget | None:
        block = self.block(node, BUDGET_KEYS, "a budget")
        return None if block is None or block.failed else Budget(**block.values)

    # --- what parts have to do with each other ---

    def kinds_can(
        self,
        units_node: yaml.Node | None,
        units: Sequence[str],
        steps_node: yaml.Node | None,
        steps: Sequence[Step],
    ) -> None:
        """Report actions that can't be done to any of the kinds of unit that the patterns match."""
        kinds = {pattern.rpartition(".")[2] for pattern in units}
        if not isinstance(steps_node, yaml.SequenceNode) or any(is_glob(kind) for kind in kinds):
            return
        if units_node is None or not units:
            return
        for step, node in zip(steps, steps_node.value, strict=False):
            possible, what = step.action.kinds
            if kinds.isdisjoint(possible) and step.line == node.start_mark.line + 1:
                self.problem(node, f"{what}, and this policy's units are of the kind {quoted(sorted(kinds))}")

    def ticks(self, interval: float) -> None:
        """Report slopes over spans that have too few ticks."""
        for node, comparison in self.slopes:
            if comparison.span is None or comparison.function is None:
                continue
            ticks = comparison.function.least_ticks
            least = ticks * interval
            if comparison.span < least:
                self.problem(
                    node,
                    f"`{comparison.subject}` covers fewer than {ticks} ticks of "
                    f"{format_span(interval)}: write a span of {format_span(least)} or more",
                )

    def unique_names(self, node: yaml.Node | None, policies: Sequence[Policy]) -> None:
        seen = set()
        items = node.value if isinstance(node, yaml.SequenceNode) else []
        places = {item.start_mark.line + 1: item for item in items}
        for policy in policies:
            if policy.name in seen:
                self.problem(
                    places[policy.line or 1],
                    f"two policies are named {policy.name!r}: give each a name of its own, which the journal shows",
                )
            seen.add(policy.name)
