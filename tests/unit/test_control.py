"""The control socket over real sockets: whatever clients do, it takes little, and none keeps others from being served."""

from __future__ import annotations

import json
import os
import selectors
import socket
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from unitmem.daemon.control import ACCEPT_AGAIN, AT_ONCE, MOST_REST, PER_USER, RESERVED, TIMEOUT, Control
from unitmem.daemon.requests import Requests
from unitmem.tell.interface import DESCRIPTION, address_of
from unitmem.tell.varlink import MAX_CALL, MalformedMessageError

CALL = b"call\0"


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class Served:
    """A control socket that answers with what it was asked, and the calls that it got."""

    def __init__(self, directory, stack):
        self.clock = Clock()
        self.selector = selectors.DefaultSelector()
        self.calls = []
        self.reply = None
        self.takes = 0.0
        self.path = directory / "io.unitmem"
        self.control = Control(directory, self.selector, self.answer, self.clock, self.clock)
        self.control.mark()
        stack.callback(self.selector.close)
        stack.callback(self.control.close)
        self.stack = stack

    def answer(self, call, uid):
        self.calls.append((call, uid))
        self.clock.now += self.takes
        if call == b"bad":
            raise MalformedMessageError("bad")
        return self.reply if self.reply is not None else call.upper() + b"\0"

    def connect(self):
        client = self.stack.enter_context(socket.socket(socket.AF_UNIX))
        client.settimeout(0)
        with address_of(self.path) as address:
            client.connect(address)
        return client

    def rounds(self, count=1):
        for _ in range(count):
            self.clock.now = max(self.clock.now, min(self.control.due, self.clock.now + 1))
            self.control.serve()


@pytest.fixture
def served(tmp_path):
    with ExitStack() as stack:
        yield Served(tmp_path, stack)


def received(client):
    """What has arrived; None at the end."""
    data = b""
    try:
        while part := client.recv(1 << 20):
            data += part
    except BlockingIOError:
        return data
    except ConnectionResetError:
        return None
    return data or None


# --- what clients send ---


def test_a_call_is_answered_in_the_round_in_which_it_is_accepted(served):
    client = served.connect()
    client.send(CALL)
    served.rounds()
    assert received(client) == b"CALL\0"
    assert served.calls == [(b"call", os.getuid())]


def test_a_call_that_arrives_in_parts(served):
    client = served.connect()
    for byte in CALL:
        assert received(client) == b""
        client.send(bytes([byte]))
        served.rounds(2)
    assert received(client) == b"CALL\0"


def test_calls_in_one_packet_are_answered_one_in_a_round(served):
    client = served.connect()
    client.send(b"a\0b\0c")
    served.rounds()
    assert received(client) == b"A\0"
    served.rounds()
    assert received(client) == b"B\0"
    served.rounds(3)
    assert received(client) == b""
    client.send(b"\0")
    client.shutdown(socket.SHUT_WR)
    served.rounds()
    assert received(client) == b"C\0"
    served.rounds()
    assert received(client) is None


def test_a_client_that_has_sent_everything_and_closed_its_side_gets_all_replies(served):
    client = served.connect()
    client.send(b"a\0b\0")
    client.shutdown(socket.SHUT_WR)
    served.rounds(3)
    assert received(client) == b"A\0B\0"
    assert received(client) is None


@pytest.mark.parametrize("sent", [b"bad\0", b"bad\0call\0"])
def test_what_is_no_call_closes_the_connection(served, sent):
    client = served.connect()
    client.send(sent)
    served.rounds(2)
    assert received(client) is None
    assert len(served.calls) == 1


def test_a_call_may_be_so_long_and_no_longer(served):
    served.reply = b"got\0"
    for length, reply in ((MAX_CALL, b"got\0"), (MAX_CALL + 1, None)):
        client = served.connect()
        client.send(b"x" * length + b"\0")
        served.rounds(3)
        assert received(client) == reply


def test_a_flood_of_nothing_but_ends_is_taken_one_in_a_round(served):
    """Each is an empty call, which the protocol refuses; here they are answered, to be counted."""
    client = served.connect()
    client.send(b"\0" * 10_000)
    served.rounds(5)
    assert len(served.calls) == 5


def test_a_call_that_wants_no_reply_gets_none(served):
    served.reply = b""
    client = served.connect()
    client.send(b"a\0b\0")
    served.rounds(2)
    assert [call for call, _ in served.calls] == [b"a", b"b"]
    assert received(client) == b""


# --- clients that take long ---


def test_a_reader_that_is_slow_gets_its_reply_in_parts_and_nothing_else_meanwhile(served):
    served.reply = bytes(5 << 20)
    client = served.connect()
    client.send(b"a\0b\0")
    got = 0
    for _ in range(1000):
        served.rounds()
        got += len(received(client))
        if got == len(served.reply):
            break
        assert len(served.calls) == 1
    assert got == len(served.reply)
    served.rounds()
    assert len(served.calls) == 2


