"""Applies a journal to a core and publishes it, with the journal's own times as the clock.

All decisions are those of live publishing. The exchange is not contacted.
"""

import asyncio
import random
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from bridge.app import outbox_settings, retention_of
from bridge.contract import keys
from bridge.contract.identity import EMPTY
from bridge.contract.streams import Stream
from bridge.core.again import apply_again, read_at_once
from bridge.core.core import Core
from bridge.core.peers import Peers
from bridge.core.plan import ResumePoints
from bridge.core.queue import QueueTable, StreamQueue, queue_table
from bridge.core.records import Record
from bridge.ingest import DROP_SHARE, LOW_SHARE, SUSPENDED_SHARE
from bridge.journal.inspection import Damage, records
from bridge.receiver import core_plan
from bridge.redis.outbox import Change
from bridge.redis.registry import describe
from bridge.redis.shards import new_shards
from bridge.runtime.config import Config
from bridge.runtime.redis_client import connect, resolve_url, urls_of_shards
from bridge.runtime.refusals import is_server_wide

log = structlog.get_logger(__name__)

# The position of published records; others have 0. Before the first chosen frame come only records
# of connections and replies: they are applied, and not published.
CHOSEN = 1
CHUNK = 500  # records between two checks of the queues' size
WAIT_S = 1.0
LOG_EVERY_S = 5.0


class JournalClock:
    """The time of the last applied record, µs."""

    def __init__(self) -> None:
        self._now_us = 0

    def advance(self, us: int) -> None:
        """Set the time of the next record; never backwards, even where the journal's times do."""
        self._now_us = max(self._now_us, us)

    def wall_us(self) -> int:
        return self._now_us

    def now_us(self) -> int:
        return self._now_us


class NoRecovery:
    """No recovery of single streams: entries that Redis loses meanwhile are marked as gaps."""

    def __init__(self, table: QueueTable) -> None:
        self._table = table

    def before_publishing(self) -> None:
        """Nothing to do: the frames are in the journal that is replayed."""

    def redis_changed(self, change: Change, queue: StreamQueue) -> None:
        if change is Change.LOST:
            queue.accept_loss()
            self._table.mark_ready(queue)
        elif change is Change.SUSPENDED:
            log.error("stream_suspended", stream=queue.name, reason=queue.reason)

    def behind_bytes(self) -> int:
        return 0

    def waits_for(self, queues: Sequence[StreamQueue]) -> bool:
        return False

    def suspend(self, queues: Sequence[StreamQueue], reason: str) -> int:
        return 0  # nothing to suspend: reading pauses while too much waits


@dataclass(frozen=True, slots=True)
class Result:
    """The number of replayed frames, and what is not in Redis, one sentence each."""

    frames: int
    troubles: Sequence[str]


