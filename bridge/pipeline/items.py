"""What waits to be published: one entry with what the append script needs to place it (pure)."""

from dataclasses import dataclass, field
from enum import StrEnum
from itertools import takewhile
from typing import NamedTuple

from bridge.contract.entry import encode, field_names
from bridge.contract.events import Depth, DepthSnapshot, Event, Gap, OrderUpdate, Trade
from bridge.contract.identity import (
    BELIEVABLE_US,
    believable_us,
    event_key,
    order_value,
    place,
    unnumbered_seq,
)

# What an item costs in memory besides its values' letters, measured: within a fifth of the truth.
_ITEM_BYTES = 500
_VALUE_BYTES = 40


AS_THE_LINE = -1
START = "start"  # the cause of the entry that a numbered stream begins with


class Op(StrEnum):
    """How the append script places an entry."""

    APPEND = "A"  # numbered message
    SNAPSHOT = "S"  # depth snapshot, directly at its position
    GAP = "G"  # gap or start of a numbered stream
    CONTENT = "C"  # unnumbered


@dataclass(slots=True)
class Item:
    """One entry on its way to Redis.

    `expected` is the predecessor's position (APPEND) or the last ID reasoned on (GAP); CONTENT gets
    it when a batch is made. `position` is the exchange's number, or the wanted sequence (CONTENT).
    `heard_us` is when its frame was received. `key` and `order` tell unnumbered messages apart.
    """

    op: Op
    expected: str
    position: int
    ms: int
    names: tuple[str, ...]
    values: list[str]
    heard_us: int
    key: tuple[str, ...] = ()
    order: int = 0
    cause: str = ""  # why something may be missing before it, where that is known
    offset: int = 0  # where the journal has the record it came from
    connection: int = 0  # where it was heard
    hold_until_us: int = AS_THE_LINE  # how long it waits for what must be before it
    in_doubt: bool = False  # GAP: it was sent and no reply came
    stands: bool = False  # SNAPSHOT: nothing moves, it may bring its own gap or start
    tries: int = 0  # SNAPSHOT: how often it is tried again at a later message
    deaf_us: tuple[int, int] | None = None  # it only says that this bridge did not listen then
    size: int = field(init=False)  # bytes of memory, roughly

    def __post_init__(self) -> None:
        values = self.values
        self.size = _ITEM_BYTES + _VALUE_BYTES * len(values) + len("".join(values))

    @property
    def moment_us(self) -> int:
        """CONTENT: the time it goes by, µs: the exchange's where that is believable."""
        return self.ms * 1000 + self.position // 1000

    @property
    def after(self) -> int:
        """APPEND: the position of the message that must be before this one."""
        return int(self.expected)


class Twins:
    """How often each message was heard on one connection: the count that tells twins apart.

    Twins share an engine time, so only the recent are remembered.
    """

    LIMIT = 4096

    def __init__(self) -> None:
        self._seen: dict[tuple[str, ...], int] = {}

    def count(self, key: tuple[str, ...]) -> int:
        """How many equal messages came before this one."""
        number = self._seen.pop(key, -1) + 1
        self._seen[key] = number
        if len(self._seen) > self.LIMIT:
            del self._seen[next(iter(self._seen))]
        return number


class Recent:
    """What was heard of a stream lately, and where: heard again over another connection, it is a
    double.

    Two hearings of one message lie no further apart than a connection may be silent, and a message
    without a time of its own may truly come again later: so the memory is bounded by both. What is
    too old is looked for once a second, by the times of hearing.
    """

    LIMIT = 8192
    WITHIN_US = 60_000_000
    SWEEP_US = 1_000_000

    def __init__(self) -> None:
        self._heard: dict[tuple[object, ...], tuple[int, int]] = {}  # the longest ago first
        self._swept_us = 0

    def has(self, key: tuple[object, ...], connection: int, heard_us: int) -> bool:
        """Was it heard before, elsewhere? From now on it was heard."""
        before = self._heard.get(key)
        if (
            before is not None
            and before[0] != connection
            and heard_us - before[1] <= self.WITHIN_US
        ):
            return True
        if before is not None:
            del self._heard[key]  # its place is that of the last hearing
        self._heard[key] = connection, heard_us
        if len(self._heard) > self.LIMIT:
            del self._heard[next(iter(self._heard))]
        if abs(heard_us - self._swept_us) >= self.SWEEP_US:
            self._sweep(heard_us)
        return False

    def clear(self) -> None:
        self._heard.clear()

    def _sweep(self, now_us: int) -> None:
        self._swept_us = now_us
        is_old = takewhile(lambda heard: now_us - heard[1][1] > self.WITHIN_US, self._heard.items())
        for key in [key for key, _ in is_old]:
            del self._heard[key]


