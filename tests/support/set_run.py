"""A bridge, consumers of both modes and dead letters on a set of servers, and the verdict.

The exchange's ledger is the reference for the streams, and the streams are the reference for the
consumers: no loss, no duplicates, right order, and each entry counted once.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_client import connect_blocking
from bridge.runtime.redis_url import with_tag
from consumers.kit.redis.keys import Keys
from tests.support import truth
from tests.support.bridge_run import BridgeRun, running_bridge
from tests.support.consumer_worker import Worker
from tests.support.eventually import eventually_async
from tests.support.redis_sets import Cluster, Watched
from tests.support.simulator_process import RunningSimulator, running_simulator

MARKETS = ("SOL_USDC", "BTC_USDC")
OF_FOUR_SHARDS = ("JUP_USDC", "ETH_USDC", "BONK_USDC", "SOL_USDC")  # in the order of their shards
BAD_EVERY = 250  # a trade whose number is divisible by this becomes a dead letter
CAUGHT_UP_S = 90.0
KEPT = {"max_entries": 2_000_000}

CONSUMERS = f"""
from consumers import Consumer

class _Counting(Consumer):
    streams = ("trade.*", "depth.*")

class Shared(_Counting):
    name = "shared"

    def on_event(self, delivery, results):
        results.hincrby("", "count", 1)
        results.hincrby("", "sum", int(delivery.entry_id.split("-")[1]) % 1000003)

class Ordered(_Counting):
    name = "ordered"
    mode = "ordered"

    def load(self):
        self.count = int(self.state.get("count", 0))
        self.sum = int(self.state.get("sum", 0))
        self.last = self.state.get("last", "0-0")

    def on_event(self, delivery):
        ms, seq = map(int, self.last.split("-"))
        assert (ms, seq) < tuple(map(int, delivery.entry_id.split("-"))), "out of order"
        self.last = delivery.entry_id
        self.count += 1
        self.sum += int(delivery.entry_id.split("-")[1]) % 1000003

    def write(self, results):
        for name in ("count", "sum", "last"):
            self.state[name] = str(getattr(self, name))
        results.hset("", {{"count": self.count, "sum": self.sum}})

class Failing(Consumer):
    name = "failing"
    streams = ("trade.*",)
    attempts = 1

    def on_trade(self, delivery):
        if int(delivery.event.trade_id) % {BAD_EVERY} == 0:
            raise ValueError("a bad one")
