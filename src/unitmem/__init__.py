"""See what memory systemd units use, and govern it with policies that act before the OOM killer does.

The library is what `__all__` names. Each is imported when it is first used: the commands and the daemon
import this package too, and need none of it.
"""

import importlib

TYPE_CHECKING = False  # as type checkers know it; importing typing would be most of what this file costs
if TYPE_CHECKING:
    from unitmem.errors import (
        BusError,
        BusLostError,
        NoSuchUnitError,
        PolicyFileError,
        UnitmemError,
        UnsupportedSystemError,
    )
    from unitmem.guard.memory_info import MemoryInfo, read_memory_info
    from unitmem.guard.outcome import GuardEnd, GuardOutcome, GuardReading
    from unitmem.guard.process_guard import ProcessGuard
    from unitmem.guard.sampler import Ticks, watch
    from unitmem.kernel.limits import Level
    from unitmem.kernel.process import Process
    from unitmem.measure.sample import HostSample, Sample, UnitSample
    from unitmem.policy.decision import Decision
    from unitmem.policy.engine import evaluate
    from unitmem.policy.model import Policy, PolicyFile
    from unitmem.policy.state import State
    from unitmem.policyfile.reader import load_policies
    from unitmem.system import System

__version__ = "0.1.0"

_MODULES = {
    "BusError": "errors",
    "BusLostError": "errors",
    "Decision": "policy.decision",
    "GuardEnd": "guard.outcome",
    "GuardOutcome": "guard.outcome",
    "GuardReading": "guard.outcome",
    "HostSample": "measure.sample",
    "Level": "kernel.limits",
    "MemoryInfo": "guard.memory_info",
    "NoSuchUnitError": "errors",
    "Policy": "policy.model",
    "PolicyFile": "policy.model",
    "PolicyFileError": "errors",
    "Process": "kernel.process",
    "ProcessGuard": "guard.process_guard",
    "Sample": "measure.sample",
    "State": "policy.state",
    "System": "system",
    "Ticks": "guard.sampler",
    "UnitSample": "measure.sample",
    "UnitmemError": "errors",
    "UnsupportedSystemError": "errors",
    "evaluate": "policy.engine",
    "load_policies": "policyfile.reader",
    "read_memory_info": "guard.memory_info",
    "watch": "guard.sampler",
}

__all__ = [
    "BusError",
    "BusLostError",
    "Decision",
    "GuardEnd",
    "GuardOutcome",
    "GuardReading",
    "HostSample",
    "Level",
    "MemoryInfo",
    "NoSuchUnitError",
    "Policy",
    "PolicyFile",
    "PolicyFileError",
    "Process",
    "ProcessGuard",
    "Sample",
    "State",
    "System",
    "Ticks",
    "UnitSample",
    "UnitmemError",
    "UnsupportedSystemError",
    "evaluate",
    "load_policies",
    "read_memory_info",
    "watch",
]

if not TYPE_CHECKING:  # a type checker would take it that every name is there

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
