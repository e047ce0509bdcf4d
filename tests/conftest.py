"""Hypothesis, alike for every suite: no deadlines (guests and CI are slow).

`make check` tries a few examples each time, others than the last time; CI tries many, always the same.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

for directory in ("unit", "days"):  # for the corpora; importlib mode doesn't
    sys.path.insert(0, str(Path(__file__).parent / directory))

settings.register_profile(
    "check", deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "ci", settings.get_profile("check"), max_examples=100, derandomize=True, database=None, print_blob=True
)
settings.load_profile("ci" if os.environ.get("CI") else "check")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Let the collector pass over what stays anyway: modules and thousands of tests, a fifth of a second each time."""
    gc.collect()
    gc.freeze()
