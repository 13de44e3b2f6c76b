"""The wiring: builds the parts, runs them in one TaskGroup, owns the order of stopping.

Stopping: hear no more; say what was heard, within a deadline; write the journal and a last status;
go.
"""

import asyncio
import os
import random
import re
import secrets
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bridge import __version__
from bridge.contract import keys
from bridge.contract.events import CONTRACT_VERSION
from bridge.contract.streams import Stream, is_private, parse_stream
from bridge.errors import ConfigError
from bridge.feed.feed import Feed
from bridge.feed.wanted import Wanted
from bridge.journal.checkpoint import read_checkpoint, write_checkpoint
from bridge.journal.hearing import Hearing
from bridge.journal.keeper import Keeper, Room
from bridge.journal.loss import Loss
from bridge.journal.owner import Owner
from bridge.journal.segments import SegmentWriter
from bridge.pipeline import far
from bridge.pipeline.intake import Intake
from bridge.pipeline.missing import Line
from bridge.pipeline.peers import BEHIND_US, Word
from bridge.publish.append import Limits
from bridge.publish.durability import Durability
from bridge.publish.heartbeat import Far, Heartbeat
from bridge.publish.publisher import Publisher, PublishSettings
from bridge.publish.trimming import Trimming
from bridge.publish.wire import Target
from bridge.runtime.backoff import Backoff
from bridge.runtime.config import Config
from bridge.runtime.config import Journal as JournalConfig
from bridge.runtime.keys import AccountKey, require_key
from bridge.runtime.redis_client import connect

log = structlog.get_logger(__name__)

REDIS_BACKOFF_S = (0.1, 2.0)
OTHERS = 0o007  # of a folder's mode
FORGET_EVERY_S = 0.2  # a recorder has no use for what waits to be published


def now_us() -> int:
    """This side's wall clock, µs since 1970."""
    return time.time_ns() // 1000


def limits_of(config: Config, stream: Stream) -> Limits:
    """What the configuration keeps of a stream."""
    own = {keys.QUARANTINE: "quarantine", keys.GAPS: "gaps"}
    keep = config.keep(own.get(stream.name, stream.type.value))
    return Limits(
        max_entries=str(keep.max_entries).encode() if keep.max_entries else b"",
        max_age_ms=str(keep.max_age_s * 1000).encode() if keep.max_age_s else b"",
    )


def durability_of(config: Config) -> Durability:
    """When an entry counts as published."""
    wanted = config.publish.durability
    return Durability(wanted.level, wanted.replicas, wanted.timeout_s)


