"""Each second the bridge says in Redis how it is, and up to where it has heard each stream.

Uses the ordinary Redis client: nothing here is on a message's way. Redis away is no news here, the
publisher tells of it.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from bridge.contract import keys
from bridge.contract.streams import Stream
from bridge.publish.registry import describe

INTERVAL_S = 1.0


class Heartbeat:
    """Writes status, heard marks and registry of one bridge instance."""

    def __init__(
        self,
        client: Redis,
        prefix: str,
        instance: str,
        streams: Mapping[str, Stream],
        status: Callable[[], Mapping[str, Any]],
        heard_us: Callable[[], Mapping[str, int]],
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._instance = instance
        self._registry = _flat({name: describe(stream) for name, stream in streams.items()})
        self._status = status
        self._heard_us = heard_us

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            await self.beat()
            await asyncio.sleep(INTERVAL_S)

    async def beat(self, **last_words: object) -> None:
        """One beat; quiet when Redis is away."""
        status = json.dumps({**self._status(), **last_words}, separators=(",", ":"))
        heard = _flat(self._heard_us())
        try:
            pipeline = self._client.pipeline(transaction=False)
            pipeline.hset(self._prefix + keys.STATUS, self._instance, status)
            pipeline.hset(self._prefix + keys.STREAMS, items=self._registry)
            if heard:
                pipeline.hset(self._prefix + keys.HEARD, items=heard)
            await pipeline.execute()
        except (RedisError, OSError, TimeoutError):
            return

    async def heard_before(self) -> dict[str, int]:
        """The heard marks an earlier bridge left. Raises what the Redis client raises."""
        marks = await self._client.hgetall(self._prefix + keys.HEARD)
        return {_text(name): int(value) for name, value in marks.items() if value.isdigit()}


def _flat(mapping: Mapping[str, str | int]) -> list[str | int]:
    return [part for pair in mapping.items() for part in pair]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
