"""Measurements: processor time and memory, as the operating system counts them."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

POLL_EVERY_S = 0.5


class Skipped(Exception):
    """A row that cannot be measured here; the message says why."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement. `cpu_us`: user and system time for each message, of the process under test;
    `redis_us` of the Redis server; `rss_mb` of the process, None for a tool. `latencies_ms`: from
    the exchange's socket to a reader of Redis, where measured: percentiles 50, 99 and 99.9.
    """

    per_second: float
    cpu_us: float
    redis_us: float
    rss_mb: float | None = None
    latencies_ms: tuple[float, ...] = ()


def cpu_s(pid: int) -> float:
    """User and system time of a process and its threads so far."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.exists():
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return _clock_s(_ps(pid, "time"))


def rss_mb(pid: int) -> float:
    """Resident memory now, in MB."""
    return int(_ps(pid, "rss")) / 1024


@contextmanager
def memory_samples(pid: int) -> Iterator[list[float]]:
    """Samples of the resident memory during the block, in MB. (`ru_maxrss` of a child starts with
    its parent's.)
    """
    samples, is_over = [rss_mb(pid)], threading.Event()

    def sample() -> None:
        while not is_over.wait(POLL_EVERY_S):
            with suppress(subprocess.CalledProcessError):  # the process has ended
                samples.append(rss_mb(pid))

    sampling = threading.Thread(target=sample)
    sampling.start()
    try:
        yield samples
    finally:
        is_over.set()
        sampling.join()


def _ps(pid: int, what: str) -> str:
    command = ["ps", "-o", f"{what}=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _clock_s(text: str) -> float:
    """`[[hours:]minutes:]seconds` as ps writes it."""
    total = 0.0
    for part in text.replace("-", ":").split(":"):
        total = total * 60 + float(part)
    return total
