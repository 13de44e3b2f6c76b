"""The latency of messages, in fixed buckets, by stage and type of stream (pure).

Plain lists of whole numbers: a library's histogram costs many times as much for each message.
Times are µs.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from bridge.contract.latency import BOUNDS_US
from bridge.core.buckets import MOST_UNCOUNTED, Buckets
from bridge.core.entries import Slot

APPENDED = "+"


class Stage(StrEnum):
    """A stage on a message's way from the engine to Redis."""

    ENGINE_TO_RECEIVED = "engine_to_received"  # between two machines' clocks
    RECEIVED_TO_WRITTEN = "received_to_written"  # until Redis has acknowledged it


class Latencies:
    """The latencies of one bridge since its start."""

    def __init__(self) -> None:
        self._by_type: dict[str, tuple[Buckets, Buckets]] = {}

    def written(self, kind: str, slots: Sequence[Slot], signs: str, now_us: int) -> None:
        """Count the slots that Redis settled: the first ones, one for each sign. Entries made by
        the bridge or fetched over REST are left out. `now_us` is by the steady clock.
        """
        buckets = self._by_type.get(kind)
        if buckets is None:
            buckets = self._by_type[kind] = (Buckets(BOUNDS_US), Buckets(BOUNDS_US))
        received, written = buckets
        for slot, sign in zip(slots, signs, strict=False):
            _, _, _, _, _, _, at_us, _, _, _, connection, engine_us = slot.entry
            if sign == APPENDED and connection:
                written.times_us.append(now_us - slot.at_us)
                if engine_us:
                    received.times_us.append(at_us - engine_us)
        if len(written.times_us) >= MOST_UNCOUNTED:
            received.count()
            written.count()

    @classmethod
    def total(cls, each: Iterable["Latencies"]) -> "Latencies":
        """The sum of these latencies."""
        total = cls()
        for one in each:
            for kind, parts in one._by_type.items():
                there = total._by_type.setdefault(kind, (Buckets(BOUNDS_US), Buckets(BOUNDS_US)))
                for into, part in zip(there, parts, strict=True):
                    into.include(part)
        return total

    def as_dict(self) -> Mapping[str, Any]:
        """Stage → type → counts by bucket, and the sum of all times, for the status."""
        stages = (Stage.ENGINE_TO_RECEIVED, Stage.RECEIVED_TO_WRITTEN)
        return {
            stage.value: {
                kind: both[place].as_dict() for kind, both in self._by_type.items() if both[place]
            }
            for place, stage in enumerate(stages)
        }
