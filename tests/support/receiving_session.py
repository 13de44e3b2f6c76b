"""Sessions that receive from an exchange into a recording sink."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from bridge.contract.streams import parse_stream
from bridge.feed.clock import ExchangeClock
from bridge.feed.connection import Connection, Connector
from bridge.feed.limits import RateLimiter
from bridge.feed.session import Session
from bridge.protocol.conversation import Granted
from bridge.protocol.signing import Signer
from bridge.runtime.config import Exchange
from tests.support.recording_sink import RecordingSink

QUICK = {
    "open_timeout_s": 5,
    "ping_interval_s": 0.4,
    "ping_timeout_s": 0.4,
    "reconnect_initial_s": 0.02,
    "reconnect_max_s": 0.1,
    "handshakes_per_s": 50,
    "requests_per_s": 1000,
}


def now_us() -> int:
    return time.time_ns() // 1000


@dataclass
class Subject:
    """Sessions with one sink, and their granted and rejected streams."""

    sink: RecordingSink
    connector: Connector
    sessions: list[Session] = field(default_factory=list)
    _granted: list[str] = field(default_factory=list)
    _rejected: list[tuple[str, int]] = field(default_factory=list)

    @property
    def session(self) -> Session:
        return self.sessions[0]

    @property
    def connection(self) -> Connection:
        """The first session's connection."""
        connection = self.session.connection
        assert connection is not None
        return connection

    @property
    def granted(self) -> list[str]:
        """The streams whose subscription was granted, once per connection."""
        self._poll()
        return self._granted

    @property
    def rejected(self) -> list[tuple[str, int]]:
        """The streams that the exchange refused, with the error code."""
        self._poll()
        return self._rejected

    def numbers(self, stream: str) -> list[int]:
        """The IDs of a stream's trades, in the order of receipt."""
        return [json.loads(body)["data"]["t"] for body in self.sink.messages(stream)]

    def _poll(self) -> None:
        while not self.connector.events.empty():
            event = self.connector.events.get_nowait()
            if isinstance(event, Granted):
                self._granted += [stream.name for stream in event.streams]
            else:
                self._rejected += [(name, event.code) for name in event.streams]


@asynccontextmanager
async def receiving_sessions(
    url: str,
    names: Iterable[str],
    count: int = 1,
    signer: Signer | None = None,
    clock_us: Callable[[], int] = now_us,
    **settings: object,
) -> AsyncIterator[Subject]:
    """`count` sessions over the same streams, running until the block ends."""
    streams = [parse_stream(name) for name in names]
    exchange = Exchange.model_validate({"ws_url": url, **QUICK, **settings})
    sink = RecordingSink()
    connector = Connector(
        settings=exchange,
        sinks=sink,
        clock_us=clock_us,
        exchange_clock=ExchangeClock(clock_us),
        signer=signer,
        handshakes=RateLimiter(exchange.handshakes_per_s, 8),
        requests=RateLimiter(exchange.requests_per_s, 40),
        events=asyncio.Queue(),
    )
    subject = Subject(sink, connector)
    subject.sessions = [
        Session(f"session-{number}", streams, connector, random.Random(number))
        for number in range(count)
    ]
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(session.run()) for session in subject.sessions]
        try:
            yield subject
        finally:
            for task in running:
                task.cancel()
