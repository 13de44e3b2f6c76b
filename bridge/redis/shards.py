"""All shards of one bridge's Redis, each with an outbox, a connection and a publisher.

Shards are independent: if the node of one is unavailable, only its streams wait. With one shard,
the default, its publisher is used directly.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

from bridge.core.counters import OutboxCounters
from bridge.core.latency import Latencies
from bridge.core.peers import Peers
from bridge.core.queue import QueueTable, parts_of
from bridge.core.round_trips import RoundTrips
from bridge.redis.append import Retention
from bridge.redis.connection import Target
from bridge.redis.outbox import Outbox, OutboxSettings
from bridge.redis.publisher import Publisher, Recovery
from bridge.runtime.backoff import Backoff
from bridge.runtime.clock import Clock
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_client import urls_of_shards

BACKOFF_S = (0.1, 2.0)  # between two attempts to connect


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard."""

    outbox: Outbox
    publisher: Publisher
    table: QueueTable  # of its streams


class Publishers:
    """The publishers of several shards, with the interface of one."""

    def __init__(self, each: Sequence[Publisher]) -> None:
        self._each = each

    async def run(self) -> None:
        """Publish until cancelled. Raises Fatal only, in a group."""
        async with asyncio.TaskGroup() as tasks:
            for publisher in self._each:
                tasks.create_task(publisher.run())

    def pump(self) -> None:
        """Send waiting entries over each publisher that awaits no reply."""
        for publisher in self._each:
            publisher.pump()

    async def progress(self, limit_s: float) -> None:
        """Wait for the next reply of any shard, at most so long."""
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(one.progress(limit_s)) for one in self._each]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for one in waiting:
                one.cancel()

    async def drain(self, limit_s: float | None) -> None:
        """Wait until no entry waits for any shard, at most so long."""
        async with asyncio.TaskGroup() as tasks:
            for publisher in self._each:
                tasks.create_task(publisher.drain(limit_s))


class Shards:
    """All shards: their common settings and status."""

    def __init__(self, each: Sequence[Shard]) -> None:
        self._each = each
        first = each[0].publisher
        self.publisher: Publisher | Publishers = (
            first if len(each) == 1 else Publishers([one.publisher for one in each])
        )

    def retain(self, retention: Retention) -> None:
        """Change the retention."""
        for shard in self._each:
            shard.outbox.retain(retention)

    @property
    def trouble(self) -> str:
        """Why something is not published now, with shard and node if there are several."""
        if len(self._each) == 1:
            return self._each[0].outbox.trouble
        return "; ".join(
            f"shard {number} at {shard.publisher.address}: {shard.outbox.trouble}"
            for number, shard in enumerate(self._each)
            if shard.outbox.trouble
        )

    def status(self) -> Mapping[str, Any]:
        """The shards' part of a bridge's status."""
        outboxes = [shard.outbox for shard in self._each]
        counters: OutboxCounters = reduce(add, (outbox.counters for outbox in outboxes))
        return {
            "redis_trouble": self.trouble,
            "registry_trouble": outboxes[0].registry_trouble,
            "acknowledged_us": max(outbox.newest_us for outbox in outboxes),
            "outbox": counters.as_dict(),
            "latencies": Latencies.total(outbox.latencies for outbox in outboxes).as_dict(),
            "round_trips": RoundTrips.total(outbox.round_trips for outbox in outboxes).as_dict(),
            "shards": self._shards_status() if len(self._each) > 1 else [],
        }

    def _shards_status(self) -> Sequence[Mapping[str, Any]]:
        return [
            {
                "shard": number,
                "node": shard.publisher.address,
                "trouble": shard.outbox.trouble,
                "pending": shard.table.pending(),
            }
            for number, shard in enumerate(self._each)
        ]


def new_shards(
    url: str,
    space: KeySpace,
    table: QueueTable,
    peers: Peers,
    recovery: Recovery,
    settings: OutboxSettings,
    retention: Retention,
    *,
    connect_timeout_s: float,
    clock: Clock,
    chance: random.Random,
    buffer_bytes: int,
) -> Shards:
    """A shard for each part of the table; `buffer_bytes`: the memory for entries of all shards.
    Raises ConfigError for a URL that cannot be used.
    """
    each = []
    tables = parts_of(table)
    is_one = len(tables) == 1
    for number, (part, one) in enumerate(zip(tables, urls_of_shards(url), strict=True)):
        mine = replace(settings, key_prefix=space.prefix_of(number), shard=number)
        outbox = Outbox(part, peers, mine, retention)
        publisher = Publisher(
            outbox,
            part,
            recovery,
            Target.from_url(one, connect_timeout_s),
            connect_timeout_s=connect_timeout_s,
            clock=clock,
            backoff=Backoff(*BACKOFF_S, chance),
            shard=None if is_one else number,
            # All nodes but one may be unavailable: their entries leave half of the memory to it.
            kept_bytes=None if is_one else buffer_bytes // (2 * len(tables)),
        )
        each.append(Shard(outbox, publisher, part))
    return Shards(each)
