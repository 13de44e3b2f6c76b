"""All that REST is asked for: books, missing trades and fills, and how the account stands.

What a stream wants is the sink's to say, and is asked for until it wants it no more. Each stream is
served by one task at a time. Bodies go to the sink as they come, which says what became of them.

Trades: history cannot be asked by id or time, only by how far back from the newest: so page by page
until it reaches what is missing. Trades go on meanwhile and push the pages back, hence pages
overlap. A CDN may show an older history than what was received: then it is asked again.

Fills: they are asked for from a little before the account was received last until a little after
it was received again, the oldest first. The core finds those that the stream has, by trade id.

A refusal (4xx) may be of what stands before the exchange and be over soon, or of the exchange for a
reason that passes (a clock, rights of a key). Only the exchange's own, again and again, is final.
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
FINAL_AFTER = 8  # refusals of the exchange's own: with the pauses between them, some minutes
MOST_FILLS_REFUSALS = 5  # how the account stands waits for them
# A reply that says the same after so long: nothing moves, and the book rests there.
# (The core takes it for that after 3 s, by when the bodies were received.)
QUIET_S = 3.1
CONCURRENT_TRIES = 5  # account bodies read again while updates come in between

DEPTH = "/api/v1/depth"
HISTORY = "/api/v1/trades/history"
FILLS = ("/wapi/v1/history/fills", "fillHistoryQueryAll")  # path and instruction
DEEPEST = 10_000  # offset + limit may not be more
PAGE, SMALL_PAGE = 1_000, 100
OVERLAP = 20  # rows that two neighbouring pages share, and what may be traded while one is asked
# The exchange's clocks differ from each other; and from ours, as long as its own is not known: then
# by as much as a signature may be off.
MARGIN_US = 5_000_000
NO_ROWS = b"[]"


class Fetch:
    """Fetches what is wanted of REST. `run` until cancelled."""

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
        self._account: set[str] = set()  # private streams of which it is wanted how they stand
        self._again: dict[str, asyncio.Event] = {}  # of those that are served: wanted once more

    def follow(self, streams: Mapping[str, Stream]) -> None:
        """Requests of other streams are passed over from now on."""
        self._streams = streams

    def fetch_account(self, streams: Iterable[Stream]) -> None:
        """A connection (re)subscribed to these: ask how the private ones of them stand. Books are
        asked for by the core, when it wants them.
        """
        for stream in streams:
            if stream.is_private and stream.spec.source(Recovery.SNAPSHOT) is not None:
                self._account.add(stream.name)
                self._request(stream)

    async def run(self) -> None:
        """Poll the sinks, and serve each stream that wants something."""
        self._queue = asyncio.Queue()
        for name in self._again:  # begun again after a failure: all that was under way as well
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
        """All that one stream wants, until it is not wanted once more meanwhile."""
        again = self._again[stream.name]
        again.set()
        while again.is_set():
            again.clear()
            await self._serve_once(stream, again)
        del self._again[stream.name]

    async def _serve_once(self, stream: Stream, again: asyncio.Event) -> None:
        """What was missed comes before how the account stands."""
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
            is_had = False
            try:
                is_had = await one.fetch_account()
            finally:
                if not is_had:
                    self._account.add(stream.name)  # it is wanted still


class _OneStream:
    """Serves one stream once. `again` is set when it wants something anew meanwhile."""

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
        """Ask until the book is known, or no connection is to receive it: the next one has it asked
        for anew. Where it is ahead of what was received, that may come yet; where nothing moves, a
        second reply that says the same settles it, so neither may be that of a cache.
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
                return  # it is in the journal, and applied when its turn comes
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
        """Ask until nothing is missing, or what is missing is waited for no longer."""
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
                return  # it is in the journal, and applied when its turn comes
            if reach is Reach.STALE:
                await asyncio.sleep(self._backoff.next_s())

    async def _page_back(self) -> Applied:
        """Page by page, from the newest trade back to what is missing."""
        offset = 0
        while isinstance(wanted := self._sink.wants(self._name), TradesWanted):
            limit = SMALL_PAGE if offset + SMALL_PAGE - OVERLAP > wanted.back else PAGE
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
        """Ask until all is had; where it stays refused the stream goes on without."""
        refusals = _Refusals("fills_refused", self._name, self._late_backoff)
        while isinstance(wanted := self._sink.wants(self._name), FillsWanted):
            try:
                await self._page_fills(wanted)
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
                return  # it is in the journal, and applied when its turn comes

    async def _page_fills(self, wanted: FillsWanted) -> None:
        """Page by page. What is later was received, and that says more than history does."""
        first_ms = max(0, wanted.from_us - MARGIN_US) // 1000
        last_ms = (wanted.to_us + MARGIN_US) // 1000
        params = {"from": str(first_ms), "to": str(last_ms), "sortDirection": "Asc"}
        if self._stream.symbol:
            params["symbol"] = self._stream.symbol
        for offset in range(0, DEEPEST, PAGE):
            page = params | {"limit": str(PAGE), "offset": str(offset)}
            body = await self._rest.get_signed(*FILLS, page)
            rows = row_count(body)  # before it is taken: the journal keeps it unread
            self._take(BodyKind.FILLS, body)
            if rows < PAGE:
                return
        log.error("fills_too_many", stream=self._name, fetched=DEEPEST)

    # ---- the account ---------------------------------------------------------------------------

    async def fetch_account(self) -> bool:
        """Ask how the account stands until it is had, or refused for good: the stream then goes on
        without; or until no connection is to receive it: the next one has it asked for anew. False:
        it was refused, and something is wanted anew meanwhile.
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
        """A body read while an update came in may be older than it: read again then."""
        stream = self._stream
        source = stream.spec.source(Recovery.SNAPSHOT)
        assert source is not None  # nothing else is asked for
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
        """What became of a body. Raises BadBody."""
        try:
            return self._sink.take(RestBody(self._clock_us(), self._name, kind, body))
        finally:
            self._sink.flush()

    async def _pause_or_again(self, limit_s: float) -> None:
        """For so long, or until something is wanted anew."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._again.wait()


class _Refusals:
    """What to do about refusals of one request: the first is logged, and it is sent again later and
    later. `event` is what the log calls them.
    """

    def __init__(self, event: str, stream: str, backoff: Backoff) -> None:
        self.count = 0
        self._event = event
        self._stream = stream
        self._backoff = backoff

    def take(self, refused: RestRefused) -> float:
        """Returns after how many seconds to ask again."""
        self.count += 1
        pause_s = self._backoff.next_s()
        if self.count == 1:
            log.warning(
                self._event, stream=self._stream, reason=str(refused), again_s=round(pause_s, 2)
            )
        return pause_s

    def are_final(self, refused: RestRefused) -> bool:
        """Has the exchange itself refused often enough?"""
        return refused.is_final and self.count >= FINAL_AFTER

    def exclude(self, refused: RestRefused) -> None:
        """It is not asked again."""
        log.warning(self._event, stream=self._stream, reason=str(refused), again_s=None)
