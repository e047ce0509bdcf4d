"""Hypothesis, alike for every suite: no deadlines (guests and CI are slow), and no chance in CI."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent / "unit"))  # for the corpus; importlib mode doesn't

settings.register_profile(
    "loop", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "ci", settings.get_profile("loop"), derandomize=True, database=None, print_blob=True
)
settings.load_profile("ci" if os.environ.get("CI") else "loop")