@pytest.mark.parametrize("sent", [b"", b"cal", b"call\0"], ids=["nothing", "a part", "and reads nothing"])
def test_a_client_that_takes_too_long_is_closed(served, sent):
    served.reply = bytes(5 << 20)
    client = served.connect()
    client.send(sent)
    served.rounds()
    served.clock.now += TIMEOUT - 0.1
    served.control.serve()
    other = served.connect()
    other.send(CALL)
    served.rounds()
    assert len(served.calls) == sent.count(b"\0") + 1
    assert served.control.due <= served.clock.now + 0.2
    served.clock.now += 0.2
    served.control.serve()
    with pytest.raises(OSError):
        client.send(b"x")


def test_what_trickles_in_extends_no_time(served):
    client = served.connect()
    for _ in range(int(TIMEOUT) + 1):
        client.send(b"x")
        served.rounds()
        served.clock.now += 1
    served.rounds()
    assert received(client) is None


def test_a_client_that_asks_again_and_again_may_stay(served):
    client = served.connect()
    for _ in range(5):
        served.clock.now += TIMEOUT - 1
        client.send(CALL)
        served.rounds()
        assert received(client) == b"CALL\0"


def test_a_call_that_arrived_during_a_long_tick_is_answered_after_it(served):
    client = served.connect()
    served.rounds()
    client.send(CALL)
    served.clock.now += 10 * TIMEOUT
    served.rounds()
    assert received(client) == b"CALL\0"


# --- how much they take ---


@pytest.mark.parametrize(("takes", "rests"), [(0.03125, 0.28125), (0.5, MOST_REST)])
def test_clients_wait_nine_times_as_long_as_a_round_took_but_not_long(served, takes, rests):
    served.takes = takes
    began, client = served.clock.now, served.connect()
    client.send(CALL + CALL)
    served.control.serve()
    assert (served.clock.now, served.control.due) == (began + takes, began + takes + rests)
    served.control.serve()
    assert (served.clock.now, served.selector.select(0)) == (began + takes, [])
    served.clock.now = served.control.due
    served.control.serve()
    assert served.clock.now == began + 2 * takes + rests


def test_nobody_wakes_the_loop_while_nothing_is_wanted(served):
    client = served.connect()
    assert [key.fileobj for key, _ in served.selector.select(0)] == [served.control]
    served.rounds()
    assert served.selector.select(0) == []
    served.rounds(2)
    client.send(CALL)
    assert [key.fileobj for key, _ in served.selector.select(0)] == [served.control]


def test_the_call_of_a_client_that_has_given_up_is_not_done(served):
    """It has told its user that nothing was; one that has only ended its input waits for the reply."""
    gone, waiting = served.connect(), served.connect()
    for client in (gone, waiting):
        client.send(CALL)
    gone.close()
    waiting.shutdown(socket.SHUT_WR)
    served.rounds(4)
    assert len(served.calls) == 1
    assert received(waiting) == b"CALL\0"


def test_others_leave_places_for_root_and_the_user_of_the_watch(served, monkeypatch):
    uids = [1001] * PER_USER + [1002] * PER_USER + [0]
    given = iter(uids)
    credentials = SimpleNamespace(size=12, unpack=lambda _: (1, next(given), 1))
    monkeypatch.setattr("unitmem.daemon.control.CREDENTIALS", credentials)
    clients = []
    for _ in uids:
        clients.append(served.connect())
        served.rounds()
    for client in clients:
        with suppress(OSError):
            client.send(CALL)
    served.rounds(4)
    answered = [uid for uid, client in zip(uids, clients, strict=True) if received(client) == b"CALL\0"]
    assert answered == [1001] * PER_USER + [1002] * (AT_ONCE - RESERVED - PER_USER) + [0]


def test_one_user_has_so_many_clients_and_no_more(served):
    clients = [served.connect() for _ in range(PER_USER + 2)]
    served.rounds()
    for client in clients:
        with suppress(BrokenPipeError):
            client.send(CALL)
    served.rounds()
    assert [received(client) for client in clients] == [b"CALL\0"] * PER_USER + [None] * 2
    clients[0].close()
    served.rounds()
    clients[0] = served.connect()
    clients[0].send(CALL)
    served.rounds()
    assert received(clients[0]) == b"CALL\0"


def test_there_are_so_many_clients_and_others_wait(served, monkeypatch):
    """They don't wake the loop either."""
    monkeypatch.setattr("unitmem.daemon.control.PER_USER", AT_ONCE + 1)
    clients = [served.connect() for _ in range(AT_ONCE)]
    served.rounds()
    clients += [served.connect() for _ in range(2)]
    for client in clients:
        client.send(CALL)
    served.rounds(2)
    assert [received(client) for client in clients] == [b"CALL\0"] * AT_ONCE + [b""] * 2
    served.rounds(2)
    assert served.selector.select(0) == []
    clients[3].close()
    served.rounds(3)
    assert [received(client) for client in clients[-2:]] == [b"CALL\0", b""]
    served.clock.now += TIMEOUT
    served.rounds(3)
    assert received(clients[-1]) == b"CALL\0"


