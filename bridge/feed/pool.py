"""All sessions of a feed, and which streams each receives.

Public streams are spread over a number of sessions, private ones have their own; each session may
have siblings that receive the same streams. The streams of one market share a session.
"""

import asyncio
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bridge.contract.streams import Stream
from bridge.feed.connection import Connector
from bridge.feed.session import Session
from bridge.protocol.subscriptions import BAD_SIGNATURE, REFUSALS, State

OTHER_CLOCK_US = 500_000  # the least change of the offset that explains a refused signature
SIBLING_SUFFIXES = "abc"  # suffixes of the names of siblings


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
    """Iterates over its sessions. `run` it once, `receive` at any time."""

    def __init__(self, connector: Connector, chance: random.Random) -> None:
        self._connector = connector
        self._chance = chance
        self._groups: list[_Group] = []
        self._new: list[Session] = []  # not running yet
        self._has_new = asyncio.Event()

    def __iter__(self) -> Iterator[Session]:
        return (session for group in self._groups for session in group.sessions)

    def siblings(self, session: Session) -> list[Session]:
        """Further sessions that receive the same streams."""
        return [
            each
            for group in self._groups
            if session in group.sessions
            for each in group.sessions
            if each is not session
        ]

    async def run(self) -> None:
        """Run all sessions until cancelled, including later ones."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                new, self._new = self._new, []
                for session in new:
                    tasks.create_task(session.run(), name=session.name)
                await self._has_new.wait()
                self._has_new.clear()

    def receive(self, streams: Mapping[str, Stream]) -> None:
        """Receive these streams and no others."""
        self._keep_only(streams)
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
        """Subscribe again to streams whose signature was refused, if it was made with another
        offset of the exchange's clock.
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

    def _keep_only(self, streams: Mapping[str, Stream]) -> None:
        """Remove the streams that are not among these."""
        for group in self._groups:
            dropped = [name for name in group.streams if name not in streams]
            for name in dropped:
                del group.streams[name]
            for session in group.sessions if dropped else ():
                session.remove(dropped)

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
            [f"{group.name}-{suffix}" for suffix in SIBLING_SUFFIXES[:count]]
            if count > 1
            else [group.name]
        )
        group.sessions += [
            Session(name, group.streams.values(), self._connector, self._chance) for name in names
        ]
        self._new += group.sessions
        self._has_new.set()
