"""See what memory systemd units use, and govern it with policies that act before the OOM killer does.

The library is what `__all__` names. Each is imported when it is first used: the commands and the daemon
import this package too, and need none of it.
"""

import importlib

TYPE_CHECKING = False  # as type checkers know it; importing typing would be most of what this file costs
if TYPE_CHECKING:
    from unitmem.guard.memory_info import MemoryInfo, read_memory_info
    from unitmem.guard.outcome import GuardEnd, GuardOutcome, GuardReading
    from unitmem.guard.process_guard import ProcessGuard
    from unitmem.guard.sampler import Ticks, watch

__version__ = "0.1.0"

__all__ = [
    "GuardEnd",
    "GuardOutcome",
    "GuardReading",
    "MemoryInfo",
    "ProcessGuard",
    "Ticks",
    "read_memory_info",
    "watch",
]

_MODULES = {
    "GuardEnd": "guard.outcome",
    "GuardOutcome": "guard.outcome",
    "GuardReading": "guard.outcome",
    "MemoryInfo": "guard.memory_info",
    "ProcessGuard": "guard.process_guard",
    "Ticks": "guard.sampler",
    "read_memory_info": "guard.memory_info",
    "watch": "guard.sampler",
}

if not TYPE_CHECKING:  # a type checker would take it that every name is there

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
