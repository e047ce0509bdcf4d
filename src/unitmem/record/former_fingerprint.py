"""The fingerprints of policies in a state file, also in the form in which version 0.1 wrote them."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace

from unitmem.policy.fingerprint import Fingerprint, fingerprint
from unitmem.policy.model import Policy

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


def former_fingerprint(said: object, policy: Policy | None) -> Fingerprint | None:
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
