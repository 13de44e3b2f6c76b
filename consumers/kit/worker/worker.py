"""A worker: one consumer and its loops, from the first connection to a clean stop.

Only assembles the parts and defines the order of shutdown. Each blocking reader has a connection of
its own; the client never retries by itself.
"""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bridge.metrics.pages import serve
from bridge.runtime.address import Address
from bridge.runtime.config import Config
from bridge.runtime.redis_client import (
    connect,
    connect_blocking,
    resolve_url,
    urls_of_shards,
)
from bridge.runtime.redis_url import replica_url
from bridge.runtime.replica import COMMAND_TIMEOUT_S
from consumers.kit.api.consumer import ConsumerSpec
from consumers.kit.api.routes import check_streams
from consumers.kit.handling.batch import BatchRunner
from consumers.kit.handling.dead_letters import DeadLetters
from consumers.kit.handling.limits import Limits
from consumers.kit.handling.resources import with_resources
from consumers.kit.membership import Membership
from consumers.kit.ordered.lease import Leases
from consumers.kit.ordered.loop import OrderedLoop
from consumers.kit.reading.read import reading_from
from consumers.kit.redis.keys import Keys
from consumers.kit.redis_health import RedisHealth
from consumers.kit.shared.group import Group
from consumers.kit.shared.loop import SharedLoop
from consumers.kit.shared.settling import Settler
from consumers.kit.shared.timers import GroupTimers
from consumers.kit.stats import Identity, Stats
from consumers.kit.stop import Stop
from consumers.kit.worker.health import WorkerPages
from consumers.kit.worker.heartbeat_thread import HeartbeatThread
from consumers.kit.worker.watchdog import Watchdog

_log = structlog.get_logger()
_CONNECTION = "heartbeats"

DEFAULT_LEASE_S = 10.0
WARM_UP_US = 3_000_000  # events received earlier waited for the start: not counted as latency


def default_name() -> str:
    """`<host>-<pid>`: unique among workers on this and other machines."""
    return f"{socket.gethostname()}-{os.getpid()}"


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run a consumer. `start`: ID after which a new group begins, or `$`."""

    consumer: ConsumerSpec
    group: str
    name: str
    patterns: tuple[str, ...]
    start: str
    lease_s: float = DEFAULT_LEASE_S
    health: Address | None = None  # address of the health pages; None: not served

    @property
    def lease_ms(self) -> int:
        return int(self.lease_s * 1000)


async def run_worker(settings: Settings, config: Config, stop: Stop) -> None:
    """Run until `stop`, through outages of Redis. Raises ConfigError for a wrong consumer or
    configuration, Fatal if `lifespan` fails."""
    spec = settings.consumer
    check_streams(spec.kind, settings.patterns)
    spec.build()  # errors of handlers and options are raised before Redis is needed
    url = resolve_url(config)
    with reading_from(config):
        async with AsyncExitStack() as stack:
            links = [await _linked(one, settings, config, stack) for one in urls_of_shards(url)]
            with_them = await stack.enter_async_context(with_resources(spec))
            settings = replace(settings, consumer=with_them)
            await _Worker(settings, Keys(config.redis.keys), links).run(stop)


class _ShardLink(NamedTuple):
    """A worker's connections to one shard; without a Cluster there is one shard."""

    url: str
    reader: Redis
    beats: Redis
    replica: Redis | None  # entries are read from it in ordered mode


class _Part(NamedTuple):
    """The parts of a worker for one shard."""

    beats: Redis
    health: RedisHealth
    loop: SharedLoop | OrderedLoop
    heartbeat_thread: HeartbeatThread


async def _linked(
    url: str, settings: Settings, config: Config, stack: AsyncExitStack
) -> _ShardLink:
    # A blocking read takes a fraction of a second, well below this limit.
    limit_s = max(3.0, config.redis.command_timeout_s)
    link = _ShardLink(
        url,
        _client(url, settings, config, limit_s),
        _client(url, settings, config, limit_s),
        _client(replica_url(url), settings, config, COMMAND_TIMEOUT_S)
        if config.redis.read_from == "replica"
        else None,
    )
    for client in link[1:]:
        if client is not None:
            await stack.enter_async_context(client)
    return link


def _client(url: str, settings: Settings, config: Config, limit_s: float) -> Redis:
    return connect(
        url,
        name=f"consumer:{settings.group}:{settings.name}",
        decode_responses=True,
        connect_timeout_s=config.redis.connect_timeout_s,
        command_timeout_s=limit_s,
        max_connections=2,
    )


