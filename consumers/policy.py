"""Decisions of the kit, as functions of facts (pure): shares, limits, delays, where to begin.

Knows no clock, no Redis and no random source of its own.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import TypeVar

from bridge.errors import ConfigError
from consumers.span import bound_id

T = TypeVar("T")

STREAMS_AT_ONCE = 100  # each wake-up of a blocked read registers every key again: O(streams)
BATCHES_AT_ONCE = 4  # full ones, over all streams of one read: bounds memory, and others' wait
_BATCH_MIN = 10
_BLOCK_MS = 200


def batch_size(streams: int, largest: int) -> int:
    """COUNT for one read over so many streams; Redis applies it to each of them."""
    return min(largest, max(_BATCH_MIN, BATCHES_AT_ONCE * largest // max(1, streams)))


def next_limit(largest: int, most: int, took_s: float) -> int:
    """How many entries of a stream to take next, when up to `most` of each have taken so long.

    What a slow handler has taken, nobody else can have: a second's worth is enough.
    """
    return max(1, min(largest, int(most / max(took_s, 0.001))))


def chunks(streams: Sequence[T]) -> Iterator[Sequence[T]]:
    """Streams in portions that one blocking call may carry."""
    for i in range(0, len(streams), STREAMS_AT_ONCE):
        yield streams[i : i + STREAMS_AT_ONCE]


def fair_share(streams: int, alive: Collection[str], worker: str) -> int:
    """How many streams this worker should own; over all workers the shares add up to all.

    A worker that is not counted as alive (yet) is counted with the others.
    """
    names = sorted({*alive, worker})
    whole, rest = divmod(streams, len(names))
    return whole + (names.index(worker) < rest)


@dataclass(frozen=True, slots=True)
class Moves:
    """What to change about ownership now. `take` is in the order to try, up to `room` of them."""

    release: tuple[str, ...]
    take: tuple[str, ...]
    room: int


def moves(owned: Collection[str], chosen: Collection[str], share: int, random: Random) -> Moves:
    """Give back what is not wanted or too much; try for what is missing, in random order."""
    unwanted = [stream for stream in owned if stream not in chosen]
    kept = [stream for stream in owned if stream in chosen]
    surplus = kept[share:]
    room = max(0, share - len(kept))
    wanted = [stream for stream in chosen if stream not in owned] if room else []
    random.shuffle(wanted)
    return Moves((*unwanted, *surplus), tuple(wanted), room)


def block_ms(portions: int) -> int:
    """How long one of so many reads in turn may block; a stop waits for it. Never 0: for ever."""
    return max(1, _BLOCK_MS // max(1, portions))


def retry_delay_s(failures: int) -> float:
    """How long to wait after the n-th failure in a row: 0.25, 0.5, 1 … 30 s."""
    return float(min(30.0, 0.125 * 2 ** min(failures, 10)))


def is_due(deliveries: int, idle_ms: int) -> bool:
    """Whether it is time to hand out a pending entry again."""
    return idle_ms >= retry_delay_s(deliveries) * 1000


def is_unfinished(deliveries: int, attempts: int) -> bool:
    """Whether an entry that was handed out so often without an end kills whoever takes it.

    The first two may have been with others in one batch: it takes a third to know.
    """
    return deliveries >= max(attempts, 3)


BEGINNING = "0-0"
NEW = "$"
_LAST_SEQUENCE = 2**64 - 1


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def ago(text: str) -> timedelta | None:
    """`90s`, `30m`, `2h`, `1d`: how long ago; None for other texts."""
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None


def start_position(text: str, now: datetime) -> str:
    """Where to begin, as Redis writes it. Redis begins *after* the position.

    `beginning`, `new`, an entry ID (reading starts after it), a time (with what is of that time),
    or how long ago.
    """
    if text == "beginning":
        return BEGINNING
    if text == "new":
        return NEW
    if re.fullmatch(r"[0-9]{1,19}(-[0-9]{1,19})?", text):
        return text if "-" in text else f"{text}-0"
    try:
        first_ms = int(bound_id(ago(text) or text, now).split("-")[0])
    except ConfigError:
        raise ConfigError(
            f"--from {text!r}: write beginning, new, a time such as 2026-09-02T16:44 (UTC), how "
            "long ago (2h), or an entry ID such as 1788368290062-0"
        ) from None
    return f"{first_ms - 1}-{_LAST_SEQUENCE}" if first_ms else BEGINNING


def start_of(start: str, *, found_later: bool) -> str:
    """Where a group begins in a stream: all of a stream that appears while running is new."""
    return BEGINNING if found_later and start == NEW else start
