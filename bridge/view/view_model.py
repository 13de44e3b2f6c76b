"""Turns polls into what a viewer shows: bridges, streams, consumers, and their states (pure).

Judges which are up, silent, held or in trouble. Knows neither Redis nor the terminal.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bridge.contract.identity import EntryId
from bridge.contract.streams import BadStreamName, StreamType, parse_stream
from bridge.contract.whole_number import whole_number
from bridge.view import figures
from bridge.view.describe import describe_entry
from bridge.view.facts import (
    BridgeStatus,
    Sample,
    StreamFacts,
    StreamStatus,
    WorkerStatus,
)
from bridge.view.fleet import describe_share, receivers
from bridge.view.history import History
from bridge.view.troubles import troubles

SILENT_US = 5_000_000  # age of the last status from which a process is silent


class State(StrEnum):
    """The state of a process, by its last status."""

    UP = "up"
    STOPPED = "stopped"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class BridgeRow:
    """One bridge. `since_us`: its start while up, else its last status. `troubles`: sentences."""

    status: BridgeStatus
    state: State
    since_us: int
    troubles: tuple[str, ...]

    @property
    def is_healthy(self) -> bool:
        return self.state is State.UP and not self.troubles

    @property
    def turn(self) -> str:
        """The bridge's rank where several publish the same streams: `2 of 2, beside a`; empty for a
        single bridge. In a fleet that shares the streams: its member.
        """
        peers = self.status.peers
        if self.state is State.UP and self.status.share is not None:
            return describe_share(self.status.share)
        if self.state is not State.UP or not peers:
            return ""
        return f"{self.status.rank + 1} of {len(peers) + 1}, beside {', '.join(peers)}"


@dataclass(frozen=True, slots=True)
class StreamRow:
    """One stream. `rate` None: unknown yet. `age_us` None: no entry. `text`: the newest entry.

    `marks` are short texts about its problems.
    """

    name: str
    rate: float | None
    entries: int
    age_us: int | None
    text: str
    status: StreamStatus
    marks: tuple[str, ...]
    is_failing: bool
    received_by: tuple[str, ...] = ()  # names of bridges
    is_unavailable: bool = False  # its shard does not answer: its entries are unknown

    @property
    def entries_text(self) -> str:
        """The number of entries ever added, formatted."""
        return "?" if self.is_unavailable else figures.count(self.entries)

    @property
    def age_text(self) -> str:
        """The age of its newest entry, formatted."""
        return "?" if self.is_unavailable else figures.age(self.age_us)

    @property
    def kind(self) -> str:
        """The stream's type as written in configuration, with its window or interval."""
        try:
            stream = parse_stream(self.name)
        except BadStreamName:
            return self.name
        parts = (stream.type.value, stream.window or stream.interval)
        return ".".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class ConsumerRow:
    """One worker process; `name` is `<group>/<consumer>`."""

    name: str
    status: WorkerStatus
    state: State
    age_us: int


@dataclass(frozen=True, slots=True)
class ViewModel:
    """All that a viewer shows. `receive_ms`: latency from exchange to bridge, p50 and p99."""

    now_us: int
    bridges: tuple[BridgeRow, ...]
    streams: tuple[StreamRow, ...]
    consumers: tuple[ConsumerRow, ...]
    quarantined: int
    newest_quarantined: str
    receive_ms: tuple[float, float] | None
    curve: tuple[float, ...]
    unreadable: int
    redis_full: str = ""  # why Redis refuses every write, so that statuses are outdated
    unavailable: Mapping[int, str] = field(default_factory=dict)  # shard → why it does not answer

    @property
    def living(self) -> tuple[BridgeStatus, ...]:
        """The statuses of the bridges that are up."""
        return tuple(each.status for each in self.bridges if each.state is State.UP)

    @property
    def rate(self) -> float | None:
        """Entries per second of all streams; None before the second poll."""
        known = [stream.rate for stream in self.streams if stream.rate is not None]
        return sum(known) if known else None

    @property
    def gaps(self) -> int:
        return sum(stream.status.counters.gaps for stream in self.streams)

    @property
    def recovered(self) -> int:
        return sum(stream.status.counters.recovered for stream in self.streams)

    @property
    def pending(self) -> int:
        return sum(bridge.status.pending for bridge in self.bridges if bridge.state is State.UP)


def draw(history: History) -> ViewModel:
    """The view model of the newest poll, with what takes several polls to compute."""
    sample = history.latest
    rates = history.rates()
    counted = _counted(sample)
    held = _held(history.earlier, sample)
    not_received = _not_received(sample)
    bridges = tuple(_bridge(status, sample.now_us) for status in sample.bridges)
    received_by = receivers([each.status for each in bridges if each.state is State.UP])
    return ViewModel(
        now_us=sample.now_us,
        bridges=bridges,
        streams=tuple(
            _stream(
                name,
                facts,
                sample.now_us,
                rates.get(name),
                counted.get(name, StreamStatus()),
                not_received.get(name, ""),
                tuple(received_by.get(name, ())),
                is_held=name in held,
            )
            for name, facts in sorted(sample.streams.items(), key=lambda item: _order(item[0]))
        ),
        consumers=tuple(_consumer(status, sample.now_us) for status in sample.workers),
        quarantined=sample.quarantine.length,
        newest_quarantined=describe_entry(sample.quarantine.last) if sample.quarantine.last else "",
        receive_ms=history.receive_ms(),
        curve=tuple(history.curve),
        unreadable=sample.unreadable,
        redis_full=sample.redis_full,
        unavailable=sample.unavailable,
    )


