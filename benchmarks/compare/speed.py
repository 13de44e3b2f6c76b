"""Speed and cost: one writer at a time, with the same messages."""

import contextlib
import subprocess
import time
from collections.abc import Iterator

from redis import Redis

from benchmarks.compare.peers import Place, Writer
from benchmarks.ground import Broken, Exchange, Ground
from benchmarks.measure import Sample
from benchmarks.workload import MARKETS

STILL_S = 5.0  # without a new entry for so long, a writer is taken as ended


def saturated(writer: Writer, ground: Ground) -> Sample:
    """Send everything at once; measured until Redis has it all. Raises Broken if it never has."""
    with _writing(writer, ground) as (process, exchange, client):
        total = len(ground.workload.frames)
        seen, at_s = 0, time.monotonic()

        def is_done() -> bool:
            nonlocal seen, at_s
            written = _written(writer, client)
            if written != seen:
                seen, at_s = written, time.monotonic()
            elif time.monotonic() - at_s > STILL_S:
                raise Broken(f"{written:,} of {total:,} arrived")
            return written >= total

        return ground.measured(process, lambda: exchange.go(0), is_done, total)


def paced(writer: Writer, ground: Ground) -> Sample:
    """Send at a rate, and measure until a waiting reader has each message of one stream. Raises
    Broken where not all arrive.
    """
    stream = max(ground.workload.counts, key=lambda each: ground.workload.counts[each])
    with _writing(writer, ground) as (process, exchange, _):
        try:
            return ground.read(process, exchange, stream, writer.key_of(stream.partition(".")[2]))
        except Broken:
            if process.poll() is not None:
                raise
            raise Broken("not all arrived") from None


@contextlib.contextmanager
def _writing(
    writer: Writer, ground: Ground
) -> Iterator[tuple[subprocess.Popen[bytes], Exchange, Redis]]:
    with ground.exchange() as exchange, ground.redis() as client:
        client.flushall()
        urls = (exchange.ws_url, exchange.rest_url, ground.redis_url)
        python, *arguments = writer.command(Place(ground.folder, *urls, MARKETS))
        with ground.program(*arguments, python=python) as process:
            exchange.wait_until_subscribed()
            yield process, exchange, client


def _written(writer: Writer, client: Redis) -> int:
    with client.pipeline(transaction=False) as pipeline:
        for market in MARKETS:
            pipeline.xlen(writer.key_of(market))
        return sum(pipeline.execute())
