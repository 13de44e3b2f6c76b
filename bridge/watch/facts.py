"""What can be read from Redis about a running system, as frozen values (pure).

Statuses are JSON that bridges and workers write; they are checked here once. Whatever is missing
has a default, so that a viewer can look at an older or newer bridge.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ConnectionStatus(_Told):
    """One socket to the exchange. `refused` and `silent` are stream → why."""

    name: str = ""
    connected: bool = False
    trouble: str = ""
    attempts: int = 0
    frame_us: int = 0
    wanted: int = 0
    confirmed: int = 0
    pending: tuple[str, ...] = ()
    refused: dict[str, str] = {}
    silent: dict[str, str] = {}


class LineStatus(_Told):
    """One stream, as one bridge counts it since its start."""

    published: int = 0
    duplicates: int = 0
    doubles: int = 0
    late: int = 0
    gaps: int = 0
    repaired: int = 0
    sparse: bool = False
    snapshots: int = 0
    overflowed: int = 0
    pending: int = 0
    last_id: str = ""
    failed: str = ""
    event_us: int = 0


class BridgeStatus(_Told):
    """One bridge's last words about itself; `stopped_us` is set by its very last."""

    instance: str
    version: str = ""
    pid: int = 0
    host: str = ""
    started_us: int = 0
    updated_us: int
    stopped_us: int | None = None
    exchange: str = ""
    redis_trouble: str = ""
    journal_trouble: str = ""
    behind_bytes: int = 0
    pending: int = 0
    pending_bytes: int = 0
    frames: int = 0
    quarantined: int = 0
    unknown_fields: int = 0
    rank: int = 0
    peers: tuple[str, ...] = ()
    connections: tuple[ConnectionStatus, ...] = ()
    clock_offset_us: int | None = None
    stream_troubles: dict[str, str] = {}
    streams: dict[str, LineStatus] = {}


class Latency(_Told):
    """Milliseconds from the bridge's hearing to the consumer's done; None before the first."""

    p50: float | None = None
    p99: float | None = None


class WorkerStatus(_Told):
    """One consumer process's last words about itself. `made` is for people."""

    group: str
    consumer: str
    mode: str = ""
    pid: int = 0
    updated_us: int
    handled: int = 0
    failed: int = 0
    undecodable: int = 0
    rate: float = 0.0
    latency_ms: Latency = Latency()
    made: str = ""


T = TypeVar("T", bound=_Told)


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """One stream's key in Redis. `added` counts all entries ever; None on servers before 7.0.

    `last` is the newest entry's fields, None where the stream is empty or absent.
    """

    length: int = 0
    added: int | None = None
    last_id: str = "0-0"
    last: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything read in one look. `now_us` is the Redis server's clock."""

    now_us: int
    bridges: tuple[BridgeStatus, ...] = ()
    workers: tuple[WorkerStatus, ...] = ()
    streams: Mapping[str, StreamFacts] = field(default_factory=dict)
    quarantine: StreamFacts = StreamFacts()
    unreadable: int = 0


def read_statuses(model: type[T], texts: Mapping[str, str]) -> tuple[tuple[T, ...], int]:
    """The statuses in order of their names, and how many could not be read."""
    found: list[T] = []
    for _, text in sorted(texts.items()):
        try:
            found.append(model.model_validate_json(text))
        except ValidationError:
            continue
    return tuple(found), len(texts) - len(found)
