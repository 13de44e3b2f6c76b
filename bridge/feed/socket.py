"""A WebSocket that passes on each message as soon as it is read.

The library's parser handles all frames: fragments, masks, compression, control frames. But nearly
all frames of the exchange are whole, uncompressed text frames, and extracting those here costs a
tenth. All other frames are passed to the library, a whole frame at a time, so that its handshake,
pings, compression, closing and errors work as usual.

There is no queue: while a message is being handled nothing is read, and TCP flow control slows the
exchange down.
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
HEAD = 2  # bytes: kind, and the length or the size of the length that follows
LENGTH_2, MASKED = 126, 128
SHORT_HEAD = Struct("!BBH")  # kind, length, and the two-byte length (if the second byte is 126)
MAX_HEAD = 65_536  # bytes of the handshake's response, as in the library
MESSAGES = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


class Receiver(Protocol):
    """Takes what a socket receives, in the order in which it was sent."""

    def messages(self, bodies: Sequence[bytes]) -> None:
        """Take whole messages that were read at once."""
        ...

    def pong(self, payload: bytes) -> None:
        """Take a pong: the exchange has read the ping of this payload, and everything before it."""
        ...

    def flush(self) -> None:
        """Everything that was read at once has been passed on."""
        ...


class MessageSocket(ClientConnection):
    """The socket. Use as `connect(…, create_connection=MessageSocket)`, then `listen`."""

    def __init__(self, protocol: ClientProtocol, **options: Any) -> None:
        super().__init__(protocol, **options)
        self._limit = protocol.max_message_size or sys.maxsize
        self._receiver: Receiver | None = None
        self._unread = b""
        self._fragments = bytearray()
        self._is_in_message = False  # fragments of it were received (perhaps empty), not the last
        self._is_framing = False  # frames are extracted here: after the handshake, until the end
        self._has_ended = False
        self._fault: Exception | None = None
        self._giving_up: TimerHandle | None = None

    async def listen(self, receiver: Receiver) -> None:
        """Pass everything received to `receiver` until the connection ends. Raises
        ConnectionClosed, or what `receiver` raised.
        """
        self._receiver = receiver
        self.data_received(b"")  # data from before there was a receiver
        try:
            await self.recv()  # messages do not get there, so it only returns at the end
        finally:
            self._receiver = _Closing()
            if self._fault is not None:
                raise self._fault

    def data_received(self, data: bytes) -> None:
        """Take bytes of the exchange, in any portions."""
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
            if self.state is not State.OPEN:  # nothing more can be received: do not wait
                self._is_framing = False
                self.transport.close()  # over TLS it waits for the exchange to close: so a timer
                self._giving_up = self.loop.call_later(self.close_timeout or 0, self.abort)

    def abort(self) -> None:
        """End at once; no effect if it has ended."""
        # Over TLS asyncio before 3.11.4 raises if a transport was closed twice.
        with suppress(AttributeError):
            self.transport.abort()

    def eof_received(self) -> None:
        """The exchange will send no more; earlier data may still be unread."""
        self._has_ended = True
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end: drop unused data.

        The library keeps the exception that ended it, with the traceback, the frames of its parser
        and their data: megabytes of a message that was too big, in a reference cycle that only a
        full garbage collection finds.
        """
        super().connection_lost(exc)
        if self._giving_up is not None:
            self._giving_up.cancel()  # the timer refers to this socket
        self._unread = b""
        self._fragments = bytearray()
        _forget_frames(self.protocol.parser_exc)
        self.protocol.extensions.clear()  # a decompressor holds its window and unread input
        self.protocol.reader.discard()

    def process_event(self, event: Request | Response | Frame) -> None:
        """Take an event of the library's parser."""
        if not isinstance(event, Frame):
            super().process_event(event)
            return
        if event.opcode not in MESSAGES:
            super().process_event(event)
            if event.opcode is Opcode.PONG and self._receiver is not None:
                self._receiver.pong(bytes(event.data))
            return
        self._fragments += event.data
        self._is_in_message = not event.fin
        if event.fin and self._receiver is not None:
            whole, self._fragments = bytes(self._fragments), bytearray()
            self._receiver.messages([whole])

    def _shake_hands(self, data: bytes) -> bytes:
        """Pass the handshake's response to the library. Returns the data after it."""
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end and len(head) < MAX_HEAD:
            self._unread = data
            return b""
        super().data_received(head + end)
        self._is_framing = self.state is State.OPEN
        return rest

    def _cut(self, data: bytes, receiver: Receiver) -> None:
        """Pass on whole messages, pass other frames to the library, keep an incomplete frame."""
        if self._has_ended:
            return  # the library accepts no data after EOF
        place, end = 0, len(data)
        while True:
            if self.state is State.OPEN and not self._is_in_message:
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
                super().data_received(data[place:])  # it refuses the frame, or is closing
                return
            if following > end:
                break
            if data[place] == WHOLE_TEXT and not self._is_in_message:
                receiver.messages([data[body:following]])
            else:
                super().data_received(data[place:following])
            place = following
        self._unread = data[place:]

    def _cut_texts(self, data: bytes, place: int, receiver: Receiver) -> int:
        """Pass on whole text frames with a length of at most two bytes, the usual case. Returns the
        index of the first other or incomplete frame.
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
    """Clear the frames of the parser's exception and of its causes. (Not for an exception that is
    being raised: that would end the coroutines it passes through.)
    """
    while error is not None:
        clear_frames(error.__traceback__)
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


class _Closing:
    """A receiver that ignores everything, for after the end."""

    def messages(self, bodies: Sequence[bytes]) -> None:
        """Ignore them."""

    def pong(self, payload: bytes) -> None:
        """Ignore it."""

    def flush(self) -> None:
        """Do nothing."""
