"""The demo's console: the pages of `python -m bridge console`, with buttons for faults. It runs in
the demo's own process, since only that can control the demo's parts.
"""

import asyncio
import contextlib
import secrets
import socket
from dataclasses import dataclass

from bridge.console.guard import Guard, hosts_of
from bridge.console.levers import Levers
from bridge.console.server import Site, listen
from bridge.console.watcher import Watched
from bridge.errors import Fatal
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.masking import masked_url
from bridge.runtime.redis_client import connect

HOST = "127.0.0.1"
PORT = 8088
_PATIENCE_S = 2.0  # for an answer of Redis: then it is reported as frozen


@dataclass(frozen=True, slots=True)
class Browser:
    """The console's address. It carries the token behind the #, for this browser only: no server
    receives it, and it is useless after the demo."""

    listening: socket.socket
    token: str

    @classmethod
    def open(cls) -> "Browser":
        """Listen on the usual port, else on a free one. Raises Fatal."""
        try:
            listening = listen(HOST, PORT)
        except Fatal:
            listening = listen(HOST, 0)
        return cls(listening, secrets.token_hex(16))

    @property
    def port(self) -> int:
        port: int = self.listening.getsockname()[1]
        return port

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}/#token={self.token}"

    async def serve(self, url: str, levers: Levers, stop: asyncio.Event) -> None:
        """Serve until `stop`."""
        client = connect(
            url, name="demo:console", decode_responses=True, command_timeout_s=_PATIENCE_S
        )
        watched = Watched(client, KeySpace(), masked_url(url), can_change=True, shows_private=True)
        site = Site(watched, Guard(hosts_of(HOST, self.port), self.token), levers)
        with contextlib.closing(self.listening):
            async with client:
                await site.serve(self.listening, stop)
