"""The whole of hearing: connections over the streams, REST for where things stand.

Which streams there are may change while it runs: by the configuration, by the exchange's list of
markets, by a refusal.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import structlog

from bridge.contract.streams import Stream, StreamType, parse_stream
from bridge.feed.asking import Asking, TakesBodies
from bridge.feed.clock import ExchangeClock
from bridge.feed.lanes import Lanes
from bridge.feed.listing import Listing
from bridge.feed.means import Hears, Means, Signer
from bridge.feed.pace import Pace
from bridge.feed.rest import Rest
from bridge.feed.silence import Silence
from bridge.feed.wanted import Wanted, other_forms
from bridge.protocol.subscriptions import BAD_SIGNATURE, UNKNOWN_STREAM
from bridge.runtime.backoff import Backoff
from bridge.runtime.config import Exchange
from bridge.runtime.keys import AccountKey
from bridge.runtime.tending import tended

log = structlog.get_logger(__name__)

ASKING_BACKOFF_S = (0.25, 10.0)
REFUSED_BACKOFF_S = (2.0, 300.0)
LISTING_BACKOFF_S = (1.0, 60.0)
TENDING_BACKOFF_S = (0.5, 60.0)
HANDSHAKES_AT_ONCE = 8
REQUESTS_AT_ONCE = 40
MOST_TOLD = 20  # names in one line of the log


class TakesAll(Hears, TakesBodies, Protocol):
    """Whoever takes in all that is heard."""


class Feed:
    """Hears the streams of one bridge. Use `run`, until cancelled."""

    def __init__(
        self,
        wanted: Wanted,
        exchange: Exchange,
        hearing: TakesAll,
        *,
        key: AccountKey | None,
        depth_levels: int,
        clock_us: Callable[[], int],
        chance: random.Random,
    ) -> None:
        self._wanted = wanted
        self._exchange = exchange
        self._key = key
        self._chance = chance
        self._rest = self._new_rest()
        self.clock = ExchangeClock(self._rest, clock_us, self._clock_learned)
        self._asking = Asking(
            hearing,
            self._rest,
            depth_levels=depth_levels,
            new_backoff=lambda: Backoff(*ASKING_BACKOFF_S, chance),
            new_late_backoff=lambda: Backoff(*REFUSED_BACKOFF_S, chance),
        )
        self._listing = Listing(
            self._rest,
            exchange.markets_every_s,
            Backoff(*LISTING_BACKOFF_S, chance),
            self._markets_changed,
        )
        self.streams: Mapping[str, Stream] = wanted.streams({})
        self._lanes = Lanes(self._new_means(hearing, clock_us), chance)
        self._lanes.hear(self.streams)
        self._silence = Silence(self._lanes, self._rest, exchange.silence_s, clock_us)
        self._troubles: Mapping[str, str] = {}
        self._recalled: Mapping[str, Stream] = {}

    async def run(self) -> None:
        """Hear until cancelled. What only helps with hearing may fail, and is begun again."""
        async with self._rest, asyncio.TaskGroup() as tasks:
            self._lanes.run(tasks)
            for name, work in (
                ("asking", self._asking.run),
                ("clock", self.clock.run),
                ("listing", self._listing.run),
                ("silence", self._silence.run),
            ):
                backoff = Backoff(*TENDING_BACKOFF_S, self._chance)
                tasks.create_task(tended(name, work, backoff), name=name)

    def want(self, wanted: Wanted) -> None:
        """Hear these from now on."""
        self._wanted = replace(wanted, refused=self._wanted.refused)
        self._markets_changed()

    def recall(self, streams: Mapping[str, Stream]) -> None:
        """An earlier bridge heard these: until a list of markets was read, they are what is known
        of the patterns that they fit.
        """
        self._recalled = streams
        if not self._listing.markets:
            self._markets_changed()

    def ask(self, name: str) -> None:
        """Something of this stream is missing that REST may know."""
        if name in self.streams:
            self._asking.want(parse_stream(name))

    def status(self) -> list[Mapping[str, Any]]:
        """Each connection, as `python -m bridge status` shows it."""
        return [lane.status() for lane in self._lanes]

    def troubles(self) -> Mapping[str, str]:
        """Streams that do not speak and should, or cannot, and why; and patterns of which nothing
        is known yet.
        """
        markets, why = self._listing.markets, self._listing.trouble
        unknown = self._wanted.unknown(markets, why)
        return {**self._silence.silent(), **self._refused(), **self._troubles, **unknown}

    def _refused(self) -> Mapping[str, str]:
        """What is refused and not heard in another form either."""
        refused = {name: reason for lane in self._lanes for name, reason in lane.refused().items()}
        return {
            name: reason
            for name, reason in refused.items()
            if all(other in refused for other in other_forms(name, self.streams))
        }

    # ---- what changes --------------------------------------------------------------------------

    def _markets_changed(self) -> None:
        markets = self._listing.markets
        streams = self._wanted.streams(markets)
        if not markets:  # what patterns stand for is not known just now: keep what is there
            streams = {**streams, **self._still_wanted({**self._recalled, **self.streams})}
        added = [name for name in streams if name not in self.streams]
        removed = [name for name in self.streams if name not in streams]
        self._tell_troubles(self._wanted.troubles(markets))
        if added or removed:
            log.info("streams_changed", streams=len(streams), added=added[:MOST_TOLD],
                     removed=removed[:MOST_TOLD])  # fmt: skip
        self.streams = streams
        self._lanes.hear(streams)
        self._silence.know(self._troubles)

    def _still_wanted(self, streams: Mapping[str, Stream]) -> Mapping[str, Stream]:
        return {
            name: stream
            for name, stream in streams.items()
            if any(pattern.fits(stream) for pattern in self._wanted.patterns)
        }

    def _tell_troubles(self, troubles: Mapping[str, str]) -> None:
        for name, reason in troubles.items():
            if self._troubles.get(name) != reason:
                log.error("stream_not_listed", stream=name, reason=reason)
        self._troubles = troubles

    def _rejected(self, name: str, code: int) -> None:
        """Signatures depend on clocks; liquidations have two names."""
        if code == BAD_SIGNATURE:
            self.clock.doubt()
        elif code == UNKNOWN_STREAM and parse_stream(name).type is StreamType.LIQUIDATION:
            self._wanted = replace(self._wanted, refused=self._wanted.refused | {name})
            self._markets_changed()

    def _clock_learned(self) -> None:
        """What was refused for its signature is signed anew, if the clock was at fault."""
        self._lanes.sign_again(self.clock.offset_us or 0)

    # ---- parts ---------------------------------------------------------------------------------

    def _new_means(self, hearing: Hears, clock_us: Callable[[], int]) -> Means:
        exchange, key = self._exchange, self._key
        return Means(
            settings=exchange,
            hearing=hearing,
            clock_us=clock_us,
            exchange_us=self.clock.now_us,
            signer=Signer(key.public_key_b64, key.sign) if key else None,
            handshakes=Pace(exchange.handshakes_per_s, HANDSHAKES_AT_ONCE),
            requests=Pace(exchange.requests_per_s, REQUESTS_AT_ONCE),
            on_answered=self._answered,
            on_rejected=self._rejected,
        )

    def _answered(self, streams: Sequence[Stream]) -> None:
        self._asking.want_account(streams)

    def _new_rest(self) -> Rest:
        return Rest(
            self._exchange.rest_url,
            timeout_s=self._exchange.rest_timeout_s,
            window_ms=self._exchange.signature_window_ms,
            clock_ms=lambda: self.clock.now_us() // 1000,
            chance=self._chance,
            public_key=self._key.public_key_b64 if self._key else "",
            sign=self._key.sign if self._key else None,
        )