class _Ears:
    """What a bridge and a recorder share: intake, the way into it, the feed."""

    def __init__(self, config: Config, key: AccountKey | None) -> None:
        require_key(key, config.stream_names)
        self._config = config
        self._names_streams = "streams" in config.model_fields_set  # not heard by default
        self._chance = random.Random()
        private = any(map(is_private, config.stream_names))
        self._account = key.fingerprint if key and private else ""
        self.intake = Intake(
            map(parse_stream, config.stream_names),
            hold_us=int(config.publish.hold_s * 1e6),
            snapshot_every=config.snapshots.depth_every_updates,
            snapshot_every_ms=config.snapshots.depth_every_s * 1000,
            snapshot_levels=config.snapshots.depth_levels,
            repair_us=int(config.publish.repair_s * 1e6),
            ask=lambda name: self.feed.ask(name),
        )
        self.hearing = Hearing(
            self.intake,
            buffer_bytes=config.publish.buffer_bytes,
            keep_private=config.journal.private,
            clock_us=now_us,
            on_items=self._on_items,
        )
        self.feed = Feed(
            Wanted(config.stream_names, config.stream_patterns),
            config.exchange,
            self.hearing,
            key=key,
            depth_levels=config.snapshots.depth_levels,
            clock_us=now_us,
            chance=self._chance,
        )

    def reload(self, config: Config) -> None:
        """Another configuration: its streams from now on. Raises ConfigError where it cannot be."""
        if not self._account and any(map(is_private, config.stream_names)):
            raise ConfigError("the first account.* stream needs a restart, which sets up the keys")
        if self._names_streams and "streams" not in config.model_fields_set:
            raise ConfigError(
                "it names no streams any more: is the file away, empty, or half written?"
            )
        if waiting := config.needs_restart(self._config):
            log.warning("config_needs_restart", settings=list(waiting))
        self._config = self._config.reloaded(config)
        self.feed.want(Wanted(config.stream_names, config.stream_patterns))
        log.info("config_reloaded", streams=len(self.feed.streams))

    def _on_items(self) -> None:
        """Something was put into the lines."""

    def _target(self) -> str:
        """What the checkpoint speaks of; a recorder publishes nowhere."""
        return ""

    def _max_age_s(self) -> float:
        """How old what was heard may become in the journal."""
        return self._config.journal.max_age_s

    def _keeper(self) -> Keeper:
        settings = self._config.journal
        room = Room(settings.dir, settings.max_bytes, self._max_age_s(), settings.fsync)
        return Keeper(self.hearing, room, now_us, self._reopen_journal)

    def _open_journal(self) -> None:
        """Open the journal and go on from its checkpoint. Raises OSError."""
        self._attach_journal()
        self.hearing.begin(read_checkpoint(self._config.journal.dir), self._target())

    def _reopen_journal(self) -> None:
        """Open it at last, and go on at its end. Raises OSError and Fatal."""
        self._attach_journal()
        self.hearing.begin_late(read_checkpoint(self._config.journal.dir), self._target())

    def _attach_journal(self) -> None:
        settings = self._config.journal
        owner = Owner(self._config.exchange.ws_url, self._account)
        writer = SegmentWriter(
            settings.dir, settings.segment_bytes, owner, syncs=settings.fsync != "off"
        )
        if writer.set_aside:
            log.warning("journal_of_another_set_aside", dir=str(writer.set_aside))
        if settings.dir.stat().st_mode & OTHERS:
            log.warning("journal_open_to_others", dir=str(settings.dir))
        self.hearing.attach(writer, sync_each_flush=settings.fsync == "batch")

    def _close_journal(self) -> None:
        self.hearing.mend()  # perhaps just now
        if self.hearing.journal.is_awaited:
            return
        checkpoint = self.hearing.rehearing.checkpoint()
        self.hearing.journal.close()
        with suppress(OSError):
            write_checkpoint(self._config.journal.dir, checkpoint)


