"""The page Latency: how long messages take in each stage, over time (pure).

From the exchange's engine to the bridge and from there into Redis, as counted by the bridges; from
the bridge to the end of a consumer's handling, as counted by its workers, for all groups together
and for the slowest worker of each group. A column of a heat map is two seconds.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import add, sub
from typing import Any

from bridge.contract.latency import BOUNDS_US
from bridge.core.latency import Stage
from bridge.view.facts import BridgeStatus, Buckets, Sample, WorkerStatus
from bridge.view.view_model import SILENT_US

COLUMN_US = 2_000_000
COLUMNS = 150
BOUNDS_MS = tuple(bound / 1000 for bound in BOUNDS_US)  # one more row is for values above them
_FIGURES_OF = 30  # newest columns, from which the figures beside a heat map are computed
_NONE = [0] * (len(BOUNDS_US) + 1)
_SHARES: Mapping[str, float] = {"p50": 0.5, "p90": 0.9, "p99": 0.99}

Counts = list[int]  # by bucket
Process = tuple[str, int]  # name and start of a bridge or worker, whose counts begin at its start
HANDLED = "received_to_handled"
PARTS = (*(stage.value for stage in Stage), HANDLED)


@dataclass(slots=True)
class LatencyPage:
    """The columns of the last five minutes."""

    _before: dict[Process, Mapping[str, Counts]] = field(default_factory=dict)
    _column: dict[str, Counts] = field(default_factory=lambda: dict.fromkeys(PARTS, _NONE))
    _columns: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=COLUMNS))
    _slot: int = 0

    def take(self, sample: Sample) -> dict[str, Any] | None:
        """Add a poll; returns the update for clients when a column is complete."""
        self._count(sample)
        slot = sample.now_us // COLUMN_US
        if slot == self._slot:
            return None
        self._slot = slot
        full, self._column = self._column, dict.fromkeys(PARTS, _NONE)
        handled = handled_by_group(sample.workers, sample.now_us)
        column = {"at_us": slot * COLUMN_US, "handled": handled} | full
        self._columns.append(column)
        return {"column": column, "figures": self._figures()}

    def whole(self) -> dict[str, Any]:
        """The whole page, for a new client."""
        return {
            "bounds_ms": BOUNDS_MS,
            "columns": list(self._columns),
            "figures": self._figures(),
        }

    def _count(self, sample: Sample) -> None:
        """Add what processes have counted since the last poll; nothing for a new process, whose
        counts may be older."""
        now: dict[Process, Mapping[str, Counts]] = {
            (one.instance, one.started_us): _counts(one) for one in sample.bridges
        }
        for worker in sample.workers:
            who = f"{worker.group}/{worker.consumer}"
            now[who, worker.started_us] = {HANDLED: _added(_NONE, worker.latencies)}
        for process, counts in now.items():
            for part, before in self._before.get(process, {}).items():
                new = map(sub, counts[part], before)
                self._column[part] = list(map(add, self._column[part], new))
        self._before = now

    def _figures(self) -> dict[str, Any]:
        newest = list(self._columns)[-_FIGURES_OF:]
        return {
            part: _figures([sum(cell) for cell in zip(*(c[part] for c in newest), strict=True)])
            for part in PARTS
        }


def _counts(status: BridgeStatus) -> Mapping[str, Counts]:
    """Counts by stage, over all stream types."""
    found = {}
    for stage in Stage:
        whole = _NONE
        for buckets in status.latencies.get(stage.value, {}).values():
            whole = _added(whole, buckets)
        found[stage.value] = whole
    return found


def _added(whole: Counts, buckets: Buckets) -> Counts:
    """The sum; other buckets, of a process of another version, are ignored."""
    if len(buckets.counts) != len(_NONE):
        return whole
    return list(map(add, whole, buckets.counts))


def _figures(counts: Sequence[int]) -> dict[str, Any]:
    """Upper bounds in ms of half, nine of ten and 99 of 100 values, by bucket. None where that is
    above the last bound, or nothing was counted."""
    total, seen = sum(counts), 0
    reached: dict[str, float | None] = dict.fromkeys(_SHARES)
    for bound, count in zip(BOUNDS_MS, counts, strict=False):
        seen += count
        for name, share in _SHARES.items():
            if reached[name] is None and total and seen >= share * total:
                reached[name] = bound
    return reached | {"count": total}


def handled_by_group(workers: Iterable[WorkerStatus], now_us: int) -> dict[str, list[float]]:
    """Group → p50 and p99 of its slowest live worker, ms, from the workers' statuses."""
    found: dict[str, list[float]] = {}
    for worker in workers:
        half, most = worker.latency_ms.p50, worker.latency_ms.p99
        if half is None or most is None or now_us - worker.updated_us > SILENT_US:
            continue
        known = found.get(worker.group, [half, most])
        found[worker.group] = [max(known[0], half), max(known[1], most)]
    return found
