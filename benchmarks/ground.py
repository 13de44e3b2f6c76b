"""The environment of a row: a private Redis, the workload, and the processes under test.

A row that receives the exchange's messages starts its program against an `Exchange` and calls
`measured`; one that only uses Redis calls `redis` and `redis_s`.
"""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from redis import ConnectionError as NoAnswer
from redis import Redis

from benchmarks.measure import Sample, cpu_s, rss_mb
from benchmarks.workload import Workload
from bridge.runtime.keyspace import PLAIN, KeySpace
from bridge.runtime.redis_url import SLOTS
from bridge.runtime.server_binary import find_server_binary

ROOT = Path(__file__).resolve().parents[1]
START_LIMIT_S = 20.0
POLL_EVERY_S = 0.02
STALL_S = 60.0


class Broken(Exception):
    """A measurement that did not finish, with the last output of its process."""


@dataclass(frozen=True, slots=True)
class Ground:
    """All that a row of one run needs. `rate` 0 means as fast as possible; `is_read`: a reader
    waits for a stream's entries in Redis and records when they arrive.
    """

    folder: Path
    workload: Workload
    workload_path: Path
    redis_port: int
    redis_pids: Sequence[int]
    rate: float = 0.0
    is_read: bool = False

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.redis_port}/0"

    def redis(self) -> Redis:
        """A plain client; close it, or use it in a `with`."""
        return Redis.from_url(self.redis_url, decode_responses=True, protocol=2)

    @contextlib.contextmanager
    def exchange(self, *options: str) -> Iterator["Exchange"]:
        """The load generator, ready for connections."""
        command = [sys.executable, "-m", "benchmarks.exchange", str(self.workload_path), *options]
        if self.is_read:
            self.folder.mkdir(parents=True, exist_ok=True)
            command += ["--times", str(self._sent_times)]
        with subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                yield Exchange(process)
            finally:
                process.kill()

    @contextlib.contextmanager
    def program(
        self,
        *arguments: str,
        folder: Path | None = None,
        python: str = sys.executable,
        **variables: str,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a Python program (`-m module …`), with its output in `program.log`."""
        where = folder or self.folder
        where.mkdir(parents=True, exist_ok=True)
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables}
        with (where / "program.log").open("wb") as log:
            process = subprocess.Popen(
                [python, *arguments],
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

    def published(
        self,
        process: subprocess.Popen[bytes],
        exchange: "Exchange",
        client: Redis,
        space: KeySpace = PLAIN,
    ) -> Sample:
        """The cost of `process` for all messages of the exchange, until Redis has them."""
        messages = len(self.workload.frames)

        def go() -> None:
            exchange.go(self.rate)

        if not self.is_read:
            return self.measured(process, go, self.all_published(client, space), messages)
        stream = max(self.workload.counts, key=lambda each: self.workload.counts[each])
        return self.read(process, exchange, stream, stream)

    def read(
        self, process: subprocess.Popen[bytes], exchange: "Exchange", stream: str, key: str
    ) -> Sample:
        """As `published`, until a waiting reader has all of one stream, which `process` writes
        under `key`; with the latency of each message.
        """
        messages, count = len(self.workload.frames), self.workload.counts[stream]
        with self._reader(key, count) as reader:
            sample = self.measured(
                process,
                lambda: exchange.go(self.rate),
                lambda: reader.poll() is not None,
                messages,
            )
        exchange.sent()
        return replace(sample, latencies_ms=self._latencies_ms(stream))

    @contextlib.contextmanager
    def _reader(self, stream: str, count: int) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "benchmarks.reader", str(self.redis_port), stream]
        command += [str(count), str(self._read_times)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                process.stdout.readline()
                yield process
            finally:
                process.kill()

    def _latencies_ms(self, stream: str) -> tuple[float, ...]:
        """Latency percentiles 50, 99 and 99.9, without the first tenth of the messages."""
        sent, read = array("d"), array("d")
        sent.frombytes(self._sent_times.read_bytes())
        read.frombytes(self._read_times.read_bytes())
        named = f'"stream":"{stream}"'.encode()
        mine = [
            at_s for at_s, frame in zip(sent, self.workload.frames, strict=True) if named in frame
        ]
        took = [(done_s - at_s) * 1000 for at_s, done_s in zip(mine, read, strict=True)]
        took = sorted(took[len(took) // 10 :])
        return tuple(took[int(share * (len(took) - 1))] for share in (0.5, 0.99, 0.999))

    @property
    def _sent_times(self) -> Path:
        return self.folder / "sent.times"

    @property
    def _read_times(self) -> Path:
        return self.folder / "read.times"

    def measured(
        self,
        process: subprocess.Popen[bytes],
        begin: Callable[[], object],
        is_done: Callable[[], object],
        messages: int,
    ) -> Sample:
        """The cost of `process` from `begin()` until `is_done()`, divided by `messages`."""
        cpu, server = cpu_s(process.pid), self.redis_s()
        begun_s = time.monotonic()
        begin()
        self.wait_for(is_done, process, messages / (self.rate or 1e9) + STALL_S)
        seconds = time.monotonic() - begun_s
        return Sample(
            per_second=messages / seconds,
            cpu_us=(cpu_s(process.pid) - cpu) / messages * 1e6,
            redis_us=(self.redis_s() - server) / messages * 1e6,
            rss_mb=rss_mb(process.pid),
        )

    def redis_s(self) -> float:
        """Processor time of the Redis servers so far, in seconds."""
        return sum(map(cpu_s, self.redis_pids))

    def wait_for(
        self, fact: Callable[[], object], process: subprocess.Popen[bytes], limit_s: float
    ) -> None:
        """Poll until `fact()` is true. Raises Broken where the process ends or time runs out."""
        ends_s = time.monotonic() + limit_s
        while not fact():
            if process.poll() is not None or time.monotonic() > ends_s:
                log = self.folder / "program.log"
                output = log.read_text()[-500:] if log.exists() else ""
                raise Broken(f"not done (exit code {process.poll()}): {output}")
            time.sleep(POLL_EVERY_S)

    def all_published(self, client: Redis, space: KeySpace = PLAIN) -> Callable[[], bool]:
        """A test whether Redis has as many entries of each stream as there are messages."""
        counts: Mapping[str, int] = self.workload.counts

        def is_complete() -> bool:
            pipeline = client.pipeline(transaction=False)
            for stream in counts:
                pipeline.xlen(space.key(stream))
            lengths: Sequence[Any] = pipeline.execute()
            return all(
                length >= count for length, count in zip(lengths, counts.values(), strict=True)
            )

        return is_complete


class Exchange:
    """The load generator, as seen by its driver."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.port = int(self._line("ready")[0])
        self.ws_url = f"ws://127.0.0.1:{self.port}"
        self.rest_url = f"http://127.0.0.1:{self.port}"

    def wait_until_subscribed(self) -> None:
        """Wait for a subscription. Raises Broken where none comes in time."""
        alarm = threading.Timer(START_LIMIT_S, self._process.kill)
        alarm.start()
        try:
            self._line("subscribed")
        finally:
            alarm.cancel()

    def go(self, rate: float) -> None:
        """Start sending everything."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"go {rate}\n")
        self._process.stdin.flush()

    def sent(self) -> tuple[float, float]:
        """Wait until everything is sent. Returns the time and the processor time, in seconds."""
        seconds, cpu = self._line("sent")
        return float(seconds), float(cpu)

    def _line(self, word: str) -> list[str]:
        assert self._process.stdout is not None
        first, *rest = self._process.stdout.readline().split() or [""]
        if first != word:
            raise Broken(f"the load generator printed {first!r} instead of {word!r}")
        return rest


@contextlib.contextmanager
def redis_server(folder: Path, *more: str) -> Iterator[tuple[int, int]]:
    """A private server without persistence, with `more` options: its port and process id."""
    port = free_port()
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


def free_port() -> int:
    """A port on which no program listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def redis_cluster(folder: Path, nodes: int) -> Iterator[tuple[str, Sequence[int]]]:
    """A Cluster whose nodes share the slots evenly: its URL, and the nodes' process ids."""
    with contextlib.ExitStack() as stack:
        buses = [free_port() for _ in range(nodes)]
        started = []
        for number, bus in enumerate(buses):
            (where := folder / f"node-{number}").mkdir(parents=True)
            options = ("--cluster-enabled", "yes", "--cluster-port", str(bus))
            started.append(stack.enter_context(redis_server(where, *options)))
        clients = [stack.enter_context(Redis(port=port)) for port, _ in started]
        for number, client in enumerate(clients):
            low, high = SLOTS * number // nodes, SLOTS * (number + 1) // nodes
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", low, high - 1)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for (port, _), bus in zip(started, buses, strict=True):
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port, bus)
        ends_s = time.monotonic() + START_LIMIT_S
        while not all(_is_whole(client, nodes) for client in clients):
            if time.monotonic() > ends_s:
                raise Broken("the nodes of the Cluster did not find each other")
            time.sleep(POLL_EVERY_S)
        hosts = ",".join(f"127.0.0.1:{port}" for port, _ in started)
        yield f"redis+cluster://{hosts}/0", [pid for _, pid in started]


def _is_whole(client: Redis, nodes: int) -> bool:
    info: bytes = client.execute_command("CLUSTER", "INFO")  # type: ignore[no-untyped-call]
    lines = info.split()
    return b"cluster_state:ok" in lines and b"cluster_known_nodes:%d" % nodes in lines


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
                time.sleep(POLL_EVERY_S)
