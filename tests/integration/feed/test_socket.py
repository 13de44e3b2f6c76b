"""A WebSocket client hands over messages: frames of RFC 6455 in any portions, over a connection."""

import asyncio
import base64
import hashlib
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.protocol import State

from bridge.feed.socket import MessageSocket
from tests.support.eventually import eventually_async

HELLO = b"\x81\x05Hello"  # the RFC's own example
CLOSE = b"\x88\x02\x03\xe8"
LIMIT = 70_000


class Exchange:
    """A server that answers the handshake and then writes scripted bytes."""

    def __init__(self, head: bytes = b"", extension: bytes = b"") -> None:
        self.port = 0
        self.received = bytearray()
        self._with_the_answer = head  # sent in the same write as the handshake's reply
        self._extension = extension
        self._writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        key = request.lower().partition(b"sec-websocket-key: ")[2].partition(b"\r\n")[0]
        place = request.lower().index(key)
        magic = request[place : place + len(key)] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(magic).digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + self._extension
            + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + self._with_the_answer
        )  # fmt: skip
        self._writer = writer
        try:
            while data := await reader.read(4096):
                self.received += data
        finally:
            writer.transport.abort()

    async def write(self, *portions: bytes) -> None:
        """Write each portion by itself, so that the client reads it by itself."""
        await eventually_async(lambda: self._writer, "the client has connected")
        assert self._writer is not None
        for portion in portions:
            self._writer.write(portion)
            await self._writer.drain()
            await asyncio.sleep(0)

    def cut_softly(self) -> None:
        """Close without a Close frame, as a load balancer does."""
        assert self._writer is not None
        self._writer.close()

    def cut(self) -> None:
        assert self._writer is not None
        self._writer.transport.abort()