class Bridge(_Ears):
    """One bridge, built from a configuration and run until told to stop."""

    def __init__(self, config: Config, key: AccountKey | None, redis_url: str) -> None:
        super().__init__(config, key)
        self._redis_url = redis_url
        self._redis = Target.from_url(redis_url)
        self.intake.company.expect()
        self._started_us = now_us()
        self.publisher = Publisher(
            self.intake,
            PublishSettings(
                target=self._redis,
                key_prefix=config.redis.key_prefix,
                batch_entries=config.publish.batch_entries,
                connect_timeout_s=config.redis.connect_timeout_s,
                command_timeout_s=config.redis.command_timeout_s,
                account_fingerprint=self._account,
                durability=durability_of(config),
            ),
            self._publisher_limits,
            now_us,
            Backoff(*REDIS_BACKOFF_S, self._chance),
            before_send=self.hearing.journal.flush,
            on_loss=self.hearing.rehearing.refill,
            behind_bytes=self.hearing.behind_bytes,
        )

    def _publisher_limits(self, stream: Stream) -> Limits:
        """None where trimming waits for groups: then it is not the append script's."""
        if self._config.slow_groups.wait_for and stream.name in self.feed.streams:
            return Limits()
        return limits_of(self._config, stream)

    def reload(self, config: Config) -> None:
        super().reload(config)
        self.publisher.limits_changed()

    async def run(self, stop: asyncio.Event) -> int:
        """Hear and publish until `stop`. Returns how many entries are neither in Redis nor in the
        journal.
        """
        async with self._heartbeat() as heartbeat:
            with self._journal() as keeper:
                waiting = await self._run(stop, heartbeat, keeper)
            is_kept = keeper and not self.hearing.journal.trouble
            left = self.hearing.waiting_unjournaled() if is_kept else waiting
            await heartbeat.beat(stopped_us=now_us(), left=left)
        log.info("bridge_stopped", left=left, left_to_the_journal=waiting - left)
        return left

    def status(self) -> Mapping[str, Any]:
        """How this bridge is: what `python -m bridge status` and `top` show."""
        sparse = frozenset(self.intake.missing.sparse())
        return {
            "instance": self._config.instance,
            "version": __version__,
            "contract": CONTRACT_VERSION,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started_us": self._started_us,
            "updated_us": now_us(),
            "exchange": self._config.exchange.ws_url,
            "redis_trouble": self.publisher.trouble,
            "pending": self.publisher.pending(),
            "pending_bytes": self.intake.pending_bytes(),
            "acknowledged_us": self.publisher.newest_us,
            "journal_trouble": self.hearing.journal.trouble or self.hearing.journal.upkeep_trouble,
            "behind_bytes": self.hearing.behind_bytes(),
            "frames": self.intake.counts.frames,
            "quarantined": self.intake.counts.quarantined,
            "unknown_fields": self.intake.counts.unknown_fields,
            "rank": self.intake.company.rank,
            "peers": sorted(self.intake.company.live),
            "deaf": far.deaf_streams(self.intake),
            "connections": self.feed.status(),
            "clock_offset_us": self.feed.clock.offset_us,
            "stream_troubles": self.feed.troubles(),
            "streams": {
                line.stream.name: {
                    "published": line.counters.published,
                    "duplicates": line.counters.duplicates,
                    "doubles": line.counters.doubles,
                    "late": line.counters.late,
                    "gaps": line.counters.gaps,
                    "repaired": line.counters.repaired,
                    "sparse": line.stream.name in sparse,
                    "snapshots": line.counters.snapshots,
                    "overflowed": line.counters.overflowed,
                    "pending": len(line.pending),
                    "last_id": line.confirmed,
                    "failed": line.parked,
                    "event_us": self.intake.last_event_us.get(line.stream.name, 0),
                }
                for line in self.intake.every_line()
                if self._is_shown(line)
            },
        }

    def _is_shown(self, line: Line) -> bool:
        """All but the lines of streams that were left, once they are empty."""
        name = line.stream.name
        return name in self.feed.streams or bool(line.pending) or name not in self.intake.lines

    async def _run(self, stop: asyncio.Event, heartbeat: Heartbeat, keeper: Keeper | None) -> int:
        async with asyncio.TaskGroup() as tasks:
            publishing = tasks.create_task(self.publisher.run(), name="publisher")
            hearing = tasks.create_task(self.feed.run(), name="feed")
            rest = [tasks.create_task(self._beat(heartbeat, stop), name="heartbeat"), publishing]
            if self._config.slow_groups.wait_for:
                rest.append(tasks.create_task(self._trim(), name="trimming"))
            if keeper:
                rest.append(tasks.create_task(keeper.catch_up(), name="journal-catch-up"))
                rest.append(tasks.create_task(keeper.keep(), name="journal-keep"))
            await stop.wait()
            hearing.cancel()
            await asyncio.wait([hearing])
            left = await self.publisher.drain(self._config.publish.drain_s)
            for task in rest:
                task.cancel()
        return left

    async def _trim(self) -> None:
        config = self._config
        async with self._client("trimming") as client:
            await Trimming(
                client,
                config.redis.key_prefix,
                lambda: self.feed.streams.values(),
                lambda stream: limits_of(self._config, stream),
                config.slow_groups.wait_for,
                config.slow_groups.until_bytes,
            ).run()

    async def _beat(self, heartbeat: Heartbeat, stop: asyncio.Event) -> None:
        """First learn what other and earlier bridges have heard, then beat."""
        while True:
            try:
                heard = await heartbeat.begin()
                known = await heartbeat.registered()
                break
            except (RedisError, OSError, TimeoutError):
                await asyncio.sleep(0.5)
        self.hearing.resume(heard)
        if not stop.is_set():  # else the feed is over
            self.feed.recall(known)
        await heartbeat.run()

    def _how_far(self) -> Far:
        intake = self.intake
        if not self.hearing.is_live:
            return Far({}, far.held(intake), BEHIND_US, {})
        return Far(
            far.heard_us(intake),
            far.held(intake),
            far.oldest_us(intake),
            far.settled_until_us(intake),
        )

    def _on_items(self) -> None:
        self.publisher.wake()

    def _target(self) -> str:
        redis = self._config.redis
        where = str(self._config.embedded.data_dir) if redis.is_embedded else self._redis.address
        where = re.sub("^localhost:", "127.0.0.1:", where)  # the same, however it is written
        return f"{where} {redis.key_prefix}".rstrip()

    @contextmanager
    def _journal(self) -> Iterator[Keeper | None]:
        """The journal's keeper; None where it is off. Where it cannot be opened, publishing goes on
        without, and the keeper tries again.
        """
        settings: JournalConfig = self._config.journal
        if not settings.enabled:
            yield None
            return
        try:
            self._open_journal()
        except OSError as error:
            self.hearing.begin_without(f"cannot write {settings.dir}: {error.strerror}")
        try:
            yield self._keeper()
        finally:
            self._close_journal()

    @asynccontextmanager
    async def _heartbeat(self) -> AsyncIterator[Heartbeat]:
        config = self._config
        async with self._client("status") as client:
            yield Heartbeat(
                client,
                config.redis.key_prefix,
                lambda: self.feed.streams,
                me=Word(
                    instance=config.instance,
                    session=secrets.token_hex(8),
                    host=socket.gethostname(),
                    pid=os.getpid(),
                ),
                company=self.intake.company,
                clock_us=now_us,
                status=self.status,
                how_far=self._how_far,
                on_look=self.publisher.wake,
            )

    def _client(self, purpose: str) -> Redis:
        """The ordinary client, for what is not on a message's way; close it."""
        config = self._config
        return connect(
            self._redis_url,
            name=f"bridge:{config.instance}:{purpose}",
            connect_timeout_s=config.redis.connect_timeout_s,
            command_timeout_s=config.redis.command_timeout_s,
        )


