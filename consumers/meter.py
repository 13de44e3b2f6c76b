"""What a worker has done, in numbers, and its line in Redis (pure).

Time comes in as arguments.
"""

import json
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_LATENCIES_KEPT = 1000


@dataclass(slots=True)
class _Stream:
    handled: int = 0
    last_id: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the worker is, as its status tells."""

    group: str
    consumer: str
    mode: str
    pid: int
    host: str
    started_us: int


@dataclass(slots=True)
class Meter:
    """Counts; `now_us` is asked for the time when a batch is done."""

    now_us: Callable[[], int]
    handled: int = 0
    failed: int = 0  # attempts of a handler
    retried: int = 0  # entries handed out again
    dead: int = 0  # entries set aside
    missed: int = 0  # entries that were gone before they could be read
    late: int = 0  # entries that another worker had settled meanwhile
    streams: dict[str, _Stream] = field(default_factory=dict)
    _batch_received_us: deque[int] = field(default_factory=lambda: deque(maxlen=_LATENCIES_KEPT))
    _latencies_us: deque[int] = field(default_factory=lambda: deque(maxlen=_LATENCIES_KEPT))
    _undecodable: Counter[str] = field(default_factory=Counter)
    _last: tuple[int, int] | None = None

    def heard(self, received_us: int | None) -> None:
        """An entry was handled that the bridge had received at that time."""
        if received_us is not None:
            self._batch_received_us.append(received_us)

    def undecodable(self, stream: str) -> int:
        """Count an entry that could not be read; returns how many there were in the stream."""
        self._undecodable[stream] += 1
        return self._undecodable[stream]

    def done(self, stream: str, entries: int, last_id: str) -> None:
        """A batch is acknowledged or committed."""
        self.handled += entries
        one = self.streams.setdefault(stream, _Stream())
        one.handled += entries
        one.last_id = last_id
        now_us = self.now_us()
        self._latencies_us.extend(now_us - at_us for at_us in self._batch_received_us)
        self._batch_received_us.clear()

    def forget(self, stream: str) -> None:
        """The stream is another worker's now."""
        self.streams.pop(stream, None)

    def report(self, identity: Identity, made: str) -> str:
        """The worker's status as JSON; the rate is since the last report."""
        now_us = self.now_us()
        status: dict[str, Any] = {
            "group": identity.group,
            "consumer": identity.consumer,
            "pid": identity.pid,
            "host": identity.host,
            "mode": identity.mode,
            "started_us": identity.started_us,
            "updated_us": now_us,
            "handled": self.handled,
            "failed": self.failed,
            "retried": self.retried,
            "dead": self.dead,
            "missed": self.missed,
            "late": self.late,
            "undecodable": self._undecodable.total(),
            "streams": {
                name: {"handled": one.handled, "last_id": one.last_id}
                for name, one in self.streams.items()
            },
            "latency_ms": self._latency_ms(),
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
        before, self._last = self._last, (now_us, self.handled)
        if before is None or now_us <= before[0]:
            return 0.0
        return round((self.handled - before[1]) * 1_000_000 / (now_us - before[0]), 1)
