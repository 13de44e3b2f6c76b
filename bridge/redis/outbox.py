"""The publishing protocol with Redis, without I/O: what to send, and what replies mean (pure).

    connected()                a connection was made: the conversation begins anew
    commands(now) → Request    what to send now; None: nothing, or a reply is awaited
    replies(now, …)            the replies to it
    disconnected()             there will be no reply: everything in flight is in doubt
    due_us()                   when `commands` should be called again in any case
    changes()                  streams that Redis has lost, suspended or resumed

One request is in flight at a time, and batches grow only while Redis answers the last one; no timer
here delays a message. A missing reply is neither success nor failure: the append script (or the
stream's tail) shows what was applied. The order of a round is one generator, `_converse`.
"""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import NamedTuple

import hiredis

from bridge.contract import keys
from bridge.contract.identity import EMPTY
from bridge.core.counters import OutboxCounters
from bridge.core.entries import Answer
from bridge.core.latency import Latencies
from bridge.core.peers import Peers
from bridge.core.queue import OPEN, Batch, QueueState, QueueTable, StreamQueue, is_before
from bridge.core.round_trips import RoundTrips
from bridge.core.tail import Known, TailWanted, identify
from bridge.redis.append import (
    SCRIPT,
    Limits,
    Part,
    Reply,
    Retention,
    pack,
    pack_append,
    pack_probe,
    read_answers,
)
from bridge.redis.durability import MEMORY, Durability
from bridge.redis.ends import decoded, refusal, tail_of
from bridge.redis.registry import check_claim, pack_claim, pack_registration
from bridge.runtime.refusals import Refusal, Refused, is_server_wide, meaning, refusal_text

MAX_FLUSH_ENTRIES = 4_000  # in one write; limits what a missing reply leaves in doubt
TAIL_PAGE = 1_000  # entries of a tail read at once: other streams are served in between
CHECK_EVERY_US = 5_000_000  # a check of all last IDs: streams at rest show no loss otherwise
CHECK_STREAMS = 100  # at once: new messages are published in between
RESUME_EVERY_US = 10_000_000  # how often a suspended stream is tried again
MOST_FORGOTTEN = 3  # a server restart or SCRIPT FLUSH makes Redis forget the script once
_FORGETFUL = (
    "Redis repeatedly does not know the script that was just loaded (NOSCRIPT): does a proxy "
    "spread the commands of one connection over several servers?"
)


@dataclass(frozen=True, slots=True)
class OutboxSettings:
    """The settings of an outbox."""

    key_prefix: str  # of the shard
    batch_entries: int
    command_timeout_s: float
    account_fingerprint: str = ""  # empty: no private streams
    durability: Durability = MEMORY
    shard: int = 0  # the first one has the registry


class Request(NamedTuple):
    """Packed commands, the number of replies, and their time limit in seconds.

    `publishes`: it appends entries, so their records must be flushed to the journal first.
    """

    packed: bytes
    replies: int
    limit_s: float
    publishes: bool = False


class Change(Enum):
    """A change of a stream in Redis."""

    LOST = "lost"  # Redis has less than it acknowledged
    SUSPENDED = "suspended"  # Redis refuses this stream alone
    RESUMED = "resumed"  # Redis accepts it again


_HELD_BACK = (QueueState.LOST, QueueState.SUSPENDED)

ScriptAnswer = Answer | hiredis.ReplyError | None
Conversation = Generator[Request | None, Sequence[Reply], None]
Step = Generator[Request, Sequence[Reply], None]


