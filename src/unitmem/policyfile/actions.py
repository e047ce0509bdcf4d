"""The `do` of a step: YAML nodes to actions, or what to write instead."""

from __future__ import annotations

import signal

import yaml

from unitmem.policy.actions import (
    DEFAULT_END_TIMEOUT,
    DEFAULT_RECLAIM_TIMEOUT,
    DEFAULT_RUN_TIMEOUT,
    DEFAULT_STOP_TIMEOUT,
    ENDING_SIGNALS,
    SETTABLE,
    Action,
    Freeze,
    Kill,
    LastResort,
    Log,
    Reclaim,
    Restart,
    Run,
    SetProperties,
    Signal,
    Stop,
    Target,
    Thaw,
)
from unitmem.policyfile.nodes import NULL_TAG, NodeReader
from unitmem.text import close_to, quoted
from unitmem.unit import CGROUP_KINDS

ACTIONS = ("log", "reclaim", "set", "signal", "freeze", "thaw", "run", "restart", "stop", "kill")
SIGNAL_KEYS = ("signal", "to", "timeout", "else")
END_KEYS = ("timeout", "else")
RECLAIM_KEYS = ("size", "timeout")
RUN_KEYS = ("command", "timeout")
_WITHIN = {
    "stop": (END_KEYS, "{stop: {timeout: 30s, else: kill}}"),
    "restart": (END_KEYS, "{restart: {timeout: 30s, else: kill}}"),
    "reclaim": (RECLAIM_KEYS, "{reclaim: {size: 64M, timeout: 10s}}"),
    "run": (RUN_KEYS, '{run: {command: ["/usr/local/bin/dump"], timeout: 1min}}'),
    "kill": (("timeout",), "{kill: {timeout: 5s}}"),
    "freeze": (("timeout",), "{freeze: {timeout: 5s}}"),
    "thaw": (("timeout",), "{thaw: {timeout: 5s}}"),
}
"""Keys that belong inside of an action, and what that looks like."""


