"""`python -m bridge replay PATH`: publish a journal again, asking nobody.

The journal's own times are the clock, so what was held, marked or placed live is decided the same:
from one journal into an empty Redis come exactly the entries of live publishing, IDs included.
"""

import asyncio
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import structlog
import typer

from bridge.app import durability_of, limits_of
from bridge.commands.journal import moment_us
from bridge.contract.streams import BadStreamName, Stream, parse_stream
from bridge.errors import ConfigError
from bridge.journal.player import Player
from bridge.journal.reading import records
from bridge.journal.record import Kind, Record
from bridge.pipeline.intake import Intake
from bridge.publish.publisher import Publisher, PublishSettings
from bridge.publish.wire import Target
from bridge.runtime.backoff import Backoff
from bridge.runtime.config import Config, load_config
from bridge.runtime.keys import secret_texts
from bridge.runtime.logs import setup_logs
from bridge.runtime.redis_client import resolve_url

log = structlog.get_logger(__name__)

CHOSEN = 1  # the offset of what is published; 0: of what is not
CHUNK = 500  # records between two looks at how much waits for Redis
WAIT_S = 1.0
TELL_EVERY_S = 5.0


def command(
    path: Annotated[Path, typer.Argument(help="A journal's folder, or one of its files.")],
    speed: Annotated[
        str, typer.Option(metavar="N|max", help="How many times faster than it was heard.")
    ] = "max",
    since: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Frames from then on (UTC).")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Frames until then (UTC).")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration file; config.yaml where it is there.")
    ] = None,
) -> None:
    """Publish a journal into Redis, as it was heard, asking nobody.

    Where to is redis.url and redis.key_prefix: give another of either to keep a replay apart from
    the live streams. From one journal into an empty Redis come exactly the entries that live
    publishing gave, IDs included; into streams that go on, what is there already stays.

    Examples:

        BRIDGE_REDIS__KEY_PREFIX=replay: python -m bridge replay data/journal
        python -m bridge replay data/journal --speed 10 --from 2026-11-23T04:00:00
    """
    loaded = load_config(config)
    setup_logs(loaded.log.level, loaded.log.format, secret_texts(loaded.redis.url))
    factor = _factor(speed)
    chosen = (moment_us(since) or 0, moment_us(until))
    streams = _streams(path)
    counted, failed = asyncio.run(_replay(loaded, path, streams, factor, chosen))
    typer.echo(f"replayed {counted:,} frames of {len(streams)} streams")
    for name, reason in failed.items():
        typer.echo(f"error: {name} could not be written: {reason}", err=True)
    if failed:
        raise typer.Exit(1)


def _factor(speed: str) -> float | None:
    """How many times faster; None: as fast as Redis takes it."""
    if speed == "max":
        return None
    try:
        factor = float(speed)
    except ValueError:
        factor = 0.0
    if not 0 < factor < 1e6:
        raise ConfigError(f"--speed {speed}: write a number above 0, such as 10, or max")
    return factor


def _streams(path: Path) -> list[Stream]:
    """Every stream that the journal's connections were opened for."""
    names: dict[str, None] = {}
    for record in records(path):
        if record.kind is Kind.OPENED:
            names |= dict.fromkeys(json.loads(record.body)["streams"])
        elif record.kind is Kind.STATE:
            for streams in json.loads(record.body).get("connections", {}).values():
                names |= dict.fromkeys(streams)
    try:
        return [parse_stream(name) for name in names]
    except BadStreamName as error:
        raise ConfigError(f"{path}: {error}") from None


class _JournalClock:
    """The time of the record that was played last, µs."""

    def __init__(self) -> None:
        self.now_us = 0

    def __call__(self) -> int:
        return self.now_us


async def _replay(
    config: Config,
    path: Path,
    streams: list[Stream],
    factor: float | None,
    chosen: tuple[int, int | None],
) -> tuple[int, dict[str, str]]:
    """How many frames, and the streams that could not be written, with the reason."""
    intake = Intake(
        streams,
        hold_us=int(config.publish.hold_s * 1e6),
        snapshot_every=config.snapshots.depth_every_updates,
        snapshot_every_ms=config.snapshots.depth_every_s * 1000,
        snapshot_levels=config.snapshots.depth_levels,
        repair_us=int(config.publish.repair_s * 1e6),
        ask=lambda _: None,
    )
    clock = _JournalClock()
    publisher = _publisher(config, intake, clock)
    async with asyncio.TaskGroup() as tasks:
        publishing = tasks.create_task(publisher.run())
        telling = tasks.create_task(_tell_waiting(publisher))
        for line in intake.every_line():
            line.resume_from = CHOSEN
        await _play(records(path, *chosen), chosen[0], intake, publisher, clock, factor, config)
        await publisher.drain(None)
        publishing.cancel()
        telling.cancel()
    failed = {line.stream.name: line.parked for line in intake.every_line() if line.parked}
    return intake.counts.frames, failed


async def _tell_waiting(publisher: Publisher) -> None:
    """Redis may be away for long: say now and again that nothing goes on without it."""
    while True:
        await asyncio.sleep(TELL_EVERY_S)
        if publisher.trouble:
            log.warning("replay_waits", reason=publisher.trouble, entries=publisher.pending())


async def _play(
    played: Iterator[Record],
    from_us: int,
    intake: Intake,
    publisher: Publisher,
    clock: _JournalClock,
    factor: float | None,
    config: Config,
) -> None:
    player = Player(intake)
    begun_s, first_us = time.monotonic(), 0
    for number, record in enumerate(played, 1):
        first_us = first_us or record.received_us
        if factor is not None:
            due_s = begun_s + (record.received_us - first_us) / 1e6 / factor
            if (wait_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
        clock.now_us = max(clock.now_us, record.received_us)
        # what was before is heard, for what it tells of later, and not published
        player.apply(record, CHOSEN if record.received_us >= from_us else 0, strict=False)
        publisher.wake()
        if number % CHUNK == 0:
            await asyncio.sleep(0)
            while intake.pending_bytes() > config.publish.buffer_bytes // 2:
                await publisher.progress(WAIT_S)


def _publisher(config: Config, intake: Intake, clock: _JournalClock) -> Publisher:
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
        account_fingerprint="",
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
