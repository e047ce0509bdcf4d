"""Steps of two policies that undo each other on the same unit, as far as that is certain from the text. Pure."""

from __future__ import annotations

from unitmem.measure.sample import Sample
from unitmem.policy.actions import Freeze, Restart, SetProperties, Stop, Thaw
from unitmem.policy.model import Mode, Policy, Step
from unitmem.simulate.thresholds import exclude_each_other, rung_of
from unitmem.unit import Unit, is_glob


def shared_unit(policy: Policy, other: Policy, machine: Sample | None) -> str | None:
    """Return a unit on which both policies act, or a glob that both have; None if none is known."""
    if Mode.OBSERVE in (policy.mode, other.mode):
        return None
    here = () if machine is None else tuple(sample.unit for sample in machine.units.values())
    # a glob stands for any name that it matches
    named = [
        (pattern, Unit(pattern.replace("*", "0").replace("?", "0")))
        for pattern in (*policy.units, *other.units)
    ]
    both = ((unit.name, unit) for unit in here)
    for name, unit in (*both, *sorted(named, key=lambda each: is_glob(each[0]))):
        if policy.governs(unit) and other.governs(unit):
            return name
    return None


def contradiction(step: Step, other: Step) -> bool:
    """Return whether one of two steps, of different policies, undoes what the other does while both are due.

    Conditions that exclude each other by a measure that they share don't contradict: one freezes below a threshold,
    the other thaws above it.
    """
    match step.action, other.action:
        case SetProperties(ours), SetProperties(theirs):
            values = dict(theirs)
            is_opposite = any(name in values and values[name] != value for name, value in ours)
            return is_opposite and not exclude_each_other(step.when, other.when)
        case (Freeze(), Thaw()) | (Thaw(), Freeze()):
            return not exclude_each_other(step.when, other.when)
        case Stop(), Restart():
            return _comes_no_later(step, other)
        case Restart(), Stop():
            return _comes_no_later(other, step)
        case _:
            return False


def _comes_no_later(stop: Step, restart: Step) -> bool:
    """Return whether `stop` is due whenever `restart` is; a stop at a higher threshold is a ladder."""
    if stop.hold > restart.hold:
        return False
    if stop.when == restart.when:
        return True
    low, high = rung_of(stop.when), rung_of(restart.when)
    return low is not None and high is not None and low.subject == high.subject and low.height <= high.height
