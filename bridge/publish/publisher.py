"""Writes what waits in the lines to Redis, exactly once and in order.

Batches are natural: what has arrived goes out at once, and grows only while Redis is answering the
last one; no timer delays a message. A reply that never comes is neither success nor failure: the
line is told `unanswered` and the append script (or the stream's tail) settles it. Redis away is no
reason to stop: this keeps trying while the lines hold what is heard.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import hiredis
import structlog

from bridge.contract import keys
from bridge.contract.identity import EMPTY
from bridge.contract.streams import Stream
from bridge.pipeline.intake import Intake
from bridge.pipeline.items import Item
from bridge.pipeline.missing import Line
from bridge.pipeline.numbered import NumberedLine
from bridge.pipeline.tail import TailWanted, identify
from bridge.pipeline.unnoted import PAGE
from bridge.pipeline.unnumbered import UnnumberedLine
from bridge.publish.append import SCRIPT, Limits, pack_append, read_answer
from bridge.publish.durability import Durability, DurableWire
from bridge.publish.ends import decoded, refusal, tail_of
from bridge.publish.registry import check_claim, pack_claim, pack_registration
from bridge.publish.wire import Reply, Target, Wire, WireLost, open_wire, pack
from bridge.runtime.backoff import Backoff

log = structlog.get_logger(__name__)

MAX_FLUSH_ITEMS = 4_000  # in one write; bounds what one reply can leave in doubt
TAIL_PAGE = 1_000  # entries of a tail read at once: the loop goes on in between
LOOK_US = 5_000_000  # how often the last IDs of all streams are looked at
SAY_EVERY_US = 30_000_000  # while Redis is away: how much waits
REDEEM_US = 10_000_000  # how often a stream that failed alone is tried again

# Redis as a whole cannot take writes now; trying again helps. Everything else is the stream's own.
_SERVER_WIDE = (
    "LOADING", "OOM", "READONLY", "MISCONF", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY",
    "NOAUTH", "WRONGPASS", "NOREPLICAS", "UNKILLABLE",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PublishSettings:
    """What the publisher needs of the configuration."""

    target: Target
    key_prefix: str
    batch_entries: int
    connect_timeout_s: float
    command_timeout_s: float
    account_fingerprint: str  # empty: no private streams
    durability: Durability


class Publisher:
    """One bridge's writer. `wake()` after something was put into a line.

    `before_send` runs before anything is sent, `on_loss` when Redis turns out to have lost entries
    of some lines (their `lost_at` says where); it must refill these lines or make them go on.
    `behind_bytes` says how much of the journal is not in the lines yet.
    """

    def __init__(
        self,
        intake: Intake,
        settings: PublishSettings,
        limits: Callable[[Stream], Limits],
        clock_us: Callable[[], int],
        backoff: Backoff,
        *,
        before_send: Callable[[], None],
        on_loss: Callable[[], None],
        behind_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        self._intake = intake
        self._settings = settings
        self._clock_us = clock_us
        self._backoff = backoff
        self._before_send = before_send
        self._on_loss = on_loss
        self._behind_bytes = behind_bytes
        self._limits_of = limits
        self._limits: dict[str, Limits] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._progress = asyncio.Event()
        self._redeem_at_us = 0
        self._look_at_us = 0
        self._said_us = 0
        self._registry_trouble = ""
        self.trouble = "not connected yet"  # empty while Redis answers
        self._durable = DurableWire(settings.durability, settings.key_prefix, self._tell)
        self.newest_us = 0  # when Redis last acknowledged something

    def wake(self) -> None:
        self._wake.set()

    def limits_changed(self) -> None:
        """What streams keep is to be asked for anew."""
        self._limits.clear()

    async def run(self) -> None:
        """Publish until cancelled. Raises Fatal only (another account owns the prefix)."""
        while True:
            try:
                await self._session()
            except WireLost as lost:
                for line in self._lines():
                    line.unanswered()
                self._say_why(str(lost))
                await asyncio.sleep(self._backoff.next_s())

    def _say_why(self, reason: str) -> None:
        """Once, and again and again while it lasts: status cannot tell of it meanwhile."""
        now_us = self._clock_us()
        if self.trouble != reason or now_us - self._said_us >= SAY_EVERY_US:
            log.warning("redis_unavailable", reason=reason, pending=self.pending(),
                        pending_bytes=self._intake.pending_bytes(),
                        behind_bytes=self._behind_bytes())  # fmt: skip
            self._said_us = now_us
        self.trouble = reason

    async def progress(self, limit_s: float) -> None:
        """Wait until Redis has answered something, at most so long."""
        self._progress.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._progress.wait()

    async def drain(self, deadline_s: float | None) -> int:
        """Wait until nothing is pending, at most so long. Returns how many entries are left."""
        self._intake.hurry()
        self.wake()
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                while self.pending():
                    self._idle.clear()
                    await self._idle.wait()
        return self.pending()

    def pending(self) -> int:
        """Entries that wait for Redis, parked streams left out."""
        return sum(len(line.pending) for line in self._lines() if not line.parked)

    async def _session(self) -> None:
        """One connection's life."""
        settings = self._settings
        wire = await open_wire(settings.target, settings.connect_timeout_s)
        try:
            await self._prepare(wire)
            self._look_at_us = 0
            self._intake.company.resumed(self._clock_us())
            if self.trouble:
                log.info("redis_connected", target=settings.target.address, pending=self.pending())
            self.trouble = ""
            while True:
                await self._cycle(wire)
        finally:
            wire.close()

    async def _cycle(self, wire: Wire) -> None:
        """Send what waits and settle it, or wait until there is something."""
        self._wake.clear()
        now_us = self._clock_us()
        self._redeem(now_us)
        if now_us >= self._look_at_us:
            self._look_at_us = now_us + LOOK_US
            await self._look(wire)
        await self._read_gaps(wire)
        await self._read_tails(wire)
        if any(line.lost_at is not None for line in self._intake.dirty.values()):
            self._on_loss()
        batch = self._take(now_us)
        if not batch:
            self._idle.set()
            await self._sleep(now_us)
            return
        self._before_send()
        packed = b"".join([self._pack(line, items) for line, items in batch])
        timeout_s = self._settings.command_timeout_s
        replies = await wire.call(packed, len(batch), timeout_s)
        if self._durable.is_asked and not _all_refused(replies):
            await self._durable.reach(wire, timeout_s)
        await self._settle(wire, batch, replies)

    def _tell(self, trouble: str) -> None:
        self.trouble = trouble

    def _take(self, now_us: int) -> list[tuple[Line, Sequence[Item]]]:
        batch: list[tuple[Line, Sequence[Item]]] = []
        total = 0
        for name, line in list(self._intake.dirty.items()):
            items = line.take(now_us, self._settings.batch_entries)
            if items:
                batch.append((line, items))
                total += len(items)
            elif not line.pending:
                del self._intake.dirty[name]
            if total >= MAX_FLUSH_ITEMS:
                self._queue_last(batch)
                break
        return batch

    def _queue_last(self, batch: Sequence[tuple[Line, Sequence[Item]]]) -> None:
        """There was no room for all: those left out come first the next time."""
        dirty = self._intake.dirty
        for line, _ in batch:
            dirty[line.stream.name] = dirty.pop(line.stream.name)

    def _limits_for(self, line: Line) -> Limits:
        limits = self._limits.get(line.stream.name)
        if limits is None:
            limits = self._limits[line.stream.name] = self._limits_of(line.stream)
        return limits

    def _pack(self, line: Line, items: Sequence[Item]) -> bytes:
        limits = self._limits_for(line)
        return pack_append(self._key(line), limits.max_entries, limits.max_age_ms, items)

    async def _settle(
        self, wire: Wire, batch: list[tuple[Line, Sequence[Item]]], replies: Sequence[Reply]
    ) -> None:
        now_us = self._clock_us()
        self._progress.set()
        trouble = ""
        for (line, _), reply in zip(batch, replies, strict=True):
            answer = read_answer(reply)
            if not isinstance(answer, hiredis.ReplyError):
                line.settle(answer, now_us)
                self._intake.redis_answered(line, now_us)
            elif "NOSCRIPT" in str(answer):
                line.unanswered()
                trouble = trouble or "NOSCRIPT"
            elif _is_server_wide(answer):
                line.unanswered()
                trouble = str(answer)
            else:
                line.fail(str(answer))
                log.error("stream_failed", stream=line.stream.name, reason=line.parked)
        if trouble == "NOSCRIPT":
            await self._load_script(wire)
        elif trouble:
            raise WireLost(f"Redis refused: {trouble}")
        else:
            self.newest_us = now_us
            self._backoff.reset()

    async def _read_tails(self, wire: Wire) -> None:
        """Unnumbered lines in doubt learn what their stream holds."""
        now_us = self._clock_us()
        asking = [
            (line, wanted)
            for line in self._intake.dirty.values()
            if isinstance(line, UnnumberedLine) and (wanted := line.tail_wanted(now_us))
        ]
        if not asking:
            return
        packed = b"".join(
            pack("XINFO", "STREAM", self._key(line)) + self._pack_tail(line, "+", wanted)
            for line, wanted in asking
        )
        replies = await wire.call(packed, 2 * len(asking), self._settings.command_timeout_s)
        for (line, wanted), info, entries in zip(asking, replies[::2], replies[1::2], strict=True):
            if (reason := refusal(info, entries)) is None:
                known = await self._whole_tail(wire, line, wanted, entries)
                line.read_tail(tail_of(info, known, self._limits_for(line)))
                self._intake.redis_answered(line, now_us)
            else:
                _fail(line, reason)

    async def _read_gaps(self, wire: Wire) -> None:
        """Numbered lines that hear again learn of gaps that may not be noted."""
        lines = [line for line in self._intake.dirty.values() if isinstance(line, NumberedLine)]
        while asking := [(line, wanted) for line in lines if (wanted := line.gaps_wanted())]:
            packed = [
                pack("XRANGE", self._key(line), place.from_id, "+", "COUNT", PAGE)
                for line, wanted in asking
                for place in wanted
            ]
            timeout_s = self._settings.command_timeout_s
            replies = iter(await wire.call(b"".join(packed), len(packed), timeout_s))
            for line, wanted in asking:
                pages = list(islice(replies, len(wanted)))
                if refused := next((p for p in pages if isinstance(p, hiredis.ReplyError)), None):
                    _fail(line, str(refused))
                    continue
                line.read_gaps([decoded(page) for page in pages])
                self._intake.redis_answered(line, self._clock_us())

    async def _whole_tail(
        self, wire: Wire, line: Line, wanted: TailWanted, page: Reply
    ) -> list[tuple[tuple[str, ...], int]]:
        """Key and order value of every entry that is wanted; `page` has the newest."""
        known: list[tuple[tuple[str, ...], int]] = []
        while True:
            entries = decoded(page)
            known += [told for _, fields in entries if (told := identify(fields)) is not None]
            enough = wanted.at_most is not None and len(known) >= wanted.at_most
            if enough or len(entries) < TAIL_PAGE:
                return known
            packed = self._pack_tail(line, f"({entries[-1][0]}", wanted)
            [page] = await wire.call(packed, 1, self._settings.command_timeout_s)
            _refuse_errors([page])

    def _pack_tail(self, line: Line, newest: str, wanted: TailWanted) -> bytes:
        count = min(wanted.at_most or TAIL_PAGE, TAIL_PAGE)
        return pack("XREVRANGE", self._key(line), newest, wanted.from_ms, "COUNT", count)

    async def _look(self, wire: Wire) -> None:
        """Has Redis still what it acknowledged? Streams at rest would not notice otherwise."""
        lines = [line for line in self._lines() if line.confirmed != EMPTY and not line.pending]
        if not lines:
            return
        packed = b"".join(pack("XINFO", "STREAM", self._key(line)) for line in lines)
        replies = await wire.call(packed, len(lines), self._settings.command_timeout_s)
        for line, info in zip(lines, replies, strict=True):
            if isinstance(info, list) or "no such key" in str(info):
                at_end = tail_of(info)
                line.look(at_end.last, at_end.newest)
        if any(line.lost_at is not None for line in lines):
            self._on_loss()

    async def _sleep(self, now_us: int) -> None:
        dues = [self._look_at_us]
        dues += [due for line in self._intake.dirty.values() if (due := line.due_us()) is not None]
        if any(line.parked for line in self._intake.dirty.values()):
            dues.append(self._redeem_at_us)
        timeout_s = max(0.0, (min(dues) - now_us) / 1e6)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()

    def _redeem(self, now_us: int) -> None:
        if now_us >= self._redeem_at_us:
            self._redeem_at_us = now_us + REDEEM_US
            for line in self._lines():
                if line.parked:
                    line.redeem()

    async def _prepare(self, wire: Wire) -> None:
        await self._load_script(wire)
        await self._register(wire)
        prefix, owner = self._settings.key_prefix, self._settings.account_fingerprint
        timeout_s = self._settings.command_timeout_s
        if self._durable.is_asked:
            await self._durable.reach(wire, timeout_s)
        if owner:
            replies = await wire.call(pack_claim(prefix, owner), 2, timeout_s)
            _refuse_errors(replies, f"{prefix}{keys.ACCOUNT}: ")
            check_claim(replies, prefix, owner)

    async def _register(self, wire: Wire) -> None:
        """Say which streams there are. A key gone wrong must not stop publishing."""
        prefix, trouble = self._settings.key_prefix, ""
        streams = [line.stream for line in self._intake.lines.values()]
        if streams:  # none while no market of a pattern is known
            packed = pack_registration(prefix, streams)
            [reply] = await wire.call(packed, 1, self._settings.command_timeout_s)
            if isinstance(reply, hiredis.ReplyError):
                if _is_server_wide(reply):
                    _refuse_errors([reply])
                trouble = str(reply)
        if trouble and trouble != self._registry_trouble:
            log.warning("registry_unwritable", key=prefix + keys.STREAMS, reason=trouble)
        self._registry_trouble = trouble

    async def _load_script(self, wire: Wire) -> None:
        packed = pack("SCRIPT", "LOAD", SCRIPT)
        _refuse_errors(await wire.call(packed, 1, self._settings.command_timeout_s))

    def _key(self, line: Line) -> bytes:
        return (self._settings.key_prefix + line.stream.name).encode()

    def _lines(self) -> list[Line]:
        return list(self._intake.every_line())


def _fail(line: Line, reason: str) -> None:
    """Redis would not read: raises WireLost where it reads nothing now, else the line fails."""
    if _is_server_wide(reason):
        raise WireLost(f"Redis refused: {reason}")
    line.fail(reason)
    log.error("stream_failed", stream=line.stream.name, reason=reason)


def _all_refused(replies: Sequence[Reply]) -> bool:
    return all(isinstance(reply, hiredis.ReplyError) for reply in replies)


def _is_server_wide(error: object) -> bool:
    return any(word in str(error) for word in _SERVER_WIDE)


def _refuse_errors(replies: Sequence[Reply], where: str = "") -> None:
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            raise WireLost(f"Redis refused: {where}{reply}")
