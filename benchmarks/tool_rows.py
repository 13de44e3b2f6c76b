"""redis-benchmark at the bridge's pipeline depth: the cost of a C client, without an exchange."""

import os
import shutil
import subprocess
import time

from benchmarks.ground import Ground
from benchmarks.measure import Sample, Skipped
from benchmarks.rows import row

TOOLS = ("redis-benchmark", "valkey-benchmark")
DEPTH = 256  # the bridge's batch
TRADE = {
    "type": "trade",
    "symbol": "SOL_USDC",
    "price": "98.97",
    "quantity": "3.99",
    "trade_id": "512345678",
    "buyer_order_id": "111063070525358080",
    "seller_order_id": "111063070525358081",
    "buyer_is_maker": "false",
    "source": "",
    "event_us": "1790915531000000",
    "engine_us": "1790915530999000",
    "received_us": "1790915531000400",
    "extra": "",
}


@row("saturated", f"redis-benchmark, XADD, {DEPTH} in a pipeline")
def redis_benchmark(ground: Ground) -> Sample:
    tool = next((found for name in TOOLS if (found := shutil.which(name))), None)
    if tool is None:
        raise Skipped("neither redis-benchmark nor valkey-benchmark is on the PATH (redis-tools)")
    messages = 10 * len(ground.workload.frames)
    entry = [part for field in TRADE.items() for part in field]
    command = [tool, "-q", "-p", str(ground.redis_port), "-c", "1", "-P", str(DEPTH)]
    command += ["-n", str(messages), "XADD", "trade.SOL_USDC", "MAXLEN", "~", "200000", "*", *entry]
    server, begun_s = ground.redis_s(), time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise Skipped(f"{tool} failed")
    return Sample(
        per_second=messages / (time.monotonic() - begun_s),
        cpu_us=(usage.ru_utime + usage.ru_stime) / messages * 1e6,
        redis_us=(ground.redis_s() - server) / messages * 1e6,
    )
