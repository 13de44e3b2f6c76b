"""Delivers updates to clients: bounded, and no client slows another.

A topic is the content of one page. Its messages are created once and put into the queue of each of
its clients. A client whose queue is full is dropped: a browser reconnects by itself and starts with
the whole page. Knows neither HTTP nor Redis.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

MOST_CLIENTS = 64
MOST_TOPICS = 24
MOST_WAITING = 16  # messages for a client that does not read
HEAD = "head"  # the event sent to clients of every topic


class TooMany(Exception):
    """The limit of clients or topics is reached; the message says which."""


@dataclass(frozen=True, slots=True)
class Message:
    """One server-sent event: its name, and JSON without line ends."""

    event: str
    data: str

    def encoded(self) -> bytes:
        """The message in the wire format of server-sent events."""
        return f"event: {self.event}\ndata: {self.data}\n\n".encode()


@dataclass(slots=True, eq=False)
class Client:
    """One client of a topic. `is_dropped`: it was too slow, or the hub is closing."""

    topic: str
    is_dropped: bool = False
    _waiting: "asyncio.Queue[Message | None]" = field(
        default_factory=lambda: asyncio.Queue(MOST_WAITING)
    )

    def put(self, message: Message) -> None:
        """Queue a message; drops the client where its queue is full."""
        try:
            self._waiting.put_nowait(message)
        except asyncio.QueueFull:
            self.drop()

    def drop(self) -> None:
        """End its messages; queued ones are discarded."""
        self.is_dropped = True
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self._waiting.put_nowait(None)

    async def messages(self) -> AsyncIterator[Message]:
        """Queued messages, until the client is dropped."""
        while (message := await self._waiting.get()) is not None:
            yield message


class Hub:
    """All clients by topic."""

    def __init__(self) -> None:
        self._clients: dict[str, set[Client]] = {}
        self._is_closed = False

    @property
    def topics(self) -> frozenset[str]:
        """The topics that have clients now."""
        return frozenset(self._clients)

    def __len__(self) -> int:
        return sum(len(clients) for clients in self._clients.values())

    def join(self, topic: str) -> Client:
        """Add a client of the topic. Raises TooMany."""
        if self._is_closed or len(self) >= MOST_CLIENTS:
            raise TooMany(f"{MOST_CLIENTS} pages are open already: close one")
        if topic not in self._clients and len(self._clients) >= MOST_TOPICS:
            raise TooMany("too many different markets are open already: close one")
        client = Client(topic)
        self._clients.setdefault(topic, set()).add(client)
        return client

    def leave(self, client: Client) -> None:
        """Remove a client, and its topic if it was the last."""
        clients = self._clients.get(client.topic, set())
        clients.discard(client)
        if not clients:
            self._clients.pop(client.topic, None)

    def publish(self, topic: str, message: Message) -> None:
        """Send a message to every client of the topic."""
        for client in list(self._clients.get(topic, ())):
            self._send(client, message)

    def publish_all(self, message: Message) -> None:
        """Send a message to every client."""
        for client in list(self._each()):
            self._send(client, message)

    def close(self) -> None:
        """Drop every client, and accept no more."""
        self._is_closed = True
        for client in list(self._each()):
            client.drop()
            self.leave(client)

    def _send(self, client: Client, message: Message) -> None:
        client.put(message)
        if client.is_dropped:
            self.leave(client)

    def _each(self) -> Iterator[Client]:
        for clients in self._clients.values():
            yield from clients
