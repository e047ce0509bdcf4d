"""A small chart of one measure over time in characters, with its thresholds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_LINE = "┄"


def draw(
    points: Sequence[tuple[float, float]],
    thresholds: Sequence[tuple[str, float]],
    spell: Callable[[float], str],
    width: int = 60,
    height: int = 8,
) -> list[str]:
    """Return the lines of the chart, the highest first; none without points.

    Args:
        points: (time, value), in the order of time.
        thresholds: (label, value) of horizontal lines.
        spell: the text of a value beside the axis.
        width: columns for the bars; each is the mean of its share of the time.
        height: rows for the bars.
    """
    if not points:
        return []
    columns = _columns(points, width)
    top = max(*(value for value in columns if value is not None), *(value for _, value in thresholds), 1e-9)
    top *= 1.02  # so that the highest line lies within
    rows_of_lines: dict[int, list[str]] = {}
    for label, value in thresholds:
        row = min(height - 1, int(value / top * height))
        rows_of_lines.setdefault(row, []).append(f"{label} {spell(value)}")
    margin = len(spell(top))
    lines = []
    for row in reversed(range(height)):
        background = _LINE if row in rows_of_lines else " "
        bar = "".join(_cell(value, top, row, height, background) for value in columns)
        axis = spell(top) if row == height - 1 else ""
        note = f" {', '.join(rows_of_lines[row])}" if row in rows_of_lines else ""
        lines.append(f"{axis:>{margin}} │{bar}{note}".rstrip())
    lines.append(f"{spell(0):>{margin}} └{'─' * width}")
    return lines


def _columns(points: Sequence[tuple[float, float]], width: int) -> list[float | None]:
    """Return the mean value of each column's share of the time; None where there is no point."""
    start, end = points[0][0], points[-1][0]
    shares: list[list[float]] = [[] for _ in range(width)]
    for at, value in points:
        place = 0 if end == start else int((at - start) / (end - start) * width)
        shares[min(width - 1, place)].append(value)
    means = [mean(share) if share else None for share in shares]
    if len(points) < width:  # fewer looks than columns: each stands until the next
        for place in range(1, width):
            means[place] = means[place - 1] if means[place] is None else means[place]
    return means


def _cell(value: float | None, top: float, row: int, height: int, background: str) -> str:
    if value is None:
        return background
    eighths = round((value / top * height - row) * 8)
    return background if eighths <= 0 else _EIGHTHS[min(8, eighths)]
