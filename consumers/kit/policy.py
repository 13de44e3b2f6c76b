"""Decisions of the kit as pure functions: shares, limits, delays.

The callers pass in times, data from Redis, and the random source.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from bridge.runtime.time_range import BEGINNING, NEW

T = TypeVar("T")

STREAMS_AT_ONCE = 100  # each wake-up of a blocked read registers every key again: O(streams)
BATCHES_AT_ONCE = 4  # full batches over all streams of one read: bounds memory and delay
_BATCH_MIN = 10
_WORTH_A_READ = 4  # an extra read per round pays off if batches grow by this factor
_BLOCK_MS = 200


def start_of(start: str, *, found_later: bool) -> str:
    """The start position of a group in a stream. `new` means the beginning for a stream that
    appears while the worker runs."""
    return BEGINNING if found_later and start == NEW else start


def batch_size(streams: int, largest: int) -> int:
    """COUNT for one read of `streams` streams; Redis applies it to each stream."""
    return min(largest, max(_BATCH_MIN, BATCHES_AT_ONCE * largest // max(1, streams)))


def next_limit(largest: int, most: int, took_s: float) -> int:
    """How many entries of a stream to read next, after up to `most` per stream took `took_s`.

    Entries that this worker has read are pending under its name, so other workers cannot take them:
    a slow handler gets as many as it handles in a second.
    """
    return max(1, min(largest, int(most / max(took_s, 0.001))))


def chunks(streams: Sequence[T]) -> Iterator[Sequence[T]]:
    """Streams in portions for one blocking call each."""
    for i in range(0, len(streams), STREAMS_AT_ONCE):
        yield streams[i : i + STREAMS_AT_ONCE]


def portions(streams: Sequence[T], hot: Collection[T], largest: int) -> list[Sequence[T]]:
    """Streams in the portions in which they are read.

    `hot` streams had more entries than one read returned. They are read first, in a portion of
    their own, if a common portion would make their batches much smaller.
    """
    apart = [stream for stream in streams if stream in hot]
    together = batch_size(min(len(streams), STREAMS_AT_ONCE), largest)
    if not apart or batch_size(len(apart), largest) < _WORTH_A_READ * together:
        return list(chunks(streams))
    return [*chunks(apart), *chunks([stream for stream in streams if stream not in hot])]


def fair_share(streams: int, alive: Collection[str], worker: str, turn: int = 0) -> int:
    """How many streams this worker should own; the shares of all workers add up to `streams`.

    This worker counts even if it is not in `alive` yet. The remainder goes to the first workers by
    name; `turn` rotates that order (each shard has its own turn).
    """
    names = sorted({*alive, worker})
    whole, rest = divmod(streams, len(names))
    return whole + ((names.index(worker) - turn) % len(names) < rest)


def shares(
    streams: Sequence[str],
    streams_by_worker: Mapping[str, Collection[str]],
    worker: str,
    turn: int = 0,
) -> list[tuple[Sequence[str], int]]:
    """Streams grouped by the set of workers that read them, and the share of this worker in each
    group. If all workers compute with the same data, the shares of a group add up to its size, so
    that every stream gets an owner."""
    parts: dict[tuple[str, ...], list[str]] = {}
    for stream in streams:
        readers = tuple(
            sorted(one for one, theirs in streams_by_worker.items() if stream in theirs)
        )
        parts.setdefault(readers, []).append(stream)
    return [(part, fair_share(len(part), readers, worker, turn)) for readers, part in parts.items()]


@dataclass(frozen=True, slots=True)
class Moves:
    """Changes of ownership. `take` lists candidates in order; at most `room` may be acquired."""

    release: tuple[str, ...]
    take: tuple[str, ...]
    room: int


def moves(assigned: Collection[str], chosen: Collection[str], share: int, random: Random) -> Moves:
    """Release streams that are not chosen or exceed the share; acquire missing ones, in random
    order."""
    unwanted = [stream for stream in assigned if stream not in chosen]
    kept = [stream for stream in assigned if stream in chosen]
    surplus = kept[share:]
    room = max(0, share - len(kept))
    missing = [stream for stream in chosen if stream not in assigned] if room else []
    random.shuffle(missing)
    return Moves((*unwanted, *surplus), tuple(missing), room)


def block_ms(portions: int) -> int:
    """How long one of `portions` reads may block, ms, as a stop waits for it. Never 0, which Redis
    takes as without limit."""
    return max(1, _BLOCK_MS // max(1, portions))


def retry_delay_s(failures: int) -> float:
    """The pause after the n-th failure in a row, s: 0.25, 0.5, 1 … 30."""
    return float(min(30.0, 0.125 * 2 ** min(failures, 10)))


def is_due(deliveries: int, idle_ms: int) -> bool:
    """Whether it is time to deliver a pending entry again."""
    return idle_ms >= retry_delay_s(deliveries) * 1000


def is_unfinished(deliveries: int, attempts: int) -> bool:
    """Whether an entry with this many unfinished deliveries counts as one that kills its workers.

    The first two deliveries may have been in a batch with other entries, so it takes a third.
    """
    return deliveries >= max(attempts, 3)
