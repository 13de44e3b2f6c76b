"""From looks to what a viewer shows: bridges, streams, consumers, and how they are (pure).

Judges what is alive, silent, held or in trouble. Knows neither Redis nor the terminal.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from bridge.contract.identity import EntryId
from bridge.contract.streams import BadStreamName, StreamType, parse_stream
from bridge.runtime.skew import SKEWED_MS, skew_words
from bridge.watch.facts import (
    BridgeStatus,
    ConnectionStatus,
    LineStatus,
    Sample,
    StreamFacts,
    WorkerStatus,
)
from bridge.watch.history import History
from bridge.watch.words import entry_words

TWINS = ("a", "b", "c")  # how connections of the same streams are told apart
SKEWED_US = SKEWED_MS * 1000
MOST_TOLD = 5  # streams that are named one by one
SILENT_US = 5_000_000  # a status older than this: nobody is there any more


class State(StrEnum):
    """How a process looks from its last words."""

    UP = "up"
    STOPPED = "stopped"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class BridgeRow:
    """One bridge. `since_us`: start while up, last word otherwise. `troubles`: a sentence each."""

    status: BridgeStatus
    state: State
    since_us: int
    troubles: tuple[str, ...]

    @property
    def is_healthy(self) -> bool:
        return self.state is State.UP and not self.troubles

    @property
    def turn(self) -> str:
        """Whose turn it is, where several publish the same: `2 of 2, beside a`; alone: empty."""
        peers = self.status.peers
        if self.state is not State.UP or not peers:
            return ""
        return f"{self.status.rank + 1} of {len(peers) + 1}, beside {', '.join(peers)}"


@dataclass(frozen=True, slots=True)
class StreamRow:
    """One stream. `rate` None: not known yet. `age_us` None: never an entry. `words`: the newest.

    `marks` says in a word or two each what a person should look at.
    """

    name: str
    rate: float | None
    entries: int
    age_us: int | None
    words: str
    counted: LineStatus
    marks: tuple[str, ...]
    failed: bool

    @property
    def kind(self) -> str:
        """The stream's type, as configuration groups them: with its window or interval."""
        try:
            stream = parse_stream(self.name)
        except BadStreamName:
            return self.name
        parts = (stream.type.value, stream.window or stream.interval)
        return ".".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class ConsumerRow:
    """One worker process, `name` as `<group>/<consumer>`."""

    name: str
    status: WorkerStatus
    state: State
    age_us: int


@dataclass(frozen=True, slots=True)
class Picture:
    """All that a viewer shows. `hearing_ms`: exchange to bridge, p50 and p99."""

    now_us: int
    bridges: tuple[BridgeRow, ...]
    streams: tuple[StreamRow, ...]
    consumers: tuple[ConsumerRow, ...]
    quarantined: int
    quarantine_words: str
    hearing_ms: tuple[float, float] | None
    curve: tuple[float, ...]
    unreadable: int

    @property
    def rate(self) -> float | None:
        """Entries per second of all streams; None before the second look."""
        known = [stream.rate for stream in self.streams if stream.rate is not None]
        return sum(known) if known else None

    @property
    def gaps(self) -> int:
        return sum(stream.counted.gaps for stream in self.streams)

    @property
    def repaired(self) -> int:
        return sum(stream.counted.repaired for stream in self.streams)

    @property
    def pending(self) -> int:
        return sum(bridge.status.pending for bridge in self.bridges if bridge.state is State.UP)


def draw(history: History) -> Picture:
    """The picture of the newest look, with what only several looks can tell."""
    sample = history.latest
    rates = history.rates()
    lines = _lines(sample)
    held = _held(history.earlier, sample)
    unheard = _unheard(sample)
    return Picture(
        now_us=sample.now_us,
        bridges=tuple(_bridge(status, sample.now_us) for status in sample.bridges),
        streams=tuple(
            _stream(
                name,
                facts,
                sample.now_us,
                rates.get(name),
                lines.get(name, LineStatus()),
                unheard.get(name, ""),
                is_held=name in held,
            )
            for name, facts in sorted(sample.streams.items(), key=lambda item: _order(item[0]))
        ),
        consumers=tuple(_consumer(status, sample.now_us) for status in sample.workers),
        quarantined=sample.quarantine.length,
        quarantine_words=entry_words(sample.quarantine.last) if sample.quarantine.last else "",
        hearing_ms=history.hearing_ms(),
        curve=tuple(history.curve),
        unreadable=sample.unreadable,
    )


def _bridge(status: BridgeStatus, now_us: int) -> BridgeRow:
    if status.stopped_us is not None:
        return BridgeRow(status, State.STOPPED, status.stopped_us, ())
    if now_us - status.updated_us > SILENT_US:
        return BridgeRow(status, State.SILENT, status.updated_us, ())
    return BridgeRow(status, State.UP, status.started_us, tuple(_troubles(status)))


