"""The sending side of one connection: its queue of frames, and the state of its line.

Knows neither sockets (`server`) nor why a line is impaired (`faults`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from enum import StrEnum
from typing import NamedTuple


class Binary(bytes):
    """A frame sent as a binary one; all others are text."""


class Line(NamedTuple):
    """The state of the line to a client.

    A silent line carries nothing in either direction, without any error; without `pongs` the
    exchange answers no Ping.
    """

    silent: bool = False
    pongs: bool = True
    bytes_per_s: int | None = None


GOOD_LINE = Line()


class How(StrEnum):
    """How a connection ends: with a Close frame, a plain end, a reset, or silently."""

    CLOSE = "close"
    EOF = "eof"
    RESET = "reset"
    SILENT = "silent"


class Ending(NamedTuple):
    """The end of a connection; code and reason are for the Close frame."""

    how: How
    code: int = 1001
    reason: str = ""


class Client:
    """One connection, with the frames that its writer has not taken yet."""

    def __init__(self, limit_frames: int, limit_bytes: int) -> None:
        self._limit_frames = limit_frames
        self._limit_bytes = limit_bytes
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self.number = 0
        self.has_ended = False
        self.forgotten: set[str] = set()  # subscriptions dropped by a fault
        self.line = GOOD_LINE
        self.ending: Ending | None = None
        self.waiting = asyncio.Event()
        self.too_slow = asyncio.Event()
        self.must_end = asyncio.Event()
        self.sent = 0

    def push(self, frame: bytes) -> None:
        """Queue a frame, or drop the client when its queue is full."""
        if self.too_slow.is_set():
            return
        self._queue.append(frame)
        self._bytes += len(frame)
        if len(self._queue) > self._limit_frames or self._bytes > self._limit_bytes:
            self._queue.clear()
            self.too_slow.set()
        self.waiting.set()

    def pop(self) -> bytes | None:
        """The next frame to write, or None."""
        if not self._queue:
            self.waiting.clear()
            return None
        frame = self._queue.popleft()
        self._bytes -= len(frame)
        self.sent += 1
        return frame

    @property
    def queued(self) -> int:
        """The number of queued frames."""
        return len(self._queue)

    def end(self, ending: Ending) -> None:
        """End the connection; only the first call has an effect."""
        if self.ending is None:
            self.ending = ending
            self.must_end.set()
