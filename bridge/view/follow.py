"""Follows growing streams: XREAD without a group, from any position, through Redis outages.

Nothing is acknowledged and no other reader is disturbed. A stream that appears later, or a new
match of a pattern, is followed from its first entry. Reading resumes after the last entry returned.
With several shards, those that answer are followed while others do not; the registry is in the
first shard, so without it the remaining shards are scanned for streams.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    ResponseError,
)

from bridge.contract import keys
from bridge.contract.identity import EntryId
from bridge.contract.streams import is_stream
from bridge.errors import Fatal
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_shards import shards_of
from bridge.runtime.redis_trouble import reason
from bridge.runtime.stream_search import streams_beside
from bridge.runtime.time_range import BEGINNING, NEW
from bridge.view.choose import absence, chosen, is_pattern
from bridge.view.facts import Followed
from bridge.view.reader import UNAVAILABLE

BLOCK_MS = 1000  # well under the socket's timeout
_BATCH = 200
_REGISTRY_EVERY_S = 2.0
_UNAVAILABLE_EVERY_S = 20.0  # while the registry's shard is down: each attempt may time out
_RETRY_S = 1.0


class Follower:
    """Follows names and patterns. `start` is the ID to begin after, or `$`: only new entries.
    `report` gets messages for the user, a line each; `tasks` runs the reads of several shards.
    """

    def __init__(
        self,
        client: Redis,
        space: KeySpace,
        requested: Sequence[str],
        start: str,
        report: Callable[[str], None],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._client = client
        self._space = space
        self._requested = requested
        self._start = start
        self._report = report
        self._after: dict[str, str] = {}  # stream → the last ID returned
        self._tasks = tasks
        self._reads: dict[int, asyncio.Task[list[Followed]]] = {}  # by shard, where there are more
        self._unavailable: set[int] = set()  # shards that do not answer
        self._reported: set[str] = set()
        self._find_at_s = float("-inf")
        self._is_first = True
        self._unseen: set[int] = set()  # shards that have not answered since the first poll

    async def entries(self) -> AsyncIterator[list[Followed]]:
        """Batches of entries in order of their IDs, without an end; a batch may be empty.

        Raises Fatal where Redis refuses a command or the login.
        """
        unavailable = False
        while True:
            try:
                await self._find_streams()
                batch = await self._read()
            except (AuthenticationError, NoPermissionError) as error:
                raise Fatal(f"Redis refuses: {reason(error)}") from None
            except BusyLoadingError:
                batch = None
            except ResponseError as error:
                raise Fatal(f"Redis refuses: {reason(error)}") from None
            except UNAVAILABLE as error:
                if not unavailable:
                    self._report(f"Redis does not answer ({reason(error)}): trying again")
                unavailable, batch = True, None
            if batch is None:
                await asyncio.sleep(_RETRY_S)
                continue
            if unavailable:
                self._report("Redis is back")
                unavailable = False
            yield batch

    def stop(self) -> None:
        """Cancel the reads that are waiting."""
        for read in self._reads.values():
            read.cancel()

    async def _find_streams(self) -> None:
        if time.monotonic() < self._find_at_s:
            return
        registry = await self._registry()
        new = [name for name in chosen(self._requested, registry) if name not in self._after]
        empty = await self._begin(new)
        self._is_first = False
        self._unseen &= self._unavailable
        is_whole = 0 not in self._unavailable
        self._find_at_s = time.monotonic() + (
            _REGISTRY_EVERY_S if is_whole else _UNAVAILABLE_EVERY_S
        )
        for one in self._requested if is_whole else ():
            if is_pattern(one) or one in empty:
                self._report_once(absence(one, registry))

    async def _registry(self) -> list[str]:
        """The streams in the registry; without the first shard, those found in the rest."""
        try:
            names: Any = await self._client.hkeys(self._space.key(keys.STREAMS))
        except UNAVAILABLE as error:
            if self._space.shards == 1 or isinstance(error, ResponseError):
                raise
            self._report_unavailable(0, reason(error))
            found, silent = await streams_beside(self._client, self._space, {0})
            for shard, why in silent.items():
                self._report_unavailable(shard, f"shard {shard} does not answer: {reason(why)}")
            return found
        self._is_back(0)
        registry = list(filter(is_stream, names))
        for refused in set(names) - set(registry):
            self._report_once(f"the registry has {refused!r}, which is no stream: skipped")
        return registry

    async def _begin(self, names: Sequence[str]) -> set[str]:
        """Set where to begin in each stream; returns those that do not exist. One whose shard does
        not answer is left for the next poll.
        """
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.exists(self._space.key(name))
            pipeline.xrevrange(self._space.key(name), count=1)
        is_one = self._space.shards == 1
        replies = iter(await pipeline.execute(raise_on_error=is_one) if names else ())
        absent = set()
        for name in names:
            exists, newest = next(replies), next(replies)
            shard = self._space.shard_of(name)
            if isinstance(newest, ResponseError):
                raise newest
            if isinstance(newest, Exception):
                self._report_unavailable(shard, reason(newest))
                continue
            # A stream that appears after the first poll is new, so it is read from its start.
            jump = (self._is_first or shard in self._unseen) and newest
            if self._start == NEW:
                self._after[name] = newest[0][0] if jump else BEGINNING
            else:
                self._after[name] = self._start
            if not exists:
                absent.add(name)
        return absent

    async def _read(self) -> list[Followed]:
        if not self._after:
            await asyncio.sleep(BLOCK_MS / 1000)
            return []
        if self._space.shards == 1:
            found = await self._read_of(self._client, self._after)
        else:
            found = await self._read_shards()
        for entry in found:
            self._after[entry.stream] = entry.entry_id
        return sorted(found, key=lambda entry: EntryId.parse(entry.entry_id))

    async def _read_of(self, client: Redis, after: Mapping[str, str]) -> list[Followed]:
        streams: Any = {self._space.key(name): last for name, last in after.items()}
        replies: Any = await client.xread(streams, count=_BATCH, block=BLOCK_MS)
        return [
            Followed(self._space.name(key), entry_id, fields)
            for key, entries in replies or ()
            for entry_id, fields in entries
        ]

    async def _read_shards(self) -> list[Followed]:
        """Results of the first shards to answer a blocking read; reads of the rest keep waiting."""
        after: dict[int, dict[str, str]] = {}
        for name, last in self._after.items():
            after.setdefault(self._space.shard_of(name), {})[name] = last
        for shard, some in after.items():
            if shard not in self._reads:
                self._reads[shard] = self._tasks.create_task(self._read_shard(shard, some))
        await asyncio.wait(self._reads.values(), return_when=asyncio.FIRST_COMPLETED)
        done = [shard for shard, task in self._reads.items() if task.done()]
        return [entry for shard in done for entry in self._reads.pop(shard).result()]

    async def _read_shard(self, shard: int, after: Mapping[str, str]) -> list[Followed]:
        """One shard's entries. Empty, after a pause, where its node is unavailable."""
        try:
            found = await self._read_of(shards_of(self._client)[shard], after)
        except ResponseError as error:
            raise Fatal(f"Redis refuses: {reason(error)}") from None
        except UNAVAILABLE as error:
            self._report_unavailable(shard, f"shard {shard} does not answer: {reason(error)}")
            await asyncio.sleep(_RETRY_S)
            return []
        self._is_back(shard)
        return found

    def _report_unavailable(self, shard: int, why: str) -> None:
        if self._is_first:
            self._unseen.add(shard)
        if shard not in self._unavailable:
            self._unavailable.add(shard)
            text = why.removesuffix(".")
            self._report(f"{text}. Trying again; the other shards are still followed")

    def _is_back(self, shard: int) -> None:
        if shard in self._unavailable:
            self._unavailable.remove(shard)
            self._report(f"shard {shard} is back")

    def _report_once(self, line: str) -> None:
        if line and line not in self._reported:
            self._reported.add(line)
            self._report(line)
