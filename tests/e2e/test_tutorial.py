"""The tutorial, followed word for word: each block is pasted, and what it prints is what the page shows."""

from __future__ import annotations

import pytest
from documents import PAGES, blocks

PAGE = PAGES["docs/tutorial.md"]


@pytest.fixture
def fresh(host):
    """A machine that has no story of the tutorial's units, and keeps none, also where the reader stopped half way."""
    host.check_output("journalctl --rotate && journalctl --vacuum-time=1s")
    yield
    host.run(
        "systemctl disable --now unitmem@tutorial.service; systemctl stop leaky.service; "
        "systemctl reset-failed unitmem@tutorial.service leaky.service; "
        "rm -rf /etc/unitmem/tutorial.yaml /var/lib/unitmem/tutorial /tmp/earlier.yaml /tmp/leak.py"
    )


@pytest.mark.suites("trixie")
def test_the_tutorial_works_word_for_word(host, follower, fresh):
    # "copy that to the machine": it is the very package that was built for this guest
    host.check_output("cp /var/tmp/unitmem/unitmem.deb %s/unitmem_0_all.deb", follower.directory)
    follower.follow(blocks(PAGE))
    assert not host.file("/var/lib/unitmem/tutorial").exists
    assert host.run("systemctl is-active unitmem@tutorial.service").stdout.strip() == "inactive"
