"""A private Redis-compatible server for tests, on a free port of the loopback, in its own folder.

`RedisServer` can be stopped, killed, frozen and started again with the same port and data.
Fixtures: `redis_server` (one for the session), `redis_url` (emptied before each test).
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bridge.runtime.server_binary import find_server_binary

START_S = 60.0


PORTS = range(10_000, 32_000)  # below the range of ephemeral ports


def free_port() -> int:
    """A free TCP port of the loopback, below the range of ephemeral ports: no connection can take
    it while a test's server is stopped.
    """
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _server_program() -> Path:
    """The server binary that the project would start, or the one that TESTS_SERVER names."""
    named = os.environ.get("TESTS_SERVER")
    return Path(named) if named else find_server_binary()


class RedisServer:
    """A server process, its port and its data folder."""

    def __init__(
        self,
        folder: Path,
        *,
        password: str | None = None,
        appendonly: bool = False,
        options: tuple[str, ...] = (),
        binary: Path | None = None,
    ) -> None:
        self.folder = folder
        self._binary = binary
        self.port = free_port()
        self.password = password
        # Each write reaches the operating system at once, so that a killed server loses none;
        # `everysec` would delay writes on a slow disk.
        kept = ("--appendonly", "yes", "--appendfsync", "no")
        self._options = (*(kept if appendonly else ("--appendonly", "no")), *options)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL, with the password if there is one."""
        userinfo = f":{self.password}@" if self.password else ""
        return f"redis://{userinfo}127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def client(self, **options: Any) -> redis.Redis:
        """A client that never retries; close it, or use it in a `with`."""
        plain = {"retry": Retry(NoBackoff(), 0), "decode_responses": True, "protocol": 2}
        return redis.Redis.from_url(self.url, **(plain | options))

    def start(self) -> None:
        """Start the server and wait until it replies, after it has loaded its data."""
        log = (self.folder / "server.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [str(self._binary or _server_program()), *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._await_answer()

    def stop(self) -> None:
        """Send SIGTERM, as an operator would, and wait for the end."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL: data that was not written is lost."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the server and start it with the same port and data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the server: connections stay open without a reply."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _arguments(self) -> list[str]:
        settings = {
            "--bind": "127.0.0.1",
            "--port": str(self.port),
            "--dir": str(self.folder),
            "--save": "",
            "--maxmemory-policy": "noeviction",
            "--stream-node-max-bytes": "8192",
        }
        if self.password:
            settings["--requirepass"] = self.password
        return [part for pair in settings.items() for part in pair] + list(self._options)

    def _await_answer(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with self.client() as client, contextlib.suppress(redis.RedisError):
                client.ping()
                return
            time.sleep(0.01)  # a pause between two attempts
        raise RuntimeError((self.folder / "server.log").read_text()[-2000:])

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)  # a frozen server would not handle the signal
        process.wait(timeout=START_S)


@contextlib.contextmanager
def running_redis(
    *,
    password: str | None = None,
    appendonly: bool = False,
    options: tuple[str, ...] = (),
    binary: Path | None = None,
) -> Iterator[RedisServer]:
    """A server for one test, ended and removed after it in any state."""
    folder = Path(tempfile.mkdtemp(prefix="redis-"))
    server = RedisServer(
        folder, password=password, appendonly=appendonly, options=options, binary=binary
    )
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The session's server; tests that break a server use `running_redis` instead."""
    with running_redis() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of the session's server, emptied, with connections of earlier tests closed."""
    with redis_server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
        client.flushall()
    return redis_server.url
