"""What is known of every action: its words, its keys, and what it does to a unit.

The reader of policy files, their JSON Schema, the linter, the journal and `explain` go by it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import MISSING, fields, replace
from functools import cache
from signal import Signals
from typing import Any, ClassVar, Self, get_type_hints

from unitmem.policy.keys import Key
from unitmem.unit import CGROUP_KINDS


class Action:
    """What a step does: a dataclass whose fields are its keys in a policy file, each with a `Key` that describes it."""

    __slots__ = ()

    keyword: ClassVar[str]
    """What it is called in a policy file."""
    severity: ClassVar[int]
    """How harsh it is for the unit, compared with the others."""
    acts: ClassVar[bool] = True
    """Whether it does anything: if not, it costs no budget, and no unit is protected from it."""
    ends_the_unit: ClassVar[bool] = False
    """Whether it ends the invocation that it is done to, so that nothing more is to be done to that."""
    sends: ClassVar[Signals | None] = None
    """The signal by which it ends the unit; None where that is a job of the manager."""
    is_repeatable: ClassVar[bool] = False
    """Whether to do it again in the same episode means anything, as `repeat` has it."""

    meaning: ClassVar[str] = ""
    """A sentence that an editor shows, where its keys don't say it."""
    example: ClassVar[str] = ""
    """It with its keys, as a policy file has it."""
    question: ClassVar[str] = ""
    """What to say to its keyword alone; empty where that is enough."""
    is_flat: ClassVar[bool] = False
    """Whether its keys stand beside its keyword, which is one of them, and not inside of it."""

    verb: ClassVar[str]
    gerund: ClassVar[str]

    def __str__(self) -> str:
        return self.keyword

    @property
    def name(self) -> str:
        """One word for it, as journal fields and statistics have it."""
        return self.keyword

    @property
    def object(self) -> str:
        """What follows the verb."""
        return "it"

    @property
    def terms(self) -> str:
        """For how long, and what then, to follow the object; nothing where there is nothing to say."""
        return ""

    @property
    def noun(self) -> str:
        """What it is, to follow `no` and to precede `failed`."""
        return self.name

    @property
    def kinds(self) -> tuple[frozenset[str], str]:
        """(kinds, why no others): which kinds of unit it can be done to."""
        return CGROUP_KINDS, ""

    @property
    def is_harmless_twice(self) -> bool:
        """Whether the manager may be asked again for what it may have done already, its answer being lost."""
        return True  # it is asked of one run of the unit, or is the same a second time

    @classmethod
    def own_keys(cls) -> tuple[Key, ...]:
        """What may be written for it."""
        return _keys_of(cls)  # type: ignore[arg-type] # mypy looks at the hash of its instances

    @classmethod
    def main_key(cls) -> Key | None:
        """The key whose value may stand for the whole."""
        return next((key for key in cls.own_keys() if key.is_required), None)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """The action with the values that were given, by key."""
        return cls(**{key.field: given[key.name] for key in cls.own_keys() if key.name in given})

    def mistakes(self, given: Container[str]) -> Iterator[tuple[str, str]]:  # noqa: ARG002 - for those that have some
        """(key, message): what can't be meant so, though each value is well written; no key means the whole.

        Args:
            given: the keys that were written.
        """
        yield from ()


@cache
def _keys_of(action: type[Any]) -> tuple[Key, ...]:
    hints = get_type_hints(action, include_extras=True)
    return tuple(
        replace(
            hints[field.name].__metadata__[0],
            field=field.name,
            default=None if field.default is MISSING else field.default,
            is_required=field.default is MISSING,
        )
        for field in fields(action)
    )
