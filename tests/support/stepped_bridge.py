"""A bridge without loop, sockets and clock: each of its steps is a call, against a real Redis.

Hearing, journal, lines and the append script are the real ones; only the publisher's cycle is
spelled out here, so that a test decides which reply is lost, when a process dies, and what time it
is.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hiredis
import redis

from bridge.contract.identity import EMPTY, EntryId
from bridge.contract.streams import parse_stream
from bridge.journal.checkpoint import Checkpoint
from bridge.journal.hearing import Hearing
from bridge.journal.segments import SegmentWriter
from bridge.pipeline.intake import Intake
from bridge.pipeline.items import Answer
from bridge.pipeline.numbered import NumberedLine
from bridge.pipeline.tail import Tail, edge, identify
from bridge.pipeline.unnoted import PAGE
from bridge.pipeline.unnumbered import UnnumberedLine
from bridge.publish.append import SCRIPT, pack_append

SEGMENT_BYTES = 20_000  # small, so that a reading meets several


class SteppedBridge:
    """One process after another over one journal and one Redis. Times in µs."""

    def __init__(self, folder: Path, client: redis.Redis, names: Sequence[str]) -> None:
        self.now_us = 1_790_915_531_000_000
        self._folder = folder
        self._client = client
        self._names = names
        self._checkpoint: Checkpoint | None = None
        self.has_accepted_loss = False  # Redis lost something while no journal could be written
        client.script_load(SCRIPT)
        self._wire = client.connection_pool.get_connection()
        self.start()

    def start(self) -> None:
        """A process begins: it goes on from the last checkpoint."""
        self.intake = Intake(
            [parse_stream(name) for name in self._names],
            hold_us=2_000_000,
            snapshot_every=0,
            ask=lambda _: None,
        )
        self.hearing = Hearing(
            self.intake,
            buffer_bytes=100_000_000,
            keep_private=True,
            clock_us=lambda: self.now_us,
            on_items=lambda: None,
        )
        self.hearing.attach(SegmentWriter(self._folder, SEGMENT_BYTES), sync_each_flush=False)
        self.hearing.begin(self._checkpoint, "here")

    def kill(self) -> None:
        """It dies: what the system did not have of the journal yet is gone."""
        if (writer := self.hearing.journal.writer or self.hearing.journal.broken) is not None:
            writer.close()

    def end(self) -> None:
        """The last process dies."""
        self.kill()
        self._client.connection_pool.release(self._wire)

    def connect(self) -> int:
        """A connection is made and answered."""
        connection = self.hearing.opened("public-1", self._names)
        self.hearing.answered(connection, self.now_us)
        return connection

    def save_checkpoint(self) -> None:
        self._checkpoint = self.hearing.rehearing.checkpoint()

    def has_unseen_loss(self, name: str) -> bool:
        """Has Redis less of a stream than it acknowledged, and the bridge has not looked yet?"""
        confirmed = self.intake.lines[name].confirmed
        return EntryId.parse(self._tail(name).last) < EntryId.parse(confirmed)

    def publish(self, limit: int, *, loses_replies: bool = False) -> bool:
        """One cycle of the publisher. False: there was nothing to send."""
        self._look()
        self._read_gaps()
        self._read_tails()
        if any(line.lost_at is not None for line in self.intake.every_line()):
            self.has_accepted_loss |= self.hearing.journal.is_broken
            self.hearing.rehearing.refill()
        batch = [
            (line, items)
            for line in list(self.intake.dirty.values())
            if (items := line.take(self.now_us, limit))
        ]
        self.hearing.journal.flush()
        for line, items in batch:
            reply = self._call(pack_append(line.stream.name.encode(), b"", b"", items))
            assert not isinstance(reply, hiredis.ReplyError), reply
            if loses_replies:
                line.unanswered()
                continue
            status, settled, last, signs = reply
            line.settle(
                Answer(status.decode(), settled, last.decode(), signs.decode()), self.now_us
            )
            self.intake.redis_answered(line, self.now_us)
        return bool(batch)

    def _look(self) -> None:
        for line in self.intake.every_line():
            if line.confirmed != EMPTY and not line.pending:
                at_end = self._tail(line.stream.name)
                line.look(at_end.last, at_end.newest)

    def _read_tails(self) -> None:
        for line in list(self.intake.dirty.values()):
            if not isinstance(line, UnnumberedLine):
                continue
            if (wanted := line.tail_wanted(self.now_us)) is None:
                continue
            entries = self._client.xrange(line.stream.name, min=str(wanted.from_ms))
            told = [identify(fields) for _, fields in entries]
            known = [each for each in told if each is not None]
            line.read_tail(self._tail(line.stream.name)._replace(known=known))
            self.intake.redis_answered(line, self.now_us)

    def _read_gaps(self) -> None:
        for line in list(self.intake.dirty.values()):
            while isinstance(line, NumberedLine) and (wanted := line.gaps_wanted()):
                line.read_gaps(
                    [
                        self._client.xrange(line.stream.name, min=place.from_id, count=PAGE)
                        for place in wanted
                    ]
                )
                self.intake.redis_answered(line, self.now_us)

    def _tail(self, name: str) -> Tail:
        if not self._client.exists(name):
            return Tail(EMPTY, ())
        info: Any = self._client.xinfo_stream(name)
        first, newest = (
            edge(*info[end]) if info[end] else None for end in ("first-entry", "last-entry")
        )
        had_older = info["entries-added"] > info["length"]
        return Tail(info["last-generated-id"], (), first if had_older else None, newest)

    def _call(self, packed: bytes) -> Any:
        self._wire.send_packed_command([packed])
        return self._wire.read_response(disable_decoding=True)

    def entries(self, name: str) -> list[dict[str, str]]:
        """What a stream holds of ours."""
        return [fields for _, fields in self.read(name)]

    def read(self, name: str) -> list[tuple[str, dict[str, str]]]:
        """The same with IDs."""
        return [entry for entry in self._client.xrange(name) if "type" in entry[1]]


def history(rows: Sequence[tuple[int, int]]) -> bytes:
    """A page of trade history: (id, ms) each."""
    return json.dumps(
        [
            {"id": number, "isBuyerMaker": False, "price": "1", "quantity": "1", "timestamp": ms}
            for number, ms in rows
        ]
    ).encode()
