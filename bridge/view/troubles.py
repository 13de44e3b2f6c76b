"""Problems of a bridge by its own status: reasons of a closed list, with a text each (pure).

The one place that judges them: `status`, `top`, `/readyz` and `backpack_unhealthy` agree.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from bridge.runtime.skew import SKEWED_MS, describe_skew
from bridge.view.facts import BridgeStatus, ConnectionStatus

COPIES = ("a", "b", "c")  # suffixes of connections that receive the same streams
SKEWED_US = SKEWED_MS * 1000
MAX_NAMED = 5  # streams that are listed
FULL_SHARE = 2  # divisor of `publish.buffer_bytes`: trouble from half full on


class Reason(StrEnum):
    """Why a bridge is not healthy."""

    EXCHANGE_DISCONNECTED = "exchange_disconnected"
    SUBSCRIBING = "subscribing"
    STREAM_NOT_RECEIVED = "stream_not_received"
    CLOCK_SKEWED = "clock_skewed"
    REDIS_UNWRITABLE = "redis_unwritable"
    SHARD_UNWRITABLE = "shard_unwritable"
    REGISTRY_UNWRITABLE = "registry_unwritable"
    JOURNAL_BROKEN = "journal_broken"
    CATCHING_UP = "catching_up"
    BUFFER_FILLING = "buffer_filling"
    STREAM_SUSPENDED = "stream_suspended"


class Trouble(NamedTuple):
    """One problem, for programs and for people."""

    reason: Reason
    text: str


def troubles(status: BridgeStatus) -> Iterator[Trouble]:
    """All problems, the exchange's side first; none for a healthy bridge."""
    yield from _not_received(status)
    offset_us = status.clock_offset_us
    if offset_us is not None and abs(offset_us) >= SKEWED_US:
        yield Trouble(Reason.CLOCK_SKEWED, describe_skew(offset_us / 1000))
    yield from _not_written(status)
    for name, stream in status.streams.items():
        if stream.suspended:
            text = f"{name} is suspended: {stream.suspended}"
            yield Trouble(Reason.STREAM_SUSPENDED, text)


def _not_received(status: BridgeStatus) -> Iterator[Trouble]:
    for connection in status.connections:
        if _is_covered(connection, status):
            continue
        if not connection.connected:
            why = connection.trouble or "waiting"
            text = f"{connection.name} is not connected to the exchange: {why}"
            yield Trouble(Reason.EXCHANGE_DISCONNECTED, text)
        elif connection.wanted and not (connection.answered or connection.confirmed):
            text = f"{connection.name} is subscribing: the exchange has not answered yet"
            yield Trouble(Reason.SUBSCRIBING, text)
    streams = list(status.stream_troubles.items())
    for name, why in streams[:MAX_NAMED]:
        yield Trouble(Reason.STREAM_NOT_RECEIVED, f"{name} is not received: {why}")
    if len(streams) > MAX_NAMED:
        text = f"{len(streams) - MAX_NAMED} more streams are not received"
        yield Trouble(Reason.STREAM_NOT_RECEIVED, text)


def _not_written(status: BridgeStatus) -> Iterator[Trouble]:
    yield from _not_published(status)
    if status.registry_trouble:
        text = f"the registry cannot be written: {status.registry_trouble}"
        yield Trouble(Reason.REGISTRY_UNWRITABLE, text)
    if status.journal_trouble:
        yield Trouble(Reason.JOURNAL_BROKEN, f"the journal: {status.journal_trouble}")
    if status.behind_bytes:
        text = f"catching up: {status.behind_bytes:,} bytes of the journal to publish"
        yield Trouble(Reason.CATCHING_UP, text)
    limit = status.buffer_bytes
    if limit and status.pending_bytes > limit // FULL_SHARE:
        text = f"more than half of publish.buffer_bytes waits: {status.pending_bytes:,} bytes"
        yield Trouble(Reason.BUFFER_FILLING, text)


def _not_published(status: BridgeStatus) -> Iterator[Trouble]:
    """The trouble where nothing is published, or one for each shard without publishing."""
    if not is_published(status):
        yield Trouble(Reason.REDIS_UNWRITABLE, f"publishing waits: {status.redis_trouble}")
        return
    for one in status.shards:
        if one.trouble:
            text = (
                f"shard {one.shard} at {one.node} waits, the other shards continue: {one.trouble}"
            )
            yield Trouble(Reason.SHARD_UNWRITABLE, text)


def is_published(status: BridgeStatus) -> bool:
    """Whether at least one shard accepts writes."""
    return not status.redis_trouble or any(not one.trouble for one in status.shards)


def _is_covered(connection: ConnectionStatus, status: BridgeStatus) -> bool:
    """Whether another connected connection receives the same streams."""
    name, _, suffix = connection.name.rpartition("-")
    return suffix in COPIES and any(
        other.connected and other is not connection and other.name.rpartition("-")[0] == name
        for other in status.connections
    )
