"""The slow service of the recipe over real sockets: 20 calls at once, in order in each market."""

import asyncio
from collections import defaultdict

import redis
from aiohttp import web

from bridge.runtime.config import Config
from consumers.kit.api.consumer import ConsumerSpec
from consumers.kit.stop import Stop
from consumers.kit.worker.worker import Settings, run_worker
from examples.scorer import Scorer
from tests.support.consumer_entries import START_US, entry_id, trade

MARKETS = [f"M{number}_USDC" for number in range(20)]


class Service:
    """Replies to no call before 20 calls are open at once."""

    def __init__(self, calls: int, stop: Stop) -> None:
        self.requests: dict[str, list[str]] = defaultdict(list)
        self.running = self.most = 0
        self._left = calls
        self._stop = stop
        self._are_20 = asyncio.Event()

    async def score(self, request: web.Request) -> web.Response:
        requested = await request.json()
        self.running += 1
        self.most = max(self.most, self.running)
        self.requests[requested["symbol"]].append(requested["price"])
        if self.running == 20:
            self._are_20.set()
        await self._are_20.wait()
        self.running -= 1
        self._left -= 1
        if not self._left:
            self._stop.set()
        return web.json_response({"score": requested["price"]})


async def test_scorer_makes_20_calls_at_once_and_keeps_each_markets_order(redis_url: str) -> None:
    stop = Stop()
    service = Service(3 * len(MARKETS), stop)
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        for market in MARKETS:
            client.hset("bridge:streams", f"trade.{market}", "{}")
            for n in range(1, 5):
                at_us = START_US + n * 1000
                fields = trade(n, at_us, price=str(n)) | {"symbol": market}
                fields["source"] = "rest" if n == 4 else ""
                client.xadd(f"trade.{market}", fields, id=entry_id(at_us, n))
        app = web.Application()
        app.router.add_post("/score", service.score)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/score"
        spec = ConsumerSpec(Scorer, {"url": url})
        config = Config.model_validate({"redis": {"url": redis_url}, "retention": {}})
        await run_worker(Settings(spec, "scorer", "w", ("trade.*",), "0-0"), config, stop)
        await runner.cleanup()
        assert service.most == 20
        assert dict(service.requests) == {market: ["1", "2", "3"] for market in MARKETS}
        for market in MARKETS:
            result = client.hgetall(f"consumers:{{trade.{market}}}:scorer")
            assert result == {"trade_id": "3", "score": "3", "scored": "3"}
