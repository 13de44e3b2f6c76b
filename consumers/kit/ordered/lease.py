"""Ownership of streams in ordered mode, as kept in Redis: leases, fencing tokens, commits.

The owner of a stream may move its position. Leases expire by the server's clock; each new owner
gets a larger token, and the scripts refuse a caller with an older one, so a worker that was
suspended for longer than its lease can neither write results nor move a position. The loop decides
which worker should own which stream.
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
    """Ownership of a stream, and its position at acquisition."""

    stream: str
    token: int
    position: str
    after_a_crash: bool = False  # its last owner did not release it
    is_stream: bool = True  # False: a name that is no stream: of joined streams, or of timers
    commits: int = field(default=0, compare=False)  # commits that Redis has confirmed

    def count_commit(self) -> None:
        """Record that Redis has confirmed a commit."""
        self.commits += 1


class Move(NamedTuple):
    """The new position of one of the joined streams, and the number of entries up to it."""

    stream: str
    position: str
    handled: int


class Commit(NamedTuple):
    """The commit of a batch: from the expected position to the new one, with all writes. For joined
    streams, `moves` has the positions of the streams."""

    lease: Lease
    expected: str
    position: str
    handled: int
    writes: Sequence[Write]
    moves: Sequence[Move] = ()


class CommitStatus(StrEnum):
    """Redis' answer to a commit; the values are those of `commit.lua`."""

    OK = "ok"  # applied completely
    STALE = "stale"  # refused: the stream has another owner, or the commit was applied before
    LOST = "lost"  # refused: Redis was emptied and has no owner


class Answer(NamedTuple):
    """Redis' answer to a commit."""

    status: CommitStatus
    missed: int = 0  # entries that were removed before they could be read


class Leases:
    """The leases of a group, used by one worker."""

    def __init__(self, redis: Redis, keys: Keys, group: str, worker: str, lease_ms: int) -> None:
        self._redis = redis
        self._keys = keys
        self._group = group
        self._shortest_ms = lease_ms
        self.lease_ms = lease_ms  # duration of leases that are acquired and renewed from now on
        self.worker = worker  # `<name>/<nonce>`: processes of the same name are different owners

    def outlast(self, call_s: float) -> None:
        """Make leases longer than a call of `call_s`, during which a lease has expired. Otherwise a
        stream with such calls would move from worker to worker without a commit."""
        self.lease_ms = max(self.lease_ms, self._shortest_ms + int(call_s * 1000))

    async def free(self, streams: Sequence[str]) -> list[str]:
        """The streams without an owner, or owned by this worker, in the given order."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for stream in streams:
                pipeline.get(self._keys.lease(stream, self._group))
            holders = await pipeline.execute(raise_on_error=False)
        # A key of another type counts as free here: `acquire` refuses it with an error.
        holders = checked([None if is_of_a_key(one) else one for one in holders])
        # A lease of ours that the loop does not have is of an acquire whose reply was lost.
        mine = f"{self.worker} "
        return [
            stream
            for stream, holder in zip(streams, holders, strict=True)
            if holder is None or holder.startswith(mine)
        ]

    async def acquire(self, stream: str, start: str, *, is_stream: bool = True) -> Lease | None:
        """The lease, or None if another worker has it. `is_stream` is False for a name that is no
        stream (joined streams, timers). Raises ResponseError for a key of another type."""
        lease, position = self._pair(stream)
        keys = lease, position, self._keys.stream(stream) if is_stream else position
        call = Call(keys, (self.worker, self.lease_ms, self._group, start))
        reply = await script("acquire").run_one(self._redis, call)
        if reply is None:
            return None
        token, position, was_left = reply
        return Lease(stream, int(token), position, bool(was_left), is_stream)

    async def join_streams(self, lease: Lease, starts: Mapping[str, str]) -> dict[str, str] | None:
        """The positions of joined streams under one lease; `starts` for streams without one. None
        if the lease is lost. Raises ResponseError for a key of another type."""
        keys = [self._pair(lease.stream)[1]]
        for stream in starts:
            keys += (self._keys.stream(stream), self._keys.position(stream, self._group))
        call = Call(keys, (self.worker, lease.token, self._group, *starts.values()))
        positions = await script("join_streams").run_one(self._redis, call)
        return None if positions is None else dict(zip(starts, positions, strict=True))

    async def begin_attempt(self, lease: Lease, entry_id: str) -> int:
        """Mark in Redis that an attempt at this entry begins. Returns the number of attempts begun
        by all owners, this one included; 0 if the lease is lost."""
        call = Call(self._pair(lease.stream), (self.worker, lease.token, entry_id))
        return int(await script("attempt").run_one(self._redis, call))

    async def state(self, stream: str) -> dict[str, str]:
        """The state saved with the position: field → JSON."""
        saved = self._redis.hgetall(self._key(stream, STATE_PART))
        return cast("dict[str, str]", await saved)

    async def ticks(self, stream: str) -> dict[str, int]:
        """Timer → its last due time, ms since 1970."""
        saved: Any = await self._redis.hgetall(self._key(stream, TICKS_PART))
        return {
            name: at_ms for name, text in saved.items() if (at_ms := whole_number(text)) is not None
        }

    async def renew(self, redis: Redis, leases: Sequence[Lease]) -> list[Lease]:
        """Renew leases, over the given connection. Returns the lost ones."""
        answers = await script("renew").run(redis, self.renewals(leases))
        kept = checked([0 if is_of_a_key(one) else one for one in answers])
        return [lease for lease, answer in zip(leases, kept, strict=True) if not answer]

    def renewals(self, leases: Sequence[Lease]) -> list[Call]:
        """The calls of `renew.lua` for these leases."""
        return [
            Call(self._pair(lease.stream), (self.worker, lease.token, self.lease_ms))
            for lease in leases
        ]

    async def release(self, leases: Sequence[Lease]) -> None:
        """Release leases, so that other workers can acquire them at once."""
        calls = [Call(self._pair(lease.stream), (self.worker, lease.token)) for lease in leases]
        answers = await script("release").run(self._redis, calls)
        checked(
            [one for one in answers if not is_of_a_key(one)]
        )  # another type: no lease to release

    async def commit(self, commits: Sequence[Commit]) -> list[Answer | Exception]:
        """An answer per commit; an error if a key has the wrong type, or if no answer came. After a
        lost answer a commit can be sent again: it is applied once or refused.
        """
        name = "commit_joined" if commits and commits[0].moves else "commit"
        replies = await script(name).run(self._redis, [self._call(one) for one in commits])
        return [_answer(*pair) for pair in zip(commits, replies, strict=True)]

    def _call(self, commit: Commit) -> Call:
        if commit.moves:
            return self._call_joined(commit)
        # The count of commits makes each commit unique, also without a move of the position: sent
        # again after a lost reply, it is refused as stale instead of applied twice.
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
