"""Ownership of streams in ordered mode, as Redis keeps it: leases, fencing tokens, commits.

Whoever holds a stream's lease may move its position. Leases run out by the server's clock; each new
owner gets a larger token, and the scripts refuse whoever comes with an older one, so a worker that
slept through its lease can neither write nor move anything. Decides nothing about who should own
what.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from consumers.keys import Keys
from consumers.results import Write
from consumers.scripts import Call, script


@dataclass(frozen=True, slots=True)
class Lease:
    """Ownership of a stream, and the position it began at."""

    stream: str
    token: int
    position: str


class Commit(NamedTuple):
    """A batch's end: from position to position, with everything that is to be written."""

    lease: Lease
    expected: str
    position: str
    handled: int
    writes: Sequence[Write]


class Leases:
    """All dealings of one worker with the leases of its group."""

    def __init__(self, redis: Redis, keys: Keys, group: str, worker: str, lease_ms: int) -> None:
        self._redis = redis
        self._keys = keys
        self._group = group
        self._worker = worker
        self._lease_ms = lease_ms

    async def free(self, streams: Sequence[str]) -> list[str]:
        """Those that nobody owns, in the given order; those of this worker among them."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for stream in streams:
                pipeline.get(self._key(stream, "lease"))
            holders = await pipeline.execute()
        mine = f"{self._worker} "
        return [
            stream
            for stream, holder in zip(streams, holders, strict=True)
            if holder is None or holder.startswith(mine)
        ]

    async def acquire(self, stream: str, start: str) -> Lease | None:
        """The lease, or None where another worker has it. Raises ResponseError for a bad key."""
        keys = (*self._pair(stream), self._keys.stream(stream))
        call = Call(keys, (self._worker, self._lease_ms, self._group, start))
        reply = await script("acquire").run_one(self._redis, call)
        return None if reply is None else Lease(stream, int(reply[0]), reply[1])

    async def state(self, stream: str) -> dict[str, str]:
        """What was saved with the position."""
        saved = self._redis.hgetall(self._key(stream, "state"))
        return cast("dict[str, str]", await saved)

    async def renew(self, redis: Redis, leases: Sequence[Lease]) -> list[Lease]:
        """Hold them for another while, over a given connection; returns those that are lost."""
        calls = [
            Call(self._pair(lease.stream), (self._worker, lease.token, self._lease_ms))
            for lease in leases
        ]
        kept = _checked(await script("renew").run(redis, calls))
        return [lease for lease, answer in zip(leases, kept, strict=True) if not answer]

    async def release(self, leases: Sequence[Lease]) -> None:
        """Let others have them at once."""
        calls = [Call(self._pair(lease.stream), (self._worker, lease.token)) for lease in leases]
        _checked(await script("release").run(self._redis, calls))

    async def commit(self, commits: Sequence[Commit]) -> list[str | ResponseError]:
        """`ok`, `stale` or `lost` for each; an error where a key is of the wrong kind."""
        return await script("commit").run(self._redis, [self._call(one) for one in commits])

    def _call(self, commit: Commit) -> Call:
        stream = commit.lease.stream
        keys = [*self._pair(stream), self._keys.stream(stream)]
        index = {part: i for i, part in enumerate({w.part: None for w in commit.writes}, 4)}
        keys += [self._key(stream, part) for part in index]
        arguments: list[str | int] = [
            self._worker,
            commit.lease.token,
            self._lease_ms,
            self._group,
            commit.expected,
            commit.position,
            commit.handled,
        ]
        for write in commit.writes:
            arguments += (write.command, index[write.part], len(write.arguments), *write.arguments)
        return Call(keys, arguments)

    def _key(self, stream: str, part: str) -> str:
        return self._keys.beside(stream, self._group, part)

    def _pair(self, stream: str) -> tuple[str, str]:
        return self._key(stream, "lease"), self._key(stream, "position")


def _checked(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies
