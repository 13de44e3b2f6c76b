"""Parses a text frame into its envelope (pure).

An invalid frame is returned as a value, never raised as an exception, even with deep nesting, lone
surrogates, NaN or invalid UTF-8.

    {"stream": "<name subscribed>", "data": {...}}          Data
    {"id": null, "error": {"code": 4006, "message": "…"}}   Refusal
    {"result": null, "id": 1}                               Ack (never seen from the exchange)
"""

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic_core import from_json

from bridge.contract.fields import plain_decimal
from bridge.contract.streams import is_private

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
    """A success reply: the exchange sends none; accepted, never waited for."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """A frame that is not of this protocol, and the reason."""

    reason: str


Envelope = Data | Refusal | Ack | Malformed

_data = tuple.__new__  # faster than `Data(…)`, a Python function around it


def parse(frame: str | bytes) -> Envelope:
    """Parse one frame. Never raises."""
    try:
        message = from_json(frame, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        malformed = Malformed(f"not JSON: {str(error)[:MAX_COMPLAINT]}")
        return _hardly_json(frame) or malformed
    try:
        stream, data = message["stream"], message["data"]
    except (KeyError, TypeError):
        return _other(message)
    if type(stream) is str and type(data) is dict:
        return _data(Data, (stream, data))
    if type(stream) is str and is_private(stream):
        return Data(stream, {"data": data})  # account messages are always published
    return _other(message)


def _hardly_json(frame: str | bytes) -> Data | None:
    """An account message that is not strictly JSON (half a surrogate pair, NaN, invalid UTF-8):
    account messages are always published. None: it is no account message.
    """
    if not ('"account.' in frame if isinstance(frame, str) else b'"account.' in frame):
        return None
    try:
        message = _loads(frame)
        stream, data = message["stream"], message["data"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    if not (type(stream) is str and is_private(stream)):
        return None
    return Data(stream, data if isinstance(data, dict) else {"data": data})


def _loads(frame: str | bytes) -> Any:
    """The value by the standard library, which accepts more; fractions keep their digits."""
    text = frame if isinstance(frame, str) else frame.decode(errors="replace")
    return json.loads(text, parse_float=plain_decimal, parse_constant=str)


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
    """The payload again, with JSON fractions as text by `plain_decimal`: a float would round them,
    and may be invalid as JSON (1e999).

    For types whose decimals may be JSON numbers, and for fields that are not named yet; only for a
    frame that `parse` has accepted as Data.
    """
    payload: object = _loads(frame)["data"]
    return payload if isinstance(payload, dict) else {"data": payload}
