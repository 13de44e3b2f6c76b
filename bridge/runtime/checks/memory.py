"""Estimates how much memory Redis needs, from the retention. An estimate, not a limit."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bridge.contract.events import DepthSnapshot
from bridge.contract.stream_types import OWN_STREAMS, STREAM_SPECS
from bridge.contract.streams import parse_stream
from bridge.runtime.config import Config

BYTES_PER_ENTRY: Mapping[str, int] = {
    **{kind.value: spec.bytes_per_entry for kind, spec in STREAM_SPECS.items()},
    **{own.name: own.bytes_per_entry for own in OWN_STREAMS},
}
STREAM_FLOOR_BYTES = 5 * 1024  # Redis allocates a stream's first node whole
_WITH_BOOKS = {kind for kind, spec in STREAM_SPECS.items() if spec.snapshot is DepthSnapshot}
SNAPSHOT_LEVEL_BYTES = 26  # a level of a depth_snapshot, written as JSON


@dataclass(frozen=True, slots=True)
class Need:
    """Memory of all streams of one type; `total_bytes` is None where retention sets no maximum."""

    kind: str
    streams: int
    max_entries: int | None
    max_age_s: int | None
    total_bytes: int | None


def memory_needs(config: Config, names: Iterable[str]) -> list[Need]:
    """One `Need` for each stream type in use, then those of the bridge's own streams."""
    counts = Counter(parse_stream(name).type.value for name in names)
    counts |= Counter(own.name for own in OWN_STREAMS)
    return [_need(kind, count, config) for kind, count in counts.items()]


def total_bytes(needs: list[Need]) -> int:
    """Sum over the types that have a limit, in bytes."""
    return sum(need.total_bytes or 0 for need in needs)


def _need(kind: str, streams: int, config: Config) -> Need:
    keep = config.keep(kind)
    if keep.max_entries is None:
        return Need(kind, streams, None, keep.max_age_s, None)
    each = keep.max_entries * BYTES_PER_ENTRY[kind] + STREAM_FLOOR_BYTES
    if kind in _WITH_BOOKS and config.snapshots.depth_every_updates:
        snapshots = keep.max_entries // config.snapshots.depth_every_updates + 1
        each += snapshots * config.snapshots.depth_levels * 2 * SNAPSHOT_LEVEL_BYTES
    return Need(kind, streams, keep.max_entries, keep.max_age_s, each * streams)
