"""A corpus of policy files, each broken in its own way: the reader and the schema are held against it.

Each says in which line it is told, words that name the way out, and whether a JSON Schema can see it.
A schema sees shapes, keys, words and quantities; it sees neither what YAML itself refuses or hides
(a key given twice), nor a whole condition, nor what two places of a file say of each other.
"""

from __future__ import annotations

from typing import NamedTuple

GOOD = """\
interval: 2s
budget: {actions: 20, per: 1d}
policies:
  - name: web
    units: ["web@*.service", db.service]
    except: ["web@0.service"]
    unprotect: ["db.service"]
    mode: observe
    clear: "anon < 1G"
    cooldown: 10min
    budget: {actions: 3, per: 1h}
    steps:
      - {when: "workingset > 70% of limit", for: 1min, repeat: 5min, do: log}
      - {when: 'growth(anon, 10min) > 5M/min', do: {reclaim: {size: 64M, timeout: 10s}}}
      - {when: 'eta(limit, 10min) < 5min', do: {set: {MemoryHigh: 512M, MemorySwapMax: infinity}}}
      - {when: process.pss > 512M, do: {signal: SIGTERM, to: largest, timeout: 5s, else: kill}}
      - {when: "pressure.full.avg10 > 40%", do: {signal: SIGUSR1, to: main}}
      - {when: "swap > 1G", do: freeze}
      - {when: "swap < 1M", do: {thaw: {timeout: 3s}}}
      - {when: "events.oom > 0 in 1h", do: {run: {command: ["/bin/dump", "--all"], timeout: 1min}}}
      - {when: "anon > 80% of limit", do: {restart: {timeout: 2min, else: kill}}}
      - when: "anon > 90% of limit"
        pick: {by: footprint, avoid: ["web@9.service"], settle: 45s}
        do: {stop: {timeout: 30s, else: kill}}
      - {when: "headroom < 64M", do: kill}
"""
ALONE = """\
policies:
  - name: one
    units: [{units}]
    steps: [{{when: swap > 1G, do: {do}}}]
"""
SEEN, UNSEEN = True, False


class Malformed(NamedTuple):
    """One broken file."""

    what: str
    data: str | bytes
    line: int
    says: str
    """A part of the message in that line, which names the way out."""
    schema: bool
    """Whether the schema refuses it too."""
    column: int | None = None


def change(
    what: str, old: str, new: str, says: str, schema: bool, column: int | None = None, below: int = 0
) -> Malformed:
    """The good file with `old` replaced; told in the line where that stands, or so many lines below it."""
    assert GOOD.count(old) == 1, (what, GOOD.count(old))
    line = GOOD[: GOOD.index(old)].count("\n") + 1 + below
    return Malformed(what, GOOD.replace(old, new), line, says, schema, column)


def when(what: str, condition: str, says: str, schema: bool, column: int | None = None) -> Malformed:
    """The good file with another condition in double quotes; the column is the one within it, from 0."""
    column = None if column is None else len('      - when: "') + column + 1
    return change(what, "anon > 90% of limit", condition, says, schema, column)


def do(what: str, action: str, says: str, schema: bool) -> Malformed:
    """The good file with another last action."""
    return change(what, "do: kill}", f"do: {action}}}", says, schema)


def alone(what: str, units: str, action: str, says: str) -> Malformed:
    """One policy of one step, whose units can't take its action."""
    return Malformed(what, ALONE.format(units=units, do=action), 4, says, UNSEEN)


