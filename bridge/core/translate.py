"""Translates a stream's message into its validated event (pure). An invalid message is returned as
`Rejected`, not raised.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from bridge.contract.entry import complaint, decode_within, encode, field_names
from bridge.contract.events import Event, Quarantined, UnknownEvent
from bridge.contract.fields import has_fraction
from bridge.contract.streams import Stream
from bridge.protocol.envelope import Data, payload_with_decimals_as_text

MAX_RAW = 16_384  # bytes kept of a quarantined frame: Redis keeps thousands of them
MAX_NAME = 256
_NAMED = ("e", "s", "E", "T")  # the exchange's names of an unknown event's fields
_RECEIVED = "received_us"

_E = TypeVar("_E", bound=Event)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message that is not of the contract, and the reason."""

    reason: str


def translate(stream: Stream, data: Data, frame: str | bytes, received_us: int) -> Event | Rejected:
    """Validate a stream's message. `frame`: its raw text."""
    return translate_by(stream.spec.model_of(data.payload.get("e")), data, frame, received_us)


def translate_by(
    model: type[Event], data: Data, frame: str | bytes, received_us: int
) -> Event | Rejected:
    """The same with a given model. Fractions that are JSON numbers are read from the raw text: a
    float does not keep the exchange's digits.
    """
    try:
        event = _validated(model, data.payload, received_us)
    except ValidationError as error:
        if not model.numbers_as_text:
            return Rejected(complaint(error))
    else:
        if not (extra := event.__pydantic_extra__) or not has_fraction(extra):
            return event
    try:
        return _validated(model, payload_with_decimals_as_text(frame), received_us)
    except ValidationError as error:
        return Rejected(complaint(error))


def _validated(model: type[_E], payload: Mapping[str, object], received_us: int) -> _E:
    event: _E = model.__pydantic_validator__.validate_python(
        {**payload, _RECEIVED: received_us}, by_alias=True, by_name=False
    )
    if _RECEIVED in payload:  # a field of this name from the exchange is kept, too
        assert event.__pydantic_extra__ is not None
        event.__pydantic_extra__[_RECEIVED] = payload[_RECEIVED]
    return event


def unread_event(stream: Stream, data: Data, frame: str | bytes, received_us: int) -> Event:
    """The event for an account message that is not of the contract: account messages are always
    published. Its name, market and times are fields if they are valid; the rest is in `extra`.
    """
    payload = data.payload
    if has_fraction(payload):
        payload = payload_with_decimals_as_text(frame)
    named = {name: payload[name] for name in _NAMED if name in payload}
    event, refused = _unknown(named, received_us)
    if refused:
        named = {name: value for name, value in named.items() if name not in refused}
        event, _ = _unknown(named, received_us)
    assert event is not None
    rest = {name: value for name, value in payload.items() if name not in named}
    event.__pydantic_extra__.update(rest)  # type: ignore[union-attr]  # a dict: extra is allowed
    # Decoded from its encoding, so that it has the same key here as when it is read from Redis.
    return decode_within(
        stream.spec, dict(zip(field_names(UnknownEvent), encode(event), strict=True))
    )


def _unknown(named: Mapping[str, object], received_us: int) -> tuple[UnknownEvent | None, set[str]]:
    """The event, or the names of the values that are invalid as its fields."""
    try:
        return _validated(UnknownEvent, named, received_us), set()
    except ValidationError as error:
        return None, {str(fault["loc"][0]) for fault in error.errors(include_url=False)}


def quarantined(stream: str, reason: str, frame: bytes, received_us: int) -> Quarantined:
    """The quarantine event of a refused frame, of this stream if known."""
    escaped = frame[:MAX_RAW].decode(errors="backslashreplace")  # may be longer
    raw = escaped.encode()[:MAX_RAW].decode(errors="ignore")
    return Quarantined(stream=stream[:MAX_NAME], reason=reason, raw=raw, received_us=received_us)
