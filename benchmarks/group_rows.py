"""From a Cluster of two nodes to the workers of one group: the cost of an entry by their number.

python -m benchmarks.group_rows NAME      a worker; Redis by variables, as for every command

A worker prints `ready`, starts at a line of input, ends when its input does, and then prints what
it has handled and when. The cores limit the rate of many workers; a constant cost for each entry
shows that more cores handle more.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from random import Random
from statistics import median
from typing import Any, cast

from redis import Redis

from benchmarks.consumer_rows import COUNT, trade
from benchmarks.ground import POLL_EVERY_S, ROOT, STALL_S, Broken, Ground, redis_cluster
from benchmarks.measure import Sample, cpu_s, rss_mb
from benchmarks.rows import row
from bridge.contract.events import Trade
from bridge.runtime.collector import settle_collector
from bridge.runtime.config import load_config
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_client import connect_blocking
from bridge.runtime.redis_url import with_tag
from consumers import Delivery, consumes
from consumers.kit.api.consumer import ConsumerSpec
from consumers.kit.stop import Stop
from consumers.kit.worker.worker import Settings, run_worker

NODES = 2
SPACE = KeySpace("{bench}:", 16)
STREAMS = [f"trade.M{number}_USDC" for number in range(32)]
TIMES = 16  # times the usual messages, since many workers share them
GROUP = "together"


@row("workers", "1 worker")
def one(ground: Ground) -> Sample:
    return _workers(ground, 1)


@row("workers", "4 workers")
def four(ground: Ground) -> Sample:
    return _workers(ground, 4)


@row("workers", "16 workers")
def sixteen(ground: Ground) -> Sample:
    return _workers(ground, 16)


def _workers(ground: Ground, count: int) -> Sample:
    share = TIMES * len(ground.workload.frames) // len(STREAMS)
    messages = share * len(STREAMS)
    with redis_cluster(ground.folder, NODES) as (url, pids), ExitStack() as stack:
        tagged = with_tag(url, SPACE.prefix, SPACE.shards)
        client = stack.enter_context(connect_blocking(tagged, name="benchmark"))
        _fill(client, share)
        workers = [stack.enter_context(_worker(url, str(number))) for number in range(count)]
        if any(_output(worker).readline() != "ready\n" for worker in workers):
            raise Broken("a worker did not start")
        begun = sum(map(cpu_s, pids))
        for worker in workers:
            _input(worker).write("go\n")
            _input(worker).flush()
        _wait(lambda: _is_through(client), workers)
        redis_s = sum(map(cpu_s, pids)) - begun
        memory = median(rss_mb(worker.pid) for worker in workers)
        for worker in workers:
            _input(worker).close()
        reports = [json.loads(_output(worker).read().splitlines()[-1]) for worker in workers]
    if sum(each["handled"] for each in reports) != messages:
        raise Broken(f"{messages} entries, of which were handled: {reports}")
    busy = [each for each in reports if each["handled"]]
    seconds = max(each["last_s"] for each in busy) - min(each["first_s"] for each in busy)
    cpu = sum(each["cpu_s"] for each in busy)
    return Sample(messages / seconds, cpu / messages * 1e6, redis_s / messages * 1e6, memory)


def _fill(client: Redis, share: int) -> None:
    random = Random(1)
    for stream in STREAMS:
        client.hset(SPACE.key("bridge:streams"), stream, "{}")
        symbol = stream.partition(".")[2]
        for first in range(0, share, COUNT):
            with client.pipeline(transaction=False) as pipeline:
                for number in range(first, min(first + COUNT, share)):
                    at = f"{1_788_367_440_000 + number}-{number * 10}"
                    entry = trade(number, random) | {"symbol": symbol}
                    pipeline.xadd(SPACE.key(stream), entry, id=at)
                pipeline.execute()


@contextmanager
def _worker(url: str, name: str) -> Iterator["subprocess.Popen[str]"]:
    variables = {
        "PATH": os.environ["PATH"],
        "BRIDGE_REDIS__URL": url,
        "BRIDGE_REDIS__KEY_PREFIX": SPACE.prefix,
        "BRIDGE_REDIS__SHARDS": str(SPACE.shards),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.group_rows", name],
        cwd=ROOT,
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        try:
            yield worker
        finally:
            worker.kill()


def _input(worker: "subprocess.Popen[str]") -> Any:
    return cast("Any", worker.stdin)


def _output(worker: "subprocess.Popen[str]") -> Any:
    return cast("Any", worker.stdout)


def _is_through(client: Redis) -> bool:
    """Whether every entry of every stream is acknowledged."""
    with client.pipeline(transaction=False) as pipeline:
        for stream in STREAMS:
            pipeline.xinfo_groups(SPACE.key(stream))
        replies: Sequence[Any] = pipeline.execute(raise_on_error=False)
    return all(
        isinstance(groups, list) and [(each["lag"], each["pending"]) for each in groups] == [(0, 0)]
        for groups in replies
    )


def _wait(is_done: Callable[[], bool], workers: "Sequence[subprocess.Popen[str]]") -> None:
    ends_s = time.monotonic() + STALL_S
    while not is_done():
        if time.monotonic() > ends_s or any(worker.poll() is not None for worker in workers):
            raise Broken("the workers have not handled everything")
        time.sleep(5 * POLL_EVERY_S)


# ---- a worker ------------------------------------------------------------------------------------


class _Clock:
    """Measures from the first entries to the last, without the start and the final wait."""

    def __init__(self) -> None:
        self.handled = 0
        self._first = self._last = (0.0, 0.0)

    def note(self, batch: list[Delivery[Trade]]) -> None:
        self._last = time.monotonic(), time.process_time()
        if not self.handled:
            self._first = self._last
        self.handled += len(batch)

    def report(self) -> str:
        (first_s, begun), (last_s, ended) = self._first, self._last
        figures = {"first_s": first_s, "last_s": last_s, "cpu_s": ended - begun}
        return json.dumps({"handled": self.handled, **figures})


async def _work(name: str, clock: _Clock) -> None:
    @consumes("trade.*", name=GROUP)
    def counting(batch: list[Delivery[Trade]]) -> None:
        clock.note(batch)

    settle_collector()  # as `python -m consumers run` does
    settings = Settings(
        ConsumerSpec(counting), group=GROUP, name=name, patterns=counting.streams, start="0-0"
    )
    stop = Stop()
    asyncio.get_running_loop().add_reader(sys.stdin, stop.set)  # readable at its end
    await run_worker(settings, load_config(None), stop)


def main() -> None:
    clock = _Clock()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    asyncio.run(_work(sys.argv[1], clock))
    sys.stdout.write(clock.report() + "\n")


if __name__ == "__main__":
    main()
