"""Ownership of streams in ordered mode, as Redis keeps it: leases, fencing tokens, commits.

The owner of a stream may move its position. Leases run out by the server's clock; each new owner
gets a larger token, and the scripts refuse a caller with an older one, so a worker that was
suspended for longer than its lease can neither write nor move anything. Decides nothing about which
worker should own what.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, cast

from redis.asyncio import Redis

from bridge.contract.whole_number import whole_number
from bridge.runtime.refusals import is_of_a_key
from consumers.kit.api.results import Write, packed
from consumers.kit.handling.batch import STATE_PART, TICKS_PART
from consumers.kit.redis.keys import Keys
from consumers.kit.redis.scripts import Call, checked, script


@dataclass(slots=True)
class Lease:
    """Ownership of a stream, and the position it began at."""

    stream: str
    token: int
    position: str
    after_a_crash: bool = False  # its last owner did not release it
    is_stream: bool = True  # else a name under which there is more than one stream, or none
    commits: int = field(default=0, compare=False)  # that Redis has confirmed

    def count_commit(self) -> None:
        """Redis has confirmed one more."""
        self.commits += 1


class Move(NamedTuple):
    """Of a stream among those that are joined: its new position, over so many entries."""

    stream: str
    position: str
    handled: int


class Commit(NamedTuple):
    """A batch's end: from position to position, with everything that is to be written. Of joined
    streams each one's `moves`, also where it has not moved."""

    lease: Lease
    expected: str
    position: str
    handled: int
    writes: Sequence[Write]
    moves: Sequence[Move] = ()


class CommitStatus(StrEnum):
    """What Redis says to a commit; the words of `commit.lua`."""

    OK = "ok"  # applied, wholly
    STALE = "stale"  # refused: the stream has another owner, or the commit was applied before
    LOST = "lost"  # refused: Redis was emptied and knows of no owner


class Answer(NamedTuple):
    """Of Redis, to a commit."""

    status: CommitStatus
    missed: int = 0  # entries that were gone before they could be read


