"""Split a text frame into its envelope.

Pure: no clock, no socket, no log. A bad frame comes back as a value, never as an exception: deep
nesting, lone surrogates, NaN and invalid UTF-8 included.

    {"stream": "<name subscribed>", "data": {...}}          Data
    {"id": null, "error": {"code": 4006, "message": "…"}}   Refusal
    {"result": null, "id": 1}                               Ack (expected by some, never seen)
"""

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic_core import from_json

from bridge.contract.fields import plain_decimal

MAX_COMPLAINT = 200


class Data(NamedTuple):
    """A message of a stream; `payload` is not validated yet."""

    stream: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error frame. Codes seen: 4002 parse error, 4003 invalid signature, 4006 invalid stream,
    4008 invalid depth window. The socket stays open after it.
    """

    code: int
    message: str


@dataclass(frozen=True, slots=True)
class Ack:
    """A success reply: the exchange sends none today; tolerated, never waited for."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """Not a frame of this protocol, and why."""

    reason: str


Envelope = Data | Refusal | Ack | Malformed

_data = tuple.__new__  # `Data(…)` is a function in Python around it, once for each message


def parse(frame: str | bytes) -> Envelope:
    """Read one frame. Never raises."""
    try:
        message = from_json(frame, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        return Malformed(f"not JSON: {str(error)[:MAX_COMPLAINT]}")
    try:
        stream, data = message["stream"], message["data"]
    except (KeyError, TypeError):
        return _other(message)
    if type(stream) is str and type(data) is dict:
        return _data(Data, (stream, data))
    return _other(message)


def _other(message: object) -> Envelope:
    if not isinstance(message, dict):
        return Malformed(f"a JSON {type(message).__name__}, not an object")
    error = message.get("error")
    if isinstance(error, dict):
        code = error.get("code")
        text = str(error.get("message", ""))[:MAX_COMPLAINT]
        return Refusal(code if type(code) is int else 0, text)
    if "result" in message:
        return Ack()
    return Malformed("an object with neither stream and data nor error")


def payload_with_decimals_as_text(frame: str | bytes) -> dict[str, Any]:
    """The payload again, with JSON fractions as the digits they were written with, as
    `plain_decimal` has them: a float would round them, and may be no JSON again (1e999).

    For types whose decimals may be JSON numbers, and for fields that are not named yet; only called
    for a frame that `parse` has accepted as Data.
    """
    payload: dict[str, Any] = json.loads(frame, parse_float=plain_decimal)["data"]
    return payload
