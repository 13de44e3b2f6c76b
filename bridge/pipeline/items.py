"""What waits to be published: one entry with what the append script needs to place it (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from bridge.contract.entry import encode, field_names
from bridge.contract.events import Depth, DepthSnapshot, Event, Gap, Trade
from bridge.contract.identity import (
    believable_us,
    event_key,
    order_value,
    place,
    unnumbered_seq,
)

_ITEM_BYTES = 400  # what an item costs in memory besides its values, measured roughly


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

    @property
    def after(self) -> int:
        """APPEND: the position of the message that must be before this one."""
        return int(self.expected)

    @property
    def size(self) -> int:
        """Bytes of memory, roughly."""
        return _ITEM_BYTES + sum(map(len, self.values))


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


def snapshot(event: DepthSnapshot, ms: int) -> Item:
    """A depth snapshot behind the delta it follows; `ms` is that delta's engine time."""
    values = encode(event)
    names = field_names(DepthSnapshot)
    return Item(Op.SNAPSHOT, "", event.update_id, ms, names, values, event.received_us)


def numbered_gap(waiting: Item, *, symbol: str, last: str, from_: int | None, cause: str) -> Item:
    """The gap (or start) that ends where `waiting` needs its predecessor."""
    gap = Gap.model_validate(
        {
            "symbol": symbol or None,
            "from": from_,
            "to": None if from_ is None else waiting.after,
            "cause": cause,
            "event_us": waiting.values[-4] or None,
            "engine_us": waiting.values[-3] or None,
            "received_us": waiting.heard_us,
        }
    )
    return Item(
        Op.GAP, last, waiting.after, waiting.ms, field_names(Gap), encode(gap), waiting.heard_us
    )


def unnumbered(event: Event, received_us: int) -> Item:
    """An unnumbered message; without a believable time of its own it takes `received_us`."""
    moment_us = believable_us(event, received_us) or received_us
    values = encode(event)
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


def memory(items: Sequence[Item]) -> int:
    """Bytes that these items hold, roughly."""
    return sum(item.size for item in items)
