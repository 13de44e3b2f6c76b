"""Subscriptions: takes events, renders those with subscribers, and queues the frames.

A client that reads too slowly fills its own bounded queue and is marked for dropping; no other one
is delayed. Knows neither sockets (`server`), nor time (`player`), nor what faults do to a frame
(`faults.road`): the wall clock is an argument.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Set
from typing import Any

from simulator import frames
from simulator.client import Client
from simulator.events import BalanceUpdate, Event, OrderUpdate, PositionUpdate, RfqUpdate
from simulator.faults.road import Road, Way, identity
from simulator.ledger import Ledger
from simulator.session import Topic, windowed

PRIVATE = (OrderUpdate, BalanceUpdate, PositionUpdate, RfqUpdate)


class Hub:
    """All subscriptions of all clients, and the delivery of events to their queues."""

    def __init__(self, wall_us: Callable[[], int], ledger: Ledger | None = None) -> None:
        self._wall_us = wall_us
        self._ledger = ledger
        self.road = Road(self._note_late)
        self._listeners: dict[Topic, set[Client]] = {}
        self._ever: set[Topic] = set()
        self._kept: dict[str, bool] = {}
        self.clients: set[Client] = set()
        self.counts: Counter[str] = Counter()
        self.requests = 0
        self._entered = 0
        self.first_subscription = asyncio.Event()

    # Clients --------------------------------------------------------------------------------------

    def enter(self, client: Client) -> None:
        """Register a new connection. It gets the next number."""
        self._entered += 1
        client.number = self._entered
        self.clients.add(client)
        self._note_now({"connection": client.number, "state": "opened"})

    def leave(self, client: Client, how: str = "ended") -> None:
        """Remove a connection; repeated calls have no effect."""
        if client.has_ended:
            return
        client.has_ended = True
        self.clients.discard(client)
        for listeners in self._listeners.values():
            listeners.discard(client)
        self._note_now(
            {"connection": client.number, "state": how, "sent": client.sent, "left": client.queued}
        )

    def subscribe(self, client: Client, topic: Topic) -> None:
        self._listeners.setdefault(topic, set()).add(client)
        self._ever.add(topic)
        self.requests += 1
        self.first_subscription.set()
        self._note_now({"connection": client.number, "subscribed": topic.stream})

    def unsubscribe(self, client: Client, topic: Topic) -> None:
        listeners = self._listeners.get(topic, set())
        if client in listeners:
            listeners.discard(client)
            self._note_now({"connection": client.number, "unsubscribed": topic.stream})

    def forget(self, client: Client, fits: Callable[[str], bool]) -> None:
        """Stop serving a client's subscriptions, until it subscribes again."""
        for topic in [topic for topic in self.topics(client) if fits(topic.stream)]:
            self.unsubscribe(client, topic)
            client.forgotten.add(topic.stream)

    def topics(self, client: Client) -> list[Topic]:
        """The topics that a client is subscribed to."""
        return [topic for topic, listeners in self._listeners.items() if client in listeners]

    def note(self, at_us: int, fields: Mapping[str, Any]) -> None:
        """Write a line other than a frame into the ledger. `at_us` is engine time."""
        self._note_now({"engine_us": at_us, **fields})

    def _note_now(self, fields: Mapping[str, Any]) -> None:
        if self._ledger is not None:
            self._ledger.note(self._wall_us(), fields)

    def _note_late(self, connection: int, stream: str, frame: bytes) -> None:
        self._note_now({"late": {"connection": connection, "stream": stream, **identity(frame)}})

    # Frames ---------------------------------------------------------------------------------------

    def put(self, event: Event) -> None:
        """Send an event to the subscribers of its streams, and record it if it is kept."""
        account = event.account if isinstance(event, PRIVATE) else None
        for stream in event.streams:
            self.counts[stream] += 1
            topic = Topic(stream, account)
            listeners = self._listeners.get(topic)
            if listeners or self._is_kept(topic):
                self._send(listeners or frozenset(), stream, frames.render(event, stream), account)

    def put_to(self, client: Client, event: Event, stream: str) -> None:
        """Send an event to one client only: the state at the time of its subscription."""
        account = event.account if isinstance(event, PRIVATE) else None
        self._send({client}, stream, frames.render(event, stream), account)

    def put_recorded(self, stream: str | None, frame: bytes) -> None:
        """Send a recorded frame unchanged: to its stream's subscribers, or to every client if it
        has none.
        """
        if stream is None:
            self._send(self.clients, "", frame, None)
            return
        self.counts[stream] += 1
        listeners: set[Client] = set()
        for topic, clients in self._listeners.items():
            if topic.stream == stream:
                listeners |= clients
        self._send(listeners, stream, frame, None)

    def _send(self, listeners: Set[Client], stream: str, frame: bytes, account: str | None) -> None:
        if self.road.is_touched:
            way = self.road.carry(stream, frame, listeners)
        else:
            way = Way([client.number for client in listeners])
            for client in listeners:
                client.push(frame)
        if self._ledger is not None:
            self._ledger.record(self._wall_us(), way, frame, account)

    def _is_kept(self, topic: Topic) -> bool:
        """Whether the ledger keeps this stream even without subscribers."""
        if self._ledger is None:
            return False
        if topic in self._ever:
            return True
        kept = self._kept.get(topic.stream)
        if kept is None:
            kept = self._kept[topic.stream] = always_recorded(topic.stream)
        return kept


def always_recorded(stream: str) -> bool:
    """Whether a stream is always recorded: trades, realtime depth, account streams."""
    kind, _, rest = stream.partition(".")
    if kind == "account":
        return "." not in rest
    return kind == "trade" or (kind == "depth" and not windowed(stream))
