"""Ownership of streams in ordered mode, as Redis keeps it: leases, fencing tokens, commits.

Whoever holds a stream's lease may move its position. Leases run out by the server's clock; each new
owner gets a larger token, and the scripts refuse whoever comes with an older one, so a worker that
slept through its lease can neither write nor move anything. Decides nothing about who should own
what.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from redis.asyncio import Redis

from consumers.deadletter import Letter
from consumers.dispatch import Entry
from consumers.keys import Keys
from consumers.letters import begin, sent_back
from consumers.results import Write, packed
from consumers.scripts import Call, checked, script


@dataclass(slots=True)
class Lease:
    """Ownership of a stream, and the position it began at."""

    stream: str
    token: int
    position: str
    after_a_crash: bool = False  # its last owner did not let go by itself
    commits: int = field(default=0, compare=False)  # that Redis has confirmed


class Commit(NamedTuple):
    """A batch's end: from position to position, with everything that is to be written."""

    lease: Lease
    expected: str
    position: str
    handled: int
    writes: Sequence[Write]


class Answer(NamedTuple):
    """Of Redis, to a commit: `ok`, `stale` (not ours any more) or `lost` (it has forgotten all)."""

    word: str
    missed: int = 0  # entries that were gone before they could be read


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
                pipeline.get(self._keys.lease(stream, self._group))
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
        if reply is None:
            return None
        token, position, was_left = reply
        return Lease(stream, int(token), position, after_a_crash=bool(was_left))

    async def attempt(self, lease: Lease, entry_id: str) -> int:
        """About to handle an entry alone: how often it was begun by now; 0: the lease is lost."""
        call = Call(self._pair(lease.stream), (self._worker, lease.token, entry_id))
        return int(await script("attempt").run_one(self._redis, call))

    async def state(self, stream: str) -> dict[str, str]:
        """What was saved with the position."""
        saved = self._redis.hgetall(self._key(stream, "state"))
        return cast("dict[str, str]", await saved)

    async def sent_back(self, streams: Sequence[str]) -> dict[str, list[Entry]]:
        """Dead letters that are to be handled again."""
        return await sent_back(self._redis, self._keys, self._group, streams)

    async def begin_letter(self, lease: Lease, entry: Entry) -> Letter | None:
        """Take one in hand; None where it, or the stream, is another worker's."""
        return await begin(
            self._redis, self._keys, self._group, lease.stream, entry,
            self._worker.split("/")[0], (self._worker, lease.token),
        )  # fmt: skip

    async def renew(self, redis: Redis, leases: Sequence[Lease]) -> list[Lease]:
        """Hold them for another while, over a given connection; returns those that are lost."""
        calls = [
            Call(self._pair(lease.stream), (self._worker, lease.token, self._lease_ms))
            for lease in leases
        ]
        kept = checked(await script("renew").run(redis, calls))
        return [lease for lease, answer in zip(leases, kept, strict=True) if not answer]

    async def release(self, leases: Sequence[Lease]) -> None:
        """Let others have them at once."""
        calls = [Call(self._pair(lease.stream), (self._worker, lease.token)) for lease in leases]
        checked(await script("release").run(self._redis, calls))

    async def commit(self, commits: Sequence[Commit]) -> list[Answer | Exception]:
        """An answer for each; an error where a key is of the wrong kind, or no answer came. Sent
        again after that, a commit is applied once or refused.
        """
        replies = await script("commit").run(self._redis, [self._call(one) for one in commits])
        return [_answer(*pair) for pair in zip(commits, replies, strict=True)]

    def _call(self, commit: Commit) -> Call:
        stream = commit.lease.stream
        index: dict[str, int] = {}
        arguments = [
            self._worker,
            commit.lease.token,
            self._lease_ms,
            self._group,
            commit.expected,
            commit.position,
            commit.handled,
            commit.lease.commits,
            *packed(commit.writes, index, first=4),
        ]
        keys = (*self._pair(stream), self._keys.stream(stream))
        return Call((*keys, *(self._key(stream, part) for part in index)), arguments)

    def _key(self, stream: str, part: str) -> str:
        return self._keys.beside(stream, self._group, part)

    def _pair(self, stream: str) -> tuple[str, str]:
        return self._keys.lease(stream, self._group), self._keys.position(stream, self._group)


def _answer(commit: Commit, reply: Any) -> Answer | Exception:
    if isinstance(reply, Exception):
        return reply
    answer = Answer(reply[0], *map(int, reply[1:]))
    commit.lease.commits += answer.word == "ok"
    return answer
