"""Finds stale streams, which should have messages and do not, and has their connection replaced.

Each subscription is judged by its type of stream. Before a verdict it is probed: if its silence
alone proves nothing, REST is polled twice. A stream without a change there is quiet, not stale, and
is probed again after twice the time.

To subscribe again on the same connection is harmless and often helps. But it hides what was missed
until then, unless numbers show it or the stream is suspected first: so only in these cases it is
done before a verdict.

All waits are by the event loop's clock.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from bridge.contract.stream_types import Identity, Probe
from bridge.contract.streams import Stream
from bridge.feed.connection import Connection
from bridge.feed.limits import RateLimiter
from bridge.feed.pool import SessionPool
from bridge.feed.rest import Rest, RestError, RestRefused
from bridge.feed.session import Session
from bridge.protocol.periods import QuietTime, StaleLimits, stale_limits
from bridge.protocol.rest import BadBody, best_prices, depth_body
from bridge.protocol.subscriptions import State, Subscription

log = structlog.get_logger(__name__)

CHECKS_PER_LIMIT = 30  # checks in the shortest limit
LATE_SHARE = 30  # REST may be ahead of the socket by the shortest limit divided by this
LONGEST_FACTOR = 64  # the greatest factor of a quiet stream's limit
REPLACE_FIRST_S, REPLACE_LAST_S = 60.0, 3_600.0
# Probes of history have only a part of the budget, which recovery needs more.
PROBES_A_SECOND, PROBES_AT_ONCE = 0.1, 3


@dataclass(slots=True)
class _Watched:
    """The state of a stream in a session, over all its connections."""

    connection: Connection
    received_s: float | None = None  # its newest message at the last check
    quiet: QuietTime = field(default_factory=QuietTime)
    probed_s: float = float("-inf")
    factor: int = 1
    is_probing: bool = False
    seen: tuple[float | None, object] | None = None  # its newest message, and REST's value then
    stale: str = ""  # the reason, while it is stale
    attempts: int = 0  # to recover it, since it became stale or refused
    next_attempt_s: float | None = None

    def put_off(self, now_s: float, first_s: float) -> None:
        """Delay the next attempt to recover it, with growing pauses."""
        self.next_attempt_s = now_s + min(first_s * 2**self.attempts, REPLACE_LAST_S)
        self.attempts = min(self.attempts + 1, 10)

    def is_due(self, now_s: float) -> bool:
        """Whether another attempt may be made."""
        return self.next_attempt_s is None or now_s >= self.next_attempt_s

    def is_well(self) -> None:
        """Reset the attempts."""
        self.attempts, self.next_attempt_s = 0, None

    def check(self, connection: Connection, received_s: float | None) -> bool:
        """Whether a message was received since the last check. Also learns the stream's own quiet
        times, except from one that our attempts may have ended.
        """
        before_s = self.received_s
        if self.connection is not connection:
            self.connection, self.seen, before_s = connection, None, None
        self.received_s = received_s
        if received_s is None or received_s == before_s:
            return False
        if before_s is not None and not self.stale:
            self.quiet.received(before_s, received_s)
        self.factor = 1
        return True


@dataclass(frozen=True, slots=True)
class _Verdict:
    """The result of a probe. `reason`: empty if the stream is only quiet; `is_final`: another
    connection does not help.
    """

    reason: str = ""
    is_final: bool = False


class StaleStreamMonitor:
    """Monitors all subscriptions of all sessions; `run` until cancelled. `stale_s`: the shortest
    limit; None: nothing is monitored.
    """

    def __init__(self, pool: SessionPool, rest: Rest, stale_s: float | None) -> None:
        self._pool = pool
        self._rest = rest
        self._is_on = stale_s is not None
        self._stale_s = stale_s or 0.0
        self._excluded: Mapping[str, str] = {}
        self._watched: dict[tuple[str, str], _Watched] = {}
        self._history = RateLimiter(PROBES_A_SECOND, PROBES_AT_ONCE)

    def exclude(self, streams: Mapping[str, str]) -> None:
        """Do not monitor these streams: they cannot have messages."""
        self._excluded = streams

    def stale(self) -> Mapping[str, str]:
        """Streams that are stale in every session that has them → the reason."""
        reasons: dict[str, list[str]] = {}
        for session in self._pool:
            for name in session.streams:
                watched = self._watched.get((session.name, name))
                reasons.setdefault(name, []).append(watched.stale if watched else "")
        return {name: each[0] for name, each in reasons.items() if all(each)}

    async def run(self) -> None:
        """Check repeatedly, until cancelled."""
        if not self._is_on:
            return
        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(self._stale_s / CHECKS_PER_LIMIT)
                self._forget_left()
                for session in self._pool:
                    connection = session.connection
                    if connection is not None and connection.answered_s is not None:
                        self._check(session, connection, connection.answered_s, tasks)

    def _forget_left(self) -> None:
        """Forget streams that are no longer in a session."""
        here = {(session.name, name) for session in self._pool for name in session.streams}
        for key in self._watched.keys() - here:
            del self._watched[key]

    def _check(
        self,
        session: Session,
        connection: Connection,
        answered_s: float,
        tasks: asyncio.TaskGroup,
    ) -> None:
        now_s = _now_s()
        for name, subscription in connection.subscriptions.by_name.items():
            if name in self._excluded or subscription.state is State.WANTED:
                continue
            watched = self._watched.get((session.name, name))
            if watched is None:
                watched = self._watched[session.name, name] = _Watched(connection)
            if subscription.state is State.REJECTED:
                self._retry_refused(connection, name, watched)
                continue
            if not watched.stale:
                watched.is_well()
            if self._is_received(session, connection, subscription, watched):
                continue
            limits = stale_limits(subscription.stream, watched.quiet.longest_s, self._stale_s)
            if limits is None:
                continue
            since_s = max(
                _or_never(subscription.received_s), _or_never(subscription.requested_s), answered_s,
                watched.probed_s,
            )  # fmt: skip
            is_late = now_s - since_s >= limits.suspect_s * watched.factor
            if is_late and not watched.is_probing:
                watched.is_probing = True
                tasks.create_task(
                    self._judge(session, connection, subscription, watched, limits),
                    name=f"staleness-{name}",
                )

    def _retry_refused(self, connection: Connection, name: str, watched: _Watched) -> None:
        """Subscribe again to a refused stream, with growing pauses."""
        now_s = _now_s()
        if not watched.is_due(now_s):
            return
        if watched.next_attempt_s is not None:
            connection.subscribe_again([name])
        watched.put_off(now_s, self._stale_s)

    def _is_received(
        self,
        session: Session,
        connection: Connection,
        subscription: Subscription,
        watched: _Watched,
    ) -> bool:
        if not watched.check(connection, subscription.received_s):
            return False
        if watched.stale:
            watched.stale = ""
            connection.request_answer()  # from its answer on it counts as received
            name = subscription.stream.name
            log.info("stream_received_again", stream=name, connection=session.name)
        return True

    async def _judge(
        self,
        session: Session,
        connection: Connection,
        subscription: Subscription,
        watched: _Watched,
        limits: StaleLimits,
    ) -> None:
        received_s = subscription.received_s
        verdict: _Verdict | None
        try:
            verdict = await self._probe(session, connection, subscription, watched, limits)
        except RestRefused as error:
            reason = f"the exchange does not know this market: {error}"
            verdict = _Verdict(reason, is_final=True) if error.is_final else None
        except (RestError, BadBody):
            verdict = None
        finally:
            watched.is_probing = False
        watched.probed_s = _now_s()
        if subscription.received_s != received_s or session.connection is not connection:
            return
        if verdict is None:
            return  # nothing could be learned: probe again after the same time
        if verdict.reason:
            self._is_stale(session, connection, subscription, watched, verdict)
        else:
            watched.factor = min(2 * watched.factor, LONGEST_FACTOR)

    async def _probe(
        self,
        session: Session,
        connection: Connection,
        subscription: Subscription,
        watched: _Watched,
        limits: StaleLimits,
    ) -> _Verdict:
        stream, received_s = subscription.stream, subscription.received_s
        since_s = max(_or_never(received_s), _or_never(subscription.requested_s))
        quiet_s = _now_s() - since_s
        is_certain = limits.certain_s is not None and quiet_s >= limits.certain_s
        before = None if is_certain else await self._rest_view(stream)
        if is_certain:
            connection.suspect(stream.name)
        if is_certain or stream.identity is Identity.SEQUENCED:
            watched.quiet.subscribed_again(_now_s(), limits.back_within_s)
            connection.subscribe_again([stream.name])
        await asyncio.sleep(limits.back_within_s)
        after = None if is_certain else await self._rest_view(stream)
        await asyncio.sleep(self._stale_s / LATE_SHARE)
        reason = f"no message for {quiet_s:.0f} s"
        if is_certain:
            return _Verdict(f"{reason}, and it is periodic")
        if sibling := self._received_over(session, stream, _or_never(received_s), limits):
            return _Verdict(f"{reason}, and received over {sibling}")
        seen, watched.seen = watched.seen, (received_s, after)
        if before != after or (seen and seen[0] == received_s and seen[1] != before):
            return _Verdict(f"{reason}, and REST has news of it")
        return _Verdict()

    def _received_over(
        self, session: Session, stream: Stream, received_s: float, limits: StaleLimits
    ) -> str:
        """The name of a sibling that has received messages of the stream since; empty: none."""
        for sibling in self._pool.siblings(session):
            connection = sibling.connection
            other = connection.subscriptions.by_name.get(stream.name) if connection else None
            if other and _or_never(other.received_s) > received_s + limits.suspect_s / 2:
                return sibling.name
        return ""

    async def _rest_view(self, stream: Stream) -> object:
        """The present value over REST of what the stream sends changes of."""
        if stream.spec.probe is Probe.LAST_TRADE:
            await self._history.acquire()
            params = {"symbol": stream.symbol, "limit": "1"}
            return await self._rest.get("/api/v1/trades", params, fresh=True)
        params = {"symbol": stream.symbol, "limit": "5"}
        body = await self._rest.get("/api/v1/depth", params, fresh=True)
        if stream.spec.probe is Probe.BEST_PRICES:
            return best_prices(body)
        return depth_body(body).last_update_id

    def _is_stale(
        self,
        session: Session,
        connection: Connection,
        subscription: Subscription,
        watched: _Watched,
        verdict: _Verdict,
    ) -> None:
        name = subscription.stream.name
        connection.subscriptions.stale(name, verdict.reason)
        if not watched.stale:
            log.warning("stream_stale", stream=name, connection=session.name, reason=verdict.reason)
        watched.stale = verdict.reason
        connection.suspect(name)
        connection.subscribe_again([name])
        now_s = _now_s()
        if not verdict.is_final and watched.is_due(now_s):
            watched.put_off(now_s, REPLACE_FIRST_S)
            session.replace(f"{name} is stale")


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _or_never(at_s: float | None) -> float:
    return float("-inf") if at_s is None else at_s
