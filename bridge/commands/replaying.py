"""A journal played into the lines and out to Redis, its own times being the clock.

What was held, marked or placed live is decided the same. Nobody is asked.
"""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from bridge.app import durability_of, limits_of
from bridge.contract.streams import Stream
from bridge.journal.player import Player
from bridge.journal.reading import Damage, records
from bridge.journal.record import Record
from bridge.journal.rehearing import LOW_SHARE, PARKED_SHARE
from bridge.pipeline.intake import Intake
from bridge.pipeline.missing import Line
from bridge.publish.publisher import Publisher, PublishSettings
from bridge.publish.wire import Target
from bridge.runtime.backoff import Backoff
from bridge.runtime.config import Config
from bridge.runtime.redis_client import resolve_url

log = structlog.get_logger(__name__)

CHOSEN = 1  # the offset of what is published; 0: of what is not
CHUNK = 500  # records between two looks at how much waits for Redis
WAIT_S = 1.0
TELL_EVERY_S = 5.0


class JournalClock:
    """The time of the record that was played last, µs."""

    def __init__(self) -> None:
        self.now_us = 0

    def __call__(self) -> int:
        return self.now_us


class Room:
    """Memory that a replay may take: reading waits while half of it is used."""

    def __init__(
        self, intake: Intake, publisher: Publisher, clock: JournalClock, buffer_bytes: int
    ) -> None:
        self._intake = intake
        self._publisher = publisher
        self._clock = clock
        self._buffer_bytes = buffer_bytes

    async def wait(self) -> None:
        """Return once there is room, or where nothing but time lets go what waits: the journal's
        clock stands meanwhile.
        """
        self._bound_parked()
        while self._intake.pending_bytes() > self._buffer_bytes // LOW_SHARE:
            if self._only_time_helps():
                if self._intake.pending_bytes() <= self._buffer_bytes:
                    return
                self._intake.missing.wait_no_longer()
                if self._only_time_helps():
                    return
            self._publisher.wake()
            await self._publisher.progress(WAIT_S)
            self._bound_parked()

    def _bound_parked(self) -> None:
        self._intake.bound_parked(self._buffer_bytes // PARKED_SHARE)

    def _only_time_helps(self) -> bool:
        """Is all that waits held for a predecessor, until later than the record played last?"""
        waiting = (line for line in self._intake.every_line() if line.pending and not line.parked)
        return all((line.due_us() or 0) > self._clock.now_us for line in waiting)


@dataclass(frozen=True, slots=True)
class Result:
    """How many frames were played, and what is not in Redis, one sentence each."""

    frames: int
    troubles: Sequence[str]


async def replay(
    config: Config,
    path: Path,
    streams: list[Stream],
    factor: float | None,
    span: tuple[int, int | None],
    account: str,
) -> Result:
    """Publish what the journal at a path has. `factor`: how many times faster than it was heard,
    None: as fast as Redis takes it; `span`: frames from when until when, in µs; `account`: whose
    private streams they are. Raises ConfigError, and OtherAccount in a group.
    """
    intake = Intake(
        streams,
        hold_us=int(config.publish.hold_s * 1e6),
        snapshot_every=config.snapshots.depth_every_updates,
        snapshot_every_ms=config.snapshots.depth_every_s * 1000,
        snapshot_levels=config.snapshots.depth_levels,
        repair_us=int(config.publish.repair_s * 1e6),
        ask=lambda _: None,
    )
    clock, player, damage = JournalClock(), Player(intake), Damage()
    publisher = _publisher(config, intake, clock, account)
    room = Room(intake, publisher, clock, config.publish.buffer_bytes)
    async with asyncio.TaskGroup() as tasks:
        publishing = tasks.create_task(publisher.run())
        telling = tasks.create_task(_tell_waiting(publisher))
        for line in intake.every_line():
            _publish_chosen(line)
        intake.on_new_line = _publish_chosen
        await _play(records(path, *span, damage), span[0], player, publisher, clock, room, factor)
        await publisher.drain(None)
        publishing.cancel()
        telling.cancel()
    return Result(intake.counts.frames, _troubles(intake, path, damage.lines + player.damaged))


def _publish_chosen(line: Line) -> None:
    line.resume_from = CHOSEN


def _troubles(intake: Intake, path: Path, damaged: int) -> list[str]:
    lines = list(intake.every_line())
    found = [
        f"{line.stream.name} could not be written: {line.parked}" for line in lines if line.parked
    ]
    found += [
        f"{line.counters.overflowed:,} messages of {line.stream.name} were given up, there was no "
        "room for them (publish.buffer_bytes)"
        for line in lines
        if line.counters.overflowed
    ]
    if damaged:
        found.append(
            f"{damaged:,} damaged lines were passed over: python -m bridge journal verify {path}"
        )
    return found


async def _tell_waiting(publisher: Publisher) -> None:
    """Redis may be away for long: say now and again that nothing goes on without it."""
    while True:
        await asyncio.sleep(TELL_EVERY_S)
        if publisher.trouble:
            log.warning("replay_waits", reason=publisher.trouble, entries=publisher.pending())


async def _play(
    played: Iterator[Record],
    from_us: int,
    player: Player,
    publisher: Publisher,
    clock: JournalClock,
    room: Room,
    factor: float | None,
) -> None:
    begun_s, first_us = time.monotonic(), 0
    for number, record in enumerate(played, 1):
        first_us = first_us or record.received_us
        if factor is not None:
            due_s = begun_s + (record.received_us - first_us) / 1e6 / factor
            if (wait_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
        clock.now_us = max(clock.now_us, record.received_us)
        # before the first frame chosen there are connections and replies only: known, not published
        player.apply(record, CHOSEN if record.received_us >= from_us else 0, strict=False)
        publisher.wake()
        if number % CHUNK == 0:
            await asyncio.sleep(0)
            await room.wait()


def _publisher(config: Config, intake: Intake, clock: JournalClock, account: str) -> Publisher:
    def accept_losses() -> None:
        for line in intake.every_line():
            if line.lost_at is not None:
                line.accept_loss()

    settings = PublishSettings(
        target=Target.from_url(resolve_url(config)),
        key_prefix=config.redis.key_prefix,
        batch_entries=config.publish.batch_entries,
        connect_timeout_s=config.redis.connect_timeout_s,
        command_timeout_s=config.redis.command_timeout_s,
        account_fingerprint=account,
        durability=durability_of(config),
    )
    return Publisher(
        intake,
        settings,
        lambda stream: limits_of(config, stream),
        clock,
        Backoff(0.1, 2.0, random.Random()),
        before_send=lambda: None,
        on_loss=accept_losses,
    )
