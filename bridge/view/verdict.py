"""Judges whether the system is healthy, in one line, and if not, why (pure).

The one place that judges it: console and `status` agree. It uses one poll. Counts since a bridge's
start (gaps, refused messages) are shown with the verdict and do not change it: they are past.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bridge.view import figures, fleet
from bridge.view.troubles import MAX_NAMED
from bridge.view.view_model import BridgeRow, State, ViewModel

NONE_YET = "no bridge has run here: start one with `python -m bridge run`"


class Level(StrEnum):
    """GOOD: nothing to do; WARNING: something needs attention; BAD: no bridge is healthy, or no
    bridge of a fleet receives some of the streams.
    """

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`text` is one line; `reasons` are sentences, empty where all is well."""

    level: Level
    text: str
    reasons: tuple[str, ...] = ()


def judge(view_model: ViewModel, instance: str | None = None) -> Verdict:
    """The verdict on a view model, or on one bridge alone where its instance is given."""
    reasons = (
        *([view_model.redis_full] if view_model.redis_full else ()),
        *view_model.unavailable.values(),
        *_bridges(view_model),
        *fleet.reasons(view_model.living),
        *_streams(view_model),
        *_consumers(view_model),
    )
    bridges = [each for each in view_model.bridges if instance in (None, each.status.instance)]
    if not any(bridge.is_healthy for bridge in bridges):
        return Verdict(Level.BAD, _why_not(view_model, bridges, instance), reasons)
    if instance is None and (text := fleet.missing(view_model.living)):
        return Verdict(Level.BAD, text, reasons)
    if not reasons:
        return Verdict(Level.GOOD, "all is well")
    things = "one thing needs" if len(reasons) == 1 else f"{len(reasons)} things need"
    return Verdict(Level.WARNING, f"{things} attention", reasons)


def _why_not(view_model: ViewModel, bridges: Sequence[BridgeRow], instance: str | None) -> str:
    """Why none of these bridges is healthy."""
    if 0 in view_model.unavailable:
        return f"{view_model.unavailable[0].removesuffix('.')}. {_what_is_left(view_model)}"
    for bridge in bridges:
        if bridge.state is State.UP:
            return f"bridge {bridge.status.instance} is up, but {bridge.troubles[0]}"
    if view_model.redis_full:
        return view_model.redis_full
    states = [f"{each.status.instance} is {since(each, view_model.now_us)}" for each in bridges]
    if instance is not None:
        return f"bridge {states[0]}" if states else f"bridge {instance} is not known here"
    if states:
        return f"no bridge is up: {'; '.join(states)}"
    filled = sum(stream.entries > 0 for stream in view_model.streams)
    if filled:
        return (
            f"no bridge publishes here; {filled} streams are here, as a replay leaves them: "
            "start a bridge with `python -m bridge run`"
        )
    return NONE_YET


def _what_is_left(view_model: ViewModel) -> str:
    """A sentence on a Cluster without its first shard: what the remaining shards have."""
    reachable = [stream.age_us for stream in view_model.streams if not stream.is_unavailable]
    newest_us = min((age for age in reachable if age is not None), default=None)
    newest = f", the newest entry {figures.age(newest_us)} old" if newest_us is not None else ""
    streams = "1 stream" if len(reachable) == 1 else f"{len(reachable)} streams"
    return (
        f"Bridges and consumers are not known without it; the other shards have {streams}{newest}"
    )


def _bridges(view_model: ViewModel) -> Iterator[str]:
    is_any_up = any(bridge.state is State.UP for bridge in view_model.bridges)
    for bridge in view_model.bridges:
        name = bridge.status.instance
        if bridge.state is State.SILENT or (bridge.state is State.STOPPED and not is_any_up):
            yield f"bridge {name} is {since(bridge, view_model.now_us)}"
        for trouble in bridge.troubles:
            yield f"bridge {name}: {trouble}"


def since(bridge: BridgeRow, now_us: int) -> str:
    """The bridge's state, with its duration."""
    age = figures.age(now_us - bridge.since_us)
    return f"stopped {age} ago" if bridge.state is State.STOPPED else f"{bridge.state} for {age}"


def _streams(view_model: ViewModel) -> Iterator[str]:
    # A suspended or not received stream is already among its bridge's troubles.
    known = {
        name
        for bridge in view_model.bridges
        for name in (*bridge.status.stream_troubles, *bridge.status.streams)
        if name in bridge.status.stream_troubles or bridge.status.streams[name].suspended
    }
    failing = [
        each
        for each in view_model.streams
        # A stream of an unavailable shard is already reported with the shard.
        if each.is_failing and not each.is_unavailable and each.name not in known
    ]
    for stream in failing[:MAX_NAMED]:
        yield f"{stream.name}: {', '.join(stream.marks)}"
    if len(failing) > MAX_NAMED:
        yield f"{len(failing) - MAX_NAMED} more streams need attention"


def _consumers(view_model: ViewModel) -> Iterator[str]:
    for consumer in view_model.consumers:
        if consumer.state is State.SILENT:
            yield f"consumer {consumer.name} is silent for {figures.age(consumer.age_us)}"
    if view_model.unreadable:
        yield f"{view_model.unreadable} statuses or stream names in Redis cannot be read"
