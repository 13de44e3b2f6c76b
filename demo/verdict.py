"""Whether a demo worked, and its closing lines (pure).

Judges the last view model of the running system and the end of each part.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bridge.view import figures
from bridge.view.plain import consumer_line
from bridge.view.view_model import State, StreamRow, ViewModel
from demo.plan import CONSUMERS, NEVER_QUIET
from demo.truth import NOTHING, Tally


@dataclass(frozen=True, slots=True)
class Run:
    """The final state: the last view model, if any, the duration, and the tally of the trades."""

    view_model: ViewModel | None
    seconds: float
    tally: Tally = NOTHING


def failures(run: Run) -> list[str]:
    """A sentence for each failure; none where all is well."""
    view_model = run.view_model
    if view_model is None:
        return ["Redis could not be read, so nothing is known of what was published"]
    return [
        *_bridge(view_model),
        *_streams(view_model),
        *_consumers(view_model),
        *_trades(run.tally),
    ]


def _trades(tally: Tally) -> Iterator[str]:
    if tally.lost or tally.doubled:
        yield f"the exchange says {tally.text()}"


def _bridge(view_model: ViewModel) -> Iterator[str]:
    for bridge in view_model.bridges:
        if bridge.state is not State.UP:
            yield f"the bridge was {bridge.state}"
        yield from bridge.troubles
    if not view_model.bridges:
        yield "the bridge never reported its status"
    if view_model.quarantined:
        yield f"{view_model.quarantined} messages were refused: {view_model.newest_quarantined}"


def _streams(view_model: ViewModel) -> Iterator[str]:
    by_kind = _by_kind(view_model.streams)
    for kind in NEVER_QUIET:
        if not sum(stream.entries for stream in by_kind.get(kind, ())):
            yield f"nothing was published to any {kind} stream"
    for stream in view_model.streams:
        if stream.is_failing:
            yield f"{stream.name}: {', '.join(stream.marks)}"


def _consumers(view_model: ViewModel) -> Iterator[str]:
    by_group = {consumer.status.group: consumer for consumer in view_model.consumers}
    for name in CONSUMERS:
        consumer = by_group.get(name)
        if consumer is None:
            yield f"the consumer {name} never reported its status"
        elif consumer.state is State.SILENT:
            yield f"the consumer {name} fell silent"
        elif not consumer.status.handled:
            yield f"the consumer {name} handled nothing"
        elif consumer.status.failed or consumer.status.undecodable:
            bad = consumer.status.failed + consumer.status.undecodable
            yield f"the consumer {name} failed on {bad} entries"


def summary(run: Run) -> Iterator[str]:
    """Entries by type, rates, what each consumer made, latency."""
    view_model = run.view_model
    if view_model is None:
        return
    total = sum(stream.entries for stream in view_model.streams)
    yield f"In {run.seconds:.0f} s: {total:,} entries, {_rate(total, run)} a second"
    yield ""
    yield f"  {'type':<24}{'streams':>8}{'entries':>10}{'per s':>9}{'gaps':>6}"
    for kind, streams in _by_kind(view_model.streams).items():
        entries = sum(stream.entries for stream in streams)
        gaps = sum(stream.status.counters.gaps for stream in streams)
        yield f"  {kind:<24}{len(streams):>8}{entries:>10,}{_rate(entries, run):>9}{gaps:>6}"
    yield ""
    yield f"  quarantined: {view_model.quarantined}"
    yield f"  the exchange says {run.tally.text()}"
    if view_model.receive_ms is not None:
        half, most = map(figures.milliseconds, view_model.receive_ms)
        yield f"  exchange → bridge: {half}, p99 {most}; from there until each consumer is done:"
    for consumer in view_model.consumers:
        yield f"  {consumer_line(consumer)}"


def _rate(entries: int, run: Run) -> str:
    return f"{entries / run.seconds:,.1f}" if run.seconds > 0 else "?"


def _by_kind(streams: Sequence[StreamRow]) -> dict[str, list[StreamRow]]:
    found: dict[str, list[StreamRow]] = {}
    for stream in streams:
        found.setdefault(stream.kind, []).append(stream)
    return found
