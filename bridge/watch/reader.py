"""One look at Redis: registry, statuses, and each stream's counters and newest entry.

Reads in pipelines of bounded size and writes nothing. A stream that does not exist yet is no error.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from bridge.contract import keys
from bridge.watch.facts import BridgeStatus, Sample, StreamFacts, WorkerStatus, read_statuses

AWAY = (RedisError, OSError, TimeoutError)  # what every use of the client may raise
_CHUNK = 256  # streams asked for in one pipeline


def reason(error: BaseException) -> str:
    """Why Redis did not answer, in words."""
    return str(error) or type(error).__name__


async def look(client: Redis, prefix: str) -> Sample:
    """Everything at once. `client` decodes responses. Raises what the Redis client raises."""
    pipeline = client.pipeline(transaction=False)
    pipeline.time()
    for key in (keys.STREAMS, keys.STATUS, keys.CONSUMERS_STATUS):
        pipeline.hgetall(prefix + key)
    (seconds, micros), registry, bridges, workers = await pipeline.execute()
    told_bridges, unread_bridges = read_statuses(BridgeStatus, bridges)
    told_workers, unread_workers = read_statuses(WorkerStatus, workers)
    streams = await _streams(client, prefix, [*sorted(registry), keys.QUARANTINE])
    return Sample(
        now_us=int(seconds) * 1_000_000 + int(micros),
        bridges=told_bridges,
        workers=told_workers,
        quarantine=streams.pop(keys.QUARANTINE),
        streams=streams,
        unreadable=unread_bridges + unread_workers,
    )


async def _streams(client: Redis, prefix: str, names: Sequence[str]) -> dict[str, StreamFacts]:
    found: dict[str, StreamFacts] = {}
    for part in _chunks(names):
        pipeline = client.pipeline(transaction=False)
        for name in part:
            pipeline.xinfo_stream(prefix + name)
            pipeline.xrevrange(prefix + name, count=1)
        replies = iter(await pipeline.execute(raise_on_error=False))
        for name in part:
            found[name] = _facts(next(replies), next(replies))
    return found


def _facts(info: Mapping[str, Any] | Exception, newest: Any) -> StreamFacts:
    for reply in (info, newest):
        if isinstance(reply, Exception) and not isinstance(reply, ResponseError):
            raise reply
    if isinstance(info, Exception) or isinstance(newest, Exception):
        return StreamFacts()  # "no such key"
    return StreamFacts(
        length=info["length"],
        added=info.get("entries-added"),
        last_id=info["last-generated-id"],
        last=newest[0][1] if newest else None,
    )


def _chunks(names: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(names)
    while part := list(islice(rest, _CHUNK)):
        yield part
