"""What is counted: the one place where counters have names (pure).

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
        """By name. A bridge tells those of all streams each second, and `dataclasses.asdict` takes
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
    """What has happened to a stream's entries since the process started."""

    received: int = 0
    published: int = field(default=0, metadata=SHOWN)
    duplicates: int = 0  # Redis had it already
    repeated: int = 0  # received over another connection already
    late: int = field(default=0, metadata=SHOWN)  # a state that a newer one had overtaken
    gaps: int = field(default=0, metadata=SHOWN)
    recovered: int = field(default=0, metadata=SHOWN)
    snapshots: int = 0
    misplaced_snapshots: int = 0
    overflowed: int = 0


@dataclass(slots=True)
class CoreCounters(Counters):
    """What was received over all connections."""

    frames: int = 0
    quarantined: int = 0
    unknown_fields: int = 0
    unwanted: int = 0  # of a stream that was left, under way at the time


@dataclass(slots=True)
class OutboxCounters(Counters):
    """What was said to Redis about entries."""

    batches: int = 0  # calls of the append script
    disconnects: int = 0  # connections that ended, or that could not be made
    refusals: int = 0  # batches that Redis refused as a whole: it takes no writes
    stream_refusals: int = 0  # batches of one stream that it refuses alone


@dataclass(slots=True)
class RestCounters(Counters):
    """What the exchange was asked for over REST."""

    requests: int = 0
    failed: int = 0  # no usable answer, those with 429 too: asked again
    refused: int = 0  # 4xx, but for 429
    too_often: int = 0  # 429


class EndCause(StrEnum):
    """Why a connection to the exchange ended, or did not come about; counted by `Connector`."""

    REFUSED = "refused"  # with an HTTP status
    UNREACHABLE = "unreachable"  # no address, no connection, no TLS, no answer in time
    CLOSED = "closed"  # the exchange said goodbye
    BROKEN = "broken"  # without a goodbye
    GIVEN_UP = "given_up"  # nothing came for too long, or nothing but rubbish
    REPLACED = "replaced"  # by another, without a break


class UnknownEvents:
    """Events of the account that the contract does not name: how often each came, by the exchange's
    name. Of more names than `MOST_NAMES`, the later ones are counted as `OTHERS`.

    `news`: the names that came for the first time; to be cleared by the reader.
    """

    MOST_NAMES = 100
    OTHERS = "(others)"
    MAX_NAME_CHARS = 64  # the rest of a longer one is left out

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.news: list[str] = []

    def count(self, name: str) -> None:
        """One more event of this name."""
        name = name[: self.MAX_NAME_CHARS]
        if name not in self.counts:
            if len(self.counts) >= self.MOST_NAMES:
                name = self.OTHERS
            if name not in self.counts:
                self.news.append(name)
        self.counts[name] = self.counts.get(name, 0) + 1
