"""The Varlink protocol: what a service answers to calls, and how a client reads replies."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitmem.tell.varlink import (
    CallError,
    MalformedMessageError,
    Service,
    call_message,
    error_message,
    parse_call,
    parse_reply,
    reply_message,
)


def echo(parameters):
    if "fail" in parameters:
        raise CallError("com.example.Failed", message="as asked")
    return reply_message({"echo": dict(parameters)})


SERVICE = Service(
    {"vendor": "v", "product": "p", "version": "1", "url": "u"},
    "com.example",
    "interface com.example\n\nmethod Echo() -> ()\n",
    {"Echo": echo},
)


def answered(method, parameters=None, **more):
    """The reply to a call, as a document."""
    call = {"method": method, **({} if parameters is None else {"parameters": parameters}), **more}
    reply = SERVICE.answer(json.dumps(call).encode())
    assert reply.endswith(b"\0")
    assert b"\0" not in reply[:-1]
    return json.loads(reply[:-1])


@pytest.mark.parametrize(
    ("method", "parameters", "reply"),
    [
        ("com.example.Echo", {"a": [1, "ü\0"]}, {"parameters": {"echo": {"a": [1, "ü\0"]}}}),
        ("com.example.Echo", None, {"parameters": {"echo": {}}}),
        (
            "com.example.Echo",
            {"fail": True},
            {"error": "com.example.Failed", "parameters": {"message": "as asked"}},
        ),
        (
            "org.varlink.service.GetInfo",
            {},
            {
                "parameters": {
                    "vendor": "v",
                    "product": "p",
                    "version": "1",
                    "url": "u",
                    "interfaces": ["org.varlink.service", "com.example"],
                }
            },
        ),
        (
            "org.varlink.service.GetInterfaceDescription",
            {"interface": "com.example"},
            {"parameters": {"description": SERVICE.description}},
        ),
    ],
)
def test_what_a_service_answers(method, parameters, reply):
    assert answered(method, parameters) == reply


@pytest.mark.parametrize(
    ("method", "parameters", "error", "about"),
    [
        ("com.example.Other", {}, "MethodNotFound", {"method": "com.example.Other"}),
        ("com.example.echo", {}, "MethodNotFound", {"method": "com.example.echo"}),
        ("org.varlink.service.Other", {}, "MethodNotFound", {"method": "org.varlink.service.Other"}),
        ("org.other.Echo", {}, "InterfaceNotFound", {"interface": "org.other"}),
        ("GetInfo", {}, "InterfaceNotFound", {"interface": ""}),
        ("", {}, "InterfaceNotFound", {"interface": ""}),
        ("org.varlink.service.GetInfo", {"x": 1}, "InvalidParameter", {"parameter": "x"}),
        ("org.varlink.service.GetInterfaceDescription", {}, "InvalidParameter", {"parameter": "interface"}),
        (
            "org.varlink.service.GetInterfaceDescription",
            {"interface": []},
            "InvalidParameter",
            {"parameter": "interface"},
        ),
        (
            "org.varlink.service.GetInterfaceDescription",
            {"interface": "x"},
            "InterfaceNotFound",
            {"interface": "x"},
        ),
    ],
)
def test_what_a_service_refuses(method, parameters, error, about):
    assert answered(method, parameters) == {"error": f"org.varlink.service.{error}", "parameters": about}


def test_the_interface_of_every_service_is_described():
    reply = answered("org.varlink.service.GetInterfaceDescription", {"interface": "org.varlink.service"})
    assert reply["parameters"]["description"].startswith("# ")
    assert "method GetInfo() -> (" in reply["parameters"]["description"]


def test_more_replies_are_one_and_a_oneway_call_has_none():
    assert answered("com.example.Echo", {}, more=True) == {"parameters": {"echo": {}}}
    for method in ("com.example.Echo", "com.example.Other"):
        assert SERVICE.answer(json.dumps({"method": method, "oneway": True}).encode()) == b""


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{",
        b"\xff\xfe{}",
        b"7",
        b"null",
        b"[]",
        b"{}",
        b'{"method": 7}',
        b'{"method": "com.example.Echo", "parameters": []}',
        b'{"method": "com.example.Echo", "parameters": 7}',
        b"[" * 60_000,
        b'{"method": "com.example.Echo", "parameters": {"a": ' + b"9" * 9000 + b"}}",
    ],
)
def test_what_is_no_call(message):
    with pytest.raises(MalformedMessageError):
        SERVICE.answer(message)


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_raise_nothing_else(message):
    for parse in (parse_call, parse_reply, SERVICE.answer):
        with suppress(MalformedMessageError, CallError):
            parse(message)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)


@given(st.text(), st.dictionaries(st.text(), JSON))
def test_what_is_written_is_read(name, parameters):
    call = parse_call(call_message(name, parameters)[:-1])
    assert (call.method, call.parameters, call.is_oneway) == (name, parameters, False)
    assert parse_reply(reply_message(parameters)[:-1]) == parameters


def test_an_error_is_raised_with_its_parameters():
    with pytest.raises(CallError) as raised:
        parse_reply(error_message(CallError("com.example.Failed", message="why"))[:-1])
    assert (raised.value.name, raised.value.parameters) == ("com.example.Failed", {"message": "why"})


@pytest.mark.parametrize("message", [b"", b"[]", b'{"error": 7}', b'{"parameters": []}'])
def test_what_is_no_reply(message):
    with pytest.raises(MalformedMessageError):
        parse_reply(message)
