"""From a message of a stream to its validated event (pure). Nobody raises: a fault is a value."""

from dataclasses import dataclass
from typing import cast

from pydantic import ValidationError

from bridge.contract.entry import EXCHANGE_MODELS, complaint
from bridge.contract.events import Event
from bridge.contract.streams import Stream
from bridge.protocol.envelope import Data, payload_with_decimals_as_text


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message that is not of the contract, and why."""

    reason: str


def translate(stream: Stream, data: Data, frame: str | bytes, received_us: int) -> Event | Rejected:
    """Validate a stream's message, once. `frame` is its raw text."""
    model = EXCHANGE_MODELS[stream.type]
    payload = data.payload
    payload["received_us"] = received_us
    try:
        return cast("Event", model.__pydantic_validator__.validate_python(payload))
    except ValidationError as error:
        if not model.numbers_as_text:
            return Rejected(complaint(error))
    payload = payload_with_decimals_as_text(frame)
    payload["received_us"] = received_us
    try:
        return cast("Event", model.__pydantic_validator__.validate_python(payload))
    except ValidationError as error:
        return Rejected(complaint(error))
