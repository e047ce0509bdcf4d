"""Entries reach journald as its protocol has them, and nobody waits for one that doesn't read."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from unitmem.tell.journal import Journal, Priority
from unitmem.tell.journald import MAX_KEPT, Journald


@pytest.fixture
def listener(tmp_path):
    """A journald that reads when it is asked to."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.setblocking(False)
        yield listener


@pytest.fixture
def journald(tmp_path, listener):
    journald = Journald(tmp_path / "s")
    yield journald
    journald.close()


def heard(listener):
    entries = []
    try:
        while True:
            entries.append(listener.recv(1 << 20))
    except BlockingIOError:
        return entries


def test_fields_are_lines_and_longer_texts_come_with_their_length(journald, listener):
    journald.send({"MESSAGE": "a = b", "PRIORITY": 4, "UNITMEM_CONDITION": "two\nlines"})
    assert heard(listener) == [
        b"MESSAGE=a = b\nPRIORITY=4\nUNITMEM_CONDITION\n\x09\0\0\0\0\0\0\0two\nlines\n"
    ]


def test_bytes_that_are_no_text_are_what_they_were(journald, listener):
    journald.send({"MESSAGE": b"caf\xe9".decode(errors="surrogateescape")})
    assert heard(listener) == [b"MESSAGE=caf\xe9\n"]


def test_what_is_endless_is_cut(journald, listener):
    journald.send({"MESSAGE": "x" * 10_000_000})
    (entry,) = heard(listener)
    assert 10_000 < len(entry) < 100_000


def test_a_journald_that_does_not_read_is_not_waited_for_and_gets_the_latest_later(journald, listener):
    for number in range(2 * MAX_KEPT):
        journald.send({"MESSAGE": number})
    first = heard(listener)
    assert first[0] == b"MESSAGE=0\n"
    entries = []
    while True:
        journald.flush()
        if not (more := heard(listener)):
            break
        entries += more
    lost, *entries = entries
    assert len(entries) == MAX_KEPT
    assert entries[-1] == f"MESSAGE={2 * MAX_KEPT - 1}\n".encode()
    # how many are missing stands where they are missing, once
    missing = 2 * MAX_KEPT - len(first) - len(entries)
    assert lost.startswith(f"MESSAGE={missing} entries of unitmem lost before this one".encode())
    journald.send({"MESSAGE": "and on"})
    assert heard(listener) == [b"MESSAGE=and on\n"]


def test_where_there_is_no_journald_nothing_is_kept_for_it(tmp_path):
    journald = Journald(tmp_path / "none")
    journald.send({"MESSAGE": "lost"})
    assert not journald._kept
    journald.close()


def test_a_reader_of_stderr_that_does_not_read_is_not_waited_for(tmp_path):
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w")
    journal = Journal(stream, tmp_path / "none")
    thread = threading.Thread(
        target=lambda: [journal.say(Priority.INFO, "x" * 1000) for _ in range(1000)], daemon=True
    )
    thread.start()
    thread.join(timeout=60)
    is_waiting = thread.is_alive()
    os.close(reader)
    if not is_waiting:
        journal.close()
        stream.close()
    assert not is_waiting
