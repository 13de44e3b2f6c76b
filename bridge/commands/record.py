"""`python -m bridge record`: receives and journals, publishes nothing. Needs no Redis."""

import asyncio
import signal
from pathlib import Path

import typer

from bridge.app import Recorder
from bridge.commands.options import ConfigFile
from bridge.commands.run import INTERRUPTED, on_signal, reload_on_hangup
from bridge.errors import Fatal
from bridge.journal.inspection import utc
from bridge.journal.log import Loss
from bridge.runtime.collector import settle_collector
from bridge.runtime.config import load_config
from bridge.runtime.keys import load_key, secret_texts
from bridge.runtime.linger import run_lingering
from bridge.runtime.logs import setup_logs


def command(
    config: ConfigFile = None,
) -> None:
    """Receive and write the journal only; `replay` can publish it later, anywhere.

    `journal` and `streams` configure what is written. Ctrl-C stops it.

    Exit status: 0 stopped by SIGTERM, 1 something received is not in the journal (a full disk,
    say), 2 configuration wrong, 130 interrupted.

    Examples:

        python -m bridge record
        BRIDGE_JOURNAL__DIR=recordings/monday python -m bridge record
    """
    loaded = load_config(config)
    key = load_key(exchange_is_real=loaded.exchange.is_real)
    setup_logs(loaded.log.level, loaded.log.format, secret_texts(loaded.redis.url))
    recorder = Recorder(loaded, key)
    settle_collector()

    async def record() -> int:
        stop = asyncio.Event()
        signals: list[int] = []
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, on_signal, number, signals, stop)
        reload_on_hangup(recorder, config)
        if (loss := await recorder.run(stop)).frames:
            raise Fatal(_describe_loss(loss, loaded.journal.dir))
        return INTERRUPTED if signals and signals[0] == signal.SIGINT else 0

    raise typer.Exit(run_lingering(record(), loaded.publish.linger_s))


def _describe_loss(loss: Loss, folder: Path) -> str:
    return (
        f"{loss.frames:,} messages received from {utc(loss.first_us)} until {utc(loss.last_us)} "
        f"are not in {folder}: it could not be written (see journal_failed in the log)"
    )
