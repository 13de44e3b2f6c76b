"""The wiring: builds the parts, runs them in one TaskGroup, owns the order of stopping.

Stopping: hear no more; say what was heard, within a deadline; write a last status; go.
"""

import asyncio
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog
from redis.exceptions import RedisError

from bridge import __version__
from bridge.contract.streams import Identity, Stream
from bridge.feed.connection import Connection, Signer
from bridge.feed.rest import Rest
from bridge.feed.snapshots import Snapshots
from bridge.feed.supervisor import UNSURE_US, Supervisor, spread
from bridge.pipeline.intake import QUARANTINE_KEY, Intake, stream_lines
from bridge.publish.heartbeat import Heartbeat
from bridge.publish.publisher import Limits, Publisher, PublishSettings
from bridge.publish.wire import Target
from bridge.runtime.backoff import Backoff
from bridge.runtime.config import Config
from bridge.runtime.keys import AccountKey, require_key
from bridge.runtime.redis_client import connect

log = structlog.get_logger(__name__)

REST_PER_SECOND = 10.0  # of 2,000 a minute that the exchange allows
REDIS_BACKOFF_S = (0.1, 2.0)
SNAPSHOT_BACKOFF_S = (0.25, 10.0)


def now_us() -> int:
    """This side's wall clock, µs since 1970."""
    return time.time_ns() // 1000


