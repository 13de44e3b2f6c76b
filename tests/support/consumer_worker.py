"""Worker processes and their Redis, for tests that start, stop and kill workers."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from tests.support import warm
from tests.support.consumer_entries import Fields
from tests.support.eventually import eventually

LIMIT_S = 50.0  # several processes start, on a machine that may be busy
ROOT = Path(__file__).parents[2]


class Worker:
    """A `python -m consumers run …` process; its output goes to files."""

    def __init__(
        self, folder: Path, url: str, *arguments: str, name: str = "", **environment: str
    ) -> None:
        self.name = name or f"w{len(list(folder.glob('*.out')))}"
        self._out = folder / f"{self.name}.out"
        self._err = folder / f"{self.name}.err"
        path = os.pathsep.join([str(ROOT), str(folder)])
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = warm.Process(
                [sys.executable, "-m", "consumers", "run", *arguments, "--name", self.name],
                cwd=folder,
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": path,
                    "BRIDGE_REDIS__URL": url,
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, within_s: float = 20) -> int:
        """Wait for the end of the process; its exit code."""
        return self.process.wait(within_s)

    def stop(self) -> int:
        """Send SIGINT and wait; the exit code."""
        self.signal(signal.SIGINT)
        return self.wait()

    def kill(self) -> None:
        """Send SIGKILL and wait."""
        self.process.kill()
        self.process.wait()


class Bench:
    """A Redis, a folder and the workers started here, which all end with the test."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.redis: redis.Redis = redis.Redis.from_url(url, decode_responses=True, protocol=2)
        self.workers: list[Worker] = []

    def start(self, *arguments: str, name: str = "", **environment: str) -> Worker:
        worker = Worker(self.folder, self.url, *arguments, name=name, **environment)
        self.workers.append(worker)
        return worker

    def register(self, *streams: str) -> None:
        """Add streams to the registry, as the bridge does for each stream it publishes."""
        for stream in streams:
            about = {"type": stream, "identity": "sequenced", "symbol": "", "private": False}
            self.redis.hset("bridge:streams", stream, json.dumps(about))

    def add(self, stream: str, entries: Mapping[str, Fields]) -> None:
        """Append entries, given as fields by ID, in one pipeline."""
        with self.redis.pipeline(transaction=False) as pipeline:
            for entry_id, fields in entries.items():
                pipeline.xadd(stream, fields, id=entry_id)  # type: ignore[arg-type]
            pipeline.execute()

    def group(self, stream: str, name: str) -> dict[str, Any]:
        """The group's fields in XINFO GROUPS; empty if there is no such group."""
        if not self.redis.exists(stream):
            return {}
        for one in self.redis.xinfo_groups(stream):
            if one["name"] == name:
                return dict(one)
        return {}

    def caught_up(self, stream: str, group: str, last_id: str) -> bool:
        """Whether the group was delivered all entries up to `last_id` and none is pending."""
        about = self.group(stream, group)
        return about.get("last-delivered-id") == last_id and about.get("pending") == 0

    def await_group(self, stream: str, group: str, last_id: str) -> None:
        self.until(lambda: self.caught_up(stream, group, last_id))

    def until(self, fact: Callable[[], object]) -> None:
        """Wait until `fact()` is true; on a timeout fail with the workers' stderr."""
        try:
            eventually(fact, "the test's condition is true", limit_s=LIMIT_S)
        except AssertionError as error:
            logs = "\n".join(f"{worker.name}: {worker.err}" for worker in self.workers)
            raise AssertionError(f"{error}\n{logs}") from None

    def status(self, group: str, worker: Worker) -> dict[str, Any]:
        text: Any = self.redis.hget("consumers:status", f"{group}/{worker.name}")
        return dict(json.loads(text)) if text else {}

    def owner(self, stream: str, group: str) -> str:
        """The name of the worker that holds the stream's lease, or an empty text."""
        value: Any = self.redis.get(f"consumers:{{{stream}}}:{group}:lease")
        return str(value).split("/")[0] if value else ""

    def end(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.signal(signal.SIGCONT)
                worker.kill()
        self.redis.close()


@contextmanager
def bench(folder: Path, url: str) -> Iterator[Bench]:
    one = Bench(folder, url)
    try:
        yield one
    finally:
        one.end()
