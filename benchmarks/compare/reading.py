"""From Redis to a handler: the speed, and what is handled when a reader or Redis is killed."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

from redis import Redis

from benchmarks.compare.peers import Reader
from benchmarks.compare.scene import Arrived, RedisProcess, start, wait_for
from benchmarks.consumer_rows import trade
from benchmarks.ground import Broken, Ground
from benchmarks.measure import Sample

STREAM = "trade.SOL_USDC"
PIECE = 500
READ_S = 60.0
KILLS = 3
SETTLE_S = 12.0


def fill(client: Redis, count: int) -> None:
    """Write `count` trades, and the registry that the kit reads first."""
    random = Random(1)
    client.hset("bridge:streams", STREAM, "{}")
    for first in range(0, count, PIECE):
        with client.pipeline(transaction=False) as pipeline:
            for number in range(first, min(count, first + PIECE)):
                at = f"{1_788_367_440_000 + number}-{number * 10}"
                pipeline.xadd(STREAM, trade(number, random), id=at)
            pipeline.execute()


def speed(reader: Reader, ground: Ground, count: int) -> Sample:
    """Measure from the first message handled to the last of `count`."""
    with ground.redis() as client:
        client.flushall()
        fill(client, count + PIECE)  # the clock stops at the first of the additional ones
    python, *arguments = reader.command(ground.redis_url, count, "")
    server = ground.redis_s()
    with ground.program(*arguments, python=python) as process:
        log = ground.folder / "program.log"
        ground.wait_for(lambda: '{"seconds"' in log.read_text(), process, READ_S)
    line = next(each for each in log.read_text().splitlines() if each.startswith('{"seconds"'))
    took = json.loads(line)
    return Sample(
        per_second=count / took["seconds"],
        cpu_us=took["cpu_s"] / count * 1e6,
        redis_us=(ground.redis_s() - server) / count * 1e6,
        rss_mb=took["rss_mb"],
    )


def killed(reader: Reader, folder: Path, count: int, outage_s: float | None) -> Arrived:
    """What was handled of `count` messages during an outage of Redis, or, with None, where the
    reader is killed repeatedly and restarted under its name.
    """
    redis, log = RedisProcess(folder), folder / "handled"
    redis.start()
    with redis.client() as client:
        fill(client, count)
    command = reader.command(f"redis://127.0.0.1:{redis.port}/0", count, str(log))
    process = start(command, folder)
    try:
        for number in range(1 if outage_s is not None else KILLS):
            if not wait_for(_has(log, (number + 1) * count // (KILLS + 2))):
                raise Broken((folder / "program.log").read_text()[-500:])
            if outage_s is not None:
                redis.kill()
                time.sleep(outage_s)
                redis.start()
            else:
                process.kill()
                process.wait()
                process = start(command, folder)
        wait_for(lambda: len(set(log.read_text().split())) >= count, SETTLE_S)
    finally:
        process.kill()
        process.wait()
        redis.kill()
    seen = Counter(log.read_text().split())
    return Arrived(count, count - len(seen), 0, sum(seen.values()) - len(seen))


def _has(log: Path, lines: int) -> Callable[[], bool]:
    return lambda: log.exists() and log.read_bytes().count(b"\n") >= lines
