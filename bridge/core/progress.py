"""The progress of a bridge in its streams, for its peers and its next process (pure)."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from bridge.core.core import Core
from bridge.core.peers import BEHIND_US


@dataclass(frozen=True, slots=True)
class Progress:
    """`received`, `unsettled`, `held` and `oldest_us` of a `PeerStatus`; `settled`: up to when (µs,
    the exchange's clock) everything of each content stream is in Redis.
    """

    received: Mapping[str, int] = field(default_factory=dict)
    unsettled: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)
    oldest_us: int = 0
    settled: Mapping[str, int] = field(default_factory=dict)


def progress(cores: Iterable[Core], *, is_behind: bool) -> Progress:
    """The progress of all cores of a bridge; `is_behind`: unknown, the journal is still read."""
    each = list(cores)
    held = _held(each)
    if is_behind:
        return Progress(held=held, oldest_us=BEHIND_US)
    received, unsettled = _received(each)
    return Progress(received, unsettled, held, _oldest_us(each), _settled(each))


def open_outages(cores: Iterable[Core], to_receive: Collection[str]) -> list[str]:
    """Streams of which a peer may have what this bridge missed: their outage is not settled or, in
    streams that this bridge is to receive (`to_receive`), not over.
    """
    names = []
    for core in cores:
        received = core.coverage.names_received()
        for name, queue in core.queues.items():
            is_missed = name in to_receive and name not in received and core.peers.is_received(name)
            if is_missed or queue.outage_until_us() is not None:
                names.append(name)
    return names


def _received(cores: Iterable[Core]) -> tuple[dict[str, int], dict[str, int]]:
    """Stream → up to when it is received; and stream with an unsettled outage → since when it is
    received after that.
    """
    received: dict[str, int] = {}
    unsettled: dict[str, int] = {}
    for core in cores:
        for name, us in core.coverage.covered_until_us().items():
            queue = core.queues.get(name)
            since_us = queue.outage_until_us() if queue is not None else None
            if since_us is None:
                received[name] = us
            else:
                unsettled[name] = since_us
    return received, unsettled


def _held(cores: Iterable[Core]) -> dict[str, int]:
    """Waiting sequenced stream → the number that its head needs before it."""
    return {
        name: after
        for core in cores
        for name, queue in core.queues.items()
        if (after := queue.waits_after()) is not None
    }


def _oldest_us(cores: Iterable[Core]) -> int:
    """The exchange's time of the oldest sequenced message that is not settled; 0: none."""
    oldest = []
    for core in cores:
        for name, queue in core.queues.items():
            if core.is_detached(name):
                return BEHIND_US
            if (us := queue.oldest_waiting_us()) is not None:
                oldest.append(us)
    return min(oldest, default=0)


def _settled(cores: Iterable[Core]) -> dict[str, int]:
    settled = {}
    for core in cores:
        for name, received_us in core.coverage.certain_until_us().items():
            queue = core.queues.get(name)
            if queue is None or core.is_detached(name):
                continue
            until_us = queue.settled_until_us(received_us)
            # Nothing is complete before the stream was first received; a watermark there would make
            # the next process mark the time until then as an outage.
            if until_us and until_us >= core.coverage.first_us(name):
                settled[name] = until_us
    return settled