class Bridge:
    """One bridge, built from a configuration and run until told to stop."""

    def __init__(self, config: Config, key: AccountKey | None, redis_url: str) -> None:
        require_key(key, config.stream_names)
        self._config = config
        self._key = key
        self._redis_url = redis_url
        self._chance = random.Random()
        self._started_us = now_us()
        self.streams = stream_lines(config.stream_names)
        self.intake = Intake(
            self.streams.values(),
            hold_us=int(config.publish.hold_s * 1e6),
            snapshot_every=config.snapshots.depth_every_updates,
            buffer_bytes=config.publish.buffer_bytes,
            want_snapshot=lambda name: self._snapshots.want(self.streams[name]),
        )
        self.publisher = self._publisher()
        self.supervisors = [
            self._supervisor(number, group)
            for number, group in enumerate(
                spread(list(self.streams.values()), config.exchange.connections), 1
            )
        ]

    async def run(self, stop: asyncio.Event) -> int:
        """Hear and publish until `stop`. Returns how many entries could not be written in time."""
        async with self._rest() as rest, self._heartbeat() as heartbeat:
            self._snapshots = self._snapshots_over(rest)
            async with asyncio.TaskGroup() as tasks:
                publishing = tasks.create_task(self.publisher.run(), name="publisher")
                beating = tasks.create_task(self._beat(heartbeat), name="heartbeat")
                hearing = [
                    tasks.create_task(supervisor.run(), name=supervisor.connection.state.name)
                    for supervisor in self.supervisors
                ]
                hearing.append(tasks.create_task(self._snapshots.run(), name="snapshots"))
                await stop.wait()
                for task in hearing:
                    task.cancel()
                await asyncio.wait(hearing)
                left = await self.publisher.drain(self._config.publish.drain_s)
                beating.cancel()
                publishing.cancel()
            await heartbeat.beat(stopped_us=now_us(), left=left)
        log.info("bridge_stopped", left=left)
        return left

    def status(self) -> Mapping[str, Any]:
        """How this bridge is: what `python -m bridge status` and `top` show."""
        lines = {**self.intake.lines, QUARANTINE_KEY: self.intake.quarantine}
        return {
            "instance": self._config.instance,
            "version": __version__,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started_us": self._started_us,
            "updated_us": now_us(),
            "exchange": self._config.exchange.ws_url,
            "redis_trouble": self.publisher.trouble,
            "pending": self.publisher.pending(),
            "pending_bytes": self.intake.pending_bytes(),
            "acknowledged_us": self.publisher.newest_us,
            "frames": self.intake.counts.frames,
            "quarantined": self.intake.counts.quarantined,
            "unknown_fields": self.intake.counts.unknown_fields,
            "connections": [_connection_status(supervisor) for supervisor in self.supervisors],
            "streams": {
                name: {
                    "published": line.counters.published,
                    "duplicates": line.counters.duplicates,
                    "late": line.counters.late,
                    "gaps": line.counters.gaps,
                    "snapshots": line.counters.snapshots,
                    "overflowed": line.counters.overflowed,
                    "pending": len(line.pending),
                    "last_id": line.confirmed,
                    "failed": line.parked,
                    "event_us": self.intake.last_event_us.get(name, 0),
                }
                for name, line in lines.items()
            },
        }

    async def _beat(self, heartbeat: Heartbeat) -> None:
        """First learn what an earlier bridge had heard, then beat."""
        while True:
            try:
                heard = await heartbeat.heard_before()
                break
            except (RedisError, OSError, TimeoutError):
                await asyncio.sleep(0.5)
        for supervisor in self.supervisors:
            supervisor.resume(heard)
        self.publisher.wake()
        await heartbeat.run()

    def _heard_us(self) -> dict[str, int]:
        """Unnumbered streams whose every message heard so far is in Redis → up to when."""
        marks: dict[str, int] = {}
        for supervisor in self.supervisors:
            newest_us = supervisor.connection.ear.newest_us
            for stream in supervisor.connection.streams:
                line = self.intake.lines[stream.name]
                if newest_us and stream.identity is not Identity.NUMBERED and not line.pending:
                    marks[stream.name] = newest_us - UNSURE_US
        return marks

    def _publisher(self) -> Publisher:
        config = self._config
        private = any(stream.is_private for stream in self.streams.values())
        settings = PublishSettings(
            target=Target.from_url(self._redis_url),
            key_prefix=config.redis.key_prefix,
            batch_entries=config.publish.batch_entries,
            connect_timeout_s=config.redis.connect_timeout_s,
            command_timeout_s=config.redis.command_timeout_s,
            account_fingerprint=self._key.fingerprint if self._key and private else "",
        )
        backoff = Backoff(*REDIS_BACKOFF_S, self._chance)
        return Publisher(self.intake, settings, self._limits, now_us, backoff)

    def _limits(self, stream: Stream) -> Limits:
        kind = "quarantine" if stream.name == QUARANTINE_KEY else stream.type.value
        keep = self._config.keep(kind)
        return Limits(
            max_entries=str(keep.max_entries).encode() if keep.max_entries else b"",
            max_age_ms=str(keep.max_age_s * 1000).encode() if keep.max_age_s else b"",
        )

    def _supervisor(self, number: int, streams: list[Stream]) -> Supervisor:
        exchange = self._config.exchange
        private = streams[0].is_private
        connection = Connection(
            "private" if private else f"public-{number}",
            streams,
            exchange,
            self.intake,
            now_us,
            signer=Signer(self._key.public_key_b64, self._key.sign) if self._key else None,
            on_subscribed=lambda: self._subscribed(supervisor),
            on_frames=self.publisher.wake,
        )
        backoff = Backoff(exchange.reconnect_initial_s, exchange.reconnect_max_s, self._chance)
        supervisor = Supervisor(connection, self.intake, backoff, now_us)
        return supervisor

    def _subscribed(self, supervisor: Supervisor) -> None:
        supervisor.mark_deafness()
        self._snapshots.want_account(supervisor.connection.streams)
        self.publisher.wake()

    def _rest(self) -> Rest:
        return Rest(
            self._config.exchange.rest_url,
            per_second=REST_PER_SECOND,
            window_ms=self._config.exchange.signature_window_ms,
            clock_ms=lambda: now_us() // 1000,
            public_key=self._key.public_key_b64 if self._key else "",
            sign=self._key.sign if self._key else None,
        )

    def _snapshots_over(self, rest: Rest) -> Snapshots:
        return Snapshots(
            self.intake,
            rest,
            depth_levels=self._config.snapshots.depth_levels,
            clock_us=now_us,
            new_backoff=lambda: Backoff(*SNAPSHOT_BACKOFF_S, self._chance),
            on_items=self.publisher.wake,
        )

    @asynccontextmanager
    async def _heartbeat(self) -> AsyncIterator[Heartbeat]:
        config = self._config
        client = connect(
            self._redis_url,
            name=f"bridge:{config.instance}:status",
            connect_timeout_s=config.redis.connect_timeout_s,
            command_timeout_s=config.redis.command_timeout_s,
        )
        try:
            yield Heartbeat(
                client,
                config.redis.key_prefix,
                config.instance,
                self.streams,
                self.status,
                self._heard_us,
            )
        finally:
            await client.aclose()


def _connection_status(supervisor: Supervisor) -> Mapping[str, Any]:
    state = supervisor.connection.state
    return {
        "name": state.name,
        "connected": state.connected,
        "trouble": state.trouble,
        "attempts": state.attempts,
        "frame_us": state.last_frame_us,
        "wanted": len(state.subscriptions.streams),
        "confirmed": len(state.subscriptions.confirmed),
        "refused": state.subscriptions.refused,
    }