def _troubles(status: BridgeStatus) -> list[str]:
    troubles = [
        f"{connection.name} is not connected to the exchange: {connection.trouble or 'waiting'}"
        for connection in status.connections
        if not connection.connected and not _has_a_twin(connection, status)
    ]
    told = list(status.stream_troubles.items())
    troubles += [f"{name} is not heard: {reason}" for name, reason in told[:MOST_TOLD]]
    if len(told) > MOST_TOLD:
        troubles.append(f"{len(told) - MOST_TOLD} more streams are not heard")
    if status.clock_offset_us is not None and abs(status.clock_offset_us) >= SKEWED_US:
        troubles.append(skew_words(status.clock_offset_us / 1000))
    if status.redis_trouble:
        troubles.append(f"publishing waits: {status.redis_trouble}")
    if status.journal_trouble:
        troubles.append(f"the journal: {status.journal_trouble}")
    if status.behind_bytes:
        troubles.append(f"catching up: {status.behind_bytes:,} bytes of the journal to publish")
    for name, line in status.streams.items():
        if line.failed:
            troubles.append(f"{name} cannot be written: {line.failed}")
    return troubles


def _has_a_twin(connection: ConnectionStatus, status: BridgeStatus) -> bool:
    """Does another connection hear the same streams just now?"""
    name, _, letter = connection.name.rpartition("-")
    return letter in TWINS and any(
        twin.connected and twin.name.rpartition("-")[0] == name for twin in status.connections
    )


def _consumer(status: WorkerStatus, now_us: int) -> ConsumerRow:
    age_us = max(0, now_us - status.updated_us)
    state = State.SILENT if age_us > SILENT_US else State.UP
    return ConsumerRow(f"{status.group}/{status.consumer}", status, state, age_us)


def _stream(
    name: str,
    facts: StreamFacts,
    now_us: int,
    rate: float | None,
    counted: LineStatus,
    unheard: str,
    *,
    is_held: bool,
) -> StreamRow:
    marks = {
        unheard: bool(unheard),
        f"failed: {counted.failed}": bool(counted.failed),
        f"{counted.gaps} gap{'s' if counted.gaps > 1 else ''}": counted.gaps > 0,
        f"{counted.overflowed} given up": counted.overflowed > 0,
        "numbers left out": counted.sparse,
        f"{counted.pending} held": is_held,
    }
    return StreamRow(
        name=name,
        rate=rate,
        entries=facts.length if facts.added is None else facts.added,
        age_us=_age_us(facts, now_us),
        words=entry_words(facts.last) if facts.last else "",
        counted=counted,
        marks=tuple(mark for mark, holds in marks.items() if holds),
        failed=bool(unheard or counted.failed),
    )


def _age_us(facts: StreamFacts, now_us: int) -> int | None:
    if facts.last is None:
        return None
    heard = facts.last.get("received_us", "")
    moment_us = int(heard) if heard.isdecimal() else EntryId.parse(facts.last_id).ms * 1000
    return max(0, now_us - moment_us)


def _lines(sample: Sample) -> dict[str, LineStatus]:
    """Each stream's counters, over all bridges that are there."""
    whole: dict[str, LineStatus] = {}
    for bridge in sample.bridges:
        is_up = _bridge(bridge, sample.now_us).state is State.UP
        for name, line in bridge.streams.items():
            present = line if is_up else line.model_copy(update={"pending": 0, "failed": ""})
            whole[name] = _added(whole[name], present) if name in whole else present
    return whole


def _added(one: LineStatus, other: LineStatus) -> LineStatus:
    numbers = (
        "published",
        "duplicates",
        "doubles",
        "late",
        "gaps",
        "repaired",
        "snapshots",
        "overflowed",
        "pending",
    )
    sums = {name: getattr(one, name) + getattr(other, name) for name in numbers}
    newest: dict[str, object] = {"sparse": one.sparse or other.sparse}
    newest |= {"event_us": max(one.event_us, other.event_us), "failed": one.failed or other.failed}
    return one.model_copy(update=sums | newest)


def _held(earlier: Sample | None, now: Sample) -> set[str]:
    """Streams in which entries wait and none went out between two words of their bridge."""
    if earlier is None:
        return set()
    before = {bridge.instance: bridge for bridge in earlier.bridges}
    return {
        name
        for bridge in now.bridges
        if (old := before.get(bridge.instance)) and old.updated_us < bridge.updated_us
        for name, line in bridge.streams.items()
        if line.pending
        and (was := old.streams.get(name))
        and was.pending
        and was.last_id == line.last_id
    }


def _unheard(sample: Sample) -> Mapping[str, str]:
    """Streams that the bridges that are up cannot hear, and why."""
    unheard: dict[str, str] = {}
    for bridge in sample.bridges:
        if _bridge(bridge, sample.now_us).state is not State.UP:
            continue
        unheard |= {name: f"not heard: {why}" for name, why in bridge.stream_troubles.items()}
        for connection in bridge.connections:
            unheard |= {name: f"refused: {why}" for name, why in connection.refused.items()}
    return unheard


_KINDS = {kind: number for number, kind in enumerate(StreamType)}


def _order(name: str) -> tuple[int, str, str, str]:
    """By type as the contract lists them, then window or interval, then market."""
    try:
        stream = parse_stream(name)
    except BadStreamName:
        return len(_KINDS), "", "", name
    return _KINDS[stream.type], stream.window, stream.interval, name
