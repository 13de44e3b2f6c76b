"""Frames that were heard and are in no journal (pure)."""

from collections.abc import Iterable
from dataclasses import dataclass

from bridge.journal.record import Kind

_FRAMES = (Kind.FRAME.value.encode(), Kind.BINARY.value.encode())


@dataclass(slots=True)
class Loss:
    """How many, and from when until when (µs, received)."""

    frames: int = 0
    first_us: int = 0
    last_us: int = 0

    def add(self, received_us: int) -> None:
        """One more."""
        self.frames += 1
        self.first_us = self.first_us or received_us
        self.last_us = max(self.last_us, received_us)

    def add_lines(self, lines: Iterable[bytes]) -> None:
        """Those among a journal's lines."""
        for line in filter(is_frame, lines):
            self.add(int(line.partition(b" ")[0]))


def is_frame(line: bytes) -> bool:
    """Is this line of a journal a frame?"""
    return line.split(b" ", 2)[1] in _FRAMES
