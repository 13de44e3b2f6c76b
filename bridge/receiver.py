"""The common part of a bridge and a recorder: the journal, the ingests, and the feed."""

import random
from collections.abc import Sequence

import structlog

from bridge.contract.streams import Stream, is_private, parse_stream
from bridge.core.books import SnapshotPlan
from bridge.core.core import Core
from bridge.core.outcomes import Applied
from bridge.core.peers import Peers
from bridge.core.plan import CorePlan, ResumePoints
from bridge.core.queue import queue_table
from bridge.core.records import Record
from bridge.core.wants import Wants
from bridge.errors import ConfigError
from bridge.feed.feed import Feed
from bridge.feed.plan import SubscriptionPlan
from bridge.ingest import Ingest, Ingests
from bridge.journal.checkpoint import Checkpoint
from bridge.journal.log import Log, NullLog
from bridge.journal.maintenance import Maintenance
from bridge.journal.opening import JournalSettings, open_log
from bridge.journal.owner import Owner
from bridge.redis.publisher import Publisher
from bridge.redis.shards import Publishers
from bridge.runtime.clock import SystemClock
from bridge.runtime.config import Config
from bridge.runtime.keys import AccountKey, require_key
from bridge.runtime.keyspace import KeySpace

log = structlog.get_logger(__name__)

FLUSH_AFTER = 128  # frames of one read after which they are published, before more are taken
TAIL_SHARE = 4  # the memory divided by this limits what the journal cannot write


def core_plan(config: Config) -> CorePlan:
    """The configured waits and snapshots."""
    snapshots = config.snapshots
    return CorePlan(
        hold_us=int(config.publish.hold_s * 1e6),
        recover_us=int(config.publish.recover_s * 1e6),
        snapshots=SnapshotPlan(
            snapshots.depth_every_updates, snapshots.depth_every_s * 1000, snapshots.depth_levels
        ),
    )


def subscription_plan(config: Config) -> SubscriptionPlan:
    """The configured streams."""
    return SubscriptionPlan(config.stream_names, config.stream_patterns, share=config.share.value)


class Entrance:
    """The feed's `Sink`: passes records to the ingest, and publishes them at once."""

    def __init__(self, ingest: Ingest, publisher: Publisher | Publishers | None) -> None:
        self.requested = ingest.requested
        self._ingest = ingest
        self._publisher = publisher
        self._taken = 0

    def new_connection(self) -> int:
        return self._ingest.new_connection()

    def take(self, record: Record) -> Applied:
        return self._ingest.take(record)

    def take_frames(
        self, received_us: int, connection: int, bodies: Sequence[bytes]
    ) -> Sequence[Applied]:
        applied = self._ingest.take_frames(received_us, connection, bodies)
        self._taken += len(bodies)
        if self._taken >= FLUSH_AFTER:
            self.flush()
        return applied

    def flush(self) -> None:
        self._taken = 0
        if self._publisher is not None:
            self._publisher.pump()

    def may_close(self, connection: int) -> bool:
        return self._ingest.may_close(connection)

    def requests(self) -> Sequence[str]:
        return self._ingest.requests()

    def wants(self, name: str) -> Wants | None:
        return self._ingest.wants(name)

    def is_wanted(self, name: str) -> bool:
        return self._ingest.is_wanted(name)

    def received(self, name: str) -> int:
        return self._ingest.received(name)


class Entrances:
    """The feed's `Sinks`."""

    def __init__(self, ingests: Ingests, publisher: Publisher | Publishers | None) -> None:
        self._public = Entrance(ingests.public, publisher)
        self._private = Entrance(ingests.private, publisher)

    def of(self, *, is_private: bool) -> Entrance:
        return self._private if is_private else self._public


