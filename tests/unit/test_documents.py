"""What the tests of the pages rely on: that a page is taken apart as it is read, and compared as it is meant."""

from __future__ import annotations

import pytest
from documents import blocks, commands, difference, policies

PAGE = """\
# One

```sh
unitmem list
```

```text
UNIT
```

## Two

    $ unitmem check --strict a.yaml    # a comment
    $ cat <a.yaml | unitmem replay b.yaml

`term`
:   What it is, and `unitmem show` too.

    A paragraph of it: unitmem says nothing here.

```sh
cat >a.yaml <<'EOF'
policies: []
EOF
```
"""


def test_blocks_have_their_language_section_and_place():
    assert [(block.language, block.section, block.line) for block in blocks(PAGE)] == [
        ("sh", "One", 4),
        ("text", "One", 8),
        ("", "Two", 13),
        ("sh", "Two", 22),
    ]
    first, second, *_ = blocks(PAGE)
    assert first.line_below == second.line


def test_calls_are_found_in_blocks_and_in_the_text():
    assert sorted(map(" ".join, commands(PAGE))) == ["check --strict a.yaml", "list", "replay b.yaml", "show"]


def test_policies_are_found_where_a_block_writes_them():
    assert [*policies(PAGE)] == ["policies: []\n"]


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("web.service  1.5M  0B", "web.service      900.0K  12.0M"),
        ("held for 3s", "held for 1min 20s"),
        ("fired less than 1s ago", "fired 34s ago"),
        ("Nov 24 04:59:02 unitmem[5851]: gone 702ms after", "Dec  1 14:00:00 unitmem[7]: gone 1.2s after"),
        ("id: 5d3a1e5cd7ce4d6ab9f8a0cf8e0f9c7a", "id: ffffffffffffffffffffffffffffffff"),
        ("swap -", "swap 0B"),
        ("100.0M │  ▁▂▃▅▇█ step 1: 5.0M", "99.0M │▂▂▅▅▇█ step 1: 5.0M"),
        ("100.0M │          ▇", "99.0M │▇"),
        ("a\n…\nz", "a\nb\nc\nz"),
        ("a\n…\nz", "a\nz"),
        ("a …", "a quick brown fox"),
        ("…", ""),
    ],
)
def test_what_differs_from_run_to_run_is_not_compared(shown, printed):
    assert difference(shown, printed) is None


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("web.service 1.5M", "db.service 1.5M"),
        ("a", "a\nb"),
        ("a\nb", "b\na"),
        ("a\n…\nz", "a\nb"),
        ("step 1: log", "step 1: stop"),
        ("1 policy", "1 policies"),
    ],
)
def test_everything_else_is(shown, printed):
    assert difference(shown, printed) is not None
