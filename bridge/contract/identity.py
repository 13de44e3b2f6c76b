"""What an entry ID is made of, and what tells one message from another (pure).

    <engine time, ms>-<sequence>

Numbered streams (trade, depth): identity is the exchange's own number, carried in the sequence as
`position * 10 + slot`; slot 0 is the message, 1 a gap that ends at that position, 2 a depth
snapshot at it. The ms part is only for reading by time. Unnumbered streams: sequence is the
microsecond within the millisecond times 1000, running on where that is not above the last one;
identity is the content. The append script (`bridge/publish/append.lua`) decides what is already
there.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

from bridge.contract.events import (
    BookTicker,
    Depth,
    Event,
    GapRecord,
    OrderUpdate,
    Own,
    StockIndicativeQuote,
    StockPrice,
    Trade,
)

SLOTS = 10
POSITION_LIMIT = 9 * 10**14  # position * 10 must stay below 2^53: Lua's numbers are doubles
BELIEVABLE_US = 3_600_000_000  # an engine time further than 1 h from the hearing is not used

EMPTY = "0-0"  # the last ID of a stream that does not exist


class EntryId(NamedTuple):
    """A Redis entry ID as two numbers; compares as Redis compares."""

    ms: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> Self:
        ms, _, seq = text.partition("-")
        return cls(int(ms), int(seq or 0))

    @property
    def position(self) -> int:
        """In numbered streams: the exchange's number that this entry is at."""
        return self.seq // SLOTS

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"


class Place(NamedTuple):
    """Where a numbered message stands: its own number, and the one that must be before it."""

    position: int
    after: int


class BadIdentity(ValueError):
    """The message's own numbers cannot be right; it goes to the quarantine."""


def place(event: Trade | Depth) -> Place:
    """Position and predecessor of a numbered message, or BadIdentity."""
    if isinstance(event, Trade):
        number, first = event.trade_id, event.trade_id
    else:
        number, first = event.last_update_id, event.first_update_id
    if first < 1:
        # Trade id 0 marked backstop fills before 2025-11: it could only ever look like a duplicate.
        raise BadIdentity("its number is 0, so its place in the stream is unknown")
    if first > number:
        raise BadIdentity(f"first update id {first} is above last update id {number}")
    if number >= POSITION_LIMIT:
        raise BadIdentity(f"its number {number} is above {POSITION_LIMIT}")
    return Place(number, first - 1)


def believable_us(event: Event, received_us: int) -> int:
    """The exchange's time of the event, µs: engine time, else event time, else 0.

    A time is used only when within an hour of when the frame was received (never of now, so that a
    replay decides the same): one absurd time must not poison a stream's last ID.
    """
    engine_us: int | None = getattr(event, "engine_us", None)
    if engine_us is not None and -BELIEVABLE_US <= engine_us - received_us <= BELIEVABLE_US:
        return engine_us  # nearly always
    for moment_us in _other_times(event):
        if moment_us is not None and abs(moment_us - received_us) <= BELIEVABLE_US:
            return moment_us
    return 0


def _other_times(event: Event) -> tuple[int | None, ...]:
    event_us = getattr(event, "event_us", None)
    if isinstance(event, StockPrice | StockIndicativeQuote):
        return event_us, event.source_ms * 1000
    return (event_us,)


def order_value(event: Event, received_us: int) -> int:
    """What orders the states of one stream: update id, engine time, or event time (µs).

    0 where nothing can be trusted: such a state is neither late nor does it make others late.
    """
    if isinstance(event, BookTicker):
        return event.update_id
    return believable_us(event, received_us)


def event_key(event: Event, values: Sequence[str]) -> tuple[str, ...]:
    """What tells an unnumbered message from the others: all but when it was emitted or heard.

    `values` are the entry's (`entry.encode`), so a stored entry's key is worked out the same way.
    A fill is its trade: the same fill heard and fetched over REST is one. An entry of the bridge's
    own (an account snapshot, a gap) is also told by when its source was received.
    """
    if isinstance(event, OrderUpdate) and event.type == "orderFill" and event.trade_id is not None:
        return ("orderFill", event.symbol, str(event.trade_id), event.order_id)
    if isinstance(event, GapRecord):
        return tuple(values[:-4])  # whoever found it, and whenever: a hole is one
    if isinstance(event, Own):
        return tuple(values)
    # Fixed order of fields: …, event_us, engine_us, received_us, extra
    return (*values[:-4], values[-3], values[-1])


def unnumbered_seq(moment_us: int) -> int:
    """The wanted sequence of an unnumbered entry: room for 1,000 entries in each microsecond."""
    return moment_us % 1000 * 1000
