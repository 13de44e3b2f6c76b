"""From a message of a stream to its validated event (pure). It never raises: a fault is a value."""

from dataclasses import dataclass

from pydantic import ValidationError

from bridge.contract.entry import complaint
from bridge.contract.events import Event, Quarantined
from bridge.contract.fields import has_fraction
from bridge.contract.streams import Stream
from bridge.protocol.envelope import Data, payload_with_decimals_as_text

MAX_RAW = 16_384  # bytes of a refused frame that are kept: Redis keeps thousands of them
MAX_NAME = 256


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
    payload = data.payload
    payload["received_us"] = received_us
    try:
        event: Event = model.__pydantic_validator__.validate_python(
            payload, by_alias=True, by_name=False
        )
    except ValidationError as error:
        if not model.numbers_as_text:
            return Rejected(complaint(error))
    else:
        if not (extra := event.__pydantic_extra__) or not has_fraction(extra):
            return event
    return _with_decimals_as_text(model, frame, received_us)


def _with_decimals_as_text(
    model: type[Event], frame: str | bytes, received_us: int
) -> Event | Rejected:
    payload = payload_with_decimals_as_text(frame)
    payload["received_us"] = received_us
    try:
        event: Event = model.__pydantic_validator__.validate_python(
            payload, by_alias=True, by_name=False
        )
    except ValidationError as error:
        return Rejected(complaint(error))
    return event


def quarantined(stream: str, reason: str, frame: bytes, received_us: int) -> Quarantined:
    """A refused frame, of this stream where that is known, as it is put aside."""
    escaped = frame[:MAX_RAW].decode(errors="backslashreplace")  # may be longer
    raw = escaped.encode()[:MAX_RAW].decode(errors="ignore")
    return Quarantined(stream=stream[:MAX_NAME], reason=reason, raw=raw, received_us=received_us)
