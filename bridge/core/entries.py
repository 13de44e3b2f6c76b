"""An entry to be written to Redis, with what the append script needs to place it (pure).

An `Entry` is immutable. What changes while it waits (its journal position, how long it waits,
whether a reply is missing) is in the `Slot` that its queue keeps for it.
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

# Measured memory of a waiting entry, in bytes, besides the text of its values; correct to a fifth.
_SLOT_BYTES = 480
_VALUE_BYTES = 40

_GAP_NAMES = field_names(Gap)
# Models by field names, to work out a key later. Models with the same names give the same key.
_MODELS = {field_names(spec.model): spec.model for spec in STREAM_SPECS.values() if is_usual(spec)}


class Op(StrEnum):
    """How the append script places an entry."""

    APPEND = "A"  # sequenced message
    SNAPSHOT = "S"  # depth snapshot, directly behind the delta with its number
    GAP = "G"  # gap or start of a sequenced stream
    CONTENT = "C"  # message identified by content

    __str__ = str.__str__
    __hash__ = str.__hash__


# Used for each message: Python 3.11 calls a function for a member of an Enum, which takes ten times
# as long as reading a module's name.
APPEND, CONTENT = Op.APPEND, Op.CONTENT


class Entry(NamedTuple):
    """One entry.

    `number`: the exchange's number (CONTENT: the sequence part of the ID). `after`: the number that
    must be before it (APPEND). `expected`: the last ID that the stream must have (GAP). `ms`: the
    time part of the ID. `known_key`: the key, or None if it is worked out on demand: for most
    states it is never needed. `order`: which state is newer (0: unknown). `engine_us`: the engine's
    time of a message received over `connection` (0: none).
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
        """Identifies a message without a number."""
        if self.known_key is None:
            return usual_key(_MODELS[self.names], self.values)
        return self.known_key

    @property
    def type(self) -> str:
        return self.values[0]

    @property
    def moment_us(self) -> int:
        """CONTENT: its time in µs: the exchange's if that is believable, else that of receipt."""
        return self.ms * 1000 + self.number // 1000

    @property
    def is_gap(self) -> bool:
        return self.values[0] == "gap"

    @property
    def is_account_snapshot(self) -> bool:
        """Whether it is a snapshot of the account, from REST."""
        return self.values[0].endswith("_snapshot")

    def fields(self) -> dict[str, str]:
        """The fields by name, as Redis will store them."""
        return dict(zip(self.names, self.values, strict=True))


class Wait(Enum):
    """How long an entry waits for its predecessor, if no moment is given."""

    AS_QUEUE = "as its queue does"
    NO_LONGER = "no longer"
    WHILE_REPLAYING = "until the journal is read"  # later records may recover what is missing


class Slot:
    """An entry in its queue.

    `position`: the journal position of its record; `at_us`: when that was received, by the steady
    clock. `after`: as the entry's, or lower once the numbers between are known not to exist.

    One is made for each message, so rarely used attributes are on the class until they are set.
    """

    cause: GapCause | None = None  # the cause of a gap before it, if known
    wait: Wait | int = Wait.AS_QUEUE  # a number: until that time, µs
    in_doubt = False  # it was sent, or may have been, and there was no reply
    begins_numbering = False  # APPEND: the exchange's numbers begin anew with it
    rests = False  # SNAPSHOT: the book is at rest, so it may bring its own gap or start
    tries = 0  # SNAPSHOT: how often it may be tried again at a later message
    outage: tuple[int, int] | None = None  # a gap that is only an outage of this bridge: its times

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
        """SNAPSHOT: the book is at rest at the exchange, so it may bring its own gap or start."""
        self.rests = True

    def try_again(self, tries: int) -> None:
        """SNAPSHOT: if it is misplaced, try it again at so many later messages."""
        self.tries = tries

    def explain(self, cause: GapCause) -> None:
        """Set the cause of a gap before it."""
        self.cause = cause

    def follow(self, after: int) -> None:
        """Lower its predecessor: the numbers between never existed, or are marked elsewhere."""
        self.after = after

    def move_to(self, position: int) -> None:
        """Set the journal position from which a restart has to read to get it again."""
        self.position = position

    def move_by(self, distance: int) -> None:
        self.position += distance


def size_of(values: Sequence[str]) -> int:
    """Approximate memory of a slot with these values, in bytes, without the values' text."""
    return _SLOT_BYTES + _VALUE_BYTES * len(values)


def slot_of(entry: Entry, position: int, at_us: int, text_bytes: int | None = None) -> Slot:
    """`text_bytes`: the approximate size of its values, if known from its frame."""
    values = entry.values
    if text_bytes is None:
        text = "".join(values)
        text_bytes = len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
    return Slot(entry, position, at_us, size_of(values) + text_bytes)


class Answer(NamedTuple):
    """The append script's reply: settled entries, the stream's last ID, a sign for each entry."""

    status: str
    settled: int
    last: str
    signs: str


def sequenced_entry(
    event: Trade | Depth, received_us: int, connection: int, event_us: int
) -> Entry:
    """The entry of a trade or depth message. `event_us`: `believable_us`. Raises BadIdentity."""
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
    """The entry of a message without numbers; its time is `received_us` if its own is not
    believable.

    `occurrences` counts equal messages of its connection: they are real, and all are kept.
    `event_us`: `believable_us`, if it is known already.
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
    """The entry of a message of either kind. Raises BadIdentity."""
    if type(event) is Depth or type(event) is Trade:
        return sequenced_entry(event, received_us, connection, event_us)
    return content_entry(event, received_us, connection, occurrences, event_us)


def trade_from_history(event: Trade) -> Entry:
    """The entry of a trade that was missed and fetched.

    Its time may be long past and is used nevertheless: only a future time could harm a stream.
    """
    number, after = place(event)
    ms = _past_us(event) // 1000
    return Entry(Op.APPEND, field_names(Trade), encode(event), number, after, ms, event.received_us)


def fill_from_history(event: OrderUpdate) -> Entry:
    """The entry of a fill that may have been missed, with its time as in `trade_from_history`."""
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
    """The engine's time, or 0 if it is in the future."""
    engine_us = event.engine_us or 0
    return engine_us if engine_us <= event.received_us + BELIEVABLE_US else 0


def snapshot_entry(event: DepthSnapshot, ms: int) -> Entry:
    """The entry of a depth snapshot; `ms`: the engine time of the delta that it follows."""
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
    """The gap (or start: `from_` None) that ends at the predecessor of `waiting`, or at the number
    of a snapshot at rest. `last`: the last ID that the stream must have.
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
    """The gap between `from_us` (None: the stream's beginning) and `to_us`."""
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
    """Whether it only marks the beginning of a sequenced stream."""
    return entry.is_gap and entry.fields()["cause"] == GapCause.START
