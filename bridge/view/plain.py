"""The view model as plain lines, for logs and pipes (pure)."""

from collections.abc import Iterator

from bridge.view import figures, fleet
from bridge.view.describe import clock
from bridge.view.view_model import BridgeRow, ConsumerRow, State, ViewModel


def summary_lines(view_model: ViewModel) -> Iterator[str]:
    """A few lines: the totals, the problems, and each consumer."""
    yield f"{clock(view_model.now_us)} {_totals(view_model)}"
    if view_model.redis_full:
        yield f"  ! {view_model.redis_full}"
    yield from (f"  ! {why}" for why in view_model.unavailable.values())
    for bridge in view_model.bridges:
        if bridge.state is not State.STOPPED:
            yield from _bridge(bridge, view_model.now_us)
    yield from (f"  ! {reason}" for reason in fleet.reasons(view_model.living))
    for stream in view_model.streams:
        if stream.marks:
            yield f"  ! {stream.name}: {', '.join(stream.marks)}"
    for consumer in view_model.consumers:
        yield f"  {consumer_line(consumer)}"


def stream_lines(view_model: ViewModel) -> Iterator[str]:
    """A line for each stream."""
    width = max((len(stream.name) for stream in view_model.streams), default=0)
    for stream in view_model.streams:
        rate = (
            f"{figures.rate(stream.rate).replace('·', '0'):>7}/s "
            if stream.rate is not None
            else ""
        )
        yield (
            f"  {stream.name:<{width}} {rate}{stream.entries_text:>9} entries  "
            f"{stream.age_text:>5}  {stream.text}"
        )


def consumer_line(consumer: ConsumerRow) -> str:
    """A consumer's handled entries, latency and results."""
    status = consumer.status
    latency = ""
    if status.latency_ms.p50 is not None:
        half, most = status.latency_ms.p50, status.latency_ms.p99
        latency = f", {figures.milliseconds(half)} p99 {figures.milliseconds(most)}"
    bad = status.failed + status.undecodable
    return (
        f"{consumer.name}: "
        + (f"SILENT for {figures.age(consumer.age_us)}, " if consumer.state is State.SILENT else "")
        + f"{figures.count(status.handled)} handled{latency}"
        + (f", {bad} failed" if bad else "")
        + (f"; {status.made}" if status.made else "")
    )


def _totals(view_model: ViewModel) -> str:
    parts = [f"{len(view_model.streams)} streams"]
    if view_model.rate is not None:
        parts.append(f"{view_model.rate:,.0f} entries/s")
    if view_model.receive_ms is not None:
        half, most = map(figures.milliseconds, view_model.receive_ms)
        parts.append(f"exchange → bridge {half} p99 {most}")
    parts.append(f"{view_model.gaps} gaps")
    if view_model.recovered:
        parts.append(f"{view_model.recovered} gaps recovered")
    parts.append(f"{view_model.quarantined} quarantined")
    if view_model.unreadable:
        parts.append(f"{view_model.unreadable} unreadable")
    if view_model.pending:
        parts.append(f"{view_model.pending:,} waiting for Redis")
    return ", ".join(parts)


def _bridge(bridge: BridgeRow, now_us: int) -> Iterator[str]:
    since = figures.age(now_us - bridge.since_us)
    if bridge.state is State.SILENT:
        yield f"  ! bridge {bridge.status.instance} is SILENT for {since}"
    for trouble in bridge.troubles:
        yield f"  ! bridge {bridge.status.instance}: {trouble}"
