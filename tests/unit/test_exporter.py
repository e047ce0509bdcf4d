"""Metrics in a file and over HTTP: as they are asked for, as long as they last, and at nobody's cost."""

from __future__ import annotations

import gzip
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import closing, contextmanager, suppress

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from samples import sample_of

from unitmem.errors import UsageError
from unitmem.measure.sample import Sample, UnitSample
from unitmem.policy.actions import Log
from unitmem.policy.model import Policy, PolicyFile, Step
from unitmem.policy.state import State
from unitmem.policyfile.expression import parse_condition
from unitmem.tell import listener as listener_module
from unitmem.tell.exporter import LISTEN_AGAIN, WRITE_EVERY, Address, Exporter, parse_address
from unitmem.tell.listener import Listener
from unitmem.tell.openmetrics import measures_page
from unitmem.unit import Invocation, Unit

FILE = PolicyFile((Policy("p", ("*.service",), (Step(parse_condition("anon > 1M"), Log()),)),))


AGAIN = "which is retried (see METRICS in unitmem@.service(8))"


def unit(anon=7):
    return UnitSample(Unit("a.service"), Invocation("a.service", "1" * 32, 1), values={"anon": anon})


def publish(exporter, at=0.0, anon=7):
    """What there is to be told."""
    sample = Sample(at, {"a.service": unit(anon)})
    news = exporter.publish(
        FILE,
        sample,
        State(),
        took=0.01,
        missed=0,
        is_manager_reachable=True,
        is_file_loaded=True,
        under_way=0,
        to_set_back=0,
    )
    return sorted(f"{entry.priority.name}: {entry.message}" for entry in news)


def anon_in(text, parse=parse_text):
    return next(family.samples[0].value for family in parse(text) if family.name == "unitmem_unit_anon_bytes")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9797", Address("127.0.0.1", 9797)),
        ("127.0.0.1:1", Address("127.0.0.1", 1)),
        ("0.0.0.0:65535", Address("0.0.0.0", 65535)),
        ("[::1]:9797", Address("::1", 9797)),
        ("", None),
        (":9797", None),
        ("0", None),
        ("65536", None),
        ("-1", None),
        ("9_7", None),
        ("٩٧", None),
        ("999999999999999999999", None),
        ("localhost:9797", None),
        ("::1:9797", None),
        ("[127.0.0.1]:9797", None),
        ("[]:9797", None),
        ("1.2.3:9797", None),
        ("a\0b:1", None),
    ],
)
def test_addresses(text, address):
    if address is not None:
        assert parse_address(text) == address
        assert text.endswith(str(address).removeprefix("127.0.0.1:"))
    else:
        with pytest.raises(UsageError, match="is not PORT or ADDRESS:PORT") as caught:
            parse_address(text)
        assert caught.value.hint


# --- the file ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parse"), [("web.prom", parse_text), ("web.txt", parse_openmetrics), ("web", parse_openmetrics)]
)
def test_a_file_is_written_as_its_name_says_for_all_to_read(tmp_path, name, parse):
    exporter = Exporter("web", tmp_path / name)
    assert publish(exporter) == []
    assert anon_in((tmp_path / name).read_text(), parse) == 7
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == [name]
    exporter.close()
    assert os.listdir(tmp_path) == []


def test_it_is_written_now_and_then(tmp_path):
    path = tmp_path / "web.prom"
    exporter = Exporter("web", path)
    shown = []
    for tick in range(5):
        publish(exporter, tick * WRITE_EVERY / 2, anon=tick)
        shown.append(anon_in(path.read_text()))
    assert shown == [0, 0, 2, 2, 4]


def test_a_reader_never_finds_half_of_it(tmp_path):
    """One that reads all the while sees whole pages only."""
    path = tmp_path / "web.txt"
    exporter = Exporter("web", path)
    publish(exporter)
    done = threading.Event()
    broken = []

    def read():
        while not done.is_set():
            if not path.read_text().endswith("# EOF\n"):
                broken.append(path)

    reader = threading.Thread(target=read)
    reader.start()
    for tick in range(20):
        publish(exporter, tick * WRITE_EVERY)
    done.set()
    reader.join()
    assert broken == []


def test_one_look_leaves_its_last_page(tmp_path):
    path = tmp_path / "web.prom"
    exporter = Exporter("web", path, keep=True)
    publish(exporter, 0.0, anon=1)
    publish(exporter, 1.0, anon=2)
    assert anon_in(path.read_text()) == 1
    exporter.close()
    assert anon_in(path.read_text()) == 2


