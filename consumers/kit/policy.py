"""Decisions of the kit, as functions of facts (pure): shares, limits, delays.

Knows no clock, no Redis and no random source of its own.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from bridge.runtime.time_range import BEGINNING, NEW

T = TypeVar("T")

STREAMS_AT_ONCE = 100  # each wake-up of a blocked read registers every key again: O(streams)
BATCHES_AT_ONCE = 4  # full ones, over all streams of one read: bounds memory, and others' wait
_BATCH_MIN = 10
_WORTH_A_READ = 4  # so many times more entries pay for one more read in each round
_BLOCK_MS = 200


def start_of(start: str, *, found_later: bool) -> str:
    """Where a group begins in a stream: all of a stream that appears while running is new."""
    return BEGINNING if found_later and start == NEW else start


def batch_size(streams: int, largest: int) -> int:
    """COUNT for one read over so many streams; Redis applies it to each of them."""
    return min(largest, max(_BATCH_MIN, BATCHES_AT_ONCE * largest // max(1, streams)))


def next_limit(largest: int, most: int, took_s: float) -> int:
    """How many entries of a stream to take next, when up to `most` of each have taken so long.

    What this worker has read is pending under its name, so other workers cannot take it: a slow
    handler gets a second's worth.
    """
    return max(1, min(largest, int(most / max(took_s, 0.001))))


def chunks(streams: Sequence[T]) -> Iterator[Sequence[T]]:
    """Streams in portions that one blocking call may carry."""
    for i in range(0, len(streams), STREAMS_AT_ONCE):
        yield streams[i : i + STREAMS_AT_ONCE]


def portions(streams: Sequence[T], hot: Collection[T], largest: int) -> list[Sequence[T]]:
    """Streams as they are read in turn, a portion at a time.

    `hot` ones had more entries than were read of them: where quiet streams would leave them a small
    share of a batch, they come first, in a portion of their own.
    """
    apart = [stream for stream in streams if stream in hot]
    together = batch_size(min(len(streams), STREAMS_AT_ONCE), largest)
    if not apart or batch_size(len(apart), largest) < _WORTH_A_READ * together:
        return list(chunks(streams))
    return [*chunks(apart), *chunks([stream for stream in streams if stream not in hot])]


def fair_share(streams: int, alive: Collection[str], worker: str, turn: int = 0) -> int:
    """How many streams this worker should own; over all workers the shares add up to all.

    A worker that is not counted as alive (yet) is counted with the others. What is left over goes
    to the first by name; with another `turn` (of several shards, each has its own) to others.
    """
    names = sorted({*alive, worker})
    whole, rest = divmod(streams, len(names))
    return whole + ((names.index(worker) - turn) % len(names) < rest)


def shares(
    streams: Sequence[str], wanted: Mapping[str, Collection[str]], worker: str, turn: int = 0
) -> list[tuple[Sequence[str], int]]:
    """The streams that a worker wants, by who else wants them, and how many of each such part it
    should own. `wanted`: by worker, all that it wants. Where all count with the same facts, the
    shares of a part add up to the part, so that every stream has a worker that reads it."""
    parts: dict[tuple[str, ...], list[str]] = {}
    for stream in streams:
        wanting = tuple(sorted(one for one, theirs in wanted.items() if stream in theirs))
        parts.setdefault(wanting, []).append(stream)
    return [(part, fair_share(len(part), wanting, worker, turn)) for wanting, part in parts.items()]


@dataclass(frozen=True, slots=True)
class Moves:
    """What to change about ownership now. `take` is in the order to try, up to `room` of them."""

    release: tuple[str, ...]
    take: tuple[str, ...]
    room: int


def moves(assigned: Collection[str], chosen: Collection[str], share: int, random: Random) -> Moves:
    """Give back what is not wanted or too much; try for what is missing, in random order."""
    unwanted = [stream for stream in assigned if stream not in chosen]
    kept = [stream for stream in assigned if stream in chosen]
    surplus = kept[share:]
    room = max(0, share - len(kept))
    wanted = [stream for stream in chosen if stream not in assigned] if room else []
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
    """Whether an entry that was handed out so often without an end kills the workers that take it.

    The first two may have been with others in one batch: it takes a third to know.
    """
    return deliveries >= max(attempts, 3)
