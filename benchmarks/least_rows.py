"""The minimal cost of a program on asyncio: it receives, writes to a journal, writes to Redis, and
reads the reply. Nothing is decoded or validated. The bridge's further cost is its own work.

python -m benchmarks.least_rows WS_HOST:PORT REDIS_PORT JOURNAL STREAM...
"""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence

import hiredis

from benchmarks.ground import Ground
from benchmarks.measure import Sample
from benchmarks.rows import row

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: exchange\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: eHh4eHh4eHh4eHh4eHh4eA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
TEXT, MASKED, LENGTH_16, LENGTH_64 = 0x81, 0x80, 126, 127
MAX_ENTRIES = b"200000"


@row("paced", "the least: received, journaled, written, the reply read")
@row("latency", "the least: received, journaled, written, the reply read")
def least(ground: Ground) -> Sample:
    with ground.exchange() as exchange, ground.redis() as client:
        address = exchange.ws_url.removeprefix("ws://")
        arguments = (address, str(ground.redis_port), "journal", *ground.workload.streams)
        with ground.program("-m", "benchmarks.least_rows", *arguments) as process:
            exchange.wait_until_subscribed()
            return ground.published(process, exchange, client)


class Writer(asyncio.Protocol):
    """Sends waiting commands once the previous ones have been answered."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []
        self._reader = hiredis.Reader()
        self._unanswered = 0
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while self._reader.gets() is not False:
            self._unanswered -= 1
        self.pump()

    def pump(self) -> None:
        """Send, unless a reply is outstanding."""
        if self.waiting and not self._unanswered:
            waiting, self.waiting = self.waiting, []
            self._unanswered = len(waiting)
            self._transport.write(b"".join(waiting))


class Reader(asyncio.Protocol):
    """Extracts the frames, journals them, passes them on."""

    def __init__(self, writer: Writer, journal: int) -> None:
        self.is_over = asyncio.Event()
        self._writer = writer
        self._journal = journal
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        frames = list(self._frames(self._rest + data))
        os.write(self._journal, b"\n".join((*frames, b"")))
        for frame in frames:
            name = frame.rpartition(b'"stream":"')[2].partition(b'"')[0]
            entry = (b"XADD", name, b"MAXLEN", b"~", MAX_ENTRIES, b"*", b"data", frame)
            self._writer.waiting.append(packed(*entry))
        self._writer.pump()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over.set()

    def _frames(self, data: bytes) -> Iterator[bytes]:
        at = 0
        while len(data) - at >= 2:
            begin, length = at + 2, data[at + 1]
            if length in (LENGTH_16, LENGTH_64):
                begin += 2 if length == LENGTH_16 else 8
                length = int.from_bytes(data[at + 2 : begin], "big")
            if len(data) < begin + length:
                break
            yield data[begin : begin + length]
            at = begin + length
        self._rest = data[at:]


def packed(*arguments: bytes) -> bytes:
    """A command in the Redis protocol."""
    return b"*%d\r\n" % len(arguments) + b"".join(
        b"$%d\r\n%b\r\n" % (len(one), one) for one in arguments
    )


def subscribed(address: str, streams: Sequence[str]) -> socket.socket:
    """A socket that is subscribed to these streams."""
    host, _, port = address.partition(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall(UPGRADE)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += connection.recv(1)
    request = json.dumps({"method": "SUBSCRIBE", "params": list(streams)}).encode()
    head = bytes([TEXT, MASKED | LENGTH_16]) + len(request).to_bytes(2, "big")
    connection.sendall(head + bytes(4) + request)  # masked by zeros
    connection.settimeout(0)
    return connection


async def main(address: str, redis_port: str, journal: str, streams: Sequence[str]) -> None:
    """Run until the exchange closes."""
    loop = asyncio.get_running_loop()
    _, writer = await loop.create_connection(Writer, "127.0.0.1", int(redis_port))
    file = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    _, reader = await loop.create_connection(
        lambda: Reader(writer, file), sock=subscribed(address, streams)
    )
    await reader.is_over.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
