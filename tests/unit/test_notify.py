"""Messages to the manager: in the form of sd_notify(3), and never waited for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from unitmem.daemon.world import World
from unitmem.manager.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def address(request, tmp_path):
    return str(tmp_path / "notify") if request.param == "path" else f"@unitmem-test-{os.getpid()}"


@pytest.fixture
def manager(address):
    """A manager that reads when it is asked to."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0"))
        manager.setblocking(False)
        yield manager


@pytest.fixture
def notify(address, manager):
    notifier = Notifier(address)
    yield notifier
    notifier.close()


def received(manager):
    messages = []
    try:
        while True:
            messages.append(manager.recv(1 << 16).decode())
    except BlockingIOError:
        return messages


def test_a_message_has_a_line_for_each_state(notify, manager):
    notify(stopping=1, status="stopping")
    notify(watchdog=1)
    assert received(manager) == ["STOPPING=1\nSTATUS=stopping", "WATCHDOG=1"]


def test_what_there_is_no_room_for_is_sent_later_in_order_and_each_kind_once(notify, manager):
    for number in range(10_000):
        notify(status=number)
    notify(reloading=1, monotonic_usec=1)
    notify(ready=1)
    for number in range(100):
        notify(status=f"then {number}")
        notify(watchdog=1)
    received(manager)
    notify(watchdog=1)
    assert received(manager) == [
        "RELOADING=1\nMONOTONIC_USEC=1", "READY=1", "STATUS=then 99", "WATCHDOG=1",
    ]  # fmt: skip


def test_without_a_manager_nothing_is_sent(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier()(ready=1)


@pytest.mark.parametrize("address", ["/nonexistent/notify", "@nobody", "relative", "/" + "x" * 300])
def test_a_manager_that_is_away_is_no_error(address):
    notify = Notifier(address)
    notify(ready=1)
    notify.close()


def test_a_watch_does_not_wait_for_a_manager_that_does_not_read(address, manager):
    """In a process of its own, since what waits with the GIL held can't be interrupted."""
    code = f"from {World.__module__} import World; w = World()\nfor _ in range(10_000): w.notify(watchdog=1)"
    environment = os.environ | {"NOTIFY_SOCKET": address}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    assert set(received(manager)) == {"WATCHDOG=1"}
