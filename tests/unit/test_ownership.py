"""Who may change a file: its owner, those who may write it, and whoever may put another one in its place."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from unitmem.kernel.ownership import distrust

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