"""


def streams_of(markets: Sequence[str]) -> tuple[str, ...]:
    """The received streams of these markets."""
    return tuple(f"{kind}.{market}" for kind in ("trade", "depth") for market in markets)


@dataclass(frozen=True, slots=True)
class SetRun:
    """A run in progress."""

    servers: Watched | Cluster
    space: KeySpace
    markets: Sequence[str]
    exchange: RunningSimulator
    bridges: list[BridgeRun]
    workers: list[Worker]
    ledger: Path

    @property
    def streams(self) -> tuple[str, ...]:
        return streams_of(self.markets)

    @property
    def url(self) -> str:
        return with_tag(self.servers.url, self.space.prefix, self.space.shards)

    def client(self) -> redis.Redis:
        """A client of the current primary."""
        return connect_blocking(self.url, name="judge")

    def length(self, streams: Sequence[str]) -> int:
        """The number of entries in these streams; -1 while Redis is unavailable."""
        try:
            with self.client() as client:
                return sum(client.xlen(self.space.key(name)) for name in streams)  # type: ignore[misc]
        except redis.RedisError:
            return -1

    async def grows(self, by: int = 300, markets: Sequence[str] = ()) -> None:
        """Wait until streams of these markets, or of all, have `by` more entries."""
        before = [-1]
        streams = streams_of(markets or self.markets)

        def fact() -> bool:
            now = self.length(streams)
            if before[0] < 0 or now < before[0]:
                before[0] = now
            return 0 <= before[0] <= now - by

        await eventually_async(
            lambda: asyncio.to_thread(fact), "the streams have more entries", CAUGHT_UP_S
        )

    async def stop(self) -> None:
        """Stop the workers, then the bridges."""
        for worker in self.workers:
            assert worker.stop() == 0, worker.err[-2000:]
        for bridge in self.bridges:
            assert await bridge.stop() == 0, bridge.log()[-2000:]

    async def flaws(self, *, had_stopped: bool = False) -> list[str]:
        """End the exchange, wait until all have caught up, and judge. `had_stopped`: no bridge ran
        for a time, so that gaps may mark missing messages.
        """
        self.exchange.stop()
        sent = truth.sent_by_stream(truth.read_ledger(self.ledger))
        await eventually_async(
            lambda: asyncio.to_thread(self._is_there, sent),
            "all messages are in Redis",
            CAUGHT_UP_S,
        )
        found = self._chains() if had_stopped else self._streams(sent)
        found += await self._consumers_until_done()
        for worker in self.workers:
            if worker.stop() != 0:
                found.append(f"{worker.name} ended badly: {worker.err[-2000:]}")
            if "commit_refused" in worker.err or "Traceback" in worker.err:
                found.append(f"{worker.name} says: {worker.err[-2000:]}")
        for bridge in self.bridges:
            if await bridge.stop() != 0 or "Traceback" in bridge.log():
                found.append(f"a bridge says: {bridge.log()[-3000:]}")
            if "stream_suspended" in bridge.log():
                found.append("a stream was suspended")
        return found

    def _is_there(self, sent: Mapping[str, list[dict[str, Any]]]) -> bool:
        try:
            with self.client() as client:
                return all(
                    _newest_number(client, self._key(name)) >= _number(name, sent[name][-1])
                    for name in self.streams
                )
        except redis.RedisError:
            return False

    def _streams(self, sent: Mapping[str, list[dict[str, Any]]]) -> list[str]:
        with self.client() as client:
            return [
                flaw
                for name in self.streams
                for flaw in truth.compare(name, sent[name], _entries(client, self._key(name)))
            ]

    def _chains(self) -> list[str]:
        with self.client() as client:
            return [
                f"{name}: {flaw}"
                for name in self.streams
                for flaw in _breaks(_entries(client, self._key(name)))
            ]

    async def _consumers_until_done(self) -> list[str]:
        try:
            await eventually_async(
                lambda: asyncio.to_thread(lambda: not self._consumers()),
                "the consumers' results are complete",
                CAUGHT_UP_S,
            )
        except AssertionError:
            return self._consumers()
        return []

    def _consumers(self) -> list[str]:
        """The differences between the consumers' results and the streams."""
        found: list[str] = []
        if not self.workers:
            return found
        keys = Keys(self.space)
        with self.client() as client:
            for name in self.streams:
                entries = _entries(client, self._key(name))
                total = sum(int(one.split("-")[1]) % 1_000_003 for one, _ in entries)
                wanted = {"count": str(len(entries)), "sum": str(total)}
                for group in ("shared", "ordered"):
                    made: Any = client.hgetall(keys.beside(name, group))
                    if made != wanted:
                        found.append(f"{group} of {name} has {made}, the stream {wanted}")
                if name.startswith("trade."):
                    found += _dead_letter_faults(client, keys, name, entries)
        return found

    def _key(self, name: str) -> str:
        return self.space.key(name)


@asynccontextmanager
async def running_on(
    servers: Watched | Cluster,
    folder: Path,
    rate: int,
    bridges: int = 1,
    *,
    space: KeySpace | None = None,
    markets: Sequence[str] = MARKETS,
    **sections: Mapping[str, object],
) -> AsyncIterator[SetRun]:
    """Bridges of the same streams and consumers on this set, and a market of `rate` messages a
    second.

    `space`: for several shards; `sections`: of the bridges' configuration.
    """
    space = space or KeySpace(servers.prefix)
    ledger = folder / "ledger.jsonl"
    listed = [word for name in markets for word in ("--market", name)]
    async with running_simulator("--rate", str(rate), *listed, ledger=ledger) as exchange:
        clients = running_clients(
            servers, exchange, ledger, folder, bridges, space=space, markets=markets, **sections
        )
        async with clients as run:
            yield run


