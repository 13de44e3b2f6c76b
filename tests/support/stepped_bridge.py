"""A bridge without event loop, sockets and clock: each step is a call, with a Redis real or in
memory.

Ingest, journal, core and outbox are the real ones. Only the socket blocks, so that a test decides
which reply is lost, when a process is killed, and what time it is.
"""

import json
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import hiredis
import redis

from bridge.contract.causes import GapCause
from bridge.contract.identity import EntryId
from bridge.contract.streams import is_private, parse_stream
from bridge.core.books import SnapshotPlan
from bridge.core.core import Core
from bridge.core.outcomes import Applied
from bridge.core.peers import Peers
from bridge.core.plan import CorePlan, ResumePoints
from bridge.core.queue import QueueTable, StreamQueue
from bridge.core.records import Answered, BodyKind, Frame, Lost, Opened, RestBody
from bridge.ingest import Ingest, Ingests
from bridge.journal.checkpoint import Checkpoint
from bridge.journal.log import Log, NullLog
from bridge.journal.segments import SegmentWriter, list_segments
from bridge.redis.append import Retention, pack
from bridge.redis.ends import decoded, tail_of
from bridge.redis.outbox import Change, Outbox, OutboxSettings

SEGMENT_BYTES = 5_000  # small, so that a reader needs several
TAIL_BYTES = 25_000_000
BUFFER_BYTES = 100_000_000
NOW_US = 1_790_915_531_000_000
PLAN = CorePlan(hold_us=2_000_000, recover_us=30_000_000, snapshots=SnapshotPlan(0))
MOST_REQUESTS = 10_000


class SteppedClock:
    """A clock that the test sets, for both steady and wall time, µs."""

    def __init__(self, now_us: int) -> None:
        self.us = now_us

    def wall_us(self) -> int:
        return self.us

    def now_us(self) -> int:
        return self.us


class RedisSocket:
    """Sends an outbox's requests and reads the replies, blocking."""

    def __init__(self, client: redis.Redis) -> None:
        options = client.connection_pool.connection_kwargs
        self._socket = socket.create_connection((options["host"], options["port"]))
        self._reader = hiredis.Reader()

    def call(self, packed: bytes, replies: int) -> list[object]:
        self._socket.sendall(packed)
        replies_read: list[object] = []
        while len(replies_read) < replies:
            if (reply := self._reader.gets()) is not False:
                replies_read.append(reply)
            else:
                self._reader.feed(self._socket.recv(65_536))
        return replies_read

    def close(self) -> None:
        self._socket.close()


class Wire(Protocol):
    """A connection to a Redis."""

    def call(self, packed: bytes, replies: int) -> list[object]:
        """Send packed commands; all their replies."""
        ...

    def close(self) -> None: ...