@asynccontextmanager
async def serving(exchange: Exchange) -> AsyncIterator[str]:
    server = await asyncio.start_server(exchange.serve, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


class Received:
    """A receiver that records the messages of a socket, and its end."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.pongs: list[bytes] = []
        self.flushed: list[int] = []  # the number of messages at each flush
        self.end: Exception | None = None

    def messages(self, bodies: Sequence[bytes]) -> None:
        self.bodies += bodies

    def pong(self, payload: bytes) -> None:
        self.pongs.append(payload)

    def flush(self) -> None:
        self.flushed.append(len(self.bodies))


class Failing(Received):
    """A receiver that raises at a message."""

    def messages(self, bodies: Sequence[bytes]) -> None:
        raise ZeroDivisionError(bodies)


@asynccontextmanager
async def listening(
    exchange: Exchange,
    *,
    compression: str | None = None,
    receiver: Received | None = None,
    pings: Sequence[bytes] = (),
) -> AsyncIterator[Received]:
    received = receiver or Received()

    async def listen(url: str) -> None:
        async with connect(
            url,
            create_connection=MessageSocket,
            compression=compression,
            max_size=LIMIT,
            close_timeout=0.2,
        ) as socket:
            assert isinstance(socket, MessageSocket)
            try:
                for payload in pings:
                    await socket.ping(payload)
                await socket.listen(received)
            except (ConnectionClosed, ZeroDivisionError) as end:
                received.end = end

    async with serving(exchange) as url, asyncio.TaskGroup() as tasks:
        task = tasks.create_task(listen(url))
        yield received
        task.cancel()


def frame(payload: bytes, kind: int = 0x81) -> bytes:
    """A frame as in RFC 6455 section 5.2."""
    if len(payload) < 126:
        return bytes([kind, len(payload)]) + payload
    if len(payload) < 65_536:
        return bytes([kind, 126]) + len(payload).to_bytes(2, "big") + payload
    return bytes([kind, 127]) + len(payload).to_bytes(8, "big") + payload


SIZES = (0, 1, 125, 126, 127, 65_535, 65_536, LIMIT)
MANY = [bytes([65 + number % 26]) * size for number, size in enumerate(SIZES)]


async def test_messages_are_handed_over_one_by_one_however_they_are_read() -> None:
    exchange = Exchange()
    whole = b"".join(map(frame, MANY))
    async with listening(exchange) as received:
        await exchange.write(whole)
        await eventually_async(
            lambda: len(received.bodies) == len(MANY), "all messages are received"
        )
        await exchange.write(*[bytes([byte]) for byte in frame(b"x" * 200) + HELLO])
        await eventually_async(
            lambda: len(received.bodies) == len(MANY) + 2, "two more messages are received"
        )

    assert received.bodies == [*MANY, b"x" * 200, b"Hello"]


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 9, 64, 1000])
async def test_portions_may_end_anywhere(cut: int) -> None:
    exchange = Exchange()
    sent = [b"a" * 300, b"", b"b" * 65_536, b"c"]
    whole = b"".join(map(frame, sent))
    async with listening(exchange) as received:
        await exchange.write(whole[:cut], whole[cut:-cut], whole[-cut:])
        await eventually_async(
            lambda: len(received.bodies) == len(sent), "all messages are received"
        )

    assert received.bodies == sent


async def test_messages_that_come_with_the_handshakes_answer_are_handed_over() -> None:
    exchange = Exchange(head=HELLO + frame(b"y" * 500)[:100])
    async with listening(exchange) as received:
        await exchange.write(frame(b"y" * 500)[100:])
        await eventually_async(lambda: len(received.bodies) == 2, "both messages are received")

    assert received.bodies == [b"Hello", b"y" * 500]


async def test_fragments_with_a_ping_between_are_one_message_in_its_place() -> None:
    exchange = Exchange()
    async with listening(exchange) as received:
        await exchange.write(
            frame(b"before") + b"\x01\x03Hel" + b"\x89\x04ping" + b"\x80\x02lo" + frame(b"after")
        )
        await eventually_async(lambda: len(received.bodies) == 3, "all messages are received")
        await eventually_async(lambda: b"\x8a\x84" in exchange.received, "the ping is answered")

    assert received.bodies == [b"before", b"Hello", b"after"]


async def test_binary_message_is_handed_over() -> None:
    exchange = Exchange()
    async with listening(exchange) as received:
        await exchange.write(frame(b"\x00\xff", 0x82))
        await eventually_async(lambda: received.bodies, "the message is received")

    assert received.bodies == [b"\x00\xff"]


async def test_compressed_and_uncompressed_messages_keep_their_order() -> None:
    packer = zlib.compressobj(wbits=-15)

    def packed(text: bytes) -> bytes:
        data = packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH)
        return frame(data.removesuffix(b"\x00\x00\xff\xff"), 0xC1)

    exchange = Exchange(extension=b"Sec-WebSocket-Extensions: permessage-deflate\r\n")
    async with listening(exchange, compression="deflate") as received:
        await exchange.write(packed(b"one" * 50) + frame(b"two") + packed(b"three" * 50))
        await eventually_async(lambda: len(received.bodies) == 3, "all messages are received")

    assert received.bodies == [b"one" * 50, b"two", b"three" * 50]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ([frame(b"z" * (LIMIT + 1))[:20]], 1009),  # the header shows the length
        # masked, as only a client may send
        ([b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"], 1002),
        ([b"\x01\x03Hel", HELLO], 1002),  # a message inside a message
        ([b"\x01\x00", HELLO], 1002),  # the same, and nothing of the outer one is there yet
        ([b"\x80\x02lo"], 1002),  # a continuation without a message
        ([b"\xc1\x02xx"], 1002),  # compressed without negotiation
    ],
    ids=[
        "too long",
        "masked",
        "inside another",
        "inside an empty one",
        "no beginning",
        "compressed",
    ],
)
async def test_frame_that_breaks_the_protocol_ends_the_connection_with_its_code(
    wrong: Sequence[bytes], code: int
) -> None:
    exchange = Exchange()
    async with listening(exchange) as received:
        await exchange.write(HELLO, *wrong)
        await eventually_async(lambda: received.end, "the connection has ended")

    assert isinstance(received.end, ConnectionClosedError)
    assert received.end.sent is not None
    assert received.end.sent.code == code
    assert received.bodies == [b"Hello"]


async def test_close_ends_the_connection_and_later_bytes_are_ignored() -> None:
    exchange = Exchange()
    async with listening(exchange) as received:
        await exchange.write(HELLO + CLOSE + HELLO)
        await eventually_async(lambda: received.end, "the connection has ended")

    assert received.bodies == [b"Hello"]
    assert isinstance(received.end, ConnectionClosed)
    assert received.end.rcvd is not None
    assert received.end.rcvd.code == 1000


async def test_cut_in_the_middle_of_a_message_ends_the_connection_without_that_message() -> None:
    exchange = Exchange()
    async with listening(exchange) as received:
        await exchange.write(HELLO + frame(b"lost" * 100)[:50])
        await eventually_async(lambda: received.bodies, "the first message is received")
        exchange.cut()
        await eventually_async(lambda: received.end, "the connection has ended")

    assert received.bodies == [b"Hello"]


async def test_error_of_the_receiver_is_raised_to_the_caller() -> None:
    exchange = Exchange()
    async with listening(exchange, receiver=Failing()) as received:
        await exchange.write(HELLO + HELLO)
        await eventually_async(lambda: received.end, "the error is raised")

    assert isinstance(received.end, ZeroDivisionError)


async def test_connection_that_ended_before_the_first_read_raises_its_end() -> None:
    exchange = Exchange(head=HELLO)
    async with serving(exchange) as url, connect(url, create_connection=MessageSocket) as socket:
        exchange.cut_softly()
        await eventually_async(lambda: socket.state is State.CLOSED, "the socket is closed")
        with pytest.raises(ConnectionClosedError):
            await cast("MessageSocket", socket).listen(Received())


async def test_receiver_is_flushed_once_for_all_that_was_read_at_once() -> None:
    exchange = Exchange()
    async with listening(exchange) as received:
        await exchange.write(HELLO)
        await eventually_async(lambda: received.bodies, "the first message is received")
        flushes = len(received.flushed)
        await exchange.write(HELLO * 50)
        await eventually_async(lambda: len(received.bodies) == 51, "all messages are received")

    assert received.flushed[flushes:] == [51]


async def test_pong_is_handed_over_in_its_place_between_messages() -> None:
    exchange = Exchange()
    received = Received()
    async with listening(exchange, receiver=received, pings=[b"one", b"two"]):
        await exchange.write(HELLO + frame(b"one", 0x8A) + frame(b"Hello again"))
        await eventually_async(lambda: received.pongs, "the pong is received")

    assert received.pongs == [b"one"]
    assert received.bodies == [b"Hello", b"Hello again"]