def test_what_can_t_be_written_is_told_once_and_tried_again(tmp_path):
    directory = tmp_path / "later"
    exporter = Exporter("web", directory / "web.prom")
    assert publish(exporter) == [
        f"WARNING: metrics can't be written to {directory}/web.prom, {AGAIN}: no such file or directory"
    ]
    assert publish(exporter, WRITE_EVERY) == []
    directory.mkdir()
    again = f"NOTICE: metrics are written to {directory}/web.prom again"
    assert publish(exporter, 2 * WRITE_EVERY) == [again]
    assert publish(exporter, 3 * WRITE_EVERY) == []
    assert anon_in((directory / "web.prom").read_text()) == 7
    exporter.close()


def test_what_fails_again_is_told_again(tmp_path):
    directory = tmp_path / "directory"
    exporter = Exporter("web", directory / "web.prom")
    told = []
    for tick in range(6):
        if tick in (2, 3):
            directory.mkdir(exist_ok=True)
        elif directory.exists():
            (directory / "web.prom").unlink()
            directory.rmdir()
        told.append([line.partition(":")[0] for line in publish(exporter, tick * WRITE_EVERY)])
    assert told == [["WARNING"], [], ["NOTICE"], [], ["WARNING"], []]


@pytest.mark.parametrize("name", ["web.prom", "web.txt"])
def test_a_policy_file_s_name_may_be_any_bytes(tmp_path, name):
    """They are no text, which a label has to be."""
    exporter = Exporter(os.fsdecode(b"w\xffb\xc3\xa9"), tmp_path / name)
    assert publish(exporter) == []
    assert 'watch="w\\\\xffbé"' in (tmp_path / name).read_text()
    (labels,) = {point.labels[0] for points in exporter.current().values() for point in points}
    assert labels == ("watch", "w\\xffbé")


# --- over HTTP ---------------------------------------------------------------------------------


@contextmanager
def listening(page=lambda: measures_page(sample_of(unit())), host="127.0.0.1"):
    listener = Listener(host, 0, page)
    try:
        yield listener
    finally:
        listener.close()


def get(port, path="/metrics", host="127.0.0.1", **headers):
    """(body, content type)"""
    request = urllib.request.Request(f"http://{host}:{port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        body = answer.read()
        if answer.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        return body.decode(), answer.headers["Content-Type"]


OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.mark.parametrize(
    ("headers", "parse", "content_type"),
    [
        ({}, parse_text, "text/plain; version=0.0.4"),
        # which version, its release decides
        ({"Accept": OPENMETRICS}, parse_openmetrics, "application/openmetrics-text"),
        (
            {"Accept": OPENMETRICS, "Accept-Encoding": "gzip"},
            parse_openmetrics,
            "application/openmetrics-text",
        ),
    ],
)
def test_a_page_is_served_as_it_is_asked_for(headers, parse, content_type):
    with listening() as listener:
        body, served = get(listener.port, **headers)
    assert anon_in(body, parse) == 7
    assert served.startswith(content_type)


def test_each_answer_is_what_there_is_now():
    values = iter([3, 4])
    with listening(lambda: measures_page(sample_of(unit(next(values))))) as listener:
        assert [anon_in(get(listener.port)[0]) for _ in range(2)] == [3, 4]


def test_metrics_may_be_asked_for_by_name():
    with listening(
        lambda: measures_page(sample_of(UnitSample(Unit("a"), values={"anon": 1, "file": 2})))
    ) as listener:
        assert [
            family.name
            for family in parse_text(get(listener.port, "/metrics?name[]=unitmem_unit_file_bytes")[0])
        ] == ["unitmem_unit_file_bytes"]


def test_ipv6():
    with suppress(OSError), listening(host="::1") as listener:
        assert anon_in(get(listener.port, host="[::1]")[0]) == 7


def test_clients_that_dawdle_cost_the_others_a_while_and_not_a_thread(monkeypatch):
    """Some that say nothing, some that drip, one that takes no answer."""
    monkeypatch.setattr(listener_module, "REQUEST_TIMEOUT", 0.2)
    many = [UnitSample(Unit(f"{number}.service"), values={"anon": 1}) for number in range(20_000)]
    pages = iter([measures_page(sample_of(*many))])
    with listening(lambda: next(pages, measures_page(sample_of(unit())))) as listener:
        threads = threading.active_count()
        dawdlers = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(4)]
        dawdlers[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        dawdlers[0].sendall(b"GET / HTTP/1.0\r\n\r\n")
        done = threading.Event()

        def drip():
            with suppress(OSError):  # cut off
                while not done.is_set():
                    dawdlers[1].sendall(b"G")
                    time.sleep(0.01)

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert anon_in(get(listener.port)[0]) == 7
            assert threading.active_count() <= threads + 1  # its own, dripping
        finally:
            done.set()
            dripping.join()
            for dawdler in dawdlers:
                dawdler.close()


def test_clients_that_say_nothing_cost_the_others_nothing(monkeypatch):
    """A browser that connects ahead, say; Prometheus gives up after 10 s."""
    monkeypatch.setattr(listener_module, "REQUEST_TIMEOUT", 3600.0)
    with listening() as listener:
        silent = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(3)]
        try:
            assert anon_in(get(listener.port)[0]) == 7
        finally:
            for client in silent:
                client.close()