class Recorder(_Ears):
    """Hears and journals; publishes nothing."""

    def _max_age_s(self) -> float:
        return float("inf")  # a recording is kept; only `journal.max_bytes` limits it

    async def run(self, stop: asyncio.Event) -> Loss:
        """Record until `stop`. Returns what was heard and is not in the journal. Raises ConfigError
        where that cannot be written from the start.
        """
        settings = self._config.journal
        try:
            self._open_journal()
        except OSError as error:
            raise ConfigError(
                f"journal.dir {settings.dir} cannot be written ({error.strerror}): give another"
            ) from None
        keeper = self._keeper()
        log.info("recording", dir=str(settings.dir), streams=len(self.feed.streams))
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(work, name=name)
                for name, work in (
                    ("feed", self.feed.run()),
                    ("journal-catch-up", keeper.catch_up()),
                    ("journal-keep", keeper.keep()),
                    ("forget", self._forget()),
                )
            ]
            await stop.wait()
            for task in running:
                task.cancel()
        self._forget_once()
        self._close_journal()
        journal = self.hearing.journal
        journal.loss.add_lines(self.hearing.rehearing.held_lines())
        log.info("recorded", bytes=journal.end, frames_lost=journal.loss.frames)
        return journal.loss

    async def _forget(self) -> None:
        while True:
            await asyncio.sleep(FORGET_EVERY_S)
            self._forget_once()

    def _forget_once(self) -> None:
        end = self.hearing.journal.end
        for line in self.intake.every_line():
            line.rewind(end, 0)
        self.intake.dirty.clear()
