"""The keys of each part of a policy file, by which the reader and the JSON Schema are made.

The keys of an action are in its class in `policy.actions`; conditions are in `expression`.
"""

from __future__ import annotations

import re

from unitmem.measure.catalogue import MEASURES
from unitmem.policy.keys import MORE_THAN_NONE, Choice, Count, Items, Key, Part, Span, Syntax
from unitmem.policy.model import DEFAULT_INTERVAL, DEFAULT_SETTLE, Mode
from unitmem.text import format_span

MIN_INTERVAL, MAX_INTERVAL = 0.1, 3600.0

UNIT_CHARACTER = r"[A-Za-z0-9:_.\\@-]"
UNIT_GLOB = re.compile(rf"(?:{UNIT_CHARACTER}|[*?]|\[!?{UNIT_CHARACTER}+\])+", re.ASCII)
POLICY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)

_BUDGET = "The most actions in a span of time."

FILE_KEYS = (
    Key(
        "interval",
        Span(
            MIN_INTERVAL,
            MAX_INTERVAL,
            "an interval of {value} is out of range: write one from 100ms to 1h, such as 2s",
        ),
        "The time between two ticks; kernel events and the service manager cause earlier ones. "
        f"From {format_span(MIN_INTERVAL)} to {format_span(MAX_INTERVAL)}.",
        DEFAULT_INTERVAL,
    ),
    Key("budget", Part.BUDGET, f"{_BUDGET} For all policies and units together."),
    Key(
        "policies",
        Items(Part.POLICY),
        "Each is a ladder of steps over a set of units.",
        is_required=True,
    ),
)
POLICY_KEYS = (
    Key(
        "name",
        Syntax.POLICY_NAME,
        "It names the policy in the journal. Unique in its file.",
        is_required=True,
    ),
    Key(
        "units",
        Items(Syntax.UNIT_PATTERN, 'Such as web.service or "api@*.service".'),
        "Names with their kind, or shell globs in quotes. Each unit that matches is governed on its own.",
        is_required=True,
    ),
    Key(
        "except",
        Items(Syntax.UNIT_PATTERN, "A name or a glob."),
        "Units that match here are not governed.",
    ),
    Key(
        "unprotect",
        Items(Syntax.UNIT_NAME, "A name, not a glob."),
        "Protected units that this policy may act on nevertheless, each named exactly.",
    ),
    Key("mode", Choice(Mode), "`observe` logs every decision, but performs nothing.", Mode.ACT),
    Key(
        "steps",
        Items(Part.STEP),
        "The ladder, mildest step first. Each fires once an episode.",
        is_required=True,
    ),
    Key(
        "clear",
        Syntax.CONDITION,
        "What ends an episode; without it, that no step's condition holds.",
        examples=("workingset < 60% of limit",),
    ),
    Key("cooldown", Span(), "After an episode, how long no new one begins for that unit.", 0.0),
    Key(
        "budget",
        Part.BUDGET,
        f"{_BUDGET} For each unit on its own, or for all together if a step has `pick`.",
    ),
)
STEP_KEYS = (
    Key(
        "when",
        Syntax.CONDITION,
        "Comparisons of measures, joined by `and`, `or`, `not` and parentheses. What is unknown is not "
        f"true. Measures: {', '.join(MEASURES)}; and those of its slice's cgroup, as slice.anon.",
        is_required=True,
        examples=(
            "unreclaimable > 85% of limit",
            "process.pss > 512M",
            "pressure.full.avg10 > 40%",
            "events.oom_kill > 0 in 10min",
        ),
    ),
    Key("for", Span(), "How long the condition has to hold, at every tick. Without it, once is enough.", 0.0),
    Key(
        "repeat",
        Span(MORE_THAN_NONE, refusal="`repeat` must be greater than 0: write a span such as 5min"),
        "How long after it fired it fires again, while the condition holds.",
    ),
    Key(
        "pick",
        Part.PICK,
        "Act on one of all the units for which the step is due: the one with the most of this measure.",
    ),
    Key(
        "do",
        Part.ACTION,
        "What is then done, to the run of the unit that breached and to no other.",
        is_required=True,
    ),
)
PICK_KEYS = (
    Key(
        "by",
        Syntax.RANK,
        "The measure of the unit's cgroup, or the growth or leak of one, of which the greatest is picked.",
        is_required=True,
        examples=("footprint", "growth(footprint, 10min)"),
    ),
    Key(
        "avoid",
        Items(Syntax.UNIT_PATTERN, "A name or a glob."),
        "Units that match here are picked only when no other is left.",
    ),
    Key(
        "settle",
        Span(),
        "After an action has worked, how long to wait until `for` starts over for the others.",
        DEFAULT_SETTLE,
    ),
)
BUDGET_KEYS = (
    Key("actions", Count(10_000), "How many; `log` does not count.", is_required=True),
    Key(
        "per",
        Span(MORE_THAN_NONE, refusal="`per` must be greater than 0: write a span such as 1h"),
        "The span of time.",
        is_required=True,
    ),
)
