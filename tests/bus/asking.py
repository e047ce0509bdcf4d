"""Asking a watch over its socket, in a test that runs its loop, or has it answer without one."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from unitmem.cli.watches import ask
from unitmem.daemon.watch import Watch


def answered(watch: Watch, root: Path, instance: str, method: str, **parameters: object) -> dict[str, Any]:
    """Return the answer of a watch whose loop doesn't run.

    Raises:
        UnitmemError: it refuses.
    """
    answers: list[Any] = []
    asking = threading.Thread(
        target=lambda: answers.extend(ask(root, instance, method, timeout=60, **parameters))
    )
    asking.start()
    while asking.is_alive():
        time.sleep(0.001)
        watch.control.serve()
    asking.join()
    (answer,) = answers
    if answer.error is not None:
        raise answer.error
    return answer.parameters