class _Worker:
    """The assembled worker. Each shard has a loop with consumer objects of its own, so that an
    unavailable node delays only its own streams. Limits on calls apply to all shards together.
    """

    def __init__(self, settings: Settings, keys: Keys, links: Sequence[_ShardLink]) -> None:
        kind = settings.consumer.kind
        self._settings = settings
        self._keys = keys
        self._identity = Identity(
            group=settings.group,
            consumer=settings.name,
            mode=kind.mode,
            pid=os.getpid(),
            host=socket.gethostname(),
            started_us=_now_us(),
            patterns=settings.patterns,
        )
        self._stats = Stats(_now_us, self._identity.started_us + WARM_UP_US)
        self._membership = Membership(
            links[0].beats,
            keys,
            settings.group,
            settings.name,
            mode=kind.mode,
            patterns=settings.patterns,
            beat_s=min(1.0, settings.lease_s / 4),
            lease_ms=settings.lease_ms,
        )
        grace_s = max(kind.time_limit_s, settings.lease_s)
        self._watchdog = Watchdog(kind.time_limit_s, grace_s, self._stats)
        self._limits = Limits(kind) if len(links) > 1 else None
        self._parts = [self._part(shard, link) for shard, link in enumerate(links)]

    def _part(self, shard: int, link: _ShardLink) -> _Part:
        settings = self._settings
        is_one = self._keys.space.shards == 1
        health = RedisHealth(link.url, None if is_one else shard)
        keys = self._keys if is_one else self._keys.of(shard)
        make = self._shared_loop if settings.consumer.kind.mode == "shared" else self._ordered_loop
        loop = make(shard, link, keys, health)
        thread = HeartbeatThread(
            connect_blocking(link.url, name=f"consumer:{settings.group}:{settings.name}"),
            self._watchdog,
            loop,
            self._membership,
            limit_s=settings.consumer.kind.time_limit_s,
            shard=shard,
        )
        return _Part(link.beats, health, loop, thread)

    def _shared_loop(
        self, shard: int, link: _ShardLink, keys: Keys, health: RedisHealth
    ) -> SharedLoop | OrderedLoop:
        settings, reader = self._settings, link.reader
        consumer = settings.consumer.build()
        group = Group(reader, keys, settings.group, settings.name)
        leases = self._leases(reader, keys)
        timers = GroupTimers(
            consumer,
            BatchRunner(consumer, self._stats, worker=settings.name),
            leases,
            self._membership,
            shard,
        )
        return SharedLoop(
            consumer,
            group,
            DeadLetters(reader, keys, settings.group),
            Settler(consumer, group, self._stats, settings.lease_ms, self._limits),
            self._membership,
            health,
            leases,
            timers,
            start=settings.start,
            idle_ms=settings.lease_ms,
            shard=shard,
        )

    def _ordered_loop(
        self, shard: int, link: _ShardLink, keys: Keys, health: RedisHealth
    ) -> SharedLoop | OrderedLoop:
        settings, reader = self._settings, link.reader
        return OrderedLoop(
            settings.consumer,
            reader,
            keys,
            self._leases(reader, keys),
            DeadLetters(reader, keys, settings.group),
            self._membership,
            self._stats,
            health,
            start=settings.start,
            random=Random(),
            limits=self._limits,
            shard=shard,
            replica=link.replica,
        )

    def _leases(self, reader: Redis, keys: Keys) -> Leases:
        settings = self._settings
        # The nonce makes processes of the same name different owners.
        owner = f"{settings.name}/{secrets.token_hex(4)}"
        return Leases(reader, keys, settings.group, owner, settings.lease_ms)

    async def run(self, stop: Stop) -> None:
        who = self._identity
        _log.info("worker_started", group=who.group, consumer=who.consumer, mode=who.mode)
        # Current entries may take long to finish: until then heartbeats continue, otherwise other
        # workers would take them.
        over = Stop()
        with self._watchdog, ExitStack() as threads:
            for part in self._parts:
                threads.enter_context(part.heartbeat_thread)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watchdog.tick(over))
                first, *others = self._parts
                tasks.create_task(self._send_heartbeats(first, stop, over))
                for part in others:
                    tasks.create_task(self._hold_leases(part, stop, over))
                pages = tasks.create_task(self._serve_pages())
                # The first part that ends, with or without an error, stops all others by `stop` and
                # `over`: a cancellation alone may be lost in the redis client (Python 3.11).
                try:
                    await self._run_loops(stop)
                finally:
                    stop.set()
                    over.set()
                    pages.cancel()
        await self._leave(self._membership.leave())
        _log.info("worker_stopped", consumer=who.consumer, handled=self._stats.handled)

    async def _run_loops(self, stop: Stop) -> None:
        """Run the loops of all shards concurrently."""
        first, *others = self._parts
        if not others:
            await self._run_loop(first, stop)
            return
        async with asyncio.TaskGroup() as tasks:
            for part in self._parts:
                tasks.create_task(self._run_loop(part, stop))

    async def _run_loop(self, part: _Part, stop: Stop) -> None:
        try:
            await part.loop.run(stop)
        finally:
            stop.set()
        await self._leave(part.loop.leave())

    async def _serve_pages(self) -> None:
        """Serve the health pages, if an address is set."""
        if (address := self._settings.health) is not None:
            healths = [part.health for part in self._parts]
            await serve(address, WorkerPages(self._membership, healths, self._watchdog))

    async def _send_heartbeats(self, part: _Part, stop: Stop, over: Stop) -> None:
        """Renew the leases of the first shard and refresh the membership, until `over`."""
        try:
            while not over.is_set:
                try:
                    # Leases first: a loop that sees the new beat may rely on its leases.
                    await part.loop.keep(part.beats)
                    made = next(filter(None, (one.loop.made() for one in self._parts)), "")
                    await self._membership.beat(self._stats.report(self._identity, made))
                    part.health.up(_CONNECTION)
                except RedisError as error:
                    self._membership.missed_beat()
                    await part.health.down(_CONNECTION, error, over)
                    continue
                await over.wait(self._membership.beat_s)
        finally:
            stop.set()

    async def _hold_leases(self, part: _Part, stop: Stop, over: Stop) -> None:
        """Renew the leases of another shard, until `over`."""
        try:
            while not over.is_set:
                try:
                    await part.loop.keep(part.beats)
                    part.health.up(_CONNECTION)
                except RedisError as error:
                    await part.health.down(_CONNECTION, error, over)
                    continue
                await over.wait(self._membership.beat_s)
        finally:
            stop.set()

    async def _leave(self, leaving: Awaitable[None]) -> None:
        try:
            await leaving
        except RedisError as error:
            # Leases expire and pending entries are claimed by other workers: nothing is lost.
            _log.warning("left_without_redis", error=str(error))


def _now_us() -> int:
    return time.time_ns() // 1000
