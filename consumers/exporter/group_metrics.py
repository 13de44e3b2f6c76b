"""The exporter's catalogue of metrics, and their values in one snapshot of Redis (pure).

Sums and maxima per group: per stream, a hundred streams in ten groups would make thousands of
series. Per stream only blocked ones; lag per stream only with `--per-stream`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bridge.contract.latency import BOUNDS_US
from bridge.metrics.exposition import Family, Histogram, Kind, Metric, metrics_in
from consumers.kit.lag import GroupLag, Took
from consumers.kit.redis.registry import FIRST_SHARD

REDIS_UP = Metric("exporter_redis_up", Kind.GAUGE, "1: the exporter could read Redis just now.")
SHARD_UP = Metric(
    "exporter_shard_up", Kind.GAUGE,
    "1: the exporter could read this shard just now, else its streams count nowhere, and without "
    "shard 0 no workers and bridges. Only where there are several.",
    ("shard",),
)  # fmt: skip
MEMORY_USED = Metric(
    "redis_memory_used_bytes", Kind.GAUGE, "Memory of Redis; of several shards the fullest node."
)
MEMORY_MAX = Metric("redis_memory_max_bytes", Kind.GAUGE, "maxmemory, where it is set.")
LAST_STATUS = Metric(
    "bridge_last_status_timestamp_seconds",
    Kind.GAUGE,
    "When a bridge that was not stopped last wrote its status, by the clock of Redis.",
    ("bridge",),
)
LAG = Metric("group_lag_entries", Kind.GAUGE, "Entries not read yet.", ("group",))
BEHIND = Metric(
    "group_behind_seconds", Kind.GAUGE, "Age of the oldest entry not read yet.", ("group",)
)
PENDING = Metric(
    "group_pending_entries", Kind.GAUGE, "Entries delivered and not settled.", ("group",)
)
OLDEST = Metric(
    "group_oldest_pending_seconds", Kind.GAUGE, "Age of the oldest pending entry.", ("group",)
)
DEAD = Metric("group_dead_letters", Kind.GAUGE, "Dead letters that wait for a person.", ("group",))
MISSED = Metric(
    "group_missed_total", Kind.COUNTER, "Entries trimmed before they were read.", ("group",)
)
WORKERS = Metric("group_workers", Kind.GAUGE, "Workers that are alive.", ("group",))
RATE = Metric(
    "group_handled_per_second", Kind.GAUGE, "Entries per second of all live workers.", ("group",)
)
HANDLED = Metric(
    "group_handled_seconds", Kind.HISTOGRAM,
    "From receipt of a message by the bridge to its being handled, since the exporter started.",
    ("group",),
)  # fmt: skip
OWNED = Metric(
    "group_streams", Kind.GAUGE, "Streams of an ordered group with and without an owner.",
    ("group", "state"),
)  # fmt: skip
BLOCKED = Metric(
    "group_blocked", Kind.GAUGE, "1: an entry fails and holds up its stream.", ("group", "stream")
)
STREAM_LAG = Metric(
    "group_stream_lag_entries", Kind.GAUGE, "With --per-stream.", ("group", "stream")
)
STREAM_BEHIND = Metric(
    "group_stream_behind_seconds", Kind.GAUGE, "With --per-stream.", ("group", "stream")
)

CATALOGUE = metrics_in(globals())  # all metrics above


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot of Redis. `bridges`: name → time of its last status, µs since 1970. `shards`:
    shard → whether it answered, if there are several; without the first one bridges and workers are
    unknown.
    """

    groups: Sequence[GroupLag] = ()
    bridges: Mapping[str, int] = field(default_factory=dict)
    memory_used: int = 0
    memory_max: int = 0
    handled: Mapping[str, Took] = field(default_factory=dict)
    shards: Mapping[int, bool] = field(default_factory=dict)

    @property
    def knows_workers(self) -> bool:
        return self.shards.get(FIRST_SHARD, True)


