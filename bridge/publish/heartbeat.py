"""Each second a bridge says in Redis how it is and how far, and reads what the others say.

Uses the ordinary Redis client: nothing here is on a message's way. Redis away is no news here, the
publisher tells of it.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, cast

import structlog
from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from bridge.contract import keys
from bridge.contract.streams import Stream
from bridge.pipeline.peers import Company, Word
from bridge.publish.namesake import Namesake
from bridge.publish.registry import describe, read_registry

log = structlog.get_logger(__name__)

INTERVAL_S = 1.0
_SPOKEN = 3  # behind the three questions of a beat: our word's reply


class Far(NamedTuple):
    """How far a bridge is: `heard`, `held` and `oldest_us` of a `Word`, and for which unnumbered
    streams everything is in Redis, until when.
    """

    heard: Mapping[str, int]
    held: Mapping[str, int]
    oldest_us: int
    settled: Mapping[str, int]


class Heartbeat:
    """One bridge's status, heard marks and registry, its word to the others, and theirs to it.

    `on_look` runs whenever the others' words were read.
    """

    def __init__(
        self,
        client: Redis,
        prefix: str,
        streams: Callable[[], Mapping[str, Stream]],
        *,
        me: Word,
        company: Company,
        clock_us: Callable[[], int],
        status: Callable[[], Mapping[str, Any]],
        how_far: Callable[[], Far],
        on_look: Callable[[], None],
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._streams = streams
        self._registered: Mapping[str, Stream] = {}
        self._company = company
        self._clock_us = clock_us
        self._status = status
        self._how_far = how_far
        self._on_look = on_look
        self._namesake = Namesake(me)
        self._has_complained = False

    async def run(self) -> None:
        """Beat until cancelled. Raises NameTaken where another bridge has this one's name."""
        while True:
            await self.beat()
            await asyncio.sleep(INTERVAL_S)

    async def begin(self) -> Mapping[str, int]:
        """The first look; returns the heard marks that an earlier bridge left. Raises NameTaken,
        and what the Redis client raises.
        """
        pipeline = self._client.pipeline(transaction=False)
        self._ask(pipeline)
        self._look(await pipeline.execute(raise_on_error=False))
        return self._company.marks

    async def registered(self) -> Mapping[str, Stream]:
        """What earlier bridges heard to the last. Raises what the Redis client raises."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hgetall(self._prefix + keys.STREAMS)
        [reply] = await pipeline.execute(raise_on_error=False)
        lines = self._hash(reply)
        return read_registry({_text(name): _text(line) for name, line in lines.items()})

    async def beat(self, **last_words: object) -> None:
        """One beat; quiet when Redis is away. Raises NameTaken."""
        status = json.dumps({**self._status(), **last_words}, separators=(",", ":"))
        far = self._how_far()
        marks = {
            name: us for name, us in far.settled.items() if us > self._company.marks.get(name, 0)
        }
        pipeline = self._client.pipeline(transaction=False)
        self._ask(pipeline)  # before this bridge writes over what a namesake wrote
        word = self._namesake.next_word(
            heard=far.heard,
            held=far.held,
            oldest_us=far.oldest_us,
            stopped="stopped_us" in last_words,
        )
        pipeline.hset(self._prefix + keys.PEERS, word.instance, word.model_dump_json())
        pipeline.hset(self._prefix + keys.STATUS, word.instance, status)
        if registry := self._registry():  # empty where no market of a pattern is known yet
            pipeline.hset(self._prefix + keys.STREAMS, items=_flat(registry))
        if marks:
            pipeline.hset(self._prefix + keys.HEARD, items=_flat(marks))
        try:
            replies = await pipeline.execute(raise_on_error=False)
            _refuse_unwritten(replies[_SPOKEN])
            self._look(replies)
        except (RedisError, OSError, TimeoutError):
            self._company.look_failed()

    def _registry(self) -> Mapping[str, str]:
        """What is heard now, and, once, what is not heard any more: its entries stay."""
        streams = self._streams()
        retired_us = self._clock_us()
        lines = {
            name: describe(stream, retired_us)
            for name, stream in self._registered.items()
            if name not in streams
        }
        self._registered = dict(streams)
        return lines | {name: describe(stream) for name, stream in streams.items()}

    def _ask(self, pipeline: Any) -> None:
        pipeline.time()
        pipeline.hgetall(self._prefix + keys.PEERS)
        pipeline.hgetall(self._prefix + keys.HEARD)

    def _look(self, replies: Iterable[Any]) -> None:
        moment, told, marks, *_ = replies
        redis_us = self._redis_us(moment)
        words = [word for text in self._hash(told).values() if (word := _word(text))]
        self._namesake.look(words, redis_us)
        heard = {_text(name): int(us) for name, us in self._hash(marks).items() if us.isdigit()}
        me, now_us = self._namesake.me, self._clock_us()
        self._company.look(me, words, heard, redis_us=redis_us, now_us=now_us)
        self._on_look()

    def _redis_us(self, reply: Any) -> int:
        if isinstance(reply, NoPermissionError):
            return self._clock_us()  # worse only at the first look, and where clocks differ
        if isinstance(reply, RedisError):
            raise reply
        return int(reply[0]) * 1_000_000 + int(reply[1])

    def _hash(self, reply: Any) -> Mapping[Any, Any]:
        """What is kept there, where it can be read: a key gone wrong must not stop publishing."""
        if isinstance(reply, ResponseError):
            if not self._has_complained:
                log.warning("other_bridges_unreadable", reason=str(reply))
            self._has_complained = True
            return {}
        if isinstance(reply, RedisError):
            raise reply
        return cast("Mapping[Any, Any]", reply)


def _refuse_unwritten(reply: Any) -> None:
    """Where our word cannot be written, the others' silence says nothing either."""
    told = str(reply)
    if isinstance(reply, RedisError) and "NOPERM" not in told and "WRONGTYPE" not in told:
        raise reply


def _word(text: bytes | str) -> Word | None:
    try:
        return Word.model_validate_json(text)
    except ValidationError:
        return None


def _flat(mapping: Mapping[str, str | int]) -> list[str | int]:
    return [part for pair in mapping.items() for part in pair]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
