"""Copies every key to its shard for another number of shards.

Streams are copied with their IDs, groups and pending entries; so are the keys of consumers beside
them, and all further keys of the bridge. No program may run meanwhile. An existing key is replaced,
unless it is a stream with entries that the old one lacks: so an interrupted attempt can be
repeated, and what a bridge has published since is not lost. The old keys stay until `delete_old`.
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
    """A key that is to be copied to another shard."""

    name: str
    old: str
    new: str


class Resharding:
    """Moves keys from one number of shards to another. The clients must not decode responses."""

    def __init__(self, old: Redis, old_space: KeySpace, new: Redis, new_space: KeySpace) -> None:
        self._old = old
        self._old_space = old_space
        self._new = new
        self._new_space = new_space

    async def plan(self) -> Sequence[Move]:
        """All keys that have to move. Raises Fatal if one has no single shard."""
        names = [name async for name in self._names()]
        before = _joined_places(names, self._old_space)
        after = _joined_places(names, self._new_space)
        moves = []
        for name, key in names:
            old, new = self._old_space.key(name), self._new_space.key(name)
            if (joined := _joined_of(name)) is not None:
                old = self._old_space.prefix_of(before[joined]) + name
                new = self._new_space.prefix_of(after[joined]) + name
            # a key that an earlier resharding left at its old place is not in use
            if old == key != new:
                moves.append(Move(name, key, new))
        return moves

    async def copy(self, moves: Iterable[Move]) -> int:
        """Copy the keys. Returns how many. Raises Fatal, before any change, if one must not be
        replaced.
        """
        chosen = list(moves)
        for move in chosen:
            await self._refuse_newer(move)
        for move in chosen:
            await self._copy(move)
        return len(chosen)

    async def delete_old(self, moves: Iterable[Move]) -> int:
        """Delete the old keys. Returns how many. Raises Fatal, before any change, if a copy is
        missing or incomplete.
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
        """All names under the old prefixes with their keys."""
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
            return  # it has expired meanwhile
        await self._new.restore(move.new, max(0, left_ms), packed, replace=True)

    async def _copy_registry(self, move: Move) -> None:
        lines: Any = await self._old.hgetall(move.old)
        moved = {name: self._described_anew(name, line) for name, line in lines.items()}
        await self._new.hset(move.new, mapping=moved)

    def _described_anew(self, name: bytes, line: bytes) -> bytes:
        """A line of the registry for the new key; unchanged if no bridge wrote it."""
        try:
            return described_at(line.decode(), self._new_space.key(name.decode())).encode()
        except UnicodeDecodeError:
            return line


def _joined_of(name: str) -> tuple[str, str] | None:
    """The joined streams' key and group of a name; None: it is another kind of name."""
    stream = stream_beside(name)
    if not stream.startswith(_JOINED):
        return None
    return stream, name.split(":")[2]


def _joined_places(names: Iterable[tuple[str, str]], space: KeySpace) -> dict[tuple[str, str], int]:
    """The shard of the common keys of joined streams: that of the streams."""
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
    """The last ID of a stream; that of an empty one for a missing key or one of another type."""
    try:
        info: Any = await client.xinfo_stream(key)
    except ResponseError as error:
        if "no such key" in str(error) or str(error).startswith("WRONGTYPE"):
            return EMPTY
        raise  # unknown: if it counted as empty, more would be deleted than was copied
    last = info["last-generated-id"]
    return last.decode() if isinstance(last, bytes) else str(last)
