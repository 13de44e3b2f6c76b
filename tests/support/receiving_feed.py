"""A whole feed with a WebSocket server and a REST server of the test, into a recording sink."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bridge.feed.feed import Feed
from bridge.feed.plan import SubscriptionPlan
from bridge.runtime.config import Exchange
from tests.support.receiving_session import QUICK, now_us
from tests.support.recording_sink import RecordingSink
from tests.support.rest_answers import Server, answering, http
from tests.support.scripted_exchange import ScriptedExchange


@dataclass
class Subject:
    """The feed, its recording sink, and the REST server."""

    feed: Feed
    sink: RecordingSink
    rest: Server

    def asks_for(self, stream: str) -> bool:
        """Whether a REST request for the stream is running or waits for a retry."""
        return any(task.get_name() == f"fetch-{stream}" for task in asyncio.all_tasks())

    def requests(self, path: str) -> list[str]:
        """The request lines for a path, in order."""
        return [line for line in self.rest.request_lines if line.startswith(f"GET {path}")]


@asynccontextmanager
async def receiving_feed(
    exchange: ScriptedExchange,
    plan: SubscriptionPlan,
    answer: Callable[[str], bytes],
    **settings: object,
) -> AsyncIterator[Subject]:
    """Run a feed until the block ends. `answer(request line)`: the REST reply, raw bytes."""

    def reply(number: int) -> bytes:
        return answer(server.request_lines[number - 1])

    async with answering(reply) as (_, server):
        sink = RecordingSink()
        urls = {"ws_url": exchange.url, "rest_url": server.url}
        feed = Feed(
            plan,
            Exchange.model_validate({**urls, **QUICK, **settings}),
            sink,
            key=None,
            depth_levels=100,
            clock_us=now_us,
            chance=random.Random(1),
        )
        running = asyncio.create_task(feed.run())
        try:
            yield Subject(feed, sink, server)
        finally:
            running.cancel()
            await asyncio.wait([running])


def refuses(request: str) -> bytes:
    """The reply of a firewall in front of the exchange's REST."""
    return http("403 Forbidden", b"<html>firewall</html>")
