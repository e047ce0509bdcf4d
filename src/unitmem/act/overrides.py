"""Properties that a policy has set, and what they were before: to be set back when its episode ends."""

from __future__ import annotations

from unitmem.errors import BusError, InvocationGoneError, NoSuchUnitError
from unitmem.manager.systemd import Manager
from unitmem.policy.actions import SetProperties, spell_property
from unitmem.policy.decision import Decision, Override


def prepare(decision: Decision, manager: Manager | None) -> Override | None:
    """What a `set` will have to set back; None for other decisions, or where it can't be read now.

    To be kept safe before `perform`: nobody else remembers it.
    """
    if not isinstance(decision.action, SetProperties) or not decision.acts or manager is None:
        return None
    try:
        former = manager.size_properties(decision.unit, [name for name, _ in decision.action.properties])
    except (BusError, NoSuchUnitError):
        return None
    return Override(decision.policy, decision.unit, former)


def undo(override: Override, manager: Manager) -> str:
    """Set back what `override` says; a sentence on what was done, to follow the unit's name.

    By the unit's name, since what is set at run time outlives the run that it was set for.

    Raises:
        BusError: it can't be done now.
    """
    spelled = ", ".join(spell_property(name, size) for name, size in override.former.items())
    try:
        manager.set_size_properties(override.unit, override.former)
    except (InvocationGoneError, NoSuchUnitError):
        return f"the unit ended, so nothing is set back to {spelled}"
    return f"set back to {spelled}, as the episode is over"
