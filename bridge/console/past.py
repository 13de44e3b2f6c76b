"""One market at an earlier moment, from the entries that Redis keeps.

The book is that of `bridge book --at`: the newest snapshot before the moment and the changes after
it, or why it is not known. A request reads a bounded number of entries, and only one runs at a
time, however many pages request it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from redis.asyncio import Redis

from bridge.console.kit import Keys
from bridge.console.market import LEVELS, TRADES, Entry, MarketPage, Streams
from bridge.console.market_reader import oldest_ms
from bridge.contract.entry import BadEntry
from bridge.contract.streams import parse_stream
from bridge.inspect.book_at import BookAt, From, before_gap, book_of
from bridge.inspect.stored import Stored

MOST_ENTRIES = 60_000  # read back to a snapshot: `snapshots.depth_every_updates` is less
MOST_WAITING = 8
_PAGE = 1000
_SEQ_MAX = 2**64 - 1
_ENDS = ("gap", "depth_snapshot")  # the search for a book stops at these


class Busy(Exception):
    """Too many requests for earlier moments wait; the message says so."""


class PastReader:
    """Reads earlier moments of any market, one request after the other."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._lock = asyncio.Lock()
        self._waiting = 0

    async def read(self, streams: Streams, at_ms: int) -> dict[str, Any]:
        """The market at that moment (of the exchange's clock), and the time of its oldest entry.
        Raises Busy, and the Redis client's errors.
        """
        if self._waiting >= MOST_WAITING:
            raise Busy(f"{MOST_WAITING} requests for earlier moments are waiting: try again")
        self._waiting += 1
        try:
            async with self._lock:
                return await self._read(streams, at_ms)
        finally:
            self._waiting -= 1

    async def _read(self, streams: Streams, at_ms: int) -> dict[str, Any]:
        last = f"{at_ms}-{_SEQ_MAX}"
        page = MarketPage()
        if streams.trade:
            page.take_trades(reversed(await self._newest(streams.trade, last, TRADES)))
        if streams.ticker:
            for entry in await self._newest(streams.ticker, last, 1):
                page.take_ticker(entry)
        book = await self._book(streams.depth, last) if streams.depth else None
        best = page.best()
        if not best and book is not None and book.is_known:
            best = {"bid": next(iter(book.bids), None), "ask": next(iter(book.asks), None)}
        return {
            "at_ms": at_ms,
            "since_ms": await oldest_ms(self._client, self._keys, streams),
            "book": None if book is None else _shown(book),
            "best": best,
            "trades": page.tape(),
        }

    async def _newest(self, stream: str, last: str, count: int) -> list[Entry]:
        entries: Any = await self._client.xrevrange(self._keys.stream(stream), last, count=count)
        return [Entry(*one) for one in entries]

    async def _book(self, name: str, last: str) -> BookAt:
        stream = parse_stream(name)
        entries = await self._back_to_snapshot(name, last)
        if entries and len(entries) >= MOST_ENTRIES and entries[-1].type not in _ENDS:
            why = f"the {MOST_ENTRIES:,} entries before it have no snapshot: use `bridge book`"
            return BookAt(name, From.REDIS, unknown=why)
        try:
            # In a thread: tens of thousands of changes would block other pages for too long.
            book = await asyncio.to_thread(book_of, stream, From.REDIS, entries, LEVELS)
        except BadEntry as error:
            return BookAt(name, From.REDIS, unknown=f"another program's entry: {error}")
        following: Any = await self._client.xrange(self._keys.stream(name), f"({last}", count=1)
        return before_gap(book, _stored(*following[0]) if following else None)

    async def _back_to_snapshot(self, name: str, last: str) -> list[Stored]:
        """Entries up to `last`, newest first, to the first snapshot or gap, or up to the limit."""
        found: list[Stored] = []
        while len(found) < MOST_ENTRIES:
            page = await self._newest(name, last, _PAGE)
            for entry in page:
                found.append(_stored(*entry))
                if found[-1].type in _ENDS:
                    return found
            if len(page) < _PAGE:
                break
            last = f"({page[-1].entry_id}"
        return found


def _stored(entry_id: str, fields: Mapping[str, str]) -> Stored:
    return Stored(entry_id, tuple(fields), list(fields.values()))


def _shown(book: BookAt) -> dict[str, Any]:
    """A book for the page. `certain`: see `BookAt`."""
    plain = asdict(book)
    return {
        "known": book.is_known,
        "why": book.unknown,
        "at_us": book.at_ms * 1000 or None,
    } | {name: plain[name] for name in ("update_id", "bids", "asks", "certain")}
