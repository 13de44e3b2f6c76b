"""Delivers a time range of streams to a consumer again, without affecting its live group.

The consumer runs under a group name of its own: results are written under that name, as a worker
would write them, and belong to this replay alone. The other keys of a worker (position, state,
lease, group) are deleted at the end. The leases of all streams are held until then, so that a
second replay of that name cannot interfere; streams are read one after another, each in order. A
failure of a handler ends the replay.
"""

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from redis.asyncio import Redis

from bridge.errors import Fatal
from bridge.runtime.time_range import BEGINNING
from consumers.kit.api.consumer import ConsumerSpec, StopWorker
from consumers.kit.api.results import RESERVED, State, Write
from consumers.kit.handling.batch import STATE_PART, BatchRunner, Part
from consumers.kit.handling.entry import Entry, entry_of
from consumers.kit.handling.failure import HandlerFailed, error_text, source_line
from consumers.kit.handling.yielding import Pace
from consumers.kit.ordered.lease import Answer, Commit, CommitStatus, Lease, Leases
from consumers.kit.reading.range_scan import RangeScan, TrimmedAway
from consumers.kit.redis.keys import Keys
from consumers.kit.stats import Stats
from consumers.kit.stop import Stop

_log = structlog.get_logger()
_LEASE_MS = 60_000
_RENEW_S = 20.0  # leaves 40 s of the lease for handling a part of a page


class Replay:
    """A replay of one range of any number of streams to one consumer."""

    def __init__(
        self, spec: ConsumerSpec, redis: Redis, keys: Keys, group: str, worker: str, stats: Stats
    ) -> None:
        self._spec = spec
        self._redis = redis
        self._keys = keys
        self._group = group
        self._leases = Leases(redis, keys, group, worker, _LEASE_MS)
        self._stats = stats
        self._held: list[Lease] = []
        self._held_at_s = time.monotonic()

    async def run(self, streams: Sequence[str], start: str, end: str, stop: Stop) -> int:
        """Replay the range from `start` to `end`, in XRANGE notation. Returns the number of
        delivered entries. Raises Fatal if a handler fails, or a stream cannot be used."""
        try:
            for stream in streams:
                if await self._is_usable(stream):
                    await self._take(stream)
            await self._delete_what_is_left()
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

    async def _delete_what_is_left(self) -> None:
        """Delete the results of an earlier replay, and its position and state if it was killed."""
        left = {
            key
            for pattern in self._keys.all_beside(self._group)
            async for key in self._redis.scan_iter(match=pattern, count=1000)
        }
        for lease in self._held:
            main = self._keys.beside(lease.stream, self._group)
            parts = {key[len(main) + 1 :] for key in left if f"{key}:".startswith(f"{main}:")}
            writes = [Write("DEL", part, ()) for part in (STATE_PART, *sorted(parts - RESERVED))]
            await self._commit(Commit(lease, lease.position, BEGINNING, 0, writes))

    async def _all(self, start: str, end: str, stop: Stop) -> int:
        handed = 0
        runner: BatchRunner | None = None
        for lease in self._held:
            if stop.is_set:
                break
            # As in a worker: one object per stream in ordered mode, one object in shared mode.
            if runner is None or self._spec.kind.mode == "ordered":
                runner = await self._runner(lease)
            scan = RangeScan(lease.stream, self._keys, start, end)
            handed += await self._stream(runner, lease, scan, stop)
        return handed

    async def _runner(self, lease: Lease) -> BatchRunner:
        consumer = self._spec.build()
        if self._spec.kind.mode == "shared":
            return BatchRunner(consumer, self._stats)
        try:
            return await BatchRunner.open(consumer, lease.stream, lease.token, State(), self._stats)
        except HandlerFailed as failed:
            raise _fatal(failed) from None

    async def _stream(self, runner: BatchRunner, lease: Lease, scan: RangeScan, stop: Stop) -> int:
        position, handed = BEGINNING, 0
        try:
            while not scan.is_done and not stop.is_set:
                entries = await self._page(scan)
                while entries:
                    await self._hold()
                    part = await runner.run_together(lease.stream, entries, Pace())
                    position = await self._commit_part(lease, position, part)
                    handed += len(part.entries) - part.undecodable
                    entries = entries[len(part.entries) :]
            if await runner.is_due(lease.stream, stopping=True):
                await self._commit_part(
                    lease, position, await runner.run_together(lease.stream, (), Pace())
                )
        except StopWorker:
            stop.set()
        except HandlerFailed as failed:
            raise _fatal(failed) from None
        return handed

    async def _commit_part(self, lease: Lease, position: str, part: Part) -> str:
        """Commit a part. Returns the new position. Raises HandlerFailed if the part has failed."""
        if part.failed is not None:
            raise part.failed
        # Also in shared mode: one reader per stream needs a position, but no pending entries list.
        after = part.entries[-1][0] if part.entries else position
        await self._commit(Commit(lease, position, after, len(part.entries), part.writes))
        return after

    async def _commit(self, commit: Commit) -> None:
        [answer] = await self._leases.commit([commit])
        if not isinstance(answer, Answer) or answer.status is not CommitStatus.OK:
            raise Fatal(f"the results of {commit.lease.stream} could not be written: {answer}")

    async def _page(self, scan: RangeScan) -> Sequence[Entry]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for command in scan.commands():
                pipeline.execute_command(*command)
            replies = await pipeline.execute(raise_on_error=False)
        with _warnings_logged():
            return [entry_of(*one) for one in scan.take(replies)]

    async def _hold(self) -> None:
        """Renew the leases of all streams every 20 s: a commit renews only its own lease. Raises
        Fatal if one is lost."""
        if time.monotonic() - self._held_at_s >= _RENEW_S:
            lost = await self._leases.renew(self._redis, self._held)
            if lost:
                raise Fatal(f"{lost[0].stream} is not held any more: another replay has taken it")
            self._held_at_s = time.monotonic()

    async def _is_usable(self, stream: str) -> bool:
        """Whether the key is a stream or missing. Raises Fatal if the stream has a group of this
        name that was not made by a replay."""
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
        if kind == "stream":
            # Destroying a group that does not exist checks this user's permission for `_clear`.
            await self._redis.xgroup_destroy(key, f"{self._group}:")
        return True

    async def _clear(self) -> None:
        """Delete all keys except the results; none of a stream that another replay has taken."""
        # Scripts fence commits by the token; deletes are not fenced, so the leases are checked.
        lost = await self._leases.renew(self._redis, self._held)
        for stream in [lease.stream for lease in self._held if lease not in lost]:
            await self._redis.delete(
                self._keys.lease(stream, self._group),
                self._keys.position(stream, self._group),
                self._keys.beside(stream, self._group, STATE_PART),
            )
            if await self._redis.exists(self._keys.stream(stream)):
                await self._redis.xgroup_destroy(self._keys.stream(stream), self._group)


def _fatal(failed: HandlerFailed) -> Fatal:
    why, at = error_text(failed.stream, failed.reason), source_line(failed.reason)
    return Fatal(f"the handler failed on {failed.stream} {failed.entry_id}: {why} ({at})")


@contextmanager
def _warnings_logged() -> Iterator[None]:
    """Log the warnings of a scan."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TrimmedAway)
        yield
    for warning in caught:
        message: Any = warning.message
        _log.warning("not_kept", what=str(message))
