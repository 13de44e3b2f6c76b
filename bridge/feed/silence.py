"""Finds streams that should speak and do not, and has their connection replaced.

Each subscription is judged by what that kind of stream does. Before a verdict it is looked into:
where only the exchange can tell whether there was something to say, it is asked twice over REST.
What has no news there is quiet, not silent, and is looked at again after twice the time.

To subscribe once more on the same connection is harmless and often the cure. But it hides what was
missed until then, unless numbers tell or that is marked first: only then it comes before a verdict.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from bridge.contract.streams import Identity, Stream, StreamType
from bridge.feed.connection import Connection
from bridge.feed.lane import Lane
from bridge.feed.lanes import Lanes
from bridge.feed.pace import Pace
from bridge.feed.rest import Rest, RestError, RestRefused
from bridge.protocol.rest import BadBody, best_prices, depth_body
from bridge.protocol.rhythm import Patience, Rhythm, patience
from bridge.protocol.subscriptions import State, Subscription

log = structlog.get_logger(__name__)

LOOKS = 30  # in the shortest patience
LATE_SHARE = 30  # of the shortest patience: REST may be so much quicker than the socket
LONGEST_FACTOR = 64  # how much more patience a quiet stream gets at most
RENEW_FIRST_US, RENEW_LAST_US = 60_000_000, 3_600_000_000
# History is asked for within a budget that repairs need more; a glance at it is a part of that.
GLANCES_A_SECOND, GLANCES_AT_ONCE = 0.1, 3


@dataclass(slots=True)
class _Watched:
    """What is known of a stream on a lane, over all its connections."""

    connection: Connection
    heard_us: int = 0
    rhythm: Rhythm = field(default_factory=Rhythm)
    looked_us: int = 0
    factor: int = 1
    is_looking: bool = False
    seen: tuple[int, object] | None = None  # when it had last spoken, and what REST said then
    silent: str = ""  # why, while it is
    renewals: int = 0
    renew_at_us: int = 0


@dataclass(frozen=True, slots=True)
class _Verdict:
    """`reason` is empty where the stream is only quiet; `is_final`: no connection is of help."""

    reason: str = ""
    is_final: bool = False


class Silence:
    """Watches all subscriptions of all lanes; `run` until cancelled."""

    def __init__(
        self, lanes: Lanes, rest: Rest, silence_s: float | None, clock_us: Callable[[], int]
    ) -> None:
        self._lanes = lanes
        self._rest = rest
        self._silence_s = silence_s
        self._clock_us = clock_us
        self._unheard: Mapping[str, str] = {}
        self._watched: dict[tuple[str, str], _Watched] = {}
        self._history = Pace(GLANCES_A_SECOND, GLANCES_AT_ONCE)

    def know(self, unheard: Mapping[str, str]) -> None:
        """These cannot speak, whatever is done."""
        self._unheard = unheard

    def silent(self) -> Mapping[str, str]:
        """Streams that are silent on every connection that should hear them, and why."""
        here: dict[str, list[str]] = {}
        for lane in self._lanes:
            for name in lane.streams:
                watched = self._watched.get((lane.name, name))
                here.setdefault(name, []).append(watched.silent if watched else "")
        return {name: reasons[0] for name, reasons in here.items() if all(reasons)}

    async def run(self) -> None:
        """Look again and again."""
        if self._silence_s is None:
            return
        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(self._silence_s / LOOKS)
                for lane in self._lanes:
                    if (connection := lane.connection) is not None and connection.answered_us:
                        self._look_at(lane, connection, tasks)

    def _look_at(self, lane: Lane, connection: Connection, tasks: asyncio.TaskGroup) -> None:
        now_us = self._clock_us()
        for name, subscription in connection.subscriptions.by_name.items():
            if name in self._unheard:
                continue
            watched = self._watched.get((lane.name, name))
            if watched is None:
                watched = self._watched[lane.name, name] = _Watched(connection)
            if subscription.state is State.REJECTED:
                self._ask_refused(connection, name, watched)
                continue
            if not watched.silent:
                watched.renewals = watched.renew_at_us = 0
            limit = self._limit(subscription.stream, watched)
            if limit is None or self._has_spoken(lane, connection, subscription, watched):
                continue
            since_us = max(
                subscription.heard_us, subscription.asked_us, connection.answered_us,
                watched.looked_us,
            )  # fmt: skip
            if now_us - since_us >= limit.look_us * watched.factor and not watched.is_looking:
                watched.is_looking = True
                tasks.create_task(
                    self._look_into(lane, connection, subscription, watched, limit),
                    name=f"silence-{name}",
                )

    def _ask_refused(self, connection: Connection, name: str, watched: _Watched) -> None:
        """What was refused once need not be for ever: ask again, later and later."""
        assert self._silence_s is not None
        if watched.renew_at_us and self._clock_us() < watched.renew_at_us:
            return
        if watched.renew_at_us:
            connection.ask_again([name])
        self._put_off(watched, int(self._silence_s * 1e6))

    def _put_off(self, watched: _Watched, first_us: int) -> None:
        pause_us = min(first_us * 2**watched.renewals, RENEW_LAST_US)
        watched.renewals = min(watched.renewals + 1, 10)
        watched.renew_at_us = self._clock_us() + pause_us

    def _limit(self, stream: Stream, watched: _Watched) -> Patience | None:
        assert self._silence_s is not None
        return patience(stream, watched.rhythm.longest_us, int(self._silence_s * 1e6))

    def _has_spoken(
        self, lane: Lane, connection: Connection, subscription: Subscription, watched: _Watched
    ) -> bool:
        """Since the last look? Learns the stream's own rhythm by the way, but not from a silence
        that we may have ended.
        """
        heard_us, before_us = subscription.heard_us, watched.heard_us
        if watched.connection is not connection:
            watched.connection, watched.seen, before_us = connection, None, 0
        watched.heard_us = heard_us
        if not heard_us or heard_us == before_us:
            return False
        if before_us and not watched.silent:
            watched.rhythm.spoke(before_us, heard_us)
        watched.factor = 1
        if watched.silent:
            watched.silent = ""
            connection.have_answer()
            log.info("stream_heard_again", stream=subscription.stream.name, connection=lane.name)
        return True

    async def _look_into(
        self,
        lane: Lane,
        connection: Connection,
        subscription: Subscription,
        watched: _Watched,
        limit: Patience,
    ) -> None:
        heard_us = subscription.heard_us
        verdict: _Verdict | None
        try:
            verdict = await self._probe(lane, connection, subscription, watched, limit)
        except RestRefused as error:
            reason = f"the exchange does not know this market: {error}"
            verdict = _Verdict(reason, is_final=True) if error.is_final else None
        except (RestError, BadBody):
            verdict = None
        finally:
            watched.is_looking = False
        watched.looked_us = self._clock_us()
        if subscription.heard_us != heard_us or lane.connection is not connection:
            return
        if verdict is None:
            return  # nothing could be learned: look again after the same time
        if verdict.reason:
            self._is_silent(lane, subscription, watched, verdict)
        else:
            watched.factor = min(2 * watched.factor, LONGEST_FACTOR)

    async def _probe(
        self,
        lane: Lane,
        connection: Connection,
        subscription: Subscription,
        watched: _Watched,
        limit: Patience,
    ) -> _Verdict:
        assert self._silence_s is not None
        stream, heard_us = subscription.stream, subscription.heard_us
        silent_us = self._clock_us() - max(heard_us, subscription.asked_us)
        is_sure = limit.sure_us is not None and silent_us >= limit.sure_us
        before = None if is_sure else await self._glance(stream)
        if is_sure:
            connection.doubt(stream.name)
        if is_sure or stream.identity is Identity.NUMBERED:
            watched.rhythm.asked_again(self._clock_us(), limit.probe_us)
            connection.ask_again([stream.name])
        await asyncio.sleep(limit.probe_us / 1e6)
        after = None if is_sure else await self._glance(stream)
        await asyncio.sleep(self._silence_s / LATE_SHARE)
        silent_s = silent_us / 1e6
        if is_sure:
            return _Verdict(f"silent for {silent_s:.0f} s, and it should tick")
        for twin in self._lanes.twins(lane):
            other = (
                twin.connection.subscriptions.by_name.get(stream.name) if twin.connection else None
            )
            if other is not None and other.heard_us > heard_us + limit.look_us // 2:
                return _Verdict(f"silent for {silent_s:.0f} s, and heard over {twin.name}")
        seen, watched.seen = watched.seen, (heard_us, after)
        if before != after or (seen and seen[0] == heard_us and seen[1] != before):
            return _Verdict(f"silent for {silent_s:.0f} s, and REST has news of it")
        return _Verdict()

    async def _glance(self, stream: Stream) -> object:
        """What REST says now of that which the stream tells the changes of."""
        if stream.type in (StreamType.TRADE, StreamType.KLINE):
            await self._history.turn()
            params = {"symbol": stream.symbol, "limit": "1"}
            return await self._rest.get("/api/v1/trades", params, fresh=True)
        params = {"symbol": stream.symbol, "limit": "5"}
        body = await self._rest.get("/api/v1/depth", params, fresh=True)
        if stream.type is StreamType.BOOK_TICKER:
            return best_prices(body)
        return depth_body(body).last_update_id

    def _is_silent(
        self, lane: Lane, subscription: Subscription, watched: _Watched, verdict: _Verdict
    ) -> None:
        subscription.state, subscription.reason = State.SILENT, verdict.reason
        name = subscription.stream.name
        if not watched.silent:
            log.warning("stream_silent", stream=name, connection=lane.name, reason=verdict.reason)
        watched.silent = verdict.reason
        watched.connection.doubt(name)
        watched.connection.ask_again([name])
        if not verdict.is_final and self._clock_us() >= watched.renew_at_us:
            self._put_off(watched, RENEW_FIRST_US)
            lane.renew(f"{name} is silent")
