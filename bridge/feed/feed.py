"""The feed: receives all streams of one bridge, over sessions and REST.

The streams may change while it runs: by the configuration, the exchange's list of markets, or a
refusal.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import structlog

from bridge.contract.streams import Stream, StreamType, parse_stream
from bridge.core.counters import EndCause, RestCounters
from bridge.feed.clock import ExchangeClock
from bridge.feed.connection import Connector
from bridge.feed.fetch import Fetch
from bridge.feed.handover import Handover
from bridge.feed.instruments import Instruments
from bridge.feed.limits import RateLimiter
from bridge.feed.plan import SubscriptionPlan, other_forms
from bridge.feed.pool import SessionPool
from bridge.feed.rest import Rest
from bridge.feed.sink import Sinks
from bridge.feed.staleness import StaleStreamMonitor
from bridge.protocol.conversation import Granted, Rejection
from bridge.protocol.signing import Signer
from bridge.protocol.subscriptions import BAD_SIGNATURE, UNKNOWN_STREAM
from bridge.runtime.backoff import Backoff
from bridge.runtime.config import Exchange
from bridge.runtime.keys import AccountKey
from bridge.runtime.share import others
from bridge.runtime.supervised import supervised

log = structlog.get_logger(__name__)

MARKETS_BACKOFF_S = (1.0, 60.0)
SUPERVISED_BACKOFF_S = (0.5, 60.0)
HANDSHAKES_AT_ONCE = 8
REQUESTS_AT_ONCE = 40
MAX_NAMED = 20  # names in one line of the log


class Feed:
    """Receives the streams of one bridge. Use `run`, until cancelled."""

    def __init__(
        self,
        plan: SubscriptionPlan,
        exchange: Exchange,
        sinks: Sinks,
        *,
        key: AccountKey | None,
        depth_levels: int,
        clock_us: Callable[[], int],
        chance: random.Random,
    ) -> None:
        """`clock_us`: our wall clock. Raises ConfigError if the environment's proxy is invalid."""
        signer = Signer(key.public_key_b64, key.sign) if key else None
        self._plan = plan
        self._chance = chance
        self.clock = ExchangeClock(clock_us)
        self._rest = Rest(
            exchange.rest_url,
            timeout_s=exchange.rest_timeout_s,
            window_ms=exchange.signature_window_ms,
            clock_ms=self.clock.now_ms,
            chance=chance,
            signer=signer,
        )
        self._fetch = Fetch(
            sinks, self._rest, depth_levels=depth_levels, clock_us=clock_us, chance=chance
        )
        self._instruments = Instruments(
            exchange.markets_every_s, Backoff(*MARKETS_BACKOFF_S, chance)
        )
        self._events: asyncio.Queue[Granted | Rejection] = asyncio.Queue()
        self._connector = connector = Connector(
            settings=exchange,
            sinks=sinks,
            clock_us=clock_us,
            exchange_clock=self.clock,
            signer=signer,
            handshakes=RateLimiter(exchange.handshakes_per_s, HANDSHAKES_AT_ONCE),
            requests=RateLimiter(exchange.requests_per_s, REQUESTS_AT_ONCE),
            events=self._events,
        )
        self._pool = SessionPool(connector, chance)
        self._staleness = StaleStreamMonitor(self._pool, self._rest, exchange.silence_s)
        self._troubles: Mapping[str, str] = {}
        self._recalled: Mapping[str, Stream] = {}
        self._handover = Handover()
        # stream that another member of the fleet is to receive → that member
        self.elsewhere: Mapping[str, str] = others(plan.share, plan.whole({}))
        self.streams: Mapping[str, Stream] = plan.streams({})
        self._receive(self.streams)

    async def run(self) -> None:
        """Receive until cancelled. A helper task that fails is restarted."""
        async with self._rest, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pool.run(), name="sessions")
            for name, work in (
                ("fetch", self._fetch.run),
                ("clock", partial(self.clock.run, self._rest)),
                ("clock-learned", self._follow_clock),
                ("instruments", partial(self._instruments.run, self._rest)),
                ("instruments-changed", self._follow_instruments),
                ("connection-events", self._follow_connections),
                ("staleness", self._staleness.run),
            ):
                backoff = Backoff(*SUPERVISED_BACKOFF_S, self._chance)
                tasks.create_task(supervised(name, work, backoff), name=name)

    def want(self, plan: SubscriptionPlan, keep_from_us: int | None = None) -> None:
        """Change to the streams of this plan. Streams of another member of the fleet are kept from
        `keep_from_us` on (by a steady clock) until they are handed over; None: dropped at once.
        """
        self._plan = replace(plan, refused=self._plan.refused)
        self._keep({} if keep_from_us is None else self.streams, keep_from_us or 0)

    def keep(self, names: Iterable[str], now_us: int) -> None:
        """Keep streams that an earlier process of this bridge received and that are another
        member's now, until they are handed over.
        """
        whole = self._whole()
        before = {name: whole[name] for name in names if name in whole}
        self._keep({**before, **self.streams}, now_us)

    def handed_over(self) -> Mapping[str, str]:
        """Each kept stream → the member that is to receive it."""
        return others(self._plan.share, self._handover.streams)

    def hand_over(self, taken: Iterable[str], limit_us: int | None, now_us: int) -> None:
        """Drop streams that were taken over, and those that waited for it for too long."""
        taken = list(taken)
        owners = self.handed_over()
        late = [name for name in self._handover.overdue(limit_us, now_us) if name not in taken]
        if taken:
            log.info("streams_handed_over", streams=taken[:MAX_NAMED], count=len(taken))
        if late:
            log.warning("streams_not_taken_over", streams=late[:MAX_NAMED], count=len(late),
                        members=sorted({owners[name] for name in late}))  # fmt: skip
        if taken or late:
            self._handover.end([*taken, *late])
            self._apply_plan()

    def _keep(self, received: Mapping[str, Stream], now_us: int) -> None:
        whole = self._whole()
        kept = {
            name: stream
            for name, stream in received.items()
            if name in whole and not self._plan.is_mine(stream)
        }
        self._handover.keep(kept, now_us)
        if owners := self.handed_over():
            log.info("streams_kept", streams=list(owners)[:MAX_NAMED], count=len(owners),
                     members=sorted(set(owners.values())))  # fmt: skip
        self._apply_plan()

    def recall(self, streams: Mapping[str, Stream]) -> None:
        """Until the list of markets is read, expand patterns by these streams, which an earlier
        bridge received.
        """
        self._recalled = streams
        if not self._instruments.markets:
            self._apply_plan()

    def listed(self) -> Mapping[str, Stream]:
        """Streams that should have messages, by the exchange's list; none before it is read."""
        if not self._instruments.markets:
            return {}
        return {name: stream for name, stream in self.streams.items() if name not in self._troubles}

    def status(self) -> list[Mapping[str, Any]]:
        """The status of each session."""
        return [session.status() for session in self._pool]

    @property
    def rest_counters(self) -> RestCounters:
        """Counts of the REST requests."""
        return self._rest.counters

    @property
    def ends(self) -> Mapping[EndCause, int]:
        """Ended connections by cause."""
        return {cause: self._connector.ends[cause] for cause in EndCause}

    def troubles(self) -> Mapping[str, str]:
        """Streams without messages, which should have some or cannot, and patterns that are not
        expanded yet; each with the reason.
        """
        markets, why = self._instruments.markets, self._instruments.trouble
        unknown = self._plan.unknown(markets, why)
        return {**self._staleness.stale(), **self._refused(), **self._troubles, **unknown}

    def _refused(self) -> Mapping[str, str]:
        """Streams that are refused, and not received in another form."""
        refused = {name: why for session in self._pool for name, why in session.refused().items()}
        return {
            name: reason
            for name, reason in refused.items()
            if all(other in refused for other in other_forms(name, self.streams))
        }

    # ---- changes -------------------------------------------------------------------------------

    async def _follow_instruments(self) -> None:
        while True:
            await self._instruments.changed.wait()
            self._instruments.changed.clear()
            self._apply_plan()

    async def _follow_clock(self) -> None:
        """After each sample of the clock: sign requests again that were refused for it."""
        while True:
            await self.clock.learned.wait()
            self.clock.learned.clear()
            self._pool.sign_again(self.clock.offset_us or 0)

    async def _follow_connections(self) -> None:
        while True:
            match await self._events.get():
                case Granted(streams):
                    self._fetch.fetch_account(streams)
                case Rejection(streams, code):
                    for name in streams:
                        self._rejected(name, code)

    def _rejected(self, name: str, code: int) -> None:
        """Handle a rejection: the clock may be wrong, or liquidations need the other name."""
        if code == BAD_SIGNATURE:
            self.clock.suspect()
        elif code == UNKNOWN_STREAM and parse_stream(name).type is StreamType.LIQUIDATION:
            self._plan = replace(self._plan, refused=self._plan.refused | {name})
            self._apply_plan()

    def _apply_plan(self) -> None:
        markets = self._instruments.markets
        whole = self._whole()
        self.elsewhere = others(self._plan.share, whole)
        self._handover.end([name for name in self._handover.streams if name not in whole])
        streams = {
            name: stream
            for name, stream in whole.items()
            if self._plan.is_mine(stream) or name in self._handover.streams
        }
        added = [name for name in streams if name not in self.streams]
        removed = [name for name in self.streams if name not in streams]
        self._log_troubles(self._plan.troubles(markets))
        if added or removed:
            log.info("streams_changed", streams=len(streams), added=added[:MAX_NAMED],
                     removed=removed[:MAX_NAMED])  # fmt: skip
        self._receive(streams)
        self._staleness.exclude(self._troubles)

    def _whole(self) -> dict[str, Stream]:
        """All streams that the fleet is to receive, as far as known."""
        markets = self._instruments.markets
        whole = self._plan.whole(markets)
        if not markets:  # patterns cannot be expanded now: keep the present streams
            whole |= self._fitting({**self._recalled, **self.streams})
        return whole

    def _receive(self, streams: Mapping[str, Stream]) -> None:
        self.streams = streams
        self._fetch.follow(streams)
        self._pool.receive(streams)

    def _fitting(self, streams: Mapping[str, Stream]) -> Mapping[str, Stream]:
        return {
            name: stream
            for name, stream in streams.items()
            if any(pattern.fits(stream) for pattern in self._plan.patterns)
        }

    def _log_troubles(self, troubles: Mapping[str, str]) -> None:
        for name, reason in troubles.items():
            if self._troubles.get(name) != reason:
                log.error("stream_not_listed", stream=name, reason=reason)
        self._troubles = troubles
