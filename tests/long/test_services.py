"""Every service of docker-compose.yml, run with its own command and environment, without
Compose.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

import pytest
import redis

from bridge.runtime.server_binary import find_server_binary
from tests.integration.deploy.compose import ROOT, demo_variables, services
from tests.support.eventually import eventually

CONSUMERS = ("candles", "book", "orders", "tail")
pytestmark = pytest.mark.timeout(120)
LIMIT_S = 60.0  # many processes start at once


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


class Service:
    """A service as a process of this machine; hosts of the Compose network are local ports."""

    def __init__(self, name: str, folder: Path, hosts: dict[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._service = services(demo_variables())[name]
        self._hosts = hosts | {":9464": f":{free_port()}"}  # all services share one loopback
        environment = self._service.get("environment", {})
        if "env_file" in self._service:
            environment = demo_variables() | environment
        shutil.copy(ROOT / "deploy/demo/config.yaml", folder / "config.yaml")
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            **{key: self._here(value) for key, value in environment.items()},
        }
        if name == "bridge":  # the names of the Compose network do not exist here
            self.environment |= {
                "BRIDGE_EXCHANGE__WS_URL": self._here("ws://simulator:8000"),
                "BRIDGE_EXCHANGE__REST_URL": self._here("http://simulator:8000"),
            }
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        default = ["bridge", "run"]  # the image's CMD
        command = [self._here(part) for part in self._service.get("command", default)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def stop(self) -> int:
        """Stop as Compose does: SIGTERM, and wait for the grace period at most."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds(self._service["stop_grace_period"]))

    def is_healthy(self) -> bool:
        """Whether the image's health check succeeds."""
        port = self._hosts[":9464"].removeprefix(":")
        command = [part.replace("9464", port) for part in healthcheck()]
        return subprocess.run(command, capture_output=True, timeout=LIMIT_S).returncode == 0

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _here(self, text: str) -> str:
        for there, here in self._hosts.items():
            text = text.replace(there, here)
        return text


@contextmanager
def compose_redis(folder: Path) -> Iterator[str]:
    """Redis with the service's own command; only port and folder are this machine's."""
    port = free_port()
    shell, script, *options = services()["redis"]["command"]
    assert (shell, script) == ("sh", "/etc/redis-start/start.sh")
    (folder / "redis-server").symlink_to(str(find_server_binary()))
    path = f"{folder}:{os.environ['PATH']}"
    place = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen(
            [shell, str(ROOT / "deploy" / "redis" / "start.sh"), *options, *place],
            env={"PATH": path, "DATA": str(folder)},
            stdout=log,
            stderr=log,
        )
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(60)


def healthcheck() -> list[str]:
    """The bridge image's HEALTHCHECK, to be run with this Python."""
    text = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    command = re.findall(r"HEALTHCHECK.*? CMD (\[.*\])", text)[-1]
    return [sys.executable, *json.loads(command)[1:]]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="compose-") as name:
        yield Path(name)


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def test_the_whole_of_the_demo_profile_runs_and_stops(folder: Path) -> None:
    with ExitStack() as stack:
        url = stack.enter_context(compose_redis(folder))
        client = redis.Redis.from_url(url, decode_responses=True)
        stack.callback(client.close)
        eventually(lambda: answers(client), "Redis replies")
        simulator = f"127.0.0.1:{free_port()}"
        hosts = {
            "redis://redis:6379/0": url,
            "simulator:8000": simulator,
            "0.0.0.0": "127.0.0.1",
            "8000": simulator.rpartition(":")[2],
        }
        running = {
            name: Service(name, folder, hosts) for name in ("simulator", "bridge", *CONSUMERS)
        }
        for service in running.values():
            stack.callback(service.kill)
            service.start()

        def handled() -> set[str]:
            statuses = cast("dict[str, str]", client.hgetall("consumers:status"))
            documents = [json.loads(text) for text in statuses.values()]
            return {each["group"] for each in documents if each["handled"]}

        eventually(lambda: handled() == set(CONSUMERS), "every consumer has handled some", LIMIT_S)
        for name in ("bridge", *CONSUMERS):
            assert running[name].is_healthy(), running[name].log.read_text()
        assert client.hkeys("bridge:status") == ["bridge"]

        for name in (*CONSUMERS, "bridge", "simulator"):
            assert running[name].stop() == 0, running[name].log.read_text()


def test_redis_keeps_what_it_was_given_and_evicts_nothing(folder: Path) -> None:
    with compose_redis(folder) as url, redis.Redis.from_url(url, decode_responses=True) as client:
        eventually(lambda: answers(client), "Redis replies")
        settings = cast("dict[str, str]", client.config_get("*"))

    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["maxmemory"] == str(1 << 30)
    assert settings["maxmemory-policy"] == "noeviction"


@pytest.mark.parametrize("name", ["bridge", "candles"])
def test_service_without_redis_reports_it_and_is_not_healthy(name: str, folder: Path) -> None:
    hosts = {"redis://redis:6379/0": f"redis://127.0.0.1:{free_port()}/0"}
    service = Service(name, folder, hosts)
    with ExitStack() as stack:
        stack.callback(service.kill)
        service.start()
        eventually(
            lambda: "metrics_served" in service.log.read_text(),
            "the service serves metrics",
            LIMIT_S,
        )

        assert not service.is_healthy()
