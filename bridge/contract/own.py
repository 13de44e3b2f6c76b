"""The bridge's own entries (pure): snapshots, gaps, records of the gap log, refused messages."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from bridge.contract.causes import GapCause
from bridge.contract.fields import (
    KIND,
    MARKET,
    NEVER,
    OCCURRENCE,
    READ,
    Event,
    Flag,
    Levels,
    Rows,
    Text,
    Whole,
)

# A cause of a later version is read as text.
Cause = Annotated[GapCause | Text, Field(union_mode="left_to_right")]


class Own(Event):
    """An entry made by the bridge; never received from the exchange's socket.

    A gap in a sequenced stream has the times of the message after it; the other entries have no
    time of the exchange.
    """


class DepthSnapshot(Own):
    """A whole book, exact at `update_id`: the reader replaces its book. Best price first.

    `rest_update_id` is the REST body's `lastUpdateId`, carried forward to `update_id` with the
    received deltas; None if the snapshot is of the bridge's own book.
    """

    type: Literal["depth_snapshot"] = Field(default="depth_snapshot", description=KIND)
    symbol: Text = Field(description=MARKET)
    update_id: Whole = Field(description="the book is exact at this update id")
    rest_update_id: Whole | None = Field(
        default=None,
        description=(
            "`lastUpdateId` of the REST reply it was made from; empty on periodic ones, which "
            "are the bridge's own book"
        ),
    )
    bids: Levels = Field(
        description="JSON array of [price, quantity], best first: all levels that the bridge knows"
    )
    asks: Levels = Field(
        description="JSON array of [price, quantity], best first: all levels that the bridge knows"
    )
    event_us: Whole | None = Field(default=None, description=NEVER)
    engine_us: Whole | None = Field(default=None, description=NEVER)
    received_us: Whole = Field(
        description="when the REST reply, or the change it is placed at, was read"
    )


class OrdersSnapshot(Own):
    """All open orders at present (of `symbol`, or of every market if it is None)."""

    type: Literal["orders_snapshot"] = Field(default="orders_snapshot", description=KIND)
    symbol: Text | None = Field(
        default=None, description="the one market it is about; empty: all markets"
    )
    orders: Rows = Field(
        description="JSON array of all open orders, with the names of an order update"
    )
    occurrence: Whole | None = Field(default=None, description=OCCURRENCE)
    event_us: Whole | None = Field(default=None, description=NEVER)
    engine_us: Whole | None = Field(default=None, description=NEVER)
    received_us: Whole = Field(description="when the REST reply was read")


class PositionsSnapshot(Own):
    """All open positions at present (of `symbol`, or of every market if it is None)."""

    type: Literal["positions_snapshot"] = Field(default="positions_snapshot", description=KIND)
    symbol: Text | None = Field(
        default=None, description="the one market it is about; empty: all markets"
    )
    positions: Rows = Field(
        description="JSON array of all open positions, with the names of a position update"
    )
    occurrence: Whole | None = Field(default=None, description=OCCURRENCE)
    event_us: Whole | None = Field(default=None, description=NEVER)
    engine_us: Whole | None = Field(default=None, description=NEVER)
    received_us: Whole = Field(description="when the REST reply was read")


class BalancesSnapshot(Own):
    """All balances at present."""

    type: Literal["balances_snapshot"] = Field(default="balances_snapshot", description=KIND)
    symbol: Text | None = Field(default=None, description=NEVER)
    balances: Rows = Field(
        description="JSON array of all balances: asset, available, locked, staked"
    )
    occurrence: Whole | None = Field(default=None, description=OCCURRENCE)
    event_us: Whole | None = Field(default=None, description=NEVER)
    engine_us: Whole | None = Field(default=None, description=NEVER)
    received_us: Whole = Field(description="when the REST reply was read")


class Gap(Own):
    """Messages may be missing here.

    Sequenced streams: ids `from..to` are not in the stream (`from` is None at a stream's start).
    Other streams: it is not certain that everything was received from `from_us` to `to_us`.
    """

    type: Literal["gap"] = Field(default="gap", description=KIND)
    symbol: Text | None = Field(
        default=None, description="the stream's market; empty where the stream covers all"
    )
    from_: Whole | None = Field(
        validation_alias="from",
        default=None,
        description="sequenced streams: first id that is missing; empty at a stream's start",
    )
    to: Whole | None = Field(
        default=None,
        description="sequenced streams: last id that is missing; empty at a stream's start",
    )
    from_us: Whole | None = Field(
        default=None,
        description="other streams: start of the outage, µs since 1970; empty: not known",
    )
    to_us: Whole | None = Field(
        default=None, description="other streams: end of the outage, µs since 1970"
    )
    cause: Cause = Field(description="why: see the list of causes")
    recovered: Flag = Field(
        default=False,
        description=(
            "always `false`: a recovered gap leaves no entry here, only its record in `bridge:gaps`"
        ),
    )
    occurrence: Whole | None = Field(default=None, description=OCCURRENCE)
    event_us: Whole | None = Field(default=None, description="of the message after the gap")
    engine_us: Whole | None = Field(default=None, description="of the message after the gap")
    received_us: Whole = Field(description="when the message after the gap was read")


class GapRecord(Own):
    """A record of the gap log `bridge:gaps`: one gap in one stream, recovered or not.

    Ids `from..to` in sequenced streams, times `from_us..to_us` in other streams. `recovered` true:
    nothing of it is missing in the stream. `how`: what recovered it, or what follows it instead.
    """

    type: Literal["gap_record"] = Field(default="gap_record", description=KIND)
    symbol: Text | None = Field(
        default=None, description="the stream's market; empty where the stream covers all"
    )
    stream: Text = Field(description="the stream that has, or had, the gap")
    from_: Whole | None = Field(
        validation_alias="from", default=None, description="sequenced streams: first id of the gap"
    )
    to: Whole | None = Field(default=None, description="sequenced streams: last id of the gap")
    from_us: Whole | None = Field(
        default=None,
        description="other streams: start of the outage, µs since 1970; empty: not known",
    )
    to_us: Whole | None = Field(
        default=None, description="other streams: end of the outage, µs since 1970"
    )
    cause: Cause = Field(description="why: see the list of causes")
    recovered: Flag = Field(description="`true`: nothing of it is missing in the stream")
    how: Text | None = Field(
        default=None, description="what recovered it, or makes up for it; empty: nothing"
    )
    occurrence: Whole | None = Field(default=None, description=OCCURRENCE)
    event_us: Whole | None = Field(default=None, description=NEVER)
    engine_us: Whole | None = Field(default=None, description=NEVER)
    received_us: Whole = Field(
        description="when the message after the gap was read, or the reply that recovered it"
    )


class Quarantined(Own):
    """A refused message: the reason, and its unchanged text."""

    type: Literal["quarantined"] = Field(default="quarantined", description=KIND)
    symbol: Text | None = Field(default=None, description=NEVER)
    stream: str | None = Field(default=None, description="the stream's name, if the message has it")
    reason: str = Field(description="why it was refused, by the fields of the wire")
    raw: str | None = Field(
        default=None, description="the unchanged message, its first 16,384 bytes"
    )
    occurrence: Whole | None = Field(default=None, description=OCCURRENCE)
    event_us: Whole | None = Field(default=None, description=NEVER)
    engine_us: Whole | None = Field(default=None, description=NEVER)
    received_us: Whole = Field(description=READ)


OWN_MEANINGS: Mapping[type[Event], str] = {
    DepthSnapshot: "The whole book: replace yours by it.",
    OrdersSnapshot: "All open orders at present: replace yours by them.",
    PositionsSnapshot: "All open positions at present: replace yours by them.",
    BalancesSnapshot: "All balances at present: replace yours by them.",
    Gap: "Messages may be missing here.",
    GapRecord: "A gap in a stream, recovered or not.",
    Quarantined: "A message that was refused, and the reason.",
}
