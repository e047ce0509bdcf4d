"""What a shell offers at a TAB, without Typer and without a connection: either takes longer than one waits for a word.

It answers as Typer does, of whose completion this is a part. What isn't plain, or is asked of a watch, is Typer's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from unitmem.cli.offered import OPTIONS, VERBS

TYPE_CHECKING = False  # as type checkers know it; a TAB needs nothing of typing
if TYPE_CHECKING:
    from typing import TypeAlias

    Offer: TypeAlias = tuple[str, str]
    """A word, and its help."""

_UNSAFE = str.maketrans({"\\": "/", "`": "'", "$": "", "\n": " "})
"""What zsh would take for more than text, in a description, which may be anybody's, such as who mounts something."""
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.@:/~+,%")
_UNITS = {"list", "top", "metrics"}
"""The verbs that take units."""
_UNIT = {"show", "explain"}
"""Those that take one."""
_INSTANCE = {"status", "reset"}
"""Those that take a watch."""
_LIST_UNITS = (
    *("systemctl", "list-units", "--all", "--plain", "--full", "--no-legend", "--no-pager"),
    "--type=service,scope,slice,mount,socket,swap",
)


def answer(environment: Mapping[str, str]) -> str | None:
    """Return what is printed for the completion that `environment` asks for; None if it is for Typer.

    Where nothing is offered, shells offer files.

    Raises:
        SystemExit: fish asks whether anything is offered, which the exit status says.
    """
    words = _words(environment)
    if words is None or not all(map(_PLAIN.issuperset, words)):
        return None
    *given, typed = words
    offers = _offers(given, typed)
    if offers is None:
        return None
    offered = [(word, text) for word, text in offers if word.startswith(typed)]
    match environment["_UNITMEM_COMPLETE"]:
        case "complete_bash":
            return "\n".join(word for word, _ in offered)
        case "complete_zsh" if offered:
            described = "\n".join(
                f'"{_escaped(word)}":"{_escaped(text)}"' if text else f'"{_escaped(word)}"'
                for word, text in offered
            )
            return f"_arguments '*: :(({described}))'"
        case "complete_zsh":
            return "_files"
        case "complete_fish" if environment.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args":
            raise SystemExit(0 if offered else 1)
        case "complete_fish":
            return "\n".join(f"{word}\t{text}" if text else word for word, text in offered)
    return None


def _words(environment: Mapping[str, str]) -> list[str] | None:
    """Return the words after the program's name up to the one that is being typed, which may be empty."""
    if environment["_UNITMEM_COMPLETE"] == "complete_bash":
        # as bash joins them: by the first character of its IFS
        words, position = environment.get("COMP_WORDS", "").split("\n"), environment.get("COMP_CWORD", "")
        if not position.isdecimal():
            return None
        return [*words, ""][1 : int(position) + 1] if 1 <= int(position) <= len(words) else None
    line = environment.get("_TYPER_COMPLETE_ARGS", "")
    words = line.split()[1:]
    return [*words, ""] if line.endswith(" ") else words or None


def _offers(given: list[str], typed: str) -> Iterable[Offer] | None:
    """Return what may stand after the `given` words; None if that is for Typer to say."""
    if not given and typed[:1] != "-":
        return VERBS.items()
    if not given:
        return [(name, text) for names, text, _, _ in OPTIONS[""] for name in names]
    verb, *rest = given
    if verb not in VERBS:
        return None
    options = {name: option for option in OPTIONS[verb] for name in option[0]}
    plain, seen = [], []
    words = iter(rest)
    for word in words:
        if word[:1] != "-":
            plain.append(word)
        elif word not in options or word in ("--help", "-h"):
            return None
        else:
            seen.append(options[word])
            if options[word][2] and next(words, None) is None:  # its value is being typed
                return [(choice, "") for choice in options[word][3]]
    if verb == "guard" and plain:  # what follows is the command's own
        return None
    if typed[:1] == "-":
        return [(name, each[1]) for each in OPTIONS[verb] if each not in seen for name in each[0]]
    is_user = "--user" in rest
    if verb in _UNITS or (verb in _UNIT and not plain):
        return _units(is_user=is_user)
    if verb in _INSTANCE and not plain:
        return _instances(is_user=is_user)
    return None if verb == "reset" else []  # it asks the watch for its units


def _instances(*, is_user: bool) -> list[Offer]:
    """Return the instances whose control sockets are there."""
    from unitmem.tell.interface import SOCKET_NAME  # noqa: PLC0415

    runtime = os.environ.get("XDG_RUNTIME_DIR", "/nonexistent") if is_user else "/run"
    directory = f"{runtime}/unitmem"
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    return [(name, "") for name in names if os.access(f"{directory}/{name}/{SOCKET_NAME}", os.F_OK)]


def _units(*, is_user: bool) -> list[Offer] | None:
    """Return the loaded units that can have a cgroup, as systemctl lists them; None if it can't be started."""
    reader, writer = os.pipe()
    command = [*_LIST_UNITS, "--user"] if is_user else [*_LIST_UNITS]
    environment = {"SYSTEMD_BUS_TIMEOUT": "5s", **os.environ, "SYSTEMD_COLORS": "0"}
    actions = [
        (os.POSIX_SPAWN_DUP2, writer, 1),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
    ]
    try:
        child = os.posix_spawnp(command[0], command, environment, file_actions=actions)
    except OSError:
        os.close(reader)
        return None
    finally:
        os.close(writer)
    with open(reader, encoding="utf-8", errors="replace") as output:
        lines = output.read().splitlines()
    os.waitpid(child, 0)  # one that fails lists nothing, and to ask the manager again would take as long
    return list(_present(lines))


def _present(lines: Iterable[str]) -> Iterator[Offer]:
    """Yield the name and the description of each unit that exists, of the lines of `systemctl list-units`."""
    for line in lines:
        name, load, active, *more = line.split(None, 4)[:5] + [""] * 3
        if active and (load != "not-found" or active != "inactive"):
            yield name, harmless(more[1])


def harmless(description: str) -> str:
    """Return the description of a unit as a shell may be given it."""
    return description.translate(_UNSAFE)


def _escaped(text: str) -> str:
    """Return `text` within double quotes in single ones, as zsh evaluates it."""
    for character, escaped in (('"', '""'), ("'", "''"), ("$", "\\$"), ("`", "\\`"), (":", "\\\\:")):
        text = text.replace(character, escaped)
    return text
