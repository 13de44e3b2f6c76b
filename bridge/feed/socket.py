"""A WebSocket that hands over each message the moment it is read.

The library reads frames in general: fragments, masks, compression, control frames. Nearly all that
the exchange sends is one kind, a whole uncompressed text frame, and cutting those out of what was
read costs a tenth of it. Everything else is given to the library a whole frame at a time, so that
it keeps its handshake, pings, compression, closing and complaints.

There is no queue: while a message is being handled nothing is read, and the operating system holds
the exchange back.
"""

import sys
from asyncio import TimerHandle
from collections.abc import Sequence
from contextlib import suppress
from struct import Struct
from traceback import clear_frames
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State

WHOLE_TEXT = 0x81  # a text frame, the last of its message, not compressed
HEAD = 2  # bytes: kind and length, or how many bytes of length follow
LENGTH_2, MASKED = 126, 128
SHORT_HEAD = Struct("!BBH")  # kind, length, and two bytes that are the length where it is longer
MAX_HEAD = 65_536  # of the answer to the handshake, as the library has it
MESSAGES = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


class Receiver(Protocol):
    """What a socket hands over, in the order in which it was sent."""

    def messages(self, bodies: Sequence[bytes]) -> None:
        """Whole messages that were read at once."""
        ...

    def pong(self, payload: bytes) -> None:
        """The exchange has read the ping of this payload, and all that was sent before it."""
        ...

    def flush(self) -> None:
        """All that was read at once has been handed over."""
        ...


class MessageSocket(ClientConnection):
    """Use as `connect(…, create_connection=MessageSocket)`, then `listen`."""

    def __init__(self, protocol: ClientProtocol, **options: Any) -> None:
        super().__init__(protocol, **options)
        self._limit = protocol.max_message_size or sys.maxsize
        self._receiver: Receiver | None = None
        self._unread = b""
        self._fragments = bytearray()
        self._is_framing = False  # whether frames are cut here: after the handshake, until the end
        self._has_ended = False
        self._fault: Exception | None = None
        self._giving_up: TimerHandle | None = None

    async def listen(self, receiver: Receiver) -> None:
        """Hand over all that comes until the connection ends. Raises ConnectionClosed, or whatever
        `receiver` raised.
        """
        self._receiver = receiver
        self.data_received(b"")  # what came before there was a receiver
        try:
            await self.recv()  # no message ever gets there, only the end
        finally:
            self._receiver = _Closing()
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
        elif self._receiver is None:
            self._unread = data
        else:
            try:
                self._cut(data, self._receiver)
                self._receiver.flush()
            except Exception as fault:  # noqa: BLE001 - the event loop would only log it
                self._fault = fault
                self.abort()
            if self.state is not State.OPEN:  # nothing more can be received: do not wait for it
                self._is_framing = False
                self.transport.close()  # over TLS it waits for the exchange to close, too
                self._giving_up = self.loop.call_later(self.close_timeout or 0, self.abort)

    def abort(self) -> None:
        """End at once; nothing happens where it has ended."""
        # Over TLS asyncio before 3.11.4 raises where a transport was closed twice.
        with suppress(AttributeError):
            self.transport.abort()

    def eof_received(self) -> None:
        """The exchange sends no more; what it sent before may still be unread here."""
        self._has_ended = True
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end. What was read and not used goes with it.

        The library keeps the exception that ended it, whose traceback keeps the frames of its
        parser, and those the data: megabytes of a message that was too big, in a circle of
        references that is only found by a full garbage collection.
        """
        super().connection_lost(exc)
        if self._giving_up is not None:
            self._giving_up.cancel()  # it would hold all of this until then
        self._unread = b""
        self._fragments = bytearray()
        _forget_frames(self.protocol.parser_exc)
        self.protocol.extensions.clear()  # a decompressor holds its window and unread input
        self.protocol.reader.discard()

    def process_event(self, event: Request | Response | Frame) -> None:
        """What the library made of what it was given."""
        if not isinstance(event, Frame):
            super().process_event(event)
            return
        if event.opcode not in MESSAGES:
            super().process_event(event)
            if event.opcode is Opcode.PONG and self._receiver is not None:
                self._receiver.pong(bytes(event.data))
            return
        self._fragments += event.data
        if event.fin and self._receiver is not None:
            whole, self._fragments = bytes(self._fragments), bytearray()
            self._receiver.messages([whole])

    def _shake_hands(self, data: bytes) -> bytes:
        """Give the library its answer to the handshake. Returns what follows it."""
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end and len(head) < MAX_HEAD:
            self._unread = data
            return b""
        super().data_received(head + end)
        self._is_framing = self.state is State.OPEN
        return rest

    def _cut(self, data: bytes, receiver: Receiver) -> None:
        """Hand over whole messages, give other frames to the library, keep what is not whole."""
        if self._has_ended:
            return  # the library takes nothing behind an end, and has nothing to answer to
        place, end = 0, len(data)
        while True:
            if self.state is State.OPEN and not self._fragments:
                place = self._cut_texts(data, place, receiver)
            if end - place < HEAD:
                break
            length = data[place + 1]
            body = place + HEAD
            if length >= LENGTH_2:
                body += 2 if length == LENGTH_2 else 8
                length = int.from_bytes(data[place + HEAD : body], "big")
            following = body + length
            if length > self._limit or data[place + 1] >= MASKED or self.state is not State.OPEN:
                super().data_received(data[place:])  # which refuses it, or is closing already
                return
            if following > end:
                break
            if data[place] == WHOLE_TEXT and not self._fragments:
                receiver.messages([data[body:following]])
            else:
                super().data_received(data[place:following])
            place = following
        self._unread = data[place:]

    def _cut_texts(self, data: bytes, place: int, receiver: Receiver) -> int:
        """Hand over what is nearly all there is: whole texts whose length has at most two bytes.
        Returns where another frame begins, or one that is not whole.
        """
        texts: list[bytes] = []
        end, limit = len(data), self._limit
        while place <= end - SHORT_HEAD.size:
            kind, length, length_2 = SHORT_HEAD.unpack_from(data, place)
            if kind != WHOLE_TEXT or length > LENGTH_2:  # masked, or longer
                break
            body = place + HEAD
            if length == LENGTH_2:
                body, length = body + 2, length_2
            following = body + length
            if following > end or length > limit:
                break
            texts.append(data[body:following])
            place = following
        if texts:
            receiver.messages(texts)
        return place


def _forget_frames(error: BaseException | None) -> None:
    """Let go of what the frames of the parser's exception hold, and of those before it. (Not for an
    exception that is being raised: that would end the coroutines it passes through.)
    """
    while error is not None:
        clear_frames(error.__traceback__)
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


class _Closing:
    """Receives nothing any more."""

    def messages(self, bodies: Sequence[bytes]) -> None:
        """They come too late."""

    def pong(self, payload: bytes) -> None:
        """It comes too late."""

    def flush(self) -> None:
        """There is nothing."""
