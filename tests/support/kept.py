"""Literal data of a bridge: entries in Redis, records in a journal."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import redis

from bridge.contract.causes import GapCause
from bridge.core.records import (
    BodyKind,
    Frame,
    Lost,
    Opened,
    Record,
    RestBody,
    SegmentState,
)
from bridge.inspect.stored import Stored
from bridge.journal.codec import encode
from tests.support.consumer_entries import START_US, entry_id, gap, trade

STREAM = "trade.SOL_USDC"
FIRST = 101
"""Trades 101 to 110 of one market, a tenth of a second apart; 105 and 106 were never received."""


def at_us(number: int) -> int:
    """The time of trade `number`, µs."""
    return START_US + (number - FIRST) * 100_000


def trade_id(number: int) -> str:
    return entry_id(at_us(number), number)


def trades(numbers: Iterable[int]) -> dict[str, dict[str, str]]:
    """The entries of these trades, by ID."""
    return {
        trade_id(number): dict(trade(number, at_us(number))) | received(number)
        for number in numbers
    }


def received(number: int) -> dict[str, str]:
    return {"event_us": str(at_us(number) + 300), "received_us": str(at_us(number) + 900)}


def marked(first: int, last: int) -> dict[str, dict[str, str]]:
    """A gap of the trades `first` to `last`, by ID."""
    fields = dict(gap(last, first=first)) | received(last + 1)
    return {entry_id(at_us(last + 1), last, 1): fields | {"cause": "connection lost"}}


def frame(number: int, connection: int = 1, late_us: int = 0) -> Frame:
    """The frame of the trade, as the exchange sent it."""
    fields = trade(number, at_us(number))
    body = (
        f'{{"data":{{"e":"trade","E":{at_us(number) + 300},"T":{at_us(number)},'
        f'"a":"{fields["seller_order_id"]}","b":"{fields["buyer_order_id"]}",'
        f'"m":{fields["buyer_is_maker"]},"p":"{fields["price"]}","q":"{fields["quantity"]}",'
        f'"s":"SOL_USDC","t":{number}}},"stream":"{STREAM}"}}'
    )
    return Frame(at_us(number) + 900 + late_us, connection, body.encode())


def opened(connection: int, us: int, name: str = "public-1") -> Opened:
    return Opened(us, connection, name, [STREAM])


def lost(connection: int, us: int) -> Lost:
    return Lost(us, connection, GapCause.CONNECTION_LOST)


def history(number: int, us: int) -> RestBody:
    """A page of the exchange's history with this trade, received at `us`."""
    fields = trade(number, at_us(number))
    row = (
        f'[{{"id":{number},"isBuyerMaker":{fields["buyer_is_maker"]},"price":"{fields["price"]}",'
        f'"quantity":"{fields["quantity"]}","timestamp":{at_us(number) // 1000}}}]'
    )
    return RestBody(us, STREAM, BodyKind.MAIN, row.encode())


def write_journal(folder: Path, records: Iterable[Record]) -> Path:
    """Write a segment with these records; the folder."""
    folder.mkdir(exist_ok=True)
    head = SegmentState(START_US - 1_000_000, {}, {}, ())
    lines = b"".join(encode(record) for record in (head, *records))
    (folder / "00000000000000000000.journal").write_bytes(lines)
    return folder


def write_stream(
    client: "redis.Redis", entries: Mapping[str, Mapping[str, Any]], stream: str = STREAM
) -> None:
    """Add entries, each under its ID."""
    for one, fields in entries.items():
        client.xadd(stream, dict(fields), id=one)


def stored(entries: Mapping[str, Mapping[str, str]]) -> list[Stored]:
    """The entries as they are read from Redis."""
    return [Stored(one, tuple(fields), list(fields.values())) for one, fields in entries.items()]