class Answer(NamedTuple):
    """The append script's reply: how many were settled, the stream's last ID, a sign for each."""

    status: str
    settled: int
    last: str
    signs: str


def numbered(event: Trade | Depth, received_us: int) -> Item:
    """A trade or depth message in its place, or BadIdentity."""
    position, after = place(event)
    ms = believable_us(event, received_us) // 1000
    return Item(
        Op.APPEND, str(after), position, ms, field_names(type(event)), encode(event), received_us
    )


def from_history(event: Trade, after: int) -> Item:
    """A trade that was missed and fetched; `after` is the trade before it. It never waits.

    Its time may be long past and is used all the same: only one in the future could harm a stream.
    """
    position, _ = place(event)
    item = Item(
        Op.APPEND,
        str(after),
        position,
        _past_us(event) // 1000,
        field_names(Trade),
        encode(event),
        event.received_us,
    )
    item.hold_until_us = 0
    return item


def fill_from_history(event: OrderUpdate) -> Item:
    """A fill that may have been missed, as `from_history`."""
    moment_us, values = _past_us(event) or event.received_us, encode(event)
    return Item(
        Op.CONTENT,
        "",
        unnumbered_seq(moment_us),
        moment_us // 1000,
        field_names(OrderUpdate),
        values,
        event.received_us,
        event_key(event, values),
    )


def _past_us(event: Trade | OrderUpdate) -> int:
    """The engine's time unless it is absurd: 0 then."""
    engine_us = event.engine_us or 0
    return engine_us if engine_us <= event.received_us + BELIEVABLE_US else 0


def snapshot(event: DepthSnapshot, ms: int) -> Item:
    """A depth snapshot behind the delta it follows; `ms` is that delta's engine time."""
    values = encode(event)
    names = field_names(DepthSnapshot)
    return Item(Op.SNAPSHOT, "", event.update_id, ms, names, values, event.received_us)


def numbered_gap(waiting: Item, *, symbol: str, last: str, from_: int | None, cause: str) -> Item:
    """The gap (or start) that ends where `waiting` needs its predecessor: a snapshot that stands
    needs its very position.
    """
    to = waiting.after if waiting.op is Op.APPEND else waiting.position
    gap = Gap.model_validate(
        {
            "symbol": symbol or None,
            "from": from_,
            "to": None if from_ is None else to,
            "cause": cause,
            "event_us": waiting.values[-4] or None,
            "engine_us": waiting.values[-3] or None,
            "received_us": waiting.heard_us,
        }
    )
    return Item(Op.GAP, last, to, waiting.ms, field_names(Gap), encode(gap), waiting.heard_us)


def is_gap(item: Item) -> bool:
    """Is it a gap entry that tells of a hole, not of a stream's beginning?"""
    fields = dict(zip(item.names, item.values, strict=True))
    return fields["type"] == "gap" and fields["cause"] != START


def is_account_snapshot(item: Item) -> bool:
    """Is it where the account stands, from REST?"""
    return item.values[0].endswith("_snapshot")


def unnumbered(event: Event, received_us: int, twins: "Twins | None" = None) -> Item:
    """An unnumbered message; without a believable time of its own it takes `received_us`.

    `twins` counts equal messages of its connection: twins are real and both are kept.
    """
    moment_us = believable_us(event, received_us) or received_us
    values = encode(event)
    if twins is not None and (number := twins.count(event_key(event, values))):
        values[-5] = str(number)  # …, twin, event_us, engine_us, received_us, extra
    return Item(
        Op.CONTENT,
        "",
        unnumbered_seq(moment_us),
        moment_us // 1000,
        field_names(type(event)),
        values,
        received_us,
        event_key(event, values),
        order_value(event, received_us),
    )


def unnumbered_gap(
    *, symbol: str, from_us: int | None, to_us: int, cause: str, received_us: int
) -> Item:
    """Nobody was listening from `from_us` to `to_us`."""
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
    return Item(
        Op.CONTENT,
        "",
        unnumbered_seq(to_us),
        to_us // 1000,
        field_names(Gap),
        values,
        received_us,
        event_key(gap, values),
    )
