"""A bridge's metrics, made from its own status: the catalogue and the values (pure).

Counters are by stream type: 550 streams with ten counters each would be 5,500 series. By stream
there are only problems, where they exist; with `metrics.per_stream` everything.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields

from bridge.contract.causes import GapCause
from bridge.contract.latency import BOUNDS_US
from bridge.contract.streams import BadStreamName, parse_stream
from bridge.core.counters import EndCause, OutboxCounters, RestCounters, StreamCounters
from bridge.core.round_trips import ROUND_TRIP_BOUNDS_US
from bridge.metrics.exposition import Family, Histogram, Kind, Metric, Values, metrics_in
from bridge.view.facts import BridgeStatus, StreamStatus
from bridge.view.troubles import Reason, is_published, troubles

US = 1_000_000
BOUNDS_S = tuple(bound / US for bound in BOUNDS_US)

BUILD = Metric("build_info", Kind.GAUGE, "1, with the versions.", ("version", "contract"))
STARTED = Metric("start_timestamp_seconds", Kind.GAUGE, "When the bridge started.")
UNHEALTHY = Metric(
    "unhealthy", Kind.GAUGE, "1: the bridge is unhealthy for this reason.", ("reason",)
)
FRAMES = Metric("frames_total", Kind.COUNTER, "Messages received over all connections.")
CONNECTED = Metric("connection_up", Kind.GAUGE, "1: connected to the exchange.", ("connection",))
ATTEMPTS = Metric(
    "connection_attempts_total",
    Kind.COUNTER,
    "Connection attempts, including the first.",
    ("connection",),
)
ENDS = Metric(
    "connections_ended_total", Kind.COUNTER, "Connections that ended or failed, by cause.",
    ("cause",),
)  # fmt: skip
LAST_FRAME = Metric(
    "last_frame_timestamp_seconds", Kind.GAUGE, "When the last frame was received.", ("connection",)
)
ENTRIES = Metric("entries_total", Kind.COUNTER, "Messages by result.", ("type", "result"))
GAPS = Metric(
    "gaps_total", Kind.COUNTER, "Gap entries written, except those of a stream's start.", ("type",)
)
GAPS_BY_CAUSE = Metric(
    "gaps_by_cause_total", Kind.COUNTER, "The same gaps by cause, over all types.", ("cause",)
)
RECOVERED = Metric("recovered_total", Kind.COUNTER, "Gaps closed over REST.", ("type",))
SNAPSHOTS = Metric("snapshots_total", Kind.COUNTER, "Book and account snapshots.", ("type",))
MISPLACED = Metric(
    "misplaced_snapshots_total", Kind.COUNTER, "Book snapshots that were retried.", ("type",)
)
QUARANTINED = Metric("quarantined_total", Kind.COUNTER, "Messages refused.")
UNKNOWN_FIELDS = Metric(
    "unknown_fields_total", Kind.COUNTER, "Messages with fields that the contract does not name."
)
UNKNOWN_EVENTS = Metric(
    "unknown_events_total", Kind.COUNTER, "Account events that the contract does not name."
)
UNWANTED = Metric(
    "unwanted_total", Kind.COUNTER, "Messages of streams that are no longer subscribed."
)
STREAMS = Metric("streams", Kind.GAUGE, "Streams by state; one may be in several.", ("state",))
LAST_EVENT = Metric(
    "last_event_timestamp_seconds", Kind.GAUGE, "Exchange time of the newest message.", ("type",)
)
STREAM_TROUBLE = Metric(
    "stream_trouble", Kind.GAUGE, "1: not received, or suspended. Absent otherwise.", ("stream",)
)
STREAM_PENDING = Metric(
    "stream_pending_entries",
    Kind.GAUGE,
    "Waiting entries. Absent where there are none.",
    ("stream",),
)
STREAM_LAST_EVENT = Metric(
    "stream_last_event_timestamp_seconds", Kind.GAUGE, "With metrics.per_stream.", ("stream",)
)
STREAM_ENTRIES = Metric(
    "stream_entries_total", Kind.COUNTER, "With metrics.per_stream.", ("stream", "result")
)
PENDING = Metric("pending_entries", Kind.GAUGE, "Entries that wait for Redis.")
PENDING_BYTES = Metric("pending_bytes", Kind.GAUGE, "Memory of the pending entries.")
BUFFER_BYTES = Metric("buffer_bytes", Kind.GAUGE, "Limit of that memory: publish.buffer_bytes.")
REDIS_UP = Metric(
    "redis_up", Kind.GAUGE, "1: Redis accepts writes, on at least one of several shards."
)
SHARD_UP = Metric(
    "redis_shard_up",
    Kind.GAUGE,
    "1: this shard accepts writes. Only with several shards.",
    ("shard",),
)
ACKNOWLEDGED = Metric(
    "redis_acknowledged_timestamp_seconds", Kind.GAUGE, "When Redis last acknowledged an entry."
)
BATCHES = Metric("batches_total", Kind.COUNTER, "Calls of the append script.")
REDIS_ERRORS = Metric("redis_errors_total", Kind.COUNTER, "Errors of Redis, by kind.", ("kind",))
ROUND_TRIP = Metric(
    "redis_round_trip_seconds", Kind.HISTOGRAM, "From a request to Redis to its reply."
)
LATENCY = Metric(
    "latency_seconds", Kind.HISTOGRAM, "Latency of messages, by stage.", ("stage", "type")
)
JOURNAL_UP = Metric("journal_up", Kind.GAUGE, "1: the journal can be written.")
JOURNAL_BYTES = Metric("journal_bytes", Kind.GAUGE, "Size of the journal on disk.")
JOURNAL_MAX = Metric("journal_max_bytes", Kind.GAUGE, "Limit of that size.")
JOURNAL_BEHIND = Metric(
    "journal_behind_bytes", Kind.GAUGE, "Bytes of the journal not read into the queues yet."
)
CHECKPOINT = Metric(
    "journal_checkpoint_timestamp_seconds", Kind.GAUGE, "When the last checkpoint was written."
)
REST_REQUESTS = Metric(
    "rest_requests_total", Kind.COUNTER, "REST requests, by result.", ("result",)
)
CLOCK_OFFSET = Metric(
    "clock_offset_seconds", Kind.GAUGE, "How far the exchange's clock is ahead of this machine's."
)
PEERS = Metric("peers", Kind.GAUGE, "Other live bridges on the same streams.")
RANK = Metric("rank", Kind.GAUGE, "Number of live bridges ranked before this one.")
OPEN_OUTAGES = Metric("open_outages", Kind.GAUGE, "Streams whose last outage is not settled.")
SHARE_KEPT = Metric(
    "share_kept_streams", Kind.GAUGE, "Streams kept for another member. Only in a fleet."
)
SHARE_UNRECEIVED = Metric(
    "share_unreceived_streams",
    Kind.GAUGE,
    "Streams of other members that none receives. Only in a fleet.",
)

CATALOGUE = metrics_in(globals())  # all metrics above

# Each counter of a stream, and its one metric; a test fails where one is missing.
OF_ENTRIES = ("received", "published", "duplicates", "repeated", "late", "overflowed")
ALONE: Mapping[str, Metric] = {
    "gaps": GAPS,
    "recovered": RECOVERED,
    "snapshots": SNAPSHOTS,
    "misplaced_snapshots": MISPLACED,
}
OWN = "bridge"  # the type of the bridge's own streams, in labels


def families(status: BridgeStatus, *, per_stream: bool) -> Iterator[Family]:
    """One family for each row of the catalogue that has values."""
    yield Family(BUILD, {(status.version, str(status.contract)): 1})
    yield _one(STARTED, status.started_us / US)
    reasons = {trouble.reason for trouble in troubles(status)}
    yield Family(UNHEALTHY, {(reason.value,): float(reason in reasons) for reason in Reason})
    yield from _received(status)
    yield from _by_type(status.streams)
    yield from _streams(status)
    yield from _by_stream(status.streams, per_stream=per_stream)
    yield from _published(status)
    yield from _journal(status)
    yield from _beside(status)


def _one(metric: Metric, value: float) -> Family:
    return Family(metric, {(): value})


def _received(status: BridgeStatus) -> Iterator[Family]:
    counters, connections = status.counters, status.connections
    yield _one(FRAMES, counters.frames)
    yield Family(CONNECTED, {(each.name,): float(each.connected) for each in connections})
    yield Family(ATTEMPTS, {(each.name,): each.attempts for each in connections})
    yield Family(ENDS, {(cause.value,): status.ends.get(cause.value, 0) for cause in EndCause})
    times = {(each.name,): each.received_us / US for each in connections if each.received_us}
    yield Family(LAST_FRAME, times)
    yield _one(QUARANTINED, counters.quarantined)
    yield _one(UNKNOWN_FIELDS, counters.unknown_fields)
    yield _one(UNKNOWN_EVENTS, sum(status.unknown_events.values()))
    yield _one(UNWANTED, counters.unwanted)


def _by_type(streams: Mapping[str, StreamStatus]) -> Iterator[Family]:
    sums: dict[str, StreamCounters] = {}
    newest_us: dict[str, int] = {}
    for name, stream in streams.items():
        kind = kind_of(name)
        sums[kind] = sums.get(kind, StreamCounters()) + stream.counters
        newest_us[kind] = max(newest_us.get(kind, 0), stream.event_us)
    numbers = {kind: asdict(counters) for kind, counters in sums.items()}
    yield Family(
        ENTRIES, {(kind, name): each[name] for kind, each in numbers.items() for name in OF_ENTRIES}
    )
    for name, metric in ALONE.items():
        yield Family(metric, {(kind,): each[name] for kind, each in numbers.items()})
    yield Family(GAPS_BY_CAUSE, _gaps_by_cause(streams.values()))
    yield Family(LAST_EVENT, {(kind,): us / US for kind, us in newest_us.items() if us})


def _gaps_by_cause(streams: Iterable[StreamStatus]) -> Values:
    """Gaps by cause, all causes from the start, so that the first gap shows as an increase."""
    sums = sum((Counter(each.gap_causes) for each in streams), Counter[str]())
    return {(cause.value,): sums[cause.value] for cause in GapCause if cause is not GapCause.START}


def kind_of(name: str) -> str:
    """A stream's type for a label: of the contract, or `bridge`."""
    try:
        return parse_stream(name).type.value
    except BadStreamName:
        return OWN


