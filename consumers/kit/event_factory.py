"""Makes a stream's entries for tests, with IDs and times as the bridge would write them (pure)."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from bridge.contract.events import BookTicker, Depth, DepthSnapshot, Event, Gap, Trade
from bridge.contract.identity import EntryId, content_seq
from bridge.runtime.nearest import did_you_mean

Levels = Sequence[tuple[str, str]]

_START = "2026-09-02T16:44:00"  # a whole minute
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STEP_S = 0.25  # default time from one event to the next
_TRANSIT_US = 90_000  # from the engine to the bridge

# The last digit of an ID in a sequenced stream: the bridge's slots for an exchange's own entry, a
# gap and a snapshot at the same position.
_EVENT_SLOT, _GAP_SLOT, _SNAPSHOT_SLOT = 0, 1, 2


class StreamEntry(NamedTuple):
    """An entry as the bridge would write it to the stream."""

    entry_id: str
    event: Event


class EventFactory:
    """Makes the entries of one market's streams: each call returns the next one.

    IDs increase like the exchange's, separately for trades and for the book. `after_s` is the time
    since the last event, s; times start at `start` (ISO text, UTC).
    """

    def __init__(self, symbol: str = "SOL_USDC", *, start: str = _START, first: int = 1) -> None:
        self.symbol = symbol
        moment = datetime.fromisoformat(start).replace(tzinfo=UTC)
        self.now_us = (moment - _EPOCH) // timedelta(microseconds=1)
        self.trade_id = first - 1
        self.update_id = first - 1
        self._last = EntryId(0, 0)

    def trade(self, price: str, quantity: str = "1", *, after_s: float = _STEP_S) -> StreamEntry:
        """The next trade. To set other fields, use `entry.event.model_copy`."""
        self.trade_id += 1
        event = self.event(
            Trade,
            after_s=after_s,
            price=price,
            quantity=quantity,
            trade_id=self.trade_id,
            buyer_is_maker=self.trade_id % 2 == 0,
        ).event
        return self._numbered(event, self.trade_id, _EVENT_SLOT)

    def depth(
        self, bids: Levels = (), asks: Levels = (), *, updates: int = 1, after_s: float = _STEP_S
    ) -> StreamEntry:
        """The next delta of the book, which covers `updates` update IDs."""
        first, self.update_id = self.update_id + 1, self.update_id + updates
        event = self.event(
            Depth,
            after_s=after_s,
            first_update_id=first,
            last_update_id=self.update_id,
            bids=list(bids),
            asks=list(asks),
        ).event
        return self._numbered(event, self.update_id, _EVENT_SLOT)

    def snapshot(self, bids: Levels = (), asks: Levels = ()) -> StreamEntry:
        """A snapshot of the book at the last update ID."""
        event = self.event(
            DepthSnapshot,
            after_s=0,
            update_id=self.update_id,
            bids=list(bids),
            asks=list(asks),
        ).event
        return self._numbered(event, self.update_id, _SNAPSHOT_SLOT)

    def book_ticker(
        self, bid: tuple[str, str], ask: tuple[str, str], *, after_s: float = 0
    ) -> StreamEntry:
        """Best prices and quantities at the last update ID."""
        return self.event(
            BookTicker,
            after_s=after_s,
            bid_price=bid[0],
            bid_quantity=bid[1],
            ask_price=ask[0],
            ask_quantity=ask[1],
            update_id=self.update_id,
        )

    def trades_missing(self, count: int, *, recovered: bool = False) -> StreamEntry:
        """A gap in the trades: `count` trade IDs are not in the stream."""
        first, self.trade_id = self.trade_id + 1, self.trade_id + count
        return self._gap(first, self.trade_id, recovered=recovered)

    def updates_missing(self, count: int) -> StreamEntry:
        """A gap in the book's updates: `count` update IDs are not in the stream."""
        first, self.update_id = self.update_id + 1, self.update_id + count
        return self._gap(first, self.update_id, recovered=False)

    def event(self, kind: type[Event], *, after_s: float = _STEP_S, **fields: Any) -> StreamEntry:
        """Any event of a stream without sequence numbers; missing fields get valid plain values.

        Raises TypeError for a field that the event does not have.
        """
        for name in fields:
            if name not in kind.model_fields:
                hint = did_you_mean(name, kind.model_fields)
                raise TypeError(f"{kind.__name__} has no field {name!r}{hint}")
        self.now_us += round(after_s * 1_000_000)
        usual = {
            "symbol": self.symbol,
            "event_us": self.now_us + 1500,
            "engine_us": self.now_us,
            "received_us": self.now_us + _TRANSIT_US,
            "start_utc": f"{_moment(self.now_us):%Y-%m-%dT%H:%M:%S}",
            "end_utc": f"{_moment(self.now_us):%Y-%m-%dT%H:%M:%S}",
        }
        made: dict[str, Any] = {}
        for name, field in kind.model_fields.items():
            if name in usual or field.is_required():
                made[name] = usual.get(name) or _plain_value(field.annotation)
        event = kind.model_validate(made | fields, by_alias=False, by_name=True)
        return StreamEntry(str(self._next_id()), event)

    def _next_id(self) -> EntryId:
        """An ID by the current time; always larger than the last one."""
        entry_id = EntryId(self.now_us // 1000, content_seq(self.now_us))
        if entry_id <= self._last:
            entry_id = EntryId(self._last.ms, self._last.seq + 1)
        self._last = entry_id
        return entry_id

    def _gap(self, first: int, last: int, *, recovered: bool) -> StreamEntry:
        fields = {"from_": first, "to": last, "cause": "skipped", "recovered": recovered}
        return self._numbered(self.event(Gap, after_s=0, **fields).event, last, _GAP_SLOT)

    def _numbered(self, event: Event, position: int, slot: int) -> StreamEntry:
        return StreamEntry(f"{self.now_us // 1000}-{position * 10 + slot}", event)


def _moment(moment_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=moment_us)


def _plain_value(annotation: Any) -> Any:
    """A plain valid value of the type: zero, False, an empty list, None, "1"."""
    plain: dict[Any, Any] = {int: 0, bool: False, list: []}
    origin = getattr(annotation, "__origin__", annotation)
    choices = getattr(annotation, "__args__", ())
    if origin in plain:
        return plain[origin]
    if choices and isinstance(choices[0], str):  # a Literal of strings
        return choices[0]
    return None if type(None) in choices else "1"