class SteppedBridge:
    """Successive processes with one journal and one Redis. Times in µs.

    `folder` None: the journal is off. `keeps_private` False: private streams have their own ingest,
    without a journal.
    """

    def __init__(
        self,
        folder: Path | None,
        wire: Wire,
        names: Sequence[str],
        *,
        clock: SteppedClock | None = None,
        buffer_bytes: int = BUFFER_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        tail_bytes: int = TAIL_BYTES,
        plan: CorePlan = PLAN,
        target: str = "here",
        keeps_private: bool = True,
        has_peers: bool = False,
        batch_entries: int = 500,
    ) -> None:
        self.clock = clock or SteppedClock(NOW_US)
        self.names = names
        self.target = target
        self._folder = folder
        self._wire = wire
        self._buffer_bytes = buffer_bytes
        self._segment_bytes = segment_bytes
        self._tail_bytes = tail_bytes
        self._plan = plan
        self._keeps_private = keeps_private
        self._has_peers = has_peers
        self._batch_entries = batch_entries
        self._writer: SegmentWriter | None = None
        self._checkpoint: Checkpoint | None = None
        self.has_accepted_loss = False  # Redis lost entries while the journal could not be written
        self.start()

    @property
    def now_us(self) -> int:
        return self.clock.us

    @now_us.setter
    def now_us(self, us: int) -> None:
        self.clock.us = us

    def start(self) -> None:
        """Start a process that continues from the last checkpoint."""
        self.table, self.peers = QueueTable(), Peers()
        if self._has_peers:
            self.peers.expect()
        self._new_outbox(self._batch_entries)
        self._null_log = NullLog()
        checkpoint = None
        if self._folder is not None:
            self._writer = SegmentWriter(self._folder, self._segment_bytes)
            self.log = Log(
                self._writer, tail_limit_bytes=self._tail_bytes, clock_us=self.clock.wall_us
            )
            if self._checkpoint is not None:
                kept = self._checkpoint  # a recorder keeps it unchanged
                checkpoint = self.log.trusted(kept.turned_to(self.target) if self.target else kept)
        self._open_ways_in(checkpoint)

    def _open_ways_in(self, checkpoint: Checkpoint | None) -> None:
        if self._folder is None:
            self.ingest = self._new_ingest(self.names, None, ResumePoints())
            self.ingest.begin(None)
            self.private = self.ingest
        elif self._keeps_private:
            self.ingest = self._new_ingest(self.names, self.log, self._resume(checkpoint))
            self.ingest.begin(checkpoint)
            self.private = self.ingest
        else:
            public = [name for name in self.names if not is_private(name)]
            private = [name for name in self.names if is_private(name)]
            resume = self._resume(checkpoint)
            self.ingest = self._new_ingest(public, self.log, resume, takes_private=False)
            self.ingest.begin(checkpoint)
            self.private = self._new_ingest(private, None, ResumePoints())
            self.private.begin(None)
        self.core = self.ingest.core
        self._ingests = Ingests(self.ingest, self.private)

    def _new_ingest(
        self,
        names: Sequence[str],
        journal: Log | None,
        resume: ResumePoints,
        *,
        takes_private: bool = True,
    ) -> Ingest:
        core = Core(
            [parse_stream(name) for name in names],
            self._plan,
            self.table,
            self.peers,
            resume,
            takes_private=takes_private,
        )
        return Ingest(
            core,
            self.table,
            self._null_log if journal is None else journal,
            buffer_bytes=self._buffer_bytes,
            clock=self.clock,
            target=self.target,
        )

    def _resume(self, checkpoint: Checkpoint | None) -> ResumePoints:
        if not self.target:
            return ResumePoints(self.log.end, self.log.end)
        if checkpoint is None:
            return ResumePoints(0, self.log.end)
        return ResumePoints(
            checkpoint.offset, self.log.end, checkpoint.confirmed, checkpoint.suspended
        )

    def kill(self) -> None:
        """Kill the process: journal data that the operating system does not have yet is lost."""
        if self._writer is not None:
            self._writer.close()

    def end(self) -> None:
        """Kill the last process."""
        self.kill()
        self._wire.close()

    # ---- received messages ---------------------------------------------------------------------

    def connect(self) -> int:
        """Open a connection and answer its request; its number."""
        return self.connect_to(self.names)

    def connect_to(self, names: Sequence[str]) -> int:
        """The same for some of the streams, which must be all public or all private where
        that matters.
        """
        ingest = self._of(names[0])
        number = ingest.new_connection()
        ingest.take(Opened(self.now_us, number, "public-1", names))
        ingest.take(Answered(self.now_us, number, self.now_us))
        return number

    def receive(self, frame: str, connection: int, *, is_private: bool = False) -> Applied:
        ingest = self.private if is_private else self.ingest
        return ingest.take(Frame(self.now_us, connection, frame.encode()))

    def lose(self, connection: int, *, is_private: bool = False) -> None:
        """Lose a connection."""
        ingest = self.private if is_private else self.ingest
        ingest.take(Lost(self.now_us, connection, GapCause.CONNECTION_LOST))

    def rest_body(self, name: str, body: bytes, kind: BodyKind = BodyKind.MAIN) -> Applied:
        return self._of(name).take(RestBody(self.now_us, name, kind, body))

    def _of(self, name: str) -> Ingest:
        return self._ingests.of(is_private=is_private(name))

    # ---- the bridge's own steps ------------------------------------------------------------------

    def flush(self) -> None:
        """Write the journal to the operating system; start a new segment if this one is full."""
        if self._folder is not None:
            self.log.flush()
            if self.log.is_full:
                self.log.roll(self.ingest.state())

    def save_checkpoint(self) -> None:
        self._checkpoint = self.ingest.checkpoint()

    def recover(self) -> None:
        """Try to write the journal again."""
        self.log.recover(self.ingest.state())

    def prune(self) -> None:
        """Delete the journal's oldest segment, unless it is the current one."""
        assert self._folder is not None
        oldest, *following = list_segments(self._folder)
        if following:
            while not self.ingest.skip_before(following[0].start, 50):
                pass
            oldest.path.unlink()

    def suspend(self, names: Sequence[str], reason: str) -> None:
        """Leave these streams to the journal, as if the node of their shard were unavailable."""
        self._ingests.suspend([queue for queue in self.table if queue.name in names], reason)

    def take_over(self) -> None:
        """Leave a full memory: from here on the ingest reads from the journal."""
        self.ingest.fall_behind()

    def has_unseen_loss(self, name: str) -> bool:
        """Whether Redis has lost acknowledged entries of a stream and the bridge has not
        noticed.
        """
        [info] = self._wire.call(pack("XINFO", "STREAM", name), 1)
        return EntryId.parse(tail_of(info).last) < EntryId.parse(self.queue(name).confirmed)

    def publish(self, limit: int, *, loses_replies: bool = False) -> bool:
        """Connect to Redis and publish once, at most `limit` entries per stream.

        False: there was nothing to publish.
        """
        self._new_outbox(limit)
        outbox = self.outbox
        outbox.connected(self.now_us)
        has_published = False
        request = outbox.commands(self.now_us)
        for _ in range(MOST_REQUESTS):
            self._heed_changes()
            if request is None or (has_published and request.publishes):
                break
            if request.publishes:
                has_published = True
                self._ingests.before_publishing()
                self.flush()
            replies = self._wire.call(request.packed, request.replies)
            if request.publishes and loses_replies:
                break
            request = outbox.replies(replies, self.now_us)
        else:
            raise AssertionError("the outbox never becomes idle")
        self._heed_changes()
        outbox.disconnected("the test is over with it")
        return has_published

    def pump(self, loses_reply: Callable[[], bool] = lambda: False) -> None:
        """Publish over a kept connection until there is nothing to send, or until the reply to a
        publication is lost, which ends the connection. Raises Refused.
        """
        outbox = self.outbox
        if not outbox.is_connected:
            outbox.connected(self.now_us)
        request = outbox.commands(self.now_us)
        for _ in range(MOST_REQUESTS):
            self._heed_changes()
            if request is None:
                return
            if request.publishes:
                self._ingests.before_publishing()
                self.flush()
            replies = self._wire.call(request.packed, request.replies)
            if request.publishes and loses_reply():
                outbox.disconnected("a reply is lost")
                return
            request = outbox.replies(replies, self.now_us)
        raise AssertionError("the outbox never becomes idle")

    def come_to_rest(self, limit: int = 500) -> None:
        """Read the journal and publish until there is nothing to do at this time."""
        for _ in range(MOST_REQUESTS):
            has_published = self.publish(limit)
            if not self.ingest.step(limit) and not has_published:
                return
        raise AssertionError("entries stay pending for ever")

    def _new_outbox(self, limit: int) -> None:
        settings = OutboxSettings("", limit, 5.0)
        self.outbox = Outbox(self.table, self.peers, settings, Retention())

    def _heed_changes(self) -> None:
        for change, queue in self.outbox.changes():
            if change is Change.LOST and self._folder is not None:
                self.has_accepted_loss |= self.log.is_broken
            self._ingests.redis_changed(change, queue)

    # ---- queues and streams --------------------------------------------------------------------

    def queue(self, name: str) -> StreamQueue:
        """The queue of a stream of the exchange or of the bridge."""
        return next(queue for queue in self.table if queue.name == name)

    def entries(self, name: str) -> list[dict[str, str]]:
        """The bridge's entries in a stream."""
        return [fields for _, fields in self.read(name)]

    def read(self, name: str) -> list[tuple[str, dict[str, str]]]:
        """The bridge's entries in a stream, with their IDs."""
        [reply] = self._wire.call(pack("XRANGE", name, "-", "+"), 1)
        return [entry for entry in decoded(reply) if "type" in entry[1]]


def history(rows: Sequence[tuple[int, int]]) -> bytes:
    """A page of trade history; `rows`: ID and time in ms of each trade."""
    return json.dumps(
        [
            {"id": number, "isBuyerMaker": False, "price": "1", "quantity": "1", "timestamp": ms}
            for number, ms in rows
        ]
    ).encode()