class Outbox:
    """Publishes the queues of one bridge to one Redis."""

    def __init__(
        self, table: QueueTable, peers: Peers, settings: OutboxSettings, retention: Retention
    ) -> None:
        # Empty while Redis accepts entries; an accepted connection is not enough.
        self.trouble = "not connected yet"
        self.registry_trouble = ""
        self.not_durable = ""  # why `publish.durability` is not reached; until it is
        self.newest_us = 0  # when Redis last acknowledged something
        self.counters = OutboxCounters()
        self.latencies = Latencies()
        self.round_trips = RoundTrips()
        self._table = table
        self._peers = peers
        self._settings = settings
        self._retention = retention
        self._where: dict[str, tuple[bytes, Limits]] = {}
        self._now_us = 0
        self._check_at_us = 0
        self._resume_at_us = 0
        self._to_check: list[StreamQueue] = []
        self._conversation: Conversation | None = None
        self._awaits_replies = False
        self._is_one_by_one = False  # one stream in each call: a call of several was refused
        self._changes: list[tuple[Change, StreamQueue]] = []

    # ---- interface of the publisher ------------------------------------------------------------

    def connected(self, now_us: int) -> None:
        """Begin on a new connection: greet, then publish."""
        self._now_us = self._check_at_us = self._resume_at_us = now_us
        self._peers.resumed(now_us, self._settings.shard)
        self._awaits_replies = False
        self._conversation = self._converse()

    def commands(self, now_us: int) -> Request | None:
        """What to send now. Raises Refused if this connection cannot be used, and Fatal if the
        prefix is another account's.
        """
        if self._awaits_replies or self._conversation is None:
            return None
        return self._continue((), now_us)

    def replies(self, replies: Sequence[Reply], now_us: int) -> Request | None:
        """Take the replies to the last request. Returns and raises as `commands`."""
        self._awaits_replies = False
        self.round_trips.add(now_us - self._now_us)  # since the request was made
        return self._continue(replies, now_us)

    def disconnected(self, reason: str) -> None:
        """End the conversation: entries in flight may have been applied, or not."""
        self._conversation = None
        self._awaits_replies = False
        self.trouble = reason
        self.counters.disconnects += 1
        for queue in self._table:
            queue.no_reply()

    def due_us(self) -> int:
        """When there may be something to send without a new message or reply."""
        check_at_us = 0 if self._to_check else self._check_at_us
        if not (ready := self._table.ready):
            return check_at_us
        dues = [due for queue in ready if (due := queue.due_us()) is not None]
        return min([check_at_us, *dues])

    def changes(self) -> list[tuple[Change, StreamQueue]]:
        """Changes of streams since the last call."""
        if not self._changes:
            return []
        changes, self._changes = self._changes, []
        return changes

    def retain(self, retention: Retention) -> None:
        """Change the retention."""
        self._retention = retention
        self._where.clear()

    @property
    def is_connected(self) -> bool:
        return self._conversation is not None

    def _continue(self, replies: Sequence[Reply], now_us: int) -> Request | None:
        assert self._conversation is not None
        self._now_us = now_us
        # A generator that has not begun takes no value; then there are no replies either.
        request = self._conversation.send(replies) if replies else next(self._conversation)
        self._awaits_replies = request is not None
        return request

    # ---- the conversation ----------------------------------------------------------------------

    def _converse(self) -> Conversation:
        """The conversation on one connection."""
        yield from self._greet()
        forgotten = 0  # how often in succession Redis did not know the script
        while True:
            if self._now_us >= self._check_at_us:
                self._check_at_us = self._now_us + CHECK_EVERY_US
                self._to_check = [queue for queue in self._table if _rests(queue)]
                yield from self._try_suspended()
            if self._to_check:
                yield from self._check_ends()
            ready = self._table.ready
            if [queue for queue in ready if queue.may_read]:
                yield from self._read_pages()
                yield from self._read_tails()
            batches = self._take() if ready else ()
            if not batches:
                self.trouble = ""
                yield None
                continue
            calls = self._calls(batches)
            replies = yield self._publication(calls)
            answers = self._answers(calls, replies)
            if self._settings.durability.is_waited_for and not _all_refused(answers):
                yield from self._await_durability()
            forgotten = forgotten + 1 if self._settle(batches, answers) else 0
            if forgotten > MOST_FORGOTTEN:
                raise Refused(_FORGETFUL)
            if forgotten:
                yield from self._load_script()

    def _greet(self) -> Step:
        """Load the script, register the streams, claim the prefix for the account."""
        yield from self._load_script()
        yield from self._register()
        if self._settings.durability.is_waited_for:
            yield from self._await_durability()
        prefix, owner = self._settings.key_prefix, self._settings.account_fingerprint
        if owner:
            replies = yield self._request(pack_claim(prefix, owner), 2)
            _refuse_errors(replies, f"{prefix}{keys.ACCOUNT}: ")
            check_claim(replies, prefix, owner)

    def _load_script(self) -> Step:
        _refuse_errors((yield self._request(pack("SCRIPT", "LOAD", SCRIPT), 1)))

    def _register(self) -> Step:
        """Write the registry, without streams that never had a message: their names may be wrong. A
        wrong key must not stop publishing.
        """
        known = (queue for queue in self._table if queue.has_begun)
        streams = [queue.stream for queue in known if not queue.stream.is_own]
        if not streams or self._settings.shard:  # the heartbeat registers those of other shards
            return
        prefix = self._settings.key_prefix
        [reply] = yield self._request(pack_registration(prefix, streams), 1)
        if is_error(reply) and is_server_wide(reply):
            _refuse_errors([reply])
        self.registry_trouble = f"{prefix}{keys.STREAMS}: {reply}" if is_error(reply) else ""

    def _check_ends(self) -> Step:
        """Check whether Redis has what it acknowledged, for the next CHECK_STREAMS streams."""
        part = self._to_check[:CHECK_STREAMS]
        del self._to_check[:CHECK_STREAMS]
        queues = [queue for queue in part if _rests(queue)]
        if not queues:
            return
        [reply] = yield self._request(pack_probe([self._key(queue) for queue in queues]), 1)
        if is_error(reply) and meaning(reply) is Refusal.NO_SCRIPT:
            yield from self._load_script()  # the next check is soon enough
            return
        answers = read_answers(reply, len(queues))
        doubtful = [
            queue
            for queue, answer in zip(queues, answers, strict=True)
            if not isinstance(answer, Answer) or is_before(answer.last, queue.confirmed)
        ]
        if doubtful:
            yield from self._check_exactly(doubtful)

    def _check_exactly(self, queues: Sequence[StreamQueue]) -> Step:
        """Check by XINFO: the newest entry may be deleted while the last ID is unchanged."""
        packed = b"".join(pack("XINFO", "STREAM", self._key(queue)) for queue in queues)
        replies = yield self._request(packed, len(queues))
        for queue, info in zip(queues, replies, strict=True):
            if isinstance(info, list) or "no such key" in str(info):
                end = tail_of(info)
                queue.check_end(end.last, end.newest)
                self._report_loss(queue)
            elif is_server_wide(info):
                raise Refused(f"Redis refused: {info}")

    def _try_suspended(self) -> Step:
        """Probe suspended streams, and resume those that Redis accepts again."""
        queues = [queue for queue in self._table if queue.is_suspended]
        if not queues or self._now_us < self._resume_at_us:
            return
        self._resume_at_us = self._now_us + RESUME_EVERY_US
        packed = b"".join(pack_probe([self._key(queue)]) for queue in queues)
        replies = yield self._request(packed, len(queues))
        for queue, reply in zip(queues, replies, strict=True):
            [answer] = read_answers(reply, 1)
            if isinstance(answer, Answer):
                queue.resume()
                self._table.mark_ready(queue)
                self._changes.append((Change.RESUMED, queue))

    def _read_pages(self) -> Step:
        """Read pages for queues in replay, which look for gaps that may be in no gap log."""
        while reading := [
            (queue, reads) for queue in self._table.ready if (reads := queue.pages_wanted())
        ]:
            packed = [
                pack("XRANGE", self._key(queue), page.from_id, "+", "COUNT", page.limit)
                for queue, reads in reading
                for page in reads
            ]
            replies = iter((yield self._request(b"".join(packed), len(packed))))
            for queue, reads in reading:
                pages = list(islice(replies, len(reads)))
                if (error := next(filter(is_error, pages), None)) is not None:
                    self._suspend(queue, str(error))
                    continue
                queue.read_pages([decoded(page) for page in pages])
                self._table.owner(queue).redis_answered(queue, self._now_us)

    def _read_tails(self) -> Step:
        """Read tails for queues that do not know what their stream has."""
        reading = [
            (queue, tail)
            for queue in self._table.ready
            if (tail := queue.tail_wanted(self._now_us)) is not None
        ]
        if not reading:
            return
        packed = b"".join(
            pack("XINFO", "STREAM", self._key(queue)) + self._pack_tail(queue, "+", tail)
            for queue, tail in reading
        )
        replies = yield self._request(packed, 2 * len(reading))
        for (queue, tail), info, page in zip(reading, replies[::2], replies[1::2], strict=True):
            reason = refusal(info, page)
            if reason is not None:
                self._suspend(queue, reason)
                continue
            known: list[Known] = []
            yield from self._whole_tail(queue, tail, page, known)
            queue.read_tail(tail_of(info, known[::-1], self._find(queue)[1]))
            self._report_loss(queue)
            self._table.owner(queue).redis_answered(queue, self._now_us)

    def _whole_tail(
        self, queue: StreamQueue, tail: TailWanted, page: Reply, known: list[Known]
    ) -> Step:
        """Collect all entries of the tail, newest first; `page` has the newest."""
        while True:
            entries = decoded(page)
            identified = (identify(queue.stream, fields) for _, fields in entries)
            known += [one for one in identified if one is not None]
            enough = tail.at_most is not None and len(known) >= tail.at_most
            if enough or len(entries) < TAIL_PAGE:
                return
            replies = yield self._request(self._pack_tail(queue, f"({entries[-1][0]}", tail), 1)
            _refuse_errors(replies)
            [page] = replies

    def _take(self) -> list[Batch]:
        """The batches to send now, of as many streams as fit into one write."""
        table, now_us, limit = self._table, self._now_us, self._settings.batch_entries
        batches: list[Batch] = []
        total = 0
        for queue in list(table.ready):
            batch = queue.take(now_us, limit)
            if batch is not None:
                batches.append(batch)
                total += len(batch.slots)
                if total >= MAX_FLUSH_ENTRIES:
                    for each in batches:
                        table.put_last(each.queue)
                    break
            elif not queue.slots:
                table.mark_idle(queue)
        return batches

    def _calls(self, batches: list[Batch]) -> list[list[Batch]]:
        """The batches grouped into calls of the script; a call is limited, since Redis serves no
        other client meanwhile.
        """
        if len(batches) == 1:
            return [batches]
        limit = 1 if self._is_one_by_one else self._settings.batch_entries
        calls: list[list[Batch]] = []
        room = 0
        for batch in batches:
            if (room := room - len(batch.slots)) < 0:
                calls.append([])
                room = limit - len(batch.slots)
            calls[-1].append(batch)
        return calls

    def _publication(self, calls: Sequence[Sequence[Batch]]) -> Request:
        packed = []
        for call in calls:
            parts: list[Part] = []
            for batch in call:
                where = self._where.get(batch.queue.name) or self._find(batch.queue)
                parts.append((*where, batch))
            packed.append(pack_append(parts))
        limit_s = self._settings.command_timeout_s
        return Request(b"".join(packed), len(calls), limit_s, publishes=True)

    def _find(self, queue: StreamQueue) -> tuple[bytes, Limits]:
        """A stream's key and limits, cached."""
        where = self._where[queue.name] = self._key(queue), self._retention.of(queue.stream)
        return where

    def _answers(
        self, calls: Sequence[Sequence[Batch]], replies: Sequence[Reply]
    ) -> list[ScriptAnswer]:
        """The script's answer to each batch. None: a call of several streams was refused for one of
        them (missing rights, for example); sending each alone will show which.
        """
        self.counters.batches += len(calls)
        self._is_one_by_one = False
        answers: list[ScriptAnswer] = []
        for call, reply in zip(calls, replies, strict=True):
            if len(call) > 1 and is_error(reply) and meaning(reply) is Refusal.THIS_KEY:
                self._is_one_by_one = True
                answers += [None] * len(call)
            else:
                answers += read_answers(reply, len(call))
        return answers

    def _settle(self, batches: Sequence[Batch], answers: Sequence[ScriptAnswer]) -> bool:
        """Apply every answer, whatever an earlier one is. True: Redis does not know the script.
        Raises Refused.
        """
        misses_script, trouble = False, ""
        for batch, answer in zip(batches, answers, strict=True):
            queue = batch.queue
            if isinstance(answer, Answer):
                self._settle_batch(batch, answer)
                continue
            if answer is None:
                queue.no_reply()
                continue
            match meaning(answer):
                case Refusal.THIS_KEY:
                    self.counters.stream_refusals += 1
                    queue.fail(str(answer))
                    self._changes.append((Change.SUSPENDED, queue))
                case Refusal.NO_SCRIPT:
                    queue.no_reply()
                    misses_script = True
                case _:
                    self.counters.refusals += 1
                    queue.no_reply()
                    trouble = str(answer)
        if trouble:
            raise Refused(f"Redis refused: {refusal_text(trouble)}")
        if not misses_script:
            self.newest_us, self.trouble = self._now_us, ""
        return misses_script

    def _settle_batch(self, batch: Batch, answer: Answer) -> None:
        queue, table, now_us = batch.queue, self._table, self._now_us
        if queue.kind:
            self.latencies.written(queue.kind, batch.slots, answer.signs, now_us)
        queue.settle(answer, now_us)
        if queue.state is not OPEN and queue.state in _HELD_BACK:
            self._report_loss(queue)
            if queue.is_suspended:
                self._changes.append((Change.SUSPENDED, queue))
        if not (queue.slots or queue.may_read):
            table.mark_idle(queue)
        if queue.has_news:
            table.owner(queue).redis_answered(queue, now_us)

    def _await_durability(self) -> Step:
        """Wait until everything sent before has the configured durability: then it is published."""
        durability, settings = self._durability, self._settings
        limit_s = settings.command_timeout_s + durability.timeout_s
        wait = durability.wait()
        write = durability.write(settings.key_prefix)
        written, reply = yield Request(write + wait, 2, limit_s)
        # Without a write on this connection, WAIT covers nothing and returns at once.
        _refuse_errors([written])
        while missing := durability.missing(reply):
            self.not_durable = missing
            self.trouble = f"waiting for durability: {missing}"
            [reply] = yield Request(wait, 1, limit_s)
        self.trouble = self.not_durable = ""

    # ---- inside --------------------------------------------------------------------------------

    @property
    def _durability(self) -> Durability:
        return self._settings.durability

    def _request(self, packed: bytes, replies: int) -> Request:
        return Request(packed, replies, self._settings.command_timeout_s)

    def _key(self, queue: StreamQueue) -> bytes:
        return (self._settings.key_prefix + queue.name).encode()

    def _pack_tail(self, queue: StreamQueue, newest: str, tail: TailWanted) -> bytes:
        count = min(tail.at_most or TAIL_PAGE, TAIL_PAGE)
        return pack("XREVRANGE", self._key(queue), newest, tail.from_ms, "COUNT", count)

    def _report_loss(self, queue: StreamQueue) -> None:
        """Report a lost stream, and check all streams: more of them may be shorter, too."""
        if queue.is_lost:
            self._changes.append((Change.LOST, queue))
            self._check_at_us = self._now_us

    def _suspend(self, queue: StreamQueue, reason: str) -> None:
        """Suspend a stream that could not be read. Raises Refused if Redis reads no stream now."""
        if is_server_wide(reason):
            raise Refused(f"Redis refused: {refusal_text(reason)}")
        queue.fail(reason)
        self._changes.append((Change.SUSPENDED, queue))


def _rests(queue: StreamQueue) -> bool:
    """Whether the stream is at rest, so that no batch would show a loss."""
    is_there = queue.confirmed != EMPTY and not queue.slots
    return is_there and not (queue.is_lost or queue.is_suspended)


def is_error(reply: Reply) -> bool:
    return isinstance(reply, hiredis.ReplyError)


def _all_refused(answers: Iterable[ScriptAnswer]) -> bool:
    return not any(isinstance(answer, Answer) for answer in answers)


def _refuse_errors(replies: Iterable[Reply], where: str = "") -> None:
    for reply in replies:
        if is_error(reply):
            raise Refused(f"Redis refused: {where}{reply}")
