"""Serves recorded frames instead of a generated market: the same bytes, paced by their event times.
Playback begins when subscriptions have been made and no more arrive, so that no frame is sent
without a receiver. Recorded lines are sent unchanged, valid or not.
"""

from __future__ import annotations

import asyncio
import errno
import json
import time
from dataclasses import dataclass
from pathlib import Path

from simulator.hub import Hub
from simulator.listing import Listing, listing

SETTLE_S = 0.2
_MOST_BYTES = 1_000_000_000  # of a file: a device has no end
# A file may hold captures of different years one after the other; a longer silence is cut to this.
LONGEST_SILENCE_US = 60_000_000


@dataclass(frozen=True, slots=True)
class RecordedFrame:
    """One line: its bytes, its stream (None for errors, which every client receives), and its
    event time if it has one.
    """

    frame: bytes
    stream: str | None
    symbol: str | None
    event_us: int | None


def read_bounded(path: Path) -> bytes:
    """All bytes of a file. Raises OSError where it cannot be read, or is too large."""
    with path.open("rb") as stream:
        content = stream.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {_MOST_BYTES:,} bytes", str(path))
    return content


def load(path: Path, first: int = 1, last: int | None = None) -> list[RecordedFrame]:
    """The frames of a JSON-lines file, lines `first` to `last` counted from 1, both included.

    Raises OSError when it cannot be read and ValueError when a line is not a frame.
    """
    chosen: list[RecordedFrame] = []
    for number, line in enumerate(read_bounded(path).splitlines(), start=1):
        if number < first or (last is not None and number > last) or not line.strip():
            continue
        try:
            chosen.append(_recorded(line))
        except (ValueError, AttributeError) as error:
            raise ValueError(f"line {number} of {path} is not a frame") from error
    return chosen


def listings(recorded: list[RecordedFrame]) -> tuple[Listing, ...]:
    """The markets that occur in a recording."""
    symbols = dict.fromkeys(item.symbol for item in recorded if item.symbol is not None)
    known: list[Listing] = []
    for symbol in symbols:
        try:
            known.append(listing(symbol))
        except ValueError:
            continue  # a stock's ticker is not a market
    return tuple(known)


async def play_back(recorded: list[RecordedFrame], hub: Hub, speed: float | None) -> None:
    """Play the frames once. `speed` multiplies the pace; None plays as fast as possible."""
    await _until_settled(hub)
    due_s = time.monotonic()
    previous_us: int | None = None
    for item in recorded:
        if item.event_us is not None and previous_us is not None and speed is not None:
            silence_us = min(max(item.event_us - previous_us, 0), LONGEST_SILENCE_US)
            due_s += silence_us / 1e6 / speed
        previous_us = item.event_us or previous_us
        await asyncio.sleep(max(due_s - time.monotonic(), 0))
        hub.put_recorded(item.stream, item.frame)


async def _until_settled(hub: Hub) -> None:
    """Wait for the first subscription, then until no more come."""
    await hub.first_subscription.wait()
    seen = -1
    while seen != hub.requests:
        seen = hub.requests
        await asyncio.sleep(SETTLE_S)


def _recorded(line: bytes) -> RecordedFrame:
    content = json.loads(line)
    stream = content.get("stream")
    data = content.get("data") or {}
    return RecordedFrame(line, stream, data.get("s"), data.get("E"))
