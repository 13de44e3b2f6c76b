"""From a message of a stream to its validated event (pure). It never raises: a fault is a value."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from bridge.contract.entry import complaint, decode_within, encode, field_names
from bridge.contract.events import Event, Quarantined, UnknownEvent
from bridge.contract.fields import has_fraction
from bridge.contract.streams import Stream
from bridge.protocol.envelope import Data, payload_with_decimals_as_text

MAX_RAW = 16_384  # bytes of a refused frame that are kept: Redis keeps thousands of them
MAX_NAME = 256
_NAMED = ("e", "s", "E", "T")  # the exchange's letters of an unknown event's fields
_RECEIVED = "received_us"

_E = TypeVar("_E", bound=Event)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message that is not of the contract, and why."""

    reason: str


def translate(stream: Stream, data: Data, frame: str | bytes, received_us: int) -> Event | Rejected:
    """Validate a stream's message, once. `frame` is its raw text."""
    return translate_by(stream.spec.model_of(data.payload.get("e")), data, frame, received_us)


def translate_by(
    model: type[Event], data: Data, frame: str | bytes, received_us: int
) -> Event | Rejected:
    """The same by a model. Fractions that are JSON numbers are read from the raw text: a float has
    not the exchange's digits.
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
    if _RECEIVED in payload:  # a field of the exchange's of that name is its own
        assert event.__pydantic_extra__ is not None
        event.__pydantic_extra__[_RECEIVED] = payload[_RECEIVED]
    return event


def unread_event(stream: Stream, data: Data, frame: str | bytes, received_us: int) -> Event:
    """A message of the account that is not of the contract: an account's event stands in its
    stream, whatever it is. Its name, market and times are fields where they can be, and all else is
    in `extra`.
    """
    payload = data.payload
    if has_fraction(payload):
        payload = payload_with_decimals_as_text(frame)
    named = {letter: payload[letter] for letter in _NAMED if letter in payload}
    event, refused = _unknown(named, received_us)
    if refused:
        named = {letter: value for letter, value in named.items() if letter not in refused}
        event, _ = _unknown(named, received_us)
    assert event is not None
    rest = {name: value for name, value in payload.items() if name not in named}
    event.__pydantic_extra__.update(rest)  # type: ignore[union-attr]  # a dict: extra is allowed
    # What a reader finds in it: where it looks for the message, it must find the same key.
    return decode_within(
        stream.spec, dict(zip(field_names(UnknownEvent), encode(event), strict=True))
    )


def _unknown(named: Mapping[str, object], received_us: int) -> tuple[UnknownEvent | None, set[str]]:
    """The event, or the letters of those that cannot be its fields."""
    try:
        return _validated(UnknownEvent, named, received_us), set()
    except ValidationError as error:
        return None, {str(fault["loc"][0]) for fault in error.errors(include_url=False)}


def quarantined(stream: str, reason: str, frame: bytes, received_us: int) -> Quarantined:
    """A refused frame, of this stream where that is known, as it is put aside."""
    escaped = frame[:MAX_RAW].decode(errors="backslashreplace")  # may be longer
    raw = escaped.encode()[:MAX_RAW].decode(errors="ignore")
    return Quarantined(stream=stream[:MAX_NAME], reason=reason, raw=raw, received_us=received_us)