def test_clients_that_say_nothing_are_let_go_and_others_in(monkeypatch):
    monkeypatch.setattr(listener_module, "REQUEST_TIMEOUT", 0.2)
    monkeypatch.setattr(listener_module, "AT_ONCE", 2)
    with listening() as listener:
        silent = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(5)]
        assert anon_in(get(listener.port)[0]) == 7
        for client in silent:
            with closing(client):
                client.settimeout(30)
                assert client.recv(1) == b""


def test_who_asks_while_another_dawdles_is_answered(monkeypatch):
    monkeypatch.setattr(listener_module, "REQUEST_TIMEOUT", 0.5)
    with listening() as listener:
        dawdler, other = (socket.create_connection(("127.0.0.1", listener.port)) for _ in range(2))
        with closing(dawdler), closing(other):
            dawdler.sendall(b"G")
            time.sleep(0.1)
            other.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert b" 200 " in other.recv(100)


@pytest.mark.parametrize(
    "request_", [b"", b"\r\n", b"\0\xff" * 40000, b"GET\r\n\r\n", b"BREW / HTTP/1.1\r\n\r\n"]
)
def test_what_is_no_request_does_no_harm_and_is_not_told(request_, capfd):
    with listening() as listener:
        with closing(socket.create_connection(("127.0.0.1", listener.port))) as client, suppress(OSError):
            client.sendall(request_)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
        assert anon_in(get(listener.port)[0]) == 7
    assert capfd.readouterr() == ("", "")


def test_a_page_that_fails_is_an_error_and_not_the_end(capfd):
    pages = iter([None])
    with listening(lambda: next(pages, measures_page(sample_of(unit())))) as listener:
        with pytest.raises(urllib.error.HTTPError, match="500"):
            get(listener.port)
        assert anon_in(get(listener.port)[0]) == 7
    assert capfd.readouterr() == ("", "")


def test_an_address_that_is_taken_is_told_once_and_tried_again(monkeypatch):
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        exporter = Exporter("web", listen=f"127.0.0.1:{port}")
        assert publish(exporter) == [
            f"WARNING: metrics can't be served on 127.0.0.1:{port}, {AGAIN}: address already in use"
        ]
        assert publish(exporter, LISTEN_AGAIN) == []
    assert publish(exporter, 2 * LISTEN_AGAIN) == [f"NOTICE: metrics are served on 127.0.0.1:{port} now"]
    assert anon_in(get(port)[0]) == 7
    exporter.close()
    with pytest.raises(OSError):
        get(port)


def test_what_is_no_address_is_told_and_stops_nothing():
    exporter = Exporter("web", listen="localhost:9797")
    (told,) = publish(exporter)
    assert told.startswith(
        "WARNING: metrics are not served: 'localhost:9797' is not PORT or ADDRESS:PORT: write a port"
    )
    assert publish(exporter, LISTEN_AGAIN) == []
    exporter.close()


def test_without_prometheus_client_it_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "unitmem.tell.listener")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    exporter = Exporter("web", listen="1")
    (told,) = publish(exporter)
    assert "install python3-prometheus-client" in told
    assert publish(exporter, LISTEN_AGAIN) == []
    exporter.close()


def test_an_exit_waits_for_no_client():
    """Nor for the listener at all: the guard's unit is stopped by PID 1, which has a timeout."""
    script = """
import socket, unitmem.tell.listener as l
l.REQUEST_TIMEOUT = 3600.0
port = l.Listener("127.0.0.1", 0, lambda: {}).port
client = socket.create_connection(("127.0.0.1", port))
client.sendall(b"GET")
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)
