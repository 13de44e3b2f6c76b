"""Handing a time range of streams to a consumer once more, without touching its live group.

The consumer works under a group name of its own: results lie under that name, exactly as a worker
would leave them, and are of this replay alone. What a worker keeps besides (position, state, lease,
group) is gone in the end. All streams are taken at once and held until then, so that a second
replay of that name spoils nothing; one is read after the other, each in order. A handler that fails
ends it.
"""

import time
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
from consumers.results import RESERVED, Results, State, Write
from consumers.walk import TrimmedAway, Walk

_log = structlog.get_logger()
_LEASE_MS = 60_000
_RENEW_S = 20.0  # a page has the rest of the minute


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
        self._held: list[Lease] = []
        self._held_at_s = time.monotonic()

    async def run(self, streams: Sequence[str], start: str, end: str, stop: Stop) -> int:
        """How many entries were handed over. Raises Fatal where a handler fails."""
        try:
            for stream in streams:
                if await self._is_usable(stream):
                    await self._take(stream)
            await self._begin_anew()
            return await self._all(start, end, stop)
        finally:
            await self._clear()

    async def _take(self, stream: str) -> None:
        lease = await self._leases.acquire(stream, BEGINNING)
        if lease is None:
            raise Fatal(
                f"{self._group} is at work on {stream}: give another --group (a replay that was "
                "killed less than a minute ago counts as at work)"
            )
        self._held.append(lease)

    async def _begin_anew(self) -> None:
        """Nothing is left of an earlier replay: its results, and where it was if it was killed."""
        pattern = self._keys.all_beside(self._group)
        left = {key async for key in self._redis.scan_iter(match=pattern, count=1000)}
        for lease in self._held:
            main = self._keys.beside(lease.stream, self._group)
            parts = {key[len(main) + 1 :] for key in left if f"{key}:".startswith(f"{main}:")}
            writes = [Write("DEL", part, ()) for part in ("state", *sorted(parts - RESERVED))]
            await self._commit(Commit(lease, lease.position, BEGINNING, 0, writes))

    async def _all(self, start: str, end: str, stop: Stop) -> int:
        handed = 0
        consumer = self._build()
        for lease in self._held:
            if stop.is_set:
                break
            if consumer.mode == "ordered":
                consumer = self._build()
                consumer.stream, consumer.token, consumer.state = lease.stream, lease.token, State()
                try:
                    consumer.load()
                except Exception as error:  # noqa: BLE001 - a handler's own trouble
                    raise _failed(lease.stream, "load", error) from None
            walk = Walk(lease.stream, self._keys, start, end)
            handed += await self._stream(consumer, lease, walk, stop)
        return handed

    async def _stream(self, consumer: Consumer, lease: Lease, walk: Walk, stop: Stop) -> int:
        dispatcher = Dispatcher(consumer, self._meter)
        position, handed = BEGINNING, 0
        while not walk.is_done and not stop.is_set:
            await self._hold()
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
        if self._is_due(consumer, lease.stream):
            writes = self._writes(consumer, Results(), lease.stream, position)
            await self._commit(Commit(lease, position, position, 0, writes))
        return handed

    def _is_due(self, consumer: Consumer, stream: str) -> bool:
        try:
            return consumer.mode == "ordered" and consumer.due(stopping=True)
        except Exception as error:  # noqa: BLE001 - a handler's own trouble
            raise _failed(stream, "due", error) from None

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

    async def _hold(self) -> None:
        """Keep the streams that wait, and those that are done; a commit keeps only its own."""
        if time.monotonic() - self._held_at_s >= _RENEW_S:
            lost = await self._leases.renew(self._redis, self._held)
            if lost:
                raise Fatal(f"{lost[0].stream} is not held any more: another replay has taken it")
            self._held_at_s = time.monotonic()

    async def _is_usable(self, stream: str) -> bool:
        """Raises Fatal where the group is there, and not one of ours."""
        key = self._keys.stream(stream)
        kind: Any = await self._redis.type(key)
        if kind not in ("stream", "none"):
            _log.warning("stream_unusable", stream=stream, error=f"the key is a {kind}")
            return False
        there = await self._redis.xinfo_groups(key) if kind == "stream" else []
        position = self._keys.position(stream, self._group)
        is_there = self._group in {one["name"] for one in there}
        if is_there and not await self._redis.exists(position):
            raise Fatal(f"{stream} has a group {self._group} already: give another --group")
        return True

    async def _clear(self) -> None:
        """Everything but the results; nothing where another replay has taken over."""
        lost = await self._leases.renew(self._redis, self._held)
        for stream in [lease.stream for lease in self._held if lease not in lost]:
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
