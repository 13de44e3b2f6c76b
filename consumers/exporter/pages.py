"""The exporter's pages: Redis is read on each request, and at no other time."""

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
_LARGEST = 2**63  # above any valid time, and still convertible to float


class ExporterPages:
    """The pages, over one shared Redis client: concurrent requests wait for each other."""

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
        self._trouble = ""  # the error of the last read of Redis; empty if it succeeded

    async def page(self, path: str) -> Page:
        """The page at one of `paths`."""
        if path == ALIVE:
            return alive()
        snapshot, trouble = await self._read()
        if path == READY:
            return readiness(
                [(UNAVAILABLE, f"Redis cannot be read: {trouble}")] if snapshot is None else []
            )
        metrics = families(snapshot, per_stream=self._per_stream)
        body = await asyncio.to_thread(exposition.render, metrics)
        return Page(HTTPStatus.OK, exposition.CONTENT_TYPE, body)

    async def _read(self) -> tuple[Snapshot | None, str]:
        """A snapshot of Redis; None and the error if it cannot be read."""
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
        answered = {n: one is not None and n not in unavailable for n, one in memory.items()}
        shards = answered if len(answered) > 1 else {}
        handled = self._handled.sums if FIRST_SHARD in unavailable else self._handled.take(groups)
        return Snapshot(groups, bridges, used, most, handled, shards), ""

    def _log_availability(self, trouble: str) -> None:
        """Log once when Redis becomes unreadable, and once when it is readable again."""
        if trouble and not self._trouble:
            _log.warning(
                "redis_unavailable", error=trouble, then="trying again with the next scrape"
            )
        elif self._trouble and not trouble:
            _log.info("redis_connected")
        self._trouble = trouble

    async def _memory(self, unavailable: Collection[int]) -> Mapping[int, tuple[int, int] | None]:
        """Shard → memory used and maxmemory, bytes; None if it does not answer. `unavailable`
        shards are not queried: each could delay the page by another timeout.
        """
        queried = {n: one for n, one in enumerate(shards_of(self._redis)) if n not in unavailable}
        async with asyncio.TaskGroup() as tasks:
            queries = {n: tasks.create_task(_memory_of(one)) for n, one in queried.items()}
        results = {n: task.result() for n, task in queries.items()}
        answers = {n: one for n, one in results.items() if not isinstance(one, Exception)}
        for error in results.values():
            if isinstance(error, Exception) and not answers:
                raise error
        return {n: answers.get(n) for n in range(len(shards_of(self._redis)))}

    async def _bridges(self) -> Mapping[str, int]:
        """Bridge → time of its last status, µs, of bridges that were not stopped cleanly."""
        texts: Any = await self._redis.hgetall(self._keys.space.key(bridge_keys.STATUS))
        statuses = {name: _status(text) for name, text in texts.items()}
        return {
            name: at_us
            for name, status in statuses.items()
            if not status.get("stopped_us")
            and isinstance(at_us := status.get("redis_us"), int)
            and 0 < at_us < _LARGEST
        }


async def _memory_of(shard: Redis) -> tuple[int, int] | Exception:
    try:
        info: Any = await shard.info("memory")
    except _UNAVAILABLE as error:
        return error
    return info.get("used_memory", 0), info.get("maxmemory", 0)


def _share(memory: tuple[int, int]) -> tuple[float, int]:
    """The sort key of the fullest shard: the used share of maxmemory (0 if unlimited), then bytes
    used."""
    used, most = memory
    return (used / most if most else 0.0, used)


def _status(text: str) -> Mapping[str, Any]:
    """A bridge's status; empty where another program wrote it."""
    try:
        status = parsed(text)
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}
