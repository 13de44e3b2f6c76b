"""The fast path: entries of usual messages directly from the values of `read_usual` (pure).

The entry equals that which `message_entry` makes of the message's event. Any unusual message (with
a time that is not believable, an invalid number, or of another type than its stream) is left to
that slower path, `judge`.
"""

from collections.abc import Callable, Container
from typing import Any, NamedTuple, Self

from bridge.contract.entry import encoder, field_names
from bridge.contract.entry_form import value_names
from bridge.contract.events import Depth, Event
from bridge.contract.identity import (
    BELIEVABLE_US,
    NUMBERS,
    POSITION_LIMIT,
    BadIdentity,
    believable_us,
    content_seq,
)
from bridge.contract.stream_types import Identity, Ordering, StreamSpec
from bridge.core.book import Delta
from bridge.core.dedup import Occurrences
from bridge.core.entries import APPEND, CONTENT, Entry, message_entry, size_of
from bridge.core.queue import StreamQueue
from bridge.core.records import Frame
from bridge.core.translate import Rejected, translate, unread_event
from bridge.protocol.envelope import Data
from bridge.protocol.one_pass import Unusual, is_usual, read_usual

_tuple = tuple.__new__  # faster than a NamedTuple's constructor, a Python function around it


class Together(NamedTuple):
    """What frames that were read at once on one connection have in common; `streams`: those that
    the connection is to receive.
    """

    received_us: int
    connection: int
    received: str  # `received_us` as text
    earliest_us: int  # the range of believable exchange times
    latest_us: int
    streams: Container[str]

    @classmethod
    def at(cls, received_us: int, connection: int, streams: Container[str]) -> Self:
        earliest_us, latest_us = received_us - BELIEVABLE_US, received_us + BELIEVABLE_US
        received = str(received_us)
        return _tuple(cls, (received_us, connection, received, earliest_us, latest_us, streams))


# Makes an entry of a message's values, its time and its batch; None: its numbers are invalid.
Maker = Callable[[tuple[Any, ...], int, Together], Entry | None]


class Message(NamedTuple):
    """A valid message with its queue. `event_us`: `believable_us`; `size`: of its slot, in bytes;
    `delta`: its change of the book.
    """

    queue: StreamQueue
    entry: Entry
    event_us: int
    size: int
    delta: Delta | None


def judge(
    queue: StreamQueue, data: Data, frame: Frame, occurrences: Occurrences | None
) -> tuple[Event, Message] | Rejected:
    """Translate any message of a stream. Returns its event and message, or the rejection."""
    event = translate(queue.stream, data, frame.body, frame.received_us)
    if isinstance(event, Rejected):
        return event
    try:
        return event, _message(queue, event, frame, occurrences)
    except BadIdentity as fault:
        return Rejected(str(fault))


def unread(
    queue: StreamQueue, data: Data, frame: Frame, occurrences: Occurrences | None
) -> Message:
    """The message for an account message that `judge` has rejected."""
    event = unread_event(queue.stream, data, frame.body, frame.received_us)
    return _message(queue, event, frame, occurrences)


def _message(
    queue: StreamQueue, event: Event, frame: Frame, occurrences: Occurrences | None
) -> Message:
    """The message of an event. Raises BadIdentity."""
    received_us, connection, body = frame
    event_us = believable_us(event, received_us)
    entry = message_entry(event, received_us, connection, event_us, occurrences)
    delta = Delta.of(event) if type(event) is Depth else None
    return Message(queue, entry, event_us, size_of(entry.values) + len(body), delta)


class _Route(NamedTuple):
    """How the messages of one stream are made into entries."""

    queue: StreamQueue
    kind: str
    make: Maker
    size: int  # bytes of a slot, without the text of its values
    is_depth: bool


class UsualMessages:
    """The streams whose messages are read in one pass."""

    def __init__(self) -> None:
        self._routes: dict[str, _Route] = {}

    def add(self, queue: StreamQueue) -> None:
        """Read the messages of this queue's stream, if they can be read in one pass."""
        spec = queue.stream.spec
        if is_usual(spec):
            [kind] = spec.event_names
            size, is_depth = size_of(field_names(spec.model)), spec.model is Depth
            self._routes[queue.name] = _Route(queue, kind, _maker(spec), size, is_depth)

    def remove(self, name: str) -> None:
        """Do not read the messages of this stream any more."""
        self._routes.pop(name, None)

    def read(self, body: bytes, together: Together) -> Message | None:
        """The message of a frame; None: it is not a usual one, and may be valid or not."""
        try:
            _, (name, (_, values)) = read_usual(body)
        except Unusual:
            return None
        route = self._routes.get(name)
        if route is None:
            return None
        queue, kind, make, size, is_depth = route
        _, _, _, earliest_us, latest_us, streams = together
        if values[0] != kind or name not in streams:
            return None
        # The engine's time or, where the type has none, that of sending.
        event_us = values[-2] if values[-1] is None else values[-1]
        if event_us is None or not earliest_us <= event_us <= latest_us:
            return None
        entry = make(values, event_us, together)
        if entry is None:
            return None
        delta = _tuple(Delta, values[_DELTA]) if is_depth else None
        return _tuple(Message, (queue, entry, event_us, size + len(body), delta))


def _maker(spec: StreamSpec) -> Maker:
    return _sequenced(spec) if spec.identity is Identity.SEQUENCED else _state(spec)


def _sequenced(spec: StreamSpec) -> Maker:
    """A function like `sequenced_entry`, for a message's values."""
    names, encode = field_names(spec.model), encoder(spec.model)
    first_at, last_at = map(value_names(spec.model).index, NUMBERS[spec.model])

    def make(values: tuple[Any, ...], event_us: int, together: Together) -> Entry | None:
        first, last = values[first_at], values[last_at]
        if not 1 <= first <= last < POSITION_LIMIT:
            return None
        received_us, connection, received, _, _, _ = together
        texts, ms = encode(values, received, ""), event_us // 1000
        engine_us = values[-1] or 0
        # fmt: off
        return _tuple(Entry, (
            APPEND, names, texts, last, first - 1, ms, received_us, (), 0, "", connection,
            engine_us,
        ))
        # fmt: on

    return make


def _state(spec: StreamSpec) -> Maker:
    """A function like `content_entry`, for the values of a state."""
    names, encode = field_names(spec.model), encoder(spec.model)
    order_at: int | None = None
    if spec.ordering is Ordering.UPDATE_ID:
        order_at = value_names(spec.model).index("update_id")

    def make(values: tuple[Any, ...], event_us: int, together: Together) -> Entry | None:
        received_us, connection, received, _, _, _ = together
        texts, seq, ms = encode(values, received, ""), content_seq(event_us), event_us // 1000
        order = event_us if order_at is None else values[order_at]
        engine_us = values[-1] or 0
        # fmt: off
        return _tuple(Entry, (
            CONTENT, names, texts, seq, 0, ms, received_us, None, order, "", connection,
            engine_us,
        ))
        # fmt: on

    return make


_DELTA = slice(2, 8)  # the values of a depth message that are those of `Delta`
