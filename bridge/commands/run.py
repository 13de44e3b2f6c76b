"""`python -m bridge run`: receives and publishes, until stopped.

Handles configuration, keys, log and signals. `bridge.app` does the work.
"""

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import structlog
import typer

from bridge.app import Bridge, Recorder
from bridge.commands.options import ConfigFile
from bridge.errors import ConfigError
from bridge.runtime.collector import settle_collector
from bridge.runtime.config import Config, load_config
from bridge.runtime.embedded import embedded_server
from bridge.runtime.keys import AccountKey, load_key, require_key, secret_texts
from bridge.runtime.linger import run_lingering
from bridge.runtime.logs import setup_logs
from bridge.runtime.masking import masked_url
from bridge.runtime.redis_url import with_tag

log = structlog.get_logger(__name__)

INTERRUPTED = 130
ENV_FILE = Path(".env")


def command(
    config: ConfigFile = None,
) -> None:
    """Hold the connections to the exchange and publish every message to Redis Streams.

    If Redis or the exchange is unavailable, at the start or later, that is logged and retried.
    Ctrl-C or SIGTERM writes what was received, then stops; a second one exits at once. SIGHUP reads
    the configuration again: streams change without dropping a connection.

    Exit status: 0 stopped by SIGTERM, 1 something was left unwritten, 2 configuration wrong,
    130 interrupted.

    Examples:

        python -m bridge run
        python -m bridge run --config my.yaml
        BRIDGE_REDIS__URL=embedded python -m bridge run
    """
    loaded = load_config(config)
    key = load_key(exchange_is_real=loaded.exchange.is_real)
    setup_logs(loaded.log.level, loaded.log.format, secret_texts(loaded.redis.url))
    require_key(key, loaded.my_stream_names)
    raise typer.Exit(run_lingering(_run(loaded, key, config), loaded.publish.linger_s))


async def _run(config: Config, key: AccountKey | None, path: Path | None) -> int:
    stop = asyncio.Event()
    signals: list[int] = []
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number, signals, stop)
    async with AsyncExitStack() as stack:
        url = with_tag(config.redis.url, config.redis.key_prefix, config.redis.shards)
        if config.redis.is_embedded:
            url = (await stack.enter_async_context(embedded_server(config.embedded))).url
        log.info(
            "bridge_starting",
            instance=config.instance,
            streams=len(config.my_stream_names),
            exchange=config.exchange.ws_url,
            redis=masked_url(url),
        )
        bridge = Bridge(config, key, url)
        settle_collector()
        reload_on_hangup(bridge, path)
        left = await bridge.run(stop)
    if left:
        return 1
    return INTERRUPTED if signals and signals[0] == signal.SIGINT else 0


def reload_on_hangup(process: Bridge | Recorder, path: Path | None) -> None:
    """Reload the configuration at SIGHUP from now on, and at once for one received before."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload, process, path)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])


def reload(process: Bridge | Recorder, path: Path | None) -> None:
    """Reload the configuration; an invalid one is refused and the current one stays in effect."""
    try:
        process.reload(load_config(path))
    except ConfigError as error:
        log.warning("config_refused", reason=str(error))


def on_signal(number: int, signals: list[int], stop: asyncio.Event) -> None:
    """Handle a signal: the first one stops cleanly, the second one exits at once."""
    signals.append(number)
    if len(signals) > 1:
        os._exit(INTERRUPTED)  # at once, whatever is unwritten
    log.info("bridge_stopping", signal=signal.Signals(number).name)
    stop.set()
