"""Selects the streams to show where not all fit (pure).

The selection depends on names and troubles alone, never on rates, so that lines do not jump.
"""

from collections.abc import Sequence
from itertools import zip_longest

from bridge.view.view_model import StreamRow


def fitting(streams: Sequence[StreamRow], room: int) -> tuple[list[StreamRow], list[StreamRow]]:
    """The streams to show, in their order, and the rest.

    Up to a third of the room is for streams with marks; then comes one of each type, then a second
    of each.
    """
    if len(streams) <= room:
        return list(streams), []
    marked = [stream for stream in streams if stream.marks][: room // 3]
    ranked = dict.fromkeys(stream.name for stream in [*marked, *_one_of_each(streams)])
    chosen = set(list(ranked)[: max(0, room)])
    shown = [stream for stream in streams if stream.name in chosen]
    return shown, [stream for stream in streams if stream.name not in chosen]


def _one_of_each(streams: Sequence[StreamRow]) -> list[StreamRow]:
    by_kind: dict[str, list[StreamRow]] = {}
    for stream in streams:
        by_kind.setdefault(stream.kind, []).append(stream)
    rounds = zip_longest(*by_kind.values())
    return [stream for one_round in rounds for stream in one_round if stream is not None]
