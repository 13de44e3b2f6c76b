"""A worker: one consumer, its loop, its surroundings, from the first connection to a clean leave.

Only puts the parts together and owns the order of stopping. Each blocking reader has a connection
of its own; the client never retries by itself.
"""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from random import Random

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bridge.runtime.config import Config
from bridge.runtime.redis_client import connect, resolve_url
from consumers.consumer import Consumer, build
from consumers.crew import Crew
from consumers.group import Group
from consumers.handling import Handling
from consumers.keys import Keys
from consumers.lease import Leases
from consumers.link import Link, Stop
from consumers.meter import Identity, Meter
from consumers.ordered import OrderedLoop
from consumers.reading import reading_from
from consumers.routes import handlers_of
from consumers.shared import SharedLoop
from consumers.watch import LoopWatch

_log = structlog.get_logger()

DEFAULT_LEASE_S = 10.0


def default_name() -> str:
    """`<host>-<pid>`: unlike those of the other workers on this and other machines."""
    return f"{socket.gethostname()}-{os.getpid()}"


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run a consumer. `start` is where a new group begins, as Redis writes it."""

    kind: type[Consumer]
    group: str
    name: str
    patterns: tuple[str, ...]
    start: str
    lease_s: float = DEFAULT_LEASE_S
    options: Mapping[str, str] = field(default_factory=dict)


async def run_worker(settings: Settings, config: Config, stop: Stop) -> None:
    """Run until `stop`; Redis may come and go. Raises ConfigError for what a person must mend."""
    handlers_of(settings.kind)
    build(settings.kind, settings.options)
    url = resolve_url(config)
    async with _client(url, settings, config) as reader, _client(url, settings, config) as beats:
        with reading_from(config):
            await _Worker(settings, config, url, reader, beats).run(stop)


def _client(url: str, settings: Settings, config: Config) -> Redis:
    return connect(
        url,
        name=f"consumer:{settings.group}:{settings.name}",
        decode_responses=True,
        connect_timeout_s=config.redis.connect_timeout_s,
        # A read blocks for a fraction of a second: well within two seconds less.
        command_timeout_s=max(3.0, config.redis.command_timeout_s),
        max_connections=2,
    )


class _Worker:
    def __init__(
        self, settings: Settings, config: Config, url: str, reader: Redis, beats: Redis
    ) -> None:
        keys = Keys(config.redis.key_prefix)
        lease_ms = int(settings.lease_s * 1000)
        self._identity = Identity(
            group=settings.group,
            consumer=settings.name,
            mode=settings.kind.mode,
            pid=os.getpid(),
            host=socket.gethostname(),
            started_us=_now_us(),
        )
        self._meter = Meter(_now_us)
        self._link = Link(url)
        self._crew = Crew(
            beats,
            keys,
            settings.group,
            settings.name,
            mode=settings.kind.mode,
            patterns=settings.patterns,
            beat_s=min(1.0, settings.lease_s / 4),
            lease_ms=lease_ms,
        )
        self._loop = self._make_loop(settings, keys, reader, lease_ms)
        limit_s = settings.kind.time_limit_s
        self._watch = LoopWatch(limit_s, max(limit_s, settings.lease_s), self._loop.in_hand)

    def _make_loop(
        self, settings: Settings, keys: Keys, reader: Redis, lease_ms: int
    ) -> SharedLoop | OrderedLoop:
        if settings.kind.mode == "shared":
            consumer = build(settings.kind, settings.options)
            group = Group(reader, keys, settings.group, settings.name)
            return SharedLoop(
                consumer,
                group,
                Handling(consumer, group, self._meter),
                self._crew,
                self._link,
                start=settings.start,
                idle_ms=lease_ms,
            )
        # Two processes of one name are two owners.
        owner = f"{settings.name}/{secrets.token_hex(4)}"
        return OrderedLoop(
            settings.kind,
            lambda: build(settings.kind, settings.options),
            reader,
            keys,
            Leases(reader, keys, settings.group, owner, lease_ms),
            self._crew,
            self._meter,
            self._link,
            start=settings.start,
            random=Random(),
        )

    async def run(self, stop: Stop) -> None:
        who = self._identity
        _log.info("worker_started", group=who.group, consumer=who.consumer, mode=who.mode)
        over = Stop()  # what is in hand may take long to finish: until then we live, and say so
        with self._watch:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch.ticking(over))
                tasks.create_task(self._beat(stop, over))
                # Whichever part ends first, by itself or by an error, ends all: a cancellation
                # alone may be lost in the redis client (Python 3.11).
                try:
                    await self._loop.run(stop)
                    await self._leave(self._loop.leave())
                finally:
                    stop.set()
                    over.set()
        field = f"{self._identity.group}/{self._identity.consumer}"
        await self._leave(self._crew.leave(status_field=field))
        _log.info("worker_stopped", consumer=who.consumer, handled=self._meter.handled)

    async def _beat(self, stop: Stop, over: Stop) -> None:
        try:
            await self._crew.run(self._loop, self._report, self._link, over)
        finally:
            stop.set()

    async def _leave(self, leaving: Awaitable[None]) -> None:
        try:
            await leaving
        except RedisError as error:
            # Leases run out by themselves, pending entries are claimed: nothing is lost.
            _log.warning("left_without_redis", error=str(error))

    def _report(self) -> str:
        return self._meter.report(self._identity, self._loop.made())


def _now_us() -> int:
    return time.time_ns() // 1000
