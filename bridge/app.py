"""The wiring: builds the parts, runs them in one TaskGroup, owns the order of stopping.

Stopping: hear no more; say what was heard, within a deadline; write a last status; go.
"""

import asyncio
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import structlog
from redis.exceptions import RedisError

from bridge import __version__
from bridge.contract.streams import Stream
from bridge.feed.connection import Connection, Signer
from bridge.feed.rest import Rest
from bridge.feed.snapshots import Snapshots
from bridge.feed.supervisor import Supervisor, spread
from bridge.journal.checkpoint import read_checkpoint, write_checkpoint
from bridge.journal.hearing import Hearing
from bridge.journal.keeper import Keeper, Room
from bridge.journal.segments import SegmentWriter
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
            want_snapshot=lambda name: self._snapshots.want(self.streams[name]),
        )
        self.hearing = Hearing(
            self.intake,
            buffer_bytes=config.publish.buffer_bytes,
            keep_private=config.journal.private,
            clock_us=now_us,
            on_items=lambda: self.publisher.wake(),
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
            with self._journal() as keeper:
                left = await self._run(stop, heartbeat, keeper)
            await heartbeat.beat(stopped_us=now_us(), left=left)
        log.info("bridge_stopped", left=left, journal=self.hearing.trouble or "complete")
        return left

    async def _run(self, stop: asyncio.Event, heartbeat: Heartbeat, keeper: Keeper | None) -> int:
        async with asyncio.TaskGroup() as tasks:
            publishing = tasks.create_task(self.publisher.run(), name="publisher")
            beating = tasks.create_task(self._beat(heartbeat), name="heartbeat")
            hearing = [
                tasks.create_task(supervisor.run(), name=supervisor.connection.state.name)
                for supervisor in self.supervisors
            ]
            hearing.append(tasks.create_task(self._snapshots.run(), name="snapshots"))
            keeping = [
                tasks.create_task(work(), name=f"journal-{work.__name__}")
                for work in ([keeper.catch_up, keeper.keep] if keeper else [])
            ]
            await stop.wait()
            for task in hearing:
                task.cancel()
            await asyncio.wait(hearing)
            left = await self.publisher.drain(self._config.publish.drain_s)
            for task in (beating, publishing, *keeping):
                task.cancel()
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
            "journal_trouble": self.hearing.trouble,
            "behind_bytes": self.hearing.behind_bytes(),
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
        self.hearing.resume({name: us for name, us in heard.items() if name in self.streams})
        await heartbeat.run()

    def _heard_us(self) -> dict[str, int]:
        """Unnumbered streams whose every message heard so far is in Redis → up to when."""
        if not self.hearing.is_live:
            return {}
        return {
            name: us
            for name, us in self.intake.deafness.heard_up_to_us()
            if not self.intake.lines[name].pending
        }

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
        return Publisher(
            self.intake,
            settings,
            self._limits,
            now_us,
            backoff,
            before_send=self.hearing.flush,
            on_loss=self.hearing.refill,
        )

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
            self.hearing,
            now_us,
            signer=Signer(self._key.public_key_b64, self._key.sign) if self._key else None,
            on_subscribed=lambda: self._snapshots.want_account(streams),
        )
        backoff = Backoff(exchange.reconnect_initial_s, exchange.reconnect_max_s, self._chance)
        return Supervisor(connection, backoff)

    @contextmanager
    def _journal(self) -> Iterator[Keeper | None]:
        """The journal, open; None where it is off or cannot be had: publishing goes on without."""
        settings = self._config.journal
        if not settings.enabled:
            yield None
            return
        try:
            writer = SegmentWriter(settings.dir, settings.segment_bytes)
        except OSError as error:
            reason = f"cannot write {settings.dir}: {error.strerror}"
            self.hearing.trouble = reason
            log.error("journal_failed", reason=reason)  # noqa: TRY400 - a person's matter
            yield None
            return
        room = Room(settings.dir, settings.max_bytes, settings.max_age_s, settings.fsync)
        self.hearing.attach(writer, sync_each_flush=settings.fsync == "batch")
        self.hearing.begin(read_checkpoint(settings.dir))
        yield Keeper(self.hearing, room)
        checkpoint = self.hearing.checkpoint()
        self.hearing.close()
        with suppress(OSError):
            write_checkpoint(settings.dir, checkpoint)

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
            self.hearing,
            rest,
            depth_levels=self._config.snapshots.depth_levels,
            new_backoff=lambda: Backoff(*SNAPSHOT_BACKOFF_S, self._chance),
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
