"""A file for each question; its `ask` measures, in the guest, and returns the answer."""

NAMES = (
    "memory",
    "idle",
    "commands",
    "reaction",
    "bus",
    "sample",
    "pss",
    "guard",
    "history",
    "replay",
    "growth",
)
"""In the order in which they are asked: the number of units only grows until the last one."""
