"""A worker's counters, its current handler calls, and its status as JSON (pure).

The clock is a parameter.
"""

import json
from bisect import bisect_left
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from bridge.contract.latency import BOUNDS_US

_LATENCIES_KEPT = 1000  # for the quantiles
_AT_ONCE_MOST = 50_000  # events handled before they are settled: above four batches of the largest


@dataclass(slots=True)
class _Stream:
    handled: int = 0
    last_id: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of a worker, as written in its status."""

    group: str
    consumer: str
    mode: str
    pid: int
    host: str
    started_us: int
    patterns: tuple[str, ...] = ()  # of the streams that it wants


class HandlerCall(Protocol):
    """A call of a handler: a distinct object per call, with the entry it handles."""

    @property
    def stream(self) -> str: ...
    @property
    def entry_id(self) -> str: ...


@dataclass(slots=True, eq=False)
class InHand:
    """A call in progress, and its awaitable if it is async."""

    stream: str
    entry_id: str
    awaited: Awaitable[Any] | None = None


class Stats:
    """The counters of one worker. `now_us` is its clock: µs since 1970. Latencies are measured for
    events received by the bridge from `warm_us` on: earlier ones waited for the worker's start.
    """

    def __init__(self, now_us: Callable[[], int], warm_us: int = 0) -> None:
        self._in_hand: dict[InHand, None] = {}
        # The sync call in progress; there is at most one.
        self.running: HandlerCall | None = None
        self.handled = 0  # entries settled or committed
        self._now_us = now_us
        self._warm_us = warm_us
        self._failed = 0  # failed attempts of a handler
        self._retried = 0  # entries delivered again
        self._dead = 0  # dead letters made
        self._missed = 0  # entries removed before they could be read
        self._late = 0  # entries that another worker had settled meanwhile
        self._undecodable = 0  # entries settled or committed that could not be decoded
        self._undecodable_in: set[str] = set()  # streams with undecodable entries
        self._streams: dict[str, _Stream] = {}
        self._batch_received_us: deque[int] = deque(maxlen=_AT_ONCE_MOST)
        self._latencies_us: deque[int] = deque(maxlen=_LATENCIES_KEPT)
        self._took = [0] * (len(BOUNDS_US) + 1)  # latencies since the start, by bucket
        self._took_us = 0
        self._last_report: tuple[int, int] | None = None  # when, and `handled` then

    @property
    def in_hand(self) -> HandlerCall | None:
        """The oldest call in progress; may be called from another thread."""
        # A copy, since the loop changes the dict meanwhile. Awaited calls began before `running`.
        return next(iter(list(self._in_hand)), self.running)

    def begin(self, stream: str, entry_id: str) -> "InHand":
        """Record that a handler starts with this entry."""
        call = InHand(stream, entry_id)
        self._in_hand[call] = None
        return call

    def end(self, call: "InHand") -> None:
        """Record that the call has ended."""
        self._in_hand.pop(call, None)

    def received(self, received_us: object) -> None:
        """Record when the bridge received a handled event, µs since 1970. Other types are ignored,
        as a handler may have changed the event."""
        if type(received_us) is int and received_us >= self._warm_us:
            self._batch_received_us.append(received_us)

    def count_failure(self) -> None:
        """Count a failed attempt."""
        self._failed += 1

    def count_retries(self, entries: int) -> None:
        """Count entries that are delivered again."""
        self._retried += entries

    def count_dead_letter(self, entries: int = 1) -> None:
        """Count entries that become dead letters."""
        self._dead += entries

    def count_missed(self, entries: int) -> None:
        """Count entries that were removed before they could be read."""
        self._missed += entries

    def count_late(self, entries: int) -> None:
        """Count entries that another worker had settled before this one could."""
        self._late += entries

    def is_first_undecodable(self, stream: str) -> bool:
        """Whether this is the first undecodable entry of the stream. Effect: remembers it."""
        is_first = stream not in self._undecodable_in
        self._undecodable_in.add(stream)
        return is_first

    def done(self, stream: str, entries: int, last_id: str, undecodable: int = 0) -> None:
        """Record a settled or committed batch; `undecodable` entries do not count as handled."""
        self.handled += entries - undecodable
        self._undecodable += undecodable
        one = self._streams.setdefault(stream, _Stream())
        one.handled += entries - undecodable
        one.last_id = last_id
        now_us = self._now_us()
        for at_us in self._batch_received_us:
            us = now_us - at_us
            self._latencies_us.append(us)
            self._took[bisect_left(BOUNDS_US, us)] += 1
            self._took_us += max(0, us)  # negative where clocks disagree
        self._batch_received_us.clear()

    def forget(self, stream: str) -> None:
        """Remove the stream from the status: another worker owns it now."""
        self._streams.pop(stream, None)

    def report(self, identity: Identity, made: str) -> str:
        """The worker's status as JSON; `rate` is in entries per second since the last report."""
        now_us = self._now_us()
        status: dict[str, Any] = {
            "group": identity.group,
            "consumer": identity.consumer,
            "pid": identity.pid,
            "host": identity.host,
            "mode": identity.mode,
            "patterns": identity.patterns,
            "started_us": identity.started_us,
            "updated_us": now_us,
            "handled": self.handled,
            "failed": self._failed,
            "retried": self._retried,
            "dead": self._dead,
            "missed": self._missed,
            "late": self._late,
            "undecodable": self._undecodable,
            "streams": {
                name: {"handled": one.handled, "last_id": one.last_id}
                for name, one in self._streams.items()
            },
            "latency_ms": self._latency_ms(),
            "latencies": {"counts": self._took, "sum_us": self._took_us},
            "rate": self._rate(now_us),
            "made": made,
        }
        return json.dumps(status, separators=(",", ":"))

    def _latency_ms(self) -> dict[str, float | None]:
        ordered = sorted(self._latencies_us)
        if not ordered:
            return {"p50": None, "p99": None}
        at = {"p50": 0.5, "p99": 0.99}
        return {
            name: round(ordered[min(len(ordered) - 1, int(len(ordered) * part))] / 1000, 1)
            for name, part in at.items()
        }

    def _rate(self, now_us: int) -> float:
        before, self._last_report = self._last_report, (now_us, self.handled)
        if before is None or now_us <= before[0]:
            return 0.0
        return round((self.handled - before[1]) * 1_000_000 / (now_us - before[0]), 1)
