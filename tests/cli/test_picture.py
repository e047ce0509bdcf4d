"""Pictures of a measure over time, compared as a whole."""

from __future__ import annotations

import pytest

from unitmem.report.picture import draw

RAMP = [(float(at), float(at)) for at in range(101)]


@pytest.mark.parametrize(
    ("points", "thresholds", "size", "expected"),
    [
        pytest.param(
            RAMP,
            [("step 1:", 40.0), ("step 2:", 80.0)],
            (20, 5),
            """
99 │┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄▁▃▅▇ step 2: 80
   │            ▁▃▅▇████
   │┄┄┄┄┄┄┄┄▁▃▅▇████████ step 1: 40
   │    ▁▃▅▇████████████
   │▁▃▅▇████████████████
 0 └────────────────────
""",
            id="a ramp against two thresholds",
        ),
        pytest.param(
            [(0.0, 5.0), (10.0, 5.0)],
            [],
            (12, 3),
            """
5 │████████████
  │████████████
  │████████████
0 └────────────
""",
            id="fewer looks than columns",
        ),
        pytest.param(
            [(0.0, 0.0)],
            [("step 1:", 10.0)],
            (10, 3),
            """
10 │┄┄┄┄┄┄┄┄┄┄ step 1: 10
   │
   │
 0 └──────────
""",
            id="nothing used",
        ),
        pytest.param([], [("step 1:", 10.0)], (10, 3), "\n\n", id="nothing read"),
    ],
)
def test_the_whole_picture(points, thresholds, size, expected):
    lines = draw(points, thresholds, lambda value: f"{value:.0f}", *size)
    assert "\n".join(["", *lines, ""]) == expected.removesuffix("\n") + ("\n" if lines else "")


def test_no_line_is_wider_than_asked_for():
    for width in (1, 7, 60):
        for line in draw(RAMP, [], lambda value: f"{value:.0f}", width, 4):
            assert len(line) <= width + len("101 │")