class HandledSums:
    """Latencies of groups, summed over their workers across restarts: a worker's own counts start
    at zero with it, and end with it.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Took] = {}
        # None: before the first snapshot. Of workers in this snapshot or the one before.
        self._known: dict[tuple[str, str, int], Took] | None = None
        self._present: set[tuple[str, str, int]] = set()  # workers in the last snapshot

    def take(self, groups: Iterable[GroupLag]) -> Mapping[str, Took]:
        """Add the increase since the last snapshot; the first one only sets the base. Returns the
        sums."""
        now = {
            (group.name, worker.name, worker.started_us): worker.took
            for group in groups
            for worker in group.workers
            if worker.took.counts
        }
        known = self._known
        for worker, took in list(now.items()):
            before = took if known is None else known.get(worker, _NONE)
            counts = [a - b for a, b in zip(took.counts, before.counts, strict=True)]
            if min(counts) < 0:  # an older status, of a replica that lags: counters never fall
                now[worker] = before
                counts = list(_NONE.counts)
            self._add(worker[0], Took(counts, now[worker].sum_us - before.sum_us))
        # A status is missing for a moment after Redis was emptied: its counts are no new ones.
        absent = {} if known is None else {one: known[one] for one in known.keys() - now.keys()}
        self._known = {one: took for one, took in absent.items() if one in self._present} | now
        self._present = set(now)
        return self.sums

    @property
    def sums(self) -> Mapping[str, Took]:
        """Group → latencies, as of the last snapshot."""
        return dict(self._sums)

    def _add(self, group: str, new: Took) -> None:
        old = self._sums.get(group, _NONE)
        counts = [a + b for a, b in zip(old.counts, new.counts, strict=True)]
        self._sums[group] = Took(counts, old.sum_us + new.sum_us)


_NONE = Took([0] * (len(BOUNDS_US) + 1))
_BOUNDS_S = tuple(bound / 1e6 for bound in BOUNDS_US)


def families(snapshot: Snapshot | None, *, per_stream: bool) -> Iterator[Family]:
    """The metric families with values. `snapshot` is None if Redis could not be read."""
    yield Family(REDIS_UP, {(): float(snapshot is not None)})
    if snapshot is None:
        return
    yield Family(SHARD_UP, {(str(shard),): float(up) for shard, up in snapshot.shards.items()})
    yield Family(MEMORY_USED, {(): snapshot.memory_used})
    if snapshot.memory_max:
        yield Family(MEMORY_MAX, {(): snapshot.memory_max})
    yield Family(LAST_STATUS, {(name,): us / 1e6 for name, us in snapshot.bridges.items()})
    yield from _groups(snapshot.groups)
    if snapshot.knows_workers:
        yield from _workers(snapshot.groups)
    yield Family(
        HANDLED,
        {
            (group,): Histogram(_BOUNDS_S, took.counts, took.sum_us / 1e6)
            for group, took in snapshot.handled.items()
        },
    )
    yield from _by_stream(snapshot.groups, per_stream=per_stream)


def _groups(groups: Sequence[GroupLag]) -> Iterator[Family]:
    yield _each(LAG, groups, lambda one: sum(each.lag for each in one.streams))
    yield _each(BEHIND, groups, lambda one: _most(each.behind_s for each in one.streams))
    yield _each(PENDING, groups, lambda one: sum(each.pending for each in one.streams))
    yield _each(OLDEST, groups, lambda one: _most(each.oldest_pending_s for each in one.streams))
    ours = [one for one in groups if one.mode]  # groups of other programs have no such data
    yield _each(DEAD, ours, lambda one: sum(each.dead for each in one.streams))
    yield _each(MISSED, ours, lambda one: sum(each.missed for each in one.streams))
    ordered = [one for one in ours if one.mode == "ordered"]
    counts = {
        (one.name, state): sum(bool(each.owner) is is_owned for each in one.streams)
        for one in ordered
        for state, is_owned in (("owned", True), ("unowned", False))
    }
    yield Family(OWNED, counts)


def _workers(groups: Sequence[GroupLag]) -> Iterator[Family]:
    ours = [one for one in groups if one.mode]
    yield _each(WORKERS, ours, lambda one: sum(each.is_alive for each in one.workers))
    yield _each(RATE, ours, lambda one: sum(each.rate for each in one.workers if each.is_alive))


def _by_stream(groups: Iterable[GroupLag], *, per_stream: bool) -> Iterator[Family]:
    streams = {(one.name, each.stream): each for one in groups for each in one.streams}
    yield Family(BLOCKED, {where: 1.0 for where, each in streams.items() if each.blocked_at})
    if per_stream:
        yield Family(STREAM_LAG, {where: each.lag for where, each in streams.items()})
        yield Family(STREAM_BEHIND, {where: each.behind_s for where, each in streams.items()})


def _each(metric: Metric, groups: Iterable[GroupLag], value: Callable[[GroupLag], float]) -> Family:
    return Family(metric, {(one.name,): value(one) for one in groups})


def _most(values: Iterable[float]) -> float:
    return max(values, default=0.0)