def test_a_client_that_can_not_be_accepted_waits_without_a_spin(served, monkeypatch):
    client = served.connect()
    client.send(CALL)
    with monkeypatch.context() as patch:
        patch.setattr(
            socket.socket, "accept", lambda *_: (_ for _ in ()).throw(OSError(24, "Too many open files"))
        )
        served.control.serve()
    assert served.selector.select(0) == []
    assert served.control.due == served.clock.now + ACCEPT_AGAIN
    served.rounds()
    assert received(client) == b"CALL\0"


# --- who, and where ---


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_a_client_is_known_by_its_uid():
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:  # pytest's own is closed to others
        Path(directory).chmod(0o755)
        served = Served(Path(directory), stack)
        script = (
            "import os, socket, sys; os.setuid(4321); client = socket.socket(socket.AF_UNIX);"
            r" client.connect(sys.argv[1]); client.send(b'x\0'); client.recv(9)"
        )
        process = subprocess.Popen([sys.executable, "-c", script, served.path])
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
            served.rounds()
        assert process.wait() == 0
        assert served.calls == [(b"x", 4321)]


def test_anybody_may_connect_and_a_long_path_does_not_matter(tmp_path):
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    (directory / "io.unitmem").write_text("left by another")
    with ExitStack() as stack:
        served = Served(directory, stack)
        assert stat.S_IMODE(served.path.stat().st_mode) == 0o666
        client = served.connect()
        client.send(CALL)
        served.rounds()
        assert received(client) == b"CALL\0"
    assert list(directory.iterdir()) == []


def test_a_tick_sets_the_time_of_the_socket(served):
    os.utime(served.path, (1, 1))
    served.control.mark()
    assert served.path.stat().st_mtime > 1e9


def test_without_a_directory_there_is_no_socket():
    with selectors.DefaultSelector() as selector:
        control = Control(None, selector, lambda call, uid: b"", Clock())
        control.mark()
        control.serve()
        control.close()


# --- what may be asked, and by whom ---


@pytest.fixture
def asked():
    """asked(method, parameters, uid=0): the reply, and all that was done until now."""
    done = []

    def status():
        done.append("status")
        return {"number": len(done)}

    def reset(unit, uid):
        done.append((unit, uid))
        return {"unit": unit}

    requests = Requests(status, reset)

    def ask(method, parameters=None, uid=0):
        call = {"method": f"io.unitmem.{method}", "parameters": parameters or {}}
        return json.loads(requests.answer(json.dumps(call).encode(), uid)[:-1]), done

    ask.requests = requests
    return ask


def test_status_is_made_once_a_tick_and_by_nobody_for_nobody(asked):
    first = {"parameters": {"status": {"number": 1}}}
    assert [asked("Status", uid=uid)[0] for uid in (0, 1000, 4321)] == [first] * 3
    asked.requests.renew()
    asked.requests.renew()
    assert asked("Status") == ({"parameters": {"status": {"number": 2}}}, ["status"] * 2)


def test_after_a_reset_status_is_made_anew(asked):
    asked("Status")
    asked("Reset")
    assert asked("Status")[1] == ["status", (None, 0), "status"]


@pytest.mark.parametrize(
    ("parameters", "unit"), [({}, None), ({"unit": None}, None), ({"unit": "a.service"}, "a.service")]
)
def test_root_and_the_owner_may_reset(asked, monkeypatch, parameters, unit):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert asked("Reset", parameters, 0)[0] == {"parameters": {"unit": unit}}
    assert asked("Reset", parameters, 1000)[1] == [(unit, 0), (unit, 1000)]


@pytest.mark.parametrize(
    ("owner", "sentence"),
    [
        (0, "only root may reset this watch, not uid 1001"),
        (1000, "only root and uid 1000 may reset this watch, not uid 1001"),
    ],
)
def test_others_may_not_and_are_told(asked, monkeypatch, owner, sentence):
    monkeypatch.setattr("os.geteuid", lambda: owner)
    error = {"error": "io.unitmem.PermissionDenied", "parameters": {"message": sentence}}
    for parameters in ({}, {"unit": 7}):
        assert asked("Reset", parameters, 1001) == (error, [])


@pytest.mark.parametrize(
    ("method", "parameters", "wrong"),
    [
        ("Status", {"unit": "a.service"}, "unit"),
        ("Reset", {"name": "a.service"}, "name"),
        ("Reset", {"unit": 7}, "unit"),
        ("Reset", {"unit": ""}, "unit"),
        ("Reset", {"unit": "a"}, "unit"),
        ("Reset", {"unit": "*.service"}, "unit"),
        ("Reset", {"unit": "\ud800.service"}, "unit"),
    ],
)
def test_a_wrong_parameter_is_named(asked, method, parameters, wrong):
    error = {"error": "org.varlink.service.InvalidParameter", "parameters": {"parameter": wrong}}
    assert asked(method, parameters) == (error, [])


def test_the_description_has_every_method_and_error(asked):
    for method in ("Status", "Reset"):
        assert f"\nmethod {method}(" in DESCRIPTION
    for error in ("PermissionDenied", "NoSuchUnit"):
        assert f"\nerror {error}(" in DESCRIPTION
