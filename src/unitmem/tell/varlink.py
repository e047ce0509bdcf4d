"""The Varlink protocol, without sockets: calls and replies are JSON objects, each followed by a NUL.

See https://varlink.org/Service and https://varlink.org/Interface-Definition.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

END = b"\0"
"""What follows each message."""
MAX_CALL = 64 << 10
"""The most bytes of a call."""

_SERVICE = "org.varlink.service"
_SERVICE_DESCRIPTION = """\
# Implemented by every Varlink service
interface org.varlink.service

method GetInfo() -> (
  vendor: string,
  product: string,
  version: string,
  url: string,
  interfaces: []string
)

method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound(interface: string)

error MethodNotFound(method: string)

error MethodNotImplemented(method: string)

error InvalidParameter(parameter: string)
"""


class MalformedMessageError(Exception):
    """Bytes that are no message; the connection can only be closed."""


class CallError(Exception):
    """An error as the reply to a call.

    Args:
        name: the error's qualified name.
        parameters: its parameters.
    """

    def __init__(self, name: str, **parameters: object) -> None:
        super().__init__(name)
        self.name = name
        self.parameters = parameters


class InvalidParameterError(CallError):
    """A parameter that is missing, unknown, or not of its type."""

    def __init__(self, parameter: str) -> None:
        super().__init__(f"{_SERVICE}.InvalidParameter", parameter=parameter)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a method."""

    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    is_oneway: bool = False
    """Whether no reply is wanted."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service with one interface."""

    info: Mapping[str, str]
    """Its `vendor`, `product`, `version` and `url`."""
    interface: str
    description: str
    methods: Mapping[str, Callable[[Mapping[str, Any]], bytes]]
    """What is called with the parameters, and returns the reply's message, by the method's name; raises `CallError`."""

    def answer(self, message: bytes) -> bytes:
        """Return the reply to the call in `message`; nothing if none is wanted.

        Raises:
            MalformedMessageError: it is no call.
        """
        call = parse_call(message)
        try:
            reply = self._perform(call)
        except CallError as error:
            reply = error_message(error)
        return b"" if call.is_oneway else reply

    def _perform(self, call: Call) -> bytes:
        interface, _, name = call.method.rpartition(".")
        if interface == self.interface and name in self.methods:
            return self.methods[name](call.parameters)
        if interface == _SERVICE and name == "GetInfo":
            check_parameters(call.parameters)
            return reply_message({**self.info, "interfaces": [_SERVICE, self.interface]})
        if interface == _SERVICE and name == "GetInterfaceDescription":
            check_parameters(call.parameters, "interface")
            return reply_message({"description": self._describe(call.parameters.get("interface"))})
        if interface in (_SERVICE, self.interface):
            raise CallError(f"{_SERVICE}.MethodNotFound", method=call.method)
        raise CallError(f"{_SERVICE}.InterfaceNotFound", interface=interface)

    def _describe(self, interface: object) -> str:
        if not isinstance(interface, str):
            raise InvalidParameterError("interface")
        description = {_SERVICE: _SERVICE_DESCRIPTION, self.interface: self.description}.get(interface)
        if description is None:
            raise CallError(f"{_SERVICE}.InterfaceNotFound", interface=interface)
        return description


def check_parameters(parameters: Mapping[str, Any], *known: str) -> None:
    """Raise an error if there are `parameters` that are not `known`."""
    for name in parameters:
        if name not in known:
            raise InvalidParameterError(name)


def parse_call(message: bytes) -> Call:
    """Return the call in `message`, which is without its NUL.

    Raises:
        MalformedMessageError: it is no call.
    """
    document = _parse(message)
    method, parameters = document.get("method"), document.get("parameters")
    if not isinstance(method, str) or not isinstance(parameters, dict | None):
        raise MalformedMessageError("not a call")
    return Call(method, parameters or {}, document.get("oneway") is True)


def parse_reply(message: bytes) -> dict[str, Any]:
    """Return the parameters of the reply in `message`, which is without its NUL.

    Raises:
        CallError: it is an error.
        MalformedMessageError: it is no reply.
    """
    document = _parse(message)
    error, parameters = document.get("error"), document.get("parameters")
    if not isinstance(error, str | None) or not isinstance(parameters, dict | None):
        raise MalformedMessageError("not a reply")
    if error is not None:
        raise CallError(error, **(parameters or {}))
    return parameters or {}


def call_message(method: str, parameters: Mapping[str, Any]) -> bytes:
    """Return the message of a call."""
    return _message({"method": method, "parameters": parameters})


def reply_message(parameters: Mapping[str, Any]) -> bytes:
    """Return the message of a reply."""
    return _message({"parameters": parameters})


def error_message(error: CallError) -> bytes:
    """Return the message of a reply that is an error."""
    return _message({"error": error.name, "parameters": error.parameters})


def _message(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + END


def _parse(message: bytes) -> dict[str, Any]:
    try:
        document = json.loads(message)
    except (ValueError, RecursionError):
        raise MalformedMessageError("not JSON") from None
    if not isinstance(document, dict):
        raise MalformedMessageError("not an object")
    return document
