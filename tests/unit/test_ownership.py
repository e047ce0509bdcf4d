"""Who may change a file: its owner, those who may write it, and whoever may put another one in its place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from unitmem.kernel.ownership import distrust, parse_id_map, trusted_owners

OWN = {0, os.geteuid()}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def file(tmp_path):
    """A file in two directories, where nobody else may write anything."""
    file = tmp_path / "outer/inner/web.yaml"
    file.parent.mkdir(parents=True)
    file.touch()
    for part, mode in ((file, 0o644), (file.parent, 0o755), (file.parent.parent, 0o755)):
        part.chmod(mode)
    return file


def test_what_only_its_owner_may_write_is_trusted(file):
    assert distrust(file, OWN) is None


def test_a_file_in_a_shared_directory_is_trusted_if_its_owner_is(file):
    """As /tmp is."""
    file.parent.chmod(0o1777)
    assert distrust(file, OWN) is None
    file.chmod(0o664)
    assert distrust(file, OWN) is not None


@pytest.mark.parametrize("part", [".", "..", "../.."])
@pytest.mark.parametrize("mode", [0o666, 0o664, 0o622, 0o777])
def test_what_others_may_write_is_not_trusted_and_the_way_out_is_told(file, part, mode):
    part = Path(os.path.normpath(file / part)) if part != "." else file
    part.chmod(mode | (0o111 if part != file else 0))
    why = distrust(file, OWN)
    assert why is not None
    assert why.endswith(f"run `chmod go-w {part}`")
    part.chmod(part.stat().st_mode & ~0o022)
    assert distrust(file, OWN) is None


@as_root
@pytest.mark.parametrize(
    ("mode", "members", "name", "is_trusted"),
    [
        (0o664, [], "carol", True),
        (0o664, ["carol"], "carol", True),
        (0o666, [], "carol", False),
        (0o664, ["mallory"], "carol", False),
        (0o664, [], "staff", False),
    ],
)
def test_the_group_that_a_user_has_alone_is_nobody_else(file, monkeypatch, mode, members, name, is_trusted):
    """As where the umask is 002, since each user has a group."""
    monkeypatch.setattr("pwd.getpwuid", lambda uid: SimpleNamespace(pw_name="carol", pw_gid=4711))
    monkeypatch.setattr("grp.getgrgid", lambda gid: SimpleNamespace(gr_name=name, gr_mem=members))
    os.chown(file, 4711, 4711)
    file.chmod(mode)
    assert (distrust(file, {0, 4711}) is None) is is_trusted


@pytest.mark.parametrize("is_absolute", [True, False])
def test_links_are_followed_part_by_part(file, tmp_path, is_absolute):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    link = elsewhere / "link"
    link.symlink_to(file.parent if is_absolute else "../outer/../outer/inner")
    assert distrust(link / "web.yaml", OWN) is None
    file.parent.parent.chmod(0o777)
    assert f"others may write {file.parent.parent} " in str(distrust(link / "web.yaml", OWN))
    file.parent.parent.chmod(0o755)
    elsewhere.chmod(0o777)
    assert f"others may write {elsewhere} " in str(distrust(link / "web.yaml", OWN))


@as_root
@pytest.mark.parametrize("part", ["file", "directory", "link"])
def test_what_somebody_else_owns_is_not_trusted(file, tmp_path, part):
    link = tmp_path / "link"
    link.symlink_to(file)
    owned = {"file": file, "directory": file.parent, "link": link}[part]
    os.chown(owned, 4711, 4711, follow_symlinks=False)
    assert f"{owned} belongs to user 4711, and not to root" in str(distrust(link, {0}))
    assert distrust(link, {0, 4711}) is None


@as_root
def test_a_shared_directory_does_not_protect_what_somebody_else_owns(file):
    file.parent.chmod(0o1777)
    os.chown(file, 4711, 4711)
    assert "belongs to user 4711" in str(distrust(file, {0}))


def test_of_what_is_not_there_its_directory_is_judged(file):
    file.unlink()
    assert distrust(file, OWN) is None
    file.parent.chmod(0o777)
    assert f"others may write {file.parent} " in str(distrust(file, OWN))


def test_a_path_that_leads_nowhere_ends(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert distrust(loop, OWN) is None


def test_a_relative_path_is_one_below_the_working_directory(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    assert distrust(Path("web.yaml"), OWN) is None
    file.parent.parent.chmod(0o777)
    assert distrust(Path("../inner/web.yaml"), OWN) is not None


# --- in a user namespace ---

OUTSIDE = 65534


@pytest.fixture
def in_namespace(monkeypatch):
    """As in a user namespace that doesn't have OUTSIDE, which then stands for all that it doesn't have."""
    monkeypatch.setattr("unitmem.kernel.ownership.unmapped_owner", lambda: OUTSIDE)


@as_root
def test_a_directory_from_outside_of_a_user_namespace_is_trusted_if_nobody_else_may_write_it(
    file, in_namespace
):
    """As `/` is there: its owner could take the file away, but make none that belongs to anybody within."""
    os.chown(file.parent.parent, OUTSIDE, OUTSIDE)
    assert distrust(file, OWN) is None
    file.parent.parent.chmod(0o775)
    assert f"others may write {file.parent.parent} " in str(distrust(file, OWN))
    file.parent.parent.chmod(0o1777)  # as /tmp is
    assert distrust(file, OWN) is None


@as_root
@pytest.mark.parametrize("part", ["file", "link"])
def test_whose_a_file_from_outside_of_a_user_namespace_is_can_not_be_told(file, tmp_path, in_namespace, part):
    link = tmp_path / "link"
    link.symlink_to(file)
    owned = {"file": file, "link": link}[part]
    os.chown(owned, OUTSIDE, OUTSIDE, follow_symlinks=False)
    why = str(distrust(link, OWN))
    assert why.startswith(f"{owned} belongs to a user from outside of this user namespace")
    assert "chown" not in why


@as_root
def test_without_a_namespace_the_same_id_is_somebody(file):
    os.chown(file.parent, OUTSIDE, OUTSIDE)
    assert f"{file.parent} belongs to user {OUTSIDE}, and not to" in str(distrust(file, OWN))


def test_who_is_from_outside_is_no_owner_to_trust(monkeypatch, in_namespace):
    """As in a namespace that maps nobody, where one's own files can't be told from those of others."""
    monkeypatch.setattr("os.geteuid", lambda: OUTSIDE)
    assert trusted_owners() == {0}


@pytest.mark.parametrize(
    ("text", "has", "lacks"),
    [
        ("         0          0 4294967295\n", {0, 65534}, set()),
        ("      1000       1000          1\n", {1000}, {0, 999, 1001, 65534}),
        ("0 1000 1\n1 100000 65536\n", {0, 1, 65534, 65536}, {65537}),
        ("", set(), {0, 65534}),
    ],
)
def test_a_map_of_ids_is_read(text, has, lacks):
    ids = {number for within in parse_id_map(text) for number in has | lacks if number in within}
    assert ids == has


@pytest.mark.parametrize("text", ["0 0\n", "a b c\n", "1 2 3 4\n"])
def test_a_map_of_something_else_is_refused(text):
    with pytest.raises(ValueError):
        parse_id_map(text)


@as_root
def test_a_real_user_namespace(file):
    """As that of a user's service whose sandbox implies PrivateUsers=, where even root is from outside."""
    enter = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*enter, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("no user namespaces here")
    other = file.with_name("other")
    other.touch(0o644)
    for part in (file.parent, other):
        os.chown(part, 4711, 4711)
    script = (
        "from pathlib import Path; from unitmem.kernel.ownership import distrust, trusted_owners\n"
        f"for file in {str(file)!r}, {str(other)!r}: print(distrust(Path(file), trusted_owners()))"
    )
    done = subprocess.run([*enter, sys.executable, "-c", script], check=True, capture_output=True, text=True)
    of_own, of_other = done.stdout.splitlines()
    assert of_own == "None"
    assert of_other.startswith(f"{other} belongs to a user from outside")
