"""The sending side of one connection: what waits for it, and how its line is at the moment.

Refuses to know sockets (`server`) and why a line is bad (`faults`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from enum import StrEnum
from typing import NamedTuple


class Binary(bytes):
    """A frame that goes out as a binary one; all others are text."""


class Line(NamedTuple):
    """How the line to a client is.

    A silent one carries nothing in either direction, and nobody notices; without `pongs` the
    exchange answers no Ping.
    """

    silent: bool = False
    pongs: bool = True
    bytes_per_s: int | None = None


GOOD_LINE = Line()


class How(StrEnum):
    """How a connection ends: with a Close frame, with a plain end, with a reset, or unsaid."""

    CLOSE = "close"
    EOF = "eof"
    RESET = "reset"
    SILENT = "silent"


class Ending(NamedTuple):
    """The end of a connection; code and reason are those of the Close frame."""

    how: How
    code: int = 1001
    reason: str = ""


class Client:
    """One connection: frames wait here until its writer takes them."""

    def __init__(self, limit_frames: int, limit_bytes: int) -> None:
        self._limit_frames = limit_frames
        self._limit_bytes = limit_bytes
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self.number = 0
        self.gone = False
        self.forgotten: set[str] = set()  # streams that the exchange has forgotten unasked
        self.line = GOOD_LINE
        self.ending: Ending | None = None
        self.waiting = asyncio.Event()
        self.too_slow = asyncio.Event()
        self.must_end = asyncio.Event()
        self.sent = 0

    def push(self, frame: bytes) -> None:
        """Queue a frame, or give the client up when its queue is full."""
        if self.too_slow.is_set():
            return
        self._queue.append(frame)
        self._bytes += len(frame)
        if len(self._queue) > self._limit_frames or self._bytes > self._limit_bytes:
            self._queue.clear()
            self.too_slow.set()
        self.waiting.set()

    def pop(self) -> bytes | None:
        """The next frame to write, or None when there is none now."""
        if not self._queue:
            self.waiting.clear()
            return None
        frame = self._queue.popleft()
        self._bytes -= len(frame)
        self.sent += 1
        return frame

    @property
    def queued(self) -> int:
        """How many frames wait."""
        return len(self._queue)

    def end(self, ending: Ending) -> None:
        """End the connection, once."""
        if self.ending is None:
            self.ending = ending
            self.must_end.set()
