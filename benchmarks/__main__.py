"""`make bench`: measures every row in turn, several rounds, and prints medians side by side.

BENCH_ROUNDS=3        rounds; within each, every row once
BENCH_MESSAGES=10000  messages a measurement
BENCH_RATE=5000       messages a second where the rate is fixed
BENCH_MARKETS=5       markets, of six streams each
BENCH_ONLY=bridge     only rows whose table or name contains this
"""

import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import stages, start
from benchmarks.ground import Broken, Ground, redis_server
from benchmarks.measure import Sample, Skipped
from benchmarks.rows import TABLES, Row, all_rows
from benchmarks.workload import make

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
MESSAGES = int(os.environ.get("BENCH_MESSAGES", "10000"))
RATE = float(os.environ.get("BENCH_RATE", "5000"))
MARKETS = int(os.environ.get("BENCH_MARKETS", "5"))
ONLY = os.environ.get("BENCH_ONLY", "")
PACED = ("paced", "latency")

Results = Mapping[Row, list[Sample] | str]


def main() -> int:
    """Measure and print. Returns the exit code."""
    if sys.argv[1:]:  # options are environment variables
        print(__doc__)
        return 0 if sys.argv[1] in ("-h", "--help") else 2
    begun_s = time.monotonic()
    rows = [each for each in all_rows() if ONLY in each.name or ONLY in each.table]
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        workload = make(MESSAGES, MARKETS)
        workload.save(folder / "workload")
        with redis_server(folder) as (port, pid):
            ground = Ground(folder, workload, folder / "workload", port, [pid])
            results = measure(rows, ground)
            begun = start.measure(ground, ROUNDS) if ONLY in "start" else []
        parts = stages.measure(workload, 3 * ROUNDS) if ONLY in "stages" else {}
    print(_heading(time.monotonic() - begun_s))
    for table, title in TABLES.items():
        if lines := list(_table([each for each in rows if each.table == table], results)):
            suffix = f" ({RATE:g} messages a second)" if table in PACED else ""
            print(f"\n{title}{suffix}\n", *lines, sep="\n")
    if begun:
        print("\nFrom the command to the first entry in Redis\n", *begun, sep="\n")
    if parts:
        print(
            "\nInside the bridge, stage by stage (journal on; the best of several rounds)\n",
            *parts,
            sep="\n",
        )
    return 0


def measure(rows: Sequence[Row], ground: Ground) -> Results:
    """Run the rounds, each row once a round. A row that cannot be measured here is reported and not
    retried; one that fails is left out of that round.
    """
    results: dict[Row, list[Sample] | str] = {each: [] for each in rows}
    for number in range(ROUNDS):
        for place, each in enumerate(rows):
            samples = results[each]
            if isinstance(samples, str):
                continue
            _progress(f"round {number + 1} of {ROUNDS}: {each.table}, {each.name}")
            with ground.redis() as client:
                client.flushall()
            own = replace(
                ground,
                folder=ground.folder / f"{number}-{place}",
                rate=RATE if each.table in PACED else 0.0,
                is_read=each.table == "latency",
            )
            try:
                samples.append(each.measure(own))
            except Skipped as reason:
                results[each] = f"skipped: {reason}"
            except Broken as reason:
                print(f"{each.table}, {each.name}, round {number + 1}: {reason}", file=sys.stderr)
    _progress("")
    return results


def _table(rows: Sequence[Row], results: Results) -> list[str]:
    """A table of medians; the ratios are relative to the first row."""
    lines: list[str] = []
    first: Sample | None = None
    for each in rows:
        samples = results[each]
        if isinstance(samples, str) or not samples:
            lines.append(f"| {each.name} | {samples or 'failed'} | | | | |")
            continue
        sample = _median(samples)
        first = first or sample
        memory = "" if sample.rss_mb is None else f"{sample.rss_mb:.0f}"
        lines.append(
            f"| {each.name} | {sample.per_second:,.0f} | {sample.cpu_us:.1f} | "
            f"{_ratio(sample.cpu_us, first.cpu_us)} | {sample.redis_us:.1f} | {memory} |"
            + "".join(f" {each:.2f} |" for each in sample.latencies_ms)
        )
    if lines:
        lines[:0] = [
            "| | messages/s | CPU µs/message | × first | Redis CPU µs/message | RSS MB |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
    if first is not None and first.latencies_ms:
        lines[0] += " p50 ms | p99 ms | p99.9 ms |"
        lines[1] += " ---: | ---: | ---: |"
    return lines


def _ratio(cpu_us: float, first_us: float) -> str:
    """The ratio; empty where the first row used less than one clock tick."""
    return f"{cpu_us / first_us:.2f}" if first_us else ""


def _median(samples: Sequence[Sample]) -> Sample:
    memories = [sample.rss_mb for sample in samples if sample.rss_mb is not None]
    return Sample(
        statistics.median(sample.per_second for sample in samples),
        statistics.median(sample.cpu_us for sample in samples),
        statistics.median(sample.redis_us for sample in samples),
        statistics.median(memories) if memories else None,
        tuple(map(statistics.median, zip(*(each.latencies_ms for each in samples), strict=True))),
    )


def _heading(seconds: float) -> str:
    return (
        f"{ROUNDS} rounds of {MESSAGES} messages of {MARKETS} markets, medians; {seconds:.0f} s; "
        f"Python "
        f"{platform.python_version()}, {os.cpu_count()} cores, {platform.system()} "
        f"{platform.machine()}"
    )


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