def _streams(status: BridgeStatus) -> Iterator[Family]:
    connections, troubled = status.connections, status.stream_troubles
    refused = {name for each in connections for name in each.refused}
    stale = {name for each in connections for name in each.stale}
    states = {
        "wanted": sum(each.wanted for each in connections),
        "confirmed": sum(each.confirmed for each in connections),
        "pending": sum(len(each.pending) for each in connections),
        "refused": len(refused),
        "stale": len(stale),
        "not_received": len(troubled),
        "suspended": sum(bool(each.suspended) for each in status.streams.values()),
        "sparse": sum(each.sparse for each in status.streams.values()),
    }
    yield Family(STREAMS, {(state,): count for state, count in states.items()})
    suspended = {name for name, each in status.streams.items() if each.suspended}
    wrong: Values = dict.fromkeys(((name,) for name in sorted({*troubled, *suspended})), 1.0)
    yield Family(STREAM_TROUBLE, wrong)


def _by_stream(streams: Mapping[str, StreamStatus], *, per_stream: bool) -> Iterator[Family]:
    pending = {(name,): each.pending for name, each in streams.items() if each.pending}
    yield Family(STREAM_PENDING, pending)
    if per_stream:
        times = {(name,): each.event_us / US for name, each in streams.items() if each.event_us}
        yield Family(STREAM_LAST_EVENT, times)
        names = [each.name for each in fields(StreamCounters)]
        yield Family(
            STREAM_ENTRIES,
            {
                (stream, name): getattr(each.counters, name)
                for stream, each in streams.items()
                for name in names
            },
        )


