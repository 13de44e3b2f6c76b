"""Fetches over REST: books, missing trades and fills, and snapshots of the account.

The sink reports what a stream needs; it is fetched until the stream needs it no more. Each stream
is served by one task at a time. Bodies go unchanged to the sink, which returns their result.

Trades: history has no access by id or time, only by the offset from the newest trade: so pages are
fetched until one reaches the missing trades. New trades shift the pages meanwhile, so pages
overlap. A CDN may return an older history than was received: then it is fetched again.

Fills: they are fetched from a little before the end of the account's coverage to a little after it
was received again, the oldest first. The core recognises those that the stream has, by trade id.

A refusal (4xx) may be that of a CDN or firewall and end soon, or that of the exchange for a reason
that passes (a clock, rights of a key). Only repeated refusals of the exchange itself are final.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial

import structlog

from bridge.contract.stream_types import Identity, Recovery
from bridge.contract.streams import Stream, parse_stream
from bridge.core.outcomes import Applied, Join, Reach
from bridge.core.records import BodyKind, RestBody
from bridge.core.wants import BookWanted, FillsWanted, TradesWanted
from bridge.feed.limits import Urgency
from bridge.feed.rest import Rest, RestError, RestRefused
from bridge.feed.sink import Sink, Sinks
from bridge.protocol.rest import BadBody, row_count
from bridge.runtime.backoff import Backoff
from bridge.runtime.supervised import supervised

log = structlog.get_logger(__name__)

BACKOFF_S = (0.25, 10.0)
REFUSED_BACKOFF_S = (2.0, 300.0)
FINAL_AFTER = 8  # refusals of the exchange itself: with the pauses between them, some minutes
MOST_FILLS_REFUSALS = 5  # the snapshot of the account waits for the fills
# An equal body after so long shows that the book is at rest. (The core decides so after 3 s, by the
# times of receipt of the bodies.)
QUIET_S = 3.1
CONCURRENT_TRIES = 5  # requests for one account body while updates are received in between

DEPTH = "/api/v1/depth"
HISTORY = "/api/v1/trades/history"
FILLS = ("/wapi/v1/history/fills", "fillHistoryQueryAll")  # path and instruction
DEEPEST = 10_000  # the most that offset + limit may be
PAGE, SMALL_PAGE = 1_000, 100
OVERLAP = 20  # rows that neighbouring pages share, for trades that are made between two requests
# The exchange's clocks differ from each other; and from ours, until its clock is known: then by as
# much as a signature may be off.
MARGIN_US = 5_000_000
NO_ROWS = b"[]"


class Fetch:
    """Fetches what streams need over REST. `run` until cancelled."""

    def __init__(
        self,
        sinks: Sinks,
        rest: Rest,
        *,
        depth_levels: int,
        clock_us: Callable[[], int],
        chance: random.Random,
    ) -> None:
        self._sinks = sinks
        self._rest = rest
        self._depth_levels = depth_levels
        self._clock_us = clock_us
        self._chance = chance
        self._streams: Mapping[str, Stream] = {}
        self._queue: asyncio.Queue[Stream] = asyncio.Queue()  # bounded by the number of streams
        self._account: set[str] = set()  # private streams that need a snapshot
        self._again: dict[str, asyncio.Event] = {}  # stream being served → set on a new request

    def follow(self, streams: Mapping[str, Stream]) -> None:
        """Ignore requests of other streams than these from now on."""
        self._streams = streams

    def fetch_account(self, streams: Iterable[Stream]) -> None:
        """Fetch snapshots of the private ones of these streams, after a connection subscribed to
        them. (The core requests books itself.)
        """
        for stream in streams:
            if stream.is_private and stream.spec.source(Recovery.SNAPSHOT) is not None:
                self._account.add(stream.name)
                self._request(stream)

    async def run(self) -> None:
        """Poll the sinks, and serve each stream with a need."""
        self._queue = asyncio.Queue()
        for name in self._again:  # after a restart: streams that were being served
            self._queue.put_nowait(parse_stream(name))
        sinks = {id(sink): sink for sink in map(self._sink_of, (True, False))}
        async with asyncio.TaskGroup() as tasks:
            for sink in sinks.values():
                tasks.create_task(self._poll(sink), name="fetch-requests")
            while True:
                stream = await self._queue.get()
                name = f"fetch-{stream.name}"
                work = partial(self._serve, stream)
                tasks.create_task(supervised(name, work, self._new_backoff()), name=name)

    async def _poll(self, sink: Sink) -> None:
        while True:
            for name in sink.requests():
                if (stream := self._streams.get(name)) is not None:
                    self._request(stream)
            await sink.requested.wait()
            sink.requested.clear()

    def _request(self, stream: Stream) -> None:
        if stream.name in self._again:
            self._again[stream.name].set()
        else:
            self._again[stream.name] = asyncio.Event()
            self._queue.put_nowait(stream)

    def _sink_of(self, is_private: bool) -> Sink:  # noqa: FBT001 - mapped over both
        return self._sinks.of(is_private=is_private)

    def _new_backoff(self) -> Backoff:
        return Backoff(*BACKOFF_S, self._chance)

    async def _serve(self, stream: Stream) -> None:
        """Serve one stream, again while there are new requests meanwhile."""
        again = self._again[stream.name]
        again.set()
        while again.is_set():
            again.clear()
            await self._serve_once(stream, again)
        del self._again[stream.name]

    async def _serve_once(self, stream: Stream, again: asyncio.Event) -> None:
        """Serve one stream once: recovery first, then the snapshot of the account."""
        one = _OneStream(
            stream,
            self._sink_of(stream.is_private),
            self._rest,
            again,
            depth_levels=self._depth_levels,
            clock_us=self._clock_us,
            chance=self._chance,
        )
        if stream.spec.source(Recovery.HISTORY) is not None:
            await one.fetch_trades()
        elif stream.identity is Identity.SEQUENCED:
            await one.fetch_book()
        else:
            await one.fetch_fills()
        if stream.name in self._account:
            self._account.discard(stream.name)
            is_done = False
            try:
                is_done = await one.fetch_account()
            finally:
                if not is_done:
                    self._account.add(stream.name)  # it is still needed


class _OneStream:
    """Serves one stream once. `again` is set by a new request meanwhile."""

    def __init__(
        self,
        stream: Stream,
        sink: Sink,
        rest: Rest,
        again: asyncio.Event,
        *,
        depth_levels: int,
        clock_us: Callable[[], int],
        chance: random.Random,
    ) -> None:
        self._stream = stream
        self._name = stream.name
        self._sink = sink
        self._rest = rest
        self._again = again
        self._depth_levels = depth_levels
        self._clock_us = clock_us
        self._backoff = Backoff(*BACKOFF_S, chance)
        self._late_backoff = Backoff(*REFUSED_BACKOFF_S, chance)

    # ---- books ---------------------------------------------------------------------------------

    async def fetch_book(self) -> None:
        """Fetch the book until it is known, or no connection is to receive the stream (the next one
        requests it anew). If the body is ahead of the deltas, wait for them; if the book is at
        rest, a second equal body decides, so neither may be from a cache.
        """
        refusals = _Refusals("snapshot_refused", self._name, self._late_backoff)
        params = {"symbol": self._stream.symbol, "limit": str(self._depth_levels)}
        while self._wants_book():
            try:
                body = await self._rest.get(DEPTH, params, urgency=Urgency.DEPTH, fresh=True)
                joined = self._take(BodyKind.MAIN, body)
            except RestRefused as refused:
                if refusals.are_final(refused):
                    refusals.exclude(refused)
                    return
                await self._pause_or_again(refusals.take(refused))
                self._again.clear()
                continue
            except (RestError, BadBody) as error:
                log.warning("snapshot_failed", stream=self._name, reason=str(error))
                joined = Join.TOO_OLD
            if joined is None:
                return  # it is journaled, and applied in its turn
            if joined is Join.AHEAD:
                await self._pause_or_again(QUIET_S)
                self._again.clear()
            elif joined is Join.TOO_OLD:
                await asyncio.sleep(self._backoff.next_s())

    def _wants_book(self) -> bool:
        is_wanted = self._sink.is_wanted(self._name)
        return is_wanted and isinstance(self._sink.wants(self._name), BookWanted)

    # ---- trades --------------------------------------------------------------------------------

    async def fetch_trades(self) -> None:
        """Fetch history until no trade is missing, or the stream waits no longer for any."""
        refusals = _Refusals("history_refused", self._name, self._backoff)
        while isinstance(self._sink.wants(self._name), TradesWanted):
            reach: Applied
            try:
                reach = await self._page_back()
            except RestRefused as refused:
                if refused.is_final:
                    refusals.exclude(refused)
                    self._take(BodyKind.END, NO_ROWS)
                    return
                await asyncio.sleep(refusals.take(refused))
                continue
            except (RestError, BadBody) as error:
                log.warning("history_failed", stream=self._name, reason=str(error))
                reach = Reach.STALE
            if reach is None:
                return  # it is journaled, and applied in its turn
            if reach is Reach.STALE:
                await asyncio.sleep(self._backoff.next_s())

    async def _page_back(self) -> Applied:
        """Fetch pages from the newest trade back to the oldest missing one. Returns the result."""
        offset = 0
        while isinstance(need := self._sink.wants(self._name), TradesWanted):
            limit = SMALL_PAGE if offset + SMALL_PAGE - OVERLAP > need.back else PAGE
            limit = min(limit, DEEPEST - offset)
            if limit <= OVERLAP:
                return self._take(BodyKind.END, NO_ROWS)
            params = {"symbol": self._stream.symbol, "limit": str(limit), "offset": str(offset)}
            body = await self._rest.get(HISTORY, params, urgency=Urgency.TRADES, fresh=True)
            reach = self._take(BodyKind.MAIN, body)
            if reach is not Reach.DEEPER:
                return reach
            offset += limit - OVERLAP
        return Reach.DONE

    # ---- fills ---------------------------------------------------------------------------------

    async def fetch_fills(self) -> None:
        """Fetch the missing fills; after too many refusals the stream continues without them."""
        refusals = _Refusals("fills_refused", self._name, self._late_backoff)
        while isinstance(need := self._sink.wants(self._name), FillsWanted):
            try:
                await self._page_fills(need)
                if self._sink.wants(self._name) != need:
                    continue  # another outage has ended, for which the end would count, too
            except RestRefused as refused:
                if not refused.is_final and refusals.count < MOST_FILLS_REFUSALS:
                    await asyncio.sleep(refusals.take(refused))
                    continue
                refusals.exclude(refused)
            except (RestError, BadBody) as error:
                log.warning("fills_failed", stream=self._name, reason=str(error))
                await asyncio.sleep(self._backoff.next_s())
                continue
            if self._take(BodyKind.END, NO_ROWS) is None:
                return  # it is journaled, and applied in its turn

    async def _page_fills(self, need: FillsWanted) -> None:
        """Fetch the pages of an interval. Later fills were received, with more fields."""
        first_ms = max(0, need.from_us - MARGIN_US) // 1000
        last_ms = (need.to_us + MARGIN_US) // 1000
        params = {"from": str(first_ms), "to": str(last_ms), "sortDirection": "Asc"}
        if self._stream.symbol:
            params["symbol"] = self._stream.symbol
        for offset in range(0, DEEPEST, PAGE):
            page = params | {"limit": str(PAGE), "offset": str(offset)}
            body = await self._rest.get_signed(*FILLS, page)
            rows = row_count(body)  # first, since it may raise: the journal stores any body
            self._take(BodyKind.FILLS, body)
            if rows < PAGE:
                return
        log.error("fills_too_many", stream=self._name, fetched=DEEPEST)

    # ---- the account ---------------------------------------------------------------------------

    async def fetch_account(self) -> bool:
        """Fetch a snapshot of the account until there is one, or it is refused finally (the stream
        continues without), or no connection is to receive the stream (the next one requests it
        anew). False: it was refused, and there is a new request meanwhile.
        """
        refusals = _Refusals("snapshot_refused", self._name, self._late_backoff)
        while self._sink.is_wanted(self._name):
            try:
                self._take(BodyKind.MAIN, await self._account_body())
                return True
            except RestRefused as refused:
                if refusals.are_final(refused):
                    refusals.exclude(refused)
                    return True
                await self._pause_or_again(refusals.take(refused))
                if self._again.is_set():
                    return False
                continue
            except (RestError, BadBody) as error:
                log.warning("snapshot_failed", stream=self._name, reason=str(error))
            await asyncio.sleep(self._backoff.next_s())
        return True

    async def _account_body(self) -> bytes:
        """A body for the snapshot. One during which an update was received may be older than the
        update: it is fetched again.
        """
        stream = self._stream
        source = stream.spec.source(Recovery.SNAPSHOT)
        assert source is not None  # `Fetch.fetch_account` takes no other streams
        scope = {"symbol": stream.symbol} if stream.symbol else {}
        body = b""
        for _ in range(CONCURRENT_TRIES):
            before = self._sink.received(self._name)
            body = await self._rest.get_signed(source.path, source.instruction, scope)
            if self._sink.received(self._name) == before:
                break
        return body

    # ---- inside --------------------------------------------------------------------------------

    def _take(self, kind: BodyKind, body: bytes) -> Applied:
        """Pass a body to the sink. Returns its result. Raises BadBody."""
        try:
            return self._sink.take(RestBody(self._clock_us(), self._name, kind, body))
        finally:
            self._sink.flush()

    async def _pause_or_again(self, limit_s: float) -> None:
        """Pause for so long, or until a new request."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._again.wait()


class _Refusals:
    """The refusals of one request: the first is logged, and pauses between repetitions grow.
    `event`: their name in the log.
    """

    def __init__(self, event: str, stream: str, backoff: Backoff) -> None:
        self.count = 0
        self._event = event
        self._stream = stream
        self._backoff = backoff

    def take(self, refused: RestRefused) -> float:
        """Count a refusal. Returns the pause before the next request, in seconds."""
        self.count += 1
        pause_s = self._backoff.next_s()
        if self.count == 1:
            log.warning(
                self._event, stream=self._stream, reason=str(refused), again_s=round(pause_s, 2)
            )
        return pause_s

    def are_final(self, refused: RestRefused) -> bool:
        """Whether the exchange itself has refused often enough to give up."""
        return refused.is_final and self.count >= FINAL_AFTER

    def exclude(self, refused: RestRefused) -> None:
        """Log that the request is not repeated."""
        log.warning(self._event, stream=self._stream, reason=str(refused), again_s=None)