class Receiver:
    """The journal, the ingests and the feed. `target`: the Redis and prefix that is published to;
    empty: none. `max_age_s`: replaces the configured age of the journal's records. Raises
    JournalInUse, and ConfigError if private streams have no key.
    """

    def __init__(
        self,
        config: Config,
        key: AccountKey | None,
        target: str,
        *,
        max_age_s: float | None = None,
    ) -> None:
        require_key(key, config.my_stream_names)
        self._config = config
        self._key = key
        self._target = target
        self._names_streams = "streams" in config.model_fields_set  # else the default streams
        self.chance = random.Random()
        private = any(map(is_private, config.my_stream_names))
        self.account = key.fingerprint if key and private else ""
        self.clock = SystemClock()
        # without publishing there are no shards
        space = config.redis.keys if target else KeySpace()
        self.table = queue_table(space)
        self.peers = Peers(space)
        self.journal = self._journal_settings(max_age_s)
        self.log, checkpoint = self._open_log()
        self.ingests = self._new_ingests(checkpoint)
        self.maintenance = (
            Maintenance(self.log, self.journal, self.ingests.public)
            if isinstance(self.log, Log) and self.journal is not None
            else None
        )

    def new_feed(self, publisher: Publisher | Publishers | None) -> Feed:
        """A feed into the ingests."""
        config = self._config
        return Feed(
            subscription_plan(config),
            config.exchange,
            Entrances(self.ingests, publisher),
            key=self._key,
            depth_levels=config.snapshots.depth_levels,
            clock_us=self.clock.wall_us,
            chance=self.chance,
        )

    def reload(self, config: Config, feed: Feed) -> Config:
        """Change to another configuration's streams. Returns the configuration, without changes
        that need a restart. Raises ConfigError if it cannot be used.
        """
        if not self.account and any(map(is_private, config.my_stream_names)):
            raise ConfigError("the first account.* stream needs a restart, which sets up the keys")
        if self._names_streams and "streams" not in config.model_fields_set:
            raise ConfigError(
                "it names no streams any more: is the file missing, empty, or half written?"
            )
        if waiting := config.needs_restart(self._config):
            log.warning("config_needs_restart", settings=list(waiting))
        changed = list(config.takes_effect(self._config))
        self._config = self._config.reloaded(config)
        # a recorder has no peers, so it hands nothing over
        feed.want(subscription_plan(config), self.clock.now_us() if self._target else None)
        log.info("config_reloaded", changed=changed, streams=len(feed.streams))
        return self._config

    # ---- the journal ---------------------------------------------------------------------------

    def _open_log(self) -> tuple[Log | NullLog, Checkpoint | None]:
        """Open the journal. If that fails, publishing continues without; it is retried later."""
        if self.journal is None:
            return NullLog(), None
        opened, checkpoint = open_log(self.journal, self.clock.wall_us)
        if checkpoint is None or not self._target:
            return opened, checkpoint  # a recorder does not change it
        if checkpoint.target not in ("", self._target):
            log.warning("journal_other_redis", journal_is_of=checkpoint.target, now=self._target)
        return opened, checkpoint.turned_to(self._target)

    def _journal_settings(self, max_age_s: float | None) -> JournalSettings | None:
        settings = self._config.journal
        if not settings.enabled:
            return None
        return JournalSettings(
            settings.dir,
            Owner(self._config.exchange.ws_url, self.account),
            settings.segment_bytes,
            settings.max_bytes,
            settings.max_age_s if max_age_s is None else max_age_s,
            settings.fsync,
            self._config.publish.buffer_bytes // TAIL_SHARE,
        )

    # ---- the ingests ---------------------------------------------------------------------------

    def _new_ingests(self, checkpoint: Checkpoint | None) -> Ingests:
        streams = [parse_stream(name) for name in self._config.my_stream_names]
        if self._config.journal.private or isinstance(self.log, NullLog):
            ingest = self._new_ingest(streams, self.log, self._resume(checkpoint))
            ingest.begin(checkpoint)
            return Ingests(ingest, ingest)
        public = [stream for stream in streams if not stream.is_private]
        private = [stream for stream in streams if stream.is_private]
        journaled = self._new_ingest(public, self.log, self._resume(checkpoint), private=False)
        journaled.begin(checkpoint)
        unjournaled = self._new_ingest(private, NullLog(), ResumePoints())
        unjournaled.begin(None)
        return Ingests(journaled, unjournaled)

    def _new_ingest(
        self,
        streams: Sequence[Stream],
        journal: Log | NullLog,
        resume: ResumePoints,
        *,
        private: bool = True,
    ) -> Ingest:
        core = Core(
            streams,
            core_plan(self._config),
            self.table,
            self.peers,
            resume,
            takes_private=private,
        )
        return Ingest(
            core,
            self.table,
            journal,
            buffer_bytes=self._config.publish.buffer_bytes,
            clock=self.clock,
            target=self._target,
        )

    def _resume(self, checkpoint: Checkpoint | None) -> ResumePoints:
        """Where the queues begin: unsettled records are read again, unless nothing is published."""
        end = self.log.end
        if not self._target:
            return ResumePoints(end, end)
        if checkpoint is None:
            return ResumePoints(0, end)
        return ResumePoints(checkpoint.offset, end, checkpoint.confirmed, checkpoint.suspended)
