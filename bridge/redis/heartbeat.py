"""Each second a bridge writes to Redis how it is and how far, and reads what the others wrote.

Uses the ordinary Redis client: nothing here is on a message's way. Redis unavailable is no news
here, the publisher tells of it.
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
REGISTER_EVERY_BEATS = 10  # where no stream has come or gone
_OURS = 3  # behind the three questions of a beat: the replies to what we write
# No exchange's time is further ahead of Redis' clock. A mark beyond that was made by a clock gone
# wrong: believed, it would hide every outage until then.
AHEAD_US = 60_000_000
_MOST_DIGITS = 19


class Reporter(Protocol):
    """What a bridge says of itself."""

    async def status_in_steps(self) -> Mapping[str, Any]:
        """Of many streams it takes long: messages have their turns meanwhile."""
        ...

    def progress(self) -> Progress: ...

    def streams(self) -> Mapping[str, Stream]:
        """Those that it receives."""
        ...

    def member(self) -> str:
        """Which member of a fleet it is; empty where it receives all streams."""
        ...

    def elsewhere(self) -> Collection[str]:
        """Streams that other members of the fleet are to receive."""
        ...


class Heartbeat:
    """One bridge's status, watermarks and registry, its status for peers, and theirs for it."""

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
        self._unwritten = ""  # why something of ours cannot be written, as it was said
        self._redis_ahead_us = 0  # of our steady clock, as of the last answer

    async def begin(self) -> Mapping[str, int]:
        """The first poll; returns the watermarks that an earlier bridge left. Raises NameTaken,
        and what the Redis client raises.
        """
        pipeline = self._client.pipeline(transaction=False)
        self._queue_reads(pipeline)
        self._read(await pipeline.execute(raise_on_error=False))
        return self._peers.watermarks

    async def registered(self) -> Mapping[str, Stream]:
        """What earlier bridges received to the last. Raises what the Redis client raises."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hgetall(self._prefix + keys.STREAMS)
        [reply] = await pipeline.execute(raise_on_error=False)
        return read_registry(_as_text(self._hash(reply)))

    async def streams_before(self) -> Collection[str]:
        """What an earlier process of this bridge received, by its last status; its status for peers
        says after a clean stop that nothing is received. Raises what the Redis client raises.
        """
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hgetall(self._prefix + keys.STATUS)  # a bridge has no right to HGET
        [reply] = await pipeline.execute(raise_on_error=False)
        told = _as_text(self._hash(reply)).get(self._guard.me.instance, "{}")
        try:
            streams = parsed(told)["streams"]
        except (ValueError, KeyError, TypeError):  # none, or another program's
            return []
        return [name for name in streams if isinstance(name, str)]

    async def beat(self, **last: object) -> None:
        """One beat; quiet when Redis is unavailable. Raises NameTaken. `last` is added to the
        status.
        """
        # By the clock of Redis, which viewers compare it with: ours may be seconds off.
        redis_us = self._clock.now_us() + self._redis_ahead_us
        told = {**await self._reporter.status_in_steps(), "redis_us": redis_us, **last}
        status = json.dumps(told, separators=(",", ":"))
        progress = self._reporter.progress()
        known = self._peers.watermarks
        marks = {name: us for name, us in progress.settled.items() if us > known.get(name, 0)}
        pipeline = self._client.pipeline(transaction=False)
        # Before this bridge overwrites what another one of the same name wrote.
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
        if registry := self._registry():  # empty where no market of a pattern is known yet
            pipeline.hset(self._prefix + keys.STREAMS, items=_flat(registry))
        if marks:
            pipeline.hset(self._prefix + keys.WATERMARKS, items=_flat(marks))
        try:
            replies = await pipeline.execute(raise_on_error=False)
            self._log_unwritten(replies[_OURS:])
            self._read(replies)
        except (RedisError, OSError, TimeoutError):
            self._peers.poll_failed()

    def _registry(self) -> Mapping[str, str]:
        """What is received now, and, once, what is not any more: its entries stay. What was handed
        over to another member is that one's to tell of. Nothing where all is as it was; but now and
        then all the same, for Redis may have lost it.
        """
        streams = self._reporter.streams()
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
        self._registered = dict(streams)
        return lines | {
            name: describe(stream, self._space.key(name)) for name, stream in streams.items()
        }

    def _log_unwritten(self, replies: Sequence[Any]) -> None:
        """Say it once while it lasts: publishing goes on, and nothing in Redis tells of it. Raises
        what Redis says where it takes no writes: then the others' silence says nothing either.
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
        moment, told, marks, *_ = replies
        redis_us = self._redis_us(moment)
        self._redis_ahead_us = redis_us - self._clock.now_us()
        statuses = [one for text in self._hash(told).values() if (one := _status(text))]
        self._guard.check(statuses, redis_us)
        watermarks = _watermarks(_as_text(self._hash(marks)), redis_us)
        self._peers.update(
            self._guard.me, statuses, watermarks, redis_us=redis_us, now_us=self._clock.now_us()
        )

    def _redis_us(self, reply: Any) -> int:
        if isinstance(reply, ResponseError) and meaning(reply) is Refusal.NOT_ALLOWED:
            return self._clock.wall_us()  # worse only at the first poll, and where clocks differ
        if isinstance(reply, RedisError):
            raise reply
        return int(reply[0]) * 1_000_000 + int(reply[1])

    def _hash(self, reply: Any) -> Mapping[bytes | str, bytes | str]:
        """What is kept there, where it can be read: a key gone wrong must not stop publishing."""
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
    """Those that can be true; another program may have written anything there."""
    marks = {
        name: us
        for name, text in texts.items()
        if (us := whole_number(text, _MOST_DIGITS)) is not None
    }
    return {name: us for name, us in marks.items() if us <= redis_us + AHEAD_US}


def _as_text(mapping: Mapping[bytes | str, bytes | str]) -> dict[str, str]:
    """What is not UTF-8 cannot be ours, and is passed over."""
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
