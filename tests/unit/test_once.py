"""What is wrong is told once while it lasts."""

from __future__ import annotations

import pytest

from unitmem.tell.journal import Entry, Priority
from unitmem.tell.once import Once

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
