"""Giving up the oldest that waits for an unnumbered stream, and the gap that stands for it (pure).

No number tells of these messages, so whatever goes must be named by the gap: the messages, and the
intervals of gaps that go with them.
"""

from collections.abc import Sequence
from typing import NamedTuple

from bridge.pipeline.items import Item, unnumbered_gap
from bridge.pipeline.numbered import BUFFER_FULL


class GivenUp(NamedTuple):
    """The first `items` of what waits go, `messages` of them the exchange's; `gap` takes their
    place.
    """

    items: int
    messages: int
    freed: int
    gap: Item


def give_up(symbol: str, waiting: Sequence[Item], share: int) -> GivenUp | None:
    """The oldest `1/share`, or as many more as it takes to free anything; None: nothing would."""
    for items in range(max(1, len(waiting) // share), len(waiting) + 1):
        going = waiting[:items]
        gap = _gap_for(symbol, going)
        if (freed := sum(item.size for item in going) - gap.size) > 0:
            return GivenUp(items, sum(not _is_gap(item) for item in going), freed, gap)
    return None


def _gap_for(symbol: str, going: Sequence[Item]) -> Item:
    intervals = [_interval(item) for item in going]
    begins = [from_us for from_us, _ in intervals if from_us is not None]
    gap = unnumbered_gap(
        symbol=symbol,
        from_us=min(begins) if len(begins) == len(intervals) else None,
        to_us=max(to_us for _, to_us in intervals),
        cause=BUFFER_FULL,
        received_us=max(item.heard_us for item in going),
    )
    gap.offset = min(item.offset for item in going)  # a restart hears all of it again
    return gap


def _interval(item: Item) -> tuple[int | None, int]:
    """From when to when it was said and heard; from None: a gap that begins with the stream."""
    if _is_gap(item):
        said = dict(zip(item.names, item.values, strict=True))
        return int(said["from_us"]) if said["from_us"] else None, int(said["to_us"])
    said_us = item.moment_us
    return min(said_us, item.heard_us), max(said_us, item.heard_us)


def _is_gap(item: Item) -> bool:
    return item.values[0] == "gap"
