"""What can be read from Redis about a running system, as frozen values (pure).

Statuses are JSON written by bridges and workers; they are validated once here, and control
characters in their texts are escaped. Missing fields have defaults, so that a viewer can read an
older or newer bridge.
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

LARGEST = 2**63  # above all our numbers; larger ones lose precision as floats
Int = Annotated[int, Strict()]  # not a text that could be parsed as one


class _Status(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class ConnectionStatus(_Status):
    """One WebSocket connection. `refused` and `stale` map streams to reasons."""

    name: str = ""
    connected: bool = False
    answered: bool = True  # the default is for bridges that do not report it
    trouble: str = ""
    attempts: Int = 0
    received_us: Int = 0
    wanted: Int = 0
    confirmed: Int = 0
    pending: tuple[str, ...] = ()
    refused: dict[str, str] = {}
    stale: dict[str, str] = {}


_adapters: dict[type[Counters], TypeAdapter[Any]] = {}


def _with_counters(status: Any, counters: type[Counters]) -> Any:
    """The status with its counters gathered in one value."""
    if not isinstance(status, dict) or "counters" in status:
        return status
    names = {each.name for each in fields(counters)}
    numbers = {name: number for name, number in status.items() if name in names}
    if not all(isinstance(number, int) for number in numbers.values()):
        raise ValueError("a counter that is no whole number")
    return status | {"counters": _adapter(counters).validate_python(numbers)}


def _adapter(counters: type[Counters]) -> TypeAdapter[Any]:
    """The adapter, cached: creating one takes half a millisecond, and each stream needs it."""
    found = _adapters.get(counters)
    if found is None:
        found = _adapters[counters] = TypeAdapter(counters)
    return found


class Buckets(_Status):
    """A latency histogram with the bounds of `core.latency`, and the sum, in µs."""

    counts: tuple[Int, ...] = ()
    sum_us: Int = 0


class StreamStatus(_Status):
    """One stream, as one bridge counts it since its start. `gap_causes`: gaps by cause."""

    counters: InstanceOf[StreamCounters] = StreamCounters()
    gap_causes: dict[str, Int] = {}
    sparse: bool = False
    pending: Int = 0
    last_id: str = ""
    suspended: str = ""
    event_us: Int = 0

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, status: Any) -> Any:
        return _with_counters(status, StreamCounters)


class ShardStatus(_Status):
    """One shard of several: its server, or the last one, and why nothing is published there; empty
    where it is.
    """

    shard: Int
    node: str = ""
    trouble: str = ""
    pending: Int = 0


class ShareStatus(_Status):
    """A bridge in a fleet: its member; how many streams it keeps until other members receive them,
    and for which members; how many streams of other members no known bridge receives, and
    some of them with their member.
    """

    members: tuple[str, ...] = ()
    me: str = ""
    kept: Int = 0
    kept_for: tuple[str, ...] = ()
    unreceived: Int = 0
    unreceived_streams: dict[str, str] = {}


class BridgeStatus(_Status):
    """One bridge's last status; `stopped_us` is set by the final one. `redis_us` is its write time
    by the clock of Redis, 0 from bridges that do not report it; other times are the bridge's.
    `latencies`: stage → type; `round_trips` has the bounds of `core.round_trips`; `ends` counts
    closed connections to the exchange by reason.
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
    def _gather(cls, status: Any) -> Any:
        return _with_counters(status, CoreCounters)


class Latency(_Status):
    """Milliseconds from the bridge's receipt of a message to the end of the consumer's handling;
    None before the first."""

    p50: float | None = None
    p99: float | None = None


class WorkerStatus(_Status):
    """One consumer process's last status. `made` is for people; `patterns` are the streams that it
    reads; `latencies` has the values behind `latency_ms`, since its start.
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
    """One entry: the stream's name without the prefix, the entry's ID, and its fields."""

    stream: str
    entry_id: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """One stream's key in Redis. `added` counts all entries ever; None on servers before 7.0.

    `last` is the newest entry's fields, None where the stream is empty or absent.
    `is_unavailable`: its shard's node does not answer, and the other fields are unknown.
    """

    length: int = 0
    added: int | None = None
    last_id: str = "0-0"
    last: Mapping[str, str] | None = None
    is_unavailable: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """All facts of one poll. `now_us` is the Redis server's clock; `unreadable` counts invalid
    statuses and stream names. `unavailable`: the shards that do not answer, and why; without the
    first shard, bridges and workers are unknown.
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
    """The statuses in the order of their names, and how many could not be read."""
    found: list[T] = []
    for _, text in sorted(texts.items()):
        try:
            found.append(model.model_validate(_believed(from_json(text))))
        except ValueError:
            continue
    return tuple(found), len(texts) - len(found)


def _believed(value: Any) -> Any:
    """JSON with its texts escaped for display. Raises ValueError where a number is larger than any
    of ours.
    """
    match value:
        case str():
            return printable(value)
        case list():
            return [_believed(each) for each in value]
        case dict():
            return {printable(name): _believed(each) for name, each in value.items()}
        case int() | float() if not abs(value) < LARGEST:  # also true for NaN
            raise ValueError("a number beyond all that is counted")
    return value
