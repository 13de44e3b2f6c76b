"""The compose file's sets of Redis servers, run as processes on this machine.

Each container runs the command of the file, with names, ports and folders of the test.
"""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from dotenv import dotenv_values

from tests.integration.deploy.compose import ROOT, services
from tests.support.eventually import eventually
from tests.support.redis_server import PORTS, free_port

PORT, SENTINEL_PORT = "6379", "26379"
SCRIPTS = "/etc/redis-start"
BUS_ABOVE = 10_000  # offset of a node's bus port

needs_redis = pytest.mark.skipif(
    not (shutil.which("redis-server") and shutil.which("redis-cli")),
    reason="redis-server and redis-cli are not installed (Debian: redis)",
)


def variables(profile: str) -> dict[str, str]:
    file = dotenv_values(ROOT / "deploy" / f"{profile}.env")
    return {name: value or "" for name, value in file.items()}


class Containers:
    """The containers of one profile, as processes; `stop` and `start` keep their data."""

    def __init__(self, profile: str, folder: Path) -> None:
        self._given = variables(profile)
        self._services = {
            name: one
            for name, one in services(self._given).items()
            if name == "redis" or one.get("profiles") == [profile]
        }
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.ports: dict[str, int] = {}
        self.take_ports()

    def take_ports(self) -> None:
        """Choose new ports, as restarted containers get other addresses."""
        self.ports = {name: _free_node_port() for name in self._services}

    def names(self, kind: str) -> list[str]:
        return [name for name in self._services if name.startswith(kind) and self._is_server(name)]

    def url(self) -> str:
        return self._here(self._given["REDIS_URL"])

    def client(self, name: str) -> redis.Redis:
        return redis.Redis(port=self.ports[name], decode_responses=True, socket_timeout=5)

    def start(self, *names: str) -> None:
        for name in names:
            data = self._folder / name
            data.mkdir(exist_ok=True)
            with (data / "output.txt").open("ab") as output:
                self._processes[name] = subprocess.Popen(
                    self._command(name), cwd=data, env=self._environment(data), stdout=output,
                    stderr=output,
                )  # fmt: skip
        for name in names:
            eventually(lambda name=name: self._answers(name), f"{name} replies")  # type: ignore[misc]

    def run(self, name: str) -> None:
        """Run a container that ends by itself."""
        data = self._folder / name
        data.mkdir(exist_ok=True)
        done = subprocess.run(
            self._command(name), env=self._environment(data), capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def kill(self, *names: str) -> None:
        for name in names:
            self._processes[name].kill()
            self._processes[name].wait()

    def stop(self) -> None:
        for name in self._processes:
            eventually(lambda name=name: self._may_stop(name), f"{name} handles SIGTERM")  # type: ignore[misc]
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.wait(60)  # a primary waits for its replicas

    def _is_server(self, name: str) -> bool:
        return self._services[name]["restart"] == "unless-stopped"

    def _answers(self, name: str) -> bool:
        with self.client(name) as client, contextlib.suppress(redis.RedisError):
            return bool(client.ping())
        return False

    def _may_stop(self, name: str) -> bool:
        """Whether a server reacts to SIGTERM, which it ignores while it writes its first AOF."""
        with self.client(name) as client, contextlib.suppress(redis.RedisError):
            info: Any = client.info("persistence")
            return not info.get("aof_rewrite_in_progress")
        return True

    def _environment(self, data: Path) -> Mapping[str, str]:
        return {"PATH": os.environ["PATH"], "DATA": str(data)}

    def _command(self, name: str) -> Sequence[str]:
        written = self._services[name]["command"]
        port = str(self.ports[name])
        command = [self._here(part, port) for part in written]
        if "start.sh" in command[1]:
            command += ["--port", port, "--bind", "127.0.0.1", "--cluster-node-timeout", "5000"]
        return command

    def _here(self, word: str, port: str = "") -> str:
        """The argument, with addresses and ports of this machine in place of the containers'."""
        word = word.replace(SCRIPTS, str(ROOT / "deploy" / "redis"))
        for name in sorted(self.ports, key=len, reverse=True):
            for between in (":", " "):
                for standard in (PORT, SENTINEL_PORT):
                    place = f"127.0.0.1{between}{self.ports[name]}"
                    word = word.replace(f"{name}{between}{standard}", place)
        if word in self.ports:
            return "127.0.0.1"
        if word == PORT:  # the primary's port, in a Sentinel's arguments
            return str(self.ports["redis"])
        return port if word == SENTINEL_PORT else word


def _free_node_port() -> int:
    """A free port outside the range of ephemeral ports whose bus port is free as well."""
    while True:
        port = free_port()
        with socket.socket() as probe, contextlib.suppress(OSError):
            if port + BUS_ABOVE in PORTS:
                probe.bind(("127.0.0.1", port + BUS_ABOVE))
                return port


@contextlib.contextmanager
def containers(profile: str, folder: Path) -> Iterator[Containers]:
    them = Containers(profile, folder)
    try:
        yield them
    finally:
        them.kill(*them._processes)
