"""The verbs and options that a shell offers, as the commands have them.

Made by `.venv/bin/python tests/cli/test_tab.py`; a test holds that it agrees with the commands.
"""

VERBS = {
    "list": "List units and their memory.",
    "show": "Show one unit: its measures, limits and...",
    "top": "Watch units and their memory live.",
    "check": "Check policy files, and tell every mistake...",
    "plan": "Show what a policy file would do here now,...",
    "watch": "Watch units by a policy file, and act on it.",
    "status": "Show what running watches see, and where...",
    "reset": "Give back budgets and end cooldowns, once...",
    "explain": "Tell what was done to a unit and why, or...",
    "replay": "Tell what a policy would have decided...",
    "metrics": "Print the memory of units as metrics for...",
    "guard": "End a command or a process as soon as its...",
    "schema": "Print the JSON Schema of policy files, for...",
}

OPTIONS = {
    "": (
        (("--version",), "Print the version.", False, ()),
        (("--install-completion",), "Install completion for the current shell.", False, ()),
        (
            ("--show-completion",),
            "Show completion for the current shell, to copy it or customize the installation.",
            False,
            (),
        ),
        (("-h", "--help"), "Show this message and exit.", False, ()),
    ),
    "list": (
        (
            ("--sort",),
            "One of unit, pss, current, workingset, anon, swap, limit, used, headroom, pressure.",
            True,
            ("unit", "pss", "current", "workingset", "anon", "swap", "limit", "used", "headroom", "pressure"),
        ),
        (
            ("--pss",),
            "Add PSS, summed over each unit's processes. It walks their page tables: about 15 ms per GiB, during which each process waits.",
            False,
            (),
        ),
        (("--all",), "Also slices, and loaded units without a cgroup.", False, ()),
        (("--user",), "The calling user's own units, not the machine's.", False, ()),
        (("--json",), "A JSON document; see unitmem(1).", False, ()),
        (("-h", "--help"), "Show this message and exit.", False, ()),
    ),
    "show": (
        (("--explain",), "Each number with the file it comes from, and its formula.", False, ()),
        (
            ("--pss", "--no-pss"),
            "Whether to read PSS, USS and SwapPss, which takes about 15 ms per GiB, during which each process waits.",
            False,
            (),
        ),
        (("--user",), "The calling user's own units, not the machine's.", False, ()),
        (("--json",), "A JSON document; see unitmem(1).", False, ()),
        (("-h", "--help"), "Show this message and exit.", False, ()),
    ),
    "top": (
        (("--interval",), "How often to look, such as 500ms or 1min.", True, ()),
        (
            ("--sort",),
            "One of unit, current, workingset, anon, swap, limit, used, headroom, pressure, growth, eta.",
            True,
            (
                "unit",
                "current",
                "workingset",
                "anon",
                "swap",
                "limit",
                "used",
                "headroom",
                "pressure",
                "growth",
                "eta",
            ),
        ),
        (("--iterations",), "Exit after this many samples.", True, ()),
        (("--all",), "Also slices, and loaded units without a cgroup.", False, ()),
        (("--user",), "The calling user's own units, not the machine's.", False, ()),
        (("-h", "--help"), "Show this message and exit.", False, ()),
    ),
    "check": (
        (("--strict",), "Let warnings count: status 1.", False, ()),
        (("--user",), "The calling user's own units, not the machine's.", False, ()),
        (("--json",), "A JSON document; see unitmem(1).", False, ()),
        (("-h", "--help"), "Show this message and exit.", False, ()),
    ),
    "plan": (
        (("--user",), "The calling user's own units, not the machine's.", False, ()),
        (("--json",), "A JSON document; see unitmem(1).", False, ()),
        (("-h", "--help"), "Show this message and exit.", False, ()),
    ),
    "watch": (
        (("--observe",), "Log every decision, but perform nothing.", False, ()),
        (("--once",), "Run one tick, wait for its actions, and exit.", False, ()),
        (("--user",), "The calling user's own units, not the machine's.", False, ()),
        (("--textfile",), "Write metrics for Prometheus into this file.", True, ()),
        (
            ("--listen",),
            "Serve metrics over HTTP; a port alone is on 127.0.0.1. Needs prometheus-client.",
            True,
            (),
        ),
        (("-h", "--help"), "Show this message and exit.", False, ()),
    ),
    "status": (
        (("--user",), "The calling user's own units, not the machine's.", False, ()),
        (("--json",), "A JSON document; see unitmem(1).", False, ()),
        (("-h", "--help"), "Show this message and exit.", False, ()),
    ),
    "reset": (
        (("--user",), "The calling user's own units, not the machine's.", False, ()),
        (("--json",), "A JSON document; see unitmem(1).", False, ()),
        (("-h", "--help"), "Show this message and exit.", False, ()),
    ),
    "explain": (
        (("--since",), "How far back to look, such as 1h or 2d.", True, ()),
        (("--user",), "The calling user's own units, not the machine's.", False, ()),
        (("--json",), "A JSON document; see unitmem(1).", False, ()),
        (("-h", "--help"), "Show this message and exit.", False, ()),
    ),
    "replay": (
        (("--history",), "A history.sqlite that a watch has recorded, or samples as JSON lines.", True, ()),
        (("--json",), "A JSON document; see unitmem(1).", False, ()),
        (("-h", "--help"), "Show this message and exit.", False, ()),
    ),
    "metrics": (
        (("--textfile",), "Write into this file, not to stdout.", True, ()),
        (("--openmetrics",), "OpenMetrics, not Prometheus' older text format.", False, ()),
        (
            ("--pss",),
            "Add PSS, USS, SwapPss and RSS. It walks page tables: about 15 ms per GiB, during which each process waits.",
            False,
            (),
        ),
        (("--all",), "Also slices.", False, ()),
        (("--user",), "The calling user's own units, not the machine's.", False, ()),
        (("-h", "--help"), "Show this message and exit.", False, ()),
    ),
    "guard": (
        (("--pss",), "The highest PSS allowed, such as 512M.  [required]", True, ()),
        (("--grace",), "Send SIGTERM first, and SIGKILL after this time.", True, ()),
        (("--interval",), "How often to look, such as 100ms or 5s.", True, ()),
        (("--tree",), "Include all its descendants: the limit is on their sum.", False, ()),
        (("--pid",), "The PID of a running process.", True, ()),
        (("-h", "--help"), "Show this message and exit.", False, ()),
    ),
    "schema": ((("-h", "--help"), "Show this message and exit.", False, ()),),
}
