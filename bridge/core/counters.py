"""The counters: the only place where they are named (pure).

Each field becomes a field of the status that a bridge writes, of `status --json`, and of the sum
over several bridges. `SHOWN` makes it a column of `status` too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import cache
from operator import attrgetter
from typing import Any, Self

SHOWN: Mapping[str, Any] = {"is_shown": True}


@dataclass(slots=True)
class Counters:
    """Whole numbers that begin at 0."""

    def __add__(self, other: Self) -> Self:
        sums = {
            each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)
        }
        return type(self)(**sums)

    def as_dict(self) -> dict[str, int]:
        """By name. A bridge writes those of all streams each second, and `dataclasses.asdict` takes
        twenty times as long.
        """
        names, values = _reader(type(self))  # type: ignore[arg-type]  # a class has a hash
        return dict(zip(names, values(self), strict=True))


@cache
def _reader(kind: type[Counters]) -> tuple[tuple[str, ...], Callable[[object], tuple[int, ...]]]:
    names = tuple(each.name for each in fields(kind))
    return names, attrgetter(*names)


@dataclass(slots=True)
class StreamCounters(Counters):
    """Counts of a stream's entries since the process started."""

    received: int = 0
    published: int = field(default=0, metadata=SHOWN)
    duplicates: int = 0  # Redis had it already
    repeated: int = 0  # received over another connection already
    late: int = field(default=0, metadata=SHOWN)  # states older than the newest one
    gaps: int = field(default=0, metadata=SHOWN)
    recovered: int = field(default=0, metadata=SHOWN)
    snapshots: int = 0
    misplaced_snapshots: int = 0
    overflowed: int = 0


@dataclass(slots=True)
class CoreCounters(Counters):
    """Counts of what was received over all connections."""

    frames: int = 0
    quarantined: int = 0
    unknown_fields: int = 0
    unwanted: int = 0  # messages in flight of an unsubscribed stream


@dataclass(slots=True)
class OutboxCounters(Counters):
    """Counts of the requests to Redis about entries."""

    batches: int = 0  # calls of the append script
    disconnects: int = 0  # connections that ended or could not be made
    refusals: int = 0  # batches refused as a whole: Redis accepts no writes
    stream_refusals: int = 0  # batches refused for one stream alone


@dataclass(slots=True)
class RestCounters(Counters):
    """Counts of the REST requests to the exchange."""

    requests: int = 0
    failed: int = 0  # no usable response, 429 included: repeated
    refused: int = 0  # 4xx, except 429
    too_often: int = 0  # 429


class EndCause(StrEnum):
    """Why a connection to the exchange ended or could not be made; counted by `Connector`."""

    REFUSED = "refused"  # with an HTTP status
    UNREACHABLE = "unreachable"  # no address, no connection, no TLS, no answer in time
    CLOSED = "closed"  # by the exchange, with a Close frame
    BROKEN = "broken"  # without a Close frame
    GIVEN_UP = "given_up"  # for too long nothing was received, or only invalid frames
    REPLACED = "replaced"  # by another connection, without an outage


class UnknownEvents:
    """Counts of account events that the contract does not name, by the exchange's name. Beyond
    `MOST_NAMES` names, further ones are counted as `OTHERS`.

    `news`: names received for the first time; the reader clears it.
    """

    MOST_NAMES = 100
    OTHERS = "(others)"
    MAX_NAME_CHARS = 64  # a longer name is cut

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.news: list[str] = []

    def count(self, name: str) -> None:
        """Count an event of this name."""
        name = name[: self.MAX_NAME_CHARS]
        if name not in self.counts:
            if len(self.counts) >= self.MOST_NAMES:
                name = self.OTHERS
            if name not in self.counts:
                self.news.append(name)
        self.counts[name] = self.counts.get(name, 0) + 1
