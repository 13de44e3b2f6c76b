"""The fetch loop alone, with a REST server of the test and a recording sink."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bridge.contract.streams import parse_stream
from bridge.core.records import Opened
from bridge.feed.fetch import Fetch
from tests.support.receiving_session import now_us
from tests.support.recording_sink import RecordingSink
from tests.support.rest_answers import Server, answering


@dataclass
class Fetching:
    """The loop, its sink with one connection that should receive the streams, and the server."""

    fetch: Fetch
    sink: RecordingSink
    server: Server
    connection: int


@asynccontextmanager
async def fetching(
    sink: RecordingSink, names: Iterable[str], reply: Callable[[int], bytes]
) -> AsyncIterator[Fetching]:
    """Run the loop until the block ends. `reply(n)`: the raw bytes of the reply to request n."""
    streams = {name: parse_stream(name) for name in names}
    connection = sink.new_connection()
    sink.take(Opened(now_us(), connection, "a test", list(streams)))
    async with answering(reply) as (rest, server):
        fetch = Fetch(sink, rest, depth_levels=100, clock_us=now_us, chance=random.Random(1))
        fetch.follow(streams)
        running = asyncio.create_task(fetch.run())
        try:
            yield Fetching(fetch, sink, server, connection)
        finally:
            running.cancel()
            await asyncio.wait([running])
            assert running.cancelled()
