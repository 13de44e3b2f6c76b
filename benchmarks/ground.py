"""What rows stand on: a private Redis, the workload, and the processes of one measurement.

A row that reads what the exchange sends starts its program against an `Exchange` and calls
`measured`; one that only talks to Redis uses `redis` and `redis_pid`.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import ConnectionError as NoAnswer
from redis import Redis

from benchmarks.measure import Sample, cpu_s, rss_mb
from benchmarks.workload import Workload
from bridge.runtime.server_binary import find_server_binary

ROOT = Path(__file__).resolve().parents[1]
START_LIMIT_S = 20.0
LOOK_EVERY_S = 0.02
STALL_S = 60.0


class Broken(Exception):
    """A measurement that did not come to its end, and what its process said last."""


@dataclass(frozen=True, slots=True)
class Ground:
    """One run's: everything a row needs. `rate` 0 means as fast as it goes."""

    folder: Path
    workload: Workload
    workload_path: Path
    redis_port: int
    redis_pid: int
    rate: float = 0.0

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.redis_port}/0"

    def redis(self) -> Redis:
        """A plain client; close it, or use it in a `with`."""
        return Redis.from_url(self.redis_url, decode_responses=True, protocol=2)

    @contextlib.contextmanager
    def exchange(self, *options: str) -> Iterator["Exchange"]:
        """The load generator, listening."""
        command = [sys.executable, "-m", "benchmarks.exchange", str(self.workload_path), *options]
        with subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                yield Exchange(process)
            finally:
                process.kill()

    @contextlib.contextmanager
    def program(
        self, *arguments: str, folder: Path | None = None, **variables: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A Python program of ours (`-m module …`), its output in `program.log`."""
        where = folder or self.folder
        where.mkdir(parents=True, exist_ok=True)
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables}
        with (where / "program.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=where,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def measured(
        self,
        process: subprocess.Popen[bytes],
        begin: Callable[[], object],
        is_done: Callable[[], object],
        messages: int,
    ) -> Sample:
        """What `process` spends from `begin()` until `is_done()`, for each of so many messages."""
        cpu, server = cpu_s(process.pid), cpu_s(self.redis_pid)
        begun_s = time.monotonic()
        begin()
        self.wait_for(is_done, process, messages / (self.rate or 1e9) + STALL_S)
        seconds = time.monotonic() - begun_s
        return Sample(
            per_second=messages / seconds,
            cpu_us=(cpu_s(process.pid) - cpu) / messages * 1e6,
            redis_us=(cpu_s(self.redis_pid) - server) / messages * 1e6,
            rss_mb=rss_mb(process.pid),
        )

    def wait_for(
        self, fact: Callable[[], object], process: subprocess.Popen[bytes], limit_s: float
    ) -> None:
        """Look until `fact()` is true; Broken where the process ends or the time is over."""
        ends_s = time.monotonic() + limit_s
        while not fact():
            if process.poll() is not None or time.monotonic() > ends_s:
                log = self.folder / "program.log"
                said = log.read_text()[-500:] if log.exists() else ""
                raise Broken(f"not done (exit code {process.poll()}): {said}")
            time.sleep(LOOK_EVERY_S)

    def all_published(self, client: Redis) -> Callable[[], bool]:
        """Does Redis hold as many entries of each stream as there are messages?"""
        counts: Mapping[str, int] = self.workload.counts

        def look() -> bool:
            pipeline = client.pipeline(transaction=False)
            for stream in counts:
                pipeline.xlen(stream)
            lengths: Sequence[Any] = pipeline.execute()
            return all(
                there >= wanted for there, wanted in zip(lengths, counts.values(), strict=True)
            )

        return look


class Exchange:
    """The load generator as its driver sees it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.port = int(self._line("ready")[0])
        self.ws_url = f"ws://127.0.0.1:{self.port}"
        self.rest_url = f"http://127.0.0.1:{self.port}"

    def wait_until_subscribed(self) -> None:
        self._line("subscribed")

    def go(self, rate: float) -> None:
        """Begin to send everything."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"go {rate}\n")
        self._process.stdin.flush()

    def sent(self) -> tuple[float, float]:
        """How long sending took, and what it cost, in seconds."""
        seconds, cpu = self._line("sent")
        return float(seconds), float(cpu)

    def _line(self, word: str) -> list[str]:
        assert self._process.stdout is not None
        first, *rest = self._process.stdout.readline().split() or [""]
        if first != word:
            raise Broken(f"the load generator said {first!r} instead of {word!r}")
        return rest


@contextlib.contextmanager
def redis_server(folder: Path, *more: str) -> Iterator[tuple[int, int]]:
    """A private server without persistence, with `more` options: its port and process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    options += ["--dir", str(folder), *more]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen(
            [str(find_server_binary()), *options],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _await_answer(port)
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


def _await_answer(port: int) -> None:
    ends_s = time.monotonic() + START_LIMIT_S
    with Redis(port=port) as client:
        while True:
            try:
                client.ping()
                return
            except NoAnswer:
                if time.monotonic() > ends_s:
                    raise
                time.sleep(LOOK_EVERY_S)
