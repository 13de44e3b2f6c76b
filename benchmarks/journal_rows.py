"""Rows for stored data: a journal replayed into an empty Redis, and a stream audited.

Each includes the start of its program, so it uses more messages than other rows.
"""

import os
import subprocess
import sys
import time
from dataclasses import replace

import yaml

from benchmarks.ground import ROOT, Broken, Ground
from benchmarks.measure import Sample, memory_samples
from benchmarks.rows import row
from benchmarks.workload import Workload, make

TIMES = 20  # times the usual messages
KEPT = 100_000_000  # entries: all of them
LIMIT_S = 60


@row("replay", "replay, of all types of streams")
def replayed(ground: Ground) -> Sample:
    own = _recorded(ground, make(_count(ground), len(ground.workload.books)))
    with own.redis() as client:
        client.flushall()
        sample = _spent(own, "replay", "data/journal")
        if not own.all_published(client)():
            raise Broken("not all of the journal is in Redis")
    return sample


@row("audit", "audit, of trades in Redis and in the journal")
def audited(ground: Ground) -> Sample:
    own = _recorded(ground, make(_count(ground), 1, ["trade"]))
    return _spent(own, "audit", *own.workload.streams)


def _count(ground: Ground) -> int:
    return TIMES * len(ground.workload.frames)


def _recorded(ground: Ground, workload: Workload) -> Ground:
    """A ground whose Redis and journal have these messages."""
    ground.folder.mkdir(parents=True, exist_ok=True)
    own = replace(ground, workload=workload, workload_path=ground.folder / "workload")
    workload.save(own.workload_path)
    with own.exchange() as exchange, own.redis() as client:
        kinds = {stream.partition(".")[0] for stream in workload.streams}
        config = {
            "exchange": {"ws_url": exchange.ws_url, "rest_url": exchange.rest_url},
            "redis": {"url": own.redis_url},
            "streams": workload.streams,
            "retention": {kind: {"max_entries": KEPT} for kind in kinds},
        }
        (own.folder / "config.yaml").write_text(yaml.safe_dump(config))
        with own.program("-m", "bridge", "run") as process:
            exchange.wait_until_subscribed()
            own.published(process, exchange, client)
            process.terminate()
            process.wait(LIMIT_S)
    return own


def _spent(ground: Ground, *command: str) -> Sample:
    """The cost of a command of the bridge for each message, from its start to its end."""
    messages = len(ground.workload.frames)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    server, begun_s = ground.redis_s(), time.monotonic()
    with (ground.folder / "command.log").open("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "bridge", *command],
            cwd=ground.folder, env=environment, stdout=output, stderr=output,
        )  # fmt: skip
        with memory_samples(process.pid) as samples:
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - begun_s
        if status:
            output.seek(0)
            raise Broken(output.read()[-500:])
    return Sample(
        per_second=messages / seconds,
        cpu_us=(usage.ru_utime + usage.ru_stime) / messages * 1e6,
        redis_us=(ground.redis_s() - server) / messages * 1e6,
        rss_mb=max(samples),
    )
