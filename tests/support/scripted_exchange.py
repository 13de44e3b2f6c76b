"""An exchange with scripted behaviour on the connection, byte by byte.

Built on plain sockets, so that it can break every rule of WebSocket. `handshakes` holds raw HTTP
replies for the next connections, before any is accepted; `answers_pings` may be switched off at any
time. A test can send frames, bytes or a Close to each of `clients`, or abort its connection.
"""

import asyncio
import base64
import hashlib
import json
import ssl
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(opcode: int, body: bytes) -> bytes:
    """A whole, unmasked frame of a server."""
    size = len(body)
    if size < 126:
        head = bytes([0x80 | opcode, size])
    elif size < 65_536:
        head = bytes([0x80 | opcode, 126]) + struct.pack(">H", size)
    else:
        head = bytes([0x80 | opcode, 127]) + struct.pack(">Q", size)
    return head + body


@dataclass
class Client:
    """One client of the exchange."""

    writer: asyncio.StreamWriter
    requests: list[dict[str, object]] = field(default_factory=list)
    pings: list[float] = field(default_factory=list)  # times of pings, by the loop's clock
    unanswered: list[bytes] = field(default_factory=list)  # pings without a pong
    is_gone: bool = False
    answers_goodbye: bool = True
    said_goodbye: bool = False

    @property
    def subscribed(self) -> list[str]:
        """The subscribed streams in order, without those unsubscribed since."""
        names: list[str] = []
        for request in self.requests:
            params = [str(name) for name in request["params"]]  # type: ignore[attr-defined]
            if request["method"] == "SUBSCRIBE":
                names += [name for name in params if name not in names]
            else:
                names = [name for name in names if name not in params]
        return names

    def send(self, body: str | bytes, opcode: int = TEXT) -> None:
        self.raw(frame(opcode, body.encode() if isinstance(body, str) else body))

    def raw(self, wire: bytes) -> None:
        if not self.is_gone:
            self.writer.write(wire)

    def close(self, code: int = 1001) -> None:
        self.raw(frame(CLOSE, struct.pack(">H", code) + b"shutting down"))

    def cut(self) -> None:
        """Abort the connection, without Close and without TLS shutdown."""
        self.writer.transport.abort()

    def hang_up(self) -> None:
        """Close the connection without a Close frame; over TLS with TLS shutdown."""
        self.writer.close()

    def turn_deaf(self) -> None:
        """Stop reading from the socket, so that the client's Close is not read either."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]


@dataclass
class ScriptedExchange:
    """The scripted behaviour; `greet(client, names)` runs at each subscription."""

    port: int = 0
    scheme: str = "ws"
    compresses: bool = False  # whether it accepts an offer of permessage-deflate
    answers_pings: bool = True
    handshakes: list[bytes] = field(default_factory=list)
    attempts: list[float] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    greet: Callable[[Client, Iterable[str]], None] = lambda client, names: None

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def open(self) -> list[Client]:
        return [client for client in self.clients if not client.is_gone]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            await self._serve(reader, client)
        client.is_gone = True
        writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, client: Client) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.attempts.append(asyncio.get_running_loop().time())
        if self.handshakes:
            client.writer.write(self.handshakes.pop(0))
            await client.writer.drain()
            return
        key = next(
            line.partition(b":")[2].strip().decode()
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key:")
        )
        accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
        extension = "Sec-WebSocket-Extensions: permessage-deflate\r\n" if self.compresses else ""
        client.writer.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"{extension}Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        self.clients.append(client)
        unpacker = zlib.decompressobj(wbits=-15)
        while True:
            opcode, body, is_packed = await _read_frame(reader)
            if is_packed:
                body = unpacker.decompress(body + b"\x00\x00\xff\xff")
            if opcode == PING:
                client.pings.append(asyncio.get_running_loop().time())
                if self.answers_pings:
                    client.send(body, PONG)
                else:
                    client.unanswered.append(body)
            elif opcode == TEXT:
                request = json.loads(body)
                client.requests.append(request)
                if request["method"] == "SUBSCRIBE":
                    self.greet(client, request["params"])
            elif opcode == CLOSE:
                client.said_goodbye = True
                if not client.answers_goodbye:
                    continue
                client.send(body, CLOSE)
                await client.writer.drain()
                return


async def _read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Read one frame; its opcode, its body, and whether the body is compressed."""
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack(">H", await reader.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack(">Q", await reader.readexactly(8))
    mask = await reader.readexactly(4)
    body = await reader.readexactly(size)
    unmasked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(body))
    return first & 0x0F, unmasked, bool(first & 0x40)


@asynccontextmanager
async def scripted_exchange(
    port: int = 0, tls: ssl.SSLContext | None = None, *, compresses: bool = False
) -> AsyncIterator[ScriptedExchange]:
    """An exchange on its own port, until the block ends."""
    exchange = ScriptedExchange(scheme="wss" if tls else "ws", compresses=compresses)
    server = await asyncio.start_server(exchange.serve, "127.0.0.1", port, ssl=tls)
    exchange.port = server.sockets[0].getsockname()[1]
    try:
        yield exchange
    finally:
        server.close()
        for client in exchange.clients:
            client.cut()
