"""The application: builds the parts of a bridge, runs them in a TaskGroup, and stops them in order.

Stopping: end receiving; publish what was received, within a deadline; write the journal and a last
status; exit.
"""

import asyncio
import os
import re
import secrets
import socket
from collections.abc import AsyncIterator, Iterable, Mapping, Set
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import reduce
from operator import add
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bridge import __version__
from bridge.contract.events import CONTRACT_VERSION
from bridge.contract.stream_types import OWN_STREAMS
from bridge.contract.streams import Stream, StreamType, is_private
from bridge.core.peers import PeerStatus
from bridge.core.progress import Progress, open_outages, progress
from bridge.core.queue import StreamQueue
from bridge.core.records import Watermarks
from bridge.errors import ConfigError
from bridge.journal.log import Loss
from bridge.metrics import exposition
from bridge.metrics.bridge_pages import BridgePages
from bridge.metrics.pages import serve
from bridge.receiver import Receiver
from bridge.redis.append import Limits, Retention
from bridge.redis.connection import Target
from bridge.redis.durability import Durability
from bridge.redis.heartbeat import INTERVAL_S, Heartbeat
from bridge.redis.outbox import OutboxSettings
from bridge.redis.shards import new_shards
from bridge.redis.trimming import Trimming
from bridge.runtime.config import Config
from bridge.runtime.keys import AccountKey
from bridge.runtime.redis_client import connect, urls_of_shards

log = structlog.get_logger(__name__)

BEGIN_AGAIN_S = 0.5  # between two attempts at the first poll of the peers
FORGET_EVERY_S = 0.2  # how often a recorder empties the queues
MOST_NAMED = 100  # streams in one part of the status
STREAMS_PER_STEP = 50  # of a status that is made in steps
CATCH_UP_RECORDS = 500  # read from the journal in one step: keeps the event loop responsive
WAIT_S = 0.01  # between two checks whether the queues have room for more of the journal


def retention_of(config: Config) -> Retention:
    """The configured retention of each stream."""
    names = [*(kind.value for kind in StreamType), *(own.name for own in OWN_STREAMS)]
    return Retention(
        {name: _limits(config, name) for name in names}, bool(config.slow_groups.wait_for)
    )


def _limits(config: Config, name: str) -> Limits:
    keep = config.keep(name)
    return Limits(
        max_entries=str(keep.max_entries) if keep.max_entries else "",
        max_age_ms=str(keep.max_age_s * 1000) if keep.max_age_s else "",
    )


def outbox_settings(config: Config, account: str) -> OutboxSettings:
    """The configured settings of publishing. `account`: fingerprint of the account's key."""
    durability = config.publish.durability
    return OutboxSettings(
        key_prefix=config.redis.key_prefix,
        batch_entries=config.publish.batch_entries,
        command_timeout_s=config.redis.command_timeout_s,
        account_fingerprint=account,
        durability=Durability(durability.level, durability.replicas, durability.timeout_s),
    )


