"""Faults: one simulator, one Redis, all writers at once, so that all of them get the same messages
and the same fault. The simulator's trades are the reference.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from redis import ConnectionError as NoAnswer
from redis import Redis
from redis.exceptions import BusyLoadingError

from benchmarks.compare.peers import Place, Writer
from benchmarks.ground import ROOT, Broken, free_port
from bridge.runtime.server_binary import find_server_binary

MARKETS = ("SOL_USDC", "BTC_USDC")
START_S = 40.0
POLL_EVERY_S = 0.2
KILLS, REPLIES, HIDDEN_S = 3, 20, 4.0


@dataclass(frozen=True, slots=True)
class Arrived:
    """The fate of `sent` trades. `marked`: not in Redis, but in a gap entry; `lost`: not in Redis
    and in no gap; `doubled`: surplus entries of the same trades.
    """

    sent: int
    lost: int
    marked: int
    doubled: int


def judge(sent: Sequence[int], entries: Sequence[Mapping[str, str]], writer: Writer) -> Arrived:
    """Compare the exchange's trade numbers with a stream's entries. Pure."""
    counts: Counter[int] = Counter()
    marked: set[int] = set()
    for entry in entries:
        if entry.get("type") == "gap":
            if entry["from"]:  # empty at the start of the stream
                marked.update(range(int(entry["from"]), int(entry["to"]) + 1))
        elif (number := writer.trade_id(entry)) is not None:
            counts[int(number)] += 1
    missing = {each for each in sent if not counts[each]}
    doubled = sum(counts[each] - 1 for each in sent if counts[each])
    return Arrived(len(sent), len(missing - marked), len(missing & marked), doubled)


class RedisProcess:
    """A server with an append-only file, on its own port, which can be killed."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self._command = [str(find_server_binary()), *options, "--appendonly", "yes"]
        self._command += ["--dir", str(folder), "--logfile", str(folder / "redis.log")]
        self._process: subprocess.Popen[bytes] | None = None

    def client(self) -> Redis:
        return Redis(port=self.port, decode_responses=True, protocol=2)

    def start(self) -> None:
        self._process = subprocess.Popen(self._command)
        if not wait_for(self._answers):
            raise Broken("Redis does not answer")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        with self.client() as client, contextlib.suppress(NoAnswer, BusyLoadingError):
            return bool(client.ping())
        return False


