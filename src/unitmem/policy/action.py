"""The base of all actions: keys, wording, and effect on a unit, as data.

The reader of policy files, their JSON Schema, the linter, the journal and `explain` use it.
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
    """The action of a step: a dataclass whose fields are its keys in a policy file, each annotated with its `Key`."""

    __slots__ = ()

    keyword: ClassVar[str]
    """Its name in a policy file."""
    severity: ClassVar[int]
    """A rank: the higher, the harsher for the unit."""
    acts: ClassVar[bool] = True
    """Whether it does more than log: if not, it costs no budget, and is allowed on protected units."""
    ends_the_unit: ClassVar[bool] = False
    """Whether it ends the invocation, so that no other action follows on that."""
    sends: ClassVar[Signals | None] = None
    """The signal that ends the unit; None where a job of the manager does."""
    is_repeatable: ClassVar[bool] = False
    """Whether a step with this action may have `repeat`."""

    meaning: ClassVar[str] = ""
    """The description that an editor shows."""
    example: ClassVar[str] = ""
    """An example with its keys, as in a policy file."""
    question: ClassVar[str] = ""
    """The message where only its keyword is given; empty where that is enough."""
    is_flat: ClassVar[bool] = False
    """Whether its keys stand beside its keyword, rather than in a mapping below it."""

    verb: ClassVar[str]
    gerund: ClassVar[str]

    def __str__(self) -> str:
        return self.keyword

    @classmethod
    def ends_by_job(cls) -> bool:
        """Return whether it ends the unit by a job of the manager, which may refuse that, and not by a signal."""
        return cls.ends_the_unit and cls.sends is None

    @property
    def name(self) -> str:
        """The one word for it in journal fields and metrics."""
        return self.keyword

    @property
    def object(self) -> str:
        """The words that follow the verb."""
        return "it"

    @property
    def terms(self) -> str:
        """The words for its timeout and last resort, which follow the object; may be empty."""
        return ""

    @property
    def noun(self) -> str:
        """The noun for it, as in `no stop` and `stop failed`."""
        return self.name

    @property
    def kinds(self) -> tuple[frozenset[str], str]:
        """(kinds, reason): the kinds of unit that it can be done to, and why no others."""
        return CGROUP_KINDS, ""

    @property
    def asks_manager(self) -> bool:
        """Whether it is requested of the manager, which may keep one waiting."""
        return self.acts

    @property
    def is_harmless_twice(self) -> bool:
        """Whether it may be requested again when the manager's answer was lost."""
        return True  # it is asked of one run of the unit, or is the same a second time

    @classmethod
    def own_keys(cls) -> tuple[Key, ...]:
        """Return its keys in a policy file."""
        return _keys_of(cls)  # type: ignore[arg-type] # mypy looks at the hash of its instances

    @classmethod
    def main_key(cls) -> Key | None:
        """Return the key whose value may be written in place of the whole mapping; None if there is none."""
        return next((key for key in cls.own_keys() if key.is_required), None)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Return the action with the given values, by key."""
        return cls(**{key.field: given[key.name] for key in cls.own_keys() if key.name in given})

    def mistakes(self, given: Container[str]) -> Iterator[tuple[str, str]]:  # noqa: ARG002 - for those that have some
        """Yield (key, message) for each wrong combination of valid values; an empty key means the whole action.

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