class Bridge:
    """One bridge, built from a configuration and run until it is stopped."""

    def __init__(self, config: Config, key: AccountKey | None, redis_url: str) -> None:
        self._config = config
        self._redis_url = redis_url
        self._space = config.redis.keys
        self._receiver = Receiver(config, key, target_of(config, redis_url))
        self._clock = self._receiver.clock
        self._started_us = self._clock.wall_us()
        self._ingests = self._receiver.ingests
        self._table = self._receiver.table
        self._peers = self._receiver.peers
        self._peers.expect()
        self._retention = retention_of(config)
        self._shards = new_shards(
            redis_url,
            self._space,
            self._table,
            self._peers,
            self._ingests,
            outbox_settings(config, self._receiver.account),
            self._retention,
            connect_timeout_s=config.redis.connect_timeout_s,
            clock=self._clock,
            chance=self._receiver.chance,
            buffer_bytes=config.publish.buffer_bytes,
        )
        self._publisher = self._shards.publisher
        self._feed = self._receiver.new_feed(self._publisher)

    def reload(self, config: Config) -> None:
        """Change to another configuration's streams and retention. Raises ConfigError if it cannot
        be used.
        """
        self._config = self._receiver.reload(config, self._feed)
        self._retention = retention_of(self._config)
        self._shards.retain(self._retention)

    async def run(self, stop: asyncio.Event) -> int:
        """Receive and publish until `stop`. Returns how many entries are neither in Redis nor in
        the journal.
        """
        async with self._heartbeat() as heartbeat:
            try:
                await self._run(stop, heartbeat)
            finally:
                if self._receiver.maintenance is not None:
                    self._receiver.maintenance.close()
            waiting = self._table.pending() + self._table.suspended_entries()
            left = sum(ingest.unwritten() for ingest in self._ingests.all)
            await heartbeat.beat(stopped_us=self._clock.wall_us(), left=left)
        log.info("bridge_stopped", left=left, left_to_the_journal=waiting - left)
        return left

    # ---- status --------------------------------------------------------------------------------

    def streams(self) -> Mapping[str, Stream]:
        """The streams that it receives, except names that the exchange neither lists nor sends."""
        sent = {queue.name: queue.stream for queue in self._table if queue.has_begun}
        listed = self._feed.listed()
        return {
            name: stream
            for name, stream in self._feed.streams.items()
            if name in listed or name in sent
        }

    def member(self) -> str:
        """Its name as a fleet member; empty: it receives all streams."""
        share = self._config.share.value
        return share.me if share else ""

    def elsewhere(self) -> Mapping[str, str]:
        """Stream that another member of the fleet is to receive → that member."""
        return self._feed.elsewhere

    def retention(self) -> Retention:
        """The retention of each stream."""
        return self._retention

    def progress(self) -> Progress:
        """The progress of all streams."""
        cores = [ingest.core for ingest in self._ingests.all]
        return progress(cores, is_behind=not self._ingests.public.is_live)

    def status(self) -> Mapping[str, Any]:
        """The status of this bridge, as `python -m bridge status` and `top` show it."""
        return {**self._own_status(), "streams": self._streams_status(self._table, self._sparse())}

    async def status_in_steps(self) -> Mapping[str, Any]:
        """The same, made in steps, so that messages are handled in between."""
        streams: dict[str, Any] = {}
        queues, sparse = list(self._table), self._sparse()
        for begin in range(0, len(queues), STREAMS_PER_STEP):
            streams |= self._streams_status(queues[begin : begin + STREAMS_PER_STEP], sparse)
            await asyncio.sleep(0)
        return {**self._own_status(), "streams": streams}

    def _own_status(self) -> dict[str, Any]:
        """The status without the streams."""
        cores = [ingest.core for ingest in self._ingests.all]
        maintenance = self._receiver.maintenance
        return {
            "instance": self._config.instance,
            "version": __version__,
            "contract": CONTRACT_VERSION,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started_us": self._started_us,
            "updated_us": self._clock.wall_us(),
            "exchange": self._config.exchange.ws_url,
            "pending": self._table.pending(),
            "pending_bytes": self._table.pending_bytes(),
            "buffer_bytes": self._config.publish.buffer_bytes,
            "journal_trouble": self._journal_trouble(),
            "journal_bytes": maintenance.disk_bytes if maintenance else 0,
            "journal_max_bytes": self._config.journal.max_bytes if maintenance else 0,
            "checkpoint_us": maintenance.checkpoint_us if maintenance else 0,
            "behind_bytes": self._ingests.behind_bytes(),
            **reduce(add, (core.counters for core in cores)).as_dict(),
            **self._shards.status(),
            "rest": asdict(self._feed.rest_counters),
            "ends": self._feed.ends,
            "unknown_events": {
                name: count
                for core in cores  # only one of them has the account's streams
                for name, count in core.unknown_events.counts.items()
            },
            "share": self._share_status(),
            "rank": self._peers.rank,
            "peers": sorted(self._peers.live),
            "open_outages": open_outages(cores, self._feed.streams),
            "connections": self._feed.status(),
            "clock_offset_us": self._feed.clock.offset_us,
            "stream_troubles": self._feed.troubles(),
        }

    def _share_status(self) -> Mapping[str, Any] | None:
        """The status in a fleet: streams that this bridge keeps for other members, and streams that
        no known bridge receives, at most MOST_NAMED by name. None: without a fleet.
        """
        share = self._config.share.value
        if share is None:
            return None
        kept = self._feed.handed_over()
        unreceived = {
            name: owner
            for name, owner in self._feed.elsewhere.items()
            if name not in kept and not self._peers.is_received(name)
        }
        return {
            "members": share.members,
            "me": share.me,
            "kept": len(kept),
            "kept_for": sorted(set(kept.values())),
            "unreceived": len(unreceived),
            "unreceived_streams": dict(list(unreceived.items())[:MOST_NAMED]),
        }

    def _sparse(self) -> Set[str]:
        return {name for ingest in self._ingests.all for name in ingest.core.sparse()}

    def _streams_status(self, queues: Iterable[StreamQueue], sparse: Set[str]) -> dict[str, Any]:
        return {
            queue.name: self._stream_status(queue, is_sparse=queue.name in sparse)
            for queue in queues
            if self._is_shown(queue)
        }

    def _stream_status(self, queue: StreamQueue, *, is_sparse: bool) -> Mapping[str, Any]:
        core = self._ingests.of(is_private=queue.stream.is_private).core
        return {
            **queue.counters.as_dict(),
            "gap_causes": queue.gap_causes,
            "sparse": is_sparse,
            "pending": len(queue.slots),
            "last_id": queue.confirmed,
            "suspended": queue.reason,
            "event_us": core.last_event_us.get(queue.name, 0),
        }

    def _is_shown(self, queue: StreamQueue) -> bool:
        """Whether a queue is in the status: not if its stream was unsubscribed and it is empty."""
        return queue.stream.is_own or queue.name in self._feed.streams or bool(queue.slots)

    def _journal_trouble(self) -> str:
        maintenance = self._receiver.maintenance
        return self._receiver.log.trouble or (maintenance.trouble if maintenance else "")

    # ---- running -------------------------------------------------------------------------------

    async def _run(self, stop: asyncio.Event, heartbeat: Heartbeat) -> None:
        maintenance = self._receiver.maintenance
        async with asyncio.TaskGroup() as tasks:
            publishing = tasks.create_task(self._publisher.run(), name="publisher")
            receiving = tasks.create_task(self._feed.run(), name="feed")
            rest = [tasks.create_task(self._beat(heartbeat, stop), name="heartbeat"), publishing]
            if (address := self._config.metrics.address) is not None:
                if not exposition.is_installed():
                    log.warning("metrics_missing", reason=exposition.MISSING)
                pages = BridgePages(self, per_stream=self._config.metrics.per_stream)
                rest.append(tasks.create_task(serve(address, pages), name="metrics"))
            if self._config.slow_groups.wait_for:
                for shard, url in enumerate(urls_of_shards(self._redis_url)):
                    rest.append(tasks.create_task(self._trim(shard, url), name="trimming"))
            if maintenance is not None:
                rest.append(tasks.create_task(self._catch_up(), name="journal-catch-up"))
                rest.append(tasks.create_task(maintenance.run(), name="journal-upkeep"))
            await stop.wait()
            receiving.cancel()
            await asyncio.wait([receiving])
            await self._publisher.drain(self._config.publish.drain_s)
            for task in rest:
                task.cancel()

    async def _catch_up(self) -> None:
        """Read the journal whenever the ingest is behind or backfills."""
        ingest = self._ingests.public
        while True:
            await ingest.to_read.wait()
            did_something = ingest.step(CATCH_UP_RECORDS)
            if did_something:
                self._publisher.pump()
            await asyncio.sleep(0 if did_something else WAIT_S)

    async def _trim(self, shard: int, url: str) -> None:
        config = self._config.slow_groups
        async with self._client("trimming", url) as client:
            groups, until_bytes = config.wait_for, config.until_bytes
            await Trimming(client, self._space, self, groups, until_bytes, shard).run()

    async def _beat(self, heartbeat: Heartbeat, stop: asyncio.Event) -> None:
        """Read what peers and earlier bridges have received, then beat each second."""
        while True:
            try:
                watermarks = await heartbeat.begin()
                known = await heartbeat.registered()
                before = await heartbeat.streams_before() if self.member() else ()
                break
            except (RedisError, OSError, TimeoutError):
                self._first_poll_failed()
                await asyncio.sleep(BEGIN_AGAIN_S)
        self._resume(watermarks)
        if not stop.is_set():  # else the feed has ended
            self._feed.recall(known)
            self._feed.keep(before, self._clock.now_us())
        while True:
            await heartbeat.beat()
            if not stop.is_set():
                self._hand_over()
            self._publisher.pump()  # entries that waited for peers may be due now
            await asyncio.sleep(INTERVAL_S)

    def _first_poll_failed(self) -> None:
        """Note it, so that streams on available shards do not wait for the first shard for ever."""
        before = self._peers.ignores_peers
        if self._peers.first_poll_failed(self._clock.now_us()):
            if not before:
                log.warning("other_bridges_unknown", reason=self._shards.trouble)
            self._publisher.pump()

    def _hand_over(self) -> None:
        """Drop streams that other members of the fleet have taken over."""
        taken = [
            name
            for name, owner in self._feed.handed_over().items()
            if self._peers.member_receives(owner, name)
        ]
        # While Redis is unavailable nothing is known of peers: then there is no time limit.
        limit_s = None if self._shards.trouble else self._config.share.handover_s
        limit_us = None if limit_s is None else int(limit_s * 1e6)
        self._feed.hand_over(taken, limit_us, self._clock.now_us())

    def _resume(self, watermarks: Mapping[str, int]) -> None:
        """Pass an earlier bridge's watermarks to the ingests, each to that of its stream."""
        wall_us = self._clock.wall_us()
        for ingest in self._ingests.all:
            marks = {
                name: us
                for name, us in watermarks.items()
                if self._ingests.of(is_private=is_private(name)) is ingest
            }
            ingest.take(Watermarks(wall_us, marks))

    @asynccontextmanager
    async def _heartbeat(self) -> AsyncIterator[Heartbeat]:
        config = self._config
        first, *_ = urls_of_shards(self._redis_url)
        async with self._client("status", first) as client:
            me = PeerStatus(
                instance=config.instance,
                session=secrets.token_hex(8),
                host=socket.gethostname(),
                pid=os.getpid(),
            )
            yield Heartbeat(client, self._space, self, me, self._peers, self._clock)

    def _client(self, purpose: str, url: str) -> Redis:
        """An ordinary client, for requests off the hot path; the caller closes it."""
        config = self._config
        return connect(
            url,
            name=f"bridge:{config.instance}:{purpose}",
            connect_timeout_s=config.redis.connect_timeout_s,
            command_timeout_s=config.redis.command_timeout_s,
        )


