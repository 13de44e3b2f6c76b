"""One entry on its way to Redis, and what the append script needs to place it (pure).

An `Entry` is frozen once made. What changes while it waits (its place in the journal, how long it
waits, whether a reply is missing) belongs to the `Slot` that its queue keeps for it.
"""

from collections.abc import Sequence
from enum import Enum, StrEnum
from typing import NamedTuple

from bridge.contract.causes import GapCause
from bridge.contract.entry import encode, field_names
from bridge.contract.events import Depth, DepthSnapshot, Event, Gap, OrderUpdate, Trade
from bridge.contract.identity import (
    BELIEVABLE_US,
    believable_us,
    content_seq,
    event_key,
    order_value,
    place,
    usual_key,
)
from bridge.contract.stream_types import STREAM_SPECS
from bridge.core.dedup import Occurrences
from bridge.protocol.one_pass import is_usual

# What a waiting entry takes in memory besides its values' letters, measured: within a fifth of it.
_SLOT_BYTES = 480
_VALUE_BYTES = 40

_GAP_NAMES = field_names(Gap)
# Of entries whose key is not known. Where two have the same names, they have the same letters.
_MODELS = {field_names(spec.model): spec.model for spec in STREAM_SPECS.values() if is_usual(spec)}


class Op(StrEnum):
    """How the append script places an entry."""

    APPEND = "A"  # sequenced message
    SNAPSHOT = "S"  # depth snapshot, directly at its number
    GAP = "G"  # gap or start of a sequenced stream
    CONTENT = "C"  # told apart by content

    __str__ = str.__str__
    __hash__ = str.__hash__


# What is asked for each message. Python 3.11 looks a member up by a function, which takes ten times
# as long as a name of a module.
APPEND, CONTENT = Op.APPEND, Op.CONTENT


class Entry(NamedTuple):
    """One entry.

    `number` is the exchange's own (the sequence wanted, for CONTENT), `after` the number that must
    be before it (APPEND), `expected` the last ID that was reasoned on (GAP). `ms` is the ID's time.
    `known_key` is `key`, or None where it is worked out when it is asked for: of most states it
    never is. `order` says which state is newer (0: cannot be told). `engine_us` is the exchange's
    time of what came over `connection` (0: it had none).
    """

    op: Op
    names: tuple[str, ...]
    values: Sequence[str]
    number: int
    after: int
    ms: int
    received_us: int
    known_key: tuple[object, ...] | None = ()
    order: int = 0
    expected: str = ""
    connection: int = 0
    engine_us: int = 0

    @property
    def key(self) -> tuple[object, ...]:
        """Tells messages without numbers apart."""
        if self.known_key is None:
            return usual_key(_MODELS[self.names], self.values)
        return self.known_key

    @property
    def type(self) -> str:
        return self.values[0]

    @property
    def moment_us(self) -> int:
        """CONTENT: the time it goes by, µs: the exchange's where that is believable."""
        return self.ms * 1000 + self.number // 1000

    @property
    def is_gap(self) -> bool:
        return self.values[0] == "gap"

    @property
    def is_account_snapshot(self) -> bool:
        """Where the account stands, from REST?"""
        return self.values[0].endswith("_snapshot")

    def fields(self) -> dict[str, str]:
        """By name, as Redis will hold them."""
        return dict(zip(self.names, self.values, strict=True))


class Wait(Enum):
    """How long an entry waits for what must be before it, where no moment is given."""

    AS_QUEUE = "as its queue does"
    NO_LONGER = "no longer"
    WHILE_REPLAYING = "until the journal is read"  # what recovers it may follow, however late


class Slot:
    """An entry in its queue.

    `position` is where the journal has the record it came from, `at_us` when it came by the steady
    clock. `after`: as the entry's, or lower once it is known that the numbers between never were.

    One is made for each message, so what hardly any needs stands in the class until it is set.
    """

    cause: GapCause | None = None  # why something may be missing before it, where that is known
    wait: Wait | int = Wait.AS_QUEUE  # a number: until then, µs
    in_doubt = False  # it was sent, or may have been, and no reply came
    begins_numbering = False  # APPEND: the exchange's numbers begin anew with it
    rests = False  # SNAPSHOT: nothing moves, it may bring its own gap or start
    tries = 0  # SNAPSHOT: how often it is tried again at a later message
    outage: tuple[int, int] | None = None  # it only says that this bridge received nothing then

    def __init__(self, entry: Entry, position: int, at_us: int, size: int) -> None:
        self.entry = entry
        self.position = position
        self.at_us = at_us
        self.size = size
        self.after = entry.after

    def wait_until(self, until_us: int) -> None:
        self.wait = until_us

    def wait_no_longer(self) -> None:
        self.wait = Wait.NO_LONGER

    def wait_while_replaying(self) -> None:
        self.wait = Wait.WHILE_REPLAYING

    def rest(self) -> None:
        """SNAPSHOT: nothing moves at the exchange, so it may bring its own gap or start."""
        self.rests = True

    def try_again(self, tries: int) -> None:
        """SNAPSHOT: where it finds no place, it is tried at so many later messages."""
        self.tries = tries

    def explain(self, cause: GapCause) -> None:
        """If something is missing before it, that is why."""
        self.cause = cause

    def follow(self, after: int) -> None:
        """The numbers from `after` to this one never were, or are marked elsewhere."""
        self.after = after

    def move_to(self, position: int) -> None:
        """It is to be received again as long as what the journal has there is."""
        self.position = position

    def move_by(self, distance: int) -> None:
        self.position += distance