@asynccontextmanager
async def running_clients(
    servers: Watched | Cluster,
    exchange: RunningSimulator,
    ledger: Path,
    folder: Path,
    bridges: int = 1,
    *,
    space: KeySpace,
    markets: Sequence[str],
    **sections: Mapping[str, object],
) -> AsyncIterator[SetRun]:
    """Bridges and consumers of a market that already runs."""
    (folder / "effects.py").write_text(CONSUMERS)
    timeouts = {"connect_timeout_s": 1, "command_timeout_s": 3}
    sharded = {"shards": space.shards} if space.shards > 1 else {}
    variables = {f"BRIDGE_REDIS__{name.upper()}": str(s) for name, s in timeouts.items()}
    variables |= {f"BRIDGE_REDIS__{name.upper()}": str(n) for name, n in sharded.items()}
    workers: list[Worker] = []
    async with AsyncExitStack() as stack:
        started = [
            await stack.enter_async_context(
                running_bridge(
                    folder / f"bridge-{number}",
                    exchange.ws_url,
                    servers.url,
                    streams_of(markets),
                    instance=f"bridge-{number}",
                    status_url=servers.owner().url,
                    redis={"url": servers.url, **sharded, **timeouts},
                    retention={"trade": KEPT, "depth": KEPT},
                    **sections,
                )
            )
            for number in range(bridges)
        ]
        try:
            for kind in ("Shared", "Shared", "Ordered", "Ordered", "Failing"):
                workers.append(
                    Worker(
                        folder,
                        servers.url,
                        f"effects:{kind}",
                        "--lease",
                        "2",
                        name=f"{kind.lower()}-{len(workers)}",
                        **variables,
                    )
                )
            run = SetRun(servers, space, markets, exchange, started, workers, ledger)
            await run.grows()
            yield run
        finally:
            for worker in workers:
                if worker.process.poll() is None:
                    worker.kill()


def _entries(client: redis.Redis, key: str) -> list[truth.Entry]:
    found: list[truth.Entry] = []
    start = "-"
    while True:
        page: Any = client.xrange(key, start, "+", 5000)
        found += page
        if len(page) < 5000:
            return found
        start = f"({page[-1][0]}"


def _breaks(entries: list[truth.Entry]) -> list[str]:
    """Numbers that are missing without a gap or duplicated."""
    found, position = [], -1
    for entry_id, fields in entries:
        if fields["type"] == "depth_snapshot" or (fields["type"] == "gap" and not fields["from"]):
            continue
        last = fields.get("to") or fields.get("trade_id") or fields["last_update_id"]
        first = int(fields.get("from") or fields.get("first_update_id") or last)
        if position not in (-1, first - 1):
            found.append(f"{entry_id} begins at {first}, after {position}")
        position = int(last)
    return found


def _dead_letter_faults(
    client: redis.Redis, keys: Keys, name: str, entries: list[truth.Entry]
) -> list[str]:
    dead_letters = [
        fields["entry_id"] for _, fields in _entries(client, keys.dead(name, "failing"))
    ]
    wanted = [
        one
        for one, fields in entries
        if fields["type"] == "trade" and int(fields["trade_id"]) % BAD_EVERY == 0
    ]
    group: Any = client.xpending(keys.stream(name), "failing")
    if sorted(dead_letters) != sorted(wanted) or group["pending"]:
        return [
            f"{name} has {len(dead_letters)} dead letters, {len(wanted)} trades were bad: {group}"
        ]
    return []


def _number(stream: str, data: Mapping[str, Any]) -> int:
    return int(data["t" if stream.startswith("trade.") else "u"])


def _newest_number(client: redis.Redis, key: str) -> int:
    for _, fields in client.xrevrange(key, count=10):  # type: ignore[union-attr]
        if fields["type"] in ("trade", "depth"):
            return int(fields.get("trade_id") or fields["last_update_id"])
    return -1
