"""What only helps with hearing may fail in any way: hearing goes on, and the helper is back."""

import asyncio
import random

import pytest
from structlog.testing import capture_logs

from bridge.contract.streams import parse_stream
from bridge.feed import feed as feed_module
from bridge.feed.asking import Asking
from bridge.feed.feed import Feed
from bridge.feed.wanted import Wanted
from bridge.journal.hearing import Hearing
from bridge.pipeline.intake import Intake
from bridge.runtime.backoff import Backoff
from bridge.runtime.config import Exchange
from tests.support.eventually import eventually_async
from tests.support.hearing_lane import QUICK, now_us
from tests.support.redis_server import free_port
from tests.support.rest_answers import answering, http
from tests.support.scripted_exchange import scripted_exchange

STREAM = "depth.SOL_USDC"


async def test_a_helper_that_fails_is_begun_again_and_hearing_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The clock that all of them look at fails once in each."""
    monkeypatch.setattr(feed_module, "TENDING_BACKOFF_S", (0.01, 0.1))
    failed: set[str] = set()
    looked: list[str] = []

    def clock_us() -> int:
        task = asyncio.current_task()
        name = task.get_name() if task else ""
        if name.startswith(("asking", "clock", "listing", "silence")) and name not in failed:
            failed.add(name)
            raise ZeroDivisionError
        looked.append(name)
        return now_us()

    intake = Intake([parse_stream(STREAM)], hold_us=0, snapshot_every=0, ask=lambda _: None)
    hearing = Hearing(
        intake, buffer_bytes=1 << 30, keep_private=True, clock_us=clock_us, on_items=lambda: None
    )
    async with scripted_exchange() as exchange:
        nobody = f"http://127.0.0.1:{free_port()}"
        settings = {"ws_url": exchange.url, "rest_url": nobody, "silence_s": 1, **QUICK}
        feed = Feed(
            Wanted((STREAM,)),
            Exchange.model_validate(settings),
            hearing,
            key=None,
            depth_levels=100,
            clock_us=clock_us,
            chance=random.Random(1),
        )
        with capture_logs() as said:
            running = asyncio.create_task(feed.run())
            helpers = {"clock", "listing", "silence"}
            await eventually_async(
                lambda: running.done() or helpers <= failed & set(looked), "they are back"
            )
            assert not running.done()
            assert feed.status()[0]["connected"]
            running.cancel()
            await asyncio.wait([running])

    told = {each["task"]: each["error"] for each in said if each["event"] == "task_failed"}
    assert {name: told[name] for name in helpers} == dict.fromkeys(helpers, "ZeroDivisionError")
    assert len(exchange.clients) == 1


async def test_an_asking_that_fails_asks_again() -> None:
    """The one who takes bodies stumbles over the first."""
    took: list[bytes] = []

    class Stumbles:
        def rest_body(self, name: str, text: bytes, what: str = "") -> None:
            took.append(text)
            if len(took) == 1:
                raise ZeroDivisionError

        def misses_book(self, name: str) -> bool:
            return True

        def is_wanted(self, name: str) -> bool:
            return True

        def missing_trades(self, name: str) -> int | None:
            return None

        def missing_fills(self, name: str) -> tuple[int, int] | None:
            return None

        def heard(self, name: str) -> int:
            return 0

    async with answering(lambda _: http("200 OK", b"{}")) as (rest, _):
        asking = Asking(
            Stumbles(),
            rest,
            depth_levels=100,
            new_backoff=lambda: Backoff(0.01, 0.1, random.Random(1)),
            new_late_backoff=lambda: Backoff(0.01, 0.1, random.Random(1)),
        )
        running = asyncio.create_task(asking.run())
        asking.want(parse_stream(STREAM))
        await eventually_async(lambda: running.done() or len(took) == 2, "it asks again")
        assert not running.done()
        running.cancel()
        await asyncio.wait([running])