def target_of(config: Config, url: str) -> str:
    """The target of checkpoints: Redis and prefix, independent of the URL's spelling."""
    where = str(config.embedded.data_dir)
    if not config.redis.is_embedded:
        where = Target.from_url(url, config.redis.connect_timeout_s).address
    where = re.sub("^localhost:", "127.0.0.1:", where)
    return f"{where} {config.redis.key_prefix}".rstrip()


class Recorder:
    """Receives and journals, without publishing."""

    def __init__(self, config: Config, key: AccountKey | None) -> None:
        """Raises ConfigError if the journal cannot be written."""
        # a recording is kept; only `journal.max_bytes` limits it
        self._receiver = Receiver(config, key, "", max_age_s=float("inf"))
        maintenance, journal = self._receiver.maintenance, self._receiver.log
        if maintenance is None:
            raise ConfigError("journal.enabled is false, and a recorder writes nothing else")
        if journal.is_broken:
            raise ConfigError(f"{journal.trouble}: give another journal.dir")
        self._maintenance = maintenance
        self._dir = config.journal.dir
        self._feed = self._receiver.new_feed(None)

    def reload(self, config: Config) -> None:
        """Change to another configuration's streams. Raises ConfigError if it cannot be used."""
        self._receiver.reload(config, self._feed)

    async def run(self, stop: asyncio.Event) -> Loss:
        """Record until `stop`. Returns the frames that were received and are not in the journal."""
        log.info("recording", dir=str(self._dir), streams=len(self._feed.streams))
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(work, name=name)
                for name, work in (
                    ("feed", self._feed.run()),
                    ("journal-upkeep", self._maintenance.run()),
                    ("forget", self._forget()),
                )
            ]
            await stop.wait()
            for task in running:
                task.cancel()
        self._maintenance.close()
        journal = self._receiver.log
        log.info("recorded", bytes=journal.end, frames_lost=journal.loss.frames)
        return journal.loss

    async def _forget(self) -> None:
        """Empty the queues repeatedly, since nothing is published."""
        table = self._receiver.table
        while True:
            self._receiver.ingests.public.step(CATCH_UP_RECORDS)
            for queue in table:
                queue.discard()
            table.ready.clear()
            await asyncio.sleep(FORGET_EVERY_S)
