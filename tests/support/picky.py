"""A consumer that fails, kills its worker, hangs or is slow at one entry, and a bench with 50
entries.
"""

import subprocess
from collections import Counter

import pytest

from tests.support.consumer_commands import run_here
from tests.support.consumer_entries import START_US, Fields, entry_id, trade
from tests.support.consumer_worker import Bench

STREAM = "trade.SOL_USDC"

# Entry 7 fails, kills, hangs or is slow, according to the key "how", until that key is deleted.
PICKY = """
import asyncio, os, signal, sys, time
import redis
from bridge.contract.events import Trade
from consumers import Consumer, Delivery, Results, every

client = redis.Redis.from_url(os.environ["BRIDGE_REDIS__URL"], decode_responses=True)

def how(delivery):
    return client.get("how") if delivery.event.trade_id == 7 else None

class Textless(Exception):
    def __str__(self):
        raise KeyError("text")

class Picky(Consumer):
    name = "picky"
    streams = ("trade.*",)
    attempts = 3
    time_limit_s = 0.5

    def on_trade(self, delivery: Delivery[Trade], results: Results):
        match how(delivery):
            case "fail":
                client.incr("begun")
                raise ValueError("seven is not to my taste")
            case "surrogate in a result":
                results.set("text", "\\ud83d")
            case "surrogate in a part":
                results.set("\\ud83d", "text")
            case "surrogate in the error":
                raise ValueError("\\ud83d")
            case "error without text":
                raise Textless
            case "kill":
                client.incr("begun")
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                client.incr("begun")
                time.sleep(600)
        results.hincrby("seen", str(delivery.event.trade_id), 1)

class Blocking(Picky):
    name = "blocking"
    on_failure = "block"

class Ordered(Picky):
    name = "ordered"
    mode = "ordered"
    on_failure = "dead_letter"

    def __init__(self, slow_s="0"):
        self.slow_s = float(slow_s)

    def on_trade(self, delivery: Delivery[Trade], results: Results):
        time.sleep(self.slow_s)
        super().on_trade(delivery, results)

class Refused(Picky):
    name = "refused"

    def on_trade(self, delivery: Delivery[Trade], results: Results):
        super().on_trade(delivery, results)
        if how(delivery) == "refused":
            results.hincrby("other", "n", 1)  # a key of another kind

class RefusedOrdered(Refused):
    name = "refused-ordered"
    mode = "ordered"
    on_failure = "dead_letter"

class NoJson(Ordered):
    name = "no-json"

    def on_trade(self, delivery, results):
        super().on_trade(delivery, results)
        if how(delivery) == "no json":
            self.state["who"] = object()

class Async(Consumer):
    name = "async"
    streams = ("trade.*",)
    attempts = 2
    time_limit_s = 0.3

    async def on_trade(self, delivery: Delivery[Trade], results: Results):
        if how(delivery) == "hang":
            await asyncio.sleep(600)
        if how(delivery) == "await what was cancelled":
            gone = asyncio.ensure_future(asyncio.sleep(600))
            gone.cancel()
            await gone
        while how(delivery) == "catch its cancellation":
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                client.incr("cancelled")
        results.hincrby("seen", str(delivery.event.trade_id), 1)

class AsyncOrdered(Async):
    name = "async-ordered"
    mode = "ordered"
    on_failure = "dead_letter"

class OrderedAtOnce(AsyncOrdered):
    name = "ordered-at-once"
    concurrency = 3

    async def on_trade(self, delivery: Delivery[Trade], results: Results):
        if how(delivery) == "cancel itself":
            asyncio.current_task().cancel()
            await asyncio.sleep(0)
        await super().on_trade(delivery, results)

class Aside(Async):
    name = "aside"
    on_undecodable = "dead_letter"

class AsideOrdered(AsyncOrdered):
    name = "aside-ordered"
    on_undecodable = "dead_letter"

class Joined(Picky):
    name = "joined"
    mode = "joined"
    on_failure = "block"

class Leaves(Picky):
    name = "leaves"

    def on_trade(self, delivery, results):
        sys.exit(3)

class Timed(Picky):
    name = "timed"

    @every("1s")
    def note(self, tick, results):
        results.set("tick", str(tick.at_us))

class TimedOrdered(Timed):
    name = "timed-ordered"
    mode = "ordered"
    on_failure = "dead_letter"

class Private(Consumer):
    name = "private"
    streams = ("account.*",)
    attempts = 1

    def on_event(self, delivery):
        raise ValueError(f"no: {delivery.event.available}")
"""
RUN = ("--lease", "0.6")
ALL_BUT_SEVEN = Counter(n for n in range(1, 51) if n != 7)
BOTH_MODES = pytest.mark.parametrize(
    ("name", "group"), [("Picky", "picky"), ("Ordered", "ordered")]
)


def trades(first: int, last: int) -> dict[str, Fields]:
    return {last_id(n): trade(n, START_US + n * 1000) for n in range(first, last + 1)}


def last_id(number: int) -> str:
    return entry_id(START_US + number * 1000, number)


def seen(bench: Bench, group: str, stream: str = STREAM) -> Counter[int]:
    found: dict[str, str] = bench.redis.hgetall(f"consumers:{{{stream}}}:{group}:seen")  # type: ignore[assignment]
    return Counter({int(number): int(times) for number, times in found.items()})


def dead_letters(bench: Bench, group: str, stream: str = STREAM) -> list[dict[str, str]]:
    return [fields for _, fields in bench.redis.xrange(f"consumers:{{{stream}}}:{group}:dead")]  # type: ignore[union-attr, misc]


def deadletters(bench: Bench, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_here(bench.folder, bench.url, "deadletters", *arguments)


@pytest.fixture
def picky(bench: Bench) -> Bench:
    (bench.folder / "outside.py").write_text(PICKY)
    bench.register(STREAM)
    bench.add(STREAM, trades(1, 50))
    return bench
