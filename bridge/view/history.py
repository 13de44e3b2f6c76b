"""Several polls in a row: rates, and the latency from exchange to bridge (pure).

Rates cover a short window, so that they neither jump nor lag. A counter that decreased (another
Redis, a flush) starts again.
"""

from collections import deque
from collections.abc import Mapping, Sequence

from bridge.contract.whole_number import whole_number
from bridge.view.facts import Sample, StreamFacts

WINDOW_US = 5_000_000
_LATENCIES_KEPT = 2000
_CURVE_KEPT = 60
WARM_UP_US = 3_000_000  # messages of a bridge's first seconds are delayed by its start
_MEASURED = ("trade", "bookTicker", "depth", "orderFill", "orderAccepted", "orderCancelled")


class History:
    """The polls of the last seconds, oldest first."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque()
        self._latencies_us: deque[int] = deque(maxlen=_LATENCIES_KEPT)
        self._curve: deque[float] = deque(maxlen=_CURVE_KEPT)

    def add(self, sample: Sample) -> None:
        """Add the next poll."""
        before = self.streams
        starts_us = [each.started_us for each in sample.bridges]
        self._latencies_us.extend(_new_latencies(before, sample.streams, starts_us))
        self._samples.append(sample)
        # The oldest may be one step outside the window, so that the window is always full.
        while len(self._samples) > 2 and self._samples[1].now_us <= sample.now_us - WINDOW_US:
            self._samples.popleft()
        if len(self._samples) > 1:
            last_step = deque(list(self._samples)[-2:])
            self._curve.append(sum(_rates(last_step).values()))

    @property
    def latest(self) -> Sample:
        """The newest poll."""
        return self._samples[-1]

    @property
    def streams(self) -> Mapping[str, StreamFacts]:
        """The streams of the newest poll; none before the first."""
        return self._samples[-1].streams if self._samples else {}

    @property
    def earlier(self) -> Sample | None:
        """The oldest poll of the window; None before there are two."""
        return self._samples[0] if len(self._samples) > 1 else None

    @property
    def curve(self) -> list[float]:
        """Entries per second of all streams, one value for each step, oldest first."""
        return list(self._curve)

    def rates(self) -> dict[str, float]:
        """Stream → entries per second; empty before the second poll."""
        return _rates(self._samples)

    def receive_ms(self) -> tuple[float, float] | None:
        """Latency from the exchange's engine to the bridge, p50 and p99, ms; None without a value.

        It spans the clocks of two machines, so it may be negative.
        """
        ordered = sorted(self._latencies_us)
        if not ordered:
            return None
        last = len(ordered) - 1
        return ordered[last // 2] / 1000, ordered[min(last, int(len(ordered) * 0.99))] / 1000


def _rates(samples: deque[Sample]) -> dict[str, float]:
    if len(samples) < 2:
        return {}
    newest = samples[-1]
    rates: dict[str, float] = {}
    for name in newest.streams:
        first = _since_reset(samples, name)
        seconds = (newest.now_us - first.now_us) / 1e6
        grown = _count(newest, name) - _count(first, name)
        rates[name] = grown / seconds if seconds > 0 else 0.0
    return rates


def _since_reset(samples: deque[Sample], name: str) -> Sample:
    """The oldest poll since which the stream's counter has only grown."""
    first = samples[0]
    for before, after in zip(samples, list(samples)[1:], strict=False):
        if _count(after, name) < _count(before, name):
            first = after
    return first


def _count(sample: Sample, name: str) -> int:
    """Entries ever added, as Redis counts them, or as the bridges do where Redis does not."""
    facts = sample.streams.get(name, StreamFacts())
    if facts.added is not None:
        return facts.added
    statuses = (bridge.streams.get(name) for bridge in sample.bridges)
    return sum(status.counters.published for status in statuses if status is not None)


def _new_latencies(
    before: Mapping[str, StreamFacts], now: Mapping[str, StreamFacts], starts_us: Sequence[int]
) -> list[int]:
    """Engine to bridge, µs, of newest entries that have changed; without those received while a
    bridge had just started."""
    return [
        received_us - engine_us
        for name, facts in now.items()
        if (last := facts.last) is not None
        and facts.last_id != before.get(name, StreamFacts()).last_id
        and last.get("type") in _MEASURED
        and not name.startswith(("depth.200ms", "depth.600ms", "depth.1000ms"))  # delayed by design
        and last.get("source") != "rest"  # fetched later
        and (engine_us := whole_number(last.get("engine_us", ""))) is not None
        and (received_us := whole_number(last.get("received_us", ""))) is not None
        and not any(0 <= received_us - start < WARM_UP_US for start in starts_us)
    ]
