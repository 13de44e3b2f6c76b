"""What can be read from Redis about a running system, as frozen values (pure).

Statuses are JSON that bridges and workers write; they are checked here once, and nothing in their
texts can do anything to a terminal. Whatever is missing has a default, so that a viewer can look at
an older or newer bridge.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    InstanceOf,
    Strict,
    TypeAdapter,
    model_validator,
)
from pydantic_core import from_json

from bridge.core.counters import (
    CoreCounters,
    Counters,
    OutboxCounters,
    RestCounters,
    StreamCounters,
)
from bridge.runtime.terminal import printable

LARGEST = 2**63  # what no number of ours reaches; larger ones cannot be reckoned with as floats
Int = Annotated[int, Strict()]  # no text that could be read as one


class _Status(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class ConnectionStatus(_Status):
    """One socket to the exchange. `refused` and `stale` are stream → why."""

    name: str = ""
    connected: bool = False
    answered: bool = True  # bridges that do not say count as answered
    trouble: str = ""
    attempts: Int = 0
    received_us: Int = 0
    wanted: Int = 0
    confirmed: Int = 0
    pending: tuple[str, ...] = ()
    refused: dict[str, str] = {}
    stale: dict[str, str] = {}


_adapters: dict[type[Counters], TypeAdapter[Any]] = {}


def _with_counters(told: Any, counters: type[Counters]) -> Any:
    """A status has its counters beside the rest; here they are one value."""
    if not isinstance(told, dict) or "counters" in told:
        return told
    names = {each.name for each in fields(counters)}
    numbers = {name: number for name, number in told.items() if name in names}
    if not all(isinstance(number, int) for number in numbers.values()):
        raise ValueError("a counter that is no whole number")
    return told | {"counters": _adapter(counters).validate_python(numbers)}


def _adapter(counters: type[Counters]) -> TypeAdapter[Any]:
    """Made once: that takes half a millisecond, and each stream's counters need it."""
    found = _adapters.get(counters)
    if found is None:
        found = _adapters[counters] = TypeAdapter(counters)
    return found


class Buckets(_Status):
    """How often it took how long, by the bounds of `core.latency`, and the sum of all, in µs."""

    counts: tuple[Int, ...] = ()
    sum_us: Int = 0


class StreamStatus(_Status):
    """One stream, as one bridge counts it since its start. `gap_causes`: `gaps`, by cause."""

    counters: InstanceOf[StreamCounters] = StreamCounters()
    gap_causes: dict[str, Int] = {}
    sparse: bool = False
    pending: Int = 0
    last_id: str = ""
    suspended: str = ""
    event_us: Int = 0

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, told: Any) -> Any:
        return _with_counters(told, StreamCounters)


class ShardStatus(_Status):
    """One shard of several: the server that it is on, or was last, and why nothing is published
    there; empty where it is.
    """

    shard: Int
    node: str = ""
    trouble: str = ""
    pending: Int = 0


class ShareStatus(_Status):
    """Of a bridge that shares the streams with others: which member it is; how many streams it
    keeps until other members have them, and which; how many streams of others no bridge
    receives that it knows of, and some of them with the member.
    """

    members: tuple[str, ...] = ()
    me: str = ""
    kept: Int = 0
    kept_for: tuple[str, ...] = ()
    unreceived: Int = 0
    unreceived_streams: dict[str, str] = {}


