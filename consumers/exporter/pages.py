"""The exporter's pages: Redis is read when they are asked for, and at no other time."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bridge.contract import keys as bridge_keys
from bridge.contract.json_text import parsed
from bridge.metrics import exposition
from bridge.metrics.health import ALIVE, METRICS, READY, alive, readiness
from bridge.metrics.pages import Page
from bridge.runtime.masking import masked_text
from bridge.runtime.redis_shards import shards_of
from bridge.runtime.replica import FreshReads
from consumers.exporter.group_metrics import HandledSums, Snapshot, families
from consumers.kit.lag import group_lags
from consumers.kit.redis.keys import Keys
from consumers.kit.redis.registry import FIRST_SHARD

_log = structlog.get_logger()

UNAVAILABLE = "redis_unavailable"
_UNAVAILABLE = (RedisError, OSError, TimeoutError)
_LARGEST = 2**63  # what no number of ours reaches; larger ones are no floats


class ExporterPages:
    """Over one client, which they share: who asks at the same time waits for the other."""

    paths: Sequence[str] = (METRICS, ALIVE, READY)

    def __init__(
        self, redis: Redis, keys: Keys, *, per_stream: bool, replica: Redis | None = None
    ) -> None:
        self._redis = redis
        self._reads = FreshReads(redis, replica)
        self._keys = keys
        self._per_stream = per_stream
        self._lock = asyncio.Lock()
        self._handled = HandledSums()
        self._trouble = ""  # why Redis could not be read, the last time

    async def page(self, path: str) -> Page:
        """One of `paths`."""
        if path == ALIVE:
            return alive()
        look, trouble = await self._read()
        if path == READY:
            return readiness(
                [(UNAVAILABLE, f"Redis cannot be read: {trouble}")] if look is None else []
            )
        told = families(look, per_stream=self._per_stream)
        body = await asyncio.to_thread(exposition.render, told)
        return Page(HTTPStatus.OK, exposition.CONTENT_TYPE, body)

    async def _read(self) -> tuple[Snapshot | None, str]:
        """What Redis has now; None, and why, where it cannot be read."""
        async with self._lock:
            try:
                groups, unavailable = await self._reads.read_in_part(
                    lambda client, silent: group_lags(client, self._keys, unavailable=silent)
                )
                memory = await self._memory(unavailable)
                bridges = {} if FIRST_SHARD in unavailable else await self._bridges()
            except _UNAVAILABLE as error:
                self._log_availability(trouble := masked_text(str(error)) or type(error).__name__)
                return None, trouble
            self._log_availability("")
        used, most = max(filter(None, memory.values()), key=_share)
        answered = {n: told is not None and n not in unavailable for n, told in memory.items()}
        shards = answered if len(answered) > 1 else {}
        handled = self._handled.sums if FIRST_SHARD in unavailable else self._handled.take(groups)
        return Snapshot(groups, bridges, used, most, handled, shards), ""

    def _log_availability(self, trouble: str) -> None:
        """Log that Redis cannot be read, or can again: once each time."""
        if trouble and not self._trouble:
            _log.warning(
                "redis_unavailable", error=trouble, then="trying again with the next scrape"
            )
        elif self._trouble and not trouble:
            _log.info("redis_connected")
        self._trouble = trouble

    async def _memory(self, unavailable: Collection[int]) -> Mapping[int, tuple[int, int] | None]:
        """Used and at most, of each shard; None of one that does not answer. Those that are `away`
        are not asked: each could keep the page waiting for another time-out.
        """
        asked = {n: one for n, one in enumerate(shards_of(self._redis)) if n not in unavailable}
        async with asyncio.TaskGroup() as tasks:
            asking = {n: tasks.create_task(_memory_of(one)) for n, one in asked.items()}
        found = {n: task.result() for n, task in asking.items()}
        told = {n: one for n, one in found.items() if not isinstance(one, Exception)}
        for error in found.values():
            if isinstance(error, Exception) and not told:
                raise error
        return {n: told.get(n) for n in range(len(shards_of(self._redis)))}

    async def _bridges(self) -> Mapping[str, int]:
        """Those that were not stopped."""
        texts: Any = await self._redis.hgetall(self._keys.space.key(bridge_keys.STATUS))
        told = {name: _status(text) for name, text in texts.items()}
        return {
            name: at_us
            for name, status in told.items()
            if not status.get("stopped_us")
            and isinstance(at_us := status.get("redis_us"), int)
            and 0 < at_us < _LARGEST
        }


async def _memory_of(shard: Redis) -> tuple[int, int] | Exception:
    try:
        told: Any = await shard.info("memory")
    except _UNAVAILABLE as error:
        return error
    return told.get("used_memory", 0), told.get("maxmemory", 0)


def _share(memory: tuple[int, int]) -> tuple[float, int]:
    """How full it is; where nothing limits it, how large."""
    used, most = memory
    return (used / most if most else 0.0, used)


def _status(text: str) -> Mapping[str, Any]:
    """A bridge's status; empty where another program wrote it."""
    try:
        status = parsed(text)
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}
