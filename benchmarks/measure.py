"""What a row is measured by: processor time and memory, as the operating system counts them."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

LOOK_EVERY_S = 0.5


class Skipped(Exception):
    """This row cannot be measured here, and why."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement. `cpu_us`: user and system time a message, of the process under test;
    `redis_us` of the Redis server; `rss_mb` of the process, None where it is a tool's.
    `latencies_ms`: from the exchange's socket until a reader of Redis has it, where that is looked
    at: the median, and what 99 and 99.9 of a hundred do not exceed.
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
    """Resident memory now."""
    return int(_ps(pid, "rss")) / 1024


@contextmanager
def memory_looks(pid: int) -> Iterator[list[float]]:
    """Resident memory at several moments of what happens meanwhile. (`ru_maxrss` of a child begins
    with what its parent had.)
    """
    looks, is_over = [rss_mb(pid)], threading.Event()

    def look() -> None:
        while not is_over.wait(LOOK_EVERY_S):
            with suppress(subprocess.CalledProcessError):  # it is over
                looks.append(rss_mb(pid))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield looks
    finally:
        is_over.set()
        looking.join()


def _ps(pid: int, what: str) -> str:
    asked = ["ps", "-o", f"{what}=", "-p", str(pid)]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def _clock_s(text: str) -> float:
    """`[[hours:]minutes:]seconds` as ps writes it."""
    total = 0.0
    for part in text.replace("-", ":").split(":"):
        total = total * 60 + float(part)
    return total
