"""All sessions of a feed: which of them receives which streams, while streams come and go.

Public streams are spread over so many sessions, private ones have their own; each may have siblings
that receive the same. The streams of one market stay together: they tick together.
"""

import asyncio
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bridge.contract.streams import Stream
from bridge.feed.connection import Connector
from bridge.feed.session import Session
from bridge.protocol.subscriptions import BAD_SIGNATURE, REFUSALS, State

OTHER_CLOCK_US = 500_000  # an offset that explains why a signature was refused
SIBLING_SUFFIXES = "abc"  # of siblings


@dataclass(slots=True)
class _Group:
    """Sessions that receive the same streams."""

    name: str
    is_private: bool
    sessions: list[Session] = field(default_factory=list)
    streams: dict[str, Stream] = field(default_factory=dict)

    def markets(self) -> set[str]:
        return {stream.symbol for stream in self.streams.values()}


class SessionPool:
    """Iterates over the sessions there are. `run` it once, `receive` at any time."""

    def __init__(self, connector: Connector, chance: random.Random) -> None:
        self._connector = connector
        self._chance = chance
        self._groups: list[_Group] = []
        self._new: list[Session] = []  # not running yet
        self._has_new = asyncio.Event()

    def __iter__(self) -> Iterator[Session]:
        return (session for group in self._groups for session in group.sessions)

    def siblings(self, session: Session) -> list[Session]:
        """The other sessions that receive the same streams."""
        return [
            each
            for group in self._groups
            if session in group.sessions
            for each in group.sessions
            if each is not session
        ]

    async def run(self) -> None:
        """Run all sessions until cancelled, those that come later too."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                new, self._new = self._new, []
                for session in new:
                    tasks.create_task(session.run(), name=session.name)
                await self._has_new.wait()
                self._has_new.clear()

    def receive(self, streams: Mapping[str, Stream]) -> None:
        """Receive these streams and no others."""
        self._leave(streams)
        received = {name for group in self._groups for name in group.streams}
        added: dict[int, list[Stream]] = {}
        for stream in sorted(
            (stream for name, stream in streams.items() if name not in received),
            key=lambda stream: stream.symbol,
        ):
            group = self._group_for(stream)
            group.streams[stream.name] = stream
            added.setdefault(id(group), []).append(stream)
        for group in list(self._groups):
            if not group.streams:
                self._groups.remove(group)
                for session in group.sessions:
                    session.close()
            elif not group.sessions:
                self._begin(group)
            else:
                for session in group.sessions if id(group) in added else ():
                    session.add(added[id(group)])

    def sign_again(self, offset_us: int) -> None:
        """Ask again for what was refused for a signature that was made with another offset of the
        exchange's clock.
        """
        for session in self:
            connection = session.connection
            if connection and abs(offset_us - connection.signed_offset_us) > OTHER_CLOCK_US:
                refused = [
                    each.stream.name
                    for each in connection.subscriptions.of(State.REJECTED)
                    if each.reason == REFUSALS[BAD_SIGNATURE]
                ]
                connection.subscribe_again(refused)

    def _leave(self, streams: Mapping[str, Stream]) -> None:
        """Leave what is not among these."""
        for group in self._groups:
            gone = [name for name in group.streams if name not in streams]
            for name in gone:
                del group.streams[name]
            for session in group.sessions if gone else ():
                session.remove(gone)

    def _group_for(self, stream: Stream) -> _Group:
        alike = [group for group in self._groups if group.is_private == stream.is_private]
        for group in alike:
            if stream.is_private or stream.symbol in group.markets():
                return group
        if stream.is_private or len(alike) < self._connector.settings.connections:
            return self._new_group(stream)
        return min(alike, key=lambda group: len(group.markets()))

    def _new_group(self, stream: Stream) -> _Group:
        taken = {group.name for group in self._groups}
        numbers = range(1, len(taken) + 2)
        name = next(f"public-{n}" for n in numbers if f"public-{n}" not in taken)
        group = _Group("private" if stream.is_private else name, stream.is_private)
        self._groups.append(group)
        return group

    def _begin(self, group: _Group) -> None:
        count = self._connector.settings.connections_per_stream
        names = (
            [f"{group.name}-{letter}" for letter in SIBLING_SUFFIXES[:count]]
            if count > 1
            else [group.name]
        )
        group.sessions += [
            Session(name, group.streams.values(), self._connector, self._chance) for name in names
        ]
        self._new += group.sessions
        self._has_new.set()
