"""The heartbeat: each second a bridge writes its status and progress to Redis, and reads its peers.

Uses the ordinary Redis client: this is not on the hot path. That Redis is unavailable is not logged
here; the publisher logs it.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

import structlog
from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from bridge.contract import keys
from bridge.contract.json_text import parsed
from bridge.contract.streams import Stream
from bridge.contract.whole_number import whole_number
from bridge.core.peers import Peers, PeerStatus
from bridge.core.progress import Progress
from bridge.redis.instance_guard import InstanceGuard
from bridge.redis.registry import describe, read_registry
from bridge.runtime.clock import Clock
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.refusals import Refusal, meaning

log = structlog.get_logger(__name__)

INTERVAL_S = 1.0
REGISTER_EVERY_BEATS = 10  # if no stream was added or removed
_OURS = 3  # replies to our writes begin after those to the three reads of a beat
_REGISTRY = _OURS + 2  # the reply to that of the registry, if there is one
# The most that an exchange's time is ahead of Redis' clock. A watermark beyond that is from a wrong
# clock: if it were used, it would hide every outage until then.
AHEAD_US = 60_000_000
_MOST_DIGITS = 19


class Reporter(Protocol):
    """The interface to the bridge whose heartbeat it is."""

    async def status_in_steps(self) -> Mapping[str, Any]:
        """The status; with many streams it takes long, so it lets messages be handled meanwhile."""
        ...

    def progress(self) -> Progress: ...

    def streams(self) -> Mapping[str, Stream]:
        """The streams that it receives."""
        ...

    def member(self) -> str:
        """Its name as a fleet member; empty: it receives all streams."""
        ...

    def elsewhere(self) -> Collection[str]:
        """Streams that other members of the fleet are to receive."""
        ...


class Heartbeat:
    """Writes one bridge's status, watermarks, registry and peer status, and reads its peers'."""

    def __init__(
        self, client: Redis, space: KeySpace, reporter: Reporter, me: PeerStatus, peers: Peers,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._client = client
        self._space = space
        self._prefix = space.prefix_of(0)
        self._reporter = reporter
        self._registered: Mapping[str, Stream] = {}
        self._beats = 0
        self._peers = peers
        self._clock = clock
        self._guard = InstanceGuard(me)
        self._has_complained = False
        self._unwritten = ""  # why our writes fail, as logged
        self._redis_ahead_us = 0  # of our steady clock, as of the last answer

    async def begin(self) -> Mapping[str, int]:
        """Poll for the first time. Returns the watermarks of earlier bridges. Raises NameTaken, and
        what the Redis client raises.
        """
        pipeline = self._client.pipeline(transaction=False)
        self._queue_reads(pipeline)
        self._read(await pipeline.execute(raise_on_error=False))
        return self._peers.watermarks

    async def registered(self) -> Mapping[str, Stream]:
        """Streams that earlier bridges received last. Raises what the Redis client raises."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hgetall(self._prefix + keys.STREAMS)
        [reply] = await pipeline.execute(raise_on_error=False)
        return read_registry(_as_text(self._hash(reply)))

    async def streams_before(self) -> Collection[str]:
        """Streams that an earlier process of this bridge received, by its last status (its peer
        status has none after a clean stop). Raises what the Redis client raises.
        """
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hgetall(self._prefix + keys.STATUS)  # a bridge has no right to HGET
        [reply] = await pipeline.execute(raise_on_error=False)
        status = _as_text(self._hash(reply)).get(self._guard.me.instance, "{}")
        try:
            streams = parsed(status)["streams"]
        except (ValueError, KeyError, TypeError):  # none, or another program's
            return []
        return [name for name in streams if isinstance(name, str)]

    async def beat(self, **last: object) -> None:
        """Write and read once; nothing is raised if Redis is unavailable. `last` is added to the
        status. Raises NameTaken.
        """
        # By the clock of Redis, which viewers compare it with: ours may be seconds off.
        redis_us = self._clock.now_us() + self._redis_ahead_us
        facts = {**await self._reporter.status_in_steps(), "redis_us": redis_us, **last}
        status = json.dumps(facts, separators=(",", ":"))
        progress = self._reporter.progress()
        known = self._peers.watermarks
        marks = {name: us for name, us in progress.settled.items() if us > known.get(name, 0)}
        pipeline = self._client.pipeline(transaction=False)
        # Read first, before this bridge overwrites the status of another one with the same name.
        self._queue_reads(pipeline)
        mine = self._guard.next_status(
            received=progress.received,
            unsettled=progress.unsettled,
            held=progress.held,
            oldest_us=progress.oldest_us,
            stopped="stopped_us" in last,
            member=self._reporter.member(),
        )
        pipeline.hset(self._prefix + keys.PEERS, mine.instance, mine.model_dump_json())
        pipeline.hset(self._prefix + keys.STATUS, mine.instance, status)
        streams = dict(self._reporter.streams())
        if registry := self._registry(streams):  # empty where no market of a pattern is known yet
            pipeline.hset(self._prefix + keys.STREAMS, items=_flat(registry))
        if marks:
            pipeline.hset(self._prefix + keys.WATERMARKS, items=_flat(marks))
        try:
            replies = await pipeline.execute(raise_on_error=False)
            if not (registry and isinstance(replies[_REGISTRY], RedisError)):
                self._registered = streams
            self._log_unwritten(replies[_OURS:])
            self._read(replies)
        except (RedisError, OSError, TimeoutError):
            self._peers.poll_failed()

    def _registry(self, streams: Mapping[str, Stream]) -> Mapping[str, str]:
        """Registry lines: of the streams received now and, until that is written, of those not
        received any more (their entries stay), except streams that another member writes. Empty
        without a change, but from time to time written again, since Redis may have lost them.
        """
        self._beats += 1
        if streams == self._registered and self._beats % REGISTER_EVERY_BEATS:
            return {}
        elsewhere = self._reporter.elsewhere()
        retired_us = self._clock.wall_us()
        lines = {
            name: describe(stream, self._space.key(name), retired_us)
            for name, stream in self._registered.items()
            if name not in streams and name not in elsewhere
        }
        return lines | {
            name: describe(stream, self._space.key(name)) for name, stream in streams.items()
        }

    def _log_unwritten(self, replies: Sequence[Any]) -> None:
        """Log refused writes, once while it lasts: publishing continues, and no status in Redis
        shows it. Raises the error if Redis accepts no writes: then peers cannot write either.
        """
        refused = [reply for reply in replies if isinstance(reply, RedisError)]
        if refused and meaning(refused[0]) is Refusal.UNAVAILABLE:
            raise refused[0]
        unwritten = str(refused[0]) if refused else ""
        if unwritten and unwritten != self._unwritten:
            log.warning("status_unwritable", reason=unwritten)
        elif self._unwritten and not unwritten:
            log.info("status_written_again")
        self._unwritten = unwritten

    def _queue_reads(self, pipeline: Any) -> None:
        pipeline.time()
        pipeline.hgetall(self._prefix + keys.PEERS)
        pipeline.hgetall(self._prefix + keys.WATERMARKS)

    def _read(self, replies: Iterable[Any]) -> None:
        moment, peers, marks, *_ = replies
        redis_us = self._redis_us(moment)
        self._redis_ahead_us = redis_us - self._clock.now_us()
        statuses = [one for text in self._hash(peers).values() if (one := _status(text))]
        self._guard.check(statuses, redis_us)
        watermarks = _watermarks(_as_text(self._hash(marks)), redis_us)
        self._peers.update(
            self._guard.me, statuses, watermarks, redis_us=redis_us, now_us=self._clock.now_us()
        )

    def _redis_us(self, reply: Any) -> int:
        if isinstance(reply, ResponseError) and meaning(reply) is Refusal.NOT_ALLOWED:
            return self._clock.wall_us()  # matters only at the first poll, if the clocks differ
        if isinstance(reply, RedisError):
            raise reply
        return int(reply[0]) * 1_000_000 + int(reply[1])

    def _hash(self, reply: Any) -> Mapping[bytes | str, bytes | str]:
        """The hash of a reply; empty if it cannot be read: a wrong key must not stop publishing."""
        if isinstance(reply, ResponseError):
            if not self._has_complained:
                log.warning("other_bridges_unreadable", reason=str(reply))
            self._has_complained = True
            return {}
        if isinstance(reply, RedisError):
            raise reply
        return cast("Mapping[bytes | str, bytes | str]", reply)


def _status(text: bytes | str) -> PeerStatus | None:
    try:
        return PeerStatus.model_validate_json(text)
    except ValidationError:
        return None


def _watermarks(texts: Mapping[str, str], redis_us: int) -> dict[str, int]:
    """The plausible watermarks; another program may have written anything there."""
    marks = {
        name: us
        for name, text in texts.items()
        if (us := whole_number(text, _MOST_DIGITS)) is not None
    }
    return {name: us for name, us in marks.items() if us <= redis_us + AHEAD_US}


def _as_text(mapping: Mapping[bytes | str, bytes | str]) -> dict[str, str]:
    """A hash as text, without pairs that are not UTF-8: no bridge wrote them."""
    texts = {}
    for pair in mapping.items():
        try:
            name, value = (one.decode() if isinstance(one, bytes) else one for one in pair)
        except UnicodeDecodeError:
            continue
        texts[name] = value
    return texts


def _flat(mapping: Mapping[str, str | int]) -> list[str | int]:
    return [part for pair in mapping.items() for part in pair]