class ActionReader(NodeReader):
    """Reads actions. A method returns None where it has reported a problem."""

    def action(self, node: yaml.Node) -> Action | None:
        if isinstance(node, yaml.ScalarNode):
            return self.bare_action(node)
        if not isinstance(node, yaml.MappingNode):
            self.problem(node, f"`do` is one action: {_ACTION_EXAMPLE}")
            return None
        named = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        name = next((name for name in named if name in ACTIONS), None)
        if (
            second := next((other for other in named if other in ACTIONS and other != name), None)
        ) is not None:
            self.problem(node, f"`{name}` and `{second}` at once: write a step for each")
            return None
        if name is None:
            close = close_to(named[0], ACTIONS) if named else ""
            self.problem(node, f"there is no action {quoted(named) or 'here'}{close}: {_ACTION_EXAMPLE}")
            return None
        if name == "signal":
            return self.signal(node)
        if name == "log":
            self.problem(node, "`log` takes nothing: write `do: log`")
            return None
        within, example = _WITHIN.get(name, ((), ""))
        if outside := [other for other in named if other in within]:
            self.problem(
                node, f"{quoted(outside)} stands beside `{name}` and belongs inside of it: write {example}"
            )
            return None
        keys = self.keys(node, (name,), required=(name,), what="`do`")
        return None if keys is None else self.named_action(name, keys[name])

    def named_action(self, name: str, node: yaml.Node) -> Action | None:
        match name:
            case "stop" | "restart":
                return self.end(name, node)
            case "reclaim":
                return self.reclaim(node)
            case "set":
                return self.properties(node)
            case "run":
                return self.command(node)
        timeout = DEFAULT_END_TIMEOUT
        if node.tag != NULL_TAG:
            keys = self.keys(node, ("timeout",), required=(), what=f"a {name}")
            if keys is None:
                return None
            if "timeout" in keys:
                given = self.timeout(keys["timeout"])
                if given is None:
                    return None
                timeout = given
        kinds: dict[str, type[Kill | Freeze | Thaw]] = {"kill": Kill, "freeze": Freeze, "thaw": Thaw}
        return kinds[name](timeout)

    def bare_action(self, node: yaml.ScalarNode) -> Action | None:
        match node.value:
            case "log":
                return Log()
            case "stop":
                return Stop()
            case "restart":
                return Restart()
            case "kill":
                return Kill()
            case "freeze":
                return Freeze()
            case "thaw":
                return Thaw()
            case "signal":
                self.problem(node, "which signal, and to whom? write {signal: SIGTERM, to: main}")
            case "reclaim":
                self.problem(node, "how much? write {reclaim: 64M}")
            case "set":
                self.problem(node, "which property? write {set: {MemoryHigh: 512M}}")
            case "run":
                self.problem(node, 'which command? write {run: ["/usr/local/bin/dump", "--all"]}')
            case "":
                self.problem(node, f"`do` is empty: {_ACTION_EXAMPLE}")
            case other:
                self.problem(
                    node, f"there is no action {other!r}{close_to(other, ACTIONS)}: {_ACTION_EXAMPLE}"
                )
        return None

    def signal(self, node: yaml.MappingNode) -> Signal | None:
        keys = self.keys(node, SIGNAL_KEYS, required=("signal",), what="a signal")
        if keys is None:
            return None
        name = self.text(keys["signal"], "signal")
        number = None
        if name is not None:
            # some letters beyond ASCII have one of it as their capital
            number = _SIGNALS.get(name.upper().removeprefix("SIG")) if name.isascii() else None
            if number is None:
                self.problem(
                    keys["signal"], f"there is no signal {name!r}: write its name, such as SIGTERM or SIGUSR1"
                )
        target = self.choice(keys["to"], Target, "to") if "to" in keys else Target.MAIN
        timeout = self.timeout(keys["timeout"]) if "timeout" in keys else DEFAULT_END_TIMEOUT
        last = self.choice(keys["else"], LastResort, "else") if "else" in keys else None
        if number is None or target is None or timeout is None or ("else" in keys and last is None):
            return None
        for key in ("timeout", "else"):
            if key in keys and number not in ENDING_SIGNALS:
                self.problem(
                    keys[key],
                    f"{number.name} is not expected to end a process, so there is nothing to wait for: "
                    f"leave `{key}` out",
                )
        if last is not None and number is signal.SIGKILL:
            self.problem(keys["else"], "there is nothing harsher than SIGKILL: leave `else` out")
        if last is not None and target is Target.ALL:
            self.problem(
                keys["else"], "for all processes together there is an action: write {stop: {else: kill}}"
            )
        return Signal(number, target, timeout, last)

    def end(self, name: str, node: yaml.Node) -> Stop | Restart | None:
        kind: type[Stop | Restart] = Stop if name == "stop" else Restart
        if node.tag == NULL_TAG:
            return kind()
        keys = self.keys(node, END_KEYS, required=(), what=f"a {name}")
        if keys is None:
            return None
        timeout = self.timeout(keys["timeout"]) if "timeout" in keys else DEFAULT_STOP_TIMEOUT
        last = self.choice(keys["else"], LastResort, "else") if "else" in keys else None
        if timeout is None or ("else" in keys and last is None):
            return None
        return kind(timeout, last)

    def reclaim(self, node: yaml.Node) -> Reclaim | None:
        timeout: float | None = DEFAULT_RECLAIM_TIMEOUT
        if isinstance(node, yaml.MappingNode):
            keys = self.keys(node, RECLAIM_KEYS, required=("size",), what="a reclaim")
            if keys is None or "size" not in keys:
                return None
            timeout = self.timeout(keys["timeout"]) if "timeout" in keys else timeout
            node = keys["size"]
        size = self.size(node, "reclaim")
        if size is None or timeout is None:
            return None
        if size <= 0:
            self.problem(node, "there is nothing to reclaim in no bytes: write a size such as 64M")
            return None
        return Reclaim(size, timeout)

    def properties(self, node: yaml.Node) -> SetProperties | None:
        keys = self.keys(node, SETTABLE, required=(), what="a set")
        if keys is None:
            return None
        if not keys:
            if not node.value:
                self.problem(node, "nothing is set: write {set: {MemoryHigh: 512M}}")
            return None
        sizes: list[tuple[str, int | None]] = []
        for name, value in keys.items():
            if isinstance(value, yaml.ScalarNode) and value.value == "infinity":
                sizes.append((name, None))
            elif isinstance(value, yaml.ScalarNode) and value.value.lower() in ("max", "infinity", ".inf"):
                self.problem(value, f"`{name}`: write `infinity` for no limit")
            elif (size := self.size(value, name)) is not None:
                if size == 0 and name in ("MemoryHigh", "MemoryMax"):
                    self.problem(value, f"{name} of nothing kills whatever it is set for: write a size")
                sizes.append((name, size))
        return SetProperties(tuple(sizes)) if len(sizes) == len(keys) else None

    def command(self, node: yaml.Node) -> Run | None:
        timeout: float | None = DEFAULT_RUN_TIMEOUT
        if isinstance(node, yaml.MappingNode):
            keys = self.keys(node, RUN_KEYS, required=("command",), what="a run")
            if keys is None or "command" not in keys:
                return None
            timeout = self.timeout(keys["timeout"]) if "timeout" in keys else timeout
            node = keys["command"]
        if isinstance(node, yaml.SequenceNode):
            words = self.items(node, "run", lambda item: self.text(item, "a word of the command"))
            if len(words) < len(node.value):
                return None
        else:
            text = self.text(node, "run")
            words = [] if text is None else [text]
            if len(words) == 1 and any(character.isspace() for character in words[0]):
                listed = ", ".join(f'"{word}"' for word in _split(words[0]))
                self.problem(node, f"there is no shell to split this: write a list, [{listed}]")
                return None
        if not words or timeout is None:
            return None
        if not words[0].startswith("/") or words[0].endswith("/"):
            what = "a directory" if words[0].startswith("/") else "not an absolute path"
            self.problem(node, f"{words[0]!r} is {what}: write the program like /usr/local/bin/dump")
            return None
        return Run(tuple(words), timeout)

    def timeout(self, node: yaml.Node) -> float | None:
        timeout = self.span(node, "timeout")
        if timeout is not None and timeout <= 0:
            self.problem(node, "nothing is done in no time: write a timeout such as 30s")
            return None
        return timeout


def _split(command: str) -> list[str]:
    import shlex  # noqa: PLC0415 - only where there is an error to explain

    try:
        return shlex.split(command)
    except ValueError:  # a quote that is never closed
        return command.split()


_SIGNALS = {number.name.removeprefix("SIG"): number for number in signal.Signals}
_ACTION_EXAMPLE = "write log, {signal: SIGTERM, to: main}, {stop: {timeout: 30s, else: kill}}, or another of unitmem.yaml(5)"


def kinds_of(action: Action) -> tuple[frozenset[str], str]:
    """(kinds, why no others): which kinds of unit can take `action`."""
    match action:
        case Signal(to=Target.MAIN):
            return frozenset(
                {"service"}
            ), "only services have a main process: write `to: all` or `to: largest`"
        case Signal(to=Target.CONTROL):
            return frozenset(
                {"service", "socket", "mount", "swap"}
            ), "a control process is what ExecStartPre= and its like start"
        case Restart():
            return CGROUP_KINDS - {"scope"}, "a scope can't be restarted, only stopped: write `stop`"
        case _:
            return CGROUP_KINDS, ""
