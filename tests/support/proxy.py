"""A TCP proxy between a client and a server on the loopback that can lose replies and connections.

`lose_reply()` passes the next request on and closes the connection instead of passing the reply
back: the client cannot tell what was applied. `cut()` closes all connections, `cut_one()` the
oldest; with `refuses` no new connection is accepted.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

REPLIES_IN_TURN = 25  # more than the replies to the connect, the first reads and the first batches


class Proxy:
    """A listening port in front of one server."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._pairs: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        self._lose = 0
        self._turn: int | None = None  # the index of the reply that the next connection loses
        self.port = 0
        self.refuses = False
        self.replies_lost = 0

    def lead_to(self, port: int) -> None:
        """Close all connections; new ones go to another server of this machine."""
        self._target = (self._target[0], port)
        self.cut()

    def lose_reply(self, count: int = 1) -> None:
        self._lose += count

    def lose_each_once(self) -> None:
        """Each new connection loses another one of its first replies: the first connection its
        first reply, the next connection its second, and so on.
        """
        self._turn = 0

    def lose_nothing(self) -> None:
        self._turn = None
        self._lose = 0

    def cut(self) -> None:
        for pair in list(self._pairs):
            _abort(pair)

    def cut_one(self) -> None:
        _abort(self._pairs.pop(0))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.transport.abort()
            return
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, server_writer)
        self._pairs.append(pair)
        turn = self._turn
        if turn is not None:
            self._turn = (turn + 1) % REPLIES_IN_TURN
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._forward(reader, server_writer, pair))
                tasks.create_task(self._forward(server_reader, writer, pair, turn, replies=True))
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            if pair in self._pairs:
                self._pairs.remove(pair)
            _abort(pair)

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
        loses: int | None = None,
        *,
        replies: bool = False,
    ) -> None:
        number = 0
        try:
            while data := await reader.read(65_536):
                in_turn = loses == number and self._turn is not None
                number += 1
                if replies and (self._lose or in_turn):
                    self._lose -= not in_turn
                    self.replies_lost += 1
                    break
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        _abort(pair)


def _abort(pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
    for writer in pair:
        writer.transport.abort()


@asynccontextmanager
async def running_proxy(host: str, port: int) -> AsyncIterator[Proxy]:
    """A proxy in front of `host:port`; its own port is `proxy.port`."""
    proxy = Proxy(host, port)
    server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    async with server:
        yield proxy
        proxy.cut()
