"""All lanes of a feed: which of them hears which streams, while streams come and go.

Public streams are spread over so many lanes, private ones have their own; each may have twins that
hear the same. The streams of one market stay together: they tick together.
"""

import asyncio
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bridge.contract.streams import Stream
from bridge.feed.lane import Lane
from bridge.feed.means import Means
from bridge.protocol.subscriptions import BAD_SIGNATURE, REFUSALS, State

OTHER_CLOCK_US = 500_000  # an offset that explains why a signature was refused


@dataclass(slots=True)
class _Group:
    """Lanes that hear the same streams."""

    name: str
    is_private: bool
    twins: list[Lane]
    streams: dict[str, Stream] = field(default_factory=dict)

    def markets(self) -> set[str]:
        return {stream.symbol for stream in self.streams.values()}


class Lanes:
    """Iterates over the lanes there are. Call `run` once, `hear` at any time."""

    def __init__(self, means: Means, chance: random.Random) -> None:
        self._means = means
        self._chance = chance
        self._groups: list[_Group] = []
        self._tasks: asyncio.TaskGroup | None = None

    def __iter__(self) -> Iterator[Lane]:
        return (lane for group in self._groups for lane in group.twins)

    def twins(self, lane: Lane) -> list[Lane]:
        """The other lanes that hear the same streams."""
        return [
            twin
            for group in self._groups
            if lane in group.twins
            for twin in group.twins
            if twin is not lane
        ]

    def run(self, tasks: asyncio.TaskGroup) -> None:
        """Run in these tasks, those that come later too."""
        self._tasks = tasks
        for lane in self:
            tasks.create_task(lane.run(), name=lane.name)

    def hear(self, streams: Mapping[str, Stream]) -> None:
        """Hear these streams and no others."""
        for group in self._groups:
            gone = [name for name in group.streams if name not in streams]
            for name in gone:
                del group.streams[name]
            for lane in group.twins if gone else ():
                lane.remove(gone)
        heard = {name for group in self._groups for name in group.streams}
        added: dict[int, list[Stream]] = {}
        for stream in sorted(
            (stream for name, stream in streams.items() if name not in heard),
            key=lambda stream: stream.symbol,
        ):
            group = self._group_for(stream)
            group.streams[stream.name] = stream
            added.setdefault(id(group), []).append(stream)
        for group in list(self._groups):
            if not group.streams:
                self._groups.remove(group)
                for lane in group.twins:
                    lane.close()
            elif not group.twins:
                self._begin(group)
            else:
                for lane in group.twins if id(group) in added else ():
                    lane.add(added[id(group)])

    def sign_again(self, offset_us: int) -> None:
        """Ask again for what was refused for a signature that was made with another offset of the
        exchange's clock.
        """
        for lane in self:
            connection = lane.connection
            if connection and abs(offset_us - connection.signed_offset_us) > OTHER_CLOCK_US:
                refused = [
                    each.stream.name
                    for each in connection.subscriptions.of(State.REJECTED)
                    if each.reason == REFUSALS[BAD_SIGNATURE]
                ]
                connection.ask_again(refused)

    def _group_for(self, stream: Stream) -> _Group:
        alike = [group for group in self._groups if group.is_private == stream.is_private]
        for group in alike:
            if stream.is_private or stream.symbol in group.markets():
                return group
        if stream.is_private or len(alike) < self._means.settings.connections:
            return self._new_group(stream)
        return min(alike, key=lambda group: len(group.markets()))

    def _new_group(self, stream: Stream) -> _Group:
        taken = {group.name for group in self._groups}
        numbers = range(1, len(taken) + 2)
        name = next(f"public-{n}" for n in numbers if f"public-{n}" not in taken)
        group = _Group("private" if stream.is_private else name, stream.is_private, [])
        self._groups.append(group)
        return group

    def _begin(self, group: _Group) -> None:
        count = self._means.settings.connections_per_stream
        names = (
            [f"{group.name}-{letter}" for letter in "abc"[:count]] if count > 1 else [group.name]
        )
        group.twins = [
            Lane(name, group.streams.values(), self._means, self._chance) for name in names
        ]
        if self._tasks is not None:
            for lane in group.twins:
                self._tasks.create_task(lane.run(), name=lane.name)
