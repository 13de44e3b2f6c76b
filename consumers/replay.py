"""Handing a time range of streams to a consumer once more, without touching its live group.

The consumer works under a group name of its own: results lie under that name, exactly as a worker
would leave them. What a worker keeps besides (position, state, lease, group) is gone in the end.
One stream after the other, each in order; a handler that fails ends it.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from redis.asyncio import Redis

from bridge.errors import Fatal
from consumers.consumer import Consumer, StopWorker
from consumers.deadletter import error_text, place
from consumers.dispatch import Dispatcher, Entry, HandlerFailed
from consumers.keys import Keys
from consumers.lease import Answer, Commit, Lease, Leases
from consumers.link import Stop
from consumers.meter import Meter
from consumers.policy import BEGINNING
from consumers.results import Results, State, Write
from consumers.walk import TrimmedAway, Walk

_log = structlog.get_logger()
_LEASE_MS = 60_000


class Replay:
    """One consumer, one range, any number of streams."""

    def __init__(
        self,
        build: Callable[[], Consumer],
        redis: Redis,
        keys: Keys,
        group: str,
        worker: str,
        meter: Meter,
    ) -> None:
        self._build = build
        self._redis = redis
        self._keys = keys
        self._group = group
        self._leases = Leases(redis, keys, group, worker, _LEASE_MS)
        self._meter = meter

    async def run(self, streams: Sequence[str], start: str, end: str, stop: Stop) -> int:
        """How many entries were handed over. Raises Fatal where a handler fails."""
        handed = 0
        consumer = self._build()
        for stream in streams:
            if stop.is_set:
                break
            if not await self._is_stream(stream):
                continue
            await self._clear(stream)
            lease = await self._leases.acquire(stream, BEGINNING)
            if lease is None:
                raise Fatal(f"{self._group} is at work on {stream}: give another --group")
            if consumer.mode == "ordered":
                consumer = self._build()
                consumer.stream, consumer.token, consumer.state = stream, lease.token, State()
                try:
                    consumer.load()
                except Exception as error:  # noqa: BLE001 - a handler's own trouble
                    raise _failed(stream, "load", error) from None
            try:
                handed += await self._stream(
                    consumer, lease, Walk(stream, self._keys, start, end), stop
                )
            finally:
                await self._clear(stream)
        return handed

    async def _stream(self, consumer: Consumer, lease: Lease, walk: Walk, stop: Stop) -> int:
        dispatcher = Dispatcher(consumer, self._meter)
        position, handed = lease.position, 0
        while not walk.is_done and not stop.is_set:
            entries = await self._page(walk)
            if not entries:
                continue
            results = Results(in_order=consumer.mode == "ordered")
            try:
                await dispatcher.handle(lease.stream, entries, results)
            except StopWorker:
                stop.set()
                return handed
            except HandlerFailed as failed:
                raise _failed(lease.stream, failed.entry_id, failed.__cause__) from None
            writes = self._writes(consumer, results, lease.stream, entries[-1][0])
            await self._commit(Commit(lease, position, entries[-1][0], len(entries), writes))
            position = entries[-1][0]
            handed += len(entries)
        if consumer.mode == "ordered" and consumer.due(stopping=True):
            writes = self._writes(consumer, Results(), lease.stream, position)
            await self._commit(Commit(lease, position, position, 0, writes))
        return handed

    def _writes(
        self, consumer: Consumer, results: Results, stream: str, entry_id: str
    ) -> Sequence[Write]:
        if consumer.mode != "ordered":
            return results.writes
        try:
            consumer.write(results)
            return (*results.writes, *consumer.state.take_writes("state"))
        except Exception as error:  # noqa: BLE001 - a handler's own trouble
            raise _failed(stream, entry_id, error) from None

    async def _commit(self, commit: Commit) -> None:
        [answer] = await self._leases.commit([commit])
        if not isinstance(answer, Answer) or answer.word != "ok":
            raise Fatal(f"the results of {commit.lease.stream} could not be written: {answer}")

    async def _page(self, walk: Walk) -> Sequence[Entry]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for command in walk.ask():
                pipeline.execute_command(*command)
            replies = await pipeline.execute(raise_on_error=False)
        with _told():
            return walk.take(replies)

    async def _is_stream(self, stream: str) -> bool:
        """Raises Fatal where the group is there, and not one of ours."""
        key = self._keys.stream(stream)
        kind: Any = await self._redis.type(key)
        if kind != "stream":
            if kind != "none":
                _log.warning("stream_unusable", stream=stream, error=f"the key is a {kind}")
            return False
        there = {one["name"] for one in await self._redis.xinfo_groups(key)}
        position = self._keys.position(stream, self._group)
        if self._group in there and not await self._redis.exists(position):
            raise Fatal(f"{stream} has a group {self._group} already: give another --group")
        return True

    async def _clear(self, stream: str) -> None:
        """Everything but the results."""
        await self._redis.delete(
            self._keys.lease(stream, self._group),
            self._keys.position(stream, self._group),
            self._keys.beside(stream, self._group, "state"),
        )
        if await self._redis.exists(self._keys.stream(stream)):
            await self._redis.xgroup_destroy(self._keys.stream(stream), self._group)


def _failed(stream: str, entry_id: str, error: BaseException | None) -> Fatal:
    why, at = error_text(stream, error), place(error)
    return Fatal(f"the handler failed on {stream} {entry_id}: {why} ({at})")


@contextmanager
def _told() -> Iterator[None]:
    """What the walk warns of is a line in the log here."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TrimmedAway)
        yield
    for warning in caught:
        message: Any = warning.message
        _log.warning("not_kept", what=str(message))
