"""Time of a bridge from its command to the first entry in Redis, with many streams.

The exchange sends as soon as it is subscribed, so this measures the program's start, the handshake,
the subscriptions, and the first batch. (It also includes the quiet time after which the exchange
takes the subscription as complete.)
"""

import statistics
import time
from dataclasses import replace

import yaml

from benchmarks.ground import Ground
from benchmarks.measure import cpu_s
from benchmarks.workload import make

MARKETS = 100
MESSAGES = 12_000
LIMIT_S = 60.0


def measure(ground: Ground, rounds: int) -> list[str]:
    """The lines of the table."""
    folder = ground.folder / "start"
    folder.mkdir()
    workload = make(MESSAGES, MARKETS)
    workload.save(folder / "workload")
    own = replace(ground, workload=workload, workload_path=folder / "workload")
    taken = [_start(replace(own, folder=folder / str(number))) for number in range(rounds)]
    seconds, cpu = (statistics.median(each) for each in zip(*taken, strict=True))
    return [
        "| | s | CPU s |",
        "| --- | ---: | ---: |",
        f"| bridge, {len(workload.streams)} streams | {seconds:.2f} | {cpu:.2f} |",
    ]


def _start(ground: Ground) -> tuple[float, float]:
    """Seconds from the command to the first entry, and processor time until then."""
    with ground.exchange() as exchange, ground.redis() as client:
        client.flushall()
        _write_config(ground, exchange.ws_url, exchange.rest_url)
        begun_s = time.monotonic()
        with ground.program("-m", "bridge", "run") as process:
            exchange.wait_until_subscribed()
            exchange.go(0)
            ground.wait_for(
                lambda: any(client.exists(name) for name in ground.workload.streams),
                process,
                LIMIT_S,
            )
            return time.monotonic() - begun_s, cpu_s(process.pid)


def _write_config(ground: Ground, ws_url: str, rest_url: str) -> None:
    ground.folder.mkdir(parents=True)
    config = {
        "exchange": {"ws_url": ws_url, "rest_url": rest_url},
        "redis": {"url": ground.redis_url},
        "streams": ground.workload.streams,
    }
    (ground.folder / "config.yaml").write_text(yaml.safe_dump(config))
