"""Workers of one group killed, stopped and added at random, while entries arrive in 50 streams.

The results are compared with what was published; candles and books are computed from it here,
without the samples' code.
"""

import json
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.support.consumer_entries import (
    START_US,
    Fields,
    depth,
    depth_snapshot,
    entry_id,
    gap,
    trade,
)
from tests.support.consumer_worker import Bench, Worker

TRADES = tuple(f"trade.M{n:02}_USDC" for n in range(25))
DEPTHS = tuple(f"depth.M{n:02}_USDC" for n in range(25))
LEASE_S = 1.0
WORKERS = 8
ACT_EVERY_S = 2.0
STEP_US = 1_000_000  # between two entries of a stream: a candle of a minute has 60 trades
CAUGHT_UP_WITHIN_S = 180.0

CONSUMERS = """
import os
import signal
from consumers import Consumer, Delivery, Results
from consumers.handlers.book import Book
from consumers.handlers.candles import Candles

def suspend_where_asked():
    # Between what a batch has handled and what it writes: a worker that resumes here is late.
    request = f"suspend-{os.getpid()}"
    if os.path.exists(request):
        os.unlink(request)
        os.kill(os.getpid(), signal.SIGSTOP)

class Tally(Consumer):
    # Shared: what it writes down itself may be there twice, its results may not.
    name = "tally"
    streams = ("trade.*", "depth.*")

    def __init__(self):
        name = f"handled-{os.getpid()}.txt"
        self.file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def on_event(self, delivery: Delivery, results: Results):
        os.write(self.file, f"{delivery.stream} {delivery.entry_id}\\n".encode())
        suspend_where_asked()
        results.hincrby("", "count", 1)
        results.hincrby("", "sum", int(delivery.entry_id.split("-")[1]))

class Exact(Consumer):
    # Ordered: candles or a book, and a line for each batch with the owner's fencing token.
    name = "exact"
    mode = "ordered"
    streams = ("trade.*", "depth.*")

    def load(self):
        self.inner = Candles() if self.stream.startswith("trade.") else Book(levels="1000")
        self.inner.stream, self.inner.state = self.stream, self.state
        self.inner.load()
        self.ids = []
        for name in ("on_trade", "on_gap", "on_depth", "on_depth_snapshot"):
            if hasattr(self.inner, name):
                setattr(self, "_" + name, getattr(self.inner, name))

    async def on_event(self, delivery: Delivery):
        self.ids.append(delivery.entry_id)
        suspend_where_asked()
        kind = {"depth_snapshot": "_on_depth_snapshot"}.get(
            delivery.event.type, "_on_" + delivery.event.type)
        waiting = getattr(self, kind)(delivery)
        if waiting is not None:
            await waiting

    def write(self, results):
        self.inner.write(results)
        if self.ids:
            fields = {"first": self.ids[0], "last": self.ids[-1], "entries": str(len(self.ids)),
                      "token": str(self.token), "pid": str(os.getpid())}
            results.xadd("batches", self.ids[-1], fields, keep_entries=1_000_000)
        self.ids = []
"""


@dataclass
class Truth:
    """Everything that was published, by stream."""

    entries: dict[str, list[tuple[str, Fields]]] = field(
        default_factory=lambda: {stream: [] for stream in (*TRADES, *DEPTHS)}
    )

    def ids(self, stream: str) -> list[str]:
        return [entry for entry, _ in self.entries[stream]]


def market(stream: str, seed: int) -> Iterator[tuple[str, Fields]]:
    """An endless sequence of a stream's entries."""
    chance = random.Random(f"{seed} {stream}")
    if stream.startswith("trade."):
        number = 0
        while True:
            number += 1
            at_us = START_US + number * STEP_US
            price, quantity = f"{chance.randint(9000, 9999) / 100:.2f}", f"{chance.randint(1, 99)}"
            yield entry_id(at_us, number), trade(number, at_us, price, quantity)
    number = 100
    yield entry_id(START_US, number, 2), depth_snapshot(number, [("90.5", "1")], [("95.5", "2")])
    while True:
        number += 1
        at_us = START_US + number * STEP_US
        if chance.random() < 0.01:  # a gap, and a new snapshot of the book
            yield entry_id(at_us, number, 1), gap(number, first=number)
            snapshot = depth_snapshot(number, [("90", "3")], [("95", "4")], at_us)
            yield entry_id(at_us, number, 2), snapshot
            continue
        bids = [(f"{chance.randint(80, 94)}", f"{chance.randint(0, 3)}")]
        asks = [(f"{chance.randint(95, 110)}", f"{chance.randint(0, 3)}")]
        yield entry_id(at_us, number), depth(number, number, bids, asks, at_us)


