"""ManagedOOMPreference=, as systemd notes it at a cgroup."""

from __future__ import annotations

import os

import pytest

from unitmem.kernel.cgroup import Cgroup
from unitmem.kernel.oom_preference import OomPreference, read_oom_preference

AVOID, OMIT = "user.oomd_avoid", "user.oomd_omit"


@pytest.mark.parametrize(
    ("attributes", "preference"),
    [
        ({}, OomPreference.NONE),
        ({AVOID: b"1"}, OomPreference.AVOID),
        ({OMIT: b"1"}, OomPreference.OMIT),
        ({AVOID: b"1", OMIT: b"1"}, OomPreference.OMIT),
        ({AVOID: b"1", OMIT: b"0"}, OomPreference.AVOID),
        ({OMIT: b""}, OomPreference.NONE),
        ({"user.oomd_kill": b"1"}, OomPreference.NONE),
    ],
)
def test_it_is_in_extended_attributes(tmp_path, attributes, preference):
    try:
        for name, value in attributes.items():
            os.setxattr(tmp_path, name, value)
    except OSError:
        pytest.skip("this file system has no extended attributes")
    with Cgroup("/", tmp_path) as cgroup:
        assert read_oom_preference(cgroup) is preference


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_whoever_owns_a_cgroup_can_not_exempt_it(tmp_path):
    try:
        os.setxattr(tmp_path, OMIT, b"1")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    os.chown(tmp_path, 1234, 1234)
    with Cgroup("/", tmp_path) as cgroup:
        assert read_oom_preference(cgroup) is OomPreference.NONE


def test_it_is_that_of_the_directory_that_was_opened(tmp_path):
    first = tmp_path / "web"
    first.mkdir()
    try:
        os.setxattr(first, AVOID, b"1")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    with Cgroup("/web", tmp_path) as cgroup:
        first.rename(tmp_path / "old")
        (tmp_path / "web").mkdir()
        assert read_oom_preference(cgroup) is OomPreference.AVOID
