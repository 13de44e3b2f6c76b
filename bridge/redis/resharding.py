"""Another number of shards: every key is copied to where it belongs then, whole.

Streams with their IDs, their groups and what is pending in them; what consumers keep beside them;
all else of the bridge. Nothing may run meanwhile. A key that is there already is replaced, unless
it is a stream with entries that the old one lacks: so an attempt that broke off is made again, and
what a bridge has published since is not lost. The old keys stay until they are deleted.
"""

import re
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from bridge.contract import keys
from bridge.contract.identity import EMPTY
from bridge.contract.streams import parse_stream
from bridge.core.queue import is_before
from bridge.errors import Fatal
from bridge.redis.registry import described_at
from bridge.runtime.keyspace import KeySpace, stream_beside

_JOINED = "joined."
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Move:
    """A key that belongs elsewhere."""

    name: str
    old: str
    new: str


class Resharding:
    """From one number of shards to another. The clients decode no responses."""

    def __init__(self, old: Redis, old_space: KeySpace, new: Redis, new_space: KeySpace) -> None:
        self._old = old
        self._old_space = old_space
        self._new = new
        self._new_space = new_space

    async def plan(self) -> Sequence[Move]:
        """All keys that belong elsewhere. Raises Fatal where one has no place."""
        names = [name async for name in self._names()]
        before = _joined_places(names, self._old_space)
        after = _joined_places(names, self._new_space)
        moves = []
        for name, key in names:
            old, new = self._old_space.key(name), self._new_space.key(name)
            if (joined := _joined_of(name)) is not None:
                old = self._old_space.prefix_of(before[joined]) + name
                new = self._new_space.prefix_of(after[joined]) + name
            # what was left where an earlier number had it is no more in use
            if old == key != new:
                moves.append(Move(name, key, new))
        return moves

    async def copy(self, moves: Iterable[Move]) -> int:
        """Copy the keys; nothing is changed where one must not be replaced. Returns how many.
        Raises Fatal, which says which.
        """
        chosen = list(moves)
        for move in chosen:
            await self._refuse_newer(move)
        for move in chosen:
            await self._copy(move)
        return len(chosen)

    async def delete_old(self, moves: Iterable[Move]) -> int:
        """Delete the old keys whose copies are there. Returns how many. Raises Fatal where one is
        not.
        """
        chosen = list(moves)
        for move in chosen:
            if not await self._new.exists(move.new) or is_before(
                await _last_id(self._new, move.new), await _last_id(self._old, move.old)
            ):
                raise Fatal(f"{move.new} is not there, or has less than {move.old}: copy it first")
        for move in chosen:
            await self._old.unlink(move.old)
        return len(chosen)

    async def _names(self) -> AsyncIterator[tuple[str, str]]:
        """All names under the old prefixes, each with its key."""
        space = self._old_space
        for shard in range(space.shards):
            prefix = space.prefix_of(shard)
            pattern = re.sub(r"[*?\[\]\\]", r"\\\g<0>", prefix) + "*"
            async for raw in self._old.scan_iter(match=pattern, count=_PAGE):
                key = raw.decode(errors="surrogateescape")
                yield key[len(prefix) :], key

    async def _refuse_newer(self, move: Move) -> None:
        there, here = await _last_id(self._new, move.new), await _last_id(self._old, move.old)
        if is_before(here, there):
            raise Fatal(
                f"{move.new} ends at {there}, behind {move.old}, which ends at {here}: a bridge "
                "has published there since. Delete the keys of the new number, and begin anew: "
                "its journal has what it published"
            )

    async def _copy(self, move: Move) -> None:
        if move.name == keys.STREAMS:
            await self._copy_registry(move)
            return
        packed: Any = await self._old.dump(move.old)
        left_ms: Any = await self._old.pttl(move.old)
        if packed is None:
            return  # it has run out meanwhile
        await self._new.restore(move.new, max(0, left_ms), packed, replace=True)

    async def _copy_registry(self, move: Move) -> None:
        lines: Any = await self._old.hgetall(move.old)
        moved = {name: self._described_anew(name, line) for name, line in lines.items()}
        await self._new.hset(move.new, mapping=moved)

    def _described_anew(self, name: bytes, line: bytes) -> bytes:
        """A line of the registry; as it is, where no bridge wrote it."""
        try:
            return described_at(line.decode(), self._new_space.key(name.decode())).encode()
        except UnicodeDecodeError:
            return line


def _joined_of(name: str) -> tuple[str, str] | None:
    """The key of joined streams, and their group, that a name is of."""
    stream = stream_beside(name)
    if not stream.startswith(_JOINED):
        return None
    return stream, name.split(":")[2]


def _joined_places(names: Iterable[tuple[str, str]], space: KeySpace) -> dict[tuple[str, str], int]:
    """Where what joined streams have in common belongs: to their shard."""
    joined: set[tuple[str, str]] = set()
    positions: dict[str, set[str]] = {}  # group → streams that it has a place in
    for name, _ in names:
        if (one := _joined_of(name)) is not None:
            joined.add(one)
        elif (stream := stream_beside(name)) and name.endswith(":position"):
            positions.setdefault(name.split(":")[2], set()).add(stream)
    return {one: _joined_place(*one, positions.get(one[1], set()), space) for one in joined}


def _joined_place(joined: str, group: str, streams: Iterable[str], space: KeySpace) -> int:
    key = joined.removeprefix(_JOINED)
    of_market = {name for name in streams if parse_stream(name).symbol == key}
    shards = {space.shard_of(name) for name in of_market or streams}
    if len(shards) > 1:
        raise Fatal(
            f"group {group} joins as {key!r} streams that would be in {len(shards)} shards: one "
            f"script must reach all of them. Choose redis.shards: 1, or delete the group's keys"
        )
    return shards.pop() if shards else 0


async def _last_id(client: Redis, key: str) -> str:
    """Of a stream; of any other key, or none, that of an empty one."""
    try:
        told: Any = await client.xinfo_stream(key)
    except ResponseError as error:
        if "no such key" in str(error) or str(error).startswith("WRONGTYPE"):
            return EMPTY
        raise  # not known: taken for empty, more would be deleted than was copied
    last = told["last-generated-id"]
    return last.decode() if isinstance(last, bytes) else str(last)