def _bridge(status: BridgeStatus, now_us: int) -> BridgeRow:
    if status.stopped_us is not None:
        return BridgeRow(status, State.STOPPED, status.stopped_us, ())
    # Both times are by the clock of Redis: by their own, a bridge with a slow clock would seem
    # silent, and a frozen one with a fast clock would seem up.
    written_us = status.redis_us or status.updated_us
    if now_us - written_us > SILENT_US:
        return BridgeRow(status, State.SILENT, written_us, ())
    return BridgeRow(
        status, State.UP, status.started_us, tuple(each.text for each in troubles(status))
    )


def _consumer(status: WorkerStatus, now_us: int) -> ConsumerRow:
    age_us = max(0, now_us - (status.redis_us or status.updated_us))
    state = State.SILENT if age_us > SILENT_US else State.UP
    return ConsumerRow(f"{status.group}/{status.consumer}", status, state, age_us)


def _stream(
    name: str,
    facts: StreamFacts,
    now_us: int,
    rate: float | None,
    status: StreamStatus,
    not_received: str,
    received_by: tuple[str, ...],
    *,
    is_held: bool,
) -> StreamRow:
    counters = status.counters
    marks = {
        not_received: bool(not_received),
        "its node is unavailable": facts.is_unavailable,
        f"suspended: {status.suspended}": bool(status.suspended),
        f"{counters.gaps} gap{'s' if counters.gaps > 1 else ''}": counters.gaps > 0,
        f"{counters.overflowed} overflowed": counters.overflowed > 0,
        "numbers left out": status.sparse,
        f"{status.pending} held": is_held,
    }
    return StreamRow(
        name=name,
        rate=rate,
        entries=facts.length if facts.added is None else facts.added,
        age_us=_age_us(facts, now_us),
        text=describe_entry(facts.last) if facts.last else "",
        status=status,
        marks=tuple(mark for mark, holds in marks.items() if holds),
        is_failing=bool(not_received or status.suspended or facts.is_unavailable),
        received_by=received_by,
        is_unavailable=facts.is_unavailable,
    )


def _age_us(facts: StreamFacts, now_us: int) -> int | None:
    if facts.last is None:
        return None
    moment_us = whole_number(facts.last.get("received_us", ""))
    if moment_us is None:
        moment_us = EntryId.parse(facts.last_id).ms * 1000
    return max(0, now_us - moment_us)


def _counted(sample: Sample) -> dict[str, StreamStatus]:
    """Each stream's counters, summed over all bridges."""
    whole: dict[str, StreamStatus] = {}
    for bridge in sample.bridges:
        is_up = _bridge(bridge, sample.now_us).state is State.UP
        for name, stream in bridge.streams.items():
            present = stream if is_up else stream.model_copy(update={"pending": 0, "suspended": ""})
            whole[name] = _added(whole[name], present) if name in whole else present
    return whole


def _added(one: StreamStatus, other: StreamStatus) -> StreamStatus:
    newest: dict[str, object] = {
        "counters": one.counters + other.counters,
        "gap_causes": Counter(one.gap_causes) + Counter(other.gap_causes),
        "pending": one.pending + other.pending,
        "sparse": one.sparse or other.sparse,
        "event_us": max(one.event_us, other.event_us),
        "suspended": one.suspended or other.suspended,
    }
    return one.model_copy(update=newest)


def _held(earlier: Sample | None, now: Sample) -> set[str]:
    """Streams with waiting entries, of which none was published between two statuses."""
    if earlier is None:
        return set()
    before = {bridge.instance: bridge for bridge in earlier.bridges}
    return {
        name
        for bridge in now.bridges
        if (old := before.get(bridge.instance)) and old.updated_us < bridge.updated_us
        for name, stream in bridge.streams.items()
        if stream.pending
        and (was := old.streams.get(name))
        and was.pending
        and was.last_id == stream.last_id
    }


def _not_received(sample: Sample) -> Mapping[str, str]:
    """Streams that running bridges do not receive, and why."""
    found: dict[str, str] = {}
    for bridge in sample.bridges:
        if _bridge(bridge, sample.now_us).state is not State.UP:
            continue
        found |= {name: f"not received: {why}" for name, why in bridge.stream_troubles.items()}
        for connection in bridge.connections:
            found |= {name: f"refused: {why}" for name, why in connection.refused.items()}
    return found


_KINDS = {kind: number for number, kind in enumerate(StreamType)}


def _order(name: str) -> tuple[int, str, str, str]:
    """Sort key: type in the contract's order, then window or interval, then market."""
    try:
        stream = parse_stream(name)
    except BadStreamName:
        return len(_KINDS), "", "", name
    return _KINDS[stream.type], stream.window, stream.interval, name