FILES = [
    Malformed("an empty file", "", 1, "needs at least `policies:`", SEEN, 1),
    Malformed("only a comment", "# nothing\n", 1, "needs at least `policies:`", SEEN),
    Malformed("only the start of a document", "---\n", 1, "needs at least `policies:`", SEEN),
    Malformed("only a null", "null\n", 1, "needs at least `policies:`", SEEN),
    Malformed("a list at top level", "- name: web\n", 1, "with the keys `interval`", SEEN, 1),
    Malformed("a word", "web\n", 1, "with the keys `interval`", SEEN, 1),
    Malformed("only a number", "42\n", 1, "with the keys `interval`", SEEN),
    Malformed("no policies", "interval: 2s\n", 1, "needs `policies`: add it", SEEN, 1),
    Malformed("an empty list of policies", "policies: []\n", 1, "give it an entry", SEEN, 11),
    Malformed("policies of nothing", "policies:\n", 1, "start each of its entries with `- `", SEEN),
    Malformed("policies as a mapping", "policies: {a: b}\n", 1, "start each of its entries with `- `", SEEN),
    Malformed("policies as a word", "policies: web\n", 1, 'write ["web"]', SEEN),
    Malformed("a policy without keys", "policies: [{}]\n", 1, "needs `name`: add it", SEEN),
    Malformed("a policy that is null", "policies: [~]\n", 1, "with the keys `name`", SEEN),
    Malformed(
        "two policies of one name",
        GOOD + GOOD.partition("policies:\n")[2],
        GOOD.count("\n") + 1,
        "give each a name of its own",
        UNSEEN,
    ),
    Malformed("larger than any policy", "#" * (2 << 20), 1, "name another", SEEN),
]
YAML = [
    Malformed(
        "two keys in one line",
        ALONE.format(units="a.service", do="log")
        .replace("[{", "\n      - ")
        .replace("}]", "")
        .replace(", do", "\n        do")
        .replace("log", "stop: {timeout: 30s}"),
        6,
        "`do: stop:` names two keys at once: write `do: {stop: …}`",
        UNSEEN,
        9,
    ),
    Malformed(
        "a dash before each key of a step",
        ALONE.format(units="a.service", do="log")
        .replace("[{", "\n      - ")
        .replace("}]", "")
        .replace(", do", "\n      - do"),
        6,
        "take it from `do`",
        SEEN,
        9,
    ),
    change("a glob without quotes", '"web@*.service"', "*.service", 'such as "*.service"', UNSEEN, 13),
    change("a glob that starts a tag", '"web@*.service"', "!a*.service", "or quote the value", UNSEEN),
    change("a glob that starts a list", '["web@*.service"', "[[!a]b.service", "quote the pattern", UNSEEN),
    change("a glob of a question mark", '"web@*.service"', "? .service", "into quotes", SEEN),
    change("an at sign first", '"web@*.service"', "@web.service", "into quotes", UNSEEN),
    change("a percent sign first", "interval: 2s", "interval: %2s", "into quotes", UNSEEN, 11),
    change("a backtick first", "name: web", "name: `web`", "into quotes", UNSEEN),
    change(
        "a condition that starts a block", '"anon > 90% of limit"', "> 90%", "whole condition", UNSEEN, 15
    ),
    change("a block of lines", '"anon > 90% of limit"', "| anon", "quote the whole condition", UNSEEN),
    change("half a condition in quotes", '"anon > 90% of limit"', '"anon" > 90%', "whole condition", UNSEEN),
    change("two quoted texts", '"anon > 90% of limit"', '"anon > 1G" or "swap > 1G"', "one pair", UNSEEN),
    change("a colon in a value", '"anon > 90% of limit"', "anon: > 90%", "into quotes", UNSEEN),
    change("an escape that is none", '"anon < 1G"', r'"anon < 1G\%"', "single quotes", UNSEEN),
    change("a quote never closed", '"headroom < 64M"', '"headroom < 64M', 'add a "', UNSEEN, 16),
    change("a bracket never closed", '["web@0.service"]', '["web@0.service"', "`]` at its end", UNSEEN, 13),
    change("a brace never closed", "per: 1h}", "per: 1h", "`}` at its end", UNSEEN, 13),
    change("no comma", '"web@*.service", db', '"web@*.service" db', "lacks a `,`", UNSEEN),
    change(
        "no space after a colon",
        "    mode: observe",
        "    mode:observe",
        "a colon and a space",
        UNSEEN,
        below=1,
    ),
    change("a tab for indentation", "    mode: observe", "\tmode: observe", "use spaces", UNSEEN, 1),
    change("a tab first", "policies:\n", "policies:\n\t- x\n", "use spaces", UNSEEN, below=1),
    change("odd indentation", "    mode: observe", "   mode: observe", "indent it as its neighbours", UNSEEN),
    change("a key twice", "    mode: observe", "    units: [a.service]", "line 5: keep one", UNSEEN, 5),
    change("an action's key twice", "timeout: 30s,", "else: kill,", "keep one", UNSEEN),
    change("a boolean key", "mode: observe", "on: true", "is a boolean to YAML", SEEN, 5),
    change("a merge key", "mode: observe", "<<: {mode: observe}", "write out", UNSEEN, 5),
    change(
        "a merged anchor", '"pressure.full.avg10 > 40%"', '"swap > 1G", <<: {for: 1s}', "write out", UNSEEN
    ),
    Malformed("an alias of nothing", "policies: *web\n", 1, "quote", UNSEEN, 11),
    change("an alias of what it is in", '["web@0.service"]', "&a [*a]", "one value", SEEN),
    change("an anchor of nothing", "mode: observe", "mode: &m", "give it a value", SEEN),
    change("two anchors at once", "mode: observe", "mode: &a &b act", "one pair of quotes", UNSEEN),
    change(
        "a Python object", "mode: observe", "mode: !!python/object:os.system x", "leave it out", UNSEEN, 11
    ),
    change("a Python call", "do: freeze", "do: !!python/object/apply:os.abort []", "leave it out", UNSEEN),
    change("a tag of one's own", "mode: observe", "mode: !env MODE", "leave it out", UNSEEN),
    change("a tag that changes nothing", "mode: observe", "mode: !!str observe", "leave it out", UNSEEN),
    change("a binary", "mode: observe", "mode: !!binary b2JzZXJ2ZQ==", "leave it out", SEEN),
    change("a set", '["web@0.service"]', "!!set {web.service}", "leave it out", SEEN),
    Malformed("two documents", "policies: []\n---\npolicies: []\n", 2, "remove what follows", UNSEEN),
    Malformed("a directive", "%WEB 1\n---\n" + GOOD, 1, "take the line out", UNSEEN),
    Malformed("a YAML of another day", "%YAML 3.0\n---\n" + GOOD, 1, "take the line out", UNSEEN),
    Malformed("nested without end", "policies: " + "[" * 5000, 1, "a policy needs six", UNSEEN),
    Malformed("nested in blocks", "- " * 60 + "a\n", 1, "a policy needs six", SEEN),
    Malformed("a list that grows by aliases", "policies: [&a {}" + ", *a" * 300 + "]", 1, "instead", SEEN),
    Malformed("a laugh", "a: &a [x, x]\nb: &b [*a, *a]\npolicies: [*b, *b]\n", 1, "`policies`", SEEN),
    change("a key that is null", "interval: 2s", "~: 2s", "its keys are `interval`", SEEN),
    change("a key that is empty", "interval: 2s", '"": 2s', "its keys are `interval`", SEEN),
    change("a key that is a list", "interval: 2s", "? [interval]\n: 2s", "its keys are `interval`", UNSEEN),
]
TEXT = [
    Malformed("not UTF-8", b"policies:\n  - name: \xff\xff\n", 2, "save the file", UNSEEN, 11),
    Malformed("Latin-1", GOOD.replace("web@0", "w\xe9b").encode("latin-1"), 6, "save the file", UNSEEN),
    Malformed("UTF-16", GOOD.encode("utf-16"), 1, "save the file", UNSEEN),
    Malformed("UTF-16 without a mark", GOOD.encode("utf-16-le"), 1, "take it out", UNSEEN),
    Malformed("half a character", "policies: \ud800\n", 1, "save the file", UNSEEN),
    change("a NUL byte", "mode: observe", "mode: obs\0erve", "take it out", UNSEEN, 14),
    change("a control character", "mode: observe", "mode: obs\x07erve", "take it out", UNSEEN, 14),
    change("an escaped NUL", '["/bin/dump"', r'["/bin/dump\0"', "take it out", UNSEEN),
    change("a space of no width", '"anon < 1G"', '"anon <\u200b 1G"', "take it out", SEEN),
    change("text that runs backwards", "name: web", 'name: "web\u202e"', "take it out", SEEN),
    change("a mark of order in a value", "name: web", 'name: "\ufeffweb"', "take it out", SEEN),
    change("a long dash", '"headroom < 64M"', '"headroom < –64M"', "workingset > 80% of limit", SEEN),
    change("typographic quotes", '"headroom < 64M"', "“headroom < 64M”", "workingset > 80% of limit", SEEN),
    change("a greater-or-equal sign", '"headroom < 64M"', '"headroom ≤ 64M"', "workingset > 80%", SEEN),
    change("wide digits", '"headroom < 64M"', '"headroom < ６４M"', "workingset > 80%", SEEN),
    change("Arabic digits in a span", "cooldown: 10min", "cooldown: ١min", "write it like 30s", SEEN),
    change("Arabic digits in a count", "{actions: 3,", "{actions: ٣,", "whole number from 1", SEEN),
    change("a long s in a signal", "signal: SIGUSR1", "signal: ſigusr1", "such as SIGTERM", SEEN),
    change("a Cyrillic letter in a key", "mode: observe", "mоde: observe", "did you mean `mode`?", SEEN),
    change("a Cyrillic letter in a measure", '"swap > 1G"', '"ѕwap > 1G"', "workingset > 80%", SEEN),
    change("an umlaut in a unit", "db.service]\n    e", "dä.service]\n    e", "such as web.service", SEEN),
    change("an umlaut in a glob", '"web@*.service"', '"wäb@*.service"', "letters, digits", SEEN),
]
KEYS = [
    change("an odd key of the file", "interval: 2s", "intervall: 2s", "did you mean `interval`?", SEEN, 1),
    change("a key in capitals", "interval: 2s", "INTERVAL: 2s", "its keys are `interval`", SEEN),
    change("an odd key of a policy", "except:", "exclude:", "did you mean `except`?", SEEN, 5),
    change("an odd key of a step", "for: 1min", "hold: 1min", "its keys are `when`, `for`", SEEN),
    change("a step's key on a policy", "cooldown: 10min", "for: 10min", "its keys are `name`", SEEN),
    change("a policy's key on a step", "for: 1min", "cooldown: 1min", "its keys are `when`, `for`", SEEN),
    change("no name", "- name: web", "- mode: act", "needs `name`: add it", SEEN),
    change(
        "no units", '    units: ["web@*.service", db.service]\n', "", "needs `units`: add it", SEEN, below=-1
    ),
    change("no condition", "when: process.pss > 512M, ", "", "needs `when`: add it", SEEN, 9),
    change("no action", ", do: log", "", "needs `do`: add it", SEEN, 9),
    change(
        "a step of one word", '{when: "swap > 1G", do: freeze}', "freeze", "with the keys `when`", SEEN, 9
    ),
    change("a step that is a list", '{when: "swap > 1G", do: freeze}', "[freeze]", "with the keys", SEEN),
]
VALUES = [
    change("an interval without a unit", "interval: 2s", "interval: 2", "write 2s", SEEN, 11),
    change("an interval of nothing", "interval: 2s", "interval: 0s", "from 100ms to 1h", UNSEEN, 11),
    change("an interval of a day", "interval: 2s", "interval: 1d", "from 100ms to 1h", UNSEEN, 11),
    change("an interval that is null", "interval: 2s", "interval:", "give it a value", SEEN),
    change("an interval that is a list", "interval: 2s", "interval: [2s]", "one value, not a list", SEEN),
    change("an interval that is a boolean", "interval: 2s", "interval: yes", "write it like 30s", SEEN),
    change("an interval that is no number", "interval: 2s", "interval: .nan", "write it like 30s", SEEN),
    change("an interval without end", "interval: 2s", "interval: .inf", "write it like 30s", SEEN),
    change("a name with a space", "name: web", "name: web leak", "use letters, digits", SEEN, 11),
    change("a name that is empty", "name: web", 'name: ""', "give it a value", SEEN),
    change("a name that is null", "name: web", "name: ~", "give it a value", SEEN),
    change("a name that is a mapping", "name: web", "name: {a: b}", "one value, not a mapping", SEEN),
    change("a name as a path", "name: web", "name: ../web", "use letters, digits", SEEN),
    change("a name without end", "name: web", f"name: {'x' * 65}", "up to 64", SEEN),
    change(
        "units as one word", '["web@*.service", db.service]', "db.service", 'write ["db.service"]', SEEN, 12
    ),
    change(
        "units that are an empty list", '["web@*.service", db.service]', "[]", "give it an entry", SEEN, 12
    ),
    change("units with a null", '"web@*.service", db', "~, db", "give it a value", SEEN),
    change("units with a list", '"web@*.service", db', "[web.service], db", "one value, not a list", SEEN),
    change("a unit without its kind", "db.service]\n    e", "db]\n    e", "write db.service", SEEN, 30),
    change(
        "a unit without memory", "db.service]\n    e", "db.timer]\n    e", "such as web.service", SEEN, 30
    ),
    change("a unit that is a number", "db.service]\n    e", "5]\n    e", "write 5.service", SEEN),
    change("a template", "db.service]\n    e", "db@.service]\n    e", 'write "db@*.service"', SEEN, 30),
    change("a path", "db.service]\n    e", "/var/lib]\n    e", "such as web.service", SEEN),
    change("a glob of no kind with memory", "web@*.service", "web@*.timer", "end it in", SEEN, 13),
    change("a glob of no kind at all", "web@*.service", "web@*.", "end it in", SEEN),
    change("a glob with braces", "web@*.service", "{a,b}*.service", "several entries", SEEN),
    change("a glob with a space", "web@*.service", "web @*.service", "several entries", SEEN),
    change("a glob with an open bracket", "web@*.service", "web@[*.service", "and a glob also", SEEN),
    change("a glob by path", "web@*.service", "/system.slice/*.service", "letters, digits", SEEN),
    change("a glob under unprotect", '["db.service"]', '["db*.service"]', "one entry for each", SEEN, 17),
    change("except as a word", '["web@0.service"]', "web@0.service", 'write ["web@0.service"]', SEEN),
    change("an odd mode", "mode: observe", "mode: dry-run", "write `act`, `observe`", SEEN, 11),
    change("a mode that is a boolean", "mode: observe", "mode: off", "write `act`, `observe`", SEEN),
    change("a span without a unit", "for: 1min", "for: 60", "write 60s", SEEN, 50),
    change("a span of half a minute", "for: 1min", "for: 0.5", "has no unit", SEEN),
    change("a clock for a span", "for: 1min", "for: 10:30", "write it like 30s", SEEN, 50),
    change("a date for a span", "for: 1min", "for: 2024-01-01", "write it like 30s", SEEN),
    change("an octal span", "for: 1min", "for: 0o10", "use one of ms s min", SEEN),
    change("a span below nothing", "for: 1min", "for: -5s", "write it like 30s", SEEN),
    change("a span in capitals", "for: 1min", "for: 1MIN", "write 1min", SEEN),
    change("a span with a comma", "for: 1min", 'for: "1,5min"', "has a comma: write 1.5min", SEEN),
    change(
        "a span longer than time", "for: 1min", "for: 999999999y", "longer than systemd can count", UNSEEN
    ),
    change("a span of many digits", "for: 1min", f"for: {'9' * 4000}s", "write it like 30s", UNSEEN),
    change("a span that is null", "for: 1min", "for: ", "give it a value", SEEN),
    change("a cooldown without a unit", "cooldown: 10min", "cooldown: 600", "write 600s", SEEN),
    change("a cooldown that is false", "cooldown: 10min", "cooldown: no", "write it like 30s", SEEN),
    change("a clear that is a boolean", '"anon < 1G"', "true", "there is no measure 'true'", SEEN),
    change("a clear that is a list", 'clear: "anon < 1G"', "clear: [anon < 1G]", "into quotes", SEEN),
    change("a clear that is null", 'clear: "anon < 1G"', "clear:", "leave it out", SEEN),
    change("a clear that a step is", '"anon < 1G"', '"swap > 1G"', "write a milder one", UNSEEN, 12),
    change("repeat of no time", "repeat: 5min", "repeat: 0s", "such as 5min", UNSEEN),
    change("repeat by number", "repeat: 5min", "repeat: 3", "write 3s", SEEN),
    change("repeat that is a boolean", "repeat: 5min", "repeat: true", "write it like 30s", SEEN),
    change("a file's budget without per", ", per: 1d", "", "needs `per`: add it", SEEN),
    change("a budget without per", ", per: 1h", "", "needs `per`: add it", SEEN, 13),
    change("a budget without actions", "{actions: 3, per: 1h}", "{per: 1h}", "needs `actions`: add it", SEEN),
    change("a budget that is a number", "{actions: 3, per: 1h}", "3", "with the keys `actions`, `per`", SEEN),
    change("a budget that is null", "budget: {actions: 3, per: 1h}", "budget:", "with the keys", SEEN),
    change(
        "a budget of 0", "{actions: 3,", "{actions: 0,", "or `mode: observe` to perform nothing", SEEN, 23
    ),
    change("a budget below 0", "{actions: 3,", "{actions: -3,", "whole number from 1 to", SEEN),
    change("a budget of a fraction", "{actions: 3,", "{actions: 2.5,", "whole number from 1 to", SEEN),
    change("a budget in words", "{actions: 3,", "{actions: three,", "whole number from 1 to", SEEN),
    change("a budget in octal", "{actions: 3,", "{actions: 010,", "whole number from 1 to", UNSEEN),
    change("a budget in hexadecimal", "{actions: 3,", "{actions: 0x10,", "whole number from 1 to", UNSEEN),
    change("a budget without end", "{actions: 3,", "{actions: .inf,", "whole number from 1 to", SEEN),
    change("a budget of millions", "{actions: 3,", "{actions: 99999999999999999999,", "to 10000", SEEN),
    change("a budget in no time", "per: 1h}", "per: 0s}", "such as 1h", UNSEEN),
    change("a budget by number", "per: 1h}", "per: 60}", "write 60s", SEEN),
    Malformed(
        "a budget for steps that only log",
        """\
policies:
  - name: one
    units: [a.service]
    budget: {actions: 3, per: 1h}
    steps: [{when: swap > 1G, do: log}]
""",
        4,
        "leave it out",
        UNSEEN,
    ),
]
CONDITIONS = [
    change("no condition at all", '"anon > 90% of limit"', "", "give it a value", SEEN),
    change("a list for a condition", '"anon > 90% of limit"', "[anon]", "into quotes", SEEN, 15),
    change("a mapping for a condition", '"anon > 90% of limit"', "{anon: 90%}", "into quotes", SEEN),
    change("within plain text", "process.pss > 512M", "process.pss > 512", "write 512M", UNSEEN, 30),
    change(
        "within single quotes",
        "'eta(limit, 10min) < 5min'",
        "'eta(limit, 10min) < 5'",
        "write 5s",
        UNSEEN,
        37,
    ),
    when("a comma in a number", "anon > 1,5G", "a decimal point, and no comma", UNSEEN),
    when("a power of ten", "anon > 1e9", "no power of ten is read here", UNSEEN),
    when("a share of nothing", "anon > 90%", "write `anon > 90% of limit`", UNSEEN, 10),
    when("a size without a unit", "anon > 90", "write 90M", UNSEEN, 7),
    when("a size in mebibytes", "anon > 90MiB", "write 90M", UNSEEN, 7),
    when("a size larger than any", "anon > 99999999E", "more than 16E", UNSEEN, 7),
    when("a size of many digits", f"anon > {'9' * 200}M", "write it like 512M", UNSEEN, 7),
    when("no such measure", "anom > 1G", "did you mean 'anon'?", SEEN, 0),
    when("a measure of the kernel", "memory.current > 1G", "did you mean 'current'?", SEEN, 0),
    when("a measure alone", "anon", "write `anon > 512M`", SEEN),
    when("no threshold", "anon >", "write it like `anon > 512M`", SEEN),
    when("an equals sign", "anon = 1G", "write `anon > 512M`", SEEN, 5),
    when("a measure for a threshold", "anon > limit", "100% of limit", SEEN, 7),
    when("arithmetic", "anon + swap > 1G", "no arithmetic", UNSEEN, 5),
    when("ampersands", "anon > 1G && swap > 1G", "write `and` or `or`", UNSEEN, 10),
    when("AND in capitals", "anon > 1G AND swap > 1G", "write `and` in small letters", UNSEEN, 10),
    when("a comma for and", "anon > 1G, swap > 1G", "join comparisons with `and`", UNSEEN, 9),
    when("nothing after and", "anon > 1G and", "a measure is expected", UNSEEN, 13),
    when("a parenthesis never closed", "(anon > 1G", "add `)`", UNSEEN, 0),
    when("a parenthesis too many", "anon > 1G)", "join comparisons", UNSEEN, 9),
    when("parentheses without end", "(" * 200 + "anon > 1G", "write it simpler", UNSEEN),
    when("not without end", "not " * 200 + "anon > 1G", "write it simpler", UNSEEN),
    when("a share of a pressure", "anon > 9% of pressure.full.avg10", "write `of limit`", UNSEEN, 13),
    when("a pressure without a sign", "pressure.full.avg10 > 40", "> 40%`", UNSEEN, 22),
    when("a pressure beyond all", "pressure.full.avg10 > 400%", "below that", UNSEEN, 22),
    when("a pressure of something", "pressure.full.avg10 > 40% of limit", "leave out `of`", UNSEEN),
    when("events in no span", "events.oom > 3", "write `events.oom > 0 in 10min`", UNSEEN, 14),
    when("events in no time", "events.oom > 0 in 0s", "such as `in 10min`", UNSEEN, 18),
    when("events in bytes", "events.oom > 3M in 1min", "write a whole number", UNSEEN, 13),
    when("a size in a span", "anon > 3M in 10s", "under `for:`", UNSEEN, 10),
    when("a size of something", "anon > 3M of limit", "80% of limit", UNSEEN, 10),
    when("a rate for a size", "anon > 5M/min", "write `growth(anon, 10min) > 5M/min`", UNSEEN, 9),
    when("growth of a limit", "growth(limit, 10min) > 5M/min", "write `growth(anon, 10min)`", SEEN, 7),
    when("growth of the peak", "growth(peak, 10min) > 5M/min", "write `growth(anon, 10min)`", SEEN, 7),
    when("growth of a pressure", "growth(pressure.some.avg10, 10min) > 5M/min", "write `growth(", SEEN, 7),
    when("growth of the machine", "growth(host.available, 10min) > 5M/min", "write `growth(", SEEN, 7),
    when("growth without a span", "growth(anon) > 5M/min", "write `growth(anon, 10min)`", SEEN, 11),
    when("growth without a comma", "growth(anon 10min) > 5M/min", "write `growth(anon, 10min)`", SEEN, 12),
    when("growth of nothing", "growth() > 5M/min", "`growth(anon, 10min)`", SEEN, 7),
    when("growth without arguments", "growth > 5M/min", "write `growth(anon, 10min)`", SEEN, 7),
    when("growth never closed", "growth(anon, 10min > 5M/min", "write `growth(anon, 10min)`", SEEN, 0),
    when("growth of growth", "growth(growth(anon, 10min), 10min) > 5M/min", "did you mean", SEEN, 7),
    when("growth over a few ticks", "growth(anon, 5s) > 5M/min", "write a span of 8s or more", UNSEEN),
    when("growth over no time", "growth(anon, 0s) > 5M/min", "such as 10min", UNSEEN, 13),
    when("growth over a month", "growth(anon, 1M) > 5M/min", "such as 10min", UNSEEN, 13),
    when("growth by a size", "growth(anon, 10min) > 5M", "> 5M/min`", UNSEEN, 24),
    when("growth by a percentage", "growth(anon, 10min) > 5%", "> 5M/min`", UNSEEN, 22),
    when("growth by half a rate", "growth(anon, 10min) > 5M/", "> 5M/min`", UNSEEN, 25),
    when("growth by some minutes", "growth(anon, 10min) > 5M/10min", "> 5M/min`", UNSEEN, 25),
    when("growth by a strange time", "growth(anon, 10min) > 5M/jiffy", "like 5M/min", UNSEEN, 22),
    when("growth by no unit", "growth(anon, 10min) > 5/min", "write 5M", UNSEEN, 22),
    when("growth below nothing", "growth(anon, 10min) < -5M/min", "no arithmetic", SEEN, 22),
    when("growth by a share", "growth(anon, 10min) > 5M/min of limit", "80% of limit", UNSEEN, 29),
    when("growth within a span", "growth(anon, 10min) > 5M/min in 1h", "leave it out", UNSEEN, 29),
    when("eta of what is no limit", "eta(anon) < 5min", "write `eta(limit)`", SEEN, 4),
    when("eta of nothing", "eta() < 5min", "`eta(limit, 10min)`", SEEN, 4),
    when("eta alone", "eta < 5min", "write `eta(limit, 10min)`", SEEN, 4),
    when("eta by number", "eta(limit) < 5", "write 5s", UNSEEN, 13),
    when("eta by a size", "eta(limit) < 5G", "use one of ms s min", UNSEEN, 13),
    when("eta by a percentage", "eta(limit) < 50%", "write it like 30s", UNSEEN, 13),
    when("eta over a few ticks", "eta(limit, 2s) < 5min", "write a span of 8s or more", UNSEEN),
    change(
        "eta at a slow tick", "interval: 2s", "interval: 10min", "write a span of 40min", UNSEEN, below=14
    ),
]
ACTIONS = [
    do("an odd action", "kil", "did you mean `kill`?", SEEN),
    do("no action's name", '""', "write log", SEEN),
    do("a null", "~", "there is no action '~'", SEEN),
    do("a number", "9", "the actions are log, ", SEEN),
    do("a list of actions", "[log, kill]", "`do` is one action", SEEN),
    do("an empty mapping", "{}", "the actions are log, ", SEEN),
    do("an action of another day", "{reboot: now}", "there is no action `reboot`", SEEN),
    do("two actions", "{stop: , kill: }", "write a step for each", SEEN),
    do("a signal and a stop", "{signal: SIGTERM, stop: }", "write a step for each", SEEN),
    do("log with more", "{log: loud}", "write `do: log`", SEEN),
    do("a signal to no one", "signal", "write {signal: SIGTERM, to: main}", SEEN),
    do("a reclaim of no size", "reclaim", "write {reclaim: 64M}", SEEN),
    do("a set of nothing", "set", "write {set: {MemoryHigh: 512M}}", SEEN),
    do("a run of nothing", "run", "write {run:", SEEN),
    do("a signal that is none", "{signal: SIGFOO}", "such as SIGTERM", SEEN),
    do("a signal by number", "{signal: 9}", "write its name", SEEN),
    do("a signal that is null", "{signal: }", "give it a value", SEEN),
    do("a signal that is a list", "{signal: [SIGTERM]}", "one value, not a list", SEEN),
    do("an odd target", "{signal: SIGTERM, to: biggest}", "write `main`, `control`, `all`, `largest`", SEEN),
    do("an odd key of a signal", "{signal: SIGTERM, for: 3s}", "its keys are `signal`, `to`", SEEN),
    do("else after SIGUSR1", "{signal: SIGUSR1, else: kill}", "leave `else` out", UNSEEN),
    do("a timeout after SIGHUP", "{signal: SIGHUP, timeout: 3s}", "leave `timeout` out", UNSEEN),
    do("else after SIGKILL", "{signal: SIGKILL, else: kill}", "leave `else` out", UNSEEN),
    do("else to all", "{signal: SIGTERM, to: all, else: kill}", "write {stop: {else: kill}}", UNSEEN),
    do("a stop that is a span", "{stop: 30s}", "with the keys `timeout`, `else`", SEEN),
    do("a stop in no time", "{stop: {timeout: 0s}}", "such as 30s", UNSEEN),
    do("a stop by number", "{stop: {timeout: 30}}", "write 30s", SEEN),
    do("an odd key of a stop", "{stop: {then: kill}}", "its keys are `timeout`, `else`", SEEN),
    do("an odd last resort", "{stop: {else: pray}}", "write `kill`", SEEN),
    do("a last resort that is null", "{stop: {else: }}", "give it a value", SEEN),
    do("a stop of its own target", "{stop: {unit: web.service}}", "its keys are `timeout`, `else`", SEEN),
    do("an odd key of a restart", "{restart: {delay: 3s}}", "its keys are `timeout`, `else`", SEEN),
    do("an else of kill", "{kill: {else: kill}}", "its keys are `timeout`", SEEN),
    do("a kill of a span", "{kill: 3s}", "with the keys `timeout`", SEEN),
    do("a freeze for a while", "{freeze: {for: 3s}}", "its keys are `timeout`", SEEN),
    do("a thaw in no time", "{thaw: {timeout: 0s}}", "such as 30s", UNSEEN),
    do("a reclaim of 0", "{reclaim: 0B}", "such as 64M", UNSEEN),
    do("keys of a stop beside it", "{stop: , timeout: 30s}", "belongs inside of it: write {stop: {", SEEN),
    do("two keys at once", "stop: {timeout: 30s}", "write `do: {stop: …}`", UNSEEN),
    do("a command in one text, with quotes", """{run: '/bin/a -d "b c"'}""", '"-d", "b c"]', SEEN),
    do("a reclaim of a bare 0", "{reclaim: 0}", "has no unit", SEEN),
    do("a reclaim of a share", "{reclaim: 10%}", "write it like 512M", SEEN),
    do("a reclaim below nothing", "{reclaim: -64M}", "write it like 512M", SEEN),
    do("a reclaim of null", "{reclaim: }", "give it a value", SEEN),
    do("a reclaim without its size", "{reclaim: {timeout: 3s}}", "needs `size`: add it", SEEN),
    do("a reclaim of an odd key", "{reclaim: {size: 64M, from: anon}}", "its keys are `size`", SEEN),
    do("a property that is none", "{set: {CPUWeight: 5}}", "its keys are `MemoryMin`", SEEN),
    do("a property in small letters", "{set: {memoryhigh: 512M}}", "`MemoryHigh`", SEEN),
    do("a property as a file", "{set: {memory.high: 512M}}", "`MemoryHigh`", SEEN),
    do("an empty set", "{set: {}}", "write {set: {MemoryHigh: 512M}}", SEEN),
    do("a set that is null", "{set: }", "with the keys `MemoryMin`", SEEN),
    do("a set that is a list", "{set: [MemoryHigh=512M]}", "with the keys `MemoryMin`", SEEN),
    do("a property of nothing", "{set: {MemoryHigh: }}", "give it a value", SEEN),
    do("a property of 0", "{set: {MemoryMax: 0B}}", "write a size", UNSEEN),
    do("a property of a bare 0", "{set: {MemoryMax: 0}}", "has no unit", SEEN),
    do("a property of a share", "{set: {MemoryHigh: 80%}}", "write it like 512M", SEEN),
    do("a property without limit", "{set: {MemoryHigh: max}}", "write `infinity` for no limit", SEEN),
    do("a property that is infinite", "{set: {MemoryHigh: .inf}}", "write `infinity` for no limit", SEEN),
    do("a run by a relative path", "{run: dump}", "write the program like /usr/local/bin/dump", SEEN),
    do("a run of a list by name", "{run: [dump, --all]}", "like /usr/local/bin/dump", SEEN),
    do("a run of a line", "{run: /bin/dump --all}", '["/bin/dump", "--all"]', SEEN),
    do("a run of an empty list", "{run: []}", "give it an entry", SEEN),
    do("a run of null", "{run: }", "give it a value", SEEN),
    do("a run of a list of null", "{run: [/bin/dump, ~]}", "give it a value", SEEN),
    do("a run of lists", "{run: [/bin/dump, [a]]}", "one value, not a list", SEEN),
    do("a run of a directory", "{run: /usr/bin/}", "write the program", SEEN),
    do("a run of the root", "{run: /}", "write the program", SEEN),
    do("a run without a command", "{run: {timeout: 3s}}", "needs `command`: add it", SEEN),
    do("a run in no time", "{run: {command: /bin/dump, timeout: 0s}}", "such as 30s", UNSEEN),
    do("a run with an environment", "{run: {command: /bin/dump, env: a}}", "`command`, `timeout`", SEEN),
    change(
        "a stop again and again",
        '64M", do: kill',
        '64M", repeat: 5min, do: stop',
        "leave `repeat` out",
        UNSEEN,
    ),
    change(
        "a freeze again and again", "do: freeze", "repeat: 5min, do: freeze", "leave `repeat` out", UNSEEN
    ),
    change("a set again and again", "do: {set:", "repeat: 5min, do: {set:", "leave `repeat` out", UNSEEN),
    alone("a signal to a slice's main process", "a.slice", "{signal: SIGTERM}", "write `to: all`"),
    alone("a signal to slices by a glob", '"a*.slice"', "{signal: SIGHUP, to: main}", "write `to: all`"),
    alone(
        "a signal to a scope's control process", "a.scope", "{signal: SIGHUP, to: control}", "ExecStartPre="
    ),
    alone("a restart of a scope", "a.scope", "restart", "write `stop`"),
]


