"""A TCP proxy between a client and a server on loopback that can lose what it is told to lose.

`lose_reply()` lets the next request through and cuts the connection instead of handing the answer
back: the client cannot know what was applied. `cut()` ends all connections at once, `refuses` lets
no new one in.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Proxy:
    """One listening port in front of one server."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._pairs: set[asyncio.StreamWriter] = set()
        self._lose = 0
        self.port = 0
        self.refuses = False
        self.replies_lost = 0

    def lose_reply(self, count: int = 1) -> None:
        self._lose += count

    def cut(self) -> None:
        for writer in list(self._pairs):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.transport.abort()
            return
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._pairs |= {writer, server_writer}
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._forward(reader, server_writer, replies=False))
                tasks.create_task(self._forward(server_reader, writer, replies=True))
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            self._pairs -= {writer, server_writer}
            writer.transport.abort()
            server_writer.transport.abort()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        try:
            while data := await reader.read(65_536):
                if replies and self._lose:
                    self._lose -= 1
                    self.replies_lost += 1
                    break
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        self.cut()


@asynccontextmanager
async def running_proxy(host: str, port: int) -> AsyncIterator[Proxy]:
    """A proxy in front of `host:port`; its own port is `proxy.port`."""
    proxy = Proxy(host, port)
    server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    async with server:
        yield proxy
        proxy.cut()
