"""Reads Redis, once for all clients, and publishes updates to the hub.

Each page has its own interval, which is longer without clients. An unavailable Redis is reported to
every client at once and retried; so is a refusal of access rights. Writes nothing to Redis.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from bridge.console import now
from bridge.console.gaps import KEPT, GapsPage
from bridge.console.groups import MOST_DEAD_LETTERS, ConsumersPage, with_dead_letters
from bridge.console.hub import HEAD, Hub, Message
from bridge.console.kit import GroupLag, Keys, StoredDeadLetter, group_lags
from bridge.console.latency import LatencyPage
from bridge.console.levers import Levers
from bridge.console.market import Streams, markets
from bridge.console.market_reader import MarketReader
from bridge.console.now import NowPage
from bridge.console.past import PastReader
from bridge.console.privacy import public
from bridge.contract import keys
from bridge.contract.identity import EntryId
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_trouble import reason
from bridge.runtime.refusals import is_of_a_key
from bridge.runtime.replica import FreshReads
from bridge.view.facts import Sample
from bridge.view.history import History
from bridge.view.reader import UNAVAILABLE, failure_sentence, read_sample
from bridge.view.view_model import ViewModel, draw

POLL_S = 1.0
GROUPS_S = 2.0
MARKET_S = 0.25
IDLE_FACTOR = 3  # slower without clients
FIRST_POLL_S = 1.5  # wait for the first poll: a page tries again after two seconds
_RETRY_S = 1.0
_MARKET = "market:"

PAGES = ("now", "market", "consumers", "gaps", "latency")


class NoSuchTopic(Exception):
    """No page or market has this name; the message says which."""


class NotYetKnown(Exception):
    """Redis has not been read yet; the message says so."""


@dataclass(frozen=True, slots=True)
class Watched:
    """The Redis to show, and what to show of it. `where` names it, masked; `replica`, if any, is
    read while it is fresh.
    """

    client: Redis
    space: KeySpace
    where: str
    can_change: bool = False
    shows_private: bool = False
    replica: Redis | None = None


class Watcher:
    """All pages of one Redis, updated while `run` runs."""

    def __init__(self, watched: Watched, hub: Hub, levers: Levers) -> None:
        self._watched = watched
        self._hub = hub
        self._levers = levers
        self._reads = FreshReads(watched.client, watched.replica)
        self._keys = Keys(watched.space)
        self._history = History()
        self._head = now.unavailable("Redis does not answer: not polled yet")
        self._sample = Sample(now_us=0)
        self._has_sample = asyncio.Event()
        self._view_model: ViewModel | None = None
        self._now = NowPage(watched.where)
        self._gaps = GapsPage(watched.shows_private)
        self._groups = ConsumersPage(watched.can_change, watched.shows_private)
        self._latency = LatencyPage()
        self._markets: dict[str, MarketReader] = {}  # those that are read up to now
        self._retry_at: dict[str, float] = {}  # market → when it is read again, by monotonic()
        self._past = PastReader(watched.client, self._keys)

    async def run(self) -> NoReturn:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat("now", POLL_S, self._poll), name="poll")
            tasks.create_task(self._repeat("gaps", POLL_S, self._read_gaps), name="gaps")
            tasks.create_task(self._repeat("consumers", GROUPS_S, self._read_groups), name="groups")
            tasks.create_task(self._repeat("market", MARKET_S, self._read_markets), name="markets")
        raise AssertionError("the tasks have no end")

    async def topic(self, page: str, symbol: str = "") -> str:
        """The topic of a page. Raises NoSuchTopic, NotYetKnown."""
        if page not in PAGES:
            raise NoSuchTopic(f"there is no page {page!r}: there are {', '.join(PAGES)}")
        if page != "market":
            return page
        known = await self._known_markets()
        if not known:
            raise NoSuchTopic("no market has anything in Redis yet")
        if not symbol:
            symbol = max(known, key=self._rate_of)
        if symbol not in known:
            raise NoSuchTopic(f"no stream of market {symbol!r} is in Redis")
        return _MARKET + symbol

    def first(self, topic: str) -> list[Message]:
        """The first messages for a new client of the topic."""
        return [_message(HEAD, self._head), _message("whole", self._whole(topic))]

    async def past(self, symbol: str, at_ms: int) -> dict[str, Any]:
        """A market at that moment. Raises NoSuchTopic, NotYetKnown, Busy, UNAVAILABLE."""
        streams = (await self._known_markets()).get(symbol)
        if streams is None:
            raise NoSuchTopic(f"no stream of market {symbol!r} is in Redis")
        return await self._past.read(streams, at_ms)

    async def _known_markets(self) -> Mapping[str, Streams]:
        """The streams of each market. Waits for the first poll after the start."""
        try:
            async with asyncio.timeout(FIRST_POLL_S):
                await self._has_sample.wait()
        except TimeoutError:
            raise NotYetKnown("which markets there are is not known yet: try again") from None
        return markets(self._sample.streams)

    async def dead_letters(
        self, group: str, stream: str, ids: Sequence[str]
    ) -> list[StoredDeadLetter]:
        """Those of these dead letters that exist and may be shown. Raises UNAVAILABLE."""
        if not self._groups.shows(group, stream):
            return []
        key = self._keys.dead(stream, group)
        pipeline = self._watched.client.pipeline(transaction=False)
        for one in ids:
            pipeline.xrange(key, one, one)
        return [
            StoredDeadLetter(group, stream, entry_id, fields)
            for entries in await pipeline.execute()
            for entry_id, fields in entries
        ]

    # Reading, page by page ------------------------------------------------------------------------

    async def _repeat(self, page: str, every_s: float, read: Callable[[], Awaitable[None]]) -> None:
        """Read periodically; an error is published to the clients of that page."""
        while True:
            pause_s = every_s if len(self._hub) else every_s * IDLE_FACTOR
            try:
                await read()
            except UNAVAILABLE as error:
                self._reads.rest()  # if it was a replica, the primary is read next
                self._publish_trouble(page, error)
                pause_s = max(every_s, _RETRY_S)
            await asyncio.sleep(pause_s)

    def _publish_trouble(self, page: str, error: BaseException) -> None:
        if page == "now":
            self._publish_head(now.unavailable(failure_sentence(error)))
        for topic in self._hub.topics:
            if topic.partition(":")[0] == page:
                self._hub.publish(topic, _message("trouble", {"text": reason(error)}))

    async def _poll(self) -> None:
        sample, _ = await self._reads.read_in_part(self._take_sample)
        self._sample = sample if self._watched.shows_private else public(sample)
        self._has_sample.set()
        self._history.add(self._sample)
        self._view_model = draw(self._history)
        self._publish_head(now.header(self._view_model))
        self._hub.publish("now", _message("more", self._now.take(self._view_model)))
        if (column := self._latency.take(self._sample)) is not None:
            self._hub.publish("latency", _message("more", column))

    async def _take_sample(self, client: Redis, unavailable: dict[int, str]) -> Sample:
        sample = await read_sample(client, self._watched.space, self._sample.streams)
        unavailable |= sample.unavailable
        return sample

    def _publish_head(self, head: dict[str, Any]) -> None:
        self._head = head | {"levers": self._levers.all, "state": self._levers.state}
        self._hub.publish_all(_message(HEAD, self._head))

    async def _read_gaps(self) -> None:
        key = self._watched.space.key(keys.GAPS)
        client = await self._reads.client()
        newest: Any
        if self._gaps.last_id == "-":
            newest = await client.xrevrange(key, count=KEPT)
            new = self._gaps.take(reversed(newest))
        else:
            after = f"({self._gaps.last_id}"
            newest = await client.xrange(key, after, count=KEPT)
            new = self._gaps.take(newest)
        if not new:
            return
        self._hub.publish("gaps", _message("more", {"records": new}))
        for symbol, reader in self._markets.items():
            gaps = self._gaps.of(*reader.stream_names)
            self._hub.publish(_MARKET + symbol, _message("more", {"gaps": gaps}))

    async def _read_groups(self) -> None:
        found, unavailable = await self._reads.read_in_part(
            lambda client, silent: group_lags(client, self._keys, unavailable=silent)
        )
        dead_letters = await self._newest_dead_letters(await self._reads.client(), found)
        page = self._groups.take(self._sample.now_us, found, dead_letters, unavailable)
        self._hub.publish("consumers", _message("more", page))

    async def _newest_dead_letters(
        self, client: Redis, groups: Iterable[GroupLag]
    ) -> list[StoredDeadLetter]:
        streams_of = with_dead_letters(groups, shows_private=self._watched.shows_private)
        places = [(group, stream) for group, streams in streams_of.items() for stream in streams]
        pipeline = client.pipeline(transaction=False)
        for group, stream in places:
            pipeline.xrevrange(self._keys.dead(stream, group), count=MOST_DEAD_LETTERS)
        found = [
            StoredDeadLetter(group, stream, entry_id, fields)
            for (group, stream), entries in zip(places, await pipeline.execute(), strict=True)
            for entry_id, fields in entries
        ]
        found.sort(key=lambda one: EntryId.parse(one.letter_id), reverse=True)
        return found[:MOST_DEAD_LETTERS]

    async def _read_markets(self) -> None:
        """Read the markets that have clients; drop the rest."""
        watched = {t.removeprefix(_MARKET) for t in self._hub.topics if t.startswith(_MARKET)}
        self._markets = {s: reader for s, reader in self._markets.items() if s in watched}
        self._retry_at = {s: at_s for s, at_s in self._retry_at.items() if s in watched}
        known = markets(self._sample.streams)
        client = await self._reads.client()
        for symbol in watched & known.keys():
            if time.monotonic() < self._retry_at.get(symbol, 0.0):
                continue
            try:
                await self._read_market(symbol, known[symbol], client)
            except ResponseError as error:
                if not is_of_a_key(error):
                    raise
                # A key that another program has written: the other markets are still read.
                self._retry_at[symbol] = time.monotonic() + _RETRY_S
                self._hub.publish(_MARKET + symbol, _message("trouble", {"text": reason(error)}))

    async def _read_market(self, symbol: str, streams: Streams, client: Redis) -> None:
        reader = self._markets.get(symbol)
        if reader is None:
            reader = MarketReader(client, self._keys, streams)
            await reader.begin()
            self._markets[symbol] = reader  # not one that failed: its tape would begin twice
            self._hub.publish(_MARKET + symbol, _message("whole", self._whole(_MARKET + symbol)))
            return
        reader.use(client)
        if (new := await reader.read()) is not None:
            self._hub.publish(_MARKET + symbol, _message("more", new))

    # The first messages of a client ---------------------------------------------------------------

    def _whole(self, topic: str) -> Mapping[str, Any]:
        match topic:
            case "now":
                return self._now.whole()
            case "gaps":
                return self._gaps.whole()
            case "consumers":
                return self._groups.whole()
            case "latency":
                return self._latency.whole()
        symbol = topic.removeprefix(_MARKET)
        about = {"symbol": symbol, "symbols": list(markets(self._sample.streams))}
        reader = self._markets.get(symbol)
        if reader is None:
            return about | {"is_loading": True}
        gaps = self._gaps.of(*reader.stream_names)
        return about | {"is_loading": False, "gaps": gaps} | reader.whole()

    def _rate_of(self, symbol: str) -> float:
        rates = self._history.rates()
        found = markets(self._sample.streams)[symbol]
        # A market with both a book and trades is preferred to a busier one without.
        whole = 1e9 if found.depth and found.trade else 0.0
        return whole + rates.get(found.trade, 0.0) + rates.get(found.depth, 0.0)


def _message(event: str, value: Mapping[str, Any]) -> Message:
    return Message(event, json.dumps(value, separators=(",", ":")))
