"""What is wrong is told once while it lasts."""

from __future__ import annotations

from itertools import cycle

import pytest

from unitmem.tell.journal import Entry, Priority
from unitmem.tell.once import MOST_WORDS, Once

BAD, WORSE = Entry(Priority.WARNING, "bad"), Entry(Priority.WARNING, "worse")
WELL = Entry(Priority.NOTICE, "well")


@pytest.mark.parametrize(
    ("troubles", "options", "told"),
    [
        ([None, None], {}, [None, None]),
        (["bad", "bad", "bad"], {}, [BAD, None, None]),
        (["bad", None, None, "bad"], {}, [BAD, WELL, None, BAD]),
        (["bad", "worse", "bad"], {}, [BAD, WORSE, BAD]),
        (["bad", "worse", "bad", None, "worse"], {"by_words": False}, [BAD, None, None, WELL, WORSE]),
        (["bad", None, "bad"], {"well": None}, [BAD, None, BAD]),
        (["bad", None], {"priority": Priority.ERROR}, [Entry(Priority.ERROR, "bad"), WELL]),
    ],
)
def test_a_trouble_is_told_as_it_begins_and_ends(troubles, options, told):
    once = Once()
    assert [once.news("key", trouble, **{"well": "well", **options}) for trouble in troubles] == told


def test_one_trouble_is_not_another():
    once = Once()
    assert once.news(("unit", "a"), "bad") == BAD
    assert once.news(("unit", "b"), "bad") == BAD
    assert once.news(("unit", "b"), None, "well") == WELL
    assert once.news(("unit", "a"), "bad") is None


def told_over(minutes, troubles, **options):
    """What is told of troubles in a cycle, one every 2 s, and then in two quiet hours."""
    once, told = Once(), []
    for now, trouble in zip(range(0, int(minutes * 60), 2), cycle(troubles), strict=False):
        told += [once.news("key", trouble, "well", now=now, **options), *once.ends(now)]
    for now in range(int(minutes * 60), int(minutes * 60) + 7200, 60):
        told += once.ends(now)
    return [entry for entry in told if entry is not None]


def test_a_trouble_that_comes_and_goes_is_told_twice():
    assert told_over(60, ["bad", None, None]) == [BAD, WELL, BAD, WELL]


def test_one_that_stays_away_longer_is_told_seldom():
    """Away for 80 s each time: after a minute, then two, it is not over before it is back."""
    assert told_over(60, ["bad", *[None] * 40]) == [BAD, WELL] * 3


def test_with_a_quiet_time_it_is_told_once():
    assert told_over(60, ["bad", None, None], quiet=60) == [BAD, WELL]


def test_one_that_comes_back_after_hours_is_a_new_one():
    once = Once()
    for day in range(3):
        now = day * 86_400.0
        assert once.news("key", "bad", now=now) == BAD
        assert once.news("key", None, "well", now=now + 2) == WELL


def test_words_that_change_each_time_are_told_a_few_times():
    once = Once()
    told = [once.news("key", f"bad {tick}", now=tick) for tick in range(100)]
    assert [entry is not None for entry in told] == [True] * MOST_WORDS + [False] * (100 - MOST_WORDS)


def test_an_end_is_told_though_nobody_asks_for_that_key_any_more():
    once = Once()
    once.news("key", "bad", quiet=60.0)
    assert once.news("key", None, "well", now=1.0, quiet=60.0) is None
    assert [list(once.ends(now)) for now in (60.0, 61.0, 62.0)] == [[], [WELL], []]
