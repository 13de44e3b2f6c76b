"""`python -m bridge console`: browser pages that show a running system, from Redis alone.

Handles options, token and signals. `bridge.console` reads the data and makes the pages.
"""

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Annotated

import typer
from redis.asyncio import Redis

from bridge.commands.options import ConfigFile
from bridge.errors import ConfigError, Fatal
from bridge.runtime.address import Address
from bridge.runtime.config import Config, load_config
from bridge.runtime.environment import read_value, read_variables
from bridge.runtime.masking import hide
from bridge.runtime.redis_client import connect, masked_url, resolve_url
from bridge.runtime.redis_url import replica_url
from bridge.runtime.stopping import stopping
from bridge.runtime.terminal import echo

INTERRUPTED = 130
LISTEN = "127.0.0.1:8088"
TOKEN = "CONSOLE_TOKEN"
LEAST_TOKEN = 16  # characters
_COMMAND_TIMEOUT_S = 3.0  # after it a page reports that Redis does not answer


def command(
    redis: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Which Redis; else the configuration's."),
    ] = None,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where to answer; port 0 picks a free one.")
    ] = LISTEN,
    host: Annotated[
        list[str] | None,
        typer.Option(help="Another host name that browsers may use, as behind a proxy."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help=f"File with a token (or {TOKEN}, or {TOKEN}_FILE, in the environment), which "
            "allows to send dead letters back, or to drop them. Else the console is read-only."
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Show the account's streams, too.")
    ] = False,
    config: ConfigFile = None,
) -> None:
    """Show a running system in a browser: now, markets, consumers, gaps, latency.

    Reads Redis alone, so it works on any running system, and on none. The pages load nothing from
    other servers.

    Ctrl-C stops it. Exit status: 0 stopped by SIGTERM, 1 failed, 2 wrong usage, 130 after Ctrl-C.

    Examples:

        python -m bridge console
        python -m bridge console --redis redis://10.0.0.5:6379/0 --listen 127.0.0.1:9000
        python -m bridge console --token-file console.token
    """
    loaded = _with_redis(load_config(config), redis)
    place = parse_listen(listen)
    token = read_token(token_file)
    raise typer.Exit(asyncio.run(_console(loaded, place, tuple(host or ()), token, private)))


def parse_listen(text: str) -> tuple[str, int]:
    """Parse `127.0.0.1:8088`, `[::1]:8088` or `8088`. Raises ConfigError."""
    try:
        place = Address.parse(text if ":" in text else f"127.0.0.1:{text}")
    except ValueError:
        raise ConfigError(
            f"--listen {text!r}: write an address and a port, as in {LISTEN}"
        ) from None
    return place.host, place.port


def read_token(path: Path | None) -> str:
    """The token from the file, else from the environment, else empty. Raises ConfigError."""
    if path is None:
        variable = read_variables(os.environ, ".env", (TOKEN,).__contains__).get(TOKEN)
        token, where = (variable.value, TOKEN) if variable else ("", "")
    else:
        token, where = read_value(path, "--token-file").strip(), str(path)
    if where and not (len(token) >= LEAST_TOKEN and token.isascii() and token.isprintable()):
        raise ConfigError(
            f"the token of {where} must be {LEAST_TOKEN} plain characters or more, as "
            "`openssl rand -hex 16` makes them"
        )
    hide([token])
    return token


def _with_redis(config: Config, url: str | None) -> Config:
    if url is None:
        return config
    try:
        settings = config.redis.at({"url": url})
    except ValueError:
        raise ConfigError(
            f"--redis {masked_url(url)}: write redis://host:port/db, rediss://… or unix:///path"
        ) from None
    return config.model_copy(update={"redis": settings})


async def _console(
    config: Config, place: tuple[str, int], hosts: tuple[str, ...], token: str, private: bool
) -> int:
    try:
        from bridge.console.guard import Guard, hosts_of, is_loopback
        from bridge.console.server import Site, listen
        from bridge.console.watcher import Watched
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise Fatal(
            f"the console needs the package {error.name}: pip install 'backpack-bridge[console]'"
        ) from None
    url = resolve_url(config)
    client, replica = _client(config, url), None
    if config.redis.read_from == "replica":
        replica = _client(config, replica_url(url))
    listening = listen(*place)
    name, port = place[0], listening.getsockname()[1]
    watched = Watched(
        client,
        config.redis.keys,
        masked_url(url),
        can_change=bool(token),
        shows_private=private,
        replica=replica,
    )
    site = Site(watched, Guard(hosts_of(name, port, hosts), token))
    shown = f"[{name}]" if ":" in name else name
    echo(f"Console of {watched.where}: http://{shown}:{port}/")
    if not is_loopback(name):
        echo(f"Any client of {shown}:{port} can read it: put a proxy with a login before it.")
    echo("Ctrl-C ends it." + ("" if token else " Read-only: see --token-file."))
    stop, signals = stopping()
    with contextlib.closing(listening):
        async with client, replica or contextlib.nullcontext():
            await site.serve(listening, stop)
    return INTERRUPTED if signals and signals[0] == signal.SIGINT else 0


def _client(config: Config, url: str) -> Redis:
    return connect(
        url,
        name="bridge:console",
        decode_responses=True,
        connect_timeout_s=min(config.redis.connect_timeout_s, _COMMAND_TIMEOUT_S),
        command_timeout_s=min(config.redis.command_timeout_s, _COMMAND_TIMEOUT_S),
    )
