"""A client of several shards of a Cluster: each command goes to the shard of its key.

Each shard has its own client, which follows the primary of its slot by itself. A command without a
key goes to the first shard, a SCAN to that of its pattern's hash tag. A pipeline is split, sent to
all its shards concurrently, and its replies are in the order of its commands: where a shard's node
is unavailable, only its commands have errors, which name the shard. All keys of one command must be
of one shard: Redis runs neither a script nor a read over two slots.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import redis
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.client import Pipeline as BlockingPipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bridge.runtime.redis_url import tag_of

_BEHIND_COUNT = frozenset(["EVAL", "EVALSHA"])
_BEHIND_WORD = {"XREAD": "STREAMS", "XREADGROUP": "STREAMS", "SCAN": "MATCH"}
_UNAVAILABLE = (RedisError, OSError, TimeoutError)

_Command = tuple[Sequence[Any], Mapping[str, Any]]


def key_of(command: Sequence[Any]) -> str:
    """The first key of a command, as given to the Redis client, or the pattern of a SCAN; any text
    for a command without a key.
    """
    name = _text(command[0]).upper()
    word, place = name.split(" ")[0], 1
    if word in _BEHIND_COUNT:
        place = 3 if _text(command[2]) != "0" else len(command)
    elif word in _BEHIND_WORD:
        parts = (_text(part).upper() for part in command)
        found = (number for number, one in enumerate(parts, 1) if one == _BEHIND_WORD[word])
        place = next(found, len(command))
    elif name in ("XINFO", "XGROUP"):
        place = 2
    return _text(command[place]) if place < len(command) else ""


def _text(part: Any) -> str:
    return part.decode(errors="replace") if isinstance(part, bytes) else str(part)


class _Router:
    """Maps a command to its shard, by the hash tag of its key."""

    def __init__(self, tags: Sequence[str]) -> None:
        self._shards = {tag: shard for shard, tag in enumerate(tags)}

    def shard_of(self, command: Sequence[Any]) -> int:
        return self._shards.get(tag_of(key_of(command)), 0)

    def by_shard(self, commands: Iterable[_Command]) -> dict[int, list[tuple[int, _Command]]]:
        """The commands of a pipeline by shard, each with its index in the pipeline."""
        groups: dict[int, list[tuple[int, _Command]]] = {}
        for place, command in enumerate(commands):
            groups.setdefault(self.shard_of(command[0]), []).append((place, command))
        return groups


def _of_shard(error: BaseException, shard: int) -> BaseException:
    """The same error; a connection's error gets the shard, a refusal already names its key."""
    if isinstance(error, RedisConnectionError | RedisTimeoutError):
        error.args = (f"shard {shard} does not answer: {error}",)
    return error


@contextlib.contextmanager
def _naming(shard: int) -> Iterator[None]:
    try:
        yield
    except _UNAVAILABLE as error:
        _of_shard(error, shard)
        raise


def _raise_first(replies: Iterable[Any]) -> None:
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply


class ShardedRedis(Redis):
    """`shards`: the clients, by number, for blocking reads, which need one of each shard."""

    def __init__(self, shards: Sequence[Redis], tags: Sequence[str]) -> None:
        super().__init__(connection_pool=shards[0].connection_pool)
        self.shards = shards
        self._tags = tags
        self._router = _Router(tags)

    def with_shards(self, shards: Sequence[Redis]) -> "ShardedRedis":
        """The same keys through other clients, which this one does not close."""
        return ShardedRedis(shards, self._tags)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        shard = self._router.shard_of(args)
        with _naming(shard):
            return await self.shards[shard].execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "Pipeline":  # noqa: FBT001, FBT002 - the client's own signature
        assert not transaction, "over several shards there is none"
        return _ShardedPipeline(self.shards, self._router)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - the client's own signature
        for shard in self.shards:
            await shard.aclose(close_connection_pool)


class _ShardedPipeline(Pipeline):
    def __init__(self, shards: Sequence[Redis], router: _Router) -> None:
        super().__init__(shards[0].connection_pool, {}, False, None)  # noqa: FBT003 - no transaction
        self._shards_ = shards
        self._router = router

    async def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - the client's own signature
        commands: list[_Command] = self.command_stack  # type: ignore[assignment]
        self.command_stack = []
        parts = self._router.by_shard(commands)
        replies: list[Any] = [None] * len(commands)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(self._part(*one)) for one in parts.items()]
        for part, some in zip(parts.values(), running, strict=True):
            for (place, _), reply in zip(part, some.result(), strict=True):
                replies[place] = reply
        if raise_on_error:
            _raise_first(replies)
        return replies

    async def _part(self, shard: int, part: Sequence[tuple[int, _Command]]) -> Sequence[Any]:
        async with self._shards_[shard].pipeline(transaction=False) as pipeline:
            for _, (command, options) in part:
                pipeline.execute_command(*command, **options)
            try:
                return await pipeline.execute(raise_on_error=False)
            except _UNAVAILABLE as error:
                return [_of_shard(error, shard)] * len(part)


class ShardedBlockingRedis(redis.Redis):
    """`ShardedRedis` without an event loop; it sends to one shard after the other."""

    def __init__(self, shards: Sequence[redis.Redis], tags: Sequence[str]) -> None:
        super().__init__(connection_pool=shards[0].connection_pool)
        self.shards = shards
        self._router = _Router(tags)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        shard = self._router.shard_of(args)
        with _naming(shard):
            return self.shards[shard].execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def set_response_callback(self, command: str, callback: Any) -> None:
        for shard in self.shards:
            shard.set_response_callback(command, callback)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> BlockingPipeline:  # noqa: FBT001, FBT002 - the client's own signature
        assert not transaction, "over several shards there is none"
        return _ShardedBlockingPipeline(self.shards, self._router)

    def close(self) -> None:
        for shard in self.shards:
            shard.close()


class _ShardedBlockingPipeline(BlockingPipeline):
    def __init__(self, shards: Sequence[redis.Redis], router: _Router) -> None:
        super().__init__(shards[0].connection_pool, {}, False, None)  # noqa: FBT003 - no transaction
        self._shards_ = shards
        self._router = router

    def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - the client's own signature
        commands: list[_Command] = self.command_stack
        self.command_stack = []
        replies: list[Any] = [None] * len(commands)
        for shard, part in self._router.by_shard(commands).items():
            with self._shards_[shard].pipeline(transaction=False) as pipeline:
                for _, (command, options) in part:
                    pipeline.execute_command(*command, **options)  # type: ignore[no-untyped-call]
                try:
                    some = pipeline.execute(raise_on_error=False)
                except _UNAVAILABLE as error:
                    some = [_of_shard(error, shard)] * len(part)
            for (place, _), reply in zip(part, some, strict=True):
                replies[place] = reply
        if raise_on_error:
            _raise_first(replies)
        return replies


def shards_of(client: Redis) -> Sequence[Redis]:
    """The clients of all shards; the client itself where it has no shards."""
    return client.shards if isinstance(client, ShardedRedis) else [client]
