"""Who hears what: takes events, renders those that somebody wants, and queues them for each client.

A client that reads too slowly fills its own bounded queue and is marked for dropping; nobody else
waits for it. Refuses to know sockets (`server`) and time (`player`): the wall clock is an argument.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable

from simulator import frames
from simulator.events import BalanceUpdate, Event, OrderUpdate, PositionUpdate, RfqUpdate
from simulator.ledger import Ledger
from simulator.session import Topic, windowed

PRIVATE = (OrderUpdate, BalanceUpdate, PositionUpdate, RfqUpdate)


class Client:
    """The sending side of one connection: frames wait here until its writer takes them."""

    def __init__(self, limit_frames: int, limit_bytes: int) -> None:
        self._limit_frames = limit_frames
        self._limit_bytes = limit_bytes
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self.waiting = asyncio.Event()
        self.too_slow = asyncio.Event()
        self.sent = 0

    def push(self, frame: bytes) -> None:
        """Queue a frame, or give the client up when its queue is full."""
        if self.too_slow.is_set():
            return
        self._queue.append(frame)
        self._bytes += len(frame)
        if len(self._queue) > self._limit_frames or self._bytes > self._limit_bytes:
            self._queue.clear()
            self.too_slow.set()
        self.waiting.set()

    def pop(self) -> bytes | None:
        """The next frame to write, or None when there is none now."""
        if not self._queue:
            self.waiting.clear()
            return None
        frame = self._queue.popleft()
        self._bytes -= len(frame)
        self.sent += 1
        return frame


class Hub:
    """All subscriptions of all clients, and the way from an event to their queues."""

    def __init__(self, wall_us: Callable[[], int], ledger: Ledger | None = None) -> None:
        self._wall_us = wall_us
        self._ledger = ledger
        self._listeners: dict[Topic, set[Client]] = {}
        self._ever: set[Topic] = set()
        self._kept: dict[str, bool] = {}
        self.clients: set[Client] = set()
        self.counts: Counter[str] = Counter()
        self.requests = 0
        self.first_subscription = asyncio.Event()

    # Clients --------------------------------------------------------------------------------------

    def enter(self, client: Client) -> None:
        self.clients.add(client)

    def leave(self, client: Client) -> None:
        self.clients.discard(client)
        for listeners in self._listeners.values():
            listeners.discard(client)

    def subscribe(self, client: Client, topic: Topic) -> None:
        self._listeners.setdefault(topic, set()).add(client)
        self._ever.add(topic)
        self.requests += 1
        self.first_subscription.set()

    def unsubscribe(self, client: Client, topic: Topic) -> None:
        self._listeners.get(topic, set()).discard(client)

    # Frames ---------------------------------------------------------------------------------------

    def put(self, event: Event) -> None:
        """Send an event to whoever is subscribed to one of its streams, and record it if it is
        kept.
        """
        account = event.account if isinstance(event, PRIVATE) else None
        for stream in event.streams:
            self.counts[stream] += 1
            topic = Topic(stream, account)
            listeners = self._listeners.get(topic)
            if listeners or self._is_kept(topic):
                self._send(listeners or set(), frames.render(event, stream), account)

    def put_to(self, client: Client, event: Event, stream: str) -> None:
        """Send an event to one client only: what stands at the moment of its subscription."""
        account = event.account if isinstance(event, PRIVATE) else None
        self._send({client}, frames.render(event, stream), account)

    def put_recorded(self, stream: str | None, frame: bytes) -> None:
        """Send a recorded frame as it is: to its stream's subscribers, or to everyone if it has
        none.
        """
        if stream is None:
            self._send(self.clients, frame, None)
            return
        self.counts[stream] += 1
        listeners: set[Client] = set()
        for topic, clients in self._listeners.items():
            if topic.stream == stream:
                listeners |= clients
        self._send(listeners, frame, None)

    def _send(self, listeners: set[Client], frame: bytes, account: str | None) -> None:
        for client in listeners:
            client.push(frame)
        if self._ledger is not None:
            self._ledger.record(self._wall_us(), len(listeners), frame, account)

    def _is_kept(self, topic: Topic) -> bool:
        """Whether the ledger wants this stream although nobody listens now."""
        if self._ledger is None:
            return False
        if topic in self._ever:
            return True
        kept = self._kept.get(topic.stream)
        if kept is None:
            kept = self._kept[topic.stream] = always_recorded(topic.stream)
        return kept


def always_recorded(stream: str) -> bool:
    """Trades, realtime depth, and the account streams that carry all markets."""
    kind, _, rest = stream.partition(".")
    if kind == "account":
        return "." not in rest
    return kind == "trade" or (kind == "depth" and not windowed(stream))
