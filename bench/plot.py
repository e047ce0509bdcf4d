"""Bars as SVG, for docs/performance.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from bench.table import text

WIDTH = 720
LABELS = 200
"""Pixels for the names at the left."""
VALUES = 70
"""Pixels for the figure behind the longest bar."""
BAR = 16
GAP = 14
TOP = 44
OURS = "#2563a8"
OTHERS = "#9aa5b1"


def bars(
    title: str, unit: str, groups: Sequence[tuple[str, Mapping[str, float]]], *, is_log: bool = False
) -> str:
    """Horizontal bars: groups with a name, in each the bars with theirs; those of unitmem stand out.

    A logarithmic axis begins at a power of ten below the least figure.
    """
    figures = [value for _, group in groups for value in group.values() if value > 0]
    most = max(figures)
    least = 10.0 ** math.floor(math.log10(min(figures)) - 0.01)

    def length(value: float) -> float:
        room = WIDTH - LABELS - VALUES
        if not is_log:
            return room * value / most
        return room * math.log(max(value, least) / least) / math.log(most / least)

    axis = f"{unit}, logarithmic" if is_log else unit
    shapes = [_text(8, 20, title, weight="bold"), _text(8, 36, axis, fill="#667")]
    y = TOP
    for label, group in groups:
        if label:
            shapes.append(_text(8, y + BAR, label, weight="bold"))
            y += BAR + 6
        for name, value in group.items():
            fill = OURS if name.startswith("unitmem") else OTHERS
            width = max(1.0, length(value))
            shapes.append(_text(LABELS - 8, y + 12, name, anchor="end"))
            shapes.append(
                f'<rect x="{LABELS}" y="{y}" width="{width:.1f}" height="{BAR - 3}" fill="{fill}"/>'
            )
            shapes.append(_text(LABELS + width + 5, y + 12, text(value)))
            y += BAR + 2
        y += GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" '
        'font-family="sans-serif" font-size="12">\n'
        f'<rect width="{WIDTH}" height="{y}" fill="#fff"/>\n' + "\n".join(shapes) + "\n</svg>\n"
    )


def _text(
    x: float, y: float, words: str, *, anchor: str = "start", weight: str = "normal", fill: str = "#223"
) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{fill}">{escape(words)}</text>'
