"""A watch's policy file is read by a process of its own: what comes of it is as if it had read the file itself."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from unitmem.daemon.policy_file import load_checked
from unitmem.errors import PolicyFileError, UnitmemError
from unitmem.policy.model import Mode
from unitmem.policyfile import reader

POLICY = """
interval: 3s
budget: {actions: 5, per: 1h}
policies:
  - name: web
    units: ["web@*.service"]
    clear: "anon < 50M"
    steps:
      - {when: "anon > 100M and growth(anon, 1min) > 1M/s or not swap < 1M", for: 10s, do: log}
      - {when: "anon > 80% of limit", do: {signal: SIGUSR1}, repeat: 1min}
      - {when: "pss > 90% of host.total", pick: {by: footprint, settle: 5s}, do: {stop: {timeout: 30s, else: kill}}}
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "web.yaml"
    path.write_text(POLICY)
    return path


def test_it_is_the_same_as_read_here(path):
    here, loaded = reader.load(path), load_checked(path, observe=False)
    assert loaded.file == here.file
    assert loaded.warnings == here.warnings
    assert {policy.mode for policy in load_checked(path, observe=True).file.policies} == {Mode.OBSERVE}


@pytest.mark.parametrize("text", [None, "policies: 3", "policies: [{name: a}, {nam: b}]", "a: b: c"])
def test_so_are_its_mistakes(tmp_path, text):
    path = tmp_path / "web.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PolicyFileError) as here:
        reader.load(path)
    with pytest.raises(PolicyFileError) as told:
        load_checked(path, observe=False)
    assert str(told.value) == str(here.value)
    assert (told.value.hint, told.value.problems) == (here.value.hint, here.value.problems)


def killed(path):
    os.kill(os.getpid(), signal.SIGKILL)


def broken(path):
    raise ValueError(f"a mistake of our own: {path}")


def test_a_process_that_is_killed_is_no_mistake_in_the_file(path, monkeypatch):
    """On status 78 the service isn't started again; with this one it is."""
    monkeypatch.setattr(reader, "load", killed)
    with pytest.raises(
        UnitmemError, match=r"web\.yaml: the process that reads it was ended by signal 9$"
    ) as told:
        load_checked(path, observe=False)
    assert told.value.exit_status == 1


def test_nor_is_one_that_can_not_be_started(path, monkeypatch):
    def refuse():
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(os, "fork", refuse)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(
        UnitmemError, match="no process can be started to read it: cannot allocate memory"
    ) as told:
        load_checked(path, observe=False)
    assert told.value.exit_status == 1
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_unexpected_error_is_one_that_the_watch_tells(path, monkeypatch):
    monkeypatch.setattr(reader, "load", broken)
    with pytest.raises(UnitmemError, match="can't be read: unexpected ValueError: a mistake of our own"):
        load_checked(path, observe=False)
