"""Names as systemd has them, globs, and which units no policy may touch without naming them."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unitmem.unit import (
    CORE_UNITS,
    KINDS,
    OWN_UNITS,
    Unit,
    complete_name,
    escape_path,
    is_glob,
    is_unit_name,
    is_within,
    matches,
    protection,
    unit_kind,
)

# --- names -------------------------------------------------------------------------------------

ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ssh.service", "service"),
        ("user@1000.service", "service"),
        ("a.b.scope", "scope"),
        ("-.slice", "slice"),
        ("ssh", ""),
        ("ssh.", ""),
        ("", ""),
    ],
)
def test_the_kind_is_what_follows_the_last_dot(name, kind):
    assert unit_kind(name) == kind


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("ssh.service", True),
        ("getty@tty1.service", True),
        ("api@.service", True),
        ("-.slice", True),
        ("dev-disk-by\\x2dlabel-root.device", True),
        ("docker-0123.scope", True),
        ("a:b_c.mount", True),
        ("x" * 247 + ".service", True),
        ("x" * 248 + ".service", False),  # UNIT_NAME_MAX is 256, with its NUL
        ("ssh", False),
        ("ssh.conf", False),
        ("", False),
        (".service", False),
        ("@tty1.service", False),
        ("a b.service", False),
        ("a/b.service", False),
        ("*.service", False),
        ("ä.service", False),
        ("ssh.service\n", False),
    ],
)
def test_a_unit_name_is_what_systemd_takes_for_one(name, valid):
    assert is_unit_name(name) is valid


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("ssh", "ssh.service"),
        ("ssh.service", "ssh.service"),
        ("user.slice", "user.slice"),
        ("api@1", "api@1.service"),
        ("dot.ted", "dot.ted.service"),
        ("/", "-.mount"),
        ("/home", "home.mount"),
        ("/srv/a b", "srv-a\\x20b.mount"),
        ("api*", "api*"),
        ("/home/*", "/home/*"),
        ("api@?.service", "api@?.service"),
    ],
)
def test_a_typed_name_is_completed_as_systemctl_does(typed, completed):
    assert complete_name(typed) == completed


@given(kind=st.sampled_from(sorted(KINDS)), stem=st.from_regex(r"[A-Za-z0-9:_\\-]{1,20}", fullmatch=True))
def test_completing_a_complete_name_changes_nothing(kind, stem):
    assert complete_name(f"{stem}.{kind}") == f"{stem}.{kind}"


# --- paths -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "escaped"),
    [
        ("/", "-"),
        ("//", "-"),
        ("/home", "home"),
        ("/home/", "home"),
        ("//home//me", "home-me"),
        ("/a/./b", "a-b"),
        ("/a-b", "a\\x2db"),
        ("/a b", "a\\x20b"),
        ("/.hidden", "\\x2ehidden"),
        ("/a/.hidden", "a-.hidden"),
        ("/ä", "\\xc3\\xa4"),
        ("/\udcff", "\\xff"),  # a byte that is no UTF-8, as Python has it in sys.argv
    ],
)
def test_a_path_is_escaped_byte_by_byte(path, escaped):
    assert escape_path(path) == escaped


# systemd-escape refuses what climbs; no mount point does
components = st.text(st.characters(codec="utf-8", exclude_characters="/\0\n"), min_size=1, max_size=8).filter(
    lambda c: c != ".."
)
paths = st.lists(components, max_size=4).map(lambda parts: "/" + "/".join(parts))


@pytest.mark.skipif(
    shutil.which("systemd-escape") is None, reason="systemd-escape, the oracle, is not installed"
)
@settings(max_examples=15)
@given(paths=st.lists(paths, min_size=1, max_size=100))
def test_a_path_is_escaped_as_systemd_escapes_it(paths):
    command = ["systemd-escape", "--path", "--", *paths]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert [escape_path(path) for path in paths] == output.removesuffix("\n").split(" ")


# --- globs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "patterns", "matching"),
    [
        ("api@1.service", ["api@*.service"], True),
        ("api@1.service", ["web.service", "api@?.service"], True),
        ("api@12.service", ["api@?.service"], False),
        ("api@1.service", ["api@[0-4].service"], True),
        ("api@1.service", ["api@[!0-4].service"], False),
        ("api.service", ["api.service"], True),
        ("API.service", ["api.service"], False),
        ("my-api.service", ["api.service"], False),
        ("api.service", ["api"], False),
        ("api.service", ["*"], True),
        ("api.service", [], False),
    ],
)
def test_a_name_matches_when_one_glob_covers_all_of_it(name, patterns, matching):
    assert matches(name, patterns) is matching


@pytest.mark.parametrize(
    ("pattern", "is_one"),
    [
        ("a.service", False),
        ("a@.service", False),
        ("-.slice", False),
        ("*", True),
        ("a?", True),
        ("[ab].scope", True),
    ],
)
def test_a_glob_is_what_can_match_more_than_its_own_spelling(pattern, is_one):
    assert is_glob(pattern) is is_one


# --- protection --------------------------------------------------------------------------------

OWN = "/system.slice/system-unitmem.slice/unitmem@web.service"
CORE = [
    ("systemd-journald.service", "/system.slice/systemd-journald.service"),
    ("init.scope", "/init.scope"),
    ("sshd.service", "/remote.slice/remote-login.slice/sshd.service"),
]
NEEDED = "the machine can't be run or reached without it"


@pytest.mark.parametrize(
    ("name", "cgroup", "reason"),
    [
        # by name, with a cgroup or without
        ("init.scope", "/init.scope", NEEDED),
        ("-.slice", "/", NEEDED),
        ("-.mount", None, NEEDED),
        ("systemd-journald@web.service", "/system.slice/x.service", NEEDED),
        ("systemd-udevd-kernel.socket", None, NEEDED),
        ("dbus-broker.service", "/system.slice/dbus-broker.service", NEEDED),
        ("sshd@3-10.0.0.1:22.service", "/system.slice/sshd@3-10.0.0.1:22.service", NEEDED),
        # around a core unit
        ("system.slice", "/system.slice", "unitmem itself runs in it"),
        ("remote.slice", "/remote.slice", "sshd.service runs in it"),
        ("remote-login.slice", "/remote.slice/remote-login.slice", "sshd.service runs in it"),
        # ourselves
        ("unitmem@web.service", OWN, "unitmem itself runs in it"),
        ("system-unitmem.slice", "/system.slice/system-unitmem.slice", "unitmem itself runs in it"),
        ("unitmem@other.service", "/unitmem.slice/unitmem@other.service", "unitmem itself runs in it"),
        # what may be touched
        ("web.service", "/system.slice/web.service", None),
        ("remote-other.slice", "/remote.slice/remote-other.slice", None),
        ("remote-log.slice", "/remote.slice/remote-log.slice", None),  # a prefix of a name is no ancestor
        ("user.slice", "/user.slice", None),
        ("idle.service", None, None),
        ("my-dbus.service", "/system.slice/my-dbus.service", None),
    ],
)
def test_a_unit_is_protected_for_its_name_or_for_what_runs_in_it(name, cgroup, reason):
    assert protection(Unit(name, control_group=cgroup), OWN, CORE) == reason


def test_a_slice_around_a_core_unit_is_protected_wherever_unitmem_runs():
    system = Unit("system.slice", control_group="/system.slice")
    assert protection(system, None, CORE) == "systemd-journald.service runs in it"
    assert protection(system, "/user.slice/session-1.scope", CORE) == "systemd-journald.service runs in it"


segments = st.sampled_from(["a", "b", "ab", "a.service", "a.slice"])
cgroups = st.lists(segments, max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(path=cgroups, core=cgroups, own=cgroups)
def test_no_unit_that_holds_unitmem_or_a_core_unit_is_left_unprotected(path, core, own):
    reason = protection(Unit("x.slice", control_group=path), own, [("core.service", core)])
    holds = any((inner + "/").startswith(path.rstrip("/") + "/") for inner in (core, own))
    assert (reason is not None) is holds


@given(name=st.sampled_from(CORE_UNITS), instance=st.from_regex(r"[a-z0-9]{0,5}", fullmatch=True))
def test_every_core_unit_is_protected_in_every_instance(name, instance):
    reason = "unitmem itself runs in it" if name in OWN_UNITS else NEEDED
    assert protection(Unit(name.replace("*", instance)), None, []) == reason


@given(other=cgroups, more=cgroups, yet_more=cgroups)
def test_being_within_is_reflexive_and_transitive(other, more, yet_more):
    ancestor = other.rstrip("/") + more
    path = ancestor.rstrip("/") + yet_more
    assert is_within(path, path)
    assert is_within(path, "/")
    assert is_within(path, ancestor.rstrip("/") or "/")
    assert is_within(path, other)


@pytest.mark.parametrize(
    ("unit", "state"),
    [
        (Unit("a.service", active_state="active", sub_state="running"), "active (running)"),
        (Unit("a.service", active_state="failed"), "failed"),
    ],
)
def test_a_state_is_written_as_systemctl_writes_it(unit, state):
    assert unit.state == state


@pytest.mark.parametrize(
    ("name", "description", "content"),
    [
        ("run-u12.service", "/usr/bin/backup --all", "/usr/bin/backup --all"),
        ("run-r0123456789abcdef.scope", "make -j8", "make -j8"),
        ("run-p4711-i4712.service", "[systemd-run] make -j8", "[systemd-run] make -j8"),
        ("session-3.scope", "Session 3 of User ada", "Session 3 of User ada"),
        (f"libpod-{ID}.scope", "libcrun container", ""),
        (f"docker-{ID}.scope", f"libcontainer container {ID}", ""),
        (f"cri-containerd-{ID}.scope", "web, of shop", "web, of shop"),
        ("run-u12.service", "run-u12.service", ""),
        ("run-u12.service", "", ""),
        ("web.service", "The web", ""),
        ("machine-web.scope", "Container web", ""),
    ],
)
def test_what_a_made_up_name_does_not_say(name, description, content):
    """What container runtimes describe their scopes by is in the name already, or says nothing."""
    assert Unit(name, description).content == content


def test_what_a_unit_is_described_by_breaks_no_line_and_takes_no_more_than_half_of_one():
    content = Unit("run-u12.service", "\x1b[31mmake\n\u202e" + 80 * "x").content
    assert content.startswith(r"\x1b[31mmake\n\u202exxx")
    assert (len(content), content[-1]) == (60, "…")