class Leases:
    """All dealings of one worker with the leases of its group."""

    def __init__(self, redis: Redis, keys: Keys, group: str, worker: str, lease_ms: int) -> None:
        self._redis = redis
        self._keys = keys
        self._group = group
        self._shortest_ms = lease_ms
        self.lease_ms = lease_ms  # of the leases that are taken and renewed from now on
        self.worker = worker  # `<name>/<nonce>`: two processes of one name are two owners

    def outlast(self, call_s: float) -> None:
        """Make leases longer: a call took so long, and its lease ran out meanwhile. Without that,
        a stream with such calls would go from worker to worker, and nothing be committed."""
        self.lease_ms = max(self.lease_ms, self._shortest_ms + int(call_s * 1000))

    async def free(self, streams: Sequence[str]) -> list[str]:
        """Those that have no owner, in the given order; those of this worker among them."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for stream in streams:
                pipeline.get(self._keys.lease(stream, self._group))
            holders = await pipeline.execute(raise_on_error=False)
        # A key of another program that is no lease is for `acquire` to refuse, which names it.
        holders = checked([None if is_of_a_key(one) else one for one in holders])
        # A lease of ours that the loop does not know is of an acquire whose reply was lost.
        mine = f"{self.worker} "
        return [
            stream
            for stream, holder in zip(streams, holders, strict=True)
            if holder is None or holder.startswith(mine)
        ]

    async def acquire(self, stream: str, start: str, *, is_stream: bool = True) -> Lease | None:
        """The lease, or None where another worker has it. `is_stream`: else it is a name under
        which there is more than one stream, or none. Raises ResponseError for a bad key."""
        lease, position = self._pair(stream)
        keys = lease, position, self._keys.stream(stream) if is_stream else position
        call = Call(keys, (self.worker, self.lease_ms, self._group, start))
        reply = await script("acquire").run_one(self._redis, call)
        if reply is None:
            return None
        token, position, was_left = reply
        return Lease(stream, int(token), position, bool(was_left), is_stream)

    async def join_streams(self, lease: Lease, starts: Mapping[str, str]) -> dict[str, str] | None:
        """The positions in joined streams under one lease; new ones where there are none. None
        where the lease is lost. Raises ResponseError for a bad key."""
        keys = [self._pair(lease.stream)[1]]
        for stream in starts:
            keys += (self._keys.stream(stream), self._keys.position(stream, self._group))
        call = Call(keys, (self.worker, lease.token, self._group, *starts.values()))
        found = await script("join_streams").run_one(self._redis, call)
        return None if found is None else dict(zip(starts, found, strict=True))

    async def begin_attempt(self, lease: Lease, entry_id: str) -> int:
        """Mark in Redis that this entry is about to be handled alone. Returns how often it was
        begun by now, over all owners; 0 where the lease is lost."""
        call = Call(self._pair(lease.stream), (self.worker, lease.token, entry_id))
        return int(await script("attempt").run_one(self._redis, call))

    async def state(self, stream: str) -> dict[str, str]:
        """What was saved with the position."""
        saved = self._redis.hgetall(self._key(stream, STATE_PART))
        return cast("dict[str, str]", await saved)

    async def ticks(self, stream: str) -> dict[str, int]:
        """When each timer was due for the last time, ms."""
        saved: Any = await self._redis.hgetall(self._key(stream, TICKS_PART))
        return {
            name: at_ms for name, text in saved.items() if (at_ms := whole_number(text)) is not None
        }

    async def renew(self, redis: Redis, leases: Sequence[Lease]) -> list[Lease]:
        """Hold them for another while, over the given connection. Returns those that are lost."""
        answers = await script("renew").run(redis, self.renewals(leases))
        kept = checked([0 if is_of_a_key(one) else one for one in answers])
        return [lease for lease, answer in zip(leases, kept, strict=True) if not answer]

    def renewals(self, leases: Sequence[Lease]) -> list[Call]:
        """The calls of the script that holds them."""
        return [
            Call(self._pair(lease.stream), (self.worker, lease.token, self.lease_ms))
            for lease in leases
        ]

    async def release(self, leases: Sequence[Lease]) -> None:
        """Let others have them at once."""
        calls = [Call(self._pair(lease.stream), (self.worker, lease.token)) for lease in leases]
        answers = await script("release").run(self._redis, calls)
        checked([one for one in answers if not is_of_a_key(one)])  # else there is none to release

    async def commit(self, commits: Sequence[Commit]) -> list[Answer | Exception]:
        """An answer for each; an error where a key is of the wrong kind, or no answer came. Sent
        again after that, a commit is applied once or refused.
        """
        name = "commit_joined" if commits and commits[0].moves else "commit"
        replies = await script(name).run(self._redis, [self._call(one) for one in commits])
        return [_answer(*pair) for pair in zip(commits, replies, strict=True)]

    def _call(self, commit: Commit) -> Call:
        if commit.moves:
            return self._call_joined(commit)
        # The count of commits makes each one unique, also those that do not move the position: sent
        # again after a lost reply, it is refused as stale and not applied twice.
        lease, index = commit.lease, dict[str, int]()
        arguments = [
            self.worker,
            lease.token,
            self.lease_ms,
            self._group,
            commit.expected,
            commit.position,
            commit.handled,
            lease.commits,
            *packed(commit.writes, index, first=4),
        ]
        owner, position = self._pair(lease.stream)
        keys = owner, position, self._keys.stream(lease.stream) if lease.is_stream else position
        return Call((*keys, *(self._key(lease.stream, part) for part in index)), arguments)

    def _call_joined(self, commit: Commit) -> Call:
        lease, index, keys = commit.lease, dict[str, int](), [*self._pair(commit.lease.stream)]
        arguments: list[str | int] = [self.worker, lease.token, self.lease_ms, self._group]
        arguments += (lease.commits, len(commit.moves))
        for stream, position, handled in commit.moves:
            keys += (self._keys.stream(stream), self._keys.position(stream, self._group))
            arguments += (position, handled)
        arguments += packed(commit.writes, index, first=len(keys) + 1)
        return Call((*keys, *(self._key(lease.stream, part) for part in index)), arguments)

    def _key(self, stream: str, part: str) -> str:
        return self._keys.beside(stream, self._group, part)

    def _pair(self, stream: str) -> tuple[str, str]:
        return self._keys.lease(stream, self._group), self._keys.position(stream, self._group)


def _answer(commit: Commit, reply: Any) -> Answer | Exception:
    if isinstance(reply, Exception):
        return reply
    answer = Answer(CommitStatus(reply[0]), *map(int, reply[1:]))
    if answer.status is CommitStatus.OK:
        commit.lease.count_commit()
    return answer
