"""A WebSocket that hands over each message the moment it is read.

The library reads frames in general: fragments, masks, compression, control frames. Nearly all that
the exchange sends is one kind, a whole uncompressed text frame, and cutting those out of what was
read costs a tenth of it. Everything else is given to the library a whole frame at a time, so that
it keeps its handshake, pings, compression, closing and complaints.

There is no queue: while a message is being handled nothing is read, and the operating system holds
the exchange back.
"""

import sys
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State

WHOLE_TEXT = 0x81  # a text frame, the last of its message, not compressed
HEAD = 2  # bytes: kind and length, or how many bytes of length follow
LENGTH_2, MASKED = 126, 128
MAX_HEAD = 65_536  # of the answer to the handshake, as the library has it
MESSAGES = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


class MessageSocket(ClientConnection):
    """Use as `connect(…, create_connection=MessageSocket)`, then `listen`."""

    def __init__(self, protocol: ClientProtocol, **options: Any) -> None:
        super().__init__(protocol, **options)
        self._limit = protocol.max_message_size or sys.maxsize
        self._on_message: Callable[[bytes], object] | None = None
        self._unread = b""
        self._fragments = bytearray()
        self._is_framing = False  # whether frames are cut here: after the handshake, until the end
        self._has_ended = False
        self._fault: Exception | None = None

    async def listen(self, on_message: Callable[[bytes], object]) -> None:
        """Hand over every message until the connection ends. Raises ConnectionClosed, or whatever
        `on_message` raised.
        """
        self._on_message = on_message
        self.data_received(b"")  # what came before somebody listened
        try:
            await self.recv()  # no message ever gets there, only the end
        finally:
            self._on_message = _pass_over  # while it closes
            if self._fault is not None:
                raise self._fault

    def data_received(self, data: bytes) -> None:
        """Bytes of the exchange, in any portions."""
        data = self._unread + data if self._unread else data
        self._unread = b""
        if self.response is None:
            data = self._shake_hands(data)
        if not self._is_framing:
            if data:
                super().data_received(data)
        elif self._on_message is None:
            self._unread = data
        else:
            try:
                self._cut(data)
            except Exception as fault:  # noqa: BLE001 - the event loop would only log it
                self._fault = fault
                self.transport.abort()
            if self.state is not State.OPEN:  # nothing more can be heard: do not wait for its end
                self._is_framing = False
                self.transport.close()  # over TLS it waits for the exchange to close, too
                self.loop.call_later(self.close_timeout or 0, self.transport.abort)

    def eof_received(self) -> None:
        """The exchange says no more; what it said before may still be unread here."""
        self._has_ended = True
        super().eof_received()

    def process_event(self, event: Request | Response | Frame) -> None:
        """What the library made of what it was given."""
        if not isinstance(event, Frame) or event.opcode not in MESSAGES:
            super().process_event(event)
            return
        self._fragments += event.data
        if event.fin and self._on_message is not None:
            whole, self._fragments = bytes(self._fragments), bytearray()
            self._on_message(whole)

    def _shake_hands(self, data: bytes) -> bytes:
        """Give the library its answer to the handshake. Returns what follows it."""
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end and len(head) < MAX_HEAD:
            self._unread = data
            return b""
        super().data_received(head + end)
        self._is_framing = self.state is State.OPEN
        return rest

    def _cut(self, data: bytes) -> None:
        """Hand over whole messages, give other frames to the library, keep what is not whole."""
        on_message = self._on_message
        assert on_message is not None
        place, end = 0, len(data)
        while end - place >= HEAD:
            kind, length = data[place], data[place + 1]
            body = place + HEAD
            if length >= LENGTH_2:
                body += 2 if length == LENGTH_2 else 8
                length = int.from_bytes(data[place + HEAD : body], "big")
            following = body + length
            if self._has_ended:
                return  # the library takes nothing behind an end, nor is there anybody to answer
            if length > self._limit or data[place + 1] >= MASKED or self.state is not State.OPEN:
                super().data_received(data[place:])  # which refuses it, or is closing already
                return
            if following > end:
                break
            if kind == WHOLE_TEXT and not self._fragments:
                on_message(data[body:following])
            else:
                super().data_received(data[place:following])
            place = following
        self._unread = data[place:]


def _pass_over(message: bytes) -> None:
    """Nobody listens any more."""
