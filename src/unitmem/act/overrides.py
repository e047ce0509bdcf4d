"""Reading the values that a `set` overrides, and setting them back."""

from __future__ import annotations

from unitmem.errors import BusError, InvocationGoneError, NoSuchUnitError
from unitmem.manager.systemd import Manager
from unitmem.policy.actions import SetProperties, spell_property
from unitmem.policy.decision import Decision, Override


def prepare(decision: Decision, manager: Manager | None) -> Override | None:
    """Return the values that a `set` is about to override; None for other actions, or where they can't be read.

    They must be saved before `perform`: they are stored nowhere else.
    """
    if not isinstance(decision.action, SetProperties) or not decision.acts or manager is None:
        return None
    try:
        former = manager.size_properties(decision.unit, [name for name, _ in decision.action.properties])
    except (BusError, NoSuchUnitError):
        return None
    return Override(decision.policy, decision.unit, former)


def undo(override: Override, manager: Manager) -> str:
    """Set the properties of `override` back; return a clause that says what was done, to follow the unit's name.

    The unit is addressed by name, since properties set at run time outlive the invocation.

    Raises:
        BusError: they can't be set now.
    """
    spelled = ", ".join(spell_property(name, size) for name, size in override.former.items())
    try:
        manager.set_size_properties(override.unit, override.former)
    except (InvocationGoneError, NoSuchUnitError):
        return f"the unit ended, so nothing is set back to {spelled}"
    return f"set back to {spelled}, as the episode is over"