def size_of(values: Sequence[str]) -> int:
    """What a slot takes in memory with so many values, about, without their letters, in bytes."""
    return _SLOT_BYTES + _VALUE_BYTES * len(values)


def slot_of(entry: Entry, position: int, at_us: int, letters: int | None = None) -> Slot:
    """`letters`: how many bytes its values have, about, where that is known from its frame."""
    values = entry.values
    if letters is None:
        text = "".join(values)
        letters = len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
    return Slot(entry, position, at_us, size_of(values) + letters)


class Answer(NamedTuple):
    """The append script's reply: how many were settled, the stream's last ID, a sign for each."""

    status: str
    settled: int
    last: str
    signs: str


def sequenced_entry(
    event: Trade | Depth, received_us: int, connection: int, event_us: int
) -> Entry:
    """A trade or depth message in its place. `event_us`: `believable_us`. Raises BadIdentity."""
    number, after = place(event)
    names = field_names(type(event))
    ms = event_us // 1000
    values = encode(event)
    engine_us = event.engine_us or 0
    return Entry(
        Op.APPEND, names, values, number, after, ms, received_us, (), 0, "", connection, engine_us
    )


def content_entry(
    event: Event,
    received_us: int,
    connection: int = 0,
    occurrences: Occurrences | None = None,
    event_us: int | None = None,
) -> Entry:
    """A message without numbers; without a believable time of its own it takes `received_us`.

    `occurrences` counts equal messages of its connection: they are real, and all are kept.
    `event_us`: `believable_us`, where it is known already.
    """
    if event_us is None:
        event_us = believable_us(event, received_us)
    moment_us = event_us or received_us
    values = encode(event)
    key = event_key(event, values)
    if occurrences is not None and (number := occurrences.count(key)):
        values[-5] = str(number)  # …, occurrence, event_us, engine_us, received_us, extra
        key = event_key(event, values)
    order = order_value(event, event_us)
    names, seq, ms = field_names(type(event)), content_seq(moment_us), moment_us // 1000
    engine_us = int(values[-3] or 0)
    return Entry(
        Op.CONTENT, names, values, seq, 0, ms, received_us, key, order, "", connection, engine_us
    )


def message_entry(
    event: Event, received_us: int, connection: int, event_us: int, occurrences: Occurrences | None
) -> Entry:
    """A message of either kind. Raises BadIdentity."""
    if type(event) is Depth or type(event) is Trade:
        return sequenced_entry(event, received_us, connection, event_us)
    return content_entry(event, received_us, connection, occurrences, event_us)


def trade_from_history(event: Trade) -> Entry:
    """A trade that was missed and fetched.

    Its time may be long past and is used all the same: only one in the future could harm a stream.
    """
    number, after = place(event)
    ms = _past_us(event) // 1000
    return Entry(Op.APPEND, field_names(Trade), encode(event), number, after, ms, event.received_us)


def fill_from_history(event: OrderUpdate) -> Entry:
    """A fill that may have been missed, as `trade_from_history`."""
    moment_us, values = _past_us(event) or event.received_us, encode(event)
    return Entry(
        Op.CONTENT,
        field_names(OrderUpdate),
        values,
        content_seq(moment_us),
        0,
        moment_us // 1000,
        event.received_us,
        event_key(event, values),
    )


def _past_us(event: Trade | OrderUpdate) -> int:
    """The engine's time unless it is absurd: 0 then."""
    engine_us = event.engine_us or 0
    return engine_us if engine_us <= event.received_us + BELIEVABLE_US else 0


def snapshot_entry(event: DepthSnapshot, ms: int) -> Entry:
    """A depth snapshot behind the delta it follows; `ms` is that delta's engine time."""
    return Entry(
        Op.SNAPSHOT,
        field_names(DepthSnapshot),
        encode(event),
        event.update_id,
        0,
        ms,
        event.received_us,
    )


def sequenced_gap(
    waiting: Slot, *, symbol: str, last: str, from_: int | None, cause: GapCause
) -> Entry:
    """The gap (or start: `from_` None) that ends where `waiting` needs its predecessor; a snapshot
    that rests needs its very number. `last` is the ID that was reasoned on.
    """
    entry = waiting.entry
    to = waiting.after if entry.op is Op.APPEND else entry.number
    gap = Gap.model_validate(
        {
            "symbol": symbol or None,
            "from": from_,
            "to": None if from_ is None else to,
            "cause": cause,
            "event_us": entry.values[-4] or None,
            "engine_us": entry.values[-3] or None,
            "received_us": entry.received_us,
        }
    )
    return Entry(Op.GAP, _GAP_NAMES, encode(gap), to, 0, entry.ms, entry.received_us, expected=last)


def content_gap(
    *, symbol: str, from_us: int | None, to_us: int, cause: GapCause, received_us: int
) -> Entry:
    """Something may be missing between `from_us` (None: the stream's beginning) and `to_us`."""
    gap = Gap.model_validate(
        {
            "symbol": symbol or None,
            "from_us": from_us,
            "to_us": to_us,
            "cause": cause,
            "received_us": received_us,
        }
    )
    values = encode(gap)
    return Entry(
        Op.CONTENT,
        _GAP_NAMES,
        values,
        content_seq(to_us),
        0,
        to_us // 1000,
        received_us,
        event_key(gap, values),
    )


def is_start(entry: Entry) -> bool:
    """Does it only say that a sequenced stream begins here?"""
    return entry.is_gap and entry.fields()["cause"] == GapCause.START