def _published(status: BridgeStatus) -> Iterator[Family]:
    yield _one(PENDING, status.pending)
    yield _one(PENDING_BYTES, status.pending_bytes)
    yield _one(BUFFER_BYTES, status.buffer_bytes)
    yield _one(REDIS_UP, float(is_published(status)))
    yield Family(SHARD_UP, {(str(one.shard),): float(not one.trouble) for one in status.shards})
    if status.acknowledged_us:
        yield _one(ACKNOWLEDGED, status.acknowledged_us / US)
    yield _one(BATCHES, status.outbox.batches)
    yield Family(REDIS_ERRORS, _without(status.outbox, "batches"))
    if (trips := status.round_trips).counts:
        bounds = tuple(bound / US for bound in ROUND_TRIP_BOUNDS_US)
        yield Family(ROUND_TRIP, {(): Histogram(bounds, trips.counts, trips.sum_us / US)})
    yield Family(
        LATENCY,
        {
            (stage, kind): Histogram(BOUNDS_S, each.counts, each.sum_us / US)
            for stage, kinds in status.latencies.items()
            for kind, each in kinds.items()
        },
    )


def _without(counters: OutboxCounters | RestCounters, *names: str) -> Values:
    """The remaining counters, by name."""
    return {(name,): number for name, number in asdict(counters).items() if name not in names}


def _journal(status: BridgeStatus) -> Iterator[Family]:
    if not status.journal_max_bytes:
        return  # no journal
    yield _one(JOURNAL_UP, float(not status.journal_trouble))
    yield _one(JOURNAL_BYTES, status.journal_bytes)
    yield _one(JOURNAL_MAX, status.journal_max_bytes)
    yield _one(JOURNAL_BEHIND, status.behind_bytes)
    if status.checkpoint_us:
        yield _one(CHECKPOINT, status.checkpoint_us / US)


def _beside(status: BridgeStatus) -> Iterator[Family]:
    yield Family(REST_REQUESTS, _rest(status.rest))
    if status.clock_offset_us is not None:
        yield _one(CLOCK_OFFSET, status.clock_offset_us / US)
    yield _one(PEERS, len(status.peers))
    yield _one(RANK, status.rank)
    yield _one(OPEN_OUTAGES, len(status.open_outages))
    if status.share is not None:
        yield _one(SHARE_KEPT, status.share.kept)
        yield _one(SHARE_UNRECEIVED, status.share.unreceived)


def _rest(counters: RestCounters) -> Values:
    """Requests by outcome, each counted once."""
    bad = counters.failed + counters.refused
    return {
        ("answered",): counters.requests - bad,
        ("failed",): counters.failed - counters.too_often,
        ("refused",): counters.refused,
        ("too_often",): counters.too_often,
    }
