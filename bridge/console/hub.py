"""Who is looking, and how each gets what is new: bounded, and no client slows another.

A topic is what one page shows. Its messages are made once, and put into the queue of each client of
that topic. A client whose queue is full is dropped: a browser connects again by itself, and begins
with the whole picture. Knows neither HTTP nor Redis.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

MOST_CLIENTS = 64
MOST_TOPICS = 24
MOST_WAITING = 16  # messages for a client that does not read
HEAD = "head"  # the event that clients of every topic get


class TooMany(Exception):
    """There is no room for another client, or for another topic; the message says which."""


@dataclass(frozen=True, slots=True)
class Message:
    """One server-sent event: its name, and JSON without line ends."""

    event: str
    data: str

    def encoded(self) -> bytes:
        """As it goes over the wire."""
        return f"event: {self.event}\ndata: {self.data}\n\n".encode()


@dataclass(slots=True, eq=False)
class Client:
    """One that looks at a topic. `is_dropped`: it was too slow, or the hub is closing."""

    topic: str
    is_dropped: bool = False
    _waiting: "asyncio.Queue[Message | None]" = field(
        default_factory=lambda: asyncio.Queue(MOST_WAITING)
    )

    def put(self, message: Message) -> None:
        """Hand it over; drops the client where too much waits for it already."""
        try:
            self._waiting.put_nowait(message)
        except asyncio.QueueFull:
            self.drop()

    def drop(self) -> None:
        """Its messages end; what waits for it is forgotten."""
        self.is_dropped = True
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self._waiting.put_nowait(None)

    async def messages(self) -> AsyncIterator[Message]:
        """What is new, until the client is dropped."""
        while (message := await self._waiting.get()) is not None:
            yield message


class Hub:
    """All clients, by topic."""

    def __init__(self) -> None:
        self._clients: dict[str, set[Client]] = {}
        self._is_closed = False

    @property
    def topics(self) -> frozenset[str]:
        """The topics that someone looks at now."""
        return frozenset(self._clients)

    def __len__(self) -> int:
        return sum(len(clients) for clients in self._clients.values())

    def join(self, topic: str) -> Client:
        """A new client of the topic. Raises TooMany."""
        if self._is_closed or len(self) >= MOST_CLIENTS:
            raise TooMany(f"{MOST_CLIENTS} pages are open already: close one")
        if topic not in self._clients and len(self._clients) >= MOST_TOPICS:
            raise TooMany("too many different markets are looked at already: close one")
        client = Client(topic)
        self._clients.setdefault(topic, set()).add(client)
        return client

    def leave(self, client: Client) -> None:
        """It is gone; its topic, too, if it was the last."""
        clients = self._clients.get(client.topic, set())
        clients.discard(client)
        if not clients:
            self._clients.pop(client.topic, None)

    def publish(self, topic: str, message: Message) -> None:
        """To every client of the topic."""
        for client in list(self._clients.get(topic, ())):
            self._send(client, message)

    def publish_all(self, message: Message) -> None:
        """To every client."""
        for client in list(self._each()):
            self._send(client, message)

    def close(self) -> None:
        """Drop every client, and take no other."""
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