class Proxy:
    """A proxy between a writer and Redis: `lose_reply` closes the connection instead of forwarding
    the next reply, after Redis has executed the request.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lose = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_reply(self) -> None:
        self._lose.set()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    near.close()
                    continue
                far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for forward in (self._requests, self._replies):
                    threading.Thread(target=forward, args=(near, far), daemon=True).start()

    def _requests(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(1 << 16):
                far.sendall(data)
        _close(near, far)

    def _replies(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(1 << 16):
                if self._lose.is_set():
                    self._lose.clear()
                    break
                near.sendall(data)
        _close(near, far)


def _close(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


@dataclass
class Scene:
    """All parts of one run."""

    folder: Path
    url: str  # the simulator's
    redis: RedisProcess
    proxies: Mapping[str, Proxy]
    writers: list[Writer]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, writer: Writer) -> None:
        folder = self.folder / "".join(filter(str.isalnum, writer.name))
        redis_url = f"redis://127.0.0.1:{self.proxies[writer.name].port}/0"
        place = Place(folder, self.url.replace("http", "ws"), self.url, redis_url, MARKETS)
        self.processes[writer.name] = start(writer.command(place), folder)

    def entries(self, writer: Writer, market: str) -> list[dict[str, str]]:
        with self.redis.client() as client:
            found: Any = client.xrange(writer.key_of(market))
        return [fields for _, fields in found]

    def newest(self) -> dict[str, int]:
        """The last trade number of each market."""
        return {market: self._trades(market)[-1] for market in MARKETS}

    def silent(self, after: Mapping[str, int]) -> list[Writer]:
        """The writers that have not written a newer trade to each stream."""
        return [writer for writer in self.writers if not self._has_newer(writer, after)]

    def verdict(self, begin: Mapping[str, int], end: Mapping[str, int]) -> dict[str, Arrived]:
        """The fate of the trades after `begin` and up to `end`, by writer."""
        verdicts = {}
        for writer in self.writers:
            parts = [
                judge(range(begin[market] + 1, end[market] + 1), entries, writer)
                for market in MARKETS
                for entries in [self.entries(writer, market)]
            ]
            verdicts[writer.name] = Arrived(
                *(sum(getattr(part, name) for part in parts) for name in Arrived.__slots__)
            )
        return verdicts

    def fault(self, command: Mapping[str, object]) -> None:
        body = json.dumps(command).encode()
        request = urllib.request.Request(f"{self.url}/simulator/faults", body)
        with urllib.request.urlopen(request, timeout=10) as reply:
            reply.read()

    def _has_newer(self, writer: Writer, after: Mapping[str, int]) -> bool:
        with self.redis.client() as client:
            for market in MARKETS:
                newest: Any = client.xrevrange(writer.key_of(market), count=1)
                if not newest or int(writer.trade_id(newest[0][1]) or 0) <= after[market]:
                    return False
        return True

    def _trades(self, market: str) -> list[int]:
        url = f"{self.url}/simulator/trades?symbol={market}"
        with urllib.request.urlopen(url, timeout=10) as reply:
            return [trade["id"] for trade in json.load(reply)]


def redis_killed(seconds: float) -> Callable[[Scene], None]:
    def play(scene: Scene) -> None:
        scene.redis.kill()
        time.sleep(seconds)
        scene.redis.start()

    return play


def replies_lost(scene: Scene) -> None:
    for _ in range(REPLIES):
        for proxy in scene.proxies.values():
            proxy.lose_reply()
        time.sleep(0.3)


def exchange_skips(scene: Scene) -> None:
    scene.fault({"fault": "hide", "stream": "trade.*", "share": 0.1, "for_s": HIDDEN_S})
    time.sleep(HIDDEN_S)


def process_killed(scene: Scene) -> None:
    for _ in range(KILLS):
        for writer in scene.writers:
            scene.processes[writer.name].kill()
            scene.processes[writer.name].wait()
        at = scene.newest()
        for writer in scene.writers:
            scene.start(writer)
        wait_for(partial(_all_write, scene, at))


def _all_write(scene: Scene, after: Mapping[str, int]) -> bool:
    return not scene.silent(after)


def play(
    writers: Sequence[Writer],
    fault: Callable[[Scene], None],
    folder: Path,
    rate: float,
    settle_s: float,
) -> dict[str, Arrived]:
    """Play one fault; returns what arrived in each writer's streams, by name. A writer has
    `settle_s` after it to recover missing trades. One that wrote nothing before it is left out.
    """
    with _scene(writers, folder, rate) as scene:
        wait_for(partial(_all_write, scene, dict.fromkeys(MARKETS, 0)))
        for writer in scene.silent(dict.fromkeys(MARKETS, 0)):
            scene.processes[writer.name].kill()
            scene.writers.remove(writer)
        begin = scene.newest()
        time.sleep(1)
        fault(scene)
        time.sleep(2)
        end = scene.newest()
        ends_s = time.monotonic() + settle_s
        while True:
            verdicts = scene.verdict(begin, end)
            missing = any(each.lost or each.marked for each in verdicts.values())
            if not missing or time.monotonic() > ends_s:
                return verdicts
            time.sleep(1)


@contextlib.contextmanager
def _scene(writers: Sequence[Writer], folder: Path, rate: float) -> Iterator[Scene]:
    redis = RedisProcess(folder / "redis")
    redis.start()
    command = [sys.executable, "-m", "simulator", "--rate", str(rate)]
    command += [word for market in MARKETS for word in ("--market", market)]
    simulator = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    proxies = {writer.name: Proxy(redis.port) for writer in writers}
    scene = Scene(folder, "", redis, proxies, list(writers))
    try:
        assert simulator.stdout is not None
        scene.url = simulator.stdout.readline().split()[-1].replace("ws://", "http://")
        for writer in writers:
            scene.start(writer)
        yield scene
    finally:
        simulator.kill()
        simulator.communicate()
        for process in scene.processes.values():
            process.kill()
            process.wait()
        redis.kill()
        for proxy in proxies.values():
            proxy.close()


def start(command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start a peer's process, with its output in `program.log`."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    with (folder / "program.log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


def wait_for(fact: Callable[[], bool], limit_s: float = START_S) -> bool:
    """Wait until `fact()` is true. Returns False after the time limit."""
    ends_s = time.monotonic() + limit_s
    while not fact():
        if time.monotonic() > ends_s:
            return False
        time.sleep(POLL_EVERY_S)
    return True
