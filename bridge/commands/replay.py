"""`python -m bridge replay PATH`: publishes a journal again, without the exchange.

The journal's own times are the clock, so all decisions (hold, mark, entry ID) are those of live
publishing: one journal into an empty Redis gives exactly the same entries, IDs included.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from bridge.commands.journal import span_us
from bridge.commands.options import ConfigFile
from bridge.commands.replaying import replay
from bridge.contract.streams import BadStreamName, Stream, parse_stream
from bridge.core.records import Opened, Record, SegmentState, Subscribed
from bridge.errors import ConfigError
from bridge.journal.inspection import NO_FRAME, lines_of, segments_of
from bridge.journal.owner import NAME as OWNER
from bridge.journal.owner import read_owner
from bridge.runtime.collector import settle_collector
from bridge.runtime.config import Config, load_config
from bridge.runtime.keys import secret_texts
from bridge.runtime.logs import setup_logs
from bridge.runtime.terminal import echo
from bridge.runtime.time_range import HELP


def command(
    path: Annotated[Path, typer.Argument(help="A journal's folder, or one of its files.")],
    speed: Annotated[
        str, typer.Option(metavar="N|max", help="How many times faster than it was received.")
    ] = "max",
    since: Annotated[
        str | None, typer.Option("--from", metavar="WHERE", help=f"Frames from then on: {HELP}.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="WHERE", help="Frames until then.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Publish a journal into Redis, as it was received, without contacting the exchange.

    The target is redis.url and redis.key_prefix: set another value of either to keep a replay apart
    from the live streams. One journal into an empty Redis gives exactly the entries of live
    publishing, IDs included; in existing streams the present entries stay.

    Examples:

        BRIDGE_REDIS__KEY_PREFIX=replay: python -m bridge replay data/journal
        python -m bridge replay data/journal --speed 10 --from 2026-11-23T04:00:00
    """
    loaded = load_config(config)
    setup_logs(loaded.log.level, loaded.log.format, secret_texts(loaded.redis.url))
    factor, span = _factor(speed), span_us(since, until)
    streams = _streams(path)
    account = _account(loaded, path, streams)
    settle_collector()
    result = asyncio.run(replay(loaded, path, streams, factor, span, account))
    echo(f"replayed {result.frames:,} frames of {len(streams)} streams")
    if not result.frames:
        echo(f"no frame was received in that time: see journal info {path}", to_stderr=True)
    for sentence in result.troubles:
        echo(f"error: {sentence}", to_stderr=True)
    if result.troubles:
        raise typer.Exit(1)


def _factor(speed: str) -> float | None:
    """The speed as a factor; None: as fast as Redis accepts entries. Raises ConfigError."""
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
    """All streams that the journal's connections received, without unreadable names."""
    found: dict[str, Stream] = {}
    for segment in segments_of(path):
        for line in lines_of(segment, NO_FRAME):
            for name in _names(line.record):
                with suppress(BadStreamName):  # its frames go to the quarantine, as in live mode
                    found[name] = found.get(name) or parse_stream(name)
    return list(found.values())


def _names(record: Record | None) -> Iterable[str]:
    """The streams named by a connection's record."""
    match record:
        case Opened(streams=streams) | Subscribed(streams=streams):
            return streams
        case SegmentState(connections=connections):
            return [name for streams in connections.values() for name in streams]
        case _:
            return ()


def _account(config: Config, path: Path, streams: Iterable[Stream]) -> str:
    """The account of the private streams; empty without any. Raises ConfigError where frames of one
    exchange would be published as another's, or private ones without an account.
    """
    owner = read_owner(path if path.is_dir() else path.parent)
    exchange = config.exchange.ws_url
    if owner is not None and owner.exchange != exchange:
        raise ConfigError(
            f"{path} was received from {owner.exchange}, and exchange.ws_url is {exchange}: to "
            f"publish it all the same, set BRIDGE_EXCHANGE__WS_URL={owner.exchange}, and give it a "
            "redis.key_prefix of its own"
        )
    if not any(stream.is_private for stream in streams):
        return ""
    if owner is None or not owner.account:
        raise ConfigError(
            f"{path} has private streams, and no {OWNER} beside it names the account: copy it "
            "there from the folder that the journal was written in"
        )
    return owner.account