@contextmanager
def flowing(bench: Bench, truth: Truth, rate: int, seed: int) -> Iterator[None]:
    """Add `rate` entries a second, evenly to all streams, until the block ends."""
    over = threading.Event()
    markets = {stream: market(stream, seed) for stream in truth.entries}

    def feed() -> None:
        began, sent = time.monotonic(), 0
        while not over.wait(0.05):
            due = int((time.monotonic() - began) * rate) - sent
            with bench.redis.pipeline(transaction=False) as pipeline:
                for _ in range(min(due, rate) // len(markets)):
                    for stream, entries in markets.items():
                        at, fields = next(entries)
                        truth.entries[stream].append((at, fields))
                        pipeline.xadd(stream, fields, id=at)  # type: ignore[arg-type]
                        sent += 1
                pipeline.execute()

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        yield
    finally:
        over.set()
        feeder.join()


@dataclass
class Suspension:
    """A worker that is suspended for longer than its lease.

    With `request`, a file, the worker suspends itself within its next batch and removes the file:
    the suspension begins then.
    """

    worker: Worker
    sleep_s: float
    request: Path | None = None
    since: float | None = None

    def is_over(self, now: float) -> bool:
        if self.since is None and (self.request is None or not self.request.exists()):
            self.since = now
        return self.since is not None and now >= self.since + self.sleep_s


class Storm:
    """The workers, and the random kills, suspensions and starts."""

    def __init__(self, bench: Bench, consumer: str, seed: int, act_every_s: float) -> None:
        self._bench = bench
        self._act_every_s = act_every_s
        self._run = (f"outside:{consumer}", "--lease", str(LEASE_S))
        self._chance = random.Random(seed)
        self._suspended: list[Suspension] = []
        self.alive: list[Worker] = []
        self.done = {"kill": 0, "stop": 0, "stop in a batch": 0, "add": 0}
        (bench.folder / "outside.py").write_text(CONSUMERS)
        for _ in range(WORKERS):
            self._add()

    def rage(self, seconds: float) -> None:
        """Act on a worker every `act_every_s` for `seconds`; then resume all, and start up to
        WORKERS.
        """
        end = time.monotonic() + seconds
        next_at = time.monotonic()
        while (now := time.monotonic()) < end:
            if now >= next_at:
                next_at += self._act_every_s
                self._act()
            self._wake(now)
            time.sleep(0.05)  # polls the clock: there is no condition to wait for
        self._wake_all()
        while len(self.alive) < WORKERS:
            self._add()

    def _act(self) -> None:
        suspended = [one.worker for one in self._suspended]
        calm = [worker for worker in self.alive if worker not in suspended]
        deeds = ["add"] if len(calm) < WORKERS - 3 else list(self.done)
        if len(self.alive) > WORKERS + 1:
            deeds.remove("add")
        first = next((deed for deed in ("stop in a batch", "kill") if not self.done[deed]), None)
        deed = first or self._chance.choice(deeds)
        self.done[deed] += 1
        if deed == "add":
            self._add()
            return
        victim = self._chance.choice(calm)
        sleep_s = LEASE_S * self._chance.uniform(1.5, 4)
        if deed == "kill":
            self.alive.remove(victim)
            victim.kill()
        elif deed == "stop":
            victim.signal(signal.SIGSTOP)
            self._suspended.append(Suspension(victim, sleep_s))
        else:
            request = self._bench.folder / f"suspend-{victim.process.pid}"
            request.touch()
            self._suspended.append(Suspension(victim, sleep_s, request))

    def _add(self) -> None:
        self.alive.append(self._bench.start(*self._run))

    def _wake(self, now: float) -> None:
        for one in [one for one in self._suspended if one.is_over(now)]:
            self._suspended.remove(one)
            one.worker.signal(signal.SIGCONT)

    def _wake_all(self) -> None:
        """Wait until each suspended worker was resumed after its time, while entries still
        arrive.
        """
        while self._suspended:
            self._wake(time.monotonic())
            time.sleep(0.05)


def through_a_storm(
    bench: Bench,
    consumer: str,
    group: str,
    seconds: float,
    seed: int,
    *,
    act_every_s: float = ACT_EVERY_S,
) -> Truth:
    """Run the storm, wait until all entries are handled, and stop all workers. Returns what
    was published.
    """
    truth = Truth()
    bench.register(*truth.entries)
    storm = Storm(bench, consumer, seed, act_every_s)
    with flowing(bench, truth, rate=3000, seed=seed):
        storm.rage(seconds)
    published = sum(len(entries) for entries in truth.entries.values())
    print(f"STORM_SEED={seed} STORM_S={seconds:g}: {published} entries, {storm.done}")
    deadline = time.monotonic() + CAUGHT_UP_WITHIN_S
    behind = list(truth.entries)
    while behind and time.monotonic() < deadline:
        behind = [s for s in behind if not bench.caught_up(s, group, truth.entries[s][-1][0])]
        time.sleep(0.1)
    assert not behind, (behind, [bench.group(stream, group) for stream in behind])
    for worker in storm.alive:
        bench.until(lambda worker=worker: bench.status(group, worker))
        assert worker.stop() == 0, worker.err
    for stream in truth.entries:
        assert bench.redis.xlen(f"consumers:{{{stream}}}:{group}:dead") == 0
    return truth


def assert_everything_was_handled_and_counted_once(bench: Bench, truth: Truth) -> None:
    handled: dict[str, set[str]] = {stream: set() for stream in truth.entries}
    lines = 0
    for path in bench.folder.glob("handled-*.txt"):
        for line in path.read_text().splitlines():
            stream, at = line.split()
            handled[stream].add(at)
            lines += 1
    for stream in truth.entries:
        ids = truth.ids(stream)
        assert handled[stream] == set(ids), stream
        right = {"count": str(len(ids)), "sum": str(sum(int(at.split("-")[1]) for at in ids))}
        assert bench.redis.hgetall(f"consumers:{{{stream}}}:tally") == right, stream
    print(f"handled {lines} times, counted {sum(map(len, truth.entries.values()))}")


def assert_order_and_owners(bench: Bench, truth: Truth) -> None:
    """Each owner's batches follow each other in the stream's order without overlap; tokens only
    grow, and each has one owner.
    """
    for stream in truth.entries:
        ids = truth.ids(stream)
        index = {at: i for i, at in enumerate(ids)}
        batches = [b for _, b in _xrange(bench, f"consumers:{{{stream}}}:exact:batches")]
        at = 0
        for batch in batches:
            assert index[batch["first"]] == at, (stream, batch)
            assert index[batch["last"]] == at + int(batch["entries"]) - 1, (stream, batch)
            at += int(batch["entries"])
        assert at == len(ids), stream
        tokens = [int(batch["token"]) for batch in batches]
        assert tokens == sorted(tokens), stream
        owners: dict[int, set[str]] = {}
        for batch in batches:
            owners.setdefault(int(batch["token"]), set()).add(batch["pid"])
        assert all(len(pids) == 1 for pids in owners.values()), stream


def assert_candles(bench: Bench, truth: Truth) -> None:
    for stream in TRADES:
        right = _candles(truth.entries[stream])
        key = f"consumers:{{{stream}}}:exact:1m"
        closed = [_figures(fields) for _, fields in _xrange(bench, f"{key}:closed")]
        current: Any = bench.redis.hgetall(key)
        assert [*closed, _figures(current)] == right, stream


def assert_books(bench: Bench, truth: Truth) -> None:
    for stream in DEPTHS:
        bids, asks, update_id = _book(truth.entries[stream])
        found: Any = bench.redis.hgetall(f"consumers:{{{stream}}}:exact")
        assert found["update_id"] == update_id, stream
        assert _levels(found["bids"]) == bids, stream
        assert _levels(found["asks"]) == asks, stream


Figures = tuple[str, str, str, str, Decimal, int, str]


def _candles(entries: Sequence[tuple[str, Fields]]) -> list[Figures]:
    by_minute: dict[int, list[Fields]] = {}
    for _, fields in entries:
        by_minute.setdefault(int(fields["engine_us"]) // 60_000_000, []).append(fields)
    found: list[Figures] = []
    for trades in by_minute.values():
        prices = [one["price"] for one in trades]
        found.append(
            (
                prices[0],
                max(prices, key=Decimal),
                min(prices, key=Decimal),
                prices[-1],
                sum((Decimal(one["quantity"]) for one in trades), Decimal(0)),
                len(trades),
                "true" if found else "false",  # entries before the first one are unknown
            )
        )
    return found


def _figures(fields: Fields) -> Figures:
    return (
        fields["open"],
        fields["high"],
        fields["low"],
        fields["close"],
        Decimal(fields["volume"]),
        int(fields["trades"]),
        fields["complete"],
    )


Side = dict[Decimal, str]


def _book(entries: Sequence[tuple[str, Fields]]) -> tuple[Side, Side, str]:
    bids: Side = {}
    asks: Side = {}
    update_id = ""
    for _, fields in entries:
        if fields["type"] == "gap":  # the book is unknown until the next snapshot
            bids, asks, update_id = {}, {}, ""
            continue
        if fields["type"] == "depth_snapshot":
            bids, asks, update_id = {}, {}, fields["update_id"]
        else:
            update_id = fields["last_update_id"]
        for side, changes in ((bids, fields["bids"]), (asks, fields["asks"])):
            for price, quantity in _levels(changes).items():
                if Decimal(quantity):
                    side[price] = quantity
                else:
                    side.pop(price, None)
    return bids, asks, update_id


def _levels(text: str) -> Side:
    return {Decimal(price): quantity for price, quantity in json.loads(text)}


def _xrange(bench: Bench, key: str) -> list[tuple[str, Fields]]:
    found: Any = bench.redis.xrange(key)
    return list(found)
