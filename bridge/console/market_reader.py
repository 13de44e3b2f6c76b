"""Reads the streams of one market from Redis incrementally (for `market`).

The book starts from the newest snapshot: the stream is searched backwards for it, page by page, as
far as retention may have kept it.
"""

from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis

from bridge.console.kit import Keys
from bridge.console.market import (
    CANDLES,
    TRADES,
    Entry,
    MarketPage,
    Streams,
    candles_of,
    is_snapshot,
)
from bridge.contract.identity import EntryId
from bridge.contract.streams import KLINE_INTERVALS

_PAGE = 1000
_MOST_PAGES = 120  # searched for the newest snapshot
_CANDLES_EVERY = 4  # reads
_CONSUMER = "candles"


async def oldest_ms(client: Redis, keys: Keys, streams: Streams) -> int | None:
    """Time of the market's oldest entry in Redis, ms; None without entries."""
    name = streams.depth or streams.trade or streams.ticker
    oldest: Any = await client.xrange(keys.stream(name), count=1)
    return EntryId.parse(oldest[0][0]).ms if oldest else None


class MarketReader:
    """One market. Call `begin` once, and `read` after it; one whose `begin` fails is of no use."""

    def __init__(self, client: Redis, keys: Keys, streams: Streams) -> None:
        self._client = client
        self._keys = keys
        self._streams = streams
        self._page = MarketPage()
        self._depth_after = self._trades_after = "-"
        self._reads = 0
        self._candles: dict[str, list[list[Any]]] = {}
        self._source = ""
        self._since_ms: int | None = None

    def use(self, client: Redis) -> None:
        """Read with this client from now on."""
        self._client = client

    @property
    def stream_names(self) -> list[str]:
        """The streams whose gaps are shown on this page."""
        return [name for name in (self._streams.trade, self._streams.depth) if name]

    def whole(self) -> dict[str, Any]:
        """The whole page, for a new client."""
        return {
            "streams": self.stream_names,
            "since_ms": self._since_ms,
            "book": self._page.book(),
            "best": self._page.best(),
            "trades": self._page.tape(),
            "candles": self._candles,
            "candles_source": self._source,
        }

    async def begin(self) -> None:
        """Read up to now. Raises the Redis client's errors."""
        if self._streams.depth:
            await self._find_snapshot()
            while await self._read_depth():
                pass
        if self._streams.trade:
            key = self._keys.stream(self._streams.trade)
            newest: Any = await self._client.xrevrange(key, count=TRADES)
            self._take_trades([Entry(*one) for one in reversed(newest)])
        await self._read_ticker()
        await self._read_candles()
        self._since_ms = await oldest_ms(self._client, self._keys, self._streams)

    async def read(self) -> dict[str, Any] | None:
        """Read new entries. Returns the update for clients; None where nothing is new."""
        new: dict[str, Any] = {}
        if self._streams.depth and await self._read_depth():
            new["book"] = self._page.book()
        if self._streams.trade:
            key = self._keys.stream(self._streams.trade)
            entries: Any = await self._client.xrange(key, self._trades_after, count=_PAGE)
            if trades := self._take_trades([Entry(*one) for one in entries]):
                new["trades"] = trades
        before = self._page.best()
        await self._read_ticker()
        if self._page.best() != before:
            new["best"] = self._page.best()
        self._reads += 1
        if self._reads % _CANDLES_EVERY == 0:
            new |= await self._new_candles()
        return new or None

    async def _find_snapshot(self) -> None:
        key, before = self._keys.stream(self._streams.depth), "+"
        for _ in range(_MOST_PAGES):
            page: Any = await self._client.xrevrange(key, before, count=_PAGE)
            for entry_id, _ in page:
                if is_snapshot(entry_id):
                    self._depth_after = entry_id  # inclusive: the range starts with it
                    return
            if len(page) < _PAGE:
                break
            before = f"({page[-1][0]}"
        newest: Any = await self._client.xrevrange(key, count=1)
        self._depth_after = f"({newest[0][0]}" if newest else "-"

    async def _read_depth(self) -> bool:
        key = self._keys.stream(self._streams.depth)
        entries: Any = await self._client.xrange(key, self._depth_after, count=_PAGE)
        if entries:
            self._depth_after = f"({entries[-1][0]}"
        return self._page.take_depth(Entry(*one) for one in entries)

    def _take_trades(self, entries: list[Entry]) -> list[dict[str, Any]]:
        if entries:
            self._trades_after = f"({entries[-1].entry_id}"
        return self._page.take_trades(entries)

    async def _read_ticker(self) -> None:
        if self._streams.ticker:
            key = self._keys.stream(self._streams.ticker)
            newest: Any = await self._client.xrevrange(key, count=1)
            for one in newest:
                self._page.take_ticker(Entry(*one))

    async def _new_candles(self) -> dict[str, Any]:
        before = {interval: some[-2:] for interval, some in self._candles.items()}
        await self._read_candles()
        # Clients have all but the newest two, and replace those they have.
        after = {interval: some[-2:] for interval, some in self._candles.items()}
        if after == before:
            return {}
        return {"candles": after, "candles_source": self._source}

    async def _read_candles(self) -> None:
        made = await self._made_candles()
        self._source = _CONSUMER if made else "exchange" if self._streams.klines else ""
        self._candles = made or await self._klines()

    async def _made_candles(self) -> dict[str, list[list[Any]]]:
        """By interval, the candles that the consumer `candles` made of this market's trades."""
        if not self._streams.trade:
            return {}
        pipeline = self._client.pipeline(transaction=False)
        for interval in KLINE_INTERVALS:
            key = self._keys.beside(self._streams.trade, _CONSUMER, interval)
            pipeline.hgetall(key)
            pipeline.xrevrange(f"{key}:closed", count=CANDLES)
        replies = iter(await pipeline.execute())
        found: dict[str, list[list[Any]]] = {}
        for interval in KLINE_INTERVALS:
            current: Mapping[str, str] = next(replies)
            closed: Any = next(replies)
            some = candles_of([fields for _, fields in reversed(closed)], current)
            if some:
                found[interval] = some
        return found

    async def _klines(self) -> dict[str, list[list[Any]]]:
        """By interval, the exchange's own candles; the last entry of each candle counts."""
        found: dict[str, list[list[Any]]] = {}
        for interval, stream in self._streams.klines.items():
            newest: Any = await self._client.xrevrange(self._keys.stream(stream), count=_PAGE)
            some = candles_of([fields for _, fields in reversed(newest)], {})
            if some:
                found[interval] = some
        return found
