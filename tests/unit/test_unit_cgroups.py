"""Where units have their cgroups, as the names of directories say."""

from __future__ import annotations

import pytest

from unitmem.kernel.unit_cgroups import Place, find_unit_cgroups
from unitmem.unit import parent_slice


@pytest.fixture
def tree(tmp_path):
    for path in (
        "init.scope",
        "system.slice/ssh.service/inner.service",
        "system.slice/_memory.service",
        "system.slice/system-getty.slice/getty@tty1.service",
        "system.slice/other.slice/x.service",
        "user.slice/user-1000.slice/user@1000.service/app.slice/app-a.slice/a.service",
        "user.slice/user-1000.slice/session-1.scope",
        "system.slice/twice.service",
        "user.slice/twice.service",
    ):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "system.slice/memory.max").write_text("max\n")
    return tmp_path


def test_units_are_found_in_slices_alone(tree):
    system = "/system.slice"
    user = "/user.slice/user-1000.slice"
    assert find_unit_cgroups("", tree) == {
        "-.slice": Place("/", None),
        "init.scope": Place("/init.scope", "-.slice"),
        "system.slice": Place(system, "-.slice"),
        "ssh.service": Place(f"{system}/ssh.service", "system.slice"),
        "memory.service": Place(f"{system}/_memory.service", "system.slice"),
        "system-getty.slice": Place(f"{system}/system-getty.slice", "system.slice"),
        "getty@tty1.service": Place(f"{system}/system-getty.slice/getty@tty1.service", "system-getty.slice"),
        "user.slice": Place("/user.slice", "-.slice"),
        "user-1000.slice": Place(user, "user.slice"),
        "user@1000.service": Place(f"{user}/user@1000.service", "user-1000.slice"),
        "session-1.scope": Place(f"{user}/session-1.scope", "user-1000.slice"),
        "twice.service": None,
    }


def test_a_users_manager_has_its_units_below_its_own_cgroup(tree):
    top = "/user.slice/user-1000.slice/user@1000.service"
    assert find_unit_cgroups(top, tree) == {
        "-.slice": Place(top, None),
        "app.slice": Place(f"{top}/app.slice", "-.slice"),
        "app-a.slice": Place(f"{top}/app.slice/app-a.slice", "app.slice"),
        "a.service": Place(f"{top}/app.slice/app-a.slice/a.service", "app-a.slice"),
    }


def test_one_slice_is_enough(tree):
    found = find_unit_cgroups("/system.slice/system-getty.slice", tree, "system-getty.slice")
    assert set(found) == {"system-getty.slice", "getty@tty1.service"}
    assert set(find_unit_cgroups("/gone.slice", tree, "gone.slice")) == {"gone.slice"}


@pytest.mark.parametrize(
    ("name", "parent"),
    [
        ("a.slice", "-.slice"),
        ("a-b-c.slice", "a-b.slice"),
        ("user-1000.slice", "user.slice"),
        ("a\\x2db.slice", "-.slice"),
    ],
)
def test_dashes_say_where_a_slice_is(name, parent):
    assert parent_slice(name) == parent
