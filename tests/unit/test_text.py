"""Words for people."""

from __future__ import annotations

import errno
import signal

import pytest

from unitmem.errors import reason_of
from unitmem.text import close_to, closest, listed, plural, quoted, signal_name


@pytest.mark.parametrize(
    ("names", "text"),
    [([], ""), (["a"], "a"), (["a", "b", "c"], "a, b, c"), (["a", "b", "c", "d", "e"], "a, b, c and 2 more")],
)
def test_a_long_list_is_cut_and_says_so(names, text):
    assert listed(names, 3) == text


@pytest.mark.parametrize(
    ("count", "words", "text"),
    [
        (0, ("step",), "0 steps"),
        (1, ("step",), "1 step"),
        (2, ("step",), "2 steps"),
        (1, ("policy", "policies"), "1 policy"),
        (3, ("policy", "policies"), "3 policies"),
    ],
)
def test_one_is_one_and_all_else_are_many(count, words, text):
    assert plural(count, *words) == text


def test_names_are_quoted_each():
    assert quoted(["a", "b"]) == "`a`, `b`"
    assert quoted([]) == ""


def test_a_name_that_is_close_is_suggested():
    assert closest("stpo", ["start", "stop"]) == "stop"
    assert close_to("stpo", ["start", "stop"]) == " (did you mean `stop`?)"
    assert closest("xyz", ["start", "stop"]) is None
    assert close_to("xyz", ["start", "stop"]) == ""


def test_an_error_is_put_into_words():
    assert reason_of(FileNotFoundError(errno.ENOENT, "No such file or directory", "/x")) == (
        "no such file or directory"
    )
    assert reason_of(PermissionError(errno.EPERM, "it is hidden from this user")) == (
        "it is hidden from this user"
    )
    assert reason_of(OSError("File name too Long")) == "File name too Long"


def test_a_signal_has_a_name_or_a_number():
    assert signal_name(signal.SIGTERM) == "SIGTERM"
    assert signal_name(40) == "signal 40"
