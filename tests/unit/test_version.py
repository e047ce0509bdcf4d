"""The version is told in one place, src/unitmem/__init__.py; what has to repeat it agrees."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unitmem import __version__

CHECKOUT = Path(__file__).parents[2]


def first(pattern: str, file: str) -> str:
    found = re.search(pattern, (CHECKOUT / file).read_text(), re.MULTILINE)
    assert found, file
    return found[1]


@pytest.mark.parametrize(
    ("pattern", "file"),
    [
        (r"unitmem_([^_]+)_all\.deb", "README.md"),
        (r"unitmem-([^-]+)-py3", "README.md"),
        (r"`unitmem=(.+?)`", "README.md"),
        (r"C\(unitmem=(.+?)\)", "meta/argument_specs.yml"),
    ],
)
def test_the_role_names_files_and_packages_that_there_are(pattern, file):
    assert first(pattern, f"ansible/roles/unitmem/{file}") == __version__


def test_the_package_has_the_programs_version():
    assert first(r"^unitmem \((.+)\) ", "debian/changelog") == __version__


def test_the_changelog_begins_with_this_version_or_with_what_comes_after_it():
    assert first(r"^## \[(.+?)\]", "CHANGELOG.md") in (__version__, "Unreleased")