class BridgeStatus(_Status):
    """One bridge's last status; `stopped_us` is set by the very last. `redis_us` is when it was
    written by the clock of Redis, 0 by bridges that did not say; the other times are the bridge's.
    `latencies` is stage → type; `round_trips` has the bounds of `core.round_trips`; `ends` counts
    connections to the exchange by why they ended.
    """

    instance: str
    version: str = ""
    contract: Int = 0
    pid: Int = 0
    host: str = ""
    started_us: Int = 0
    updated_us: Int
    redis_us: Int = 0
    stopped_us: Int | None = None
    exchange: str = ""
    redis_trouble: str = ""
    shards: tuple[ShardStatus, ...] = ()
    registry_trouble: str = ""
    journal_trouble: str = ""
    journal_bytes: Int = 0
    journal_max_bytes: Int = 0
    checkpoint_us: Int = 0
    behind_bytes: Int = 0
    pending: Int = 0
    pending_bytes: Int = 0
    buffer_bytes: Int = 0
    acknowledged_us: Int = 0
    counters: InstanceOf[CoreCounters] = CoreCounters()
    outbox: OutboxCounters = OutboxCounters()
    rest: RestCounters = RestCounters()
    latencies: dict[str, dict[str, Buckets]] = {}
    round_trips: Buckets = Buckets()
    ends: dict[str, Int] = {}
    unknown_events: dict[str, Int] = {}
    share: ShareStatus | None = None
    rank: Int = 0
    peers: tuple[str, ...] = ()
    open_outages: tuple[str, ...] = ()
    connections: tuple[ConnectionStatus, ...] = ()
    clock_offset_us: Int | None = None
    stream_troubles: dict[str, str] = {}
    streams: dict[str, StreamStatus] = {}

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, told: Any) -> Any:
        return _with_counters(told, CoreCounters)


class Latency(_Status):
    """Milliseconds from when the bridge received a message until the consumer was done; None before
    the first."""

    p50: float | None = None
    p99: float | None = None


class WorkerStatus(_Status):
    """One consumer process's last status. `made` is for people; `patterns` are the streams that it
    reads; `latencies` are those of `latency_ms`, since its start.
    """

    group: str
    consumer: str
    mode: str = ""
    patterns: tuple[str, ...] = ()
    pid: Int = 0
    started_us: Int = 0
    updated_us: Int
    redis_us: Int = 0
    handled: Int = 0
    failed: Int = 0
    undecodable: Int = 0
    rate: float = 0.0
    latency_ms: Latency = Latency()
    latencies: Buckets = Buckets()
    made: str = ""


T = TypeVar("T", bound=_Status)


class Followed(NamedTuple):
    """One entry: the stream's name (without prefix), the entry's ID, its fields."""

    stream: str
    entry_id: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """One stream's key in Redis. `added` counts all entries ever; None on servers before 7.0.

    `last` is the newest entry's fields, None where the stream is empty or absent.
    `is_unavailable`: its shard's node does not answer, and nothing of this is known.
    """

    length: int = 0
    added: int | None = None
    last_id: str = "0-0"
    last: Mapping[str, str] | None = None
    is_unavailable: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything read in one look. `now_us` is the Redis server's clock; `unreadable` counts what
    is no status, and names in the registry that are no streams. `away`: of several shards those
    that do not answer, and why; without the first, nothing is known of bridges and workers.
    """

    now_us: int
    bridges: tuple[BridgeStatus, ...] = ()
    workers: tuple[WorkerStatus, ...] = ()
    streams: Mapping[str, StreamFacts] = field(default_factory=dict)
    quarantine: StreamFacts = StreamFacts()
    unreadable: int = 0
    redis_full: str = ""  # why it refuses every write
    unavailable: Mapping[int, str] = field(default_factory=dict)


def read_statuses(model: type[T], texts: Mapping[str, str]) -> tuple[tuple[T, ...], int]:
    """The statuses in order of their names, and how many could not be read."""
    found: list[T] = []
    for _, text in sorted(texts.items()):
        try:
            found.append(model.model_validate(_believed(from_json(text))))
        except ValueError:
            continue
    return tuple(found), len(texts) - len(found)


def _believed(value: Any) -> Any:
    """JSON, with all its texts as they may be shown. Raises ValueError where a number is too large
    to be one of ours.
    """
    match value:
        case str():
            return printable(value)
        case list():
            return [_believed(each) for each in value]
        case dict():
            return {printable(name): _believed(each) for name, each in value.items()}
        case int() | float() if not abs(value) < LARGEST:  # nor is NaN
            raise ValueError("a number beyond all that is counted")
    return value
