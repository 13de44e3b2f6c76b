"""A REST server with scripted replies, byte by byte."""

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from bridge.feed.rest import Rest
from bridge.protocol.signing import Signer

Reply = Callable[[int], bytes]


@dataclass
class Server:
    """Replies to request n with the raw bytes `reply(n)`; records the requests."""

    reply: Reply
    url: str = ""
    request_lines: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heads.append(head.decode())
                self.request_lines.append(self.heads[-1].split("\r\n")[0])
                answer = self.reply(len(self.request_lines))
                if not answer:
                    await asyncio.sleep(60)
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def http(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@asynccontextmanager
async def answering(
    reply: Reply, timeout_s: float = 5.0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Rest, Server]]:
    server = Server(reply)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    rest = Rest(
        server.url,
        timeout_s=timeout_s,
        window_ms=5000,
        clock_ms=lambda: time.time_ns() // 1_000_000,
        chance=random.Random(1),
        signer=Signer("a key", lambda text: "a signature"),
    )
    try:
        async with rest:
            yield rest, server
    finally:
        listening.close()