class Replay:
    """Replays one journal into one Redis. `account`: the owner of private streams."""

    def __init__(self, config: Config, streams: Sequence[Stream], account: str) -> None:
        self._buffer_bytes = config.publish.buffer_bytes
        self._clock = JournalClock()
        self._redis = config.redis
        self._url = resolve_url(config)
        self._registered: set[str] = set()
        self._registry_trouble = ""
        space = config.redis.keys
        self._table, peers = queue_table(space), Peers(space)
        self.core = Core(streams, core_plan(config), self._table, peers, ResumePoints(CHOSEN))
        self._shards = new_shards(
            self._url,
            space,
            self._table,
            peers,
            NoRecovery(self._table),
            outbox_settings(config, account),
            retention_of(config),
            connect_timeout_s=config.redis.connect_timeout_s,
            clock=self._clock,
            chance=random.Random(),
            buffer_bytes=self._buffer_bytes,
        )
        self._publisher = self._shards.publisher

    async def run(self, recorded: Iterable[Record], from_us: int, factor: float | None) -> None:
        """Apply all records and publish the resulting entries. `factor`: the speed-up; None: as
        fast as Redis accepts them. Frames count from `from_us` on.
        """
        over = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            publishing = tasks.create_task(self._publisher.run())
            log_task = tasks.create_task(self._log_waiting())
            registering = tasks.create_task(self._keep_registry(over))
            await self._apply_all(recorded, from_us, factor)
            await self._publisher.drain(None)
            over.set()
            await registering
            publishing.cancel()
            log_task.cancel()

    def troubles(self) -> list[str]:
        """Sentences on what is missing in Redis."""
        queues = list(self._table)
        found = [
            f"{queue.name} could not be written: {queue.reason}"
            for queue in queues
            if queue.is_suspended
        ]
        found += [
            f"{queue.counters.overflowed:,} messages of {queue.name} were dropped, there was no "
            "room for them (publish.buffer_bytes)"
            for queue in queues
            if queue.counters.overflowed
        ]
        return [*found, *filter(None, [self._registry_trouble])]

    async def _keep_registry(self, over: asyncio.Event) -> None:
        """Add streams to the registry, in the first shard, once they are in Redis; a live bridge
        does it with its heartbeat.
        """
        first, *_ = urls_of_shards(self._url)
        async with connect(
            first,
            name="bridge:replay",
            connect_timeout_s=self._redis.connect_timeout_s,
            command_timeout_s=self._redis.command_timeout_s,
        ) as client:
            while True:
                is_last = over.is_set()
                if await self._register(client) and is_last:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(WAIT_S):
                        await (asyncio.sleep(WAIT_S) if is_last else over.wait())

    async def _register(self, client: Redis) -> bool:
        """Register new streams. Returns whether no retry is needed."""
        space = self._redis.keys
        lines: dict[Any, Any] = {
            queue.name: describe(queue.stream, space.key(queue.name))
            for queue in self._table
            if queue.confirmed != EMPTY and not queue.stream.is_own
        }
        new = {name: line for name, line in lines.items() if name not in self._registered}
        try:
            if new:
                await client.hset(space.key(keys.STREAMS), mapping=new)
        except (RedisError, OSError, TimeoutError) as error:
            self._registry_trouble = f"streams could not be listed: {error}"
            # A key of a wrong type must not stop a replay.
            return isinstance(error, ResponseError) and not is_server_wide(error)
        self._registered.update(new)
        self._registry_trouble = ""
        return True

    async def _apply_all(
        self, recorded: Iterable[Record], from_us: int, factor: float | None
    ) -> None:
        begun_s, first_us = time.monotonic(), 0
        taken = 0
        placed = (
            ((CHOSEN if each.received_us >= from_us else 0, each) for each in recorded)
            if from_us > 0
            else zip(repeat(CHOSEN), recorded)
        )
        for positions, record in read_at_once(placed):
            first_us = first_us or record.received_us
            if factor is not None:
                due_s = begun_s + (record.received_us - first_us) / 1e6 / factor
                if (wait_s := due_s - time.monotonic()) > 0:
                    self._publisher.pump()
                    await asyncio.sleep(wait_s)
            self._clock.advance(record.received_us)
            apply_again(self.core, record, positions, self._clock.now_us())
            taken += len(positions)
            if taken >= CHUNK:
                taken = 0
                self._publisher.pump()
                await asyncio.sleep(0)
                await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        """Return once there is room, or where only the advance of the journal's clock can release
        waiting entries, since that clock is stopped meanwhile.
        """
        self._bound_suspended()
        while self._table.pending_bytes() > self._buffer_bytes // LOW_SHARE:
            if self._only_time_helps():
                if self._table.pending_bytes() <= self._buffer_bytes:
                    return
                self.core.wait_no_longer()
                if self._only_time_helps():
                    return
            self._publisher.pump()
            await self._publisher.progress(WAIT_S)
            self._bound_suspended()

    def _bound_suspended(self) -> None:
        limit_bytes = self._buffer_bytes // SUSPENDED_SHARE
        for queue in self._table:
            while queue.is_suspended and queue.bytes > limit_bytes:
                if queue.drop_oldest(DROP_SHARE) <= 0:
                    break

    def _only_time_helps(self) -> bool:
        """Whether all waiting entries are due after the last applied record's time."""
        waiting = [queue for queue in self._table if queue.slots and not queue.is_suspended]
        return all((queue.due_us() or 0) > self._clock.now_us() for queue in waiting)

    async def _log_waiting(self) -> None:
        """Log periodically while Redis is unavailable, since the replay then stalls."""
        while True:
            await asyncio.sleep(LOG_EVERY_S)
            if trouble := self._shards.trouble:
                log.warning("replay_waits", reason=trouble, entries=self._table.pending())


async def replay(
    config: Config,
    path: Path,
    streams: Sequence[Stream],
    factor: float | None,
    span: tuple[int, int | None],
    account: str,
) -> Result:
    """Publish the journal at a path. `factor`: the speed-up, None: as fast as Redis accepts
    entries; `span`: range of the frames, µs; `account`: the owner of private streams. Raises
    ConfigError, and OtherAccount in a group.
    """
    damage = Damage()
    one = Replay(config, streams, account)
    await one.run(records(path, *span, damage), span[0], factor)
    troubles = one.troubles()
    if damage.lines:
        troubles.append(
            f"{damage.lines:,} damaged lines were skipped: python -m bridge journal verify {path}"
        )
    return Result(one.core.counters.frames, troubles)
