"""A helper task of the feed that fails is restarted, and receiving continues."""

import asyncio
import random

import pytest
from structlog.testing import capture_logs

from bridge.core.outcomes import Applied
from bridge.core.records import Record, RestBody
from bridge.core.wants import BookWanted
from bridge.feed import feed as feed_module
from bridge.feed import fetch as fetch_module
from bridge.feed.feed import Feed
from bridge.feed.plan import SubscriptionPlan
from bridge.runtime.config import Exchange
from tests.support.eventually import eventually_async
from tests.support.fetching import fetching
from tests.support.receiving_session import QUICK, now_us
from tests.support.recording_sink import RecordingSink
from tests.support.redis_server import free_port
from tests.support.rest_answers import http
from tests.support.scripted_exchange import scripted_exchange

STREAM = "depth.SOL_USDC"


async def test_helper_that_fails_is_restarted_and_receiving_continues(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each helper reads the loop's clock or the wall clock; both raise once in each helper."""
    monkeypatch.setattr(feed_module, "SUPERVISED_BACKOFF_S", (0.01, 0.1))
    loop = asyncio.get_running_loop()
    helpers = {"clock", "instruments", "staleness"}
    failed: set[str] = set()
    read: set[str] = set()

    def stumble() -> None:
        task = asyncio.current_task()
        name = task.get_name() if task else ""
        if name in helpers and name not in failed:
            failed.add(name)
            raise ZeroDivisionError
        read.add(name)

    def clock_us() -> int:
        stumble()
        return now_us()

    sleep = asyncio.sleep

    async def sleeps(delay_s: float) -> None:
        stumble()
        await sleep(delay_s)

    monkeypatch.setattr(asyncio, "sleep", sleeps)
    async with scripted_exchange() as exchange:
        nowhere = f"http://127.0.0.1:{free_port()}"
        settings = {"ws_url": exchange.url, "rest_url": nowhere, "silence_s": 1, **QUICK}
        feed = Feed(
            SubscriptionPlan((STREAM,)),
            Exchange.model_validate(settings),
            RecordingSink(),
            key=None,
            depth_levels=100,
            clock_us=clock_us,
            chance=random.Random(1),
        )
        with capture_logs() as logged:
            running = loop.create_task(feed.run())
            await eventually_async(
                lambda: running.done() or helpers <= failed & read,
                "all helpers have failed and run again",
            )
            assert not running.done()
            await eventually_async(lambda: feed.status()[0]["connected"], "the feed is connected")
            running.cancel()
            await asyncio.wait([running])

    errors = {each["task"]: each["error"] for each in logged if each["event"] == "task_failed"}
    assert {name: errors[name] for name in helpers} == dict.fromkeys(helpers, "ZeroDivisionError")
    assert len(exchange.clients) == 1


class Stumbling(RecordingSink):
    """Raises an unexpected error at the first body."""

    def take(self, record: Record) -> Applied:
        applied = super().take(record)
        if isinstance(record, RestBody) and len(self.kept(RestBody)) == 1:
            self.wanted[STREAM] = BookWanted()
            raise ZeroDivisionError
        return applied


async def test_fetch_whose_sink_fails_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "BACKOFF_S", (0.01, 0.1))
    body = b'{"asks":[],"bids":[],"lastUpdateId":"1","timestamp":1788367430246081}'
    sink = Stumbling()
    with capture_logs() as logged:
        async with fetching(sink, [STREAM], lambda _: http("200 OK", body)):
            sink.want(STREAM, BookWanted())
            await eventually_async(lambda: not sink.wanted, "the fetch has retried")

    assert len(sink.kept(RestBody)) == 2
    assert [each["task"] for each in logged if each["event"] == "task_failed"] == [
        f"fetch-{STREAM}"
    ]