def pick(what: str, written: str, says: str, schema: bool) -> Malformed:
    """The good file with another pick."""
    return change(what, '{by: footprint, avoid: ["web@9.service"], settle: 45s}', written, says, schema)


PICKS = [
    pick("a pick of nothing", "", "give it a value", SEEN),
    pick("a pick that is a list", "[footprint]", "with the keys `by`", SEEN),
    pick("a pick without a rank", "{settle: 45s}", "needs `by`: add it", SEEN),
    pick("a pick with a threshold", '"footprint > 1G"', "take off the rest", SEEN),
    pick("a pick by a misspelt measure", "footprnt", "did you mean 'footprint'?", SEEN),
    pick("a pick by the machine's", "host.available", "the same for every unit", SEEN),
    pick("a pick by a slice's", "{by: slice.anon}", "the same for all units in a slice", SEEN),
    pick("a pick by processes", "pss", "a measure of processes", SEEN),
    pick("a pick by the growth of processes", '"growth(pss, 10min)"', "such as `footprint`", SEEN),
    pick("a pick by events", "events.oom", "counts events", SEEN),
    pick("a pick by a limit", "limit", "doesn't say what a unit uses", SEEN),
    pick("a pick by the time left", '"eta(limit)"', "write `growth(footprint, 10min)`", SEEN),
    pick("a pick by too short a slope", '"growth(footprint, 2s)"', "write a span of 8s", UNSEEN),
    pick("a pick that avoids none", "{by: anon, avoid: []}", "give it an entry", SEEN),
    pick("a pick that avoids a template", "{by: anon, avoid: [web@.service]}", 'write "web@*.service"', SEEN),
    pick("a pick that settles by number", "{by: anon, settle: 45}", "45s", SEEN),
    change("a pick to log", "repeat: 5min, do: log", "pick: anon, do: log", "leave `pick` out", UNSEEN),
]
MALFORMED = [*FILES, *YAML, *TEXT, *KEYS, *VALUES, *CONDITIONS, *ACTIONS, *PICKS]
